"""Image files built by Pillow, and by hand where it does not write them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(image, format="PNG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, before=(), after=()):
    """A PNG file built by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(*c) for c in before),
            chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
            *(chunk(*c) for c in after),
            chunk(b"IEND", b""),
        ]
    )


def tiff(width, height, bits, photometric, data, sample_format=1, samples=1, planar=1, order="<"):
    """An uncompressed TIFF file built by hand."""
    strips = samples if planar == 2 else 1
    size = len(data) // strips
    tags = {256: [width], 257: [height], 258: [bits] * samples, 259: [1], 262: [photometric]}
    tags |= {273: [8 + k * size for k in range(strips)], 277: [samples], 278: [height]}
    tags |= {279: [size] * strips, 284: [planar], 339: [sample_format] * samples}
    behind = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries = extra = b""
    for tag, numbers in sorted(tags.items()):
        value = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            value, extra = struct.pack(f"{order}I", behind + len(extra)), extra + value
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + value
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra


def png16(values, key=None):
    """A PNG file of 16-bit colours (H, W, C): 2 for grey with alpha, 3 for RGB, 4 for RGBA."""
    height, width, channels = values.shape
    rows = [row.astype(">u2").tobytes() for row in values]
    clear = [] if key is None else [(b"tRNS", struct.pack(f">{len(key)}H", *key))]
    return png(width, height, 16, {2: 4, 3: 2, 4: 6}[channels], rows, clear)
