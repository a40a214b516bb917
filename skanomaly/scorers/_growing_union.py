"""Unions of scorers that grow, shrink and are merged through their members."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skanomaly._parameters import NO_MATTER, copy_of_estimator, equal_params
from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import ArrayLike, FloatArray, IntArray
from skanomaly.scorers._base import SINGLE
from skanomaly.scorers._changing import ChangingScorer
from skanomaly.scorers._growth_checks import check_calibration
from skanomaly.scorers._known_images import KnownImages
from skanomaly.scorers._training_images import calibration_images, grids_of, groups_of_scores

_Union = TypeVar("_Union", bound="GrowingUnion")


class GrowingUnion(ChangingScorer):
    """Base of :class:`skanomaly.ScoreUnion`, as far as it changes after `fit`.

    It has `partial_fit` and `forget` where all of its members have them. These change; scales and
    threshold are made anew from what they have held out.
    """

    scorers: list[tuple[str, Any]]
    scorers_: dict[str, Any]

    def _scaled_and_joined(
        self, base: PatchTokens, patch_scores: list[FloatArray], image_scores: list[FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Learn the scales from held-out scores; those of all rows, and `score_samples`."""
        raise NotImplementedError

    @property
    def _first(self) -> Any:
        """The first member: all know the same images."""
        return next(iter(self.scorers_.values()))

    @property
    def _image_features(self) -> list[FloatArray]:
        features: list[FloatArray] = self._first._image_features
        return features

    def _recognised(self, X: ArrayLike) -> IntArray:
        found: IntArray = self._first._recognised(X)
        return found

    def _check_growth(self, layout: PatchTokens) -> None:
        for member in self.scorers_.values():
            member._check_growth(layout)

    def _take_in(self, new: PatchTokens, known: KnownImages) -> None:
        inner = _as_of_members(known)
        self._change(lambda member, _: member._take_in(new, inner), known)

    def _keep(self, kept: IntArray) -> None:
        known = self._known_images().select(kept)
        self._change(lambda member, _: member._keep(kept), known)

    def _check_mergeable(self, other: Any, number: int) -> None:
        which = f"model {number} cannot be merged with model 0:"
        if type(other) is not type(self) or list(other.scorers_) != list(self.scorers_):
            raise TypeError(f"{which} it is no union of scorers of the same names")
        for name in set(self.get_params(deep=False)) - NO_MATTER - {"scorers"}:
            old, new = (one._params_at_fit[name] for one in (self, other))
            if not equal_params(old, new):
                raise ValueError(f"{which} {name} is {new!r}, not {old!r}")
        for name, member in self.scorers_.items():
            member._check_mergeable(other.scorers_[name], number)

    def _merged_as(self: _Union, others: Sequence[_Union], known: KnownImages) -> _Union:
        made, inner = copy(self), _as_of_members(known)

        def merged(member: Any, name: str) -> Any:
            return member._merged_as([other.scorers_[name] for other in others], inner)

        made._change(merged, known)
        return made

    def _change(self, change: Callable[[Any, str], Any], known: KnownImages) -> None:
        """Give each member a copy that was changed, and calibrate anew."""
        members = {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", SINGLE, UserWarning)  # that of the union is enough
            for name, member in self.scorers_.items():
                copied = copy_of_estimator(member)
                members[name] = change(copied, name) or copied
        self.scorers_, layout = members, known.layout
        images = calibration_images(layout)
        base = layout.select_view(0).select(images)
        patch_scores: list[FloatArray] = []
        image_scores: list[FloatArray] = []
        for member in members.values():
            # Members number the normal images alone, and may have held out more of them.
            rows = np.flatnonzero(np.isin(member._calibration_numbers, images))
            grids = [np.ravel(member.held_out_patches_[row]) for row in rows]
            patch_scores.append(np.concatenate(grids).astype(np.float64))
            image_scores.append(-member.train_scores_[rows])
        scores, samples = self._scaled_and_joined(base, patch_scores, image_scores)
        self._layout, self._train_numbers = layout, known.numbers
        self._n_given, self._group_names = known.n_given, known.names
        self._calibration_numbers = known.numbers[images]
        name = type(self).__name__
        self._calibrate(samples, groups_of_scores(layout, images, len(images), name))
        self._keep_patches(grids_of(base, scores))

    def _can_change(self) -> bool:
        members = getattr(self, "scorers_", None) or dict(self.scorers)
        for name, member in members.items():
            if not isinstance(member, ChangingScorer):
                raise AttributeError(
                    f"{type(self).__name__} cannot change after fit: {name!r} is a "
                    f"{type(member).__name__}, which cannot"
                )
            member._can_change()
        return True

    def _check_can_change(self) -> None:
        check_is_fitted(self, "train_scores_")
        self._can_change()
        self._check_calibrated()
        check_calibration(self.calibration_)
        for member in self.scorers_.values():
            member._check_can_change()


def _as_of_members(known: KnownImages) -> KnownImages:
    """The images of a union as its members number them, which are given the normal ones alone."""
    n_images = known.layout.n_images
    return replace(known, numbers=np.arange(n_images), n_given=n_images)
