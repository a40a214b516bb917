"""Views of a training image: turned by quarters, and mirrored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray


def _turned(image: NDArray, quarters: int, mirrored: bool) -> NDArray:
    return np.rot90(image[:, ::-1] if mirrored else image, quarters)


# Views of a training image, by the name of the augmentation; the first is the image itself.
_TURNS = [partial(_turned, quarters=k, mirrored=False) for k in range(4)]
VIEWS: dict[str | None, list[Callable[[NDArray], NDArray]]] = {
    None: [*_TURNS[:1]],
    "rotate90": [*_TURNS],
    "dihedral": [*_TURNS, *(partial(_turned, quarters=k, mirrored=True) for k in range(4))],
}


def place_before(view: int, row: int, column: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Where a place of a view was in the image.

    Parameters
    ----------
    view : int
        Number of the view, in ``VIEWS["dihedral"]``, of which the other lists are the beginning.
    row, column : int
        Place in the grid of the view.
    grid : tuple of int
        ``(grid_h, grid_w)`` of the image; views have it too, which makes it square.

    Returns
    -------
    row, column : int

    Examples
    --------
    >>> from skanomaly.core.views import place_before
    >>> place_before(1, 0, 0, (3, 3))  # a quarter counterclockwise: the upper right corner
    (0, 2)
    """
    places = np.arange(grid[0] * grid[1]).reshape(grid)
    place = int(VIEWS["dihedral"][view](places)[row, column])
    return divmod(place, grid[1])
