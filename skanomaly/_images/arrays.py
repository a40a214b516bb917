"""Turn image arrays, and the pixels of PIL images of every mode, into RGB arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image, ImageCms

from skanomaly._images.files import ACCEPTED, ImageReadError, orientation

# What shows through transparent pixels, in [0, 1]. White is what image viewers and paper show.
BACKGROUND = 1.0

DTYPES = "uint8, uint16, bool, or float in [0, 1]"

# EXIF orientation -> the array operation that makes the image upright.
_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def pil_to_rgb(im: Image.Image, where: str) -> NDArray[Any]:
    """Turn a PIL image, whose header was checked, into an upright RGB array.

    Parameters
    ----------
    im : PIL.Image.Image
    where : str
        The start of error messages, as from :func:`skanomaly._images.files.where_of`.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8 or float32 in [0, 1]
        New, C-contiguous.

    Raises
    ------
    ImageReadError
        When the pixels are out of range.
    """
    key = _transparent_key(im)
    im.load()
    rgb = array_to_rgb(_pixels(im, key, where), where)
    return np.ascontiguousarray(_UPRIGHT[orientation(im.getexif)](rgb))


def array_to_rgb(array: ArrayLike, where: str) -> NDArray[Any]:
    """Turn any accepted image array into an RGB array.

    Parameters
    ----------
    array : array-like of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        uint8, uint16, bool, or float in [0, 1].
    where : str
        The start of error messages.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8 or float32 in [0, 1]
        New, C-contiguous.

    Raises
    ------
    ImageReadError
        For another shape or dtype, and values out of range.
    """
    pixels = np.asarray(array)
    check_layout(pixels, where)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    pixels = _scale(pixels, where)
    if pixels.shape[2] == 4:
        pixels = _composite(pixels)
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")


def check_layout(array: NDArray[Any], where: str) -> None:
    """Check the dtype and shape of an image array.

    Parameters
    ----------
    array : ndarray
    where : str
        The start of error messages.

    Raises
    ------
    ImageReadError
        For a dtype or a shape that is not accepted.
    """
    dtype, shape = array.dtype, array.shape
    if dtype.kind not in "bf" and not (dtype.kind == "u" and dtype.itemsize <= 2):
        raise ImageReadError(f"{where}: dtype {dtype} is not supported; accepted: {DTYPES}.")
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)):
        if 0 in shape:
            raise ImageReadError(f"{where}: it has no pixels.")
        return
    if len(shape) != 3:
        raise ImageReadError(f"{where}: an image has 2 or 3 dimensions; accepted are {ACCEPTED}.")
    hint = "accepted are 1 (grey), 3 (RGB) and 4 (RGBA) channels, in the last dimension."
    if shape[0] in (1, 3, 4):
        hint = "the channels come last: try np.moveaxis(x, 0, -1)."
    raise ImageReadError(f"{where}: it has {shape[2]} channels; {hint}")


def _scale(array, where):
    """Bring an image array to uint8, or float32 in [0, 1]."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array * np.uint8(255)
    if array.dtype.kind == "u":
        return np.divide(array, 65535, dtype=np.float32)
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageReadError(f"{where}: it contains NaN or infinity; replace these values.")
    if low < 0 or high > 1:
        raise ImageReadError(
            f"{where}: its float values span {low:.6g}..{high:.6g}, but must lie in [0, 1]; divide "
            "values of 0..255 by 255, or np.clip small overshoots."
        )
    return array.astype(np.float32)


def _composite(rgba):
    """Lay (H, W, 4) over the background."""
    colour, alpha = rgba[:, :, :3], rgba[:, :, 3:]
    if rgba.dtype == np.uint8:
        # Integers, rounded to nearest: 255 * 255 + 127 fits in 16 bits.
        colour, alpha = colour.astype(np.uint16), alpha.astype(np.uint16)
        back = np.uint16(round(255 * BACKGROUND))
        return ((colour * alpha + back * (255 - alpha) + 127) // 255).astype(np.uint8)
    back = np.float32(BACKGROUND)
    return colour * alpha + back * (1 - alpha)  # in this form, exact where alpha is 0 or 1


def _transparent_key(im):
    """The pixel value that stands for "transparent", in the units of the decoded pixels.

    To be called before ``im.load()``. Pillow stretches 2- and 4-bit greys to 8 bits and cuts
    16-bit colours down to 8, but leaves the key of such PNG files as it is in the file.
    """
    key = im.info.get("transparency")
    raw = im.tile[0][3] if im.format == "PNG" and im.tile else None
    if raw in ("L;2", "L;4") and isinstance(key, int):
        return key * (85 if raw == "L;2" else 17)
    if raw == "RGB;16B" and isinstance(key, tuple):
        return tuple(value >> 8 for value in key)
    return key


def _pixels(im, key, where):
    """The pixels of a loaded PIL image as an array for :func:`array_to_rgb`."""
    if im.mode == "F":
        return np.asarray(im)
    if im.mode == "I" or im.mode.startswith("I;16"):  # convert("RGB") would clip these at 255
        return _with_key(_wide_grey(im, where), key)
    if im.mode in ("1", "L", "RGB"):
        return _with_key(np.asarray(im.convert("L") if im.mode == "1" else im), key)
    if im.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.profileToProfile(im, lab, srgb, outputMode="RGB"))
    if im.mode == "P":
        im = im.copy()  # convert() writes the transparency into the palette
        if key is None:  # and fails on an entry that is None
            im.info.pop("transparency", None)
    elif im.mode == "La":  # premultiplied; has no direct conversion
        im = im.convert("LA")
    return np.asarray(im.convert("RGBA" if im.has_transparency_data else "RGB"))


def _wide_grey(im, where):
    values = np.asarray(im)
    if values.min() < 0 or values.max() > 65535:
        raise ImageReadError(
            f"{where}: its pixels (mode {im.mode}) span {values.min()}..{values.max()}, beyond the "
            "16-bit range 0..65535; scale them, or pass a float array in [0, 1]."
        )
    tags = getattr(im, "tag_v2", {})
    # Two things that Pillow leaves to its callers for TIFF images of this depth.
    if tags.get(ExifTags.Base.BitsPerSample) == (12,):
        values = np.rint(values * (65535 / 4095))
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:  # WhiteIsZero
        values = 65535 - values.astype(np.int64)
    return values.astype(np.uint16)


def _with_key(pixels, key):
    """Pixels (H, W) or (H, W, 3) -> with an alpha channel that is 0 where they equal `key`."""
    if not isinstance(key, int if pixels.ndim == 2 else tuple):
        return pixels  # none, or left over from another mode by a conversion
    channels = np.atleast_3d(pixels)
    opaque = (channels != key).any(axis=2, keepdims=True)
    alpha = opaque * pixels.dtype.type(np.iinfo(pixels.dtype).max)
    rgb = np.broadcast_to(channels, (*pixels.shape[:2], 3))
    return np.concatenate([rgb, alpha], axis=2)
