"""How a scorer by memory banks grows, shrinks and is merged: whole banks, and coresets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import RandomState

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.calibration import calibration_folds
from skanomaly.core.reweighting import highest_row
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
from skanomaly.scorers._grown_coreset import coreset_without, grown_coreset, merged_coresets
from skanomaly.scorers._memory_bank import Coreset, MemoryBanks
from skanomaly.scorers._training_images import calibration_images


class GrowingBanks(GrowingScorer):
    """Base of :class:`skanomaly.PatchKNNScorer`, as far as its banks change after `fit`.

    Whole banks have the tokens of all images: what is not worth a way of its own is fitted to
    these, which costs what a fit costs but for the embedder.
    """

    _model: MemoryBanks

    n_neighbors: int
    coreset: float | None
    coreset_method: str
    random_state: int | RandomState | None
    algorithm: str
    reweighting: int | None
    _held_out_factors: dict[int, float]

    def _fit_banks(self, tokens: Any, size: float | None) -> MemoryBanks:
        raise NotImplementedError

    def _scores_and_factors(
        self, model: Any, tokens: Any, known: IntArray, of_all_rows: bool
    ) -> FloatArray:
        raise NotImplementedError

    def _kept_values(self):
        return values_of(self._model, self._layout)

    @property
    def _problem_of_growth(self):
        if self.coreset is not None and self.algorithm.startswith("faiss:"):
            return (
                f"what algorithm={self.algorithm!r} costs on a coreset is measured in fit alone; "
                "take another algorithm, or coreset=None"
            )
        return None

    def _grown(self, tokens, layout):
        if self.coreset is not None:
            return self._grown_coreset(tokens, layout)
        if self._is_refitted(layout):
            return super()._grown(tokens, layout)
        n_old = self._layout.n_images
        dtype = self._model.banks[0].index.dtype
        tokens = replace(tokens, values=tokens.values.astype(dtype, copy=False))
        more, own = self._fit_banks(tokens, None), layout.select(range(n_old, layout.n_images))
        return self._joined([self._model, more], [self._layout, own], [self._known(), {}], layout)

    def _merged(self, others, layout):
        if self.coreset is not None:
            return self._merged_coresets(others, layout)
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
        if self.coreset is not None:
            return self._coreset_without(kept, layout)
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

    def _grown_coreset(self, tokens, layout):
        """New images are held out from coresets; what old ones were held out from stays."""
        _check_groups(self._layout, "was fitted to")
        n_old, folds = (
            self._layout.n_images,
            calibration_folds(tokens.group_of_image, self._n_folds),
        )
        model = self._coreset_of(self._model, tokens, layout, self.coreset)
        size, found = len(model.banks[0].index), []
        fold_of_row, base = folds[tokens.image_of_row()], tokens.select_view(0)
        for fold in range(folds.max() + 1):
            part = base.select(np.flatnonzero(folds == fold))
            known = self._model_without_groups(part)
            if (folds != fold).any():
                rest = tokens.mask(fold_of_row == fold)
                known = self._coreset_of(known, rest, layout, size)
            found.append((part, known))
        held_out = self._numbered(0)
        if self.reweighting is not None:
            self._held_out_factors = dict(self._held_out_factors)
        numbers = iter(np.argsort(folds, kind="stable") + n_old)
        for part, known in found:
            scores, factors = self._scores_of_new(known, part)
            for i in range(part.n_images):
                number = int(next(numbers))
                held_out[number] = scores[part.rows(i)][part.valid[part.rows(i)]]
                if factors is not None:
                    self._held_out_factors[number] = factors[i]
        return model, held_out

    def _coreset_of(self, model, tokens, layout, size):
        coreset = Coreset(size, self.coreset_method, self.random_state)
        return grown_coreset(model, tokens, layout, coreset, self.algorithm)

    def _model_without_groups(self, images):
        """The model without the patches of the groups that some new images are of."""
        if images.groups is None:
            return self._model
        stays = ~np.isin(self._layout.group_of_image, images.groups)
        if stays.all():
            return self._model
        kept = np.flatnonzero(stays)
        left = self._layout.select(kept)
        return coreset_without(self._model, self._layout, kept, left, self.algorithm)

    def _scores_of_new(self, model, images):
        """Of each row its score, and with re-weighting of each image the weight of its score."""
        unknown = np.full(images.n_images, -1)
        if self.reweighting is None:
            return self._score_model(model, images, unknown), None
        found = self._scores_and_factors(model, images, unknown, of_all_rows=False)
        rows = [highest_patch(images, found[:, 0], i) for i in range(images.n_images)]
        return found[:, 0], found[rows, 1]

    def _numbered(self, first):
        """Held-out scores as they are, by the numbers of images from `first` on."""
        return {image + first: self._held_out_rows(image) for image in self._held_out_scores}

    def _coreset_without(self, kept, layout):
        _check_groups(layout, "would be left with")
        model = coreset_without(self._model, self._layout, kept, layout, self.algorithm)
        held_out = {number: self._held_out_rows(old) for number, old in enumerate(kept.tolist())}
        if self.reweighting is not None:
            factors = self._held_out_factors
            self._held_out_factors = {i: factors[old] for i, old in enumerate(kept.tolist())}
        return model, held_out

    def _merged_coresets(self, others, layout):
        scorers = (self, *others)
        for scorer in scorers:
            _check_groups(scorer._layout, "was fitted to")
        models = [scorer._model for scorer in scorers]
        coreset = Coreset(self.coreset, self.coreset_method, self.random_state)
        model = merged_coresets(models, layout, coreset, self.algorithm)
        held_out, factors, first = {}, {}, 0
        for scorer in scorers:
            held_out |= scorer._numbered(first)
            if self.reweighting is not None:
                factors |= {i + first: value for i, value in scorer._held_out_factors.items()}
            first += scorer._layout.n_images
        if self.reweighting is not None:
            self._held_out_factors = factors
        return model, held_out


def _check_groups(layout, what):
    """Raise where images were, or would be, held out from parts of themselves alone."""
    if layout.n_groups == 1:
        raise ValueError(
            f"a coreset that {what} a single image or group has held-out scores by parts of that "
            "alone, which cannot be made again without its tokens: fit again"
        )


def highest_patch(tokens, scores, image):
    """Row of the patch that has the highest score of an image."""
    rows = np.arange(tokens.offsets[image], tokens.offsets[image + 1])
    rows = rows[tokens.valid[rows]]
    return rows[highest_row(scores[rows], tokens.values[rows])]
