"""Open the items of an image collection with Pillow.

Everything raised here, by Pillow or on the way to it, is an :class:`ImageReadError`.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from skanomaly._stamps import is_special
from skanomaly._typing import PathLike

PATH = (str, os.PathLike)  # names are made by os.fsdecode: a PathLike may hold bytes
BYTES = (bytes, bytearray, memoryview)
ACCEPTED = (
    "a path (str or os.PathLike), the bytes of an image file, a PIL image, or a numpy array of "
    "shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
)

_BOMB_HINT = (
    "If the image is trusted, raise PIL.Image.MAX_IMAGE_PIXELS (None removes the limit), on the "
    "command line --max-pixels, or shrink it first."
)


class ImageReadError(OSError, ValueError):
    """An item of the input cannot be read as an image.

    The message names the item (its index in the input, where known, and its path or kind), what
    is wrong with it and what to do. It is both an ``OSError`` and a ``ValueError``, because a
    caller may reasonably expect either.

    Examples
    --------
    >>> from skanomaly import FilterBankPatches, ImageReadError
    >>> try:
    ...     FilterBankPatches().transform([b"no image"])
    ... except ImageReadError as exc:
    ...     print(str(exc).partition(":")[0])
    Cannot read image 0 (8 bytes)
    """


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file, and the name of where they came from.

    Parameters
    ----------
    data : bytes
    name : str
        For messages.
    """

    data: bytes = field(repr=False)
    name: str


def where_of(item: Any, index: int | None) -> str:
    """Say which item a message is about.

    Parameters
    ----------
    item : object
    index : int or None
        Its index in the input, where that is known.

    Returns
    -------
    str
        The start of the message.
    """
    if isinstance(item, PATH):
        what = repr(os.fsdecode(item))
    elif isinstance(item, EncodedImage):
        what = repr(item.name)
    elif isinstance(item, np.ndarray):
        what = f"array of shape {item.shape} and dtype {item.dtype}"
    elif isinstance(item, Image.Image):
        what = f"PIL image of mode {item.mode} and size {item.size}"
    elif isinstance(item, BYTES):
        what = f"{len(item)} {type(item).__name__}"
    else:
        what = type(item).__name__
    return f"Cannot read image ({what})" if index is None else f"Cannot read image {index} ({what})"


def read_file(path: PathLike, where: str) -> EncodedImage:
    """Read the file of a path.

    Parameters
    ----------
    path : str or path-like
    where : str
        The start of error messages.

    Returns
    -------
    EncodedImage

    Raises
    ------
    ImageReadError
        If the file cannot be read or is empty.
    """
    with _errors(where), _stream(path, where) as fp:
        return EncodedImage(fp.read(), os.fsdecode(path))


def encoded_bytes(item: EncodedImage | bytes | bytearray | memoryview) -> bytes:
    """Content of an image file that is in memory.

    Parameters
    ----------
    item : EncodedImage or bytes-like

    Returns
    -------
    bytes
    """
    return item.data if isinstance(item, EncodedImage) else bytes(item)


@contextmanager
def opened(item: Any, where: str) -> Iterator[Image.Image]:
    """Open an item as a PIL image of which the header is read, for a ``with`` block.

    Parameters
    ----------
    item : str, path-like, bytes-like, EncodedImage or PIL.Image.Image
    where : str
        The start of error messages.

    Yields
    ------
    PIL.Image.Image
        Closed afterwards, unless it is the item itself.

    Raises
    ------
    ImageReadError
        For whatever is raised on the way or in the block.
    """
    if isinstance(item, Image.Image):
        with _errors(where), _strict_decoding():
            yield item
    elif isinstance(item, (*PATH, *BYTES, EncodedImage)):
        with _errors(where), _strict_decoding(), _stream(item, where) as fp:
            # Pillow's own check of the size may warn or raise here, depending on the warning
            # filters; the same limit is checked again below so that the outcome does not.
            with Image.open(fp) as im:
                pixels, limit = im.size[0] * im.size[1], Image.MAX_IMAGE_PIXELS
                if limit is not None and pixels > limit:
                    raise ImageReadError(f"{where}: {_too_many_pixels(pixels)}")
                yield im
    else:
        hint = " Make an array of it, with the channels last." * hasattr(item, "__array__")
        raise ImageReadError(
            f"{where}: {type(item).__name__} is not an image; accepted are {ACCEPTED}.{hint}"
        )


@contextmanager
def _errors(where):
    """Turn whatever is raised inside into an ImageReadError."""
    try:
        yield
    except ImageReadError:
        raise
    # Damaged files make decoders raise nearly anything (struct.error, SyntaxError, EOFError,
    # MemoryError, ...), warnings included where the user's filters turn them into errors.
    except Exception as exc:
        raise ImageReadError(f"{where}: {_explain(exc)}") from exc


def _too_many_pixels(pixels):
    return (
        f"it has {pixels} pixels, more than the limit of {Image.MAX_IMAGE_PIXELS} against "
        f"decompression bombs. {_BOMB_HINT}"
    )


def _explain(exc):
    if isinstance(exc, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        # Pillow's own text tells twice the limit where it raises.
        pixels = re.search(r"\((\d+) pixels\)", str(exc))
        return _too_many_pixels(pixels[1]) if pixels else f"{exc} {_BOMB_HINT}"
    if isinstance(exc, UnidentifiedImageError):
        return (
            "this is not an image, or not in a format that Pillow reads; check that it is an "
            "image file (and not, say, a text file or a saved web page), or leave it out."
        )
    if isinstance(exc, MemoryError):
        return "there is not enough memory to decode it, or its header is damaged."
    return (
        f"the image is truncated, damaged or of an unsupported kind ({type(exc).__name__}: {exc}); "
        "copy or export it again, or leave it out."
    )


@contextmanager
def _stream(item, where):
    """Yield a binary, seekable, non-empty file with the encoded image."""
    if isinstance(item, PATH):
        fp = _open_path(os.fsdecode(item), where)
    else:
        fp = BytesIO(encoded_bytes(item))
    with fp:
        if fp.seek(0, os.SEEK_END) == 0:
            raise ImageReadError(f"{where}: it is empty (0 bytes); copy it again or leave it out.")
        fp.seek(0)
        yield fp


def _open_path(path, where):
    if is_special(path):  # opening a pipe waits for whoever writes to it
        raise ImageReadError(
            f"{where}: it is a pipe, socket or device, and no file; save the image to a file."
        )
    try:
        return open(path, "rb")
    except (OSError, ValueError) as exc:  # ValueError: a null character in the path
        if os.path.isdir(path):  # asked here because Windows reports a directory as "denied"
            reason = "it is a directory; pass the paths of the files in it."
        elif isinstance(exc, FileNotFoundError):
            reason = f"path not found; check it (the current directory is {os.getcwd()!r})."
        elif isinstance(exc, PermissionError):
            reason = "permission denied; check that you may read the file."
        else:
            reason = f"it cannot be opened ({exc}); check the path."
        raise ImageReadError(f"{where}: {reason}") from exc


_decoding_lock = threading.Lock()
_decoding = {"active": 0, "saved": False}


@contextmanager
def _strict_decoding():
    """Keep Pillow from padding truncated files, which only a global switches on.

    The first thread in turns the global off and the last one out restores it: with a plain save
    and restore in each thread, one that ends would switch padding on for those still decoding.
    """
    with _decoding_lock:
        if _decoding["active"] == 0:
            _decoding["saved"] = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _decoding["active"] += 1
    try:
        yield
    finally:
        with _decoding_lock:
            _decoding["active"] -= 1
            if _decoding["active"] == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _decoding["saved"]
