"""Views of a training image: turned by any angle or by quarters, mirrored, darker and brighter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, isfinite, radians, sin, sqrt
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STEPS = 32  # of a pixel, in which places are rounded: OpenCV's, and the same on every processor
_ROWS = 64  # of a turned image that are computed at a time
# An image of more pixels is shrunk to so many before it is turned, unless it is embedded at more.
MOST_PIXELS = 2**22


@dataclass(frozen=True)
class View:
    """What is done to a training image to see it in another way.

    Attributes
    ----------
    angle : float, default=0.0
        Degrees counterclockwise by which it is turned before it is resized, its frame staying.
    quarters : int, default=0
        Quarters counterclockwise by which it is turned after it was resized, frame and all.
    mirrored : bool, default=False
        Whether it is mirrored, left to right, before that.
    brightness : float, default=1.0
        What its resized pixels are multiplied by; what is brighter than white is white.

    Examples
    --------
    >>> from skanomaly.core.views import View
    >>> View(quarters=1).name
    'quarters=1'
    """

    angle: float = 0.0
    quarters: int = 0
    mirrored: bool = False
    brightness: float = 1.0

    @property
    def name(self) -> str | None:
        """By which tokens of a view are kept; None of the image itself."""
        other = [f"{key}={value!r}" for key, value in vars(self).items() if value != _PLAIN[key]]
        return ", ".join(other) or None

    @property
    def needs_square(self) -> bool:
        """Whether a frame that is no square would become another one."""
        return self.quarters % 2 == 1

    def after(self, image: NDArray[Any]) -> NDArray[Any]:
        """The view of an image that was resized, and was turned by the angle before."""
        image = np.rot90(image[:, ::-1] if self.mirrored else image, self.quarters)
        if self.brightness == 1:
            return image
        if image.dtype == np.uint8:
            levels = np.minimum(np.rint(np.arange(256) * self.brightness), 255)
            return levels.astype(np.uint8)[image]
        return np.minimum(image * np.float32(self.brightness), np.float32(1))


_PLAIN = vars(View())
_TURNS = [View(quarters=k) for k in range(4)]
# Views by the name of the augmentation; the first is the image itself.
VIEWS: dict[str | None, list[View]] = {
    None: [View()],
    "rotate90": _TURNS,
    "dihedral": [*_TURNS, *(View(quarters=k, mirrored=True) for k in range(4))],
    "rotate45": [View(angle=45.0 * k) for k in range(8)],
    "brightness": [View(), *(View(brightness=factor) for factor in (0.8, 0.9, 1.1, 1.2))],
}


def views_of(augmentation: Any) -> list[View]:
    """The views that an augmentation stands for.

    Parameters
    ----------
    augmentation : str, sequence of (str or float), or None
        A name, or a list or tuple of names and of angles in degrees, counterclockwise.

    Returns
    -------
    list of View
        The image itself, and each other view once, in the order in which they are named.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> from skanomaly.core.views import views_of
    >>> [view.name for view in views_of([0, 10, -10])]
    [None, 'angle=10.0', 'angle=350.0']
    >>> len(views_of(["rotate45", "brightness"]))
    12
    """
    parts = list(augmentation) if isinstance(augmentation, (list, tuple)) else [augmentation]
    several = isinstance(augmentation, (list, tuple))
    views = dict.fromkeys(VIEWS[None])
    for part in parts:
        if isinstance(part, str) and part in VIEWS:
            views.update(dict.fromkeys(VIEWS[part]))
        elif several and isinstance(part, Real) and not isinstance(part, bool) and isfinite(part):
            views[View(angle=float(part) % 360)] = None
        elif several or part is not None:
            break
    else:
        if parts:
            return list(views)
    names = ", ".join(repr(name) for name in VIEWS if name)
    raise ValueError(
        f"must be None, one of {names}, or a list of these and of angles in degrees. Got "
        f"{augmentation!r} instead."
    )


def rotate_image(image: NDArray[Any], angle: float) -> NDArray[Any]:
    """Turn an image in its frame; what comes in at the borders is its reflection.

    Parameters
    ----------
    image : ndarray of shape (height, width, channels), uint8 or float32
        Floats are in [0, 1].
    angle : float
        Degrees, counterclockwise.

    Returns
    -------
    ndarray
        Of the same shape and type.

    Notes
    -----
    Turned is about the point ``(width / 2, height / 2)`` where the centre of the first pixel is
    ``(0, 0)``, interpolated is bilinearly, and reflected without repeating the pixels at the
    border, as in the code published with AnomalyDINO. Places are rounded to a 32nd of a pixel,
    so that sums of 8-bit pixels are exact and the results the same on every processor.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.views import rotate_image
    >>> image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1)
    >>> rotate_image(image, 180)[..., 0]
    array([[4, 5, 4],
           [7, 8, 7],
           [4, 5, 4]], dtype=uint8)
    """
    height, width = image.shape[:2]
    pixels = np.ascontiguousarray(image).reshape(height * width, -1)
    out = np.empty((height, width, pixels.shape[1]), dtype=image.dtype)
    columns = np.arange(width)
    for start in range(0, height, _ROWS):
        rows = np.arange(start, min(start + _ROWS, height))[:, None]
        places = _places_before(rows, columns, angle, (height, width))
        (y, lower), (x, right) = (_split(place) for place in places)
        total = np.zeros((*y.shape, pixels.shape[1]), dtype=np.float32)
        for down in (0, 1):
            row = _reflected(y + down, height) * width
            for along in (0, 1):
                weight = (lower if down else _STEPS - lower) * (right if along else _STEPS - right)
                taken = pixels.take(row + _reflected(x + along, width), axis=0)
                total += taken * weight[..., None].astype(np.float32)
        total /= _STEPS * _STEPS
        if image.dtype == np.uint8:
            total = np.floor(total + np.float32(0.5))
        out[start : start + len(rows)] = total if image.dtype == np.uint8 else np.clip(total, 0, 1)
    return out


def shrunk_size(size: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """The size at which an image is turned that is embedded at `target`, both (height, width).

    Its own, unless it is so large that turning it would cost more than embedding it.

    Examples
    --------
    >>> from skanomaly.core.views import shrunk_size
    >>> shrunk_size((1024, 1024), (448, 448)), shrunk_size((9000, 16000), (448, 448))
    ((1024, 1024), (1536, 2730))
    """
    most = max(MOST_PIXELS, 4 * target[0] * target[1])
    scale = sqrt(most / (size[0] * size[1]))
    if scale >= 1:
        return size
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def place_before(
    view: View, row: int, column: int, grid: tuple[int, int], size: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Where a place of a view was in the image.

    Parameters
    ----------
    view : View
        Of :func:`views_of`.
    row, column : int
        Place in the grid of the view.
    grid : tuple of int
        ``(grid_h, grid_w)`` of the image; views have it too, which makes it square for turns by
        quarters.
    size : tuple of int or None, default=None
        ``(height, width)`` of the image in pixels, for turns by an angle. None: as if patches
        were square.

    Returns
    -------
    row, column : int
        Of the patch that holds the point from which the centre of the place came: inside of the
        image also where the place shows a reflection.

    Examples
    --------
    >>> from skanomaly.core.views import View, place_before
    >>> place_before(View(quarters=1), 0, 0, (3, 3))  # counterclockwise: the upper right corner
    (0, 2)
    >>> place_before(View(angle=90.0), 0, 0, (3, 3))
    (0, 2)
    """
    if view.angle:
        height, width = size or (grid[0] * 16, grid[1] * 16)
        y = (row + 0.5) * height / grid[0] - 0.5
        x = (column + 0.5) * width / grid[1] - 0.5
        places = _places_before(np.array(y), np.array(x), view.angle, (height, width))
        before, along = _reflected(places[0], height), _reflected(places[1], width)
        return int((before + 0.5) * grid[0] / height), int((along + 0.5) * grid[1] / width)
    numbers = np.arange(grid[0] * grid[1]).reshape(grid)
    return divmod(int(replace(view, brightness=1.0).after(numbers)[row, column]), grid[1])


def _places_before(
    rows: NDArray[Any], columns: NDArray[Any], angle: float, size: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Row and column, in pixels and maybe beyond the border, of what is turned to a place."""
    y, x = rows - size[0] / 2, columns - size[1] / 2
    c, s = cos(radians(angle)), sin(radians(angle))
    return s * x + c * y + size[0] / 2, c * x - s * y + size[1] / 2


def _split(places: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels, and the steps from their centres to the places."""
    steps = np.floor(places * _STEPS + 0.5).astype(np.int64)
    return steps // _STEPS, steps % _STEPS


def _reflected(places: NDArray[Any], n: int) -> NDArray[Any]:
    """Places in a row of `n` pixels, reflected at the centres of the first and the last."""
    if n == 1:
        return places * 0
    places = places % (2 * (n - 1))
    return np.minimum(places, 2 * (n - 1) - places)


def grid_problem(views: Sequence[View], grids: Sequence[Any]) -> str | None:
    """Why views of images of these grids have no array of their own; None where they have one.

    Parameters
    ----------
    views : sequence of View
        Of :func:`views_of`.
    grids : sequence of tuple of int
        ``(grid_h, grid_w)`` of each image.

    Returns
    -------
    str or None
        It names the first image that does not fit.

    Examples
    --------
    >>> from skanomaly.core.views import grid_problem, views_of
    >>> grid_problem(views_of("rotate45"), [(3, 4), (3, 4), (4, 3)])
    'views need one grid for all images, and image 2 has 4 x 3 patches where image 0 has 3 x 4'
    """
    square = any(view.needs_square for view in views)
    for i, (height, width) in enumerate(grids):
        if square and height != width:
            return f"turns by quarters need one square grid, and image {i} has {height} x {width}"
        if (height, width) != tuple(grids[0]):
            return (
                f"views need one {'square ' if square else ''}grid for all images, and image {i} "
                f"has {height} x {width} patches where image 0 has {grids[0][0]} x {grids[0][1]}"
            )
    return None
