"""Exact nearest patches by upper bounds that rule out most of the bank.

The bank is cut into parts around centres c, each with an orthonormal basis U of the directions in
which it is widest. Of a query y and a row z, both seen from c, let h = U'y and g = U'z. By Cauchy
and Schwarz

    y.z <= h.g + sqrt(|y|^2 - |h|^2) sqrt(|z|^2 - |g|^2).

A row is among the k nearest only where y.z - |z|^2 / 2 reaches a value t, that of the k-th nearest
of a few rows that have been compared. One matrix product of low precision gives the upper bounds
minus t, and where its sign is negative a row is ruled out. What rounding can take from a bound has
columns of its own or is taken from t, so that no row is ruled out wrongly.
"""

import threading
from dataclasses import dataclass

import numpy as np

from skanomaly.core.products import product
from skanomaly.core.search.blocks import BLOCK, Blocks, cheap, near_best
from skanomaly.core.search.brute_force import pairs_of, rounding_bound, squared_norms
from skanomaly.core.search.low_precision import (
    blocks_reaching_zero,
    fastest_dtype,
    pack,
    to_above,
    to_nearest,
    two_terms_above,
)
from skanomaly.core.search.sorting import Part
from skanomaly.core.search.wide import WideSearch

_GUIDE = 32  # leading coordinates that the first block to compare with is chosen by
_BLOCKS_FIRST = 2  # blocks that every query is compared with, twice as many for several neighbours
_FEW = 24  # queries for which brute force costs as much as for fewer
_HARD = 64  # queries for which a product of all coordinates pays
_SAMPLE = 64  # queries, and blocks a part, that show how much the bounds rule out


@dataclass
class _Columns:
    """The rows of one part in the low-precision product, padded to full blocks."""

    part: Part
    rows: np.ndarray  # (n, n_head + 7), as from `pack`
    largest: float  # of the norms of these rows


class CertifiedSearch:
    """What the search in a sorted bank needs beyond the bank: about a tenth of its size.

    Parameters
    ----------
    bank : ndarray of shape (n, dim)
        Prepared, and sorted by :func:`skanomaly.core.search.sorting.sort_bank`.
    parts : list of Part
        Of that function.
    metric : {"cosine", "euclidean"}
    dtype : {"bfloat16", "float32"}, optional
        Of the products that bound; by default the faster one.
    """

    def __init__(self, bank, parts, metric, dtype=None):
        self.bank, self.metric = bank, metric
        self.dtype = fastest_dtype() if dtype is None else dtype
        self.blocks = Blocks(bank, parts, metric)
        self._wide, self._lock = None, threading.Lock()  # made when it is first needed
        self._columns = [self._columns_of(part) for part in parts]
        self._centers = np.stack([part.center for part in parts])
        self._bases = np.concatenate([part.basis for part in parts], axis=1)
        starts, stops = self.blocks.starts, self.blocks.stops
        means = np.add.reduceat(bank, starts, axis=0) / (stops - starts)[:, None].astype(bank.dtype)
        _, vectors = np.linalg.eigh(product(means.T, means).astype(np.float64))
        self._guide = np.ascontiguousarray(vectors[:, ::-1][:, :_GUIDE]).astype(bank.dtype)
        self._means = product(means, self._guide)
        self._half_mean_norms = (0.5 * squared_norms(self._means)).astype(bank.dtype)

    def candidates(self, queries, n_neighbors, groups=None):
        """Pairs of a query and a row among which the nearest are.

        Parameters
        ----------
        queries : ndarray of shape (n_queries, dim)
            Prepared, of the dtype of the bank.
        n_neighbors : int
        groups : tuple of (query_groups, bank_groups), optional
            Groups of the queries and of the rows of the sorted bank.

        Returns
        -------
        q, rows : ndarray of int64
            The pairs, in no order.
        left_over : ndarray of int64
            Queries without pairs: too little is ruled out for them, brute force is cheaper.
        """
        half_norms, n_blocks = self.blocks.half_norms, len(self.blocks)
        slack = np.broadcast_to(rounding_bound(queries, half_norms, self.bank), len(queries))
        reached = self._reached(queries, n_neighbors, groups) - slack
        # Zero vectors are at distance 1 under the cosine, which is no function of y.z.
        active = np.flatnonzero(np.isfinite(reached) & queries.any(axis=1))
        found, left_over = [], np.ones(len(queries), dtype=bool)
        columns = self._query_columns(queries[active].astype(np.float64), reached[active])
        if active.size and not self._rules_out_little(columns):
            hits = self._hits(columns)
            count = hits.sum(axis=0)
            few = cheap(count, n_blocks)
            if cheap(count[~few].sum(), _FEW * n_blocks):
                few[:] = True
            block, column = pairs_of(hits if few.all() else hits[:, few])
            q, rows, similarity, given_up = self.blocks.compare(
                queries, active[few][column], block, reached, groups
            )
            kept = near_best(q, similarity, n_neighbors, slack)
            found.append((q[kept], rows[kept]))
            left_over[active[few]] = False
            left_over[given_up] = True
        hard = active[left_over[active]]
        if self.dtype == "bfloat16" and len(hard) >= _HARD:
            with self._lock:
                if self._wide is None:
                    self._wide = WideSearch(self.blocks)
            own = None if groups is None else (groups[0][hard], groups[1])
            q, rows, left = self._wide.candidates(
                queries[hard], n_neighbors, reached[hard], slack[hard], own
            )
            found.append((hard[q], rows))
            left_over[hard[~left]] = False
        q, rows = (
            np.concatenate([part[i] for part in [(active[:0],) * 2, *found]]) for i in range(2)
        )
        return q, rows, np.flatnonzero(left_over)

    def first_candidates(self, queries, n_neighbors, groups=None):
        """Pairs of each query and the best rows of the blocks that look nearest.

        Returns
        -------
        q, rows : ndarray of int64
            Pairs with the `n_neighbors` best of the rows; none for a query with fewer.
        """
        blocks, similarity = self._first_blocks(queries, n_neighbors, groups)
        rank = similarity.shape[1] - n_neighbors
        if rank < 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        best = np.argpartition(similarity, rank, axis=1)[:, rank:]
        enough = np.isfinite(np.take_along_axis(similarity, best, axis=1)).all(axis=1)
        rows = self.blocks.starts[np.take_along_axis(blocks, best // BLOCK, axis=1)] + best % BLOCK
        return np.repeat(np.flatnonzero(enough), n_neighbors), rows[enough].ravel()

    def _columns_of(self, part):
        """Columns of the rows of a part: g, the bounds that go with it, -|z|^2 / 2, and twice 1.

        With g~ for the rounded g, h.g <= h~.g~ + |h~| |g - g~| + |h - h~| |g|.
        """
        n_rows = part.n_blocks(BLOCK) * BLOCK
        dtype = np.uint16 if self.dtype == "bfloat16" else np.float32
        packed, largest = np.empty((n_rows, part.basis.shape[1] + 7), dtype=dtype), 0.0
        for start in range(part.start, part.stop, 4096):
            tokens = self.bank[start : min(start + 4096, part.stop)].astype(np.float64)
            z = (tokens - part.center) / part.scale
            g, squared = product(z, part.basis), squared_norms(z)
            rest = np.maximum(squared - squared_norms(g), 0) + 2 * _unit(z) * squared
            value = -0.5 * squared
            if self.metric == "cosine":
                # As a unit vector that is orthogonal to every query: at distance 1.
                value[~tokens.any(axis=1)] -= 0.5 / part.scale**2
            rounded = to_nearest(g, self.dtype)
            bounds = [np.sqrt(rest), _norms(g - rounded), _norms(g)]
            columns = [
                rounded,
                to_above(np.stack(bounds, axis=1), self.dtype),
                two_terms_above(value, self.dtype),
                np.ones((len(z), 2), dtype=np.float32),
            ]
            columns = np.concatenate(columns, axis=1)
            largest = max(largest, float(_norms(columns).max()))
            first = start - part.start
            packed[first : first + len(z)] = pack(columns, self.dtype)
        n_rows = part.stop - part.start
        packed[n_rows:] = packed[n_rows - 1]
        return _Columns(part, packed, largest)

    def _query_columns(self, queries, reached):
        """Columns of the queries for each part: h, the bounds that go with it, twice 1, and -t.

        Everything is measured in float64, in which a product of vectors, or a change of the
        centre or of the basis, is right to `_unit` times the product of the norms involved.
        """
        centers = self._centers
        along, onto = product(queries, self._bases), product(queries, centers.T)
        norms, center_norms = _norms(queries), _norms(centers)
        last, result = 0, []
        for number, columns in enumerate(self._columns):
            part = columns.part
            first, last = last, last + part.basis.shape[1]
            # q.x - |x|^2 / 2 = y.z - |z|^2 / 2 + (q.c - |c|^2 / 2), in units of scale^2. Unit
            # vectors count without their |x|^2 / 2 in `reached`.
            offset = onto[:, number] - 0.5 * center_norms[number] ** 2
            target = reached - 0.5 if self.metric == "cosine" else reached
            t = (target - offset) / part.scale**2
            h = (along[:, first:last] - product(part.center, part.basis)) / part.scale
            size = (norms + center_norms[number]) / part.scale
            wild = size > 2.0**40  # their squares might overflow in float32
            h[wild], t[wild], size[wild] = 0, 0, 0
            squared = norms**2 - 2 * onto[:, number] + center_norms[number] ** 2
            squared = np.where(wild, 0, squared / part.scale**2)
            rest = np.maximum(squared - squared_norms(h), 0) + 4 * _unit(queries) * size**2
            rounded = to_nearest(h, self.dtype)
            h_norm, off = _norms(rounded), _norms(h - rounded) + _unit(queries) * size
            # n products that are summed in float32, in any order, are off by less than n 2^-22
            # times the norms of the factors; 2^-80 is for products that underflow.
            t -= 2 * _unit(queries) * (size**2 + np.abs(t))
            norm = 2 * h_norm + np.sqrt(rest) + off + 2 * np.abs(t) + 3
            t -= columns.rows.shape[1] * 2.0**-22 * 1.01 * norm * columns.largest + 2.0**-80
            bounds = [np.sqrt(rest), h_norm, off]
            out = np.empty((columns.rows.shape[1], len(t)), dtype=np.float32)
            out[:-7] = rounded.T
            out[-7:-4] = to_above(np.stack(bounds), self.dtype)
            out[-4:-2] = 1
            out[-2:] = two_terms_above(-t, self.dtype).T
            out[:, wild], out[-2, wild] = 0, 1  # nothing is ruled out
            result.append(pack(out, self.dtype))
        return result

    def _hits(self, queries, n_blocks=None):
        """Whether a block cannot be ruled out for a query: (n_blocks, n_queries), bool.

        `queries` is of `_query_columns`. With `n_blocks`, of so many blocks from the middle of
        each part.
        """
        hits = []
        for part, columns in zip(self._columns, queries, strict=True):
            rows = part.rows
            if n_blocks is not None:
                start = max(0, len(rows) // (2 * BLOCK) - n_blocks // 2) * BLOCK
                rows = rows[start : start + n_blocks * BLOCK]
            hits.append(blocks_reaching_zero(rows, columns, BLOCK))
        return np.concatenate(hits)

    def _rules_out_little(self, queries):
        """Whether these bounds cost more than they save, judged by a sample."""
        n_queries = queries[0].shape[1]
        size = min(_SAMPLE, n_queries // 4)
        if size < 16:
            return False
        sample = np.arange(size) * n_queries // size
        hits = self._hits([np.ascontiguousarray(part[:, sample]) for part in queries], _SAMPLE)
        return np.mean(~cheap(hits.sum(axis=0), len(hits))) > 0.7

    def _first_blocks(self, queries, n_neighbors, groups):
        """The blocks whose means look nearest, and the similarities to their rows."""
        values = product(product(queries, self._guide), self._means.T)
        values -= self._half_mean_norms
        n_blocks = min(_BLOCKS_FIRST if n_neighbors == 1 else 2 * _BLOCKS_FIRST, len(self.blocks))
        blocks = np.empty((len(queries), n_blocks), dtype=np.int64)
        for turn in range(n_blocks):
            blocks[:, turn] = values.argmax(axis=1)
            np.put_along_axis(values, blocks[:, turn, None], -np.inf, axis=1)
        q, block = np.repeat(np.arange(len(queries)), n_blocks), blocks.ravel()
        order = np.argsort(block, kind="stable")
        similarity = np.empty((len(block), BLOCK), dtype=queries.dtype)
        similarity[order] = self.blocks.similarities(queries, q[order], block[order], groups)
        return blocks, similarity.reshape(len(queries), -1)

    def _reached(self, queries, n_neighbors, groups):
        """Similarity of the k-th best row of the first blocks, -inf where there is none."""
        _, similarity = self._first_blocks(queries, n_neighbors, groups)
        rank = similarity.shape[1] - n_neighbors
        if rank < 0:
            return np.full(len(queries), -np.inf)
        similarity.partition(rank, axis=1)
        return similarity[:, rank].astype(np.float64)


def _norms(vectors):
    return np.sqrt(squared_norms(vectors))


def _unit(vectors):
    return (vectors.shape[1] + 64) * 1e-15
