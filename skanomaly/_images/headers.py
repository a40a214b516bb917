"""What the header of an image file says, and what is refused for it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import ExifTags, Image

from skanomaly._images.files import ImageReadError

# Formats whose further "frames" are not pictures of their own: an MPO is a camera's JPEG followed
# by previews or depth maps, and Pillow counts the layers of a PSD but opens the merged picture.
_ONE_PICTURE_FORMATS = {"MPO", "PSD"}


def check_header(im: Image.Image, where: str) -> None:
    """Refuse a PIL image without pixels, with several frames, or one that Pillow misreads.

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
            "save the frame that is meant as a file of its own, or pick it in Python: "
            "im = PIL.Image.open(...); im.seek(k); im = im.copy()."
        )
    tags = getattr(im, "tag_v2", {})
    planes = tags.get(ExifTags.Base.PlanarConfiguration) == 2
    raw = tags.get(ExifTags.Base.Compression) == 1
    if planes and raw and tags.get(ExifTags.Base.BitsPerSample, ())[1:2] == (16,):
        raise ImageReadError(
            f"{where}: Pillow misreads TIFF files of 16 bits with an uncompressed plane for each "
            "channel; save it with its channels together."
        )


def check_end(im: Image.Image, data: bytes, where: str) -> None:
    """Refuse a JPEG 2000 file that lacks its end, of which Pillow gives missing tiles as black.

    Parameters
    ----------
    im : PIL.Image.Image
    data : bytes
        The file.
    where : str
        The start of error messages.

    Raises
    ------
    ImageReadError
        For such a file; other formats raise when they are decoded.
    """
    # Between the first data and the mark of the end no two bytes look like that.
    if im.format == "JPEG2000" and data.rfind(b"\xff\xd9") < data.find(b"\xff\x93"):
        raise ImageReadError(f"{where}: the image is truncated; copy it again or leave it out.")


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
