"""Rows of the fault matrix about image files."""

import os
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from _fault_models import GOOD, embedder, is_refused, picture, saved
from _fault_table import Table
from _image_files import chunk, encode
from PIL import Image, ImageFile, PngImagePlugin, features

from skanomaly import ImageReadError
from skanomaly._images import files, image_size, load_image

ORDER = 0
TABLE = Table(
    "images",
    "Image files",
    "Each refused file is tried in four ways: by reading it, by `transform`, by `score_samples`\n"
    "of a pipeline and by `iter_scores`. The latter continues after the file, and the other\n"
    "images keep their scores to the bit.",
)
PICTURE = picture()
TELLS = "`ImageReadError`, with number and path: "


# ---------------------------------------------------------------- what is no image


def no_image(id, given, says, make):
    def check(here):
        path = make(here)
        is_refused(path, says, path=path)

    TABLE.add(id, given, f"{TELLS}“{says}”", check)


def written(name, data):
    def make(here):
        (here / name).write_bytes(data)
        return here / name

    return make


def linked(target):
    def make(here):
        (here / "link.png").symlink_to(here / target)
        return here / "link.png"

    return make


def pipe_of_the_system(here):
    os.mkfifo(here / "pipe.png")
    return here / "pipe.png"


HTML = b"<!doctype html><html><body>404 not found</body></html>"
no_image("missing", "a path that leads nowhere", "path not found", lambda h: h / "no.png")
no_image("empty-path", "an empty path", "path not found", lambda h: "")
no_image("null-in-path", "a path with a null character", "cannot be opened", lambda h: "a\0b.png")
no_image("long-path", "a name of 300 characters", "cannot be opened", lambda h: h / ("a" * 300))
no_image("folder", "a folder", "it is a directory", lambda h: h)
no_image("below-a-file", "a path below a file", "cannot be opened", lambda h: saved(h) / "a.png")
no_image("broken-link", "a link that leads nowhere", "path not found", linked("gone.png"))
no_image("link-to-itself", "a link to itself", "cannot be opened", linked("link.png"))
no_image("pipe", "a named pipe that nobody writes to", "it is a pipe", pipe_of_the_system)
no_image("device", "a device of the system", "device, and no file", lambda h: "/dev/zero")
no_image("empty-file", "a file of 0 bytes", "it is empty (0 bytes)", written("a.png", b""))
no_image("web-page", "a web page named `.jpg`", "this is not an image", written("a.jpg", HTML))
no_image("zeros", "a file of zeros", "this is not an image", written("a.png", bytes(999)))
no_image("svg", "a drawing of lines (SVG)", "not an image", written("a.svg", b"<svg/>"))
no_image("model-as-image", "a NumPy file", "not an image", written("a.png", b"\x93NUMPY\1\0"))


@TABLE.row("no-permission", "a file that may not be read", f"{TELLS}“permission denied”")
def _(here):
    def denied(*args):
        raise PermissionError(13, "Permission denied")

    path = saved(here)
    with pytest.MonkeyPatch.context() as patch:  # a stand-in: the superuser may read everything
        patch.setattr(files, "open", denied, raising=False)
        is_refused(path, "permission denied", path=path)


@TABLE.row(
    "gone-while-scoring",
    "a file that is deleted after the list was made",
    f"{TELLS}“path not found”; not the tokens of a kept copy",
)
def _(here):
    path = saved(here)
    cached = embedder(cache_dir=here / "tokens")
    cached.transform([path])
    path.unlink()
    with pytest.raises(ImageReadError, match=r"image 0 \(.*part.png'\): path not found"):
        cached.transform([path])


@TABLE.row(
    "replaced",
    "another picture under the name of one whose tokens are in `cache_dir`",
    "it is embedded anew",
)
def _(here):
    path = saved(here)
    cached = embedder(cache_dir=here / "tokens")
    old = cached.transform([path])
    stamp = os.stat(path)
    saved(here, GOOD[0])
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    new = cached.transform([path])
    np.testing.assert_array_equal(new, embedder().transform([GOOD[0]]))
    assert not np.array_equal(new, old)


# ---------------------------------------------------------------- damaged files

FORMATS = {
    "PNG": {},
    "JPEG": {"quality": 95},
    "JPEG-progressive": {"quality": 95, "progressive": True},
    "BMP": {},
    "TIFF": {},
    "TIFF-LZW": {"compression": "tiff_lzw"},
    "PPM": {},
    "GIF": {},
    "WEBP": {"lossless": True},
    "JPEG2000": {"tile_size": (16, 16)},
}
FEATURE = {"WEBP": "webp", "JPEG2000": "jpg_2000"}
PLACES = {"start": (0.02, 0.1), "middle": (0.35, 0.65), "end": (0.9, 0.985)}


@TABLE.row(
    "cut-{format}-{place}",
    "a {format} file that is cut {place}",
    f"{TELLS}“truncated”, or “not an image” where its header is cut; never a picture that is grey "
    "below",
    format=list(FORMATS),
    place={"start": "near its start", "middle": "in its middle", "end": "near its end"},
)
def _(here, format, place):
    if not features.check(FEATURE.get(format, "zlib")):
        pytest.skip(f"this Pillow reads no {format}")
    data = encode(PICTURE, format.split("-")[0], **FORMATS[format])
    for share in PLACES[place]:
        path = here / f"cut{share}"
        path.write_bytes(data[: int(len(data) * share)])
        is_refused(path, "Cannot read image 2", path=path)


@TABLE.row(
    "cut-with-{format}-padding",
    "a {format} file that is cut, where another library set `ImageFile.LOAD_TRUNCATED_IMAGES`",
    f"{TELLS}“truncated”; the setting is as it was afterwards",
    format=["PNG", "JPEG", "BMP", "TIFF"],
)
def _(here, format):
    path = here / "cut"
    path.write_bytes(encode(PICTURE, format)[:-300])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        is_refused(path, "truncated", path=path)
        assert ImageFile.LOAD_TRUNCATED_IMAGES


def chunks(data):
    """Where the kind of each chunk of a PNG file stands, and how many bytes it holds."""
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], at + 4, length
        at += 12 + length


@TABLE.row(
    "png-{what}",
    "a PNG file with {what}",
    f"{TELLS}“damaged”; never another picture",
    what={
        (b"IHDR", "sum"): "a wrong checksum of its header",
        (b"IHDR", "data"): "another width in its header",
        (b"IDAT", "data"): "a changed byte among its pixels",
        (b"IDAT", "adler"): "a wrong checksum of its pixels",
        (b"PLTE", "sum"): "a wrong checksum of its palette",
    },
)
def _(here, what):
    kind, part = what
    image = Image.fromarray(PICTURE)
    data = bytearray(encode(image.quantize(16) if kind == b"PLTE" else image, compress_level=0))
    (place, length), *_ = [(at, size) for found, at, size in chunks(data) if found == kind]
    at = {"sum": place + 4 + length, "data": place + 4 + 3, "adler": place + 4 + length - 1}[part]
    data[at + (20 if kind == b"IDAT" and part == "data" else 0)] ^= 0x10
    path = here / "part.png"
    path.write_bytes(data)
    is_refused(path, "Cannot read image 2", path=path)


@TABLE.row(
    "png-any-byte",
    "a PNG file of which any one bit is changed",
    "`ImageReadError`, or the picture as it was; never another one",
)
def _(here):
    small = picture(0, 9, 12)
    data, n_refused = encode(small), 0
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        try:
            np.testing.assert_array_equal(load_image(bytes(changed)), small)
        except ImageReadError:
            n_refused += 1
    assert n_refused > len(data) * 0.8


@TABLE.row(
    "text-bomb",
    "a PNG file whose comment is of 200 MB when it is inflated",
    "`ImageReadError`; the comment is not inflated",
)
def _(here):
    text = b"comment\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK * 8))
    data = encode(PICTURE)
    data = data[:33] + chunk(b"zTXt", text) + data[33:]
    try:  # Pillow raises, or leaves the comment out
        np.testing.assert_array_equal(load_image(data, 2), PICTURE)
    except ImageReadError as error:
        assert "image 2 (" in str(error)


# ---------------------------------------------------------------- size


@TABLE.row(
    "bomb-{band}-warnings-{action}",
    "a file of {band} `PIL.Image.MAX_IMAGE_PIXELS` pixels, where warnings are {action}",
    f"{TELLS}“more than the limit”, `PIL.Image.MAX_IMAGE_PIXELS` and `--max-pixels`; nothing is "
    "decoded",
    band={1.5: "more than", 3: "more than twice"},
    action={"error": "errors", "ignore": "ignored"},
)
def _(here, band, action):
    path = saved(here)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(Image, "MAX_IMAGE_PIXELS", int(PICTURE[..., 0].size / band))
        warnings.simplefilter(action)
        for read in (load_image, image_size):
            with pytest.raises(ImageReadError) as info:
                read(path, 2)
            for text in ("image 2 (", repr(str(path)), "1024 pixels", "--max-pixels"):
                assert text in str(info.value)


@TABLE.row(
    "claims-{format}",
    "a {format} file of a few bytes whose header claims 60,000 x 60,000 pixels",
    f"{TELLS}“more than the limit”; no memory is taken",
    format=["PNG", "BMP", "GIF", "PPM"],
)
def _(here, format):
    side = 60_000
    data = bytearray(encode(Image.new("RGB", (1, 1)), format))
    if format == "PNG":
        data[8:33] = data[8:12] + b"IHDR" + struct.pack(">II", side, side) + data[24:29] + bytes(4)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif format == "BMP":
        data[18:26] = struct.pack("<II", side, side)
    elif format == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    else:
        data = bytearray(b"P6 60000 60000 255\n\0\0\0")
    path = here / "claims"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        is_refused(path, f"it has {side**2} pixels, more than the limit", path=path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
