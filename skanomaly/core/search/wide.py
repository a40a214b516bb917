"""Exact nearest patches by one product of all coordinates in bfloat16.

The product bounds the distance of every pair from below, so closely that hardly a row beside the
nearest is left to be compared. Written out in ``docs/development/search.md``, whose names are used
here: y and z are a query and a row seen from the centre of the bank, h and g what bfloat16 holds
of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import product, squared_norms
from skanomaly.core.search.blocks import Blocks, concatenate_columns, within_slack_of_best
from skanomaly.core.search.brute_force import pairs_of, rounding_bound
from skanomaly.core.search.low_precision import (
    pack,
    round_and_pack,
    to_above,
    to_nearest,
    torch_products,
    two_terms_above,
)

_COLUMNS = 5  # of a row, beside g: its norm, and half its square, and twice 1
_NEVER = 0x7FFF  # as int16 above all of the numbers ...
_INFINITE = 0x7F80  # ... and this is infinity in bfloat16


class WideSearch:
    """The rows of a bank in bfloat16, with five numbers for their bounds: half of its size.

    Parameters
    ----------
    blocks : skanomaly.core.search.blocks.Blocks
        Of a bank whose largest norm is between 1e-15 and 1e15.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.tuning, bank = blocks, blocks.tuning, blocks.bank
        steps = [slice(start, start + 4096) for start in range(0, len(bank), 4096)]
        total = np.asarray(sum(bank[step].sum(axis=0, dtype=np.float64) for step in steps))
        self.center = (total / len(bank)).astype(bank.dtype)
        squared = np.concatenate(
            [squared_norms(bank[step].astype(np.float64) - self.center) for step in steps]
        )
        widest = np.sqrt(squared.max())
        self.scale = float(2.0 ** np.ceil(np.log2(widest))) if widest > 0 else 1.0
        squared /= self.scale**2
        half = 0.5 * squared
        if blocks.metric == "cosine":
            # A zero vector counts as a unit vector that is orthogonal to every query.
            half[np.concatenate([~bank[step].any(axis=1) for step in steps])] += 0.5 / self.scale**2
        self.widest, self.largest_half = float(np.sqrt(squared.max())), float(half.max())
        self._rows = self._pack(np.sqrt(squared), half)

    def _pack(self, norms, half):
        """Columns of the rows, padded to whole blocks by the last row of each."""
        blocks, dim = self.blocks, len(self.center)
        width = -(-(dim + _COLUMNS) // 16) * 16  # rows that begin at whole units of the product
        packed = np.zeros((len(blocks) * blocks.size, width), dtype=np.uint16)
        columns = [
            to_above(norms, "bfloat16")[:, None],
            two_terms_above(-half, "bfloat16"),
            np.ones((len(half), 2), dtype=np.float32),
        ]
        bounds = pack(np.concatenate(columns, axis=1), "bfloat16")
        for start in range(0, len(blocks), 128):
            rows = blocks.rows(slice(start, start + 128)).ravel()
            tokens = blocks.bank[rows]
            tokens -= self.center
            tokens *= 1 / self.scale  # a power of two
            part = packed[start * blocks.size :][: len(rows)]
            part[:, :dim] = round_and_pack(tokens)
            part[:, dim : dim + _COLUMNS] = bounds[rows]
        return packed

    def candidates(
        self,
        queries: FloatArray,
        n_neighbors: int,
        groups: tuple[IntArray, IntArray] | None = None,
        wanted: FloatArray | None = None,
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Pairs of a query and a row among which the nearest are.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim)
            Prepared, of the dtype of the bank.
        n_neighbors : int
        groups : tuple of (query_groups, bank_groups), optional
            Groups of the queries and of the rows of the bank.
        wanted : ndarray of shape (n_queries,), float64, optional
            What the similarity of a row must be at least for it to be among the nearest, where
            that is known.

        Returns
        -------
        q, rows : ndarray of int64
            The pairs.
        left_over : ndarray of int64
            Queries without pairs, for which brute force is cheaper.
        """
        bank = self.blocks.bank
        slack = np.broadcast_to(
            rounding_bound(queries, self.blocks.half_norms, bank), len(queries)
        )
        least = float(np.finfo(bank.dtype).min)
        wanted = np.full(len(queries), least) if wanted is None else np.maximum(wanted, least)
        columns, limit_of, left = self._columns_of(queries)
        if self.blocks.metric == "cosine":
            left |= ~queries.any(axis=1)
        best = np.full((len(queries), n_neighbors), -np.inf)
        found = [(np.empty(0, dtype=np.int64),) * 2 + (np.empty(0, dtype=queries.dtype),)]
        step = max(1, self.tuning.pairs_of_bounds // len(queries))
        for first in range(0, len(self.blocks), step):
            last = min(first + step, len(self.blocks))
            lowest = self._lowest(first, last, columns, groups)
            # The blocks that look nearest show what is wanted, which leaves few of the others.
            for turn in range(2):
                limit = limit_of(wanted)
                if turn == 0:
                    np.minimum(limit, _low_values(lowest, n_neighbors), out=limit)
                block, q = self._reached(lowest, limit, left, n_neighbors)
                lowest[block, q] = _NEVER
                q, rows, similarity, given_up = self.blocks.compare(
                    queries, q, block + first, wanted, groups
                )
                best = _best(best, q, similarity)
                wanted = np.maximum(wanted, best[:, 0] - slack)
                q, rows, similarity = concatenate_columns([*found, (q, rows, similarity)])
                left |= given_up | self.blocks.has_too_many(q, len(queries))
                kept = (similarity >= wanted[q]) & ~left[q]
                found = [(q[kept], rows[kept], similarity[kept])]
        q, rows, similarity = found[0]
        kept = within_slack_of_best(q, similarity, n_neighbors, slack)
        return q[kept], rows[kept], np.flatnonzero(left)

    def _columns_of(self, queries):
        """Columns of the queries, a function from what is wanted to limits, and who is left over.

        A product of a row's and a query's is no larger than ``|y - z|^2 / 2`` and a constant of
        the query, but for the errors that its limit allows for. A query is left over where its
        norm is so large that nothing can be said of it in these units.
        """
        center, scale, dim = self.center.astype(np.float64), self.scale, len(self.center)
        error = (dim + 64) * 1e-15  # relative, of a product in float64
        offset = product(queries.astype(np.float64), center) - 0.5 * (center @ center)
        size = (np.sqrt(squared_norms(queries)) + np.sqrt(center @ center)) / scale
        out_of_range = size > 2.0**40
        size = np.where(out_of_range, 0, size)
        y = queries - self.center
        y *= 1 / scale
        y[out_of_range] = 0
        h = to_nearest(y, "bfloat16")
        h_norm = np.sqrt(squared_norms(h))
        # |y - h| + 2^-8 |h|, and what float32 and float64 may have taken from y and z.
        rounding = np.sqrt(squared_norms(y - h)) * 1.001 + 1.01 * 2.0**-8 * h_norm
        rounding += (2.0**-22 + error) * size
        columns = np.zeros((self._rows.shape[1], len(y)), dtype=np.float32)
        np.negative(h.T, out=columns[:dim])
        columns[dim] = -to_above(rounding, "bfloat16")
        columns[dim + 1 : dim + 3] = -1
        # Any constant will do: with this one the products are positive, and small where it matters.
        constant = two_terms_above(
            0.5 * h_norm**2 + 2.5 * rounding * self.widest + 2.0**-60, "bfloat16"
        )
        columns[dim + 3 : dim + 5] = constant.T
        constant = constant.astype(np.float64).sum(axis=1)
        # The error of the product itself: summed in float32, in any order.
        terms = (h_norm + rounding) * self.widest + self.largest_half + constant
        product_error = len(columns) * 2.0**-22 * 1.02 * terms + 2.0**-80

        def limit_of(wanted):
            target = wanted - 0.5 if self.blocks.metric == "cosine" else wanted
            t = np.where(out_of_range, 0, (target - offset) / scale**2)
            t -= 2 * error * (size**2 + np.abs(t))
            # Above this lies no row that is wanted. Read as integers, negative numbers lie below 0.
            limit = np.clip(constant - t + product_error, 0, 2.0**126)
            return pack(to_above(limit, "bfloat16"), "bfloat16").view(np.int16)

        return pack(columns, "bfloat16"), limit_of, out_of_range

    def _lowest(self, first, last, columns, groups):
        """The lowest product of each block and query: (n_blocks, n_queries), bfloat16 as int16."""
        size, n_queries = self.blocks.size, columns.shape[1]
        rows = self._rows[first * size : last * size]
        excluded = None if groups is None else _Excluded(self.blocks, first, last, groups)
        lowest = np.empty((last - first, n_queries), dtype=np.int16)
        for start, values in torch_products(rows, columns, self.tuning.rows_per_sign):
            if excluded is not None:
                excluded.fill(values, start)
            out = lowest[start // size : (start + len(values)) // size]
            np.minimum.reduce(values.reshape(-1, size, n_queries), axis=1, out=out)
        return lowest

    def _reached(self, lowest, limit, left, n_neighbors):
        """Blocks and queries below the limits; queries with too many of them are left over."""
        possible = lowest <= limit
        if left.any():
            possible[:, left] = False
        n_blocks, n_queries = lowest.shape
        if np.count_nonzero(possible) > 4 * n_neighbors * n_queries:
            count = possible.sum(axis=0)
            pays = self.tuning.comparing_pays(count, n_blocks) | (count <= 2 * n_neighbors)
            left |= ~pays
            possible[:, ~pays] = False
        return pairs_of(possible)


class _Excluded:
    """Rows of some blocks that queries of their own group must not find."""

    def __init__(self, blocks, first, last, groups):
        own, of_row = groups
        of_row = of_row[blocks.rows(slice(first, last)).ravel()]
        order = np.argsort(of_row, kind="stable")
        bounds = np.unique(own[own >= 0])
        starts = np.searchsorted(of_row, bounds, "left", order)
        stops = np.searchsorted(of_row, bounds, "right", order)
        self._pairs: list[tuple[Any, ...]] = [
            (order[start:stop], np.flatnonzero(own == group))
            for group, start, stop in zip(bounds, starts, stops, strict=True)
            if start < stop
        ]

    def fill(self, values, start):
        """Set the products of excluded pairs, with rows from `start` on, above all others."""
        for rows, queries in self._pairs:
            first, last = np.searchsorted(rows, (start, start + len(values)))
            if first < last:
                values[np.ix_(rows[first:last] - start, queries)] = _NEVER


def _low_values(lowest: NDArray[np.int16], count: int) -> NDArray[np.int16]:
    """Of each column a value that `count` of its entries do not exceed, hardly above the lowest."""
    n_blocks = len(lowest)
    if count > 1:
        runs = min(n_blocks, 32 * count)
        lowest = lowest[: n_blocks // runs * runs].reshape(-1, runs, lowest.shape[1]).min(axis=0)
        lowest = np.partition(lowest, min(count, runs) - 1, axis=0)[min(count, runs) - 1][None]
    return np.minimum(lowest.min(axis=0), np.int16(_INFINITE))


def _best(best, q, similarity):
    """The best similarities of each query, in ascending order, together with further ones."""
    n_queries, count = best.shape
    order = np.lexsort((-similarity, q))
    q, similarity = q[order], similarity[order]
    rank = np.arange(len(q)) - np.searchsorted(q, q)
    new = np.full((n_queries, count), -np.inf)
    new[q[rank < count], rank[rank < count]] = similarity[rank < count]
    return np.sort(np.concatenate([best, new], axis=1), axis=1)[:, count:]
