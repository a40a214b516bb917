"""From a grid of patch scores to a heat map of the image's own size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d

from skanomaly.core.products import product

_ROWS = 64  # of a map that are computed at a time, where its highest value is looked for


def upsample_map(
    grid_scores: ArrayLike, size: Sequence[int], sigma: float = 4.0
) -> NDArray[np.float32]:
    """Bilinear upsampling of a grid of patch scores, then a Gaussian in the image's pixels.

    Parameters
    ----------
    grid_scores : array-like of shape (grid_h, grid_w)
        Patch scores, finite.
    size : tuple of int
        ``(height, width)`` of the map in pixels.
    sigma : float, default=4.0
        Standard deviation of the Gaussian in pixels of the map; 0 for none.

    Returns
    -------
    ndarray of shape (height, width), float32
        The map. Its values stay within the range of `grid_scores`, and a constant stays that
        constant.

    Raises
    ------
    ValueError
        For a grid that is not finite or has not two dimensions, a size below one pixel, or a
        negative `sigma`.

    Notes
    -----
    Patch ``(i, j)`` is centred on its cell, as in ``align_corners=False``; outside the outermost
    centres the map is constant. Both steps are linear and separable, so that the map is
    ``A @ grid_scores @ B.T``, where `A` is the blur applied to the upsampling of the identity.

    Examples
    --------
    >>> from skanomaly.core.maps import upsample_map
    >>> upsample_map([[0.0, 1.0]], (1, 4), sigma=0)
    array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    grid, rows, columns = _operators(grid_scores, size, sigma)
    heat_map = product(rows, product(grid, columns.T))
    # Rounding may leave the range by one unit in the last place; a map must not. In place: fresh
    # memory for a second map costs more than the products.
    return np.clip(heat_map, grid.min(), grid.max(), out=heat_map)


def map_maximum(grid_scores: ArrayLike, size: Sequence[int], sigma: float = 4.0) -> float:
    """The highest value of a heat map, without the map.

    Parameters
    ----------
    grid_scores, size, sigma
        As for :func:`upsample_map`.

    Returns
    -------
    float
        That of ``upsample_map(grid_scores, size, sigma).max()``, but for the rounding of float32.

    Notes
    -----
    Along a row of pixels the map is a mean of what the columns of the grid have there, so that the
    highest of these bounds the row. Rows are computed from the highest bound on until no bound
    is above what was found: for a few rows of pixels around the highest patches, as a rule.

    Examples
    --------
    >>> from skanomaly.core.maps import map_maximum
    >>> map_maximum([[0.0, 1.0]], (1, 3), sigma=0)
    1.0
    """
    grid, rows, columns = _operators(grid_scores, size, sigma)
    before = product(rows, grid)  # (height, grid_w)
    bounds = before.max(axis=1)
    order = np.argsort(-bounds, kind="stable")
    highest = -np.inf
    for start in range(0, len(order), _ROWS):
        part = order[start : start + _ROWS]
        if bounds[part[0]] <= highest:
            break
        highest = max(highest, float(product(before[part], columns.T).max()))
    return min(highest, float(grid.max()))


def _operators(grid_scores, size, sigma):
    """The grid, and what makes the rows and the columns of its map."""
    grid = np.asarray(grid_scores, dtype=np.float32)
    if grid.ndim != 2 or grid.size == 0:
        raise ValueError(f"grid_scores must be a non-empty 2-D grid, got shape {grid.shape}")
    if not np.isfinite(grid).all():
        raise ValueError("grid_scores must be finite")
    height, width = (int(side) for side in size)
    if height < 1 or width < 1 or any(isinstance(side, bool) for side in size):
        raise ValueError(f"size must be (height, width) of at least one pixel, got {tuple(size)}")
    if not sigma >= 0:
        raise ValueError(f"sigma must be >= 0, got {sigma}")
    shape = grid.shape
    return grid, _operator(shape[0], height, float(sigma)), _operator(shape[1], width, float(sigma))


@lru_cache(maxsize=64)
def _operator(n_cells, n_pixels, sigma):
    """(n_pixels, n_cells) float32 matrix: linear interpolation, then the blur, along one axis."""
    centres = (np.arange(n_pixels) + 0.5) * (n_cells / n_pixels) - 0.5
    position = np.clip(centres, 0, n_cells - 1)
    left = np.minimum(position.astype(int), max(n_cells - 2, 0))
    fraction = position - left
    operator = np.zeros((n_pixels, n_cells))
    pixels = np.arange(n_pixels)
    operator[pixels, left] = 1 - fraction
    if n_cells > 1:
        operator[pixels, left + 1] = fraction
    if sigma > 0:
        operator = gaussian_filter1d(operator, sigma, axis=0, mode="reflect")
    operator = operator.astype(np.float32)
    operator.setflags(write=False)
    return operator
