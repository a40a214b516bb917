"""Exact nearest patches by one product of all coordinates in bfloat16.

The product bounds the distance of every pair from below, so closely that hardly a row beside the
nearest is left to be compared. Written out in ``docs/development/search.md``, whose names are used
here: y and z are a query and a row seen from the centre of the bank, h and g what bfloat16 holds
of them.
"""

from __future__ import annotations

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import product, squared_norms
from skanomaly.core.search.blocks import concatenate_columns, has_too_many, within_slack_of_best
from skanomaly.core.search.brute_force import pairs_of, rounding_bound
from skanomaly.core.search.low_precision import (
    pack,
    round_and_pack,
    to_above,
    to_nearest,
    torch_products,
    two_terms_above,
)
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning

_BLOCK = 8  # rows that are compared together ...
_RUN = 16  # ... and blocks of which a minimum tells whether to look at each of them
_PAIRS = 64  # of a query and a block that are compared at a time: their rows stay in the cache
_COLUMNS = 5  # of a row, beside g: its norm, and half its square, and twice 1
_NEVER = 0x7FFF  # as int16 above all of the numbers ...
_INFINITE = 0x7F80  # ... and this is infinity in bfloat16


class WideSearch:
    """The rows of a bank in bfloat16, with five numbers for their bounds: half of its size.

    Parameters
    ----------
    bank : ndarray of shape (n, dim)
        Prepared, in any order; its largest norm is between 1e-15 and 1e15.
    metric : {"cosine", "euclidean"}
    tuning : Tuning, optional
    """

    def __init__(self, bank: FloatArray, metric: str, tuning: Tuning = DEFAULT_TUNING) -> None:
        self.bank, self.metric, self.tuning = bank, metric, tuning
        self.half_norms = None if metric == "cosine" else 0.5 * squared_norms(bank)
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
        if metric == "cosine":
            # A zero vector counts as a unit vector that is orthogonal to every query.
            half[np.concatenate([~bank[step].any(axis=1) for step in steps])] += 0.5 / self.scale**2
        self.widest, self.largest_half = float(np.sqrt(squared.max())), float(half.max())
        n_rows, dim = -(-len(bank) // (_BLOCK * _RUN)) * _BLOCK * _RUN, bank.shape[1]
        width = -(-(dim + _COLUMNS) // 16) * 16  # whole units of the product
        self.rows = np.zeros((n_rows, width), dtype=np.uint16)
        columns = [
            to_above(np.sqrt(squared), "bfloat16")[:, None],
            two_terms_above(-half, "bfloat16"),
            np.ones((len(bank), 2), dtype=np.float32),
        ]
        bounds = pack(np.concatenate(columns, axis=1), "bfloat16")
        self.rows[: len(bank), dim : dim + _COLUMNS] = bounds
        for step in steps:
            tokens = bank[step] - self.center
            tokens *= 1 / self.scale  # a power of two
            self.rows[step][: len(tokens), :dim] = round_and_pack(tokens)
        self.rows[len(bank) :, dim + 1] = pack(np.array([-(2.0**100)]), "bfloat16")  # far away

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
            The pairs, in no order.
        left_over : ndarray of int64
            Queries without pairs, for which brute force is cheaper.
        """
        slack = np.broadcast_to(rounding_bound(queries, self.half_norms, self.bank), len(queries))
        least = max(float(np.finfo(self.bank.dtype).min), -1e60)  # whose square units are finite
        wanted = np.full(len(queries), least) if wanted is None else np.maximum(wanted, least)
        columns, limit_of, left = self._columns_of(queries)
        if self.metric == "cosine":
            left |= ~queries.any(axis=1)
        best = np.full((len(queries), n_neighbors), -np.inf)
        found = [(np.empty(0, dtype=np.int64),) * 2 + (np.empty(0, dtype=queries.dtype),)]
        at_once = self.tuning.rows_per_wide_product
        products = self.tuning.pairs_of_bounds * _BLOCK // (at_once * max(1, len(queries)))
        step = max(1, products) * at_once
        memory = np.empty((min(step, len(self.rows)) // _BLOCK, len(queries)), dtype=np.int16)
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            lowest, runs = self._lowest(rows, start, columns, groups, memory)
            # The blocks that look nearest show what is wanted, which leaves few of the others.
            for limit in (_low_values(runs, n_neighbors), np.int16(_INFINITE)):
                block, q = self._reached(lowest, runs, np.minimum(limit, limit_of(wanted)), left)
                for first in range(0, len(q), self.tuning.pairs_at_once):
                    part = slice(first, first + self.tuning.pairs_at_once)
                    row = start + _rows_of(block[part], len(rows), at_once)
                    similarity = self._similarities(queries, q[part], row, groups)
                    best = _best(best, q[part], similarity)
                    wanted = np.maximum(wanted, best[:, 0] - slack)
                    pair, column = pairs_of(similarity >= wanted[q[part], None])
                    found.append((q[part][pair], row[pair, column], similarity[pair, column]))
            found = [concatenate_columns(found)]
            q, _, similarity = found[0]
            left |= has_too_many(q, len(queries), self.tuning)
            kept = (similarity >= wanted[q]) & ~left[q]
            found = [tuple(values[kept] for values in found[0])]
        q, row, similarity = found[0]
        kept = within_slack_of_best(q, similarity, n_neighbors, slack)
        return q[kept], row[kept], np.flatnonzero(left)

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
        y[out_of_range] = 0
        y *= 1 / scale
        h = to_nearest(y, "bfloat16")
        h_norm = _norms(h)
        # |y - h| + 2^-8 |h|, and what float32 and float64 may have taken from y and z.
        rounding = 1.001 * _norms(y - h) + 1.01 * 2.0**-8 * h_norm + (2.0**-22 + error) * size
        columns = np.zeros((self.rows.shape[1], len(y)), dtype=np.float32)
        np.negative(h.T, out=columns[:dim])
        columns[dim] = -to_above(rounding, "bfloat16")
        columns[dim + 1 : dim + 3] = -1
        # Any constant will do; with this one products are positive, and small where it matters.
        constant = 0.5 * h_norm**2 + 2.5 * rounding * self.widest + 2.0**-60
        columns[dim + 3 : dim + 5] = two_terms_above(constant, "bfloat16").T
        constant = columns[dim + 3 : dim + 5].sum(axis=0, dtype=np.float64)
        # The error of the product itself: summed in float32, in any order.
        terms = (h_norm + rounding) * self.widest + self.largest_half + constant
        product_error = len(columns) * 2.0**-22 * 1.02 * terms + 2.0**-80

        def limit_of(wanted):
            target = wanted - 0.5 if self.metric == "cosine" else wanted
            t = np.where(out_of_range, 0, (target - offset) / scale**2)
            t -= 2 * error * (size**2 + np.abs(t))
            # Above this lies no row that is wanted. Read as integers, negative numbers lie below 0.
            limit = np.clip(constant - t + product_error, 0, 2.0**126)
            return pack(to_above(limit, "bfloat16"), "bfloat16").view(np.int16)

        return pack(columns, "bfloat16"), limit_of, out_of_range

    def _lowest(self, rows, start, columns, groups, memory):
        """The lowest product of each block, (n_runs, 16, n_queries), and of each run of them.

        In bfloat16, read as int16.
        """
        n_queries = columns.shape[1]
        lowest = memory[: len(rows) // _BLOCK]
        runs = np.empty((len(lowest) // _RUN, n_queries), dtype=np.int16)
        excluded = [] if groups is None else _excluded(groups, start, start + len(rows))
        for first, values in torch_products(rows, columns, self.tuning.rows_per_wide_product):
            for row, q in excluded:
                i, j = np.searchsorted(row, (first, first + len(values)))
                if i < j:
                    values[np.ix_(row[i:j] - first, q)] = _NEVER
            i, j = first // _BLOCK, (first + len(values)) // _BLOCK
            part = lowest[i:j]
            np.minimum.reduce(values.reshape(_BLOCK, -1, n_queries), axis=0, out=part)
            part = part.reshape(-1, _RUN, n_queries)
            np.minimum.reduce(part, axis=1, out=runs[i // _RUN : j // _RUN])
        return lowest.reshape(-1, _RUN, n_queries), runs

    def _reached(self, lowest, runs, limit, left):
        """Blocks and queries within the limits, which are then taken for compared.

        Queries with too many of them are left over.
        """
        possible = runs <= limit
        possible[:, left] = False
        if np.count_nonzero(possible) > 8 * possible.shape[1]:
            left |= self._too_many(possible.sum(axis=0), len(runs))
            possible[:, left] = False
        run, q = pairs_of(possible)
        pair, place = np.nonzero(lowest[run, :, q] <= limit[q, None])
        run, q = run[pair], q[pair]
        left |= self._too_many(np.bincount(q, minlength=len(left)), len(runs) * _RUN)
        kept = ~left[q]
        run, place, q = run[kept], place[kept], q[kept]
        lowest[run, place, q] = _NEVER
        return run * _RUN + place, q

    def _too_many(self, count, n_all):
        """To compare rows that lie here and there costs more than blocks with many queries."""
        return ~self.tuning.comparing_pays(4 * count, n_all) & (count > 16)

    def _similarities(self, queries, q, rows, groups):
        """Of queries to eight rows each, -inf where a row does not count."""
        beyond = rows >= len(self.bank)
        rows = np.minimum(rows, len(self.bank) - 1)
        similarity = np.empty(rows.shape, dtype=queries.dtype)
        for start in range(0, len(q), _PAIRS):
            part = slice(start, start + _PAIRS)
            tokens, own = self.bank[rows[part]], queries[q[part], :, None]
            product(tokens, own, out=similarity[part, :, None])
        if self.half_norms is not None:
            similarity -= self.half_norms[rows].astype(similarity.dtype)
        if groups is not None:
            own = groups[0][q, None]
            beyond |= (groups[1][rows] == own) & (own >= 0)
        similarity[beyond] = -np.inf
        return similarity


def _rows_of(blocks, n_rows, at_once):
    """Rows of blocks, (n_blocks, 8): every so manieth one of those in the same product."""
    first = blocks * _BLOCK // at_once * at_once
    stride = np.minimum(n_rows - first, at_once) // _BLOCK
    first += blocks - first // _BLOCK
    return first[:, None] + stride[:, None] * np.arange(_BLOCK)


def _excluded(groups, start, stop):
    """Rows from `start` to `stop`, counted from there, and queries of the same group."""
    own, of_row = groups[0], groups[1][start:stop]
    numbers = np.unique(own[own >= 0])
    order = np.flatnonzero(np.isin(of_row, numbers))  # few of all
    order = order[np.argsort(of_row[order], kind="stable")]
    of_row = of_row[order]
    first, last = (np.searchsorted(of_row, numbers, side) for side in ("left", "right"))
    return [
        (order[i:j], np.flatnonzero(own == number))
        for number, i, j in zip(numbers, first, last, strict=True)
        if i < j
    ]


def _low_values(runs, count):
    """Of each column a value that `count` of the entries, or all, do not exceed."""
    if count == 1:
        return runs.min(axis=0)
    kept = min(len(runs), 32 * count)
    runs = runs[: len(runs) // kept * kept].reshape(-1, kept, runs.shape[1]).min(axis=0)
    return np.partition(runs, min(count, kept) - 1, axis=0)[min(count, kept) - 1]


def _best(best, q, similarity):
    """The best similarities of each query in ascending order, with further rows of values."""
    count = best.shape[1]
    if similarity.shape[1] > count:
        similarity = np.partition(similarity, -count, axis=1)[:, -count:]
    q, values = np.repeat(q, similarity.shape[1]), similarity.ravel()
    order = np.lexsort((-values, q))
    q, values = q[order], values[order]
    rank = np.arange(len(q)) - np.searchsorted(q, q)
    new = np.full(best.shape, -np.inf)
    new[q[rank < count], rank[rank < count]] = values[rank < count]
    return np.sort(np.concatenate([best, new], axis=1), axis=1)[:, count:]


def _norms(vectors):
    """Summed in the precision of the vectors."""
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors)).astype(np.float64)
