"""Inflate the pixels of PNG files with ISA-L, where it is installed; Pillow does the rest.

Half of the time that Pillow takes for a PNG file goes to zlib's inflate. ISA-L does it in half of
that. Pillow then is given the file with its pixels stored instead of compressed.
"""

import struct
from dataclasses import replace
from functools import lru_cache
from math import prod

from PIL import Image

from skanomaly._images.files import BYTES, EncodedImage, encoded_bytes
from skanomaly._optional import import_optional

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_STORED = 2**16 - 1  # the most bytes in a stored block
_LARGEST = 2**27  # bytes of pixels, of which there are two copies more for a while


def without_compression(item):
    """A PNG file whose pixels are stored, with the same content.

    Parameters
    ----------
    item : object
        An item of a collection of images, files read.

    Returns
    -------
    object
        The item itself where it is no PNG file, is interlaced, is damaged in any way, or is very
        large, and where ISA-L is missing: what is refused, and what is said about it, is
        Pillow's.
    """
    if not isinstance(item, (EncodedImage, *BYTES)):
        return item
    data = encoded_bytes(item)
    library = _library() if data[:8] == _SIGNATURE else None
    if library is None:
        return item
    try:
        data = _stored(data, library)
    except (ValueError, KeyError, MemoryError, struct.error, library.error):
        return item
    return replace(item, data=data) if isinstance(item, EncodedImage) else data


@lru_cache(maxsize=1)
def _library():
    try:
        return import_optional("isal.isal_zlib", "fast", "fast decoding of PNG files")
    except ImportError:
        return None


def _stored(png, library):
    """The file with other chunks of pixels; ValueError where that is not sure to be the same."""
    kinds, starts = _chunks(png)
    first, count = kinds.index(b"IDAT"), kinds.count(b"IDAT")
    if kinds[0] != b"IHDR" or set(kinds[first : first + count]) != {b"IDAT"}:
        raise ValueError("chunks in an unusual order")
    size = _n_bytes(png)
    view = memoryview(png)
    bodies = [view[i + 8 : j - 4] for i, j in zip(starts, starts[1:], strict=False)]
    packed = b"".join(bodies[first : first + count])
    if packed[:1] != b"\x78":  # a smaller window, which ISA-L would pass over
        raise ValueError("an unusual window")
    stream = library.decompressobj()
    pixels = memoryview(stream.decompress(packed, size + 1))
    if len(pixels) != size or not stream.eof or stream.unused_data:
        raise ValueError("more or fewer pixels than the header says")
    parts = [b"IDAT\x78\x01"]
    for start in range(0, size, _STORED):
        block = pixels[start : start + _STORED]
        length, last = len(block), start + _STORED >= size
        parts += [struct.pack("<BHH", last, length, length ^ 0xFFFF), block]
    parts.append(struct.pack(">I", library.adler32(pixels)))
    check = 0
    for part in parts:
        check = library.crc32(part, check)
    length = struct.pack(">I", sum(map(len, parts)) - 4)
    before, behind = view[: starts[first]], view[starts[first + count] :]
    return b"".join([before, length, *parts, struct.pack(">I", check), behind])


def _chunks(png):
    """Kinds of the chunks, and where each starts; one start more, of what follows the last."""
    kinds, starts = [], [len(_SIGNATURE)]
    while not kinds or kinds[-1] != b"IEND":
        length, kind = struct.unpack_from(">I4s", png, starts[-1])
        kinds.append(kind)
        starts.append(starts[-1] + 12 + length)
    if starts[-1] > len(png):
        raise ValueError("truncated")
    return kinds, starts


def _n_bytes(png):
    """Bytes of the pixels, one a row for its filter included."""
    width, height, depth, colour, *_, interlaced = struct.unpack_from(">IIBBBBB", png, 16)
    size = height * (1 + -(-width * depth * _CHANNELS[colour] // 8))
    limit = Image.MAX_IMAGE_PIXELS
    too_many = limit is not None and prod((width, height)) > limit
    if interlaced or too_many or not 0 < size <= _LARGEST:
        raise ValueError("interlaced, or too large")
    return size
