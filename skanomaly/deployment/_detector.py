"""An exported model as a scikit-learn detector."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from skanomaly._docstrings import document
from skanomaly._faults import of_an_image
from skanomaly._images import check_images, load_image
from skanomaly._stamps import file_digest, file_stamp
from skanomaly._typing import FloatArray, Images, IntArray, Labels, PathLike
from skanomaly.core.calibration import conformal_p_values
from skanomaly.deployment._files import files_of
from skanomaly.deployment._running import Run, open_exported
from skanomaly.detectors._base import ImageDetector
from skanomaly.embedders._docstrings import EMBEDDER_DOCS


@document(EMBEDDER_DOCS)
class DeployedDetector(ImageDetector):
    """A model that :func:`skanomaly.export_model` wrote, as a detector of images.

    What runs is the graph in the file, by ONNX Runtime or OpenVINO, as it runs on the line: with
    this, what is in a file is measured, drawn and compared as any other detector is.

    Parameters
    ----------
    path : str or os.PathLike
        The ``.onnx`` file, or the ``.xml`` file of OpenVINO with its ``.bin`` beside it.

    Attributes
    ----------
    offset_ : float
        The threshold in the file.
    train_scores_ : ndarray of shape (n_images,), float64
        Held-out scores of the training images, by which p-values are known; not there where the
        exported detector had none.
    calibration_ : dict of str to object
        Where the threshold is from.
    patch_limits_ : tuple of float
        Limits of colours, where the exported detector had them.
    manifest_ : dict of str to object
        All that the file says of itself: versions, parameters, digests of training images and
        weights, sizes, and how far the graph was from its pipeline.

    Notes
    -----
    `fit` learns nothing: whatever it is given, the model is the one in the file. Other attributes
    are known after `fit`, or after the first image was scored.

    To a graph all images are new: a training image gets the score of any other image, not its
    held-out score.

    Images have to be of the size of the graph, if it has one, and of 8 bits. Pickles hold the path
    and the digest of the file, not the model; where the file is no longer the same, an error says
    so.

    Examples
    --------
    >>> from skanomaly import DeployedDetector
    >>> detector = DeployedDetector("parts.onnx")
    >>> detector.predict(["part_1.png"])  # doctest: +SKIP
    array([1])
    """

    _parameter_constraints: dict = {"path": [str, os.PathLike]}

    patch_limits_: tuple[float, float]

    def __init__(self, path: PathLike) -> None:
        self.path = path

    @property
    def manifest_(self) -> dict[str, Any]:
        """All that the file says of itself."""
        return self._open()[1]

    def fit(self, X: Any = None, y: Labels = None) -> DeployedDetector:
        """Open the file; nothing is learned.

        Parameters
        ----------
        X : Ignored
            Present for scikit-learn's API.
        y : Ignored
            Present for scikit-learn's API.

        Returns
        -------
        self : DeployedDetector
            Itself.
        """
        self._open()
        return self

    def fit_predict(self, X: Images, y: Labels = None) -> IntArray:
        """Call each image; nothing is learned.

        Parameters
        ----------
        %(X)s
        y : Ignored
            Present for scikit-learn's API.

        Returns
        -------
        ndarray of shape (n_images,), int
            What ``predict(X)`` returns.
        """
        return self.predict(X)

    def score_samples(self, X: Images) -> FloatArray:
        """Score of each image: higher is more normal.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            The output ``score`` of the graph.
        """
        return np.array([float(found["score"][0]) for found in self._outputs(X)])

    def score_maps(
        self, X: Images, *, size: Literal["image", "model"] = "image", return_scores: bool = False
    ) -> FloatArray | list[FloatArray] | tuple[FloatArray | list[FloatArray], FloatArray]:
        """Heat map of each image: higher is more anomalous.

        Parameters
        ----------
        %(X)s
        size : {"image", "model"}, default="image"
            The map of the file, at the size of each image; or the scores of patches of which it is
            made.
        return_scores : bool, default=False
            Return `score_samples` too, from the same computation.

        Returns
        -------
        maps : ndarray of shape (n_images, height, width), or list of ndarray of (height, width)
            One float32 array where the sizes agree.
        scores : ndarray of shape (n_images,), float64
            Only with `return_scores`.
        """
        if size not in ("image", "model"):
            raise ValueError(f"size must be 'image' or 'model', got {size!r}")
        name = "anomaly_map" if size == "image" else "patch_scores"
        each, scores = [], []
        for found in self._outputs(X):
            each.append(found[name][0])
            scores.append(float(found["score"][0]))
        maps = np.stack(each) if len({heat.shape for heat in each}) == 1 else each
        return (maps, np.array(scores)) if return_scores else maps

    def p_values(self, X: Images) -> FloatArray:
        """Conformal p-value of each image, as from the exported detector.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            ``(1 + #{held-out training images at least as anomalous}) / (n + 1)``.

        Raises
        ------
        AttributeError
            When the exported detector has none.
        """
        self._open()
        if not hasattr(self, "train_scores_"):
            raise AttributeError(
                f"{self.path} gives no p-values: the detector in it was exported without held-out "
                "scores of good images"
            )
        return conformal_p_values(self.train_scores_, self.score_samples(X), self._train_groups)

    def _offset(self) -> float:
        self._open()
        return self.offset_

    def _p_values_of(self, scores: FloatArray) -> FloatArray | None:
        self._open()
        return super()._p_values_of(scores)

    def _open(self) -> tuple[Run, dict[str, Any]]:
        """What runs the file, and what it says; attributes are set when it is first opened."""
        self._validate_params()
        path = Path(self.path).expanduser()
        stamps = tuple(file_stamp(file) for file in files_of(path) if file.exists())
        run, manifest, digest = _opened(str(path), stamps)
        known, before = self.__dict__.get("_file", (None, None))
        if known == self.path and before != digest:
            raise ValueError(
                f"{path} is another file than the one that this detector was opened with: make a "
                "new DeployedDetector of it"
            )
        if known != self.path:
            self._take(manifest)
            self._file = self.path, digest
        return run, manifest

    def _take(self, manifest: dict[str, Any]) -> None:
        for name in ("train_scores_", "patch_limits_", "_train_groups"):
            self.__dict__.pop(name, None)
        threshold = manifest["threshold"]
        self.offset_ = float(threshold["offset"])
        self.calibration_ = dict(threshold["calibration"])
        self.contamination = self.calibration_.get("contamination")
        if threshold["train_scores"] is not None:
            self.train_scores_ = np.array(threshold["train_scores"], dtype=np.float64)
        if threshold["groups"] is not None:
            self._train_groups = np.array(threshold["groups"], dtype=np.int64)
        if threshold["patch_limits"] is not None:
            low, high = threshold["patch_limits"]
            self.patch_limits_ = float(low), float(high)

    def _outputs(self, X: Images) -> Any:
        """Outputs of the graph for each image."""
        run, manifest = self._open()
        size = manifest["height"], manifest["width"]
        for i, item in enumerate(check_images(X)):
            image = load_image(item, i)
            if image.dtype != np.uint8:
                raise of_an_image(
                    ValueError(f"image {i} has more than 8 bits, and {self.path} takes 8 bits")
                )
            if size not in (image.shape[:2], ("any", "any")):
                raise of_an_image(
                    ValueError(
                        f"image {i} is {image.shape[:2]}, and {self.path} takes images of {size} "
                        "(height, width): export the model for images of that size"
                    )
                )
            yield self._checked(run, image, i)

    def _checked(self, run: Run, image: Any, number: int) -> dict[str, Any]:
        """Outputs of the graph for an image, which are what they are called."""
        try:
            found = run(image[None])
            score, heat, patches = (
                found[name] for name in ("score", "anomaly_map", "patch_scores")
            )
            if score.shape != (1,) or not np.isfinite(score).all():
                raise ValueError(f"the score is {score}")
            if heat.shape != (1, *image.shape[:2]) or patches.ndim != 3 or len(patches) != 1:
                raise ValueError(f"of {image.shape[:2]} the map is {heat.shape[1:]}")
        except MemoryError:
            raise
        except Exception as exc:  # each runtime has kinds of its own
            reason = f"it lacks {exc}" if isinstance(exc, KeyError) else exc
            raise ValueError(
                f"{self.path} is no graph from images to scores and maps, as is seen at image "
                f"{number} ({reason}): export the model again"
            ) from exc
        return found

    def _fingerprint(self) -> dict[str, object]:
        """All that scores and the threshold depend on but the images."""
        return {"file": file_digest(Path(self.path).expanduser())}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return True


@lru_cache(maxsize=4)
def _opened(path: str, stamps: object) -> tuple[Run, dict[str, Any], str]:
    """A model in its runtime, for all detectors of the process."""
    run, manifest = open_exported(Path(path))
    return run, manifest, file_digest(path)
