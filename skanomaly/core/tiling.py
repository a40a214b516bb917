"""Where the tiles of a large image lie, and how their tokens become one grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from skanomaly._typing import FloatArray

# Share of an overlap over which one tile passes into the next, see `tile_weights`.
FADE = 0.5


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles start along one side, so that they cover it.

    Parameters
    ----------
    length : int
        Of the side, in cells.
    tile : int
        Length of a tile, in cells.
    overlap : int
        Cells that a tile has in common with the next one, at least; less than `tile`.

    Returns
    -------
    list of int
        In ascending order, the first 0. The last tile ends where the side does, and the others are
        spread evenly, so that all overlap as much as the least number of tiles allows. A single 0
        where the side is no longer than a tile.

    Examples
    --------
    >>> from skanomaly.core.tiling import tile_starts
    >>> tile_starts(100, 32, 8)
    [0, 22, 45, 68]
    """
    if length <= tile:
        return [0]
    n_steps = -(-(length - tile) // (tile - overlap))
    return [step * (length - tile) // n_steps for step in range(n_steps + 1)]


def tile_weights(starts: Sequence[int], tile: int, fade: float) -> list[tuple[int, FloatArray]]:
    """How much of each tile goes into the tokens along one side.

    Parameters
    ----------
    starts : sequence of int
        Of the tiles, in tokens.
    tile : int
        Length of a tile, in tokens.
    fade : float
        Share of the least overlap of neighbouring tiles over which one passes into the next, in
        the middle of their overlap. With 0 the tile whose centre is nearest gives the token.

    Returns
    -------
    list of (int, ndarray of float32)
        Of each tile, the first of its tokens that counts, and the weights of those from there on,
        all above 0. Those of a place sum to 1, and are exactly 1 where one tile alone counts.

    Examples
    --------
    >>> from skanomaly.core.tiling import tile_weights
    >>> [(first, weights.tolist()) for first, weights in tile_weights([0, 2], 4, 1.0)]
    [(0, [1.0, 1.0, 0.75, 0.25]), (0, [0.25, 0.75, 1.0, 1.0])]
    """
    overlap = min((a + tile - b for a, b in zip(starts, starts[1:], strict=False)), default=0)
    width = max(fade * overlap, 1e-9)
    places = np.arange(starts[-1] + tile) + 0.5
    # How far the change from each tile to the next has come; weights are what lies between two.
    came = [np.ones(len(places))]
    for before, after in zip(starts, starts[1:], strict=False):
        middle = (before + tile + after) / 2
        came.append(np.clip((places - middle) / width + 0.5, 0, 1))
    came.append(np.zeros(len(places)))
    weighted = []
    for number, start in enumerate(starts):
        weights = (came[number] - came[number + 1])[start : start + tile].astype(np.float32)
        counts = np.flatnonzero(weights)
        weighted.append((int(counts[0]), weights[counts[0] : counts[-1] + 1]))
    return weighted


def join_tiles(
    tokens: Iterable[FloatArray],
    starts: tuple[Sequence[int], Sequence[int]],
    fade: float = FADE,
) -> FloatArray:
    """Tokens of overlapping tiles, on one grid.

    Parameters
    ----------
    tokens : iterable of ndarray of shape (tile, tile, dim)
        Of the tiles, row by row; asked for one by one.
    starts : pair of sequences of int
        Rows and columns at which tiles start, in tokens.
    fade : float
        As for :func:`tile_weights`.

    Returns
    -------
    ndarray of shape (grid_h, grid_w, dim), float32
        Means of the tokens of a place, by :func:`tile_weights` of its row times that of its
        column. A place is NaN where a token that counts there is.

    Raises
    ------
    ValueError
        When the tokens of the tiles are not of one shape.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.tiling import join_tiles
    >>> tiles = [np.full((4, 4, 1), value, dtype=np.float32) for value in (0, 8)]
    >>> join_tiles(tiles, ([0], [0, 2]), fade=1.0)[0, :, 0].tolist()
    [0.0, 0.0, 2.0, 6.0, 8.0, 8.0]
    """
    grid, weights = None, None
    for (row, column), of_tile in zip(product(*map(enumerate, starts)), tokens, strict=True):
        if grid is None or weights is None:
            shape = of_tile.shape
            tile = shape[0]
            weights = [tile_weights(along, tile, fade) for along in starts]
            grid = np.zeros((*(along[-1] + tile for along in starts), shape[2]), dtype=np.float32)
        if of_tile.shape != shape:
            raise ValueError(f"tiles have tokens of the shapes {shape} and {of_tile.shape}")
        (top, down), (left, across) = weights[0][row[0]], weights[1][column[0]]
        weight = down[:, None, None] * across[:, None]
        part = of_tile[top : top + len(down), left : left + len(across)]
        y, x = row[1] + top, column[1] + left
        grid[y : y + len(down), x : x + len(across)] += weight * part
    assert grid is not None
    return grid
