"""Read anything that is an image into an RGB array.

Every image of the package, whatever it arrived as, passes through :func:`load_image`, so the rules
below hold everywhere:

* The result is ``(H, W, 3)``, ``uint8``, or ``float32`` in [0, 1] when the input has more than 8
  bits per channel.
* EXIF orientation is applied, once.
* Transparent pixels are composited on white (:data:`BACKGROUND`).
* Colour profiles are not applied: RGB values are taken as they are stored.
* Black and white are those of the type, or those of ``value_range``.
* Every failure is an :class:`ImageReadError` that says which image, what is wrong and what to do.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._images.arrays import (
    Meaning,
    array_to_rgb,
    check_layout,
    pil_to_rgb,
)
from skanomaly._images.deep_colour import has_low_bytes, keep_low_bytes, loses_bits
from skanomaly._images.files import (
    BYTES,
    PATH,
    EncodedImage,
    encoded_bytes,
    opened,
    read_file,
    where_of,
)
from skanomaly._images.headers import check_end, check_header, upright_size
from skanomaly._images.values import Span
from skanomaly._parameters import check_value_range
from skanomaly._typing import ValueRange


def read_item(item: Any, index: int | None = None) -> Any:
    """Read the file of a path, once, so that its bytes can be hashed and then decoded.

    Parameters
    ----------
    item : image item
        See :func:`load_image`.
    index : int, optional
        The item's index in the input, for error messages.

    Returns
    -------
    item : EncodedImage or object
        The file's bytes and path for a str or ``os.PathLike``; anything else unchanged.

    Raises
    ------
    ImageReadError
        If the file cannot be read or is empty.
    """
    return read_file(item, where_of(item, index)) if isinstance(item, PATH) else item


def content_digest(
    item: Any, index: int | None = None, value_range: ValueRange | None = None
) -> str:
    """Hash the content of an image, wherever it is stored.

    Parameters
    ----------
    item : image item
        See :func:`load_image`.
    index : int, optional
        The item's index in the input, for error messages.
    value_range : float, (float, float) or None, default=None
        See :func:`load_image`; for PIL images, which are decoded.

    Returns
    -------
    digest : str
        SHA-256, 64 hexadecimal digits. Paths, bytes and ``EncodedImage``: of the file's bytes, so
        that equal files under two paths have one digest. Arrays: of shape, dtype and values. PIL
        images: of the array that :func:`load_image` makes of them, hence of everything that
        changes it (mode, size, pixels, palette, transparency, orientation) and of nothing else.

    Raises
    ------
    ImageReadError
        If the item cannot be read, or is not an image array.
    """
    item = read_item(item, index)
    if isinstance(item, (EncodedImage, *BYTES)):
        return hashlib.sha256(encoded_bytes(item)).hexdigest()
    if isinstance(item, np.ndarray):
        array = item
        check_layout(array, where_of(item, index))
    else:
        array = load_image(item, index, value_range)
    digest = hashlib.sha256(f"{type(item).__name__}{array.shape}{array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load_image(
    item: Any, index: int | None = None, value_range: ValueRange | None = None
) -> NDArray[Any]:
    """Decode one image into an RGB array.

    Parameters
    ----------
    item : str, os.PathLike, bytes, bytearray, memoryview, EncodedImage, PIL.Image.Image or ndarray
        A path, the bytes of an image file, a PIL image, or an array of shape (H, W), (H, W, 1),
        (H, W, 3) or (H, W, 4) and dtype uint8, uint16 (0..65535), bool, or float in [0, 1]; with
        `value_range`, of any integer or float dtype.
    index : int, optional
        The item's index in the input, for error messages.
    value_range : float, (float, float) or None, default=None
        The number in the file, or array, that is white, black being 0; or the numbers of black and
        white. None: the whole range of the type.

    Returns
    -------
    image : ndarray of shape (H, W, 3), C-contiguous
        ``uint8``, or ``float32`` in [0, 1] with `value_range` and for inputs of more than 8 bits
        per channel: uint16 and float arrays, files of 16 bits, and PIL images of modes "I;16", "I"
        and "F". Always a new array: it never shares memory with `item`, which is not modified (a
        PIL image that is not loaded yet is loaded, as by any use of it).

    Raises
    ------
    ImageReadError
        If the item is missing, unreadable, damaged, not an image, of an unsupported shape or
        dtype, has values out of range, has more than one frame, or is a file of more than
        ``PIL.Image.MAX_IMAGE_PIXELS`` pixels (Pillow's guard against decompression bombs; raise
        that limit, or set it to None, to read bigger files).
    ValueError
        If `value_range` is none.

    Notes
    -----
    EXIF orientation is applied to files and PIL images; EXIF data that cannot be parsed count as
    upright. Alpha is composited on white.

    Pixels of modes "I" and "F" must lie within 0..65535 and [0, 1], or within `value_range`, and
    signed integers need one: nothing else says what is white. TIFF files of 12 bits have their
    white at 4095; PGM and JPEG 2000 files say themselves how many bits they use, and Pillow
    stretches them to 16.

    `value_range` is in the numbers of the file, for grey and each colour; alpha keeps its own
    scale, and fully transparent pixels may hold anything. Of a TIFF whose white is 0, the range is
    that of the file too, turned around. Bits are the numbers 0 and 255, and so are greys of less
    than 8 bits stretched to them; palettes, CMYK, YCbCr, HSV and LAB are the 8-bit colours that
    they stand for. A white beyond the type, such as 4095 for 8 bits, is an error.

    Pillow has no mode for colour at 16 bits per channel. RGB and RGBA in PNG and TIFF files are
    decoded twice, for the high and the low bytes. Of the rest (PIL images that were opened
    elsewhere, grey with alpha, premultiplied alpha, CMYK, TIFF with compressed planes, JPEG 2000,
    AVIF, PPM) come the high bytes: ``uint8``, right to one grey level.

    A truncated file is an error even where ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` is set, as some
    libraries do: the made-up grey part of such an image would be scored as if it were the part.
    That setting reads False, to every thread, while images are being decoded here.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._images import load_image
    >>> load_image(np.array([[0, 255]], dtype=np.uint8)).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    >>> load_image(np.array([[0, 4095]], dtype=np.uint16), value_range=4095)[0, :, 0].tolist()
    [0.0, 1.0]
    """
    return load_with_span(item, index, value_range)[0]


def load_with_span(
    item: Any, index: int | None = None, value_range: ValueRange | None = None
) -> tuple[NDArray[Any], Span | None]:
    """Decode one image, and say which numbers it holds.

    Parameters
    ----------
    item, index, value_range
        See :func:`load_image`.

    Returns
    -------
    image : ndarray of shape (H, W, 3), C-contiguous
        As from :func:`load_image`.
    span : Span or None
        ``low``, ``high`` and its range in force, ``black`` and ``white``, in the numbers of the
        file; None for images of 8 bits. See :func:`skanomaly._images.values.small_range_message`.

    Raises
    ------
    ImageReadError, ValueError
        As from :func:`load_image`.
    """
    return _load(item, index, Meaning(given=check_value_range(value_range)))


def viewable_image(item: Any, index: int | None = None) -> NDArray[Any]:
    """Decode one image for the eye.

    Parameters
    ----------
    item, index
        See :func:`load_image`.

    Returns
    -------
    image : ndarray of shape (H, W, 3), uint8 or float32 in [0, 1]
        As from :func:`load_image`. But what has more than 8 bits, and no range, another one, or
        uses a quarter of it at most, is stretched from its own least to its own greatest value:
        numbers of 12 bits in a file of 16 are not nearly black, and temperatures can be seen.

    Raises
    ------
    ImageReadError
        When it cannot be read.
    """
    return _load(item, index, Meaning(stretch=True))[0]


def _load(item, index, meaning):
    where = where_of(item, index)
    if isinstance(item, np.ndarray):
        return array_to_rgb(item, where, meaning)
    item = read_item(item, index)
    with ExitStack() as files:
        im = files.enter_context(opened(item, where))
        check_header(im, where)
        low = None
        if im is not item:
            check_end(im, encoded_bytes(item), where)
            if loses_bits(im) and has_low_bytes(im):
                low = files.enter_context(opened(item, where))
                keep_low_bytes(low)
        return pil_to_rgb(im, where, meaning, low)


def image_size(item: Any, index: int | None = None) -> tuple[int, int]:
    """Return the height and width that :func:`load_image` would give, without decoding pixels.

    Parameters
    ----------
    item : image item
        See :func:`load_image`.
    index : int, optional
        The item's index in the input, for error messages.

    Returns
    -------
    height, width : int
        In pixels, after EXIF orientation. Only the header of a file is read, except for a PNG
        with metadata behind its pixels, which has to be decoded.

    Raises
    ------
    ImageReadError
        If the header cannot be read, or its image would be rejected for what the header says.
    """
    where = where_of(item, index)
    if isinstance(item, np.ndarray):
        check_layout(item, where)
        return item.shape[0], item.shape[1]
    with opened(item, where) as im:
        check_header(im, where)
        width, height = upright_size(im, opened_here=im is not item)
        return height, width
