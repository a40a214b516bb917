"""Scorers whose models learn more images, forget some, and become one with others."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skanomaly._docstrings import document
from skanomaly._grouped_fit import group_names, group_numbers
from skanomaly._labels import normal_images
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import _fit_context
from skanomaly._typing import ArrayLike, FloatArray, Groups, IntArray, Labels
from skanomaly._warn import warn_user
from skanomaly.core.copies import image_features
from skanomaly.core.fingerprints import ImageFingerprints
from skanomaly.scorers._base import SINGLE
from skanomaly.scorers._cross_fitted import CrossFittedScorer
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._groups import warn_of_copies
from skanomaly.scorers._growth_checks import UnknownImageError, check_alike, check_calibration
from skanomaly.scorers._known_images import KnownImages, join_known
from skanomaly.scorers._training_images import check_scores, groups_of_scores

# By the number of each image that is calibrated on: the held-out scores of its valid patches, those
# of its first view, in the order of its rows.
HeldOut = dict[int, FloatArray]

_Scorer = TypeVar("_Scorer", bound="GrowingScorer")


class GrowingScorer(CrossFittedScorer):
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

    _layout: PatchTokens
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

    @available_if(lambda self: self._can_change())
    @_fit_context(prefer_skip_nested_validation=True)
    @document(SCORER_DOCS)
    def partial_fit(
        self: _Scorer, X: ArrayLike, y: Labels = None, groups: Groups = None
    ) -> _Scorer:
        """Take in more normal images, and calibrate on held-out scores of the old and the new ones.

        The first call is that of :meth:`fit`. Where a call fails, the scorer stays as it was.

        Parameters
        ----------
        X : array-like
            Patch tokens of images that are not known yet, in any form of :meth:`fit`, of as many
            components and views as those that are.
        %(y)s
        groups : array-like of shape (n_images,), optional
            As for :meth:`fit`. Images of a label that was given before are of the group of that.

        Returns
        -------
        self : object
            The scorer.

        Raises
        ------
        ValueError
            When there is no normal image in `X`, its tokens do not go with those of the model, or
            its threshold is no share of its training images' scores.

        Warns
        -----
        UserWarning
            Where new images are copies of each other or of known ones; all are numbered one call
            after the other.
        """
        if not hasattr(self, "train_scores_"):
            return self.fit(X, y) if groups is None else self.fit(X, y, groups=groups)
        self._check_can_change()
        tokens = self._check_tokens(X, reset=False, views=True)
        numbers = group_numbers(groups, tokens.n_images)
        normal = normal_images(y, tokens.n_images)
        new = replace(tokens, groups=numbers).select(normal)
        if new.n_views != self._layout.n_views:
            raise ValueError(
                f"X has {new.n_views} view(s) of each image, and the images of the model have "
                f"{self._layout.n_views}: make all tokens by the same augmentation"
            )
        self._check_growth(new)
        base = new.select_view(0)
        more = KnownImages(
            new.without_values(),
            normal,
            tokens.n_images,
            list(names) if (names := group_names(groups)) is not None else None,
            image_features(base),
            ImageFingerprints(base, self._uses_positions),
        )
        known = join_known([self._known_images(), more])
        made, n_old = copy(self), self._layout.n_images
        if known.layout.groups is not None:
            new = replace(new, groups=known.layout.groups[n_old:])
        made._take(*made._grown(new, known.layout), known)
        made._warn_of(known, n_old)
        self.__dict__.update(made.__dict__)
        return self

    @available_if(lambda self: self._can_change())
    def forget(self: _Scorer, X: ArrayLike) -> _Scorer:
        """Take training images, with all their copies and views, out of model and calibration.

        Parameters
        ----------
        X : array-like
            Patch tokens of training images, in any form of :meth:`fit`; they are recognised.

        Returns
        -------
        self : object
            The scorer. Where the call fails, it stays as it was.

        Raises
        ------
        ValueError
            When an image is none that the scorer was fitted to, which the message names by its
            number in `X`, or too few images would be left.
        """
        self._check_can_change()
        self._forget_numbers(self._recognised(X))
        return self

    def _recognised(self, X: ArrayLike) -> IntArray:
        """Numbers of the known images that those of `X` are, all copies of each."""
        tokens = self._check_tokens(X, reset=False, views=True).select_view(0)
        found = self._fingerprints.match_all(tokens)
        unknown = [i for i, images in enumerate(found) if not images]
        if unknown:
            raise UnknownImageError(unknown)
        return np.unique([image for images in found for image in images])

    def _forget_numbers(self, gone: IntArray) -> None:
        """Take known images, by their numbers, out of model and calibration."""
        kept = np.delete(np.arange(self._layout.n_images), gone)
        least = max(1, self._min_images)
        n_left = len(np.unique(self._layout.group_of_image[kept]))
        if n_left < least:
            raise ValueError(
                f"{type(self).__name__} needs at least {least} normal image{'s' * (least > 1)}, "
                f"and {n_left} of {self._layout.n_images} would be left"
            )
        known, made = self._known_images().select(kept), copy(self)
        made._take(*made._without(kept, known.layout), known)
        made._warn_of_one(known)
        self.__dict__.update(made.__dict__)

    def _merged_with(self: _Scorer, others: Sequence[_Scorer]) -> _Scorer:
        """A new scorer of the images of several, which stay as they are."""
        for number, scorer in enumerate((self, *others)):
            scorer._check_can_change()
            if number:
                check_alike(self, scorer, number)
        parts = [scorer._known_images() for scorer in (self, *others)]
        known, made = join_known(parts), copy(self)
        made._take(*made._merged(others, known.layout), known)
        made._warn_of(known, parts[0].layout.n_images)
        return made

    def _known_images(self) -> KnownImages:
        return KnownImages(
            self._layout,
            self._train_numbers,
            self._n_given,
            self._group_names,
            self._features,
            self._fingerprints,
        )

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
        self._fingerprints, self._train_numbers = known.fingerprints, known.numbers
        self._n_given, self._group_names = known.n_given, known.names
        self._calibration_numbers = known.numbers[images]
        name = type(self).__name__
        samples = check_scores(self._keep_held_out(base, images, scores), None, name)
        self._calibrate(samples, groups_of_scores(known.layout, images, len(images), name))
        self._keep_patches(self._held_out_patches(known.layout))

    def _warn_of(self, known: KnownImages, first: int) -> None:
        """What a fit to the known images would warn of, of copies as far as `first` has a part."""
        self._warn_of_one(known)
        warn_of_copies(known.features, known.layout.group_of_image, known.numbers, first)

    def _warn_of_one(self, known: KnownImages) -> None:
        if known.layout.n_groups == 1 and (problem := self._single_image_warning(known.layout)):
            what = "image" if known.layout.n_images == 1 else "group"
            warn_user(f"{SINGLE} {what}: {problem}")
