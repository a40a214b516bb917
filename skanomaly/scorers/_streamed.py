"""Scorers that are fitted to any number of images in bounded memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from skanomaly._grouped_fit import group_names, group_numbers
from skanomaly._labels import normal_images
from skanomaly._origins import origin_of
from skanomaly._patch_tokens import PatchTokens
from skanomaly._token_stream import TokenStream
from skanomaly._typing import FloatArray, Groups, IntArray, Labels
from skanomaly.core.calibration import calibration_folds
from skanomaly.scorers._base import OF_FIT
from skanomaly.scorers._cross_fitted import check_rows
from skanomaly.scorers._growing import GrowingScorer
from skanomaly.scorers._token_source import TokenSource


@dataclass(frozen=True)
class Held:
    """Images that are held out together, and the model that scores them.

    Attributes
    ----------
    images : ndarray of int
    model : object
    is_known : bool, default=False
        Whether the model was fitted to them, and leaves out the group of an image by itself.
    """

    images: IntArray
    model: Any
    is_known: bool = False


class StreamedScorer(GrowingScorer):
    """Base of the scorers whose models are made from one pass over the tokens of all images.

    A subclass implements, besides what :class:`GrowingScorer` says:

    ``_learn_stream(source)``
        Return the model of all images of a :class:`TokenSource`, and an iterable of :class:`Held`:
        which images are scored by which model, each by one that has not seen it. It is gone through
        once, when the first one is known to be there; what it makes as it goes need not be in
        memory at once.

    It may override:

    ``_problem_of_streams``
        Why a scorer of these parameters cannot be fitted to a stream, for the message; None, it
        can.
    ``_score_held(model, base, known, images)``
        As `_score_model`, for the images of these numbers.
    """

    @abstractmethod
    def _learn_stream(self, source: TokenSource) -> tuple[Any, Iterable[Held]]:
        """The model of all images, and by which models they are scored."""

    @property
    def _problem_of_streams(self) -> str | None:
        """Why there is no fit to a stream with these parameters."""
        return None

    def _score_held(
        self, model: Any, base: PatchTokens, known: IntArray, images: IntArray
    ) -> FloatArray:
        """Score of each row of held-out images."""
        return self._score_model(model, base, known)

    def _fit_stream(self, stream: TokenStream, y: Labels = None, groups: Groups = None) -> None:
        """As `fit`, to tokens that are computed when they are asked for."""
        self._validate_params()
        name = type(self).__name__
        if (problem := self._problem_of_streams) is not None:
            raise ValueError(f"{name} cannot be fitted to a stream of images: {problem}")
        for attribute in (*OF_FIT, "_patch_limits", "_held_out_grids"):
            self.__dict__.pop(attribute, None)  # a fit that fails leaves no half of the one before
        made = copy(self)
        numbers, normal = group_numbers(groups, len(stream)), normal_images(y, len(stream))
        source = TokenSource(
            stream,
            normal,
            None if numbers is None else numbers[normal],
            made._uses_positions,
            lambda X: made._check_tokens(X, reset=True),
        )
        least = max(2, self._min_images)
        if source.n_groups < least:
            raise ValueError(
                f"{name} needs at least {least} normal images to be fitted to a stream, got "
                f"{source.n_images}"
                + ("" if groups is None else f" of {source.n_groups} groups: one of each counts")
                + "; fit takes them at once"
            )
        made._model, plan = made._learn_stream(source)
        held_out = {}
        for held in plan:
            for images, tokens in source.parts(held.images):
                base = tokens.select_view(0)
                known = images if held.is_known else np.full(len(images), -1)
                scores = check_rows(made._score_held(held.model, base, known, images), base)
                for i, image in enumerate(images.tolist()):
                    held_out[image] = scores[base.rows(i)][base.valid[base.rows(i)]]
            del held  # before the next model is made
        known_images = source.known(len(stream), group_names(groups))
        made._take(made._model, held_out, known_images)
        made._origin_at_fit = origin_of(stream)
        made._warn_of(known_images, 0)
        self.__dict__.update(made.__dict__)


def held_by_folds(
    groups: IntArray, n_folds: int, model_without: Callable[[int], Any]
) -> Iterable[Held]:
    """All images, fold by fold, with the model of the other folds.

    Parameters
    ----------
    groups : ndarray of shape (n_images,), int
        Group of each image.
    n_folds : int
        As for :func:`skanomaly.core.calibration.calibration_folds`.
    model_without : callable
        ``model_without(fold)``: the model of all images but those of that fold.

    Yields
    ------
    Held
    """
    folds = calibration_folds(groups, n_folds)
    for fold in range(folds.max() + 1):
        yield Held(np.flatnonzero(folds == fold), model_without(fold))
