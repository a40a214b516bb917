"""Runs of rows of a sorted bank, which are ruled out, or compared with a query, together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import squared_norms
from skanomaly.core.search.brute_force import pairs_of
from skanomaly.core.search.sorting import Part
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning


class Blocks:
    """The blocks of a bank.

    Parameters
    ----------
    bank : ndarray of shape (n, dim)
        Prepared, and sorted by :func:`skanomaly.core.search.sorting.sort_bank`.
    parts : list of Part
        Of that function; a block never reaches across two of them.
    metric : {"cosine", "euclidean"}
    tuning : Tuning, optional

    Attributes
    ----------
    size : int
        Rows of a block; the last one of a part may have fewer.
    starts, stops : ndarray of shape (n_blocks,), int64
        Rows of each block.
    half_norms : ndarray of shape (n,), float64, or None
        Half the squared norms of the rows; None for unit vectors.
    """

    def __init__(
        self,
        bank: FloatArray,
        parts: list[Part],
        metric: str,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        self.bank, self.metric, self.tuning = bank, metric, tuning
        self.size = size = tuning.rows_per_block
        self.half_norms = None if metric == "cosine" else 0.5 * squared_norms(bank)
        self.starts = np.concatenate([np.arange(part.start, part.stop, size) for part in parts])
        ends = np.repeat([part.stop for part in parts], [part.n_blocks(size) for part in parts])
        self.stops = np.minimum(self.starts + size, ends)

    def __len__(self) -> int:
        return len(self.starts)

    def similarities(
        self,
        queries: FloatArray,
        q: IntArray,
        block: IntArray,
        groups: tuple[IntArray, IntArray] | None,
    ) -> FloatArray:
        """Similarities to the rows of a block, for pairs that are sorted by block; else -inf.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim)
        q, block : ndarray of int64
            The pairs.
        groups : tuple of (query_groups, bank_groups) or None

        Returns
        -------
        ndarray of shape (n_pairs, size)
            ``y.z`` of unit vectors, else ``y.z - |z|^2 / 2``: the larger the nearer.
        """
        out = np.full((len(q), self.size), -np.inf, dtype=queries.dtype)
        left, first = queries[q], np.flatnonzero(np.diff(block, prepend=-1))
        starts, stops = self.starts[block[first]].tolist(), self.stops[block[first]].tolist()
        last = [*first[1:].tolist(), len(q)]
        with np.errstate(invalid="ignore", over="ignore"):  # see skanomaly.core.products
            for i, j, start, stop in zip(first.tolist(), last, starts, stops, strict=True):
                np.matmul(left[i:j], self.bank[start:stop].T, out=out[i:j, : stop - start])
        if self.half_norms is not None or groups is not None:
            rows = np.minimum(
                self.starts[block][:, None] + np.arange(self.size), len(self.bank) - 1
            )
            if self.half_norms is not None:
                out -= self.half_norms[rows].astype(out.dtype)
            if groups is not None:
                own = groups[0][q][:, None]
                out[(groups[1][rows] == own) & (own >= 0)] = -np.inf
        return out

    def compare(
        self,
        queries: FloatArray,
        q: IntArray,
        block: IntArray,
        wanted: FloatArray,
        groups: tuple[IntArray, IntArray] | None,
    ) -> tuple[IntArray, IntArray, FloatArray, NDArray[np.bool_]]:
        """Rows of blocks whose similarity is at least the one that is asked for.

        Parameters
        ----------
        queries, q, block, groups
            As for :meth:`similarities`.
        wanted : ndarray of shape (n_queries,)
            What a similarity must be at least.

        Returns
        -------
        q, rows : ndarray of int64
            Pairs of a query and a row.
        similarity : ndarray
            Of the pairs.
        given_up : ndarray of shape (n_queries,), bool
            Queries with too many such rows, and none among the pairs.
        """
        tuning = self.tuning
        given_up = np.zeros(len(queries), dtype=bool)
        found: list[tuple[Any, ...]] = [(q[:0], block[:0], np.empty(0, dtype=queries.dtype))]
        for start in range(0, len(q), tuning.pairs_at_once):
            pairs = slice(start, start + tuning.pairs_at_once)
            similarity = self.similarities(queries, q[pairs], block[pairs], groups)
            pair, row = pairs_of(similarity >= wanted[q[pairs], None])
            rows = self.starts[block[pairs][pair]] + row
            found.append((q[pairs][pair], rows, similarity[pair, row]))
            if sum(len(part[0]) for part in found) > tuning.candidates_at_once:
                given_up |= has_too_many(concatenate_columns(found)[0], len(queries), tuning)
                found = [tuple(x[~given_up[part[0]]] for x in part) for part in found]
        q, rows, similarity = concatenate_columns(found)
        kept = ~given_up[q]
        return q[kept], rows[kept], similarity[kept], given_up


def has_too_many(q: IntArray, n_queries: int, tuning: Tuning) -> NDArray[np.bool_]:
    """Which queries have more candidates than are kept.

    Parameters
    ----------
    q : ndarray of int64
        The query of each candidate.
    n_queries : int
    tuning : Tuning

    Returns
    -------
    ndarray of shape (n_queries,), bool
    """
    return np.bincount(q, minlength=n_queries) > tuning.candidates_per_query


def concatenate_columns(tables: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Of tables, each a tuple of columns of one length, one table with all rows.

    Parameters
    ----------
    tables : list of tuple of ndarray

    Returns
    -------
    tuple of ndarray
    """
    return tuple(np.concatenate(columns) for columns in zip(*tables, strict=True))


def within_slack_of_best(
    q: IntArray, similarity: FloatArray, n_neighbors: int, slack: FloatArray
) -> NDArray[np.bool_]:
    """Which pairs are within `slack` of the `n_neighbors`-th best pair of their query.

    Parameters
    ----------
    q : ndarray of int64
    similarity : ndarray of the same shape
    n_neighbors : int
    slack : ndarray of shape (n_queries,)

    Returns
    -------
    ndarray of bool
        All pairs of a query with fewer.
    """
    order = np.lexsort((-similarity, q))
    first = np.searchsorted(q[order], q[order])
    kth = np.minimum(first + n_neighbors - 1, len(q) - 1)
    kept = np.empty(len(q), dtype=bool)
    kept[order] = similarity[order] >= similarity[order][kth] - slack[q[order]]
    return kept
