"""How much of each cell of a grid a region of an image covers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray

# Points along each side of a cell at which polygons are looked up.
_POINTS = 32


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an image, wherever the image is and however large.

    Exactly one of the two is given.

    Attributes
    ----------
    bits : ndarray of shape (height, ceil(width / 8)), uint8, or None
        Rows of a mask, eight pixels a byte, as of :func:`numpy.packbits`.
    width : int
        Of the mask in pixels.
    polygons : tuple of ndarray of shape (n_vertices, 2), float64, or None
        Vertices ``(x, y)`` of polygons that together are the region, as shares of width and height.
    """

    bits: NDArray[np.uint8] | None = None
    width: int = 0
    polygons: tuple[FloatArray, ...] | None = None

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> Region:
        """The region that a mask marks.

        Parameters
        ----------
        mask : ndarray of shape (height, width), bool

        Returns
        -------
        Region
        """
        return cls(np.packbits(mask, axis=1), mask.shape[1])

    def digest(self) -> str:
        """A hash of the region, in hexadecimal digits.

        Returns
        -------
        str
        """
        parts = self.polygons if self.bits is None else (self.bits,)
        assert parts is not None
        found = hashlib.sha256(f"{self.width} {[len(part) for part in parts]}".encode())
        for part in parts:
            found.update(part.tobytes())
        return found.hexdigest()


# A mask of many pixels is not to be gone through again for each image of a stream.
_known: WeakKeyDictionary[Region, dict[tuple[int, int], FloatArray]] = WeakKeyDictionary()


def overlap_with_cells(region: Region, grid: tuple[int, int]) -> FloatArray:
    """Share of each cell of a grid that a region covers.

    Parameters
    ----------
    region : Region
    grid : tuple of int
        ``(grid_h, grid_w)``: the image is divided into so many equal cells.

    Returns
    -------
    ndarray of shape (grid_h, grid_w), float64
        From 0 to 1: of a mask by area, with the pixels on an edge in part; of polygons by the share
        of 32 x 32 evenly spread points of the cell that lie within one of them.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.region_overlap import Region, overlap_with_cells
    >>> overlap_with_cells(Region.of_mask(np.array([[True, False, False]])), (1, 2))
    array([[0.66666667, 0.        ]])
    >>> triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
    >>> overlap_with_cells(Region(polygons=(triangle,)), (2, 1)).round(1)
    array([[0.5],
           [0. ]])
    """
    known = _known.setdefault(region, {})
    if grid not in known:
        if region.polygons is None:
            assert region.bits is not None
            mask = np.unpackbits(region.bits, axis=1, count=region.width)
            known[grid] = _mean_of_cells(mask, grid)
        else:
            fine = _inside(region.polygons, (grid[0] * _POINTS, grid[1] * _POINTS))
            blocks = fine.reshape(grid[0], _POINTS, grid[1], _POINTS)
            known[grid] = blocks.mean(axis=(1, 3))
    return known[grid]


def _mean_of_cells(mask, grid):
    """Mean of a mask over each cell, whose edges may run through pixels."""
    for axis, n_cells in enumerate(grid):
        mask = np.moveaxis(mask, axis, 0)
        sums = np.concatenate([np.zeros_like(mask[:1], np.float64), np.cumsum(mask, 0, np.float64)])
        edges = np.arange(n_cells + 1) * (len(mask) / n_cells)
        whole = np.minimum(edges.astype(int), len(mask) - 1)
        rest = (edges - whole)[:, None]
        at_edges = sums[whole] + rest * mask[whole]
        mask = np.moveaxis(np.diff(at_edges, axis=0) / (len(mask) / n_cells), 0, axis)
    return mask


def _inside(polygons: Sequence[FloatArray], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which pixels of a picture have their centre within one of the polygons."""
    height, width = size
    found = np.zeros(size, dtype=bool)
    centres = np.arange(height) + 0.5
    for polygon in polygons:
        # A ray from the left crosses an odd number of edges on its way to a point within.
        crossed = np.zeros((height, width + 1), dtype=np.int32)
        x, y = polygon[:, 0] * width, polygon[:, 1] * height
        for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
            rows = np.flatnonzero((y0 <= centres) != (y1 <= centres))
            at = x0 + (centres[rows] - y0) * ((x1 - x0) / (y1 - y0)) if rows.size else rows
            # The first pixel whose centre lies at the crossing or to its right.
            np.add.at(crossed, (rows, np.clip(np.ceil(at - 0.5), 0, width).astype(int)), 1)
        found |= np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1
    return found
