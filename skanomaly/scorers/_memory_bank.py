"""Memory banks of normal patches: how they are made of training images, and searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.utils import check_random_state

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.coreset import (
    coreset_size,
    covering_radius,
    greedy_k_center,
    projected_k_center,
)
from skanomaly.core.explanations import grid_sides
from skanomaly.core.reweighting import softmax_factor
from skanomaly.core.search.faiss_index import FaissIndex
from skanomaly.core.search.index import PatchIndex
from skanomaly.core.token_space import TokenSpace, places_in_grids

_QUERIES = 2**14  # patches whose prepared copies are in memory at a time


@dataclass(frozen=True)
class MemoryBank:
    """Patches of normal images, or one part of each, ready to be searched.

    Attributes
    ----------
    space : TokenSpace
        In which they are compared.
    index : PatchIndex or FaissIndex
        Holds the patches, and finds the nearest of them.
    rows : ndarray of shape (n_bank,), int, or None
        Where each patch comes from: its row among the tokens of the training images; None where
        these are all rows in order.
    coverage_radius : float
    """

    space: TokenSpace
    index: PatchIndex | FaissIndex
    rows: IntArray | None
    coverage_radius: float


@dataclass(frozen=True)
class MemoryBanks:
    """A memory bank for each part of the tokens, and the images that they are made of.

    Attributes
    ----------
    banks : tuple of MemoryBank
    group_of_row : ndarray of shape (n_bank,), int, or None
        Number of the group of each patch's image, by which an image can be left out with all of
        its group; None of coresets, whose choice of patches depends on all images.
    group_of_image : ndarray of shape (n_images,), int
        Number of the group of each training image.
    offsets : ndarray of shape (n_images + 1,), int
        Where the rows of each training image start.
    sides : ndarray of shape (n_images, 2), int
        Rows and columns of each training image's patches.
    grid : tuple of int, or None
        That of all training images, if there is one.
    """

    banks: tuple[MemoryBank, ...]
    group_of_row: IntArray | None
    group_of_image: IntArray
    offsets: IntArray
    sides: IntArray
    grid: tuple[int, ...] | None


@dataclass(frozen=True)
class Coreset:
    """How many patches a bank keeps, and how they are chosen.

    Attributes
    ----------
    size : float, int or None
        Share or number; None for all.
    method : str
        As `coreset_method` of :class:`skanomaly.PatchKNNScorer`.
    random_state : int, RandomState instance or None
    """

    size: float | None
    method: str = "k_center"
    random_state: int | RandomState | None = None


def fit_banks(
    tokens: PatchTokens, spaces: Sequence[TokenSpace], coreset: Coreset, algorithm: str
) -> MemoryBanks:
    """Memory banks of the patches of training images, one for each space.

    Parameters
    ----------
    tokens : PatchTokens
        Of the training images, views included.
    spaces : sequence of TokenSpace
    coreset : Coreset
        Of each bank.
    algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.

    Returns
    -------
    MemoryBanks
    """
    rows = None if tokens.valid.all() else np.flatnonzero(tokens.valid)
    places = None
    if any(space.position_weight for space in spaces):
        places = places_in_grids(tokens.grids, tokens.n_views, first=tokens.first)
    banks = []
    for space in spaces:
        chosen, radius = rows, 0.0
        if coreset.size is None:
            patches = space.prepare(tokens.values, rows, places)
        else:
            table = space.lazy(tokens.values, rows, places)
            kept, radius = _choose(table, coreset)
            patches = table[kept]
            chosen = kept if rows is None else rows[kept]
        index = index_of(patches, space, algorithm)
        banks.append(MemoryBank(space, index, chosen, radius))
    return banks_of_images(banks, tokens, coreset.size is None)


def banks_of_images(
    banks: Sequence[MemoryBank], images: PatchTokens, is_whole: bool
) -> MemoryBanks:
    """Memory banks with the images that they are made of.

    Parameters
    ----------
    banks : sequence of MemoryBank
    images : PatchTokens
        All training images; of their tokens nothing is asked.
    is_whole : bool
        Whether the banks have all of their patches that are not masked.

    Returns
    -------
    MemoryBanks
    """
    groups = images.group_of_image
    dtype = np.int32 if len(images.valid) < 2**31 else np.int64
    return MemoryBanks(
        tuple(
            bank if bank.rows is None else replace(bank, rows=bank.rows.astype(dtype))
            for bank in banks
        ),
        groups[images.image_of_row()][images.valid] if is_whole else None,
        groups,
        images.offsets,
        grid_sides(images.grids),
        images.grids[0] if len(set(images.grids)) == 1 else None,
    )


def _choose(table, coreset):
    """Rows of a coreset, and its covering radius."""
    size = coreset_size(coreset.size, len(table))
    if coreset.method == "random":
        rng = check_random_state(coreset.random_state)
        chosen = np.sort(rng.choice(len(table), size, replace=False))
        return chosen, covering_radius(table, chosen)
    if coreset.method == "projected_k_center":
        return projected_k_center(table, size, random_state=coreset.random_state)
    return greedy_k_center(table, size)


def index_of(patches: FloatArray, space: TokenSpace, algorithm: str) -> PatchIndex | FaissIndex:
    """What finds the nearest of prepared patches, which it takes over."""
    if algorithm.startswith("faiss:"):
        return FaissIndex(patches, space.search_metric, algorithm.removeprefix("faiss:"))
    return PatchIndex(patches, space.search_metric, algorithm)


def queries_of(
    model: MemoryBanks, bank: MemoryBank, tokens: PatchTokens, rows: IntArray
) -> FloatArray:
    """Some patches as a bank compares them.

    Parameters
    ----------
    model : MemoryBanks
    bank : MemoryBank
        One of them.
    tokens : PatchTokens
        Without views.
    rows : ndarray of int
        The patches.

    Returns
    -------
    ndarray of shape (n_rows, n_components)
    """
    places = None
    if bank.space.position_weight:
        places = places_in_grids(tokens.grids, flat_grid=model.grid, first=tokens.first)[rows]
    values = tokens.values[rows].astype(bank.index.dtype, copy=False)
    return bank.space.prepare(values, places=places)


def mean_distances(
    model: MemoryBanks,
    tokens: PatchTokens,
    known: IntArray,
    rows: IntArray,
    n_neighbors: int,
    bounds: bool = False,
) -> FloatArray:
    """Mean distance of some patches to the nearest ones of each bank, averaged over the banks.

    Parameters
    ----------
    model : MemoryBanks
    tokens : PatchTokens
        Without views.
    known : ndarray of shape (n_images,), int
        Number of each image among the training images, whose group is left out; or -1.
    rows : ndarray of int
        The patches.
    n_neighbors : int
        How many nearest ones.
    bounds : bool, default=False
        Upper bounds of the distances instead, which cost less.

    Returns
    -------
    ndarray of shape (n_tokens,), float64
        Of all rows of `tokens`; 0 for those that were not asked for.
    """
    groups = _own_groups(model, known)
    groups = None if groups is None else groups[tokens.image_of_row()]
    scores = np.zeros(len(tokens.values))
    for start in range(0, len(rows), _QUERIES):
        part = rows[start : start + _QUERIES]
        for bank in model.banks:
            index: Any = bank.index  # only a PatchIndex has bounds, and only it is asked for them
            found: Any = (index.upper_bounds if bounds else index.search)(
                queries_of(model, bank, tokens, part),
                n_neighbors,
                query_groups=None if groups is None else groups[part],
                bank_groups=None if groups is None else model.group_of_row,
            )
            distances = found if bounds else found[0]
            scores[part] += bank.space.distances(distances).mean(axis=1)
        scores[part] /= len(model.banks)
    return scores


def softmax_factors(
    model: MemoryBanks, tokens: PatchTokens, known: IntArray, rows: IntArray, n_neighbors: int
) -> FloatArray:
    """PatchCore's weights of some patches, see :func:`skanomaly.core.reweighting.softmax_factor`.

    Parameters
    ----------
    model : MemoryBanks
        Of one bank.
    tokens, known, rows
        As for :func:`mean_distances`.
    n_neighbors : int
        Patches of the bank in the softmax: the nearest one, and those nearest to it.

    Returns
    -------
    ndarray of shape (len(rows),), float64
        In [0, 1]. Whatever is left out of the bank is left out of the neighbours too.
    """
    (bank,) = model.banks
    groups = _own_groups(model, known)
    own = None if groups is None else groups[tokens.image_of_row()[rows]]
    left = np.full(len(rows), len(bank.index))
    if own is not None and model.group_of_row is not None:
        numbers, counts = np.unique(model.group_of_row, return_counts=True)
        at = np.minimum(np.searchsorted(numbers, own), len(numbers) - 1)
        left -= np.where(numbers[at] == own, counts[at], 0)
    factors = np.empty(len(rows))
    for start in range(0, len(rows), _QUERIES):
        part = np.arange(start, min(start + _QUERIES, len(rows)))
        queries = queries_of(model, bank, tokens, rows[part])
        # A bank of fewer patches has fewer neighbours: a turn for each number of them.
        for count in np.unique(np.minimum(left[part], n_neighbors)).tolist():
            turn = np.flatnonzero(np.minimum(left[part], n_neighbors) == count)
            excluded: dict[str, Any] = {}
            if own is not None:
                excluded = {"query_groups": own[part[turn]], "bank_groups": model.group_of_row}
            nearest = bank.index.search(queries[turn], 1, **excluded)[1][:, 0]
            around = bank.index.search(bank.index.take(nearest), count, **excluded)[1]
            for number, neighbors in zip(turn, around, strict=True):
                query = queries[number]
                factors[part[number]] = softmax_factor(query, bank.index.take(neighbors))
    return factors


def _own_groups(model, known):
    """Group of each image that is left out of its search, or -1; None where none is."""
    if model.group_of_row is None or not (known >= 0).any():
        return None
    return np.where(known >= 0, model.group_of_image[known], -1)
