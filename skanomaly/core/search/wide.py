"""Exact nearest patches of queries for which a few coordinates rule out too little.

Here all coordinates are multiplied, in bfloat16: the longer the search, the fewer rows are not
ruled out. Written out in ``docs/development/search.md``, whose names are used here: y and z are a
query and a row seen from the centre of the bank, h and g what bfloat16 holds of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import product, squared_norms
from skanomaly.core.search.blocks import Blocks, concatenate_columns, within_slack_of_best
from skanomaly.core.search.brute_force import pairs_of
from skanomaly.core.search.low_precision import (
    blocks_reaching_zero,
    pack,
    round_and_pack,
    to_above,
    to_nearest,
    two_terms_above,
)


class WideSearch:
    """What the products need beyond the rows of a bank: five numbers a row.

    Parameters
    ----------
    blocks : skanomaly.core.search.blocks.Blocks
        Of a bank whose largest norm is between 1e-15 and 1e15.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks, self.tuning, bank = blocks, blocks.tuning, blocks.bank
        steps = [slice(start, start + 4096) for start in range(0, len(bank), 4096)]
        total = np.asarray(sum(bank[step].sum(axis=0, dtype=np.float64) for step in steps))
        mean = total / len(bank)
        self.center = mean.astype(bank.dtype)
        squared = np.concatenate(
            [squared_norms(bank[step].astype(np.float64) - self.center) for step in steps]
        )
        widest = np.sqrt(squared.max())
        self.scale = float(2.0 ** np.ceil(np.log2(widest))) if widest > 0 else 1.0
        squared /= self.scale**2
        value = -0.5 * squared
        if blocks.metric == "cosine":
            # A zero vector counts as a unit vector that is orthogonal to every query.
            zero = np.concatenate([~bank[step].any(axis=1) for step in steps])
            value[zero] -= 0.5 / self.scale**2
        columns = [
            to_above(np.sqrt(squared), "bfloat16")[:, None],
            two_terms_above(value, "bfloat16"),
            np.ones((len(bank), 2), dtype=np.float32),
        ]
        self.bound_columns = pack(np.concatenate(columns, axis=1), "bfloat16")
        self.largest_norm = float(np.sqrt((3 * squared + value**2 + 2).max()))

    def candidates(
        self,
        queries: FloatArray,
        n_neighbors: int,
        wanted: FloatArray,
        slack: FloatArray,
        groups: tuple[IntArray, IntArray] | None = None,
    ) -> tuple[IntArray, IntArray, NDArray[np.bool_]]:
        """Pairs of a query and a row among which the nearest are.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim)
            Prepared, of the dtype of the bank.
        n_neighbors : int
        wanted : ndarray of shape (n_queries,), float64
            What the similarity of a row must be at least for it to be among the nearest.
        slack : ndarray of shape (n_queries,)
            As from :func:`skanomaly.core.search.brute_force.rounding_bound`.
        groups : tuple of (query_groups, bank_groups), optional

        Returns
        -------
        q, rows : ndarray of int64
            The pairs.
        left_over : ndarray of shape (n_queries,), bool
            Queries without pairs, for which brute force is cheaper.
        """
        columns, threshold, out_of_range = self._columns_of(queries.astype(np.float64))
        left = out_of_range.copy()
        wanted, best = wanted.copy(), np.full((len(queries), n_neighbors), -np.inf)
        found = [(np.empty(0, dtype=np.int64),) * 2 + (np.empty(0, dtype=queries.dtype),)]
        for first, last in self._turns():
            live = np.flatnonzero(~left)
            if not live.size:
                break
            columns[-2:] = pack(two_terms_above(-threshold(wanted), "bfloat16").T, "bfloat16")
            possible = self._possible(first, last, np.ascontiguousarray(columns[:, live]))
            if last > self.tuning.wide_trial_blocks:
                pays = self.tuning.comparing_pays(possible.sum(axis=0), last - first)
                left[live[~pays]] = True
            block, column = pairs_of(possible & ~left[live])
            q, rows, similarity, given_up = self.blocks.compare(
                queries, live[column], block + first, wanted, groups
            )
            best = _best(best, q, similarity)
            wanted = np.maximum(wanted, best[:, 0] - slack)
            q, rows, similarity = concatenate_columns([*found, (q, rows, similarity)])
            left |= given_up | self.blocks.has_too_many(q, len(queries))
            kept = (similarity >= wanted[q]) & ~left[q]
            found = [(q[kept], rows[kept], similarity[kept])]
        q, rows, similarity = found[0]
        kept = within_slack_of_best(q, similarity, n_neighbors, slack)
        return q[kept], rows[kept], left

    def _turns(self):
        """First and last block of each turn, of growing length."""
        first, n_blocks, tuning = 0, len(self.blocks), self.tuning
        while first < n_blocks:
            length = min(max(first, tuning.blocks_per_wide_product), tuning.blocks_per_wide_turn)
            last = min(n_blocks, first + length)
            yield first, last
            first = last

    def _columns_of(self, queries):
        """Columns of the queries, a function from what is wanted to t, and which are out of range.

        The last two columns are for -t, and are left to the caller. A query is out of range where
        its norm is so large that nothing can be said of it in these units.
        """
        center, scale = self.center.astype(np.float64), self.scale
        error = (queries.shape[1] + 64) * 1e-15  # relative, of a product in float64
        offset = product(queries, center) - 0.5 * (center @ center)
        size = (np.sqrt(squared_norms(queries)) + np.sqrt(center @ center)) / scale
        out_of_range = size > 2.0**40
        y = np.where(out_of_range[:, None], 0, (queries - center) / scale)
        h = to_nearest(y, "bfloat16")
        h_norm = np.sqrt(squared_norms(h.astype(np.float64)))
        # |y - h| + 2^-8 |h|, and what float32 and float64 may have taken from y and z.
        rounding = np.sqrt(squared_norms(y - h)) * 1.001 + 1.01 * 2.0**-8 * h_norm
        rounding = np.where(out_of_range, 0, rounding + (2.0**-22 + error) * size)
        columns = np.concatenate(
            [h.T, to_above(rounding, "bfloat16")[None], np.ones((4, len(y)), dtype=np.float32)]
        )

        def threshold(wanted):
            target = wanted - 0.5 if self.blocks.metric == "cosine" else wanted
            t = np.where(out_of_range, 0, (target - offset) / scale**2)
            t -= 2 * error * (np.where(out_of_range, 0, size) ** 2 + np.abs(t))
            # The error of the product itself: summed in float32, in any order.
            norm = h_norm + rounding + 2 * np.abs(t) + 3
            return t - (len(columns) * 2.0**-22 * 1.01 * norm * self.largest_norm + 2.0**-80)

        return pack(columns, "bfloat16"), threshold, out_of_range

    def _possible(self, first, last, columns):
        """Whether a block cannot be ruled out for a query: (n_blocks, n_queries), bool."""
        possible = np.empty((last - first, columns.shape[1]), dtype=bool)
        dim, size = len(self.center), self.blocks.size
        step = self.tuning.blocks_per_wide_product
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            rows = self.blocks.starts[part, None] + np.arange(size)
            rows = np.minimum(rows, self.blocks.stops[part, None] - 1).ravel()
            packed = np.empty((len(rows), dim + 5), dtype=np.uint16)
            tokens = self.blocks.bank[rows]
            tokens -= self.center
            tokens *= 1 / self.scale  # a power of two
            packed[:, :dim] = round_and_pack(tokens)
            packed[:, dim:] = self.bound_columns[rows]
            possible[part.start - first : part.stop - first] = blocks_reaching_zero(
                packed, columns, size, self.tuning.rows_per_sign
            )
        return possible


def _best(best, q, similarity):
    """The best similarities of each query, in ascending order, together with further ones."""
    n_queries, count = best.shape
    order = np.lexsort((-similarity, q))
    q, similarity = q[order], similarity[order]
    rank = np.arange(len(q)) - np.searchsorted(q, q)
    new = np.full((n_queries, count), -np.inf)
    new[q[rank < count], rank[rank < count]] = similarity[rank < count]
    return np.sort(np.concatenate([best, new], axis=1), axis=1)[:, count:]
