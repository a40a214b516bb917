"""How a scorer by memory banks grows, shrinks and is merged: whole banks, and coresets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from skanomaly.core.search.index import PatchIndex
from skanomaly.scorers._growing import GrowingScorer
from skanomaly.scorers._grown_bank import (
    banks_without,
    held_out_by_search,
    held_out_of_joined,
    held_out_without,
    joined_banks,
    values_of,
)
from skanomaly.scorers._memory_bank import MemoryBanks
from skanomaly.scorers._training_images import calibration_images


class GrowingBanks(GrowingScorer):
    """Base of :class:`skanomaly.PatchKNNScorer`, as far as its banks change after `fit`.

    Whole banks have the tokens of all images: what is not worth a way of its own is fitted to
    these, which costs what a fit costs but for the embedder.
    """

    _model: MemoryBanks

    n_neighbors: int
    coreset: float | None
    algorithm: str
    reweighting: int | None

    def _fit_banks(self, tokens: Any, size: float | None) -> MemoryBanks:
        raise NotImplementedError

    def _kept_values(self):
        return values_of(self._model, self._layout)

    def _grown(self, tokens, layout):
        if self._is_refitted(layout):
            return super()._grown(tokens, layout)
        n_old = self._layout.n_images
        dtype = self._model.banks[0].index.dtype
        tokens = replace(tokens, values=tokens.values.astype(dtype, copy=False))
        more, own = self._fit_banks(tokens, None), layout.select(range(n_old, layout.n_images))
        return self._joined([self._model, more], [self._layout, own], [self._known(), {}], layout)

    def _merged(self, others, layout):
        if self._is_refitted(layout):
            return super()._merged(others, layout)
        scorers = (self, *others)
        return self._joined(
            [scorer._model for scorer in scorers],
            [scorer._layout for scorer in scorers],
            [scorer._known() for scorer in scorers],
            layout,
        )

    def _joined(self, models, layouts, known, layout):
        joined = joined_banks(models, layout, self.algorithm)
        images = calibration_images(layout)
        if self._is_by_nearest:
            return joined, held_out_of_joined(models, layouts, known, joined, layout, images)
        return joined, held_out_by_search(joined, layout, images, self.n_neighbors)

    def _without(self, kept, layout):
        if self._is_refitted(layout):
            return super()._without(kept, layout)
        before = self._layout
        stays = np.isin(before.image_of_row()[before.valid], kept)
        model = banks_without(self._model, stays, layout, self.algorithm)
        images = calibration_images(layout)
        if self._is_by_nearest:
            known = self._known()
            return model, held_out_without(
                self._model, before, known, stays, model, layout, kept, images
            )
        return model, held_out_by_search(model, layout, images, self.n_neighbors)

    def _is_refitted(self, layout):
        """Whether a fit to the tokens of the bank is what gives the model of these images."""
        exact = isinstance(self._model.banks[0].index, PatchIndex)
        return not exact or self.reweighting is not None or layout.n_groups == 1

    @property
    def _is_by_nearest(self):
        """Whether the score of a patch is its distance to a single patch."""
        return self.n_neighbors == 1 and len(self._model.banks) == 1

    def _known(self):
        """Held-out scores that are distances to the patches of the other groups' images."""
        if self._layout.n_groups == 1:  # those are distances to parts of the same images
            return {}
        return {image: self._held_out_rows(image) for image in self._held_out_scores}
