"""Read anything that is an image into an RGB array.

Every image of the package, whatever it arrived as, passes through :func:`load_image`, so the rules
below hold everywhere:

* The result is ``(H, W, 3)``, ``uint8``, or ``float32`` in [0, 1] when the input has more than 8
  bits per channel.
* EXIF orientation is applied, once.
* Transparent pixels are composited on white (:data:`BACKGROUND`).
* Colour profiles are not applied: RGB values are taken as they are stored.
* Every failure is an :class:`ImageReadError` that says which image, what is wrong and what to do.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skanomaly._images.arrays import BACKGROUND, DTYPES, array_to_rgb, check_layout, pil_to_rgb
from skanomaly._images.files import (
    BYTES,
    PATH,
    EncodedImage,
    ImageReadError,
    check_header,
    encoded_bytes,
    opened,
    read_file,
    upright_size,
    where_of,
)
from skanomaly._typing import Images

__all__ = [
    "BACKGROUND",
    "EncodedImage",
    "ImageReadError",
    "check_images",
    "content_digest",
    "image_size",
    "load_image",
    "read_item",
]


def check_images(X: Images) -> list[Any]:
    """Validate a collection of images and return its items as a list.

    Only the container is checked: the items are checked when they are read.

    Parameters
    ----------
    X : list, tuple, 1-D ndarray of objects or strings, pandas Series, or uint8 ndarray of shape \
(n, H, W, C) with C in {1, 3, 4}
        The images. Items of the sequences may be anything that :func:`load_image` accepts.

    Returns
    -------
    items : list of length n
        The items. For a 4-D array they are views of it.

    Raises
    ------
    TypeError
        If `X` is not such a collection, e.g. a single path or PIL image, a DataFrame, a dict, a
        set or a generator.
    ValueError
        If `X` is an array of the wrong shape or dtype, or has no items.
    """
    if isinstance(X, np.ndarray):
        items = _items_of_array(X)
    elif isinstance(X, (list, tuple)) or _is_pandas(X, "Series"):
        items = list(X)
    elif isinstance(X, (*PATH, *BYTES, Image.Image, EncodedImage)):
        raise TypeError(
            f"Expected a collection of images, got a single {type(X).__name__}; wrap it in a "
            "list: [X]."
        )
    elif _is_pandas(X, "DataFrame"):
        raise TypeError(
            "Expected a collection of images, got a DataFrame; pass the column that holds the "
            "images, e.g. X['path']."
        )
    else:
        raise TypeError(
            f"Expected a list, tuple, 1-D array or pandas Series of images, or a uint8 array of "
            f"shape (n, H, W, C), got {type(X).__name__}; make it a list, e.g. list(X), with one "
            "image per item and in a fixed order."
        )
    if not items:
        raise ValueError("Found an input with 0 sample(s) while a minimum of 1 is required.")
    return items


def _is_pandas(X, name):
    # A pandas object can only exist if pandas was imported, so there is no need to import it.
    kind = getattr(sys.modules.get("pandas"), name, None)
    return kind is not None and isinstance(X, kind)


def _items_of_array(X):
    got = f"got an array of shape {X.shape} and dtype {X.dtype}"
    if X.dtype.kind in "OUT":
        if X.ndim != 1:
            raise ValueError(
                f"Expected a 1-D array of images, {got}; try list(X.ravel()) for paths, and a list "
                "of uint8 or float arrays for images."
            )
        return X.tolist()
    if X.ndim == 4:
        if X.dtype != np.uint8:
            raise ValueError(
                f"A 4-D array of images must be uint8, {got}; pass a list of arrays, list(X), for "
                f"other types ({DTYPES})."
            )
        if X.shape[-1] not in (1, 3, 4):
            hint = "1 (grey), 3 (RGB) or 4 (RGBA) channels are accepted."
            if X.shape[1] in (1, 3, 4):
                hint = "the channels come last: try np.moveaxis(X, 1, -1)."
            raise ValueError(f"Expected images of shape (n, H, W, C), {got}; {hint}")
        return list(X)
    if X.ndim == 3:
        raise ValueError(
            f"Expected a collection of images, {got}; wrap a single image in a list: [X], or "
            "split a stack of greyscale images into a list: list(X)."
        )
    raise ValueError(
        f"Expected images, not a table of numbers: {got}; pass a list of paths, PIL images or "
        "image arrays, or a uint8 array of shape (n, H, W, C)."
    )


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


def content_digest(item: Any, index: int | None = None) -> str:
    """Hash the content of an image, wherever it is stored.

    Parameters
    ----------
    item : image item
        See :func:`load_image`.
    index : int, optional
        The item's index in the input, for error messages.

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
        array = load_image(item, index)
    digest = hashlib.sha256(f"{type(item).__name__}{array.shape}{array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def load_image(item: Any, index: int | None = None) -> NDArray[Any]:
    """Decode one image into an RGB array.

    Parameters
    ----------
    item : str, os.PathLike, bytes, bytearray, memoryview, EncodedImage, PIL.Image.Image or ndarray
        A path, the bytes of an image file, a PIL image, or an array of shape (H, W), (H, W, 1),
        (H, W, 3) or (H, W, 4) and dtype uint8, uint16 (0..65535), bool, or float in [0, 1].
    index : int, optional
        The item's index in the input, for error messages.

    Returns
    -------
    image : ndarray of shape (H, W, 3), C-contiguous
        ``uint8``, or ``float32`` in [0, 1] for inputs of more than 8 bits per channel: uint16 and
        float arrays, 16-bit greyscale files and PIL images (modes "I;16", "I" and "F"). Always a
        new array: it never shares memory with `item`, which is not modified (a PIL image that is
        not loaded yet is loaded, as by any use of it).

    Raises
    ------
    ImageReadError
        If the item is missing, unreadable, damaged, not an image, of an unsupported shape or
        dtype, has values out of range, has more than one frame, or is a file of more than
        ``PIL.Image.MAX_IMAGE_PIXELS`` pixels (Pillow's guard against decompression bombs; raise
        that limit, or set it to None, to read bigger files).

    Notes
    -----
    EXIF orientation is applied to files and PIL images; EXIF data that cannot be parsed count as
    upright. Alpha is composited on white.

    Pillow has no mode for colour at 16 bits per channel and reads the high byte only: files of
    16-bit RGB, RGBA, or grey with alpha come out as ``uint8``, right to one grey level. Pixels of
    modes "I" and "F" must lie within 0..65535 and [0, 1]; anything else has no known white.

    A truncated file is an error even where ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` is set, as some
    libraries do: the made-up grey part of such an image would be scored as if it were the part.
    That setting reads False, to every thread, while images are being decoded here.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._images import load_image
    >>> load_image(np.array([[0, 255]], dtype=np.uint8)).tolist()
    [[[0, 0, 0], [255, 255, 255]]]
    """
    where = where_of(item, index)
    if isinstance(item, np.ndarray):
        return array_to_rgb(item, where)
    with opened(read_item(item, index), where) as im:
        check_header(im, where)
        return pil_to_rgb(im, where)


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
