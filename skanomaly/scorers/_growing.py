"""Scorers whose models learn more images, forget some, and become one with others."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import ArrayLike, FloatArray, IntArray
from skanomaly.core.copies import image_features
from skanomaly.core.fingerprints import ImageFingerprints
from skanomaly.scorers._changing import ChangingScorer
from skanomaly.scorers._cross_fitted import CrossFittedScorer
from skanomaly.scorers._growth_checks import UnknownImageError, check_alike, check_calibration
from skanomaly.scorers._known_images import KnownImages
from skanomaly.scorers._training_images import check_scores, groups_of_scores

# By the number of each image that is calibrated on: the held-out scores of its valid patches, those
# of its first view, in the order of its rows.
HeldOut = dict[int, FloatArray]

_Scorer = TypeVar("_Scorer", bound="GrowingScorer")


class GrowingScorer(ChangingScorer, CrossFittedScorer):
    """Base of the scorers whose fitted models take in more images, forget some, or are merged.

    A subclass implements what :class:`skanomaly.base.CrossFittedScorer` says and, so that a model
    comes of another one, either

    ``_kept_values()``
        The tokens of all training images as far as the model has them, an ndarray of shape
        (n_rows, dim): a row for each of ``self._layout``, anything for masked ones. The three
        methods below then fit to these, and to those of new images, which costs what a fit costs
        but for the embedder;

    or all of these three, of which each returns the new model, and held-out scores of training
    images by models that have not seen them: a dict of the image's number to an ndarray of the
    scores of its valid patches, those of its first view in the order of its rows, float64.

    ``_grown(tokens, layout)``
        `tokens`, a :class:`skanomaly.base.PatchTokens`, are those of the new images, views included
        and of the groups that they have in `layout`. They are numbered behind the known ones.
    ``_without(kept, layout)``
        `kept` are the numbers of the images that stay, ascending.
    ``_merged(others, layout)``
        `others` are fitted scorers of this class, of the same parameters and tokens.

    They are called on a copy of the scorer, which still has what it was before: `_model`,
    `_layout`, and :meth:`_held_out_rows`, the held-out scores of an image. `layout` is as `_layout`
    is to be: a `PatchTokens` without values of all images of the new model, with their grids,
    masks, views and groups. They may set attributes of `self`, as `_fit_model` does; what an array
    holds must not be changed in place. Numbers, fingerprints, threshold, limits of colours and
    warnings are made from what they return.

    It may override:

    ``_problem_of_growth``
        Why a scorer of these parameters has no `partial_fit`, for the message; None, it has.
    ``_check_growth(layout)``
        Raise a ValueError where images of the layout cannot be joined with those of the model.
    """

    _features: list[FloatArray]

    @property
    def _problem_of_growth(self) -> str | None:
        """Why there is no growth with these parameters."""
        return None

    def _kept_values(self) -> FloatArray:
        """The tokens of all training images, as far as the model has them."""
        raise NotImplementedError

    def _grown(self, tokens: PatchTokens, layout: PatchTokens) -> tuple[Any, HeldOut]:
        """The model with more images."""
        kept = self._kept_values()
        new = tokens.values.astype(kept.dtype, copy=False)
        return self._refitted(replace(layout, values=np.concatenate([kept, new])))

    def _without(self, kept: IntArray, layout: PatchTokens) -> tuple[Any, HeldOut]:
        """The model of some of the images."""
        tokens = replace(self._layout, values=self._kept_values()).select(kept)
        return self._refitted(replace(layout, values=tokens.values))

    def _merged(
        self: _Scorer, others: Sequence[_Scorer], layout: PatchTokens
    ) -> tuple[Any, HeldOut]:
        """One model of the images of several."""
        values = [scorer._kept_values() for scorer in (self, *others)]
        return self._refitted(replace(layout, values=np.concatenate(values)))

    def _refitted(self, tokens: PatchTokens) -> tuple[Any, HeldOut]:
        """What a fit to tokens gives."""
        images, scores = self._fit_and_hold_out(tokens)
        base = tokens.select_view(0).select(images)
        held_out = {
            int(image): scores[base.rows(i)][base.valid[base.rows(i)]]
            for i, image in enumerate(images)
        }
        return self._model, held_out

    def _check_growth(self, layout: PatchTokens) -> None:
        """Raise where more images do not go with those of the model."""

    def _fit_tokens(self, tokens: PatchTokens) -> FloatArray:
        scores = super()._fit_tokens(tokens)
        self._layout = tokens.without_values()
        self._features = image_features(tokens.select_view(0))
        return scores

    def _features_of(self, tokens: PatchTokens) -> list[FloatArray]:
        return self._features

    @property
    def _image_features(self) -> list[FloatArray]:
        return self._features

    def _take_in(self, new: PatchTokens, known: KnownImages) -> None:
        base = new.select_view(0)
        prints = ImageFingerprints(base, self._uses_positions)
        known = replace(
            known,
            features=[*self._features, *image_features(base)],
            fingerprints=ImageFingerprints.joined([self._fingerprints, prints]),
        )
        self._take(*self._grown(new, known.layout), known)

    def _keep(self, kept: IntArray) -> None:
        images = replace(
            self._known_images(), features=self._features, fingerprints=self._fingerprints
        )
        known = images.select(kept)
        self._take(*self._without(kept, known.layout), known)

    def _merged_as(self: _Scorer, others: Sequence[_Scorer], known: KnownImages) -> _Scorer:
        scorers, made = (self, *others), copy(self)
        known = replace(
            known,
            features=[features for scorer in scorers for features in scorer._features],
            fingerprints=ImageFingerprints.joined([one._fingerprints for one in scorers]),
        )
        made._take(*made._merged(others, known.layout), known)
        return made

    def _check_mergeable(self, other: Any, number: int) -> None:
        check_alike(self, other, number)

    def _recognised(self, X: ArrayLike) -> IntArray:
        tokens = self._check_tokens(X, reset=False, views=True).select_view(0)
        found = self._fingerprints.match_all(tokens)
        unknown = [i for i, images in enumerate(found) if not images]
        if unknown:
            raise UnknownImageError(unknown)
        return np.unique([image for images in found for image in images])

    def _can_change(self) -> bool:
        """True; an AttributeError where the model of these parameters cannot be changed."""
        if (problem := self._problem_of_growth) is not None:
            raise AttributeError(f"{type(self).__name__} cannot change after fit: {problem}")
        return True

    def _check_can_change(self) -> None:
        """Raise where model and threshold are not those of a fit, or cannot be changed."""
        check_is_fitted(self, "train_scores_")
        self._can_change()
        self._check_calibrated()
        if not hasattr(self, "_layout"):
            raise ValueError(
                f"this {type(self).__name__} was fitted by an earlier version, which kept too "
                "little to change it: fit it again, once"
            )
        check_calibration(self.calibration_)

    def _take(self, model: Any, held_out: HeldOut, known: KnownImages) -> None:
        """Become what a fit to the known images would have made of the scorer."""
        images = np.array(sorted(held_out))
        base = known.layout.select_view(0).select(images)
        scores = np.zeros(len(base.values))
        scores[base.valid] = np.concatenate([held_out[i] for i in images.tolist()])
        self._model, self._layout, self._features = model, known.layout, known.features
        prints: Any = known.fingerprints
        self._fingerprints, self._train_numbers = prints, known.numbers
        self._n_given, self._group_names = known.n_given, known.names
        self._calibration_numbers = known.numbers[images]
        name = type(self).__name__
        samples = check_scores(self._keep_held_out(base, images, scores), None, name)
        self._calibrate(samples, groups_of_scores(known.layout, images, len(images), name))
        self._keep_patches(self._held_out_patches(known.layout))
