"""Places of patches in a grid, and those around a place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

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


@lru_cache(maxsize=8)
def window_pairs(grid: tuple[int, int], radius: int) -> tuple[IntArray, IntArray, IntArray]:
    """All pairs of places of which one lies in the window of the other.

    Parameters
    ----------
    grid : tuple of int
    radius : int

    Returns
    -------
    near : ndarray of shape (n_pairs,), int32
        The places in the window of the first place, then of the second, and so on.
    starts : ndarray of shape (n_places + 1,), int
        Where those of each place start.
    turned : ndarray of shape (n_pairs,), int32
        The number of each pair the other way round.

    Examples
    --------
    >>> from skanomaly.core.local_places import window_pairs
    >>> near, starts, turned = window_pairs((1, 3), 1)
    >>> near
    array([0, 1, 0, 1, 2, 1, 2], dtype=int32)
    >>> starts
    array([0, 2, 5, 7])
    >>> turned
    array([0, 2, 1, 3, 5, 4, 6], dtype=int32)
    """
    n_places = grid[0] * grid[1]
    runs = [window(grid, place, radius) for place in range(n_places)]
    parts = [[np.arange(run.start, run.stop) for run in of_place] for of_place in runs]
    near = np.concatenate([part for of_place in parts for part in of_place]).astype(np.int32)
    sizes = [sum(len(part) for part in of_place) for of_place in parts]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    turned = np.argsort(near, kind="stable").astype(np.int32)
    for array in (near, starts, turned):
        array.setflags(write=False)  # they are shared
    return near, starts, turned
