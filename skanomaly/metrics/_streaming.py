"""The scores of defect pixels, counted among those of normal pixels, one image at a time.

Every exact pixel metric follows from a few numbers for each distinct score of a defect pixel: how
many defect pixels have it and what they weigh, how many normal pixels score above it and how many
at least as high. Normal pixels are only counted, a block of them sorted at a time, so that memory
grows with the distinct scores of defect pixels alone, 36 bytes each, or 52 with their neighbours:
8.4 million is what float32 has of them between a number and its double.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.metrics._validation import Map

CHUNK = 2**16  # scores of defect pixels at once: their temporaries stay in the cache
_BLOCK = 2**25  # normal pixels sorted at once, unless there are more distinct scores
_PENDING = 2**22  # defect pixels gathered before they are sorted


class DefectScores:
    """The distinct scores of defect pixels, gathered image by image.

    Parameters
    ----------
    dtype : dtype
        That fits all scores.
    weighted : bool
        Whether pixels have weights.

    Attributes
    ----------
    values : ndarray of shape (n_scores,)
        Distinct, ascending.
    counts, weights : ndarray of shape (n_scores,)
        How many pixels have each, and the sum of their weights, empty without them.
    """

    def __init__(self, dtype: np.dtype[Any], weighted: bool) -> None:
        self.values: Map = np.empty(0, dtype=dtype)
        self.counts: IntArray = np.empty(0, dtype=np.int64)
        self.weights: FloatArray = np.empty(0)
        self.weighted = weighted
        self._pending: list[tuple[Map, FloatArray]] = []
        self._n_pending = 0

    def add(self, values: Map, weights: FloatArray) -> None:
        """Add pixels, in any order; `weights` is empty where they have none."""
        self._pending.append((values, weights))
        self._n_pending += values.size
        if self._n_pending >= _PENDING:
            self.settle()

    def settle(self) -> None:
        """Take in what was added last; to be called before anything is read."""
        if not self._n_pending:
            return
        added, weights = zip(*self._pending, strict=True)
        self._pending, self._n_pending = [], 0
        values = np.concatenate(added, dtype=self.values.dtype)
        if not self.weighted:
            values.sort()
            first = _first_of_each(values)
            self._merge(values[first], np.diff(first, append=values.size), np.empty(0))
        else:
            order = np.argsort(values, kind="stable")  # on any processor weights sum in one order
            values = values[order]
            first = _first_of_each(values)
            summed = np.add.reduceat(np.concatenate(weights)[order], first)
            self._merge(values[first], np.diff(first, append=values.size), summed)

    def _merge(self, values, counts, weights):
        if not self.values.size:
            self.values, self.counts, self.weights = values, counts, weights
            return
        place = np.searchsorted(self.values, values)
        known = self.values[np.minimum(place, self.values.size - 1)] == values
        self.counts[place[known]] += counts[known]
        new, where = ~known, place[~known]
        self.counts = np.insert(self.counts, where, counts[new])
        if self.weighted:
            self.weights[place[known]] += weights[known]
            self.weights = np.insert(self.weights, where, weights[new])
        self.values = np.insert(self.values, where, values[new])


def _first_of_each(ordered):
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


class NormalCounts(NamedTuple):
    """What is known of the normal pixels for each of some ascending scores, and of all of them."""

    above: IntArray
    at_least: IntArray
    next_below: FloatArray | None  # the nearest normal score below each, or -inf
    next_above: FloatArray | None  # and above each, or inf
    lowest: float
    n_pixels: int


def count_among(pixels: Iterable[Map], values: Map, neighbours: bool = False) -> NormalCounts:
    """Count normal pixels above, and at or above, each of some scores.

    Parameters
    ----------
    pixels : iterable of ndarray
        Scores of normal pixels, of one image after the other, in any shape and order.
    values : ndarray of shape (n_scores,)
        Ascending.
    neighbours : bool, default=False
        Whether the nearest scores of normal pixels are wanted too.

    Returns
    -------
    NormalCounts
        Arrays of shape (n_scores,).

    Raises
    ------
    ValueError
        When there is no normal pixel.
    """
    above, at_least = np.zeros((2, values.size), dtype=np.int64)
    next_below = np.full(values.size, -np.inf) if neighbours else None
    next_above = np.full(values.size, np.inf) if neighbours else None
    lowest, n_pixels = np.inf, 0
    for normal in _sorted_blocks(pixels, values):
        lowest = min(lowest, float(normal[0]))
        n_pixels += normal.size
        for start in range(0, values.size, CHUNK):
            part = slice(start, start + CHUNK)
            below, up_to = _places(normal, values[part])
            above[part] += normal.size - up_to
            at_least[part] += normal.size - below
            if next_below is not None and next_above is not None:
                near = np.where(below > 0, normal[below - 1], -np.inf)
                np.maximum(next_below[part], near, out=next_below[part])
                near = np.where(up_to < normal.size, normal[up_to % normal.size], np.inf)
                np.minimum(next_above[part], near, out=next_above[part])
    if not n_pixels:
        raise ValueError(
            "undefined: every pixel lies in a mask, so there is no false-positive rate"
        )
    return NormalCounts(above, at_least, next_below, next_above, lowest, n_pixels)


def _sorted_blocks(pixels: Iterable[Map], values: Map) -> Iterator[Map]:
    """All pixels, in ascending blocks of one array."""
    block, filled = np.empty(max(_BLOCK, values.size), dtype=values.dtype), 0
    for image in pixels:
        flat = image.ravel()
        while flat.size:
            taken = flat[: block.size - filled]
            block[filled : filled + taken.size] = taken
            filled += taken.size
            flat = flat[taken.size :]
            if filled == block.size:
                block.sort()
                yield block
                filled = 0
    if filled:
        block[:filled].sort()
        yield block[:filled]


def _places(normal: Map, values: Map) -> tuple[IntArray, IntArray]:
    """How many of the ascending `normal` lie below each of the ascending `values`, and up to it."""
    # Between the places of the first and the last value: searches stay in the cache.
    start = int(np.searchsorted(normal, values[0]))
    near = normal[start : int(np.searchsorted(normal, values[-1], side="right"))]
    if not near.size:
        below = np.full(values.size, start)
        return below, below
    below = np.searchsorted(near, values)
    up_to = below.copy()
    # Ties are rare among floats, so the second search is for them alone.
    tied = near[np.minimum(below, near.size - 1)] == values
    up_to[tied] = np.searchsorted(near, values[tied], side="right")
    return below + start, up_to + start
