"""Unlabelled images that score each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.metaestimators import available_if

from skanomaly._docstrings import document
from skanomaly._faults import of_an_image
from skanomaly._grouped_fit import group_numbers
from skanomaly._parameters import check_integer
from skanomaly._patch_tokens import PatchTokens, join_grids
from skanomaly._sklearn import Interval, _fit_context
from skanomaly._token_stream import stack_tokens
from skanomaly._typing import ArrayLike, FloatArray, Groups, IntArray, Labels
from skanomaly.core.class_tokens import class_tokens, mean_over_alike
from skanomaly.core.consistent import Blocks, consistent_patches
from skanomaly.core.copies import image_features
from skanomaly.core.fingerprints import ImageFingerprints
from skanomaly.core.mutual import (
    mutual_blocks,
    query_blocks,
)
from skanomaly.core.parts import part_slices
from skanomaly.scorers._checked import CheckedScorer
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._groups import warn_of_copies
from skanomaly.scorers._training_images import check_scores, grids_of

_Mutual = TypeVar("_Mutual", bound="MutualScorer")


def _scores_no_new_images(self: MutualScorer) -> NoReturn:
    raise AttributeError(
        "MutualScorer scores the images of fit by each other, and no others: use fit_predict, or "
        "train_scores_, anomaly_maps and score_patches for the images of fit; add new images to "
        "these and fit again. To score new images one by one, fit PatchKNNScorer to good ones"
    )


@document(SCORER_DOCS)
class MutualScorer(OutlierMixin, CheckedScorer):
    """Scores of unlabelled images by each other: no image is known to be good.

    This is MuSc [1]_.

    What is normal has a near patch in most other images; a defect has one in few. A patch's score
    is its mean distance to the nearest patch of each of the other images, over the `share` of them
    where that is lowest. It is for a batch that is mostly good, and scores that batch alone: as
    scikit-learn's :class:`~sklearn.neighbors.LocalOutlierFactor`, it has `fit_predict` and neither
    `predict` nor `score_samples`.

    Parameters
    ----------
    parts : int or sequence of int, default=1
        Parts of each token, such as the layers of an embedder with several: how many of equal
        size, or the size of each. Each is compared by itself, and distances are averaged.
    neighborhoods : sequence of int, default=(1, 3, 5)
        Odd sides of squares in patches. Tokens are averaged over each, which suits small and large
        defects, and distances are averaged. With (1,) tokens need no grid.
    share : float, default=0.3
        Of the other images, those with the nearest patches count: ``int(share * n)``, but one at
        least.
    class_token : bool, default=False
        Whether the last of the `parts` is the class token of the image, as from an embedder with
        ``class_token=True``. It is not compared patch by patch, but used for `rescoring`.
    rescoring : sequence of int, default=(1, 2, 3)
        With `class_token`: an image's score becomes the mean of those of so many images, itself
        and those that are most like it, weighted by their likeness; averaged over these numbers.
        () for none.
    graph_filter : bool, default=False
        Leave out defects that repeat, after CoDeGraph [2]_; see Notes.
    %(topk)s
    aggregation : {"topk_mean", "max", "mean"} or float, default="max"
        From patch scores to the image score; a float in [0, 1] is a quantile.
    contamination : float, default=0.1
        Share of the images of `fit` that is called anomalous, in (0, 0.5].

    Attributes
    ----------
    train_scores_ : ndarray of shape (n_images,)
        Scores of the images, higher is more normal: the negative image score. Each is compared to
        the other images alone.
    patch_scores_ : ndarray of shape (n_images, grid_h, grid_w), float32
        Scores of their patches, higher is more anomalous; 0 for masked patches. A 1-D object array
        where grids are mixed.
    offset_ : float
        The `contamination` quantile of `train_scores_`: a share that is guessed, not a calibrated
        rate of false alarms, since some of the images are defective.
    n_excluded_ : int
        Patches that `graph_filter` left out as references.
    %(calibration_)s
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    :func:`skanomaly.anomaly_maps` of a Pipeline makes heat maps of the images that it was fitted
    to, which are recognised by their tokens; others are an error. Labels are not looked at.

    A defect that repeats looks normal. `graph_filter` finds it where fewer images than the `share`
    have it: it takes the links of patches to images that are closest beside the last of the
    `share`, until 80%% of the images have one. Images joined by at least half as many as those of a
    usual link are communities. Patches of one whose score rises beyond its quartiles without it, by
    one and a half of their distance, are no references, and all is scored again. The paper finds
    communities by the Leiden algorithm; here groups are merged by the mean of the links between
    them, after the same criterion (constant Potts model). Its constants were not at hand: these,
    and the rules for communities and patches, are our own.

    From the published code of MuSc differs: tokens are not shifted by the mean of all numbers of
    their image; the image score is the largest patch score, not the largest pixel of a resized map;
    at least one image counts; scores are not scaled to [0, 1] before rescoring, which changes no
    order; an image is always the one most like itself.

    Distances are exact to some 1e-6, and depend on no order of images. Each part and neighbourhood
    compares all patches to all, in float64, half of them saved by symmetry; twice with
    `graph_filter`, or three times. Besides the tokens, memory is taken for one part of them in
    float32, and 0.5 GB for distances, twice that with `graph_filter`.

    References
    ----------
    .. [1] Li et al., "MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with
       Mutual Scoring of the Unlabeled Images", ICLR 2024.
    .. [2] Le-Gia and Ahn, "On the Problem of Consistent Anomalies in Zero-Shot Industrial Anomaly
       Detection", arXiv:2510.10456, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import MutualScorer
    >>> tokens = np.random.default_rng(0).normal(size=(20, 6, 6, 16)) + 2
    >>> tokens[4, 2:4, 2:4] = np.linspace(-5, 5, 16)  # a defect, in one of 20 images
    >>> scorer = MutualScorer(contamination=0.05)
    >>> np.flatnonzero(scorer.fit_predict(tokens) == -1)
    array([4])
    >>> scorer.patch_scores_.shape
    (20, 6, 6)
    """

    _transductive = True  # see skanomaly._pipelines

    _parameter_constraints: dict = {
        **CheckedScorer._parameter_constraints,
        "parts": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "neighborhoods": ["array-like"],
        "share": [Interval(Real, 0, 1, closed="right")],
        "class_token": ["boolean"],
        "rescoring": ["array-like"],
        "graph_filter": ["boolean"],
    }

    def __init__(
        self,
        parts: int | Sequence[int] = 1,
        *,
        neighborhoods: Sequence[int] = (1, 3, 5),
        share: float = 0.3,
        class_token: bool = False,
        rescoring: Sequence[int] = (1, 2, 3),
        graph_filter: bool = False,
        topk: float = 0.01,
        aggregation: str | float = "max",
        contamination: float = 0.1,
    ) -> None:
        self.parts = parts
        self.neighborhoods = neighborhoods
        self.share = share
        self.class_token = class_token
        self.rescoring = rescoring
        self.graph_filter = graph_filter
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    @property
    def patch_scores_(self) -> np.ndarray:
        """Scores of the patches of the images of fit."""
        return stack_tokens([np.nan_to_num(grid) for grid in self.held_out_patches_])

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self: _Mutual, X: ArrayLike, y: Labels = None, groups: Groups = None) -> _Mutual:
        """Score images by each other.

        Parameters
        ----------
        X : array-like
            Patch tokens of the images: (n_images, dim), (n_images, patches, dim), (n_images,
            grid_h, grid_w, dim), or a 1-D object array of (grid_h, grid_w, dim).
        y : Ignored
            Present for scikit-learn's API: scores must not depend on labels.
        groups : array-like of shape (n_images,), optional
            A label for each image, such as the number of the part it shows; any hashable. Images
            of one group are not compared to each other.

        Returns
        -------
        self : object
            The fitted scorer.

        Warns
        -----
        UserWarning
            Where images are copies of each other, and so vouch for each other.
        """
        for name in ("train_scores_", "offset_", "calibration_", "_patch_limits"):
            self.__dict__.pop(name, None)  # a fit that fails leaves no half of the one before
        tokens = self._check_tokens(X, reset=True)
        if tokens.n_views > 1:
            raise ValueError(
                "X holds views, which MutualScorer does not take: other views of an image would "
                "vouch for it. Embed with augmentation=None, and mask by "
                "PCAForeground(mask_training=True), which else adds the background as a view"
            )
        tokens = replace(tokens, groups=group_numbers(groups, tokens.n_images))
        if tokens.n_groups < 2:
            raise ValueError(
                f"MutualScorer needs at least 2 images to compare, got n_samples = "
                f"{tokens.n_images}"
                + ("" if groups is None else f" of {tokens.n_groups} group: one of each counts")
            )
        parts = part_slices(tokens.dim, self.parts)
        if self.class_token and len(parts) < 2:
            raise ValueError(
                f"class_token=True takes the last of several parts, not parts={self.parts!r}"
            )
        classes = class_tokens(tokens, parts.pop()) if self.class_token else None
        scores = self._mutual_scores(tokens, parts)
        of_image = self._aggregate(tokens, scores)
        if classes is not None:
            counts = [check_integer(n, "each number of rescoring", 1) for n in self.rescoring]
            of_image = mean_over_alike(of_image, classes, counts, tokens.group_of_image)
        self._fingerprints = ImageFingerprints(tokens, ordered=True)
        self._calibrate(check_scores(-of_image, None, type(self).__name__), tokens.groups)
        self._keep_patches(grids_of(tokens, scores))
        images = np.arange(tokens.n_images)
        features = image_features(tokens.select_view(0))
        warn_of_copies(features, tokens.group_of_image, images, len(images))
        return self

    def _mutual_scores(self, tokens: PatchTokens, parts: list[slice]) -> FloatArray:
        """Score of each row; undefined for masked ones."""
        sides = [check_integer(n, "each side in neighborhoods", 1) for n in self.neighborhoods]
        if not sides or not all(side % 2 for side in sides):
            raise ValueError(f"neighborhoods={self.neighborhoods!r} must be odd sides: (1, 3, 5)")
        others = tokens.group_of_image[:, None] != tokens.group_of_image
        scores, self.n_excluded_ = np.empty(len(tokens.values)), 0

        def blocks(excluded: NDArray[np.bool_] | None = None) -> Blocks:
            for images, found, distances in mutual_blocks(
                tokens, parts, sides, self.share, others, excluded, means=self.graph_filter
            ):
                scores[tokens.offsets[images[0]] : tokens.offsets[images[-1] + 1]] = found
                yield images, distances

        if not self.graph_filter:
            deque(blocks(), maxlen=0)
            return scores
        again: Callable[[], Blocks] = blocks
        if len(list(query_blocks(tokens))) == 1:  # which needs not be computed twice
            again = partial(list, list(blocks()))
        excluded = consistent_patches(tokens, others, self.share, again)
        del again
        self.n_excluded_ = int(excluded.sum())
        if self.n_excluded_:
            deque(blocks(excluded), maxlen=0)
        return scores

    @document(SCORER_DOCS)
    def fit_predict(self, X: ArrayLike, y: Labels = None, groups: Groups = None) -> IntArray:
        """Score images by each other, and call the lowest scores anomalous.

        Parameters
        ----------
        X : array-like
            Patch tokens, in any form of :meth:`fit`.
        y : Ignored
            Present for scikit-learn's API.
        groups : array-like of shape (n_images,), optional
            As for :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_images,), int
            -1 where `train_scores_` are below `offset_`, else +1.
        """
        self.fit(X, y, groups=groups)
        return np.where(self.train_scores_ < self.offset_, -1, 1)

    @document(SCORER_DOCS)
    def score_patches(
        self, X: ArrayLike, return_scores: bool = False
    ) -> np.ndarray | tuple[np.ndarray, FloatArray]:
        """Anomaly score of each patch of images of `fit`: higher is more anomalous.

        Parameters
        ----------
        %(tokens)s
        return_scores : bool, default=False
            Return the images' `train_scores_` too.

        Returns
        -------
        patch_scores : ndarray of shape (n_images, grid_h, grid_w), float32
            In the shape of the tokens without `dim`; a 1-D object array where grids are mixed. 0
            for masked patches.
        scores : ndarray of shape (n_images,), float64
            Only with `return_scores`; higher is more normal.
        """
        grids, known = [], []
        for tokens in self._parts(X):
            found = self._fingerprints.match(tokens)
            new = np.flatnonzero(found < 0)
            if len(new):
                raise of_an_image(
                    ValueError(
                        f"image {tokens.first + new[0]} is none of those that this MutualScorer "
                        "was fitted to, and it scores no others: fit it to all images together"
                    )
                )
            scores = np.concatenate([self.held_out_patches_[i].ravel() for i in found])
            grids.append(tokens.restore(scores))
            known.append(found)
        patches = join_grids(grids)
        return (patches, self.train_scores_[np.concatenate(known)]) if return_scores else patches

    @available_if(_scores_no_new_images)
    def predict(self, X: ArrayLike) -> NoReturn:
        """Not there: see :meth:`fit_predict`."""
        raise NotImplementedError

    @available_if(_scores_no_new_images)
    def score_samples(self, X: ArrayLike) -> NoReturn:
        """Not there: see `train_scores_`."""
        raise NotImplementedError

    @available_if(_scores_no_new_images)
    def decision_function(self, X: ArrayLike) -> NoReturn:
        """Not there: see `train_scores_` and `offset_`."""
        raise NotImplementedError
