"""Sums over the squares around the cells of a grid."""

from __future__ import annotations

import numpy as np

from skanomaly._typing import FloatArray


def box_sums(values: FloatArray, side: int) -> FloatArray:
    """Sums over the square around each cell, cut at the border.

    Parameters
    ----------
    values : ndarray of shape (grid_h, grid_w, ...)
    side : int
        Odd side of the square, in cells.

    Returns
    -------
    ndarray of shape (grid_h, grid_w, ...)
        Of the dtype of `values`.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.squares import box_sums
    >>> box_sums(np.array([[1.0, 2.0, 4.0]]), 3)
    array([[3., 7., 6.]])
    """
    out = values
    for axis in (0, 1):
        source, out = np.moveaxis(out, axis, 0), np.zeros_like(out)
        target, length = np.moveaxis(out, axis, 0), values.shape[axis]
        for shift in range(-(side // 2), side // 2 + 1):
            if abs(shift) < length:
                first, last = max(0, -shift), min(length, length - shift)
                target[first:last] += source[first + shift : last + shift]
    return out
