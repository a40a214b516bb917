"""Open the items of an image collection with Pillow, and read what their headers say.

Everything raised here, by Pillow or on the way to it, is an :class:`ImageReadError`.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

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

# Formats whose further "frames" are not pictures of their own: an MPO is a camera's JPEG followed
# by previews or depth maps, and Pillow counts the layers of a PSD but opens the merged picture.
_ONE_PICTURE_FORMATS = {"MPO", "PSD"}


class ImageReadError(OSError, ValueError):
    """An item of the input cannot be read as an image.

    The message names the item (its index in the input, where known, and its path or kind), what
    is wrong with it and what to do. It is both an ``OSError`` and a ``ValueError``, because a
    caller may reasonably expect either.
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
                    raise ImageReadError(
                        f"{where}: it has {pixels} pixels, more than the limit of {limit} against "
                        f"decompression bombs. {_BOMB_HINT}"
                    )
                yield im
    else:
        raise ImageReadError(
            f"{where}: {type(item).__name__} is not an image; accepted are {ACCEPTED}."
        )


def check_header(im: Image.Image, where: str) -> None:
    """Refuse a PIL image without pixels or with several frames.

    Parameters
    ----------
    im : PIL.Image.Image
    where : str
        The start of error messages.

    Raises
    ------
    ImageReadError
        For such an image.
    """
    if 0 in im.size:
        raise ImageReadError(f"{where}: it has no pixels (width x height is {im.size}).")
    if im.format not in _ONE_PICTURE_FORMATS and getattr(im, "is_animated", False):
        raise ImageReadError(
            f"{where}: it is animated or has several pages, and only single images are accepted; "
            "pick a frame, e.g. im = PIL.Image.open(...); im.seek(k); im = im.copy()."
        )


def upright_size(im: Image.Image, opened_here: bool) -> tuple[int, int]:
    """Width and height of a PIL image after EXIF orientation, from its header.

    Parameters
    ----------
    im : PIL.Image.Image
    opened_here : bool
        Whether it was opened by this package, so that only the header of its file is read yet.

    Returns
    -------
    width, height : int
    """
    picture: Any = im  # of a class of Pillow with more attributes, by format
    width, height = im.size
    getexif: Callable[[], Any] = im.getexif
    if im.format == "TIFF" and ExifTags.Base.Orientation in getattr(im, "tag_v2", ()):
        # Pillow swaps `size` itself, at a moment that depends on its version.
        width = picture.tag_v2[ExifTags.Base.ImageWidth]
        height = picture.tag_v2[ExifTags.Base.ImageLength]
    elif im.format == "PNG" and opened_here and not _png_has_late_metadata(picture.fp):
        # The method of PNG images decodes everything in search of late metadata.
        getexif = partial(Image.Image.getexif, im)
    return (height, width) if orientation(getexif) >= 5 else (width, height)


def orientation(getexif: Callable[[], Any]) -> int:
    """EXIF orientation of an image.

    Parameters
    ----------
    getexif : callable
        The method of a PIL image.

    Returns
    -------
    int
        1 to 8; 1 means upright.
    """
    # As image viewers do, take an image whose EXIF data are damaged as upright.
    try:
        value = getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in range(1, 9) else 1
    except Exception:
        return 1


def _png_has_late_metadata(fp):
    """Whether chunks that may hold an orientation follow the pixels of a PNG file."""
    start = fp.tell()
    fp.seek(8)
    found = behind_pixels = False
    while not found and len(head := fp.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        behind_pixels = behind_pixels or kind == b"IDAT"
        found = behind_pixels and kind in (b"eXIf", b"iTXt", b"zTXt")
        fp.seek(length + 4, os.SEEK_CUR)
    fp.seek(start)
    return found


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


def _explain(exc):
    if isinstance(exc, (Image.DecompressionBombWarning, Image.DecompressionBombError)):
        return f"{exc} {_BOMB_HINT}"
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
