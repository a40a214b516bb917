"""Scorers whose models follow from moments of tokens, which are added up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly.core.calibration import calibration_folds
from skanomaly.scorers._growing import HeldOut
from skanomaly.scorers._streamed import StreamedScorer, held_by_folds


class GrowingMoments(StreamedScorer):
    """Base of :class:`skanomaly.PatchGaussianScorer` and :class:`skanomaly.PatchSubspaceScorer`.

    Their models are made of sums over patches: those of more images are added, and the model is
    that of a fit to all. Held-out scores of old images stay as they are, and are therefore by
    models of fewer images than those of a fit would be. A subclass implements:

    ``_with_tokens(moments, tokens)``
        Moments with those of more tokens, views included; of these alone where `moments` is None.
        They may be changed in place.
    ``_joined(parts)``
        Moments of all parts, which stay as they are.
    ``_model_of(moments)``
        The model.
    ``_start(tokens)``
        Set what moments depend on but the tokens, by those of the first image.

    It may override:

    ``_kept(moments)``
        What is kept of moments that are not added to.
    """

    _moments: Any

    @abstractmethod
    def _with_tokens(self, moments: Any, tokens: PatchTokens) -> Any:
        """Moments with those of more tokens."""

    @abstractmethod
    def _joined(self, parts: Iterable[Any]) -> Any:
        """Moments of all parts."""

    @abstractmethod
    def _model_of(self, moments: Any) -> Any:
        """The model that follows from moments."""

    def _kept(self, moments: Any) -> Any:
        """What is kept of moments that are not added to."""
        return moments

    def _start(self, tokens: PatchTokens) -> None:
        """Set what moments depend on but the tokens."""

    def _learn_stream(self, source):
        self._start(source.first())
        folds, parts = calibration_folds(source.group_of_image, self._n_folds), {}
        for images, tokens in source.parts():
            for fold in np.unique(folds[images]).tolist():
                of_fold = tokens.select(np.flatnonzero(folds[images] == fold))
                parts[fold] = self._with_tokens(parts.get(fold), of_fold)
        moments = self._joined(parts.values())
        self._moments = self._kept(moments)

        def model_without(fold):
            return self._model_of(self._joined(part for i, part in parts.items() if i != fold))

        plan = held_by_folds(source.group_of_image, self._n_folds, model_without)
        return self._model_of(moments), plan

    def _grown(self, tokens, layout):
        _check_groups(self._layout, "was fitted to")
        n_old = self._layout.n_images
        if (
            layout.groups is not None
            and np.isin(layout.groups[n_old:], layout.groups[:n_old]).any()
        ):
            raise ValueError(
                f"new images are of groups that the {type(self).__name__} knows, whose patches "
                "cannot be taken out of its sums to hold them out: fit again"
            )
        folds = calibration_folds(tokens.group_of_image, self._n_folds)
        in_fold = [np.flatnonzero(folds == fold) for fold in range(folds.max() + 1)]
        parts = [self._with_tokens(None, tokens.select(images)) for images in in_fold]
        base, held_out = tokens.select_view(0), self._numbered(0)
        for fold, images in enumerate(in_fold):
            others = [part for i, part in enumerate(parts) if i != fold]
            model = self._model_of(self._joined([self._moments, *others]))
            of_fold = base.select(images)
            scores = self._score_model(model, of_fold, np.full(len(images), -1))
            for i, image in enumerate(images.tolist()):
                rows = of_fold.rows(i)
                held_out[n_old + image] = scores[rows][of_fold.valid[rows]]
        return self._taken(self._joined([self._moments, *parts])), held_out

    def _merged(self, others: Sequence[Any], layout: PatchTokens) -> tuple[Any, HeldOut]:
        held_out: HeldOut = {}
        first = 0
        for scorer in (self, *others):
            _check_groups(scorer._layout, "was fitted to")
            held_out |= scorer._numbered(first)
            first += scorer._layout.n_images
        moments = self._joined(scorer._moments for scorer in (self, *others))
        return self._taken(moments), held_out

    def _taken(self, moments):
        """The model of moments, which are kept."""
        self._moments = self._kept(moments)
        return self._model_of(moments)

    def _without(self, kept, layout):
        raise ValueError(
            f"{type(self).__name__} has sums over the patches of all images, out of which an image "
            "cannot be taken: fit again without it"
        )

    def _numbered(self, first):
        """Held-out scores as they are, by the numbers of images from `first` on."""
        return {image + first: self._held_out_rows(image) for image in self._held_out_scores}


def _check_groups(layout, what):
    """Raise where images were held out from parts of themselves alone."""
    if layout.n_groups == 1:
        raise ValueError(
            f"a model that {what} a single image or group has held-out scores by parts of that "
            "alone, which cannot be made again without its tokens: fit again"
        )
