"""What a detector depends on, and what of it a pickle and a clone hold."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from skanomaly._calibrated import CalibratedEstimator
from skanomaly._typing import PathLike
from skanomaly.anomalib._files import checkpoint_digest

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


class FileBackedDetector(CalibratedEstimator):
    """Base of the detector, as far as it holds a path and a digest in place of its model."""

    checkpoint_path: PathLike | None
    normalized: bool
    family: str | None
    _loaded: tuple[bool | None, str | None]

    @property
    def raw_scores_(self) -> bool | None:
        """Whether scores are from before anomalib's post-processor, which clips them to [0, 1].

        False also for a graph of normalised scores only, which warns; None with `inferencer`.
        """
        unclipped = self._facts()[0]
        return None if unclipped is None else unclipped and not self.normalized

    @property
    def family_(self) -> str | None:
        """The kind of model; None where neither the file nor `family` says it."""
        return self._facts()[1] or self.family

    def _facts(self) -> tuple[bool | None, str | None]:
        # Nothing is loaded here: whatever shows an estimator reads its properties.
        if "_loaded" not in self.__dict__:
            raise AttributeError("known once the model was loaded, to fit or to score images")
        return self._loaded

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

    def _fingerprint(self) -> dict[str, object]:
        """All that scores and the threshold depend on but the images: values by name."""
        path = self.checkpoint_path
        digest = None if path is None else checkpoint_digest(path)
        others = {n: getattr(self, n) for n in _PARAMS_OF_FIT if n != "checkpoint_path"}
        return {"checkpoint": digest, **others}

    def _params_changed(self) -> list[str]:
        return [name for name in self._changed_params() if name in _PARAMS_OF_FIT]
