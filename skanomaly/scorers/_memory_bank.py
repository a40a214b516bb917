"""A memory bank of normal patches: how it is made of training images, and searched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.explanations import grid_sides
from skanomaly.core.search.brute_force import prepare_bank
from skanomaly.core.search.faiss_index import FaissIndex
from skanomaly.core.search.index import PatchIndex

_QUERIES = 2**14  # patches whose prepared copies are in memory at a time


@dataclass(frozen=True)
class MemoryBank:
    """Patches of normal images, ready to be searched.

    Attributes
    ----------
    index : PatchIndex or FaissIndex
        Holds the patches, and finds the nearest of them.
    group_of_row : ndarray of shape (n_bank,), int, or None
        Number of the group of each patch's image, by which an image can be left out with all of
        its group; None of a coreset, whose choice of patches depends on all images.
    group_of_image : ndarray of shape (n_images,), int
        Number of the group of each training image.
    coverage_radius : float
    rows : ndarray of shape (n_bank,), int, or None
        Where each patch comes from: its row among the tokens of the training images, of which
        `offsets` and `sides` tell the place; None where these are all rows in order.
    offsets : ndarray of shape (n_images + 1,), int
        Where the rows of each training image start.
    sides : ndarray of shape (n_images, 2), int
        Rows and columns of each training image's patches.
    """

    index: PatchIndex | FaissIndex
    group_of_row: IntArray | None
    group_of_image: IntArray
    coverage_radius: float
    rows: IntArray | None
    offsets: IntArray
    sides: IntArray


def index_of(bank: FloatArray, metric: str, algorithm: str) -> PatchIndex | FaissIndex:
    """The index that an algorithm searches.

    Parameters
    ----------
    bank : ndarray of shape (n_bank, dim)
        Prepared patches.
    metric, algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.

    Returns
    -------
    PatchIndex or FaissIndex
    """
    if algorithm.startswith("faiss:"):
        return FaissIndex(bank, metric, algorithm.removeprefix("faiss:"))
    return PatchIndex(bank, metric, algorithm)


def origin_of_rows(
    tokens: PatchTokens, rows: IntArray | None
) -> tuple[IntArray | None, IntArray, IntArray]:
    """Where the patches of a bank come from, in as little memory as that needs.

    Parameters
    ----------
    tokens : PatchTokens
        Of the training images.
    rows : ndarray of int, or None
        Rows of `tokens` that are in the bank; None for all.

    Returns
    -------
    rows, offsets, sides
        As of :class:`MemoryBank`.
    """
    if rows is not None:
        rows = rows.astype(np.int32 if len(tokens.values) < 2**31 else np.int64)
    return rows, tokens.offsets, grid_sides(tokens.grids)


def mean_distances(
    search: Callable[..., Any],
    bank: MemoryBank,
    tokens: PatchTokens,
    known: IntArray,
    rows: IntArray,
    n_neighbors: int,
) -> FloatArray:
    """Mean distance of some patches to the nearest ones of a bank.

    Parameters
    ----------
    search : callable
        A method of the index: ``search``, or ``upper_bounds``.
    bank : MemoryBank
    tokens : PatchTokens
    known : ndarray of shape (n_images,), int
        Number of each image among the training images, whose group is left out; or -1.
    rows : ndarray of int
        The patches.
    n_neighbors : int
        How many nearest ones.

    Returns
    -------
    ndarray of shape (n_rows,), float64
        Of all rows of `tokens`; 0 for those that were not asked for.
    """
    leave_out = bank.group_of_row is not None and (known >= 0).any()
    own = np.where(known >= 0, bank.group_of_image[known], -1)
    groups = own[tokens.image_of_row()] if leave_out else None
    scores = np.zeros(len(tokens.values))
    for start in range(0, len(rows), _QUERIES):
        part = rows[start : start + _QUERIES]
        queries = tokens.values[part].astype(bank.index.dtype, copy=False)
        distances = search(
            prepare_bank(queries, bank.index.metric),
            n_neighbors,
            query_groups=None if groups is None else groups[part],
            bank_groups=bank.group_of_row if leave_out else None,
        )
        distances = distances[0] if isinstance(distances, tuple) else distances
        scores[part] = distances.mean(axis=1)
    return scores
