"""Several detectors of images as one."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np

from skanomaly._calibrated import CONTAMINATION
from skanomaly._docstrings import document
from skanomaly._grouped_fit import group_numbers
from skanomaly._images import check_images, image_size
from skanomaly._images.training import training_images
from skanomaly._labels import normal_images
from skanomaly._parameters import NO_MATTER
from skanomaly._pipelines import split_detector
from skanomaly._sklearn import StrOptions, _fit_context
from skanomaly._typing import ArrayLike, FloatArray, Groups, Images, IntArray, Labels
from skanomaly._unions import UnionEstimator
from skanomaly.core.explanations import PatchExplanation
from skanomaly.core.maps import upsample_map
from skanomaly.core.unions import maps_of_one_size
from skanomaly.detectors._base import ImageDetector
from skanomaly.detectors._members import (
    check_members,
    fit_members,
    held_out_by_members,
    member_samples,
    member_scores,
)
from skanomaly.embedders._docstrings import EMBEDDER_DOCS
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import members_of

# What a fit that fails must not leave of the one before.
_SET_BY_FIT = (
    "detectors_",
    "location_",
    "scale_",
    "offset_",
    "train_scores_",
    "calibration_",
    "_patch_limits",
    "_held_out_grids",
    "_params_at_fit",
)

_Union = TypeVar("_Union", bound="ImageUnion")


@document({**EMBEDDER_DOCS, **SCORER_DOCS})
class ImageUnion(ImageDetector, UnionEstimator):
    """Combine detectors of images, on a common scale, with one threshold.

    Where :class:`skanomaly.ScoreUnion` joins scorers of the same patch tokens, this joins whole
    Pipelines, each with an embedder of its own: what one network does not see another may.

    Parameters
    ----------
    detectors : list of (str, estimator)
        Names and detectors: Pipelines of an embedder and a scorer, detectors of images such as
        :class:`skanomaly.AnomalibDetector`, and unions of these. Their parameters are set as
        ``name__step__parameter``. Clones of them are fitted.
    detector_weights : array-like of shape (n_detectors,) or None, default=None
        Weights of the mean, at least 0; None: all equal. Only for ``combination="mean"``.
    combination : {"mean", "max"}, default="mean"
        The weighted mean of the detectors' scores, or the highest.
    contamination : float, default=0.1
        Share of normal images the threshold may flag, in (0, 0.5]. Thresholds of the detectors
        themselves are not used; those with ``contamination="auto"`` are fitted with this share.

    Attributes
    ----------
    detectors_ : dict of str to estimator
        The fitted detectors.
    location_, scale_ : ndarray of shape (n_detectors,)
        Scores and maps of a detector enter as ``(score - location_) / scale_``, where `score` is
        higher for what is more anomalous.
    train_scores_ : ndarray of shape (n_calibration_images,)
        Held-out scores of the training images, as from `score_samples`: of all, or where a detector
        calibrates on some of many images, of those of the one that has the fewest.
    %(offset_)s
    %(calibration_)s
    %(patch_limits_)s

    Notes
    -----
    The scale of a detector is that of its held-out patch scores: 0 is their median and 1 their 99%
    quantile; see :func:`skanomaly.core.unions.common_scale`. Both its image scores and its maps are
    brought to it: patches are many even where there are few images. Scores are of no unit, and
    maps are negative where an image is more usual than the median patch of good ones.

    The map of an image has, at ``size="model"``, the most rows and the most columns that one of
    the detectors gives it; others are resampled bilinearly.

    All that is learned, scales and threshold, is learned from held-out scores, and a training image
    that is scored again gets its own, for each of the detectors recognises it. The two numbers of a
    scale are those of the held-out scores of all images, so that the `train_scores_` of an image
    owe to it what its own held-out patches move them; :doc:`/calibration` says how much that is.
    The threshold and
    p-values take images that all of the detectors have held out; where they have calibrated on
    different ones, some of the images are scored once more in `fit`.

    Each detector reads the images for itself: a fit or a score costs the sum of theirs.
    :func:`skanomaly.explain` says what each of them adds at the worst place, and what the one says
    that adds most.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, ImageUnion, PatchGaussianScorer, PatchKNNScorer
    >>> from skanomaly.datasets import make_surfaces
    >>> made = make_surfaces(12, 1, image_size=64, random_state=0)
    >>> fine = make_pipeline(FilterBankPatches(image_size=64), PatchGaussianScorer())
    >>> coarse = make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer())
    >>> union = ImageUnion([("fine", fine), ("coarse", coarse)]).fit(made.images[:12])
    >>> union.predict(made.images[12:])
    array([-1])
    >>> union.score_maps(made.images[12:]).shape
    (1, 64, 64)
    >>> union.set_params(coarse__patchknnscorer__n_neighbors=3, combination="max")
    ImageUnion(...)
    """

    _parameter_constraints: dict = {
        "detectors": [list],
        "detector_weights": [None, "array-like"],
        "combination": [StrOptions({"mean", "max"})],
        "contamination": [CONTAMINATION],
    }

    _kind = "detector"
    detectors_: dict[str, Any]

    def __init__(
        self,
        detectors: list[tuple[str, Any]],
        *,
        detector_weights: ArrayLike | None = None,
        combination: Literal["mean", "max"] = "mean",
        contamination: float = 0.1,
    ):
        self.detectors = detectors
        self.detector_weights = detector_weights
        self.combination = combination
        self.contamination = contamination

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self: _Union, X: Images, y: Labels = None, groups: Groups = None) -> _Union:
        """Fit each detector to normal images, and calibrate on their joined held-out scores.

        Parameters
        ----------
        X : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Paths, bytes, PIL images or arrays.
        %(y)s
        %(groups)s

        Returns
        -------
        self : object
            The fitted union.

        Raises
        ------
        TypeError, ValueError
            When a detector is none, keeps no held-out scores, or takes no groups that are given;
            the message names it.
        """
        for name in _SET_BY_FIT:
            self.__dict__.pop(name, None)
        check_members(self._named_members(), groups is not None)
        self._weights()
        items = check_images(X)
        of_group = group_numbers(groups, len(items))
        normal = normal_images(y, len(items))
        # What other numbers than +1 and -1 mean was said once: members are told the outcome.
        labels = None if len(normal) == len(items) else np.full(len(items), -1)
        if labels is not None:
            labels[normal] = 1
        members = fit_members(self.detectors, items, labels, groups, self.contamination)
        self._train_images, self._train_numbers = training_images(items), normal
        self._join_members(members, items, of_group)
        return self

    def _join_members(self, members: dict[str, Any], items: Any, of_group: IntArray | None) -> None:
        """Scales and threshold from what fitted members have held out of the training images."""
        numbers, held_out = held_out_by_members(members, items, self._train_numbers)
        self.detectors_ = members
        self.location_ = np.array([one.location for one in held_out.values()])
        self.scale_ = np.array([one.scale for one in held_out.values()])
        self._calibration_numbers = numbers
        maps = [one.maps for one in held_out.values()]
        self._keep_patches([self._joined_map(of_image) for of_image in zip(*maps, strict=True)])
        scores = self._joined_scores([one.scores for one in held_out.values()])
        self._calibrate(scores, None if of_group is None else of_group[numbers])

    def fit_predict(self, X: Images, y: Labels = None, groups: Groups = None) -> IntArray:
        """Fit, and call each training image by its held-out score.

        Parameters
        ----------
        X : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Paths, bytes, PIL images or arrays.
        %(y)s
        %(groups)s

        Returns
        -------
        ndarray of shape (n_images,), int
            What ``fit(X, y, groups).predict(X)`` returns.
        """
        return self.fit(X, y, groups).predict(X)

    def score_samples(self, X: Images) -> FloatArray:
        """Score of each image: higher is more normal.

        A training image gets its held-out score.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            The detectors' scores, joined on the common scale.
        """
        self._check_calibrated()
        items = check_images(X)
        return self._joined_scores(
            [member_samples(name, member, items) for name, member in self.detectors_.items()]
        )

    def score_maps(
        self,
        X: Images,
        *,
        size: Literal["image", "model"] = "image",
        return_scores: bool = False,
    ) -> FloatArray | list[FloatArray] | tuple[FloatArray | list[FloatArray], FloatArray]:
        """Heat map of each image: higher is more anomalous.

        Parameters
        ----------
        %(X)s
        size : {"image", "model"}, default="image"
            Size of the maps: each image's own, or that of the finest of the detectors' maps.
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
        self._check_calibrated()
        items = check_images(X)
        heats, scores = self._score(items)
        if size == "image":
            heats = [
                upsample_map(heat, image_size(item, i), sigma=0)
                for i, (item, heat) in enumerate(zip(items, heats, strict=True))
            ]
        maps = np.stack(heats) if len({heat.shape for heat in heats}) == 1 else heats
        return (maps, scores) if return_scores else maps

    def explain_members(self, X: Images, row: int, column: int) -> PatchExplanation:
        """Say what each detector adds at a place of an image's map; for :func:`skanomaly.explain`.

        Parameters
        ----------
        X : sequence of one image
            As for :meth:`score_maps`.
        row, column : int
            The place in the map of ``score_maps(X, size="model")``.

        Returns
        -------
        PatchExplanation
            Of :mod:`skanomaly.core.explanations`, with `members`: that of the highest contribution
            first, of a maximum that of the highest score on the common scale.
        """
        self._check_calibrated()
        items = check_images(X)
        maps = [member_scores(*of, items)[0][0] for of in self.detectors_.items()]
        scores = np.array([heat[row, column] for heat in maps_of_one_size(maps)], dtype=np.float64)
        scaled = (scores - self.location_) / self.scale_
        return members_of(list(self.detectors_), scores, scaled, self.combination, self._weights())

    @property
    def value_range(self) -> Any:
        """Black and white by which the first of the detectors that says so reads images."""
        try:
            ranges = [split_detector(detector).value_range for _, detector in self.detectors]
        except (TypeError, ValueError):  # what is no detector is told in fit
            return None
        return next(filter(None, ranges), None)

    def _measure(self, X: Images) -> FloatArray:
        maps, scores = self._score(check_images(X))
        self._keep_patches(maps)
        return scores

    def _score(self, items: Any) -> tuple[list[FloatArray], FloatArray]:
        """Joined maps, at the size of the finest, and joined scores of images."""
        found = [member_scores(name, one, items) for name, one in self.detectors_.items()]
        maps = zip(*(of_member for of_member, _ in found), strict=True)
        joined = [self._joined_map(of_image) for of_image in maps]
        return joined, self._joined_scores([scores for _, scores in found])

    def _joined_map(self, maps: Any) -> FloatArray:
        return self._joined(maps_of_one_size(maps)).astype(np.float32)

    def _joined_scores(self, scores: list[FloatArray]) -> FloatArray:
        return -self._joined([-of_member for of_member in scores])

    def _params_changed(self) -> list[str]:
        return [n for n in self._changed_params() if n.rpartition("__")[2] not in NO_MATTER]
