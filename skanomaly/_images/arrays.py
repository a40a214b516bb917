"""Turn image arrays, and the pixels of PIL images of every mode, into RGB arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image, ImageCms

from skanomaly._images.deep_colour import join_bytes, loses_bits, raw_mode
from skanomaly._images.files import ACCEPTED, ImageReadError
from skanomaly._images.headers import orientation
from skanomaly._images.values import Span, to_unit

# What shows through transparent pixels, in [0, 1]. White is what image viewers and paper show.
BACKGROUND = 1.0

DTYPES = "uint8, uint16, bool, or float in [0, 1]"
# Formats whose greys of mode "I" are of 16 bits.
_SIXTEEN_BITS = ("PNG", "PPM")
_WHITE = {"u1": 255, "u2": 65535}

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


class Meaning(NamedTuple):
    """How the numbers of an image are to be read."""

    given: tuple[float, float] | None = None  # black and white, as a person gave them
    white: float | None = None  # where it is not that of the type
    inverted: bool = False
    stretch: bool = False  # for the eye


def pil_to_rgb(
    im: Image.Image, where: str, meaning: Meaning, low: Image.Image | None = None
) -> tuple[NDArray[Any], Span | None]:
    """Turn a PIL image, whose header was checked, into an upright RGB array.

    Parameters
    ----------
    im : PIL.Image.Image
    where : str
        The start of error messages, as from :func:`skanomaly._images.files.where_of`.
    meaning : Meaning
        What a person said of the numbers.
    low : PIL.Image.Image, optional
        The same picture, of which Pillow is to decode the low bytes.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8 or float32 in [0, 1]
        New, C-contiguous.
    span : Span or None
        The numbers of an image of more than 8 bits.

    Raises
    ------
    ImageReadError
        When the pixels are out of range, or Pillow cannot give them as they are in the file.
    """
    key = _transparent_key(im, whole=low is not None)
    if low is None and meaning.given is not None and loses_bits(im):
        raise ImageReadError(
            f"{where}: Pillow reads its 16 bits as 8, to which value_range cannot be applied; pass "
            "a path or bytes of RGB or RGBA in one plane, or an array."
        )
    im.load()
    if low is None:
        pixels, meaning = _pixels(im, key, meaning)
    else:
        low.load()
        pixels = _with_key(join_bytes(np.asarray(im), np.asarray(low)), key)
    rgb, span = array_to_rgb(pixels, where, meaning)
    return np.ascontiguousarray(_UPRIGHT[orientation(im.getexif)](rgb)), span


def array_to_rgb(
    array: ArrayLike, where: str, meaning: Meaning
) -> tuple[NDArray[Any], Span | None]:
    """Turn any accepted image array into an RGB array.

    Parameters
    ----------
    array : array-like of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)
        uint8, uint16, bool, or float in [0, 1]; any numbers where black and white are given.
    where : str
        The start of error messages.
    meaning : Meaning
        What is known of the numbers, besides their type.

    Returns
    -------
    rgb : ndarray of shape (H, W, 3), uint8 or float32 in [0, 1]
        New, C-contiguous.
    span : Span or None
        The numbers of an image of more than 8 bits.

    Raises
    ------
    ImageReadError
        For another shape or dtype, and values out of range.
    """
    check_layout(np.asanyarray(array), where)
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    span = None
    if pixels.dtype != np.uint8 or meaning.given is not None:
        eight_bits = pixels.dtype == np.uint8
        pixels, span = _to_unit(pixels, where, meaning)
        span = None if eight_bits else span
    if pixels.shape[2] == 4:
        pixels = _composite(pixels)
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C"), span


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
        For a dtype or a shape that is not accepted, and where pixels are masked.
    """
    dtype, shape = array.dtype, array.shape
    if np.ma.is_masked(array):  # NumPy would give the numbers that are hidden below the mask
        raise ImageReadError(
            f"{where}: it is a masked array, and what stands below its mask is no picture; fill "
            "it, such as by x.filled(0), and leave patches out with RegionOfInterest."
        )
    if dtype.kind not in "bfiu":
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


def _to_unit(pixels, where, meaning):
    """Bring an array (H, W, C) to float32 in [0, 1]: colour by its range, alpha by its type."""
    given, white, inverted, stretch = meaning
    if white is None:
        white = 1 if pixels.dtype.kind == "f" else _WHITE.get(pixels.dtype.str[1:])
    options = {"given": given, "white": white, "inverted": inverted, "stretch": stretch}
    if pixels.shape[2] != 4:
        return to_unit(pixels, pixels, where, **options)
    if white is None:
        raise ImageReadError(
            f"{where}: alpha of dtype {pixels.dtype} has no known scale; pass uint8, uint16 or "
            "float arrays, or the colour alone."
        )
    alpha, _ = to_unit(pixels[:, :, 3:], pixels[:, :, 3:], where, given=None, white=white)
    colour = pixels[:, :, :3]
    # What is fully transparent may hold anything, and counts for nothing.
    unit, span = to_unit(colour, colour[alpha[:, :, 0] > 0], where, **options)
    return np.concatenate([np.where(alpha > 0, unit, 0), alpha], axis=2), span


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


def _transparent_key(im, whole):
    """The pixel value that stands for "transparent", in the units of the decoded pixels.

    To be called before ``im.load()``. Pillow stretches 2- and 4-bit greys to 8 bits and cuts
    16-bit colours down to 8, unless they are taken whole, but leaves the key of such PNG files as
    it is in the file.
    """
    key = im.info.get("transparency")
    raw = raw_mode(im) if im.format == "PNG" else ""
    if raw in ("L;2", "L;4") and isinstance(key, int):
        return key * (85 if raw == "L;2" else 17)
    if raw == "RGB;16B" and isinstance(key, tuple) and not whole:
        return tuple(value >> 8 for value in key)
    return key


def _pixels(im, key, meaning):
    """The pixels of a loaded PIL image as an array for :func:`array_to_rgb`, and their meaning."""
    tags = getattr(im, "tag_v2", {})
    # Pillow inverts greys of up to 8 bits itself, and leaves the others to its callers.
    inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0  # WhiteIsZero
    if im.mode == "F":
        return np.asarray(im), meaning._replace(inverted=inverted)
    if im.mode == "I" or im.mode.startswith("I;16"):  # convert("RGB") would clip these at 255
        white = 4095 if tags.get(ExifTags.Base.BitsPerSample) == (12,) else 65535
        meaning = meaning._replace(inverted=inverted, white=white)
        values, white = _in_type_of_file(np.asarray(im), tags, white)
        if im.mode == "I" and im.format in _SIXTEEN_BITS:  # of Pillow before 11
            values = values.astype(np.uint16)
        return _with_key(values, key), meaning._replace(white=white)
    if im.mode in ("1", "L", "RGB"):
        values = np.asarray(im.convert("L") if im.mode == "1" else im)
        if im.mode == "L":
            values, _ = _in_type_of_file(values, tags, 255)
            if inverted and meaning.given is not None:  # as they are in the file
                values, meaning = 255 - values, meaning._replace(inverted=True)
        return _with_key(values, key), meaning
    if im.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return np.asarray(ImageCms.profileToProfile(im, lab, srgb, outputMode="RGB")), meaning
    if im.mode == "P":
        im = im.copy()  # convert() writes the transparency into the palette
        if key is None:  # and fails on an entry that is None
            im.info.pop("transparency", None)
    elif im.mode == "La":  # premultiplied; has no direct conversion
        im = im.convert("LA")
    return np.asarray(im.convert("RGBA" if im.has_transparency_data else "RGB")), meaning


def _in_type_of_file(values, tags, white):
    """Greys in the type that a TIFF file says, and white, if that says it.

    Pillow reads signed bytes as unsigned ones, and 32 unsigned bits as signed ones.
    """
    bits, sample = tags.get(ExifTags.Base.BitsPerSample), tags.get(ExifTags.Base.SampleFormat)
    if sample == (2,) and bits == (8,):
        return values.view(np.int8), None
    if sample == (2,) and bits == (16,):
        return values.astype(np.int16), None
    if sample in (None, (1,)) and bits == (32,):
        return values.view(np.uint32), white
    return values, white


def _with_key(pixels, key):
    """Pixels (H, W) or (H, W, 3) -> with an alpha channel that is 0 where they equal `key`."""
    if not isinstance(key, int if pixels.ndim == 2 else tuple):
        return pixels  # none, or left over from another mode by a conversion
    channels = np.atleast_3d(pixels)
    opaque = (channels != key).any(axis=2, keepdims=True)
    alpha = opaque * pixels.dtype.type(min(np.iinfo(pixels.dtype).max, 65535))
    rgb = np.broadcast_to(channels, (*pixels.shape[:2], 3))
    return np.concatenate([rgb, alpha], axis=2)
