"""Models trained or exported with anomalib, as scikit-learn estimators."""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from skanomaly._calibrated import CONTAMINATION
from skanomaly._docstrings import document
from skanomaly._images import check_images
from skanomaly._images.training import training_images
from skanomaly._labels import normal_images
from skanomaly._sklearn import HasMethods, Interval, StrOptions
from skanomaly._typing import FloatArray, Images, IntArray, Labels, PathLike, ValueRange
from skanomaly.anomalib._files import Backend
from skanomaly.anomalib._formats import open_checkpoint
from skanomaly.anomalib._inferencers import InferencerBackend, score_batches
from skanomaly.anomalib._state import SET_BY_FIT, FileBackedDetector, HeldOutMaps
from skanomaly.core.calibration import patch_score_limits
from skanomaly.detectors._base import ImageDetector
from skanomaly.embedders._docstrings import EMBEDDER_DOCS


@document(EMBEDDER_DOCS)
class AnomalibDetector(ImageDetector, FileBackedDetector):
    """A model trained with anomalib, as a detector of images that is ready for use.

    `score_samples` and `score_maps` need no `fit`. `fit` trains nothing: it sets the threshold by
    the scores of good images, which anomalib should not have trained on.

    Parameters
    ----------
    checkpoint_path : str, os.PathLike or None, default=None
        The model: a ``.ckpt`` of anomalib's training, or an exported ``.onnx``, OpenVINO ``.xml``
        or ``.pt``, recognised by content. None with `inferencer`.
    device : str, default="auto"
        "auto", "cpu", "cuda", "cuda:0"; for OpenVINO, also its other devices, such as "gpu".
    contamination : float, default=0.1
        Share of good images that `fit` lets fall below the threshold, in (0, 0.5].
    inferencer : object, default=None
        A model in place of a file. Its ``predict`` is called with one image, by one thread at a
        time: a path as it was given, which the inferencer then reads itself; any other image, and
        with `value_range` every one, as RGB array of shape (H, W, 3), uint8, or float32 in [0, 1].
        It returns a dict, or an object, with ``pred_score`` (one number, higher is more anomalous)
        and ``anomaly_map`` (None, or (H, W) with leading ones), of NumPy or torch. Clones share it.
    family : str or None, default=None
        The kind of model, such as "padim"; a checkpoint of another one is refused. None: as the
        file says. OpenVINO graphs do not say it.
    trust : bool, default=False
        Allow files that run code when they are loaded: ``.pt``, and ``.ckpt`` of anomalib before
        2.6. Only for files from people you trust.
    normalized : bool, default=False
        Score by anomalib's own normalised scores, clipped to [0, 1], not by the raw ones.
    interpolation : {"bilinear", "bicubic"} or None, default=None
        How images are resized for an exported graph, antialiased. None: as the graph itself does,
        or else as its family does. Other files bring their own.
    %(value_range)s
    batch_size : int, default=8
        Images in memory, and in the model, at a time.
    %(verbose)s

    Attributes
    ----------
    offset_ : float
        Threshold of `score_samples`, after `fit`.
    train_scores_ : ndarray of shape (n_images,), float64
        `score_samples` of the good images given to `fit`.
    patch_limits_ : tuple of float
        Limits of colours, from the maps of these images, where the model has maps.
    calibration_ : dict of str to object
        Where the threshold is from, as of the scorers; see :func:`skanomaly.recalibrate`.

    Notes
    -----
    ``score_samples`` is the negative of anomalib's ``pred_score``; maps keep anomalib's sign.
    Before `fit`, `decision_function` and `predict` use the checkpoint's own threshold: that of the
    best F1 on anomalib's validation images, defects included. Pickles hold the path and the digest
    of the file, not the model: where the file has moved or changed, an error says so; and the maps
    of the good images, of 2**24 values at most, by which regions are calibrated.

    Images are resized as in anomalib's training, antialiased; anomalib's own inferencers resize
    inside of the exported model, without, and score a little differently.

    References
    ----------
    .. [1] Akcay et al., "Anomalib: A Deep Learning Library for Anomaly Detection", ICIP 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import AnomalibDetector
    >>> class Darkness:
    ...     def predict(self, image):
    ...         dark = 1 - image.mean(axis=2) / 255
    ...         return {"pred_score": dark.mean(), "anomaly_map": dark}
    >>> good = [np.full((8, 8, 3), grey, dtype=np.uint8) for grey in range(200, 240)]
    >>> detector = AnomalibDetector(inferencer=Darkness()).fit(good)
    >>> detector.predict([good[-1], np.zeros((8, 8, 3), dtype=np.uint8)])
    array([ 1, -1])
    >>> AnomalibDetector("model.ckpt").score_samples(["part_1.png"])  # doctest: +SKIP
    """

    _parameter_constraints: dict = {
        "checkpoint_path": [None, str, os.PathLike],
        "device": [str],
        "contamination": [CONTAMINATION],
        "inferencer": [None, HasMethods("predict")],
        "family": [None, str],
        "trust": ["boolean"],
        "normalized": ["boolean"],
        "interpolation": [None, StrOptions({"bilinear", "bicubic"})],
        "value_range": [None, Interval(Real, 0, None, closed="neither"), tuple, list],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        checkpoint_path: PathLike | None = None,
        *,
        device: str = "auto",
        contamination: float = 0.1,
        inferencer: Any = None,
        family: str | None = None,
        trust: bool = False,
        normalized: bool = False,
        interpolation: str | None = None,
        value_range: ValueRange | None = None,
        batch_size: int = 8,
        verbose: bool | int = False,
    ) -> None:
        self.checkpoint_path = checkpoint_path
        self.device = device
        self.contamination = contamination
        self.inferencer = inferencer
        self.family = family
        self.trust = trust
        self.normalized = normalized
        self.interpolation = interpolation
        self.value_range = value_range
        self.batch_size = batch_size
        self.verbose = verbose

    def fit(self, X: Images, y: Labels = None) -> AnomalibDetector:
        """Set the threshold by the scores of good images; the model stays as it is.

        Parameters
        ----------
        X : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Good images, which anomalib did not train on.
        y : array-like of shape (n_images,), optional
            +1 for normal, -1 for anomalous images, which are left out. Other numbers, such as 0 and
            1, are ignored with a warning that names them; bools, text and missing ones are errors.

        Returns
        -------
        self : AnomalibDetector
            Itself.
        """
        self._fit(X, y)
        return self

    def fit_predict(self, X: Images, y: Labels = None) -> IntArray:
        """Set the threshold, and call each image.

        Parameters
        ----------
        %(X)s
        y : array-like of shape (n_images,), optional
            As for :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_images,), int
            As from ``fit(X, y).predict(X)``.
        """
        return np.where(self._fit(X, y) < self.offset_, -1, 1)

    def score_samples(self, X: Images) -> FloatArray:
        """Score of each image: higher is more normal.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            The negative of anomalib's ``pred_score``.
        """
        return self._score(X, self._backend())[1]

    def score_maps(
        self, X: Images, *, size: str = "image", return_scores: bool = False
    ) -> FloatArray | list[FloatArray] | tuple[FloatArray | list[FloatArray], FloatArray]:
        """Heat map of each image: higher is more anomalous; ValueError where the model has none.

        Parameters
        ----------
        %(X)s
        size : {"image", "model"}, default="image"
            Size of the maps: each image's own, or as the model gives them, of the whole image too.
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
        heats, scores = self._score(X, self._backend(), size)
        maps = np.stack(heats) if len({heat.shape for heat in heats}) == 1 else heats
        return (maps, scores) if return_scores else maps

    def decision_function(self, X: Images) -> FloatArray:
        """``score_samples(X) - offset_``: negative for images that are called anomalous.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            Signed distance to the threshold. Before `fit`, to the checkpoint's own; NotFittedError
            where it has none.
        """
        backend = self._backend()
        # Before the work is done: a model without a threshold raises.
        offset = self._offset(backend)
        return self._score(X, backend)[1] - offset

    def _maps_or_none(self, X: Images) -> tuple[list[FloatArray], FloatArray]:
        """Maps of the model's size, each None where the model has none, and `score_samples`."""
        return self._score(X, self._backend(), "any")

    def _offset(self, backend: Backend | None = None) -> float:
        """The threshold of `fit`, or else the checkpoint's own."""
        if hasattr(self, "offset_"):
            return self.offset_
        return (backend or self._backend()).offset(self.normalized)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def _fit(self, X: Images, y: Labels) -> FloatArray:
        self._validate_params()
        items = check_images(X)
        normal = normal_images(y, len(items))
        self._train_images = training_images(items)
        for name in SET_BY_FIT:
            self.__dict__.pop(name, None)
        held_out = HeldOutMaps(normal)
        maps, scores = self._score(items, self._backend(), "sample", held_out.add)
        self._keep([maps[i] for i in normal], held_out)
        self._train_numbers = self._calibration_numbers = normal
        self._calibrate(scores[normal])
        return scores

    def _measure(self, X: Images) -> FloatArray:
        for name in ("patch_limits_", "_held_out_grids"):
            self.__dict__.pop(name, None)
        held_out = HeldOutMaps(np.arange(len(check_images(X))))
        maps, scores = self._score(X, self._backend(), "sample", held_out.add)
        self._keep(maps, held_out)
        return scores

    def _keep(self, samples: list[FloatArray], held_out: HeldOutMaps) -> None:
        """Limits of colours from values of maps, and maps themselves, where there are any."""
        if known := [sample for sample in samples if sample.size]:
            self.patch_limits_ = patch_score_limits(known)
            self._held_out_grids = held_out.maps

    def _backend(self) -> Backend:
        """The loaded model; an error when it is no longer the one that this detector belongs to."""
        self._validate_params()
        self._check_params()
        if (self.checkpoint_path is None) == (self.inferencer is None):
            given = "neither" if self.inferencer is None else "both"
            raise ValueError(f"give checkpoint_path or inferencer; this detector has {given}")
        if self.checkpoint_path is None:
            if self.normalized or self.interpolation is not None:
                raise ValueError("normalized and interpolation are for checkpoints only")
            self._loaded = None, None
            return InferencerBackend(self.inferencer)
        options = self.device, self.family, self.trust, self.interpolation
        path, digest = self.__dict__.get("_file", (None, None))
        expected = digest if path == self.checkpoint_path else None
        backend, digest = open_checkpoint(self.checkpoint_path, *options, expected)
        self._file = self.checkpoint_path, digest
        self._loaded = backend.unclipped, backend.family
        return backend

    def _score(
        self,
        X: Images,
        backend: Backend,
        size: str | None = None,
        training: Callable[[int, FloatArray], None] | None = None,
    ) -> tuple[list[FloatArray], FloatArray]:  # no maps without a size
        options = self.normalized, self.value_range, self.batch_size, self.verbose, training
        return score_batches(check_images(X), backend, size, *options)
