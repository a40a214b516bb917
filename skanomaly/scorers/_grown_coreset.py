"""Coresets that take in the patches of more images, lose those of some, or become one.

A coreset does not have the tokens of the images that it was chosen from. By the triangle inequality
it is known all the same how far any of them can be from the new bank: `coverage_radius` of what the
functions return is that bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.utils import check_random_state

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import IntArray
from skanomaly.core.coreset import (
    coreset_size,
    covering_radius,
    extend_k_center,
    greedy_k_center,
    merge_coresets,
)
from skanomaly.core.search.brute_force import nearest_patches
from skanomaly.scorers._memory_bank import (
    Coreset,
    MemoryBank,
    MemoryBanks,
    banks_of_images,
    fit_banks,
    index_of,
)


def grown_coreset(
    model: MemoryBanks,
    tokens: PatchTokens,
    layout: PatchTokens,
    coreset: Coreset,
    algorithm: str,
) -> MemoryBanks:
    """Coresets that cover the patches of more images.

    Parameters
    ----------
    model : MemoryBanks
        Coresets.
    tokens : PatchTokens
        Of the new images, views included.
    layout : PatchTokens
        All images, the new ones last.
    coreset : Coreset
        As they were chosen; the size is that of all images.
    algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.

    Returns
    -------
    MemoryBanks
        Where a coreset may have more patches than before, it keeps those that it has, and adds what
        is farthest from them: its radius is the larger one of before and of the new patches. Else
        it is chosen among its own and all new patches, and its radius is the sum of both.
    """
    spaces = [bank.space for bank in model.banks]
    new = fit_banks(tokens, spaces, Coreset(None), "brute")
    size = _size(coreset, layout)
    n_before = int(model.offsets[-1])
    banks = []
    for old, more in zip(model.banks, new.banks, strict=True):
        n_old = len(old.index)
        patches = np.concatenate([old.index.bank, more.index.bank], dtype=old.index.dtype)
        chosen, radius = _chosen(patches, n_old, min(size, len(patches)), coreset, layout, n_before)
        keeps_all = len(chosen) >= n_old and (chosen[:n_old] == np.arange(n_old)).all()
        radius = max(old.coverage_radius, radius) if keeps_all else old.coverage_radius + radius
        own = np.arange(len(more.index)) if more.rows is None else more.rows
        rows = np.concatenate([old.rows, own + n_before])[chosen]
        index = index_of(patches[chosen], old.space, algorithm)
        banks.append(MemoryBank(old.space, index, rows, radius))
    return banks_of_images(banks, layout, False)


def _size(coreset, layout):
    """How many patches the coreset of all images may have."""
    return coreset_size(coreset.size, int(np.count_nonzero(layout.valid)))


def _chosen(patches, n_old, size, coreset, layout, n_before):
    """Rows of a coreset among its patches, which come first, and new ones; how it covers these."""
    if coreset.method == "random":
        rng = check_random_state(coreset.random_state)
        n_new = len(patches) - n_old
        if size >= n_old:
            kept = np.arange(n_old)
        else:  # as many of each as there would be among patches drawn from all
            n_tokens = int(np.count_nonzero(layout.valid[:n_before]))
            n_kept = min(n_old, int(rng.hypergeometric(n_tokens, n_new, size)))
            kept = np.sort(rng.choice(n_old, n_kept, replace=False))
        added = rng.choice(n_new, min(n_new, size - len(kept)), replace=False)
        chosen = np.concatenate([kept, n_old + np.sort(added)])
        return chosen, covering_radius(patches, chosen)
    if size >= n_old:
        return extend_k_center(patches, n_old, size)
    return greedy_k_center(patches, size)


def merged_coresets(
    models: Sequence[MemoryBanks], layout: PatchTokens, coreset: Coreset, algorithm: str
) -> MemoryBanks:
    """The greedy coreset of several coresets.

    Parameters
    ----------
    models : sequence of MemoryBanks
        Coresets, of as many parts.
    layout : PatchTokens
        The images of all of them.
    coreset : Coreset
        The size is that of all images.
    algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.

    Returns
    -------
    MemoryBanks
        The radius is the largest one of the models and how far the merged coreset is from theirs.
    """
    size = _size(coreset, layout)
    starts = np.cumsum([0, *(model.offsets[-1] for model in models)])
    banks = []
    for parts in zip(*(model.banks for model in models), strict=True):
        coresets = [bank.index.bank for bank in parts]
        dtype = coresets[0].dtype
        coresets = [bank.astype(dtype, copy=False) for bank in coresets]
        n = sum(map(len, coresets))
        radii = [bank.coverage_radius for bank in parts]
        chosen, radius = merge_coresets(coresets, radii, min(size, n))
        rows = np.concatenate(
            [bank.rows + start for bank, start in zip(parts, starts, strict=False)]
        )
        index = index_of(np.concatenate(coresets)[chosen], parts[0].space, algorithm)
        banks.append(MemoryBank(parts[0].space, index, rows[chosen], radius))
    return banks_of_images(banks, layout, False)


def coreset_without(
    model: MemoryBanks, before: PatchTokens, kept: IntArray, layout: PatchTokens, algorithm: str
) -> MemoryBanks:
    """Coresets without the patches of some images.

    Parameters
    ----------
    model : MemoryBanks
        Coresets.
    before : PatchTokens
        Their images.
    kept : ndarray of int
        The numbers of the images that stay.
    layout : PatchTokens
        These images.
    algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.

    Returns
    -------
    MemoryBanks
        The radius is larger by the largest distance of a patch that leaves to one that stays.

    Raises
    ------
    ValueError
        When no patch of a coreset would be left.
    """
    stays = np.isin(before.image_of_row(), kept)
    numbers = np.cumsum(stays) - 1  # of the rows that stay
    banks = []
    for bank in model.banks:
        patches, of_bank = bank.index.bank, stays[np.asarray(bank.rows)]
        if not of_bank.any():
            raise ValueError(
                "all patches of the coreset are of the images that are to be forgotten: fit again, "
                "without them"
            )
        radius = bank.coverage_radius
        if not of_bank.all():
            # In the Euclidean distance of the bank's space, in which radii are.
            near, _ = nearest_patches(patches[~of_bank], patches[of_bank], 1, "euclidean")
            radius += float(near.max())
        index = index_of(patches[of_bank], bank.space, algorithm)
        rows = numbers[np.asarray(bank.rows)[of_bank]]
        banks.append(MemoryBank(bank.space, index, rows, radius))
    return banks_of_images(banks, layout, False)
