"""What an approximate search of memory banks costs, in image scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray
from skanomaly.core.search.faiss_index import FaissIndex
from skanomaly.core.search.index import PatchIndex
from skanomaly.scorers._memory_bank import MemoryBanks

_MEASURED_IMAGES = 16  # at most


def approximation_error(
    tokens: PatchTokens,
    model: MemoryBanks,
    refit: Callable[[PatchTokens], MemoryBanks],
    score: Callable[[Any, PatchTokens, Any], FloatArray],
    aggregate: Callable[[PatchTokens, FloatArray], FloatArray],
) -> float:
    """Largest relative error among the scores of images that the model has not seen.

    Parameters
    ----------
    tokens : PatchTokens
        Of the training images.
    model : MemoryBanks
    refit : callable
        Banks of a part of the training images.
    score : callable
        ``score(model, tokens, known)``: a score for each row.
    aggregate : callable
        ``aggregate(tokens, scores)``: a score for each image.

    Returns
    -------
    float
        0 for exact searches, NaN where no image is left to measure on.
    """
    if not isinstance(model.banks[0].index, FaissIndex):
        return 0.0
    groups, firsts = np.unique(tokens.group_of_image, return_index=True)
    if len(groups) == 1:
        return np.nan
    base = tokens.select_view(0)
    measured = np.arange(0, len(firsts), -(-len(firsts) // _MEASURED_IMAGES))
    images = known = firsts[measured]
    if model.group_of_row is None:  # of a coreset, whose patches are of all images
        images = images[measured % 2 == 0]
        known = np.full(len(images), -1)
        seen = np.isin(tokens.group_of_image, tokens.group_of_image[images])
        model = refit(tokens.select(np.flatnonzero(~seen)))
    exact = replace(model, banks=tuple(_exact(bank) for bank in model.banks))
    base = base.select(images)
    approximate, expected = (
        aggregate(base, score(fitted, base, known)) for fitted in (model, exact)
    )
    scale = np.where(expected > 0, expected, 1)
    return float(np.max(np.abs(approximate - expected) / scale))


def _exact(bank):
    """A bank of the same patches that is searched exactly."""
    return replace(bank, index=PatchIndex(bank.index.bank.copy(), bank.space.search_metric))
