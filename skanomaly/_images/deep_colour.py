"""Colour of 16 bits per channel, of which Pillow has no mode: it keeps the high bytes only."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Of the bytes of a number Pillow takes the higher, as its name for the order in the file says (N:
# that of this machine). Under the other order it takes the lower.
_OTHER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_PLANAR = 284, 2  # tag of TIFF, and its value for one plane a channel


def raw_mode(im: Image.Image) -> str:
    """How the pixels of a picture that is not decoded yet lie in its file, in Pillow's terms.

    Parameters
    ----------
    im : PIL.Image.Image

    Returns
    -------
    str
        Such as ``"RGB;16B"``; empty where it is not known, and once the picture is decoded.
    """
    tiles: Any = getattr(im, "tile", None)
    arguments = tiles[0][3] if tiles else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def loses_bits(im: Image.Image) -> bool:
    """Whether Pillow will cut the channels of a picture from 16 bits to 8.

    Parameters
    ----------
    im : PIL.Image.Image
        Not decoded yet.

    Returns
    -------
    bool
        Of PNG and TIFF files; others, such as JPEG 2000, do not say it.
    """
    return im.mode[0] != "I" and raw_mode(im)[-4:-1] == ";16" and raw_mode(im)[-1] in _OTHER


def has_low_bytes(im: Image.Image) -> bool:
    """Whether :func:`keep_low_bytes` works for such a picture.

    Parameters
    ----------
    im : PIL.Image.Image
        Not decoded yet, and one for which :func:`loses_bits`.

    Returns
    -------
    bool
        Not for grey with alpha, premultiplied alpha, CMYK, and channels in planes.
    """
    tag, planes = _PLANAR
    contiguous = getattr(im, "tag_v2", {}).get(tag, 1) != planes
    return contiguous and raw_mode(im)[:-4] in ("RGB", "RGBA", "RGBX")


def keep_low_bytes(im: Image.Image) -> None:
    """Make Pillow decode the low bytes of a picture in place of the high ones.

    Parameters
    ----------
    im : PIL.Image.Image
        Not decoded yet, and one for which :func:`has_low_bytes`.
    """
    picture: Any = im
    picture.tile = [_with_other_order(tile) for tile in picture.tile]


def _with_other_order(tile):
    arguments = tile[3]
    raw = arguments if isinstance(arguments, str) else arguments[0]
    other = raw[:-1] + _OTHER[raw[-1]]
    new = other if isinstance(arguments, str) else (other, *arguments[1:])
    return tile._replace(args=new) if hasattr(tile, "_replace") else (*tile[:3], new)


def join_bytes(high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Numbers of their bytes.

    Parameters
    ----------
    high, low : ndarray of shape (H, W, C), uint8

    Returns
    -------
    ndarray of shape (H, W, C), uint16
    """
    joined = high.astype(np.uint16)
    joined <<= 8
    joined |= low
    return joined
