"""Pictures within a page: photographs, heat maps, outlines and crops, as data URIs and paths."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skanomaly._images import viewable_image
from skanomaly._typing import FloatArray
from skanomaly.core.maps import upsample_map
from skanomaly.inspection import colour_table

# A patch grid has 16 to 96 cells a side: the browser interpolates between these pixels.
_MAP_SIDE = 128
_LEVELS = 128  # of colour, within the limits
_BEYOND = 96  # beyond them
# Violet goes on to this, red, green, blue and opacity: a palette of 8 bits has room for it.
_DEEPEST = (36, 0, 74, 235)
_LEAST_DEPTH = 8.0
_OUTLINE_SIDE = 320
_SIGMA = 4.0  # of the maps that the metrics are measured on, in pixels of the image

Pixels = NDArray[np.uint8]


def photograph(image: Any, index: int | None = None) -> Pixels:
    """An image for the eye, of 8 bits.

    Parameters
    ----------
    image : image
        Path, bytes, PIL image or array.
    index : int or None, default=None
        For error messages.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
    """
    pixels = viewable_image(image, index)
    return pixels if pixels.dtype == np.uint8 else (pixels * 255 + 0.5).astype(np.uint8)


def jpeg(pixels: Pixels, side: int, quality: int = 85) -> str:
    """An image as a data URI, made smaller where its longer side is longer than `side`.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        As of :func:`photograph`.
    side : int
        Longest side, in pixels.
    quality : int, default=85
        Of JPEG.

    Returns
    -------
    str
        ``data:image/jpeg;base64,...``. Without halved colours, in which thin defects drown.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=0)
    return _uri("jpeg", file)


def colours_beyond() -> NDArray[np.uint8]:
    """The colours of a report: those of all heat maps, and deeper shades of the last one.

    Returns
    -------
    ndarray of shape (224, 4), uint8
        Red, green, blue and opacity. The first 128 are :func:`skanomaly.inspection.colour_table`.
    """
    table = colour_table(_LEVELS)
    share = np.linspace(0, 1, _BEYOND + 1)[1:, None]
    deeper = (1 - share) * table[-1] + share * np.array(_DEEPEST)
    return np.concatenate([table, np.round(deeper).astype(np.uint8)])


def deepest_score(grids: Sequence[FloatArray], limits: tuple[float, float]) -> float:
    """The patch score of the deepest shade, one for all images of a report.

    Parameters
    ----------
    grids : sequence of ndarray
        Patch scores of all images.
    limits : tuple of float
        ``(low, high)`` of the colours.

    Returns
    -------
    float
        The highest of all, but at least `low` plus 8 times the span of the limits: where there are
        only good parts, the worst of them is not drawn like a defect.
    """
    low, high = limits
    peak = max((float(np.max(grid)) for grid in grids), default=high)
    return max(peak, low + _LEAST_DEPTH * (high - low))


def map_picture(
    grid: FloatArray, size: tuple[int, int], limits: tuple[float, float], deepest: float
) -> str:
    """The heat map of an image as a small PNG file, clear up to the lower limit of the colours.

    Parameters
    ----------
    grid : ndarray of shape (grid_h, grid_w)
        Patch scores; higher is more anomalous.
    size : tuple of int
        ``(height, width)`` of the image.
    limits : tuple of float
        ``(low, high)`` of the colours.
    deepest : float
        From :func:`deepest_score`.

    Returns
    -------
    str
        Data URI. The picture has the proportions of the image, and is to be stretched over it; its
        palette holds the colours and how much each covers. Beyond the limits, where scores may be
        many times higher, shades deepen with the logarithm.
    """
    scale = min(1.0, _MAP_SIDE / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    heat_map = upsample_map(_pooled(grid, height, width), (height, width), _SIGMA * scale)
    low, high = limits
    span = max(high - low, np.finfo(np.float64).tiny)
    heat = (heat_map.astype(np.float64) - low) / span
    depth = np.log(np.maximum(heat, 1)) / np.log(max((deepest - low) / span, _LEAST_DEPTH))
    level = np.clip(heat, 0, 1) * (_LEVELS - 1) + np.clip(depth, 0, 1) * _BEYOND
    picture = Image.fromarray(np.round(level).astype(np.uint8))
    colours = colours_beyond()
    picture.putpalette(colours[:, :3].tobytes())
    file = io.BytesIO()
    picture.save(file, "PNG", transparency=colours[:, 3].tobytes(), optimize=True)
    return _uri("png", file)


def outline_path(mask: NDArray[np.bool_]) -> str:
    """The outline of a mask, as the `d` of an SVG path in a box of 1000 times 1000.

    Parameters
    ----------
    mask : ndarray of shape (height, width), bool
        True defect; may be empty.

    Returns
    -------
    str
        Closed lines around the pixels, of a mask that was made smaller so that no defect is lost;
        empty for an empty mask.
    """
    scale = min(1.0, _OUTLINE_SIDE / max(mask.shape))
    height, width = (max(1, round(side * scale)) for side in mask.shape)
    small = np.pad(_pooled(mask.astype(np.uint8), height, width) > 0, 1)
    pieces = []
    for line in _rims(small):
        points = [f"{1000 * x / width:.0f} {1000 * y / height:.0f}" for x, y in line]
        pieces.append("M" + "L".join(points) + "Z")
    return "".join(pieces)


def crop(pixels: Pixels, box: tuple[int, int, int, int], margin: float = 1.0) -> str:
    """A patch of an image with what is around it, as a data URI.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8
        As of :func:`photograph`.
    box : tuple of int
        ``(x, y, width, height)`` of the patch.
    margin : float, default=1.0
        What is around it on each side, in sides of the patch.

    Returns
    -------
    str
        A square, as far as the image reaches.
    """
    x, y, width, height = box
    side = max(width, height, 8)
    half = side * (0.5 + margin)
    middle_x, middle_y = x + width / 2, y + height / 2
    rows = slice(max(0, round(middle_y - half)), max(1, round(middle_y + half)))
    columns = slice(max(0, round(middle_x - half)), max(1, round(middle_x + half)))
    part = np.ascontiguousarray(pixels[rows, columns])
    return jpeg(part, 192, 90)


def _uri(kind, file):
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode()}"


def _pooled(grid, height, width):
    """A grid with at most so many cells: of those that fall together the highest counts."""
    for axis, cells in ((0, height), (1, width)):
        n = grid.shape[axis]
        if n > cells:
            grid = np.maximum.reduceat(grid, np.arange(cells) * n // cells, axis=axis)
    return grid


def _rims(mask):
    """Closed lines around the True pixels of a mask that has a rim of False; points (x, y).

    Through the middles of the sides of pixels: corners are cut, and slants are straight.
    """
    # Each side of a pixel that borders on False, from corner to corner; the pixel is on its right.
    sides: dict[tuple[int, int], list[tuple[int, int]]] = {}
    ys, xs = np.nonzero(mask)
    for y, x in zip(ys.tolist(), xs.tolist(), strict=True):
        left, top = x - 1, y - 1  # without the rim
        if not mask[y - 1, x]:
            sides.setdefault((left, top), []).append((left + 1, top))
        if not mask[y, x + 1]:
            sides.setdefault((left + 1, top), []).append((left + 1, top + 1))
        if not mask[y + 1, x]:
            sides.setdefault((left + 1, top + 1), []).append((left, top + 1))
        if not mask[y, x - 1]:
            sides.setdefault((left, top + 1), []).append((left, top))
    while sides:
        start = at = next(iter(sides))
        line: list[tuple[float, float]] = []
        while True:
            following = sides[at].pop()
            if not sides[at]:
                del sides[at]
            line.append(((at[0] + following[0]) / 2, (at[1] + following[1]) / 2))
            at = following
            if at == start:
                break
        yield _without_straight(line)


def _without_straight(line):
    """A closed line without its points that lie on a straight line between their neighbours."""
    around = zip(line[-1:] + line[:-1], line, line[1:] + line[:1], strict=True)
    return [
        (x, y)
        for (x0, y0), (x, y), (x1, y1) in around
        if (x - x0) * (y1 - y) != (y - y0) * (x1 - x)
    ]
