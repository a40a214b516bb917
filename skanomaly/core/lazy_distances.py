"""Distances to the nearest of a growing set of centres, brought up to date only where it matters.

The distance of a token to its nearest centre can only fall as centres are added, so that what was
known earlier bounds it from above. To find the farthest token, only those of the highest bounds
have to be compared with the centres that they missed, and that by one matrix product.

Products are taken in float32 and only rule out what is farther by more than their rounding error;
what is left is measured in float64, as differences. The result is therefore that of float64
throughout, however the products are blocked and on however many threads they run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.prepared import PreparedRows
from skanomaly.core.products import product

_UNIT_ROUNDOFF, _SMALLEST = 2.0**-24, 2.0**-126  # of float32


@dataclass(frozen=True)
class Sizes:
    """How much is done at a time. It decides the speed, never the result.

    Parameters
    ----------
    cells : int, default=64
        So many of the first centres divide the tokens into cells; a token is first compared with
        the centres of its own cell.
    pool : tuple of int, default=(1024, 8192)
        Least and most tokens that are brought up to date at a time.
    steps : int, default=32
        Centres after which the pool is freed of what fell below the rest.
    centres : int, default=256
        Centres in one matrix product.
    rows : int, default=4096
        Tokens in one step of a pass over all of them.
    pairs : int, default=256
        Pairs that are measured at a time; their differences stay in the cache.
    """

    cells: int = 64
    pool: tuple[int, int] = (1024, 8192)
    steps: int = 32
    centres: int = 256
    rows: int = 4096
    pairs: int = 256


DEFAULT_SIZES = Sizes()


class LazyDistances:
    """Euclidean distances of tokens to their nearest centres, of which the largest is asked for.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim), float32 or float64, or PreparedRows
        Finite.
    capacity : int
        How many centres there may be.
    start : int
        Row of the first centre.
    sizes : Sizes, optional

    Attributes
    ----------
    chosen : ndarray of shape (n_centers,), int64
        Rows of the centres so far.
    """

    def __init__(
        self,
        tokens: FloatArray | PreparedRows,
        capacity: int,
        start: int,
        sizes: Sizes = DEFAULT_SIZES,
    ) -> None:
        self._tokens, self._sizes = tokens, sizes
        n, dim = tokens.shape
        self._pool_size = min(n, max(sizes.pool[0], min(sizes.pool[1], n // 16)))
        self._choices = np.empty(capacity, dtype=np.int64)
        self._centres = np.empty((capacity, dim + 1), dtype=np.float32)
        self._count = 0
        self._set_scale()
        self._half_norms = np.empty(n)
        self._nearest = np.empty(n)  # exact for the centres compared, or an upper bound
        n_products = max(self._pool_size, sizes.rows) * sizes.centres
        self._products = np.empty(n_products, dtype=np.float32)
        first = self._extended(np.array([start]))[0, :-1]
        for begin in range(0, n, self._sizes.rows):
            rows = slice(begin, begin + self._sizes.rows)
            block = np.subtract(self._scaled(rows), self._reference, dtype=np.float64)
            self._half_norms[rows] = np.einsum("ij,ij->i", block, block) / 2
            self._nearest[rows] = -2.0 * product(block.astype(np.float32), first)
        margins = self._margin(slice(None), slice(start, start + 1))
        self._nearest += 2 * (self._half_norms + self._half_norms[start] + margins)
        self._compared = np.zeros(n, dtype=np.int32)  # exact for the centres before this one
        self._cell = None  # of each token: the nearest of the first centres
        self._compared_in_cell = np.zeros(n, dtype=np.int32)  # of the centres of its cell
        self._members: list[list[int]] = [[] for _ in range(sizes.cells)]  # centres by cell
        self._leave_pool()
        self.add(start)

    @property
    def chosen(self) -> IntArray:
        """Rows of the centres so far."""
        return self._choices[: self._count]

    def add(self, row: int) -> None:
        """Make a token a centre; after a call of `farthest`, only the one that it returned.

        Parameters
        ----------
        row : int
            The token.
        """
        self._choices[self._count] = row
        centre = self._centres[self._count]
        centre[:] = self._extended(np.array([row]))[0]
        centre[-1] = -self._half_norms[row]
        if self._cell is not None:
            self._members[self._cell[row]].append(self._count)
        self._count += 1
        if len(self._pool):
            self._update_pool()

    def farthest(self) -> tuple[int, float]:
        """The token farthest from the centres, of equal ones the lowest row.

        Returns
        -------
        row : int
            The token.
        distance : float
            Its distance to the nearest centre.
        """
        while True:
            if len(self._pool):
                best = int(self._pool_nearest.argmax())
                row, squared = int(self._pool[best]), float(self._pool_nearest[best])
                bound, bound_row = self._outside
                if squared > bound or (squared == bound and row < bound_row):
                    return row, float(np.sqrt(squared)) / self._unit
            self._fill_pool()

    def _set_scale(self):
        """A power of two that keeps squares from over- or underflowing, and a point amid tokens.

        Scaled by the one, minus the other, tokens enter the products; a common offset would drown
        their distances in rounding.
        """
        tokens, peaks = self._tokens, []
        for start in range(0, len(tokens), self._sizes.rows):
            block = tokens[start : start + self._sizes.rows]
            peaks += [-block.min(), block.max()]
        peak = float(np.max(peaks))  # NaN where there is one
        if not np.isfinite(peak):
            raise ValueError("tokens must be finite")
        exponent, limit = np.frexp(peak)[1], np.finfo(tokens.dtype).maxexp - 2
        self._unit = 2.0 ** float(np.clip(-exponent, -limit, limit)) if abs(exponent) > 20 else 1.0
        mean = np.zeros(tokens.shape[1])
        for start in range(0, len(tokens), self._sizes.rows):
            mean += self._scaled(slice(start, start + self._sizes.rows)).sum(axis=0) / len(tokens)
        self._reference = mean.astype(tokens.dtype)

    def _scaled(self, rows):
        """Tokens times the power of two."""
        block = self._tokens[rows]
        return block if self._unit == 1 else block * block.dtype.type(self._unit)

    def _extended(self, rows):
        """Tokens with a 1 behind, float32: times a centre with minus half of its squared norm
        behind, half of the token's squared norm minus half of the squared distance."""
        block = self._scaled(rows)
        extended = np.empty((block.shape[0], block.shape[1] + 1), dtype=np.float32)
        np.subtract(block, self._reference, out=extended[:, :-1], casting="same_kind")
        extended[:, -1] = 1
        return extended

    def _measure(self, rows, centres):
        """Squared distances of pairs, float64; those of equal tokens are equal to the last bit."""
        squared = np.empty(len(rows))
        others = self._choices[centres]
        for start in range(0, len(rows), self._sizes.pairs):
            part = slice(start, start + self._sizes.pairs)
            difference = np.subtract(
                self._scaled(rows[part]), self._scaled(others[part]), dtype=np.float64
            )
            np.einsum("ij,ij->i", difference, difference, out=squared[part])
        return squared

    def _margin(self, rows, others):
        """Bound on the error of products of tokens with any centre among others, by token."""
        # That of an inner product minus half of a squared norm, all conversions included, is at
        # most (dim + 10) u (|x||c| + |c|^2), and a little for the terms in u^2; that of float64,
        # in which |x|^2 is added, is 2^-29 of it; and products may underflow.
        factor = 1.01 * (self._tokens.shape[1] + 10)
        norms = np.sqrt(2 * self._half_norms[rows])
        largest = np.sqrt(2 * self._half_norms[others].max())
        relative = (norms + largest) * largest + 2.0**-29 * norms**2
        return factor * (_UNIT_ROUNDOFF * relative + _SMALLEST)

    def _leave_pool(self):
        self._pool = np.empty(0, dtype=np.int64)

    def _fill_pool(self):
        """Bring the tokens of the highest bounds up to date, and keep what is above the rest."""
        if len(self._pool):
            self._nearest[self._pool] = self._pool_nearest
            self._compared[self._pool] = self._count
            self._leave_pool()
        if self._cell is None and self._count >= self._sizes.cells:
            self._make_cells()
        rows, self._outside = self._highest()
        floor = self._outside[0]
        stale = rows[self._compared[rows] < self._count]
        if len(stale):
            self._refresh(stale, floor)
        rows = rows[(self._nearest[rows] >= floor) & (self._compared[rows] == self._count)]
        self._pool = rows
        self._pool_nearest = self._nearest[rows]
        self._pool_tokens = self._extended(rows)
        if len(rows):
            # The next centres come from the pool.
            self._pool_ceiling = self._half_norms[rows] - self._margin(rows, rows)
            self._pool_threshold = self._pool_ceiling - self._pool_nearest / 2

    def _highest(self):
        """The rows of the highest bounds, ascending, and the bound and row of the next one.

        Of equal bounds, the lower rows are the higher.
        """
        n, size = len(self._nearest), self._pool_size
        if size == n:
            return np.arange(n), (-np.inf, n)
        bound = np.partition(self._nearest, n - 1 - size)[n - 1 - size]
        rows, equal = np.flatnonzero(self._nearest > bound), np.flatnonzero(self._nearest == bound)
        taken = size - len(rows)
        return np.sort(np.append(rows, equal[:taken])), (float(bound), int(equal[taken]))

    def _update_pool(self):
        """Compare the pool with the newest centre."""
        if self._count % self._sizes.steps == 0:
            above = self._pool_nearest >= self._outside[0]
            if np.count_nonzero(above) < 0.7 * len(above):
                self._nearest[self._pool] = self._pool_nearest
                self._compared[self._pool] = self._count - 1
                for name in ("", "_nearest", "_tokens", "_ceiling", "_threshold"):
                    setattr(self, f"_pool{name}", getattr(self, f"_pool{name}")[above])
        newest = self._count - 1
        near = np.flatnonzero(
            product(self._pool_tokens, self._centres[newest]) >= self._pool_threshold
        )
        rows = self._pool[near]
        squared = self._measure(rows, np.full(len(near), newest))
        squared = np.minimum(squared, self._pool_nearest[near])
        self._pool_nearest[near] = squared
        self._pool_threshold[near] = self._pool_ceiling[near] - squared / 2

    def _make_cells(self):
        self._cell = np.empty(len(self._tokens), dtype=np.int16)
        centres = self._centres[: self._sizes.cells].T
        for start in range(0, len(self._tokens), self._sizes.rows):
            rows = slice(start, start + self._sizes.rows)
            self._cell[rows] = product(self._extended(rows), centres).argmax(axis=1)
        for number, row in enumerate(self.chosen):
            self._members[self._cell[row]].append(number)

    def _refresh(self, rows, floor):
        """Compare tokens with the centres that they missed, until they are below the floor."""
        if self._cell is not None:
            rows = rows[np.argsort(self._cell[rows], kind="stable")]
        tokens = self._extended(rows)
        if self._cell is not None:
            self._refresh_bounds(rows, tokens)
        left = np.flatnonzero(self._nearest[rows] >= floor)
        left = left[np.argsort(self._compared[rows[left]], kind="stable")]
        rows, tokens, step = rows[left], tokens[left], self._sizes.centres
        while len(rows) and (first := self._compared[rows[0]]) < self._count:
            stop = min(self._count, first // step * step + step)
            missed = np.searchsorted(self._compared[rows], stop)
            self._compare(rows[:missed], tokens[:missed], first, stop)
            left = self._nearest[rows] >= floor
            if np.count_nonzero(left) < 0.9 * len(left):
                rows, tokens = rows[left], tokens[left]

    def _refresh_bounds(self, rows, tokens):
        """Lower the bounds of tokens, sorted by cell, by the centres of their own cells."""
        cells = self._cell[rows]
        starts = np.flatnonzero(np.diff(cells, prepend=-1))
        for start, stop in zip(starts, np.append(starts[1:], len(rows)), strict=True):
            part, members = rows[start:stop], self._members[cells[start]]
            missed = members[self._compared_in_cell[part].min() :]
            if missed:
                highest = product(tokens[start:stop], self._centres[missed].T).max(axis=1)
                margin = self._margin(part, self._choices[missed])
                bound = 2 * (self._half_norms[part] - highest + margin)
                self._nearest[part] = np.minimum(self._nearest[part], bound)
                self._compared_in_cell[part] = len(members)

    def _compare(self, rows, tokens, first, stop):
        """Bring tokens up to date with the centres from `first` to `stop`."""
        shape = len(rows), stop - first
        products = self._products[: shape[0] * shape[1]].reshape(shape)
        product(tokens, self._centres[first:stop].T, out=products)
        highest = products.max(axis=1)
        margin = self._margin(rows, self._choices[first:stop])
        # What a product must reach if its centre may be nearer than what is known.
        threshold = self._half_norms[rows] - self._nearest[rows] / 2 - margin
        near = np.flatnonzero(highest >= threshold)
        if len(near):
            # The nearest of these centres is within twice the margin of the highest product.
            least = np.maximum(highest[near] - 2 * margin[near], threshold[near])
            which, centres = np.nonzero(products[near] >= least.astype(np.float32)[:, None])
            squared = self._measure(rows[near[which]], first + centres)
            starts = np.flatnonzero(np.diff(which, prepend=-1))
            updated = rows[near]
            self._nearest[updated] = np.minimum(
                self._nearest[updated], np.minimum.reduceat(squared, starts)
            )
        self._compared[rows] = stop
