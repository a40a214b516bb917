"""Mask files of any kind, to the one level that each pixel has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from skanomaly._images import load_image
from skanomaly._masks import two_level


def read_mask(path: Path, class_ids: bool = False) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Read a mask file.

    Parameters
    ----------
    path : Path
        A grey, coloured, palette or 1-bit image. Fully transparent pixels are unmarked.
    class_ids : bool, default=False
        Whether its levels are ids of defects, which all count as defective.

    Returns
    -------
    mask : ndarray of shape (height, width), bool
        True where the level is not 0, which is black.
    levels : ndarray of shape (height, width)
        Grey levels, or colours as ``0xRRGGBB``, or of 16 bits ``0xRRRRGGGGBBBB``.

    Raises
    ------
    ValueError
        When there are more than two levels, 0 among them, unless they are ids of defects; when ids
        of defects went through JPEG.
    ImageReadError
        The file cannot be read.
    """
    levels, shown = _levels(path)
    if not class_ids:
        return two_level(levels, f"mask {path}", shown), levels
    with Image.open(path) as im:
        if im.format == "JPEG":
            raise ValueError(
                f"mask {path} is a JPEG, whose compression changes the ids of defects in it; save "
                "it as PNG"
            )
    return levels != 0, levels


def _levels(path: Path) -> tuple[NDArray[Any], Callable[[Any], str]]:
    """The level of each pixel, and how a level is shown."""
    pixels = load_image(path)
    with Image.open(path) as file:
        if file.has_transparency_data:
            # load_image lays transparent pixels over white, which here would mark them.
            key, im = file.info.get("transparency"), ImageOps.exif_transpose(file)
            if im.mode.startswith("I"):  # 16-bit grey, which has no conversion to RGBA
                values = np.asarray(im)
                return np.where(values == key, 0, values), str
            rgba = np.asarray(im.convert("RGBA"))
            opaque = two_level(rgba[..., 3], f"the transparency of mask {path}")
            pixels = rgba[..., :3] * opaque[..., None]
    red, green, blue = (pixels[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red, "{:.5g}".format
    bits = 8 if pixels.dtype == np.uint8 else 16
    white = 1 if bits == 8 else 65535  # colours of 16 bits are read as shares of white
    red, green, blue = (np.rint(colour * white).astype(np.uint64) for colour in (red, green, blue))
    return red << 2 * bits | green << bits | blue, f"#{{:0{3 * bits // 4}x}}".format
