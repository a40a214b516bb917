"""Unions of scorers that grow, shrink and are merged through their members."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import copy
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skanomaly._docstrings import document
from skanomaly._labels import normal_images
from skanomaly._parameters import NO_MATTER, copy_of_estimator, equal_params
from skanomaly._sklearn import _fit_context
from skanomaly._typing import ArrayLike, FloatArray, Groups, IntArray, Labels
from skanomaly.scorers._base import SINGLE, BasePatchScorer
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._groups import copies_told_elsewhere
from skanomaly.scorers._growth_checks import check_calibration
from skanomaly.scorers._training_images import calibration_images, grids_of, groups_of_scores

_Union = TypeVar("_Union", bound="GrowingUnion")


class GrowingUnion(BasePatchScorer):
    """Base of :class:`skanomaly.ScoreUnion`, as far as it changes after `fit`.

    Its members change; scales and threshold are made anew from what they have held out.
    """

    scorers: list[tuple[str, Any]]
    scorers_: dict[str, Any]

    def _scaled_and_joined(
        self, base: Any, patch_scores: list[FloatArray], image_scores: list[FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Learn the scales from held-out scores; those of all rows, and `score_samples`."""
        raise NotImplementedError

    @available_if(lambda self: self._can_change())
    @_fit_context(prefer_skip_nested_validation=True)
    @document(SCORER_DOCS)
    def partial_fit(self: _Union, X: ArrayLike, y: Labels = None, groups: Groups = None) -> _Union:
        """Take in more normal images by all members, and calibrate anew.

        The first call is that of :meth:`fit`. There where all members have it.

        Parameters
        ----------
        X : array-like
            Patch tokens of images that are not known yet, in any form of :meth:`fit`.
        %(y)s
        groups : array-like of shape (n_images,), optional
            As for :meth:`fit`. Images of a label that was given before are of the group of that.

        Returns
        -------
        self : object
            The union. Where the call fails, it stays as it was.
        """
        if not hasattr(self, "train_scores_"):
            return self.fit(X, y) if groups is None else self.fit(X, y, groups=groups)
        self._check_can_change()
        tokens = self._check_tokens(X, reset=False, views=True)
        normal = normal_images(y, tokens.n_images)
        labels = None if y is None else np.full(tokens.n_images, -1)
        if labels is not None:
            labels[normal] = 1
        groups = None if groups is None else list(groups)
        self._change(lambda member, _: member.partial_fit(X, labels, groups=groups))
        return self

    @available_if(lambda self: self._can_change())
    def forget(self: _Union, X: ArrayLike) -> _Union:
        """Take training images, with all their copies and views, out of all members.

        There where all members have it.

        Parameters
        ----------
        X : array-like
            Patch tokens of training images, in any form of :meth:`fit`; they are recognised.

        Returns
        -------
        self : object
            The union. Where the call fails, it stays as it was.

        Raises
        ------
        ValueError
            When an image is none that the union was fitted to, which the message names by its
            number in `X`, or too few images would be left.
        """
        self._check_can_change()
        self._forget_numbers(self._recognised(X))
        return self

    def _recognised(self, X: ArrayLike) -> IntArray:
        found: IntArray = next(iter(self.scorers_.values()))._recognised(X)
        return found

    def _forget_numbers(self, gone: IntArray) -> None:
        self._change(lambda member, _: member._forget_numbers(gone))

    def _merged_with(self: _Union, others: Sequence[_Union]) -> _Union:
        """A new union of the images of several, which stay as they are."""
        for number, other in enumerate(others, 1):
            other._check_can_change()
            which = f"model {number} cannot be merged with model 0:"
            if type(other) is not type(self) or list(other.scorers_) != list(self.scorers_):
                raise TypeError(f"{which} it is no union of the same scorers")
            for name in set(self.get_params(deep=False)) - NO_MATTER - {"scorers"}:
                old, new = (one._params_at_fit[name] for one in (self, other))
                if not equal_params(old, new):
                    raise ValueError(f"{which} {name} is {new!r}, not {old!r}")
        made = copy(self)
        made._change(
            lambda member, name: member._merged_with([other.scorers_[name] for other in others])
        )
        return made

    def _change(self, change: Callable[[Any, str], Any]) -> None:
        """Give each member a copy that was changed, and calibrate anew."""
        self._check_can_change()
        made, members = copy(self), {}
        for number, (name, member) in enumerate(self.scorers_.items()):
            with ExitStack() as told_once:
                if number:  # what the first one says of the images is enough
                    told_once.enter_context(warnings.catch_warnings())
                    warnings.filterwarnings("ignore", SINGLE, UserWarning)
                    told_once.enter_context(copies_told_elsewhere())
                copied = copy_of_estimator(member)
                members[name] = change(copied, name) or copied
        made.scorers_ = members
        made._calibrate_again()
        self.__dict__.update(made.__dict__)

    def _calibrate_again(self) -> None:
        leaf: Any = self
        while isinstance(leaf, GrowingUnion):
            leaf = next(iter(leaf.scorers_.values()))
        layout = leaf._layout
        images = calibration_images(layout)
        base = layout.select_view(0).select(images)
        patch_scores, image_scores = [], []
        for member in self.scorers_.values():
            # Members may have held out more of the images.
            rows = np.flatnonzero(np.isin(member._calibration_numbers, leaf._train_numbers[images]))
            grids = [np.ravel(member.held_out_patches_[row]) for row in rows]
            patch_scores.append(np.concatenate(grids).astype(np.float64))
            image_scores.append(-member.train_scores_[rows])
        scores, samples = self._scaled_and_joined(base, patch_scores, image_scores)
        self._train_numbers, self._n_given = leaf._train_numbers, leaf._n_given
        self._group_names = leaf._group_names
        self._calibration_numbers = leaf._train_numbers[images]
        name = type(self).__name__
        self._calibrate(samples, groups_of_scores(layout, images, len(images), name))
        self._keep_patches(grids_of(base, scores))

    def _can_change(self) -> bool:
        """Whether all members have `partial_fit`."""
        members = getattr(self, "scorers_", None) or dict(self.scorers)
        without = [name for name, one in members.items() if not hasattr(one, "_check_can_change")]
        if without:
            raise AttributeError(
                f"{type(self).__name__} cannot change after fit: its scorers "
                f"{', '.join(without)} cannot"
            )
        return all(member._can_change() for member in members.values())

    def _check_can_change(self) -> None:
        """Raise where the members are not those of a fit, or one cannot be changed."""
        check_is_fitted(self, "train_scores_")
        self._can_change()
        self._check_calibrated()
        check_calibration(self.calibration_)
        for member in self.scorers_.values():
            member._check_can_change()
