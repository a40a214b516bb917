"""Outlines of masks along the edges of pixels, as polygons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Steps along the edges of pixels, clockwise as one sees an image: right, down, left, up.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def outline_polygon(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The outline of a connected region as one polygon, holes included.

    Parameters
    ----------
    mask : ndarray of shape (height, width), bool
        Of one region, whose pixels touch at their edges or corners.

    Returns
    -------
    list of tuple of int
        Corners ``(x, y)`` of the polygon in their order, without the first again at the end. Pixel
        ``(row, column)`` is the square from ``(column, row)`` to ``(column + 1, row + 1)``.

    Raises
    ------
    ValueError
        When the mask is empty, or of several regions.

    Notes
    -----
    The outline follows the edges of pixels, so that what it encloses is the region exactly, by the
    even-odd and by the nonzero rule. It touches itself where pixels touch at a corner. A hole is
    cut open: a slit of no width, along the edges of pixels, leads from it to the next outline
    above.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.outlines import outline_polygon
    >>> outline_polygon(np.array([[True, True], [True, False]]))
    [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]
    """
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim != 2 or not mask.any():
        raise ValueError(f"mask must be a 2-D mask with a region, got shape {mask.shape}")
    padded = np.pad(mask, 1)
    loops = _loops(padded)
    outline = _Chain(loops[0])
    for loop in loops[1:]:
        if _area(loop) > 0:
            raise ValueError("the mask holds several regions that do not touch: pass one at a time")
        outline.cut_open(loop)
    return _corners(outline.points())


def _loops(padded):
    """Loops of edges, each of one pixel, the region on the right; ordered by their highest rows."""
    leaving: dict[tuple[int, int], set[int]] = {}
    # An edge that leads right, down, left or up is above, right of, below or left of a pixel: how
    # far the neighbour is there, and where the edge starts from the pixel's upper left corner.
    for direction, (axis, shift, right, down) in enumerate(
        [(0, 1, 0, 0), (1, -1, 1, 0), (0, -1, 1, 1), (1, 1, 0, 1)]
    ):
        rows, columns = np.nonzero(padded & ~np.roll(padded, shift, axis))
        starts = zip((columns - 1 + right).tolist(), (rows - 1 + down).tolist(), strict=True)
        for point in starts:
            leaving.setdefault(point, set()).add(direction)
    loops = []
    for start in sorted(leaving, key=lambda point: (point[1], point[0])):
        if not leaving[start]:
            continue
        point, loop, turns = start, [], [min(leaving[start])]
        while turns:
            direction = turns[0]
            leaving[point].discard(direction)
            loop.append(point)
            point = point[0] + _STEPS[direction][0], point[1] + _STEPS[direction][1]
            # Where two pixels touch at a corner, left: on to the other one.
            ahead = ((direction + turn) % 4 for turn in (3, 0, 1))
            turns = [turn for turn in ahead if turn in leaving[point]]
        loops.append(loop)
    return loops


class _Chain:
    """A closed polygon of points that is extended in the middle."""

    def __init__(self, loop: list[tuple[int, int]]) -> None:
        self._points = list(loop)
        self._next = [*range(1, len(loop)), 0]
        self._node = {point: i for i, point in enumerate(loop)}

    def cut_open(self, loop: list[tuple[int, int]]) -> None:
        """Insert the loop of a hole, from its highest point by a slit to what lies above."""
        start = min(range(len(loop)), key=lambda i: (loop[i][1], loop[i][0]))
        x, y = loop[start]
        while (x, y) not in self._node:
            y -= 1
        at = self._node[x, y]
        rest = [*loop[start + 1 :], *loop[:start]]
        if (x, y) == loop[start]:
            inserted = [*rest, (x, y)]
        else:
            inserted = [loop[start], *rest, loop[start], (x, y)]
        first = len(self._points)
        self._points += inserted
        self._next += [*range(first + 1, first + len(inserted)), self._next[at]]
        self._next[at] = first
        for i, point in enumerate(inserted, first):
            self._node.setdefault(point, i)

    def points(self) -> list[tuple[int, int]]:
        """All points in order."""
        out, node = [], 0
        while True:
            out.append(self._points[node])
            node = self._next[node]
            if node == 0:
                return out


def _corners(points):
    """The points at which the direction changes."""
    places = np.array(points)
    after = np.sign(np.roll(places, -1, axis=0) - places)
    turns = (after != np.roll(after, 1, axis=0)).any(axis=1)
    return [point for point, is_turn in zip(points, turns.tolist(), strict=True) if is_turn]


def _area(loop):
    """Twice the area that a loop encloses; negative for one around a hole."""
    return sum(
        x * below - right * y
        for (x, y), (right, below) in zip(loop, [*loop[1:], loop[0]], strict=True)
    )
