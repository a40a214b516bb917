"""Exact nearest patches of queries for which a few coordinates rule out too little.

Here all coordinates are multiplied, in bfloat16. Of a query y and a row z, both seen from one
centre, let h and g be the rounded ones. Rounding to 8 significant bits moves no coordinate by more
than 2^-8 of itself, and therefore

    y.z - |z|^2 / 2 <= h.g + |z| (|y - h| + 2^-8 |h|) - |z|^2 / 2.

Rows whose bound falls short of the best similarity so far are ruled out. The longer the search,
the fewer are not.
"""

import numpy as np

from skanomaly.core.products import product
from skanomaly.core.search.blocks import BLOCK, cheap, joined, near_best, too_many
from skanomaly.core.search.brute_force import pairs_of, squared_norms
from skanomaly.core.search.low_precision import (
    blocks_reaching_zero,
    pack,
    round_and_pack,
    to_above,
    to_nearest,
    two_terms_above,
)

_TOGETHER = 16  # blocks that are multiplied at a time, and compared in the first turn
_MOST = 2048  # blocks after which what they have shown is made use of
_TRIAL = 64  # blocks before a query may be given up


class WideSearch:
    """What the products need beyond the rows of a bank: five numbers a row.

    Parameters
    ----------
    blocks : skanomaly.core.search.blocks.Blocks
        Of a bank whose largest norm is between 1e-15 and 1e15.
    """

    def __init__(self, blocks):
        self.blocks, bank = blocks, blocks.bank
        steps = [slice(start, start + 4096) for start in range(0, len(bank), 4096)]
        mean = sum(bank[step].sum(axis=0, dtype=np.float64) for step in steps) / len(bank)
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
        self.behind = pack(np.concatenate(columns, axis=1), "bfloat16")
        self.largest = float(np.sqrt((3 * squared + value**2 + 2).max()))

    def candidates(self, queries, n_neighbors, reached, slack, groups=None):
        """Pairs of a query and a row among which the nearest are.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim)
            Prepared, of the dtype of the bank.
        n_neighbors : int
        reached : ndarray of shape (n_queries,), float64
            What the similarity of the `n_neighbors`-th nearest row surely reaches.
        slack : ndarray of shape (n_queries,)
            Twice a bound on the rounding error of a similarity.
        groups : tuple of (query_groups, bank_groups), optional

        Returns
        -------
        q, rows : ndarray of int64
            The pairs.
        left_over : ndarray of shape (n_queries,), bool
            Queries without pairs, for which brute force is cheaper.
        """
        columns, threshold, wild = self._columns_of(queries.astype(np.float64))
        left = wild.copy()
        reached, best = reached.copy(), np.full((len(queries), n_neighbors), -np.inf)
        found = [(np.empty(0, dtype=np.int64),) * 2 + (np.empty(0, dtype=queries.dtype),)]
        for first, last in self._turns():
            live = np.flatnonzero(~left)
            if not live.size:
                break
            columns[-2:] = pack(two_terms_above(-threshold(reached), "bfloat16").T, "bfloat16")
            hits = self._hits(first, last, np.ascontiguousarray(columns[:, live]))
            if last > _TRIAL:
                left[live[~cheap(hits.sum(axis=0), last - first)]] = True
            block, column = pairs_of(hits & ~left[live])
            q, rows, similarity, given_up = self.blocks.compare(
                queries, live[column], block + first, reached, groups
            )
            best = _best(best, q, similarity)
            reached = np.maximum(reached, best[:, 0] - slack)
            q, rows, similarity = joined([*found, (q, rows, similarity)])
            left |= given_up | too_many(q, len(queries))
            kept = (similarity >= reached[q]) & ~left[q]
            found = [(q[kept], rows[kept], similarity[kept])]
        q, rows, similarity = found[0]
        kept = near_best(q, similarity, n_neighbors, slack)
        return q[kept], rows[kept], left

    def _turns(self):
        """First and last block of each turn, of growing length."""
        first, n_blocks = 0, len(self.blocks)
        while first < n_blocks:
            last = min(n_blocks, first + min(max(first, _TOGETHER), _MOST))
            yield first, last
            first = last

    def _columns_of(self, queries):
        """Columns of the queries, a function from what is reached to t, and which are wild.

        The last two columns are for -t, and are left to the caller. A query is wild where its norm
        is so large that nothing can be said of it in these units.
        """
        center, scale = self.center.astype(np.float64), self.scale
        unit = (queries.shape[1] + 64) * 1e-15  # relative error of a product in float64
        offset = product(queries, center) - 0.5 * (center @ center)
        size = (np.sqrt(squared_norms(queries)) + np.sqrt(center @ center)) / scale
        wild = size > 2.0**40
        y = np.where(wild[:, None], 0, (queries - center) / scale)
        h = to_nearest(y, "bfloat16")
        h_norm = np.sqrt(squared_norms(h.astype(np.float64)))
        # 2^-22 is more than what subtracting the centre in float32 takes from a row.
        away = np.sqrt(squared_norms(y - h)) * 1.001 + 1.01 * 2.0**-8 * h_norm + 2.0**-22 * size
        away = np.where(wild, 0, away + unit * size)
        columns = np.concatenate(
            [h.T, to_above(away, "bfloat16")[None], np.ones((4, len(y)), dtype=np.float32)]
        )

        def threshold(reached):
            target = reached - 0.5 if self.blocks.metric == "cosine" else reached
            t = np.where(wild, 0, (target - offset) / scale**2)
            t -= 2 * unit * (np.where(wild, 0, size) ** 2 + np.abs(t))
            # n products summed in float32, in any order, are off by less than n 2^-22 times the
            # norms of the factors; 2^-80 is for products that underflow.
            norm = h_norm + away + 2 * np.abs(t) + 3
            return t - (len(columns) * 2.0**-22 * 1.01 * norm * self.largest + 2.0**-80)

        return pack(columns, "bfloat16"), threshold, wild

    def _hits(self, first, last, columns):
        """Whether a block cannot be ruled out for a query: (n_blocks, n_queries), bool."""
        hits = np.empty((last - first, columns.shape[1]), dtype=bool)
        dim = len(self.center)
        for start in range(first, last, _TOGETHER):
            part = slice(start, min(start + _TOGETHER, last))
            rows = self.blocks.starts[part, None] + np.arange(BLOCK)
            rows = np.minimum(rows, self.blocks.stops[part, None] - 1).ravel()
            packed = np.empty((len(rows), dim + 5), dtype=np.uint16)
            tokens = self.blocks.bank[rows]
            tokens -= self.center
            tokens *= 1 / self.scale  # a power of two
            packed[:, :dim] = round_and_pack(tokens)
            packed[:, dim:] = self.behind[rows]
            hits[part.start - first : part.stop - first] = blocks_reaching_zero(
                packed, columns, BLOCK
            )
        return hits


def _best(best, q, similarity):
    """The best similarities of each query, in ascending order, together with further ones."""
    n_queries, count = best.shape
    order = np.lexsort((-similarity, q))
    q, similarity = q[order], similarity[order]
    rank = np.arange(len(q)) - np.searchsorted(q, q)
    new = np.full((n_queries, count), -np.inf)
    new[q[rank < count], rank[rank < count]] = similarity[rank < count]
    return np.sort(np.concatenate([best, new], axis=1), axis=1)[:, count:]
