"""What a detector depends on, and what of it a pickle and a clone hold."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from skanomaly._calibrated import CalibratedEstimator
from skanomaly._typing import FloatArray, IntArray, PathLike
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

# What a fit that fails must not leave of the one before.
SET_BY_FIT = (
    "offset_",
    "train_scores_",
    "calibration_",
    "patch_limits_",
    "_held_out_grids",
    "_file",
    "_params_at_fit",
)
# Of the maps of good images that are kept: 256 of 256 x 256, 64 MB. Of more images, those at even
# steps are.
_MOST_VALUES = 2**24


class HeldOutMaps:
    """Maps of good images, in bounded memory: of all, or of images at even steps.

    Parameters
    ----------
    images : ndarray of shape (n_images,), int
        Numbers of the good images, ascending; maps of others are not kept.

    Attributes
    ----------
    maps : list of ndarray of shape (height, width)
        Those that are kept, in the order of the images.
    """

    def __init__(self, images: IntArray) -> None:
        self.maps: list[FloatArray] = []
        self._images = set(images.tolist())
        self._step, self._next, self._size = 1, 0, 0

    def add(self, image: int, heat: FloatArray) -> None:
        """Keep the map of an image, if it is good and one of those at even steps."""
        if image not in self._images:
            return
        number, self._next = self._next, self._next + 1
        if number % self._step:
            return
        self.maps.append(np.array(heat, dtype=np.float32))  # not a part of a whole batch
        self._size += heat.size
        while self._size > _MOST_VALUES and len(self.maps) > 1:
            self.maps, self._step = self.maps[::2], 2 * self._step
            self._size = sum(kept.size for kept in self.maps)


class FileBackedDetector(CalibratedEstimator):
    """Base of the detector, as far as it holds a path and a digest in place of its model."""

    checkpoint_path: PathLike | None
    normalized: bool
    family: str | None
    _loaded: tuple[bool | None, str | None]
    _held_out_grids: list[FloatArray]

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

    @property
    def held_out_patches_(self) -> list[FloatArray]:
        """Maps, at the model's own size, of the images of `fit`, or of some at even steps."""
        if "_held_out_grids" not in vars(self):
            raise AttributeError("held_out_patches_ are known after fit, of a model with maps")
        return self._held_out_grids

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

    def _params_changed(self) -> list[str]:
        return [name for name in self._changed_params() if name in _PARAMS_OF_FIT]
