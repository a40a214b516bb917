"""Scorers that change after `fit`: more images come in, some leave, several models become one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.metaestimators import available_if

from skanomaly._docstrings import document
from skanomaly._grouped_fit import group_names, group_numbers
from skanomaly._labels import normal_images
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import _fit_context
from skanomaly._typing import ArrayLike, FloatArray, Groups, IntArray, Labels
from skanomaly._warn import warn_user
from skanomaly.scorers._base import SINGLE, BasePatchScorer
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._groups import warn_of_copies
from skanomaly.scorers._known_images import KnownImages, join_known

_Scorer = TypeVar("_Scorer", bound="ChangingScorer")


class ChangingScorer(BasePatchScorer):
    """Base of the scorers that change after `fit`, whether they have a model or members.

    A subclass says what becomes of itself, and of its images what it keeps:

    ``_can_change()``
        True, or an AttributeError that says why scorers of these parameters have no `partial_fit`.
    ``_check_can_change()``
        Raise where that, or the state after `fit`, stands in the way.
    ``_check_growth(layout)``
        Raise where more images do not go with those that are there.
    ``_take_in(new, known)``
        Become the scorer of the images of `known`, of which those of `new`, the last ones, are new.
    ``_keep(kept)``
        Become the scorer of some of the images, by their numbers.
    ``_check_mergeable(other, number)``
        Raise where another scorer, of that number, has other parameters or tokens.
    ``_merged_as(others, known)``
        A new scorer of the images of several, which are those of `known`.
    ``_recognised(X)``
        The numbers of the images that tokens are of; UnknownImageError where one is of none.
    ``_image_features``
        By which copies are told.

    ``_take_in`` and ``_keep`` are called on a copy, which is dropped where they raise.
    """

    _layout: PatchTokens  # of the images, without their tokens

    @abstractmethod
    def _can_change(self) -> bool:
        """True; an AttributeError where scorers of these parameters do not change."""

    @abstractmethod
    def _check_can_change(self) -> None:
        """Raise where what there is after `fit` cannot be changed."""

    @abstractmethod
    def _check_growth(self, layout: PatchTokens) -> None:
        """Raise where more images do not go with those that are there."""

    @abstractmethod
    def _take_in(self, new: PatchTokens, known: KnownImages) -> None:
        """Become the scorer of the known images, of which the new ones are the last."""

    @abstractmethod
    def _keep(self, kept: IntArray) -> None:
        """Become the scorer of some of the images."""

    @abstractmethod
    def _check_mergeable(self, other: Any, number: int) -> None:
        """Raise where another scorer has other parameters or tokens."""

    @abstractmethod
    def _merged_as(self: _Scorer, others: Sequence[_Scorer], known: KnownImages) -> _Scorer:
        """A new scorer of the images of several."""

    @abstractmethod
    def _recognised(self, X: ArrayLike) -> IntArray:
        """Numbers of the known images that those of `X` are, all copies of each."""

    @property
    @abstractmethod
    def _image_features(self) -> list[FloatArray]:
        """By which copies are told among the images."""

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
        more = KnownImages(
            new.without_values(), normal, tokens.n_images, group_names(groups), [], None
        )
        known, n_old = join_known([self._known_images(), more]), self._layout.n_images
        if known.layout.groups is not None:
            new = replace(new, groups=known.layout.groups[n_old:])
        made = copy(self)
        made._take_in(new, known)
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
        made = copy(self)
        made._keep(kept)
        made._warn_of_one()
        self.__dict__.update(made.__dict__)

    def _merged_with(self: _Scorer, others: Sequence[_Scorer]) -> _Scorer:
        """A new scorer of the images of several, which stay as they are."""
        for number, scorer in enumerate((self, *others)):
            scorer._check_can_change()
            if number:
                self._check_mergeable(scorer, number)
        known = join_known([scorer._known_images() for scorer in (self, *others)])
        made = self._merged_as(others, known)
        made._warn_of(known, self._layout.n_images)
        return made

    def _known_images(self) -> KnownImages:
        """The images, without what copies are told by and images recognised."""
        return KnownImages(
            self._layout, self._train_numbers, self._n_given, self._group_names, [], None
        )

    def _warn_of(self, known: KnownImages, first: int) -> None:
        """What a fit to the known images would warn of, of copies as far as `first` has a part."""
        self._warn_of_one()
        groups = known.layout.group_of_image
        warn_of_copies(self._image_features, groups, known.numbers, known.n_given, first)

    def _warn_of_one(self) -> None:
        layout = self._layout
        if layout.n_groups == 1 and (problem := self._single_image_warning(layout)):
            what = "image" if layout.n_images == 1 else "group"
            warn_user(f"{SINGLE} {what}: {problem}")
