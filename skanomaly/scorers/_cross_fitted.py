"""Scorers that fit a model to patches, and held-out patch scores of its training images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.calibration import calibration_folds
from skanomaly.core.fingerprints import ImageFingerprints
from skanomaly.scorers._base import BasePatchScorer


class CrossFittedScorer(BasePatchScorer):
    """Base of the scorers that fit a model to the patches of normal images.

    It scores training images by models that were fitted without them, and gives them these
    held-out scores whenever they are scored again. They are recognised by their tokens.

    A subclass takes `topk`, `aggregation` and `contamination` in its constructor, adds the
    constraints of its other parameters to `_parameter_constraints`, and implements:

    ``_fit_model(tokens)``
        Return a model of the normal images `tokens`, a :class:`skanomaly.base.PatchTokens`, views
        included; anything that can be pickled. It must depend on nothing but the tokens and the
        parameters, and must leave `self` as it is, because it is called again, for parts of the
        training images. Only ``tokens.valid`` rows may enter: an image that is held out is still
        among `tokens`, with all its rows masked. The model of all training images is
        then at `_model`.
    ``_score_model(model, tokens, known)``
        Return the score of each row of `tokens` by a model that `_fit_model` made: an ndarray of
        shape (n_rows,), float64, higher for more anomalous patches, and anything for masked ones.
        `known`, an ndarray of shape (n_images,), has for each image of `tokens` its number among
        the images that `model` was fitted to, or -1 if it was not among them. A memory bank
        compares an image that is known to the patches of all images but those of its group, by
        the ``tokens.group_of_image`` that the model was fitted to. A model that
        cannot leave out an image afterwards ignores `known`: its held-out scores come from
        cross-fitting, where every image is -1.

    It may override:

    ``_fit_held_out_model(tokens)``
        As `_fit_model`, for a part of the training images: where a model of fewer images has to
        share something with `_model`, such as its size.
    ``_held_out(tokens)``
        Held-out scores in closed form, in place of cross-fitting.
    ``_n_folds``
        How many models are fitted for the held-out scores, at most; 5.
    ``_uses_positions``
        True where the score of a patch depends on its place in the image, so that an image whose
        patches stand in another order is another image; False.

    and what :class:`skanomaly.base.BasePatchScorer` says, but for `_fit_tokens` and
    `_score_tokens`, which this class implements.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.base import CrossFittedScorer
    >>> class DistanceToMean(CrossFittedScorer):
    ...     def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
    ...         self.topk = topk
    ...         self.aggregation = aggregation
    ...         self.contamination = contamination
    ...
    ...     def _fit_model(self, tokens):
    ...         return tokens.valid_values().mean(axis=0)
    ...
    ...     def _score_model(self, model, tokens, known):
    ...         return np.linalg.norm(tokens.values - model, axis=1)
    >>> rng = np.random.default_rng(0)
    >>> good, bad = rng.normal(size=(20, 4, 4, 8)), rng.normal(size=(1, 4, 4, 8)) + 3
    >>> DistanceToMean().fit(good).predict(bad)
    array([-1])
    """

    _n_folds = 5
    _model: Any

    @abstractmethod
    def _fit_model(self, tokens: PatchTokens) -> Any:
        """A model of normal images."""

    @abstractmethod
    def _score_model(self, model: Any, tokens: PatchTokens, known: IntArray) -> FloatArray:
        """Score of each row, by a model; `known` numbers the images that it was fitted to."""

    def _fit_held_out_model(self, tokens: PatchTokens) -> Any:
        """A model of a part of the training images, otherwise as that of all."""
        return self._fit_model(tokens)

    def _held_out(self, tokens: PatchTokens) -> tuple[IntArray, FloatArray]:
        """Numbers of the images to calibrate on, and held-out scores of all their rows."""
        scores = cross_fit(tokens, self._n_folds, self._fit_held_out_model, self._score_model)
        return np.arange(tokens.n_images), scores

    def _fit_and_hold_out(self, tokens: PatchTokens) -> tuple[IntArray, FloatArray]:
        """Set `_model`, and return what `_held_out` does: one method, for what both share."""
        self._model = self._fit_model(tokens)
        return self._held_out(tokens)

    @property
    def _uses_positions(self) -> bool:
        """Whether the score of a patch depends on its place in the image."""
        return False

    def _single_image_warning(self, tokens: PatchTokens) -> str:
        stand_in = "its other views" if _has_other_views(tokens) else "its other quarters"
        what, more = ("image", "") if tokens.n_images == 1 else ("group", " of other groups")
        return (
            f"scored against {stand_in} in place of other {what}s: the threshold says how much "
            f"that {what} varies in itself, not how parts differ, and holds no nominal "
            f"false-positive rate. Give more normal images{more}, or rank by score_samples"
        )

    def _fit_tokens(self, tokens: PatchTokens) -> FloatArray:
        if len(tokens.values) == 1:
            raise ValueError(
                "cannot calibrate on n_samples = 1 image of one patch: nothing can be held out; "
                "give more normal images"
            )
        images, scores = self._fit_and_hold_out(tokens)
        base = tokens.select_view(0)
        self._fingerprints = ImageFingerprints(base, self._uses_positions)
        return self._keep_held_out(base.select(images), images, scores)

    def _keep_held_out(self, base: PatchTokens, images: IntArray, scores: FloatArray) -> FloatArray:
        """Keep the held-out scores of all rows of some images; the `score_samples` of these.

        Of the tokens it asks for no values.
        """
        # By the number of the image: scores of its valid patches, in the order that is the same
        # however its patches stand.
        self._held_out_scores = {
            int(image): scores[base.rows(i)][base.valid[base.rows(i)]][
                self._fingerprints.known_order(int(image))
            ]
            for i, image in enumerate(images)
        }
        return -self._aggregate(base, scores)

    def _images_of_scores(self, tokens: PatchTokens, n_scores: int) -> IntArray | None:
        known = list(self._held_out_scores)
        if len(known) == n_scores:
            return np.array(known)
        return super()._images_of_scores(tokens, n_scores)  # of a `_fit_tokens` of its own

    def _held_out_patches(self, tokens: PatchTokens) -> list[FloatArray]:
        base, grids = tokens.select_view(0), []
        for image in self._held_out_scores:
            scores = np.full(len(base.valid[base.rows(image)]), np.nan)
            scores[base.valid[base.rows(image)]] = self._held_out_rows(image)
            grids.append(scores.reshape(base.grids[image]))
        return grids

    def _held_out_rows(self, image: int) -> FloatArray:
        """Held-out scores of the valid patches of a training image, in the order of its rows."""
        held_out = self._held_out_scores[image]
        scores = np.empty(len(held_out))
        scores[self._fingerprints.known_order(image)] = held_out
        return scores

    def _score_tokens(self, tokens: PatchTokens) -> tuple[FloatArray, FloatArray]:
        scores = self._patch_scores(tokens, self._score_model)
        return scores, -self._aggregate(tokens, scores)

    def _patch_scores(
        self, tokens: PatchTokens, score_new: Callable[..., FloatArray]
    ) -> FloatArray:
        """Score of each row: held-out ones for training images, those of `score_new` for others.

        `score_new` has the signature of `_score_model`. Where `fit` calibrated on some of the
        training images only, the others are scored by it too, as images that the model knows.
        """
        known = self._fingerprints.match(tokens)
        scores = np.zeros(len(tokens.values))
        has_held_out = np.array([image in self._held_out_scores for image in known.tolist()])
        new = np.flatnonzero(~has_held_out)
        if new.size:
            rows = ~has_held_out[tokens.image_of_row()]
            part = tokens.select(new)
            scores[rows] = check_rows(score_new(self._model, part, known[new]), part)
        for i in np.flatnonzero(has_held_out):
            rows = np.arange(tokens.offsets[i], tokens.offsets[i + 1])
            rows = rows[tokens.valid[rows]][self._fingerprints.order(tokens, int(i))]
            scores[rows] = self._held_out_scores[known[i]]
        return scores


def cross_fit(
    tokens: PatchTokens,
    n_folds: int,
    fit_model: Callable[[PatchTokens], Any],
    score_model: Callable[[Any, PatchTokens, IntArray], FloatArray],
    columns: tuple[int, ...] = (),
) -> FloatArray:
    r"""Score every training image with a model that has not seen it.

    Parameters
    ----------
    tokens : PatchTokens
        Training images, views included.
    n_folds : int
        At most this many models are fitted, each without one fold of the images (with all their
        views), which holds whole groups. Of a single image or group, one view or quarter after the
        other is held out instead.
    fit_model : callable
        ``fit_model(tokens) -> model``.
    score_model : callable
        ``score_model(model, tokens, known) -> patch scores``, one float64 a row of `tokens`;
        `known` is -1 for each image, because the model was not fitted to what is held out.
    columns : tuple of int, default=()
        Shape of what there is of each row, if not one number.

    Returns
    -------
    ndarray of shape (n_rows, \*columns), float64
        Held-out scores of the rows of ``tokens.select_view(0)``.
    """
    base = tokens.select_view(0)
    scores = np.full((len(base.values), *columns), np.nan)
    if tokens.n_groups == 1:
        for train, held_out_rows in _parts_of_one_group(tokens):
            row_scores = score_model(fit_model(train), base, _unknown(base))
            scores[held_out_rows] = check_rows(row_scores, base, columns)[held_out_rows]
        return scores
    folds = calibration_folds(tokens.group_of_image, n_folds)
    fold_of_row = folds[base.image_of_row()]
    for fold in range(folds.max() + 1):
        # Masked, not left out: there is no second copy of nearly all tokens.
        model = fit_model(tokens.mask(folds[tokens.image_of_row()] == fold))
        held_out = base.select(np.flatnonzero(folds == fold))
        row_scores = score_model(model, held_out, _unknown(held_out))
        scores[fold_of_row == fold] = check_rows(row_scores, held_out, columns)
    return scores


def check_rows(
    scores: FloatArray, tokens: PatchTokens, columns: tuple[int, ...] = ()
) -> FloatArray:
    """What `_score_model` returned; an error unless it is one number for each row."""
    if np.shape(scores) != (len(tokens.values), *columns):
        raise ValueError(
            f"_score_model returned scores of shape {np.shape(scores)} for {len(tokens.values)} "
            "rows of tokens: it must return one for each"
        )
    return scores


def _unknown(tokens):
    """`known` of images that a model was not fitted to."""
    return np.full(tokens.n_images, -1)


def _parts_of_one_group(tokens):
    """(tokens without a part, rows of that part) for the parts of each image of a single group."""
    if _has_other_views(tokens):
        lengths = np.diff(tokens.offsets)
        within = np.arange(len(tokens.values)) - np.repeat(tokens.offsets[:-1], lengths)
        first_view = within < np.repeat(lengths // tokens.n_views, lengths)
        return [(tokens.mask(first_view), np.ones(np.count_nonzero(first_view), dtype=bool))]
    base = tokens.select_view(0)
    quarter = np.concatenate([_quarters(grid) for grid in tokens.grids])
    of_row = np.concatenate([np.tile(_quarters(grid), tokens.n_views) for grid in tokens.grids])
    present = np.unique(quarter[base.valid])
    if len(present) < 2:
        raise ValueError(
            f"cannot calibrate on n_samples = {tokens.n_images} image{'s' * (tokens.n_images > 1)} "
            "of one group with patches in one quarter alone: nothing can be held out; give more "
            "normal images"
        )
    return [(tokens.mask(of_row == part), quarter == part) for part in present]


def _has_other_views(tokens):
    """Whether there are views that show again what the first shows.

    They do not where a second one is the rest of an image that is masked, such as its background.
    """
    if tokens.n_views == 2:
        views = [tokens.select_view(view).valid for view in range(2)]
        return bool((views[0] & views[1]).any())
    return tokens.n_views > 1


def _quarters(grid):
    """Quarter of each patch, row by row: the quadrants of a grid, else four runs of patches."""
    if len(grid) != 2:
        n_patches = int(np.prod(grid))
        return np.arange(n_patches) * 4 // n_patches
    rows, columns = (np.arange(side) * 2 // side for side in grid)
    return (2 * rows[:, None] + columns).ravel()
