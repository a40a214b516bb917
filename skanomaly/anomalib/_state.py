"""What a detector depends on, and what of it a pickle and a clone hold."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from sklearn.exceptions import NotFittedError

from skanomaly._parameters import Estimator
from skanomaly._typing import PathLike
from skanomaly.anomalib._files import checkpoint_digest, checkpoint_files

# What the scores and the threshold depend on; the others say how and where they are computed.
_PARAMS_OF_FIT = (
    "checkpoint_path",
    "contamination",
    "inferencer",
    "family",
    "normalized",
    "interpolation",
    "value_range",
)


class FileBackedDetector(Estimator):
    """Base of the detector, as far as it holds a path and a digest in place of its model."""

    checkpoint_path: PathLike | None

    def __sklearn_clone__(self) -> FileBackedDetector:
        # scikit-learn would copy the inferencer, which a compiled model refuses.
        copy = type(self)(**self.get_params(deep=False))
        if hasattr(self, "_metadata_request"):  # as scikit-learn's own clone
            copy._metadata_request = deepcopy(self._metadata_request)
        return copy

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        path = self.checkpoint_path
        if path is not None and state.get("_file", (None,))[0] != path:
            state = {**state, "_file": (path, checkpoint_digest(path))}
        return state

    def _weight_files(self, fetch: bool) -> tuple[str, str | None, list[Path]] | None:
        """Name of the parameter and the files of the checkpoint, see `skanomaly.persistence`."""
        if self.checkpoint_path is None:
            return None
        files = checkpoint_files(self.checkpoint_path)
        if fetch and len(files) > 1 and files[0].suffix != ".xml":
            raise ValueError(
                f"{files[0]} has its weights in files of other names, which no model file holds: "
                "export it again as one ONNX file"
            )
        return "checkpoint_path", None, files

    def _fingerprint(self) -> dict[str, object]:
        """All that scores and the threshold depend on but the images: values by name."""
        path = self.checkpoint_path
        digest = None if path is None else checkpoint_digest(path)
        others = {n: getattr(self, n) for n in _PARAMS_OF_FIT if n != "checkpoint_path"}
        return {"checkpoint": digest, **others}

    def _check_unchanged(self) -> None:
        """NotFittedError where a parameter that bears on the threshold is not that of `fit`."""
        if changed := [name for name in self._changed_params() if name in _PARAMS_OF_FIT]:
            names = ", ".join(changed)
            raise NotFittedError(f"{names} of this detector changed since fit; call fit again")
