"""Exact nearest patches by upper bounds that rule out most of the bank.

Written out, with every constant, in ``docs/development/search.md``, whose names are used here: a
part of the bank has a centre c and a basis U; y and z are a query and a row seen from c, and h and
g their coordinates in U.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import product, squared_norms
from skanomaly.core.search.blocks import Blocks, within_slack_of_best
from skanomaly.core.search.brute_force import pairs_of, rounding_bound
from skanomaly.core.search.low_precision import (
    blocks_reaching_zero,
    fastest_dtype,
    pack,
    to_above,
    to_nearest,
    two_terms_above,
)
from skanomaly.core.search.sorting import Part
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning
from skanomaly.core.search.wide import WideSearch


@dataclass
class _Columns:
    """The rows of one part in the low-precision product, padded to full blocks."""

    part: Part
    rows: NDArray[np.generic]  # (n, n_directions + 7), as from `pack`
    largest_norm: float  # of these rows


class CertifiedSearch:
    """What the search in a sorted bank needs beyond the bank: about a tenth of its size.

    Parameters
    ----------
    bank : ndarray of shape (n, dim)
        Prepared, and sorted by :func:`skanomaly.core.search.sorting.sort_bank`.
    parts : list of Part
        Of that function.
    metric : {"cosine", "euclidean"}
    tuning : Tuning, optional
        Its `precision` is that of the products that bound, and `dtype` afterwards.
    """

    def __init__(
        self,
        bank: FloatArray,
        parts: list[Part],
        metric: str,
        tuning: Tuning = DEFAULT_TUNING,
    ) -> None:
        self.bank, self.metric, self.tuning = bank, metric, tuning
        self.dtype = fastest_dtype() if tuning.precision is None else tuning.precision
        self.blocks = Blocks(bank, parts, metric, tuning)
        self._wide: WideSearch | None = None  # made when it is first needed
        self._lock = threading.Lock()
        self._columns = [self._columns_of(part) for part in parts]
        self._centers = np.stack([part.center for part in parts])
        self._bases = np.concatenate([part.basis for part in parts], axis=1)
        starts, stops = self.blocks.starts, self.blocks.stops
        means = np.add.reduceat(bank, starts, axis=0) / (stops - starts)[:, None].astype(bank.dtype)
        _, vectors = np.linalg.eigh(product(means.T, means).astype(np.float64))
        self._guide = np.ascontiguousarray(vectors[:, ::-1][:, : tuning.guide_directions]).astype(
            bank.dtype
        )
        self._means = product(means, self._guide)
        self._half_mean_norms = (0.5 * squared_norms(self._means)).astype(bank.dtype)

    @property
    def wide(self) -> WideSearch:
        """The search with all coordinates, made when it is first asked for."""
        with self._lock:
            if self._wide is None:
                self._wide = WideSearch(self.bank, self.metric, self.tuning)
            return self._wide

    def release_wide(self) -> None:
        """Give back the memory of :attr:`wide` until it is asked for again."""
        with self._lock:
            self._wide = None

    def candidates(
        self,
        queries: FloatArray,
        n_neighbors: int,
        groups: tuple[IntArray, IntArray] | None = None,
    ) -> tuple[IntArray, IntArray, IntArray]:
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
        half_norms, n_blocks, tuning = self.blocks.half_norms, len(self.blocks), self.tuning
        slack = np.broadcast_to(rounding_bound(queries, half_norms, self.bank), len(queries))
        wanted = self._found_first(queries, n_neighbors, groups) - slack
        # Zero vectors are at distance 1 under the cosine, which is no function of y.z.
        active = np.flatnonzero(np.isfinite(wanted) & queries.any(axis=1))
        found, left_over = [], np.ones(len(queries), dtype=bool)
        columns = self._query_columns(queries[active].astype(np.float64), wanted[active])
        if active.size and not self._rules_out_little(columns):
            possible = self._possible(columns)
            count = possible.sum(axis=0)
            few = tuning.comparing_pays(count, n_blocks)
            if tuning.comparing_pays(count[~few].sum(), tuning.least_brute_force * n_blocks):
                few[:] = True
            block, column = pairs_of(possible if few.all() else possible[:, few])
            q, rows, similarity, given_up = self.blocks.compare(
                queries, active[few][column], block, wanted, groups
            )
            kept = within_slack_of_best(q, similarity, n_neighbors, slack)
            found.append((q[kept], rows[kept]))
            left_over[active[few]] = False
            left_over[given_up] = True
        hard = active[left_over[active]]
        if self.dtype == "bfloat16" and len(hard) >= tuning.queries_for_all_coordinates:
            own = None if groups is None else (groups[0][hard], groups[1])
            q, rows, left = self.wide.candidates(queries[hard], n_neighbors, own, wanted[hard])
            found.append((hard[q], rows))
            left_over[np.delete(hard, left)] = False
        q, rows = (
            np.concatenate([part[i] for part in [(active[:0],) * 2, *found]]) for i in range(2)
        )
        return q, rows, np.flatnonzero(left_over)

    def first_candidates(
        self,
        queries: FloatArray,
        n_neighbors: int,
        groups: tuple[IntArray, IntArray] | None = None,
    ) -> tuple[IntArray, IntArray]:
        """Pairs of each query and the best rows of the blocks that look nearest.

        Parameters
        ----------
        queries, n_neighbors, groups
            As for :meth:`candidates`.

        Returns
        -------
        q, rows : ndarray of int64
            Pairs with the `n_neighbors` best of the rows; none for a query with fewer.
        """
        size = self.blocks.size
        blocks, similarity = self._first_blocks(queries, n_neighbors, groups)
        rank = similarity.shape[1] - n_neighbors
        if rank < 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        best = np.argpartition(similarity, rank, axis=1)[:, rank:]
        enough = np.isfinite(np.take_along_axis(similarity, best, axis=1)).all(axis=1)
        rows = self.blocks.starts[np.take_along_axis(blocks, best // size, axis=1)] + best % size
        return np.repeat(np.flatnonzero(enough), n_neighbors), rows[enough].ravel()

    def _columns_of(self, part):
        """Columns of the rows of a part: g, three bounds for it, -|z|^2 / 2, and twice 1."""
        n_rows = part.n_blocks(self.blocks.size) * self.blocks.size
        dtype = np.uint16 if self.dtype == "bfloat16" else np.float32
        packed, largest_norm = np.empty((n_rows, part.basis.shape[1] + 7), dtype=dtype), 0.0
        for start in range(part.start, part.stop, 4096):
            tokens = self.bank[start : min(start + 4096, part.stop)].astype(np.float64)
            z = (tokens - part.center) / part.scale
            g, squared = product(z, part.basis), squared_norms(z)
            rest = np.maximum(squared - squared_norms(g), 0) + 2 * _relative_error(z) * squared
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
            largest_norm = max(largest_norm, float(_norms(columns).max()))
            first = start - part.start
            packed[first : first + len(z)] = pack(columns, self.dtype)
        n_rows = part.stop - part.start
        packed[n_rows:] = packed[n_rows - 1]
        return _Columns(part, packed, largest_norm)

    def _query_columns(self, queries, wanted):
        """Columns of the queries for each part: h, three bounds for it, twice 1, and -t.

        They are computed in float64. What rounding may have taken from a bound is added to it, in
        the order of "The columns" in docs/development/search.md.
        """
        centers, error = self._centers, _relative_error(queries)
        along, onto = product(queries, self._bases), product(queries, centers.T)
        norms, center_norms = _norms(queries), _norms(centers)
        last, result = 0, []
        for number, columns in enumerate(self._columns):
            part = columns.part
            first, last = last, last + part.basis.shape[1]
            # What y.z - |z|^2 / 2 has to reach; of unit vectors `wanted` lacks the |x|^2 / 2.
            offset = onto[:, number] - 0.5 * center_norms[number] ** 2
            target = wanted - 0.5 if self.metric == "cosine" else wanted
            t = (target - offset) / part.scale**2
            h = (along[:, first:last] - product(part.center, part.basis)) / part.scale
            size = (norms + center_norms[number]) / part.scale
            out_of_range = size > 2.0**40  # their squares might overflow in float32
            h[out_of_range], t[out_of_range], size[out_of_range] = 0, 0, 0
            squared = norms**2 - 2 * onto[:, number] + center_norms[number] ** 2
            squared = np.where(out_of_range, 0, squared / part.scale**2)
            rest = np.maximum(squared - squared_norms(h), 0) + 4 * error * size**2
            rounded = to_nearest(h, self.dtype)
            h_norm, rounding = _norms(rounded), _norms(h - rounded) + error * size
            t -= 2 * error * (size**2 + np.abs(t))
            # The error of the product itself: summed in float32, in any order.
            norm = 2 * h_norm + np.sqrt(rest) + rounding + 2 * np.abs(t) + 3
            t -= columns.rows.shape[1] * 2.0**-22 * 1.01 * norm * columns.largest_norm + 2.0**-80
            bounds = [np.sqrt(rest), h_norm, rounding]
            out = np.empty((columns.rows.shape[1], len(t)), dtype=np.float32)
            out[:-7] = rounded.T
            out[-7:-4] = to_above(np.stack(bounds), self.dtype)
            out[-4:-2] = 1
            out[-2:] = two_terms_above(-t, self.dtype).T
            out[:, out_of_range], out[-2, out_of_range] = 0, 1  # nothing is ruled out
            result.append(pack(out, self.dtype))
        return result

    def _possible(self, queries, n_blocks=None):
        """Whether a block cannot be ruled out for a query: (n_blocks, n_queries), bool.

        `queries` is of `_query_columns`. With `n_blocks`, of so many blocks from the middle of
        each part.
        """
        size, possible = self.blocks.size, []
        for part, columns in zip(self._columns, queries, strict=True):
            rows = part.rows
            if n_blocks is not None:
                start = max(0, len(rows) // (2 * size) - n_blocks // 2) * size
                rows = rows[start : start + n_blocks * size]
            possible.append(blocks_reaching_zero(rows, columns, size, self.tuning.rows_per_sign))
        return np.concatenate(possible)

    def _rules_out_little(self, queries):
        """Whether these bounds cost more than they save, judged by a sample."""
        n_queries, tuning = queries[0].shape[1], self.tuning
        size = min(tuning.sampled_queries, n_queries // 4)
        if size < tuning.least_sample:
            return False
        sample = np.arange(size) * n_queries // size
        parts = [np.ascontiguousarray(part[:, sample]) for part in queries]
        possible = self._possible(parts, tuning.sampled_blocks)
        pays = tuning.comparing_pays(possible.sum(axis=0), len(possible))
        return np.mean(~pays) > tuning.hopeless_share

    def _first_blocks(self, queries, n_neighbors, groups):
        """The blocks whose means look nearest, and the similarities to their rows."""
        values = product(product(queries, self._guide), self._means.T)
        values -= self._half_mean_norms
        n_blocks = self.tuning.first_blocks * (1 if n_neighbors == 1 else 2)
        n_blocks = min(n_blocks, len(self.blocks))
        blocks = np.empty((len(queries), n_blocks), dtype=np.int64)
        for turn in range(n_blocks):
            blocks[:, turn] = values.argmax(axis=1)
            np.put_along_axis(values, blocks[:, turn, None], -np.inf, axis=1)
        q, block = np.repeat(np.arange(len(queries)), n_blocks), blocks.ravel()
        order = np.argsort(block, kind="stable")
        similarity = np.empty((len(block), self.blocks.size), dtype=queries.dtype)
        similarity[order] = self.blocks.similarities(queries, q[order], block[order], groups)
        return blocks, similarity.reshape(len(queries), -1)

    def _found_first(self, queries, n_neighbors, groups):
        """Similarity of the k-th best row of the first blocks, -inf where there is none."""
        _, similarity = self._first_blocks(queries, n_neighbors, groups)
        rank = similarity.shape[1] - n_neighbors
        if rank < 0:
            return np.full(len(queries), -np.inf)
        similarity.partition(rank, axis=1)
        return similarity[:, rank].astype(np.float64)


def _norms(vectors):
    return np.sqrt(squared_norms(vectors))


def _relative_error(vectors):
    """Of products of these vectors in float64, in terms of the norms of the factors."""
    return (vectors.shape[1] + 64) * 1e-15
