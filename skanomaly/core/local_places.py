"""Places of patches in a grid, and those around a place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skanomaly._typing import IntArray


def reference_grid(grids: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """The places that images of some grids share: the most rows and columns that one has.

    Parameters
    ----------
    grids : sequence of tuple of int
        ``(grid_h, grid_w)`` of each image.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> from skanomaly.core.local_places import reference_grid
    >>> reference_grid([(4, 5), (3, 6)])
    (4, 6)
    """
    rows, columns = np.max(list(grids), axis=0)
    return int(rows), int(columns)


def nearest_places(grid: tuple[int, int], reference: tuple[int, int]) -> IntArray:
    """The place of another grid that lies where each place of a grid does.

    Parameters
    ----------
    grid : tuple of int
    reference : tuple of int
        The other grid.

    Returns
    -------
    ndarray of shape (grid_h * grid_w,), int
        Numbers of places of `reference`, row by row.

    Examples
    --------
    >>> from skanomaly.core.local_places import nearest_places
    >>> nearest_places((2, 2), (2, 4))
    array([1, 3, 5, 7])
    """
    rows, columns = (
        (2 * np.arange(side) + 1) * other // (2 * side)
        for side, other in zip(grid, reference, strict=True)
    )
    return (rows[:, None] * reference[1] + columns).ravel()


def window(grid: tuple[int, int], place: int, radius: int) -> list[slice]:
    """Runs of the places within `radius` rows and columns of one, a run a row.

    Parameters
    ----------
    grid : tuple of int
    place : int
    radius : int

    Returns
    -------
    list of slice

    Examples
    --------
    >>> from skanomaly.core.local_places import window
    >>> window((3, 4), 0, 1)
    [slice(0, 2, None), slice(4, 6, None)]
    """
    row, column = divmod(place, grid[1])
    first, last = max(0, column - radius), min(grid[1], column + radius + 1)
    return [
        slice(r * grid[1] + first, r * grid[1] + last)
        for r in range(max(0, row - radius), min(grid[0], row + radius + 1))
    ]


def window_sizes(grid: tuple[int, int], radius: int) -> IntArray:
    """How many places there are in the window of each place.

    Parameters
    ----------
    grid : tuple of int
    radius : int

    Returns
    -------
    ndarray of shape (n_places,), int

    Examples
    --------
    >>> from skanomaly.core.local_places import window_sizes
    >>> window_sizes((2, 3), 1)
    array([4, 6, 4, 4, 6, 4])
    """
    rows, columns = (
        np.minimum(np.arange(side) + radius + 1, side) - np.maximum(np.arange(side) - radius, 0)
        for side in grid
    )
    return np.outer(rows, columns).ravel()
