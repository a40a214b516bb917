"""Candidates for a coreset of more tokens than memory holds, from one pass over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.coreset import greedy_k_center
from skanomaly.core.prepared import PreparedRows
from skanomaly.core.products import product

_ROWS = 2**13  # candidates that are looked at at a time
_QUERIES = 2**15  # tokens that look for one at a time: the more, the fewer copies of candidates
_FEW = 2**11  # candidates that are all compared with
_PROBES = 4  # cells in which a token looks for a candidate
# Candidates whose nearest other one is looked for, and how many of them are to be within the next
# radius of it: that share, or a lower one where too few candidates would be left.
_SAMPLE, _SHARES = 256, (0.95, 0.85, 0.7, 0.5, 0.25)
# Shares of the capacity: with more left it is soon full again, fewer may cover less well.
_LEAST_LEFT, _MOST_LEFT = 0.4, 0.75


class CoresetCandidates:
    """Tokens of a stream, of which each token that came by has one nearby.

    A token that has no candidate within `radius` becomes one. Once they are more than `capacity`,
    `radius` grows, and those stay of which no two are within it. A coreset is then chosen greedily
    among the candidates.

    Parameters
    ----------
    capacity : int
        How many candidates stay at most, at least 2: four times the size of the coreset, see the
        notes.

    Attributes
    ----------
    tokens : ndarray of shape (n_candidates, dim)
        The candidates, in the order in which they came; a view.
    numbers : ndarray of shape (n_candidates,), int64
        What each was numbered by.
    radius : float
        How far a token may be from a candidate without becoming one.
    reach : float
        No token that came by is farther than this from the nearest candidate.

    Notes
    -----
    A coreset that is chosen greedily among the candidates covers all tokens within `reach` plus its
    covering radius among the candidates, by the triangle inequality. That is a bound for the worst
    case. Measured, with a capacity of four times the coreset, it is 1.04 to 1.09 times the covering
    radius of the greedy coreset of all tokens where that is 1% of them, and 1.15 to 1.17 times
    where it is 10%, for tokens of photographs and for generated ones; 1.24 times for points of a
    plane, where more candidates help most.

    Candidates depend on the order of the tokens and on how they are cut into calls of `add`. A
    token is turned away only by a distance that was measured, in float64. Where there are many
    candidates it looks for one in the cells around it only, so that some are nearer to each other
    than `radius`: that costs room, and nothing else.

    References
    ----------
    .. [1] Charikar, Chekuri, Feder and Motwani, "Incremental Clustering and Dynamic Information
       Retrieval", SIAM Journal on Computing 33(6), 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.streamed_coreset import CoresetCandidates
    >>> candidates = CoresetCandidates(4)
    >>> for start in range(0, 100, 10):
    ...     numbers = np.arange(start, start + 10)
    ...     candidates.add(numbers[:, None] / 10, numbers)
    >>> candidates.numbers, candidates.radius, candidates.reach
    (array([ 0, 49, 85]), 2.7199999999999998, 6.039999999999999)
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 2:
            raise ValueError(f"capacity must be at least 2, got {capacity}")
        self.capacity = capacity
        self.radius = self.reach = 0.0
        self._count = self._n_aside = 0
        self._tokens: FloatArray = np.empty((0, 0))
        self._numbers: IntArray = np.empty(0, dtype=np.int64)
        self._cells: _Cells | None = None
        self._n_put = 0

    @property
    def tokens(self) -> FloatArray:
        """The candidates."""
        return self._tokens[: self._count]

    @property
    def numbers(self) -> IntArray:
        """What each candidate was numbered by."""
        return self._numbers[: self._count]

    def add(self, tokens: FloatArray, numbers: IntArray) -> None:
        """Take the tokens that no candidate is near to.

        Parameters
        ----------
        tokens : ndarray of shape (n, dim), float32 or float64
            Finite; of one dtype in all calls. Distances are Euclidean.
        numbers : ndarray of shape (n,), int
            By which they are known later, non-negative.
        """
        far = np.flatnonzero(self.far(tokens))
        self._append(tokens, numbers, far[_apart(tokens, far, self.radius)])
        if self._count > self.capacity:
            while self._count > max(1, int(_MOST_LEFT * self.capacity)):
                self._thin()

    def far(self, tokens: FloatArray) -> NDArray[np.bool_]:
        """Of which tokens no candidate within `radius` was found.

        Parameters
        ----------
        tokens : ndarray of shape (n, dim)

        Returns
        -------
        ndarray of shape (n,), bool
        """
        far = np.ones(len(tokens), dtype=bool)
        if not self.radius:
            return far
        if self._cells is None or self._count > 2 * self._cells.n_at_start:
            self._cells, self._n_put = _Cells(self.tokens), 0
        self._cells.put(np.arange(self._n_put, self._count), self.tokens)
        self._n_put = self._count
        for start in range(0, len(tokens), _QUERIES):
            rows = slice(start, start + _QUERIES)
            far[rows] = self._cells.far(tokens[rows], self.tokens, self.radius)
        return far

    def set_aside(self, tokens: FloatArray, numbers: IntArray) -> None:
        """Keep the tokens that no candidate is near to, without making candidates of them.

        No token can be added after that.

        Parameters
        ----------
        tokens : ndarray of shape (n, dim)
        numbers : ndarray of shape (n,), int
        """
        count = self._count
        far = np.flatnonzero(self.far(tokens))
        self._count += self._n_aside
        self._append(tokens, numbers, far)
        self._count, self._n_aside = count, self._count - count

    def coreset(
        self, size: int, leave_out: Callable[[IntArray], NDArray[np.bool_]] | None = None
    ) -> tuple[FloatArray, IntArray, float]:
        """A coreset of all tokens that came by, and of those that were set aside.

        Parameters
        ----------
        size : int
            How many are chosen at most.
        leave_out : callable, optional
            ``leave_out(numbers)``: which of those that were set aside it is not to know.

        Returns
        -------
        tokens : ndarray of shape (n_chosen, dim)
            In the order they were chosen; the first is that of the lowest number.
        numbers : ndarray of shape (n_chosen,), int64
        radius : float
            No token, but those that are left out, is farther than this from the nearest one that
            was chosen.
        """
        aside = np.arange(self._count, self._count + self._n_aside)
        if leave_out is not None:
            aside = aside[~leave_out(self._numbers[aside])]
        aside = aside[_apart(self._tokens, aside, self.radius)]
        rows = np.concatenate([np.arange(self._count), aside])
        table = PreparedRows(self._tokens, "euclidean", rows)
        start = int(self._numbers[rows].argmin())
        chosen, radius = greedy_k_center(table, min(size, len(rows)), start)
        return table[chosen], self._numbers[rows[chosen]], self.reach + radius

    def _thin(self):
        """Let the radius grow, and keep those candidates of which no two are within it."""
        nearest = self._distances_to_others()
        for share in _SHARES:
            radius = max(float(np.quantile(nearest, share)), np.nextafter(self.radius, np.inf))
            rows = self._net(radius)
            if len(rows) >= _LEAST_LEFT * self.capacity:
                break
        self.radius = radius
        self.reach += radius
        for start in range(0, len(rows), _ROWS):  # some at a time, for rows only move up
            part = rows[start : start + _ROWS]
            self._tokens[start : start + len(part)] = self._tokens[part]
        self._numbers[: len(rows)] = self._numbers[rows]
        self._count, self._cells = len(rows), None

    def _net(self, radius):
        """Rows of candidates that are not within a radius of each other, the first ones first."""
        cells, kept = _Cells(self.tokens), []
        for start in range(0, self._count, _ROWS):
            rows = np.arange(start, min(start + _ROWS, self._count))
            rows = rows[cells.far(self.tokens[rows], self.tokens, radius)]
            kept.append(rows[_apart(self.tokens, rows, radius)])
            cells.put(kept[-1], self.tokens)
        return np.concatenate(kept)

    def _distances_to_others(self):
        """Of some candidates the distance to the nearest other one."""
        sample = np.arange(min(_SAMPLE, self._count)) * self._count // min(_SAMPLE, self._count)
        reference = self.tokens[sample].mean(axis=0)
        queries, best = self.tokens[sample] - reference, np.zeros(len(sample), dtype=np.int64)
        highest = np.full(len(sample), -np.inf)
        for start in range(0, self._count, _ROWS):
            rows = np.arange(start, min(start + _ROWS, self._count))
            others = self.tokens[rows] - reference
            closeness = _closeness(queries, others, np.einsum("ij,ij->i", others, others) / 2)
            closeness[sample[:, None] == rows] = -np.inf
            found = closeness.argmax(axis=1)
            closest = closeness[np.arange(len(sample)), found]
            best = np.where(closest > highest, rows[found], best)
            highest = np.maximum(highest, closest)
        return _distances(self.tokens[sample], self.tokens[best])

    def _append(self, tokens, numbers, rows):
        stop = self._count + len(rows)
        if stop > len(self._tokens):
            # Pages that are never written to take no memory.
            size = max(stop, self.capacity + len(tokens))
            grown = np.empty((size, tokens.shape[1]), dtype=tokens.dtype)
            grown_numbers = np.empty(size, dtype=np.int64)
            if self._count:
                grown[: self._count], grown_numbers[: self._count] = self.tokens, self.numbers
            self._tokens, self._numbers = grown, grown_numbers
        self._tokens[self._count : stop] = tokens[rows]
        self._numbers[self._count : stop] = numbers[rows]
        self._count = stop


def _apart(tokens, rows, radius):
    """Of some rows of tokens, by their place among these, those that are not near to each other."""
    if not radius or not rows.size:
        return np.arange(len(rows))
    kept, _ = greedy_k_center(PreparedRows(tokens, "euclidean", rows), len(rows), radius=radius)
    return np.sort(kept)


class _Cells:
    """Candidates by the pivot that they are nearest to; with few of them there is one cell."""

    def __init__(self, candidates: FloatArray) -> None:
        self.n_at_start = n = len(candidates)
        n_pivots = int(np.sqrt(n)) if n > _FEW else 1
        # In the order of the stream: where there are many tokens, there are many candidates.
        pivots = candidates[np.arange(n_pivots) * n // n_pivots]
        # A common offset would drown the distances in the rounding of the products.
        self._reference = pivots.mean(axis=0)
        self._pivots, self._pivot_norms = pivots, self._half_norms(pivots)
        self._members: list[IntArray] = [np.empty(0, dtype=np.int64)] * n_pivots
        self._norms: list[FloatArray] = [np.empty(0, dtype=pivots.dtype)] * n_pivots

    def put(self, rows: IntArray, candidates: FloatArray) -> None:
        """Take in candidates."""
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            tokens = candidates[part]
            norms = self._half_norms(tokens)
            cells = self._nearest_cells(tokens - self._reference, 1)[:, 0]
            for cell in np.unique(cells).tolist():
                here = cells == cell
                self._members[cell] = np.concatenate([self._members[cell], part[here]])
                self._norms[cell] = np.concatenate([self._norms[cell], norms[here]])

    def far(self, tokens: FloatArray, candidates: FloatArray, radius: float) -> NDArray[np.bool_]:
        """Which tokens have no candidate within the radius in the cells that they look in."""
        centred = tokens - self._reference
        cells = self._nearest_cells(centred, _PROBES)
        left = np.arange(len(tokens))
        for probe in range(cells.shape[1]):
            order = left[np.argsort(cells[left, probe], kind="stable")]
            starts = np.flatnonzero(np.diff(cells[order, probe], prepend=-1))
            found = np.zeros(len(tokens), dtype=bool)
            for rows in np.split(order, starts[1:]) if order.size else []:
                cell = cells[rows[0], probe]
                members = self._members[cell]
                if members.size:
                    others = candidates[members]
                    nearest = _closeness(centred[rows], others, self._norms[cell]).argmax(axis=1)
                    found[rows] = _distances(tokens[rows], others[nearest]) <= radius
            left = left[~found[left]]
        far = np.zeros(len(tokens), dtype=bool)
        far[left] = True
        return far

    def _nearest_cells(self, centred, n_cells):
        """The cells that tokens are in, and those next to them, nearest first."""
        if len(self._pivots) == 1:
            return np.zeros((len(centred), 1), dtype=np.int64)
        closeness = _closeness(centred, self._pivots, self._pivot_norms)
        if n_cells == 1:
            return closeness.argmax(axis=1)[:, None]
        cells = np.argpartition(closeness, -n_cells, axis=1)[:, -n_cells:]
        order = np.argsort(-np.take_along_axis(closeness, cells, axis=1), axis=1, kind="stable")
        return np.take_along_axis(cells, order, axis=1)

    def _half_norms(self, tokens):
        """Half of the squared norms of tokens less the reference."""
        centred = tokens - self._reference
        return np.einsum("ij,ij->i", centred, centred) / 2


def _closeness(centred, others, half_norms):
    """Minus half of the squared distances to others, but for a number that is the token's own.

    Only the tokens are centred, which changes their products with all others by one number.
    """
    closeness = product(centred, others.T)
    closeness -= half_norms
    return closeness


def _distances(left, right):
    """Distances of pairs, float64."""
    difference = np.subtract(left, right, dtype=np.float64)
    return np.sqrt(np.einsum("ij,ij->i", difference, difference))
