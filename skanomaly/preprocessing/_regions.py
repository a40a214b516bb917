"""A region of interest in each of the forms in which a person may give it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skanomaly._parameters import is_finite
from skanomaly._typing import FloatArray
from skanomaly.core.region_overlap import Region
from skanomaly.datasets._mask_files import read_mask

_FORMS = (
    "the path of a mask (an image file) or of a .json file of polygons, a 2-D array of bool, or "
    "polygons: lists of at least three (x, y)"
)


def read_region(region: Any, size: Sequence[float] | None = None) -> Region:
    """The region that a person means.

    Parameters
    ----------
    region : str, os.PathLike, ndarray or sequence
        See :class:`skanomaly.RegionOfInterest`.
    size : sequence of two numbers or None, default=None
        ``(width, height)`` of the image in which polygons have their coordinates; None for shares.

    Returns
    -------
    Region

    Raises
    ------
    ValueError
        For anything else, a region that is empty, or `size` where there are no polygons.
    """
    source = "region"
    if isinstance(region, (str, os.PathLike)):
        path = Path(region)
        if path.suffix.lower() != ".json":
            return _of_mask(read_mask(path)[0], f"mask {path}", size)
        source = str(path)
        region, size = _of_file(path, size)
    if isinstance(region, np.ndarray) and region.dtype == bool and region.ndim == 2:
        return _of_mask(region, "region", size)
    if isinstance(region, np.ndarray) and region.ndim == 2 and region.shape[1] != 2:
        raise ValueError(
            f"region is an array of {region.dtype}: a mask must be of bool, such as region > 0"
        )
    return Region(polygons=_polygons(region, _size(size, source), source))


def _of_mask(mask, name, size):
    if size is not None:
        raise ValueError(f"size={size!r} is for polygons; {name} is a mask, which has its own size")
    if not mask.any():
        raise ValueError(f"{name} is empty: it must mark at least one pixel to be looked at")
    return Region.of_mask(mask)


def _of_file(path, size):
    """Polygons and the size in a JSON file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:  # also of what is no UTF-8
        raise ValueError(f"{path} is no JSON: {exc}") from exc
    if isinstance(found, dict):
        more = sorted(set(found) - {"polygons", "size"})
        if more or "polygons" not in found:
            raise ValueError(
                f"{path} must have the keys 'polygons' and, for pixels, 'size', got {sorted(found)}"
            )
        if size is not None and found.get("size") is not None:
            raise ValueError(f"size={size!r}, but {path} has a size too: leave one out")
        size = size if found.get("size") is None else found["size"]
        found = found["polygons"]
    return found, size


def _size(size, source):
    if size is None:
        return None
    pair = list(size) if isinstance(size, Sequence) and not isinstance(size, str) else []
    if len(pair) != 2 or not all(is_finite(side) and side > 0 for side in pair):
        raise ValueError(f"{source}: size={size!r} must be (width, height) in pixels")
    return pair


def _polygons(region: Any, size: Any, source: str) -> tuple[FloatArray, ...]:
    """Arrays of vertices as shares of width and height."""
    try:
        region = [region] if np.ndim(region[0][0]) == 0 else list(region)
        arrays = [np.asarray(polygon, dtype=np.float64) for polygon in region]
    except (TypeError, ValueError, LookupError):
        raise ValueError(f"{source} must be {_FORMS}; got {_short(region)}") from None
    for number, vertices in enumerate(arrays):
        name = f"{source}: polygon {number}"
        if vertices.ndim != 2 or vertices.shape[1] != 2 or len(vertices) < 3:
            raise ValueError(
                f"{name} must be a list of at least three (x, y), got an array of shape "
                f"{vertices.shape}"
            )
        if size is not None:
            vertices /= size
        if not (np.isfinite(vertices).all() and 0 <= vertices.min() <= vertices.max() <= 1):
            raise ValueError(
                f"{name} has vertices outside of the image. Coordinates are shares of width and "
                "height, from 0 to 1; for pixels, give size=(width, height) of that image"
                if size is None
                else f"{name} has vertices outside of an image of the size {tuple(size)}"
            )
        x, y = vertices.T
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            raise ValueError(f"{name} is empty: its vertices lie on one line")
    return tuple(arrays)


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
