"""What every scorer of patch tokens shares: validation, signs, aggregation, the threshold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, TypeVar, overload

import numpy as np
from sklearn.base import OutlierMixin

from skanomaly._docstrings import document
from skanomaly._grouped_fit import group_names, group_numbers
from skanomaly._labels import normal_images
from skanomaly._patch_tokens import PatchTokens, join_grids
from skanomaly._sklearn import _fit_context
from skanomaly._typing import ArrayLike, FloatArray, Groups, IntArray, Labels
from skanomaly._warn import warn_user
from skanomaly.core.calibration import conformal_p_values
from skanomaly.core.copies import image_features
from skanomaly.scorers._checked import PART_BYTES, CheckedScorer
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._groups import warn_of_copies
from skanomaly.scorers._training_images import (
    calibration_images,
    check_scores,
    grids_of,
    groups_of_scores,
    images_of_scores,
)

SINGLE = "calibrated on a single"
OF_FIT = ("train_scores_", "offset_", "calibration_")

_Scorer = TypeVar("_Scorer", bound="BasePatchScorer")


class BasePatchScorer(OutlierMixin, CheckedScorer, ABC):
    """Base of the scorers of patch tokens.

    It validates tokens and labels, aggregates patch scores to image scores, sets the threshold
    `offset_` from held-out scores of the training images, and refuses to go on when parameters
    changed after `fit`, or tokens come from another embedder than its own. A scorer that fits a
    model to patches derives from :class:`skanomaly.base.CrossFittedScorer` instead, which makes the
    held-out scores too.

    A subclass takes `topk`, `aggregation` and `contamination` in its constructor, adds the
    constraints of its other parameters to `_parameter_constraints`, and implements:

    ``_fit_tokens(tokens)``
        Learn from the normal images `tokens`, a :class:`skanomaly.base.PatchTokens`, views
        included. Return the `score_samples` of the training images, or of enough of them to
        calibrate on: of each by what was learned without it and the images of its group,
        ``tokens.group_of_image``, never from their patches. Of fewer images than all, where `fit`
        was given groups, that is an error.
    ``_score_tokens(tokens)``
        Return the score of each row of `tokens`, float64, higher for more anomalous patches and
        undefined for masked ones, and the `score_samples` of each image, float64, higher for more
        normal ones; `_aggregate` makes these from those. A training image has to get the
        score that it got in `_fit_tokens`.

    It may override:

    ``_score_images(tokens)``
        `score_samples` alone, where it costs less than the score of every patch.
    ``_single_image_warning(tokens)``
        What to warn of when `fit` had one image, or one group, only, or None.
    ``_min_images``
        How many normal images `fit` needs, of different groups; 1.
    ``_needs_fit``
        False where scores need no `fit`; True.
    ``_fixed_offset``
        A threshold that needs no training image, in place of the `contamination` quantile; None.
    ``_explain_row(tokens, row, n_neighbors)``
        Why the patch in row `row` of a single image has its score, for :func:`skanomaly.explain`: a
        :class:`skanomaly.base.PatchExplanation`. By it a scorer has the method `explain_patch`;
        scorers without it do not explain their scores.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.base import BasePatchScorer
    >>> class Brightness(BasePatchScorer):  # learns nothing, so that every score is held out
    ...     def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
    ...         self.topk = topk
    ...         self.aggregation = aggregation
    ...         self.contamination = contamination
    ...
    ...     def _fit_tokens(self, tokens):
    ...         return self._score_tokens(tokens.select_view(0))[1]
    ...
    ...     def _score_tokens(self, tokens):
    ...         scores = tokens.values.mean(axis=1, dtype=np.float64)
    ...         return scores, -self._aggregate(tokens, scores)
    >>> good = np.random.default_rng(0).uniform(size=(20, 4, 4, 3))
    >>> Brightness().fit(good).predict(good[:1] + 5)
    array([-1])
    """

    @abstractmethod
    def _fit_tokens(self, tokens: PatchTokens) -> FloatArray:
        """Learn from normal images, and return held-out `score_samples` to calibrate on."""

    @abstractmethod
    def _score_tokens(self, tokens: PatchTokens) -> tuple[FloatArray, FloatArray]:
        """Score of each row of the tokens, and `score_samples` of each image."""

    def _score_images(self, tokens: PatchTokens) -> FloatArray:
        """`score_samples` of each image."""
        return self._score_tokens(tokens)[1]

    def _held_out_patches(self, tokens: PatchTokens) -> list[FloatArray]:
        """Held-out scores of each training image that is calibrated on, in its grid.

        Masked patches are NaN.
        """
        base = tokens.select_view(0)
        base = base.select(calibration_images(base))
        return grids_of(base, self._score_tokens(base)[0])

    def _features_of(self, tokens: PatchTokens) -> list[FloatArray]:
        """By what copies are told among training images."""
        return image_features(tokens.select_view(0))

    def _images_of_scores(self, tokens: PatchTokens, n_scores: int) -> IntArray | None:
        """Numbers of the images that the training scores are of; None where that is not known."""
        return images_of_scores(tokens, n_scores)

    def _measure(self, X: ArrayLike) -> FloatArray:
        scores, grids = [], []
        for tokens in self._parts(X):
            row_scores, of_images = self._score_tokens(tokens)
            name = type(self).__name__
            scores.append(check_scores(of_images, tokens.n_images, name, tokens.first))
            grids += grids_of(tokens, row_scores)
        self._keep_patches(grids)
        return np.concatenate(scores)

    def _single_image_warning(self, tokens: PatchTokens) -> str | None:
        """What to say of a threshold that rests on one image, or on one group of images."""
        return (
            "its score says nothing of how parts differ, and the threshold holds no nominal "
            "false-positive rate. Give more normal images, or rank by score_samples"
        )

    @property
    def _min_images(self) -> int:
        """How many normal images `fit` needs, of different groups."""
        return 1

    @_fit_context(prefer_skip_nested_validation=True)
    @document(SCORER_DOCS)
    def fit(self: _Scorer, X: ArrayLike, y: Labels = None, groups: Groups = None) -> _Scorer:
        """Fit to normal images, and calibrate the threshold on their held-out scores.

        Parameters
        ----------
        X : array-like
            Patch tokens of the training images: (n_images, dim), (n_images, patches, dim),
            (n_images, grid_h, grid_w, dim), (n_images, n_views, grid_h, grid_w, dim), or a 1-D
            object array of (grid_h, grid_w, dim).
        %(y)s
        %(groups)s

        Returns
        -------
        self : object
            The fitted scorer.

        Warns
        -----
        UserWarning
            Where images, named by their numbers in `X`, are copies of each other, and where there
            is one image or one group only.
        """
        for name in (*OF_FIT, "_patch_limits", "_held_out_grids"):
            self.__dict__.pop(name, None)  # a fit that fails leaves no half of the one before
        tokens = self._check_tokens(X, reset=True)
        tokens = replace(tokens, groups=group_numbers(groups, tokens.n_images))
        self._n_given, self._group_names = tokens.n_images, group_names(groups)
        normal = normal_images(y, tokens.n_images)
        tokens = tokens.select(normal)
        if tokens.n_groups < self._min_images:
            raise ValueError(
                f"{type(self).__name__} needs at least {self._min_images} normal images, got "
                f"n_samples = {tokens.n_images}"
                + ("" if groups is None else f" of {tokens.n_groups} groups: one of each counts")
            )
        train_scores = check_scores(self._fit_tokens(tokens), None, type(self).__name__)
        n_scores = len(train_scores)
        images = self._images_of_scores(tokens, n_scores)
        groups = groups_of_scores(tokens, images, n_scores, type(self).__name__)
        self._train_numbers = normal
        self._calibration_numbers = None if images is None else normal[images]
        self._calibrate(train_scores, groups)
        try:
            self._keep_patches(self._held_out_patches(tokens))
        except BaseException:
            for name in OF_FIT:
                del self.__dict__[name]
            raise
        problem = self._single_image_warning(tokens) if tokens.n_groups == 1 else None
        if problem is not None:
            warn_user(f"{SINGLE} {'image' if tokens.n_images == 1 else 'group'}: {problem}")
        if self._fixed_offset is None:
            features = self._features_of(tokens)
            warn_of_copies(features, tokens.group_of_image, normal, self._n_given)
        return self

    @document(SCORER_DOCS)
    def score_samples(self, X: ArrayLike) -> FloatArray:
        """Score of each image: higher is more normal.

        A training image gets its held-out score.

        Parameters
        ----------
        %(tokens)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            The negative aggregate of the image's patch scores.
        """
        return self._scores_of(self._parts(X))

    @document(SCORER_DOCS)
    def decision_function(self, X: ArrayLike) -> FloatArray:
        """``score_samples(X)`` less the threshold: negative for images that are called anomalous.

        Parameters
        ----------
        %(tokens)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            Signed distance to the threshold, `offset_`.
        """
        offset = self._offset()
        return self.score_samples(X) - offset

    @document(SCORER_DOCS)
    def predict(self, X: ArrayLike) -> IntArray:
        """Call each image normal (+1) or anomalous (-1).

        Parameters
        ----------
        %(tokens)s

        Returns
        -------
        ndarray of shape (n_images,), int
            -1 where the decision function is negative, else +1.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    @document(SCORER_DOCS)
    def fit_predict(self, X: ArrayLike, y: Labels = None, groups: Groups = None) -> IntArray:
        """Fit, and call each training image by its held-out score.

        Parameters
        ----------
        X : array-like
            Patch tokens, in any form of :meth:`fit`.
        %(y)s
        %(groups)s

        Returns
        -------
        ndarray of shape (n_images,), int
            What ``fit(X, y, groups).predict(X)`` returns.
        """
        if groups is None:  # also of a subclass that takes none
            self.fit(X, y)
        else:
            self.fit(X, y, groups=groups)
        tokens = self._check_tokens(X, reset=False, views=True).select_view(0)
        return np.where(self._scores_of(tokens.parts(PART_BYTES)) < self.offset_, -1, 1)

    @overload
    def score_patches(self, X: ArrayLike, return_scores: Literal[False] = False) -> np.ndarray: ...
    @overload
    def score_patches(
        self, X: ArrayLike, return_scores: Literal[True]
    ) -> tuple[np.ndarray, FloatArray]: ...
    @document(SCORER_DOCS)
    def score_patches(
        self, X: ArrayLike, return_scores: bool = False
    ) -> np.ndarray | tuple[np.ndarray, FloatArray]:
        """Anomaly score of each patch: higher is more anomalous; distances are at least 0.

        Parameters
        ----------
        %(tokens)s
        return_scores : bool, default=False
            Return `score_samples` too, from the same computation.

        Returns
        -------
        patch_scores : ndarray of shape (n_images, grid_h, grid_w), float32
            In the shape of the tokens without `dim`; a 1-D object array where grids are mixed.
            Masked patches have 0, or the lowest score of their image where that is below 0.
        scores : ndarray of shape (n_images,), float64
            Only with `return_scores`: as from :meth:`score_samples`.
        """
        grids, found = [], []
        for tokens in self._parts(X):
            row_scores, scores = self._score_tokens(tokens)
            found.append(check_scores(scores, tokens.n_images, type(self).__name__, tokens.first))
            grids.append(tokens.restore(row_scores))
        patches = join_grids(grids)
        return (patches, np.concatenate(found)) if return_scores else patches

    @document(SCORER_DOCS)
    def p_values(self, X: ArrayLike) -> FloatArray:
        """Conformal p-value of each image: how usual so low a score is among normal images.

        Parameters
        ----------
        %(tokens)s

        Returns
        -------
        ndarray of shape (n_images,), float64
            ``(1 + #{held-out training images at least as anomalous}) / (n + 1)``, at least
            ``1 / (n + 1)``. Valid for new images that are exchangeable with the training images.
            Where `fit` was given groups, each counts as one: `n` is their number.
        """
        self._check_calibrated()
        return conformal_p_values(self.train_scores_, self.score_samples(X), self._train_groups)

    def _scores_of(self, parts: Iterable[PatchTokens]) -> FloatArray:
        """`score_samples` of the images of several parts."""
        name = type(self).__name__
        return np.concatenate(
            [check_scores(self._score_images(p), p.n_images, name, p.first) for p in parts]
        )
