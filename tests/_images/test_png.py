"""Tests of the inflating of PNG files: it may never show. The oracle is Pillow alone."""

import struct
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from skanomaly._images import ImageReadError, load_image, reading
from skanomaly._images import png as png_files

RNG = np.random.default_rng(0)
SMALL = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)
LARGE = np.cumsum(RNG.integers(-2, 3, (300, 200, 3)), axis=1).astype(np.uint8)
RGB, GREY = 2, 0


def chunk(kind, data, flaw=0):
    check = zlib.crc32(kind + data) ^ flaw
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def png(idat, size=(7, 9), colour=RGB, depth=8, interlace=0, before=(), after=(), step=None):
    """A PNG file by hand, of pixels that are compressed already."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlace)
    step = step or max(1, len(idat))
    parts = [idat[start : start + step] for start in range(0, len(idat), step)]
    chunks = [(b"IHDR", header), *before, *((b"IDAT", part) for part in parts), *after]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*c) for c in chunks) + chunk(b"IEND", b"")


def rows(image):
    return b"".join(b"\0" + row.tobytes() for row in image)


def saved(image, **options):
    stream = BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def is_fast(data):
    """Whether the file goes the fast way."""
    return png_files.without_compression(data) is not data


def outcome(data):
    try:
        return load_image(data)
    except ImageReadError as error:
        return str(error)


def assert_unnoticed(data, monkeypatch):
    """The image, or the message, is that of Pillow alone."""
    with monkeypatch.context() as patch:
        patch.setattr(reading, "without_compression", lambda item: item)
        expected = outcome(data)
    got = outcome(data)
    if isinstance(expected, str):
        assert got == expected
    else:
        assert got.dtype == expected.dtype and got.flags.c_contiguous and got.flags.writeable
        np.testing.assert_array_equal(got, expected)


@pytest.fixture(autouse=True)
def library():
    return pytest.importorskip("isal")


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("image", [SMALL, LARGE, LARGE[:1, :1], LARGE[:1], LARGE[:, :1]])
def test_plain_files_are_read_fast_and_exactly(image, level, monkeypatch):
    for pixels in (image, image[:, :, 0]):
        data = saved(Image.fromarray(pixels), compress_level=level)
        assert is_fast(data)
        expected = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
        np.testing.assert_array_equal(load_image(data), expected)
        assert_unnoticed(data, monkeypatch)


def other_files():
    image, idat = Image.fromarray(SMALL), zlib.compress(rows(SMALL))
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "a camera")
    orientation = b"Raw profile type exif\0\nexif\n" + exif.tobytes().hex().encode()
    wide = RNG.integers(0, 65536, (9, 7), dtype=np.uint16)
    deep = RNG.integers(0, 65536, (9, 7, 3), dtype=np.uint16).astype(">u2")
    files = {mode: saved(image.convert(mode)) for mode in ("1", "P", "LA", "RGBA")}
    return {
        **files,
        "16-bit grey": saved(Image.fromarray(wide)),
        "16-bit colour": png(zlib.compress(rows(deep)), depth=16),
        "2-bit grey": png(zlib.compress(b"\0\xb1\0\xc4"), (4, 2), GREY, 2),
        "transparent colour": saved(image, transparency=tuple(map(int, SMALL[0, 0]))),
        "transparent grey": saved(image.convert("L"), transparency=7),
        "transparent palette": saved(image.convert("P"), transparency=3),
        "orientation": saved(image, exif=exif),
        "orientation behind": png(idat, after=[(b"eXIf", exif.tobytes()[6:])]),
        "orientation in a text": png(idat, before=[(b"tEXt", orientation)]),
        "text": saved(image, pnginfo=text),
        "suggested palette": png(idat, before=[(b"PLTE", bytes(6))]),
        "unknown chunk": png(idat, before=[(b"prIv", b"?")]),
        "animation": saved(image, save_all=True, append_images=[image.rotate(180)]),
        "animation of one frame": png(idat, before=[(b"acTL", struct.pack(">II", 1, 0))]),
        "another format": _bmp(image),
    }


def _bmp(image):
    stream = BytesIO()
    image.save(stream, "BMP")
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Invalid APNG:UserWarning")
@pytest.mark.parametrize("name", sorted(other_files()))
def test_every_kind_of_file(name, monkeypatch):
    data = other_files()[name]
    assert is_fast(data) == (name != "another format")
    assert_unnoticed(data, monkeypatch)


def test_interlaced_files_are_left_to_pillow(monkeypatch):
    # Of a file of one pixel all passes but the first are empty.
    data = png(zlib.compress(b"\0abc"), (1, 1), interlace=1)
    assert not is_fast(data)
    assert_unnoticed(data, monkeypatch)


def damaged_files():
    raw = rows(LARGE)
    idat, size = zlib.compress(raw), LARGE.shape[1::-1]
    whole = png(idat, size)
    middle, end = len(idat) // 2, len(whole) - 12
    wrong = bytes([idat[-1] ^ 1])
    return {
        "wrong checksum of the data": png(idat[:-1] + wrong, size),
        "wrong checksum of the data, many chunks": png(idat[:-1] + wrong, size, step=1000),
        "no checksum of the data": png(idat[:-4], size),
        "wrong checksum of a chunk": whole[: end - 1] + bytes([whole[end - 1] ^ 1]) + whole[end:],
        "damaged data": png(idat[:middle] + b"\xff" * 9 + idat[middle + 9 :], size),
        "too few rows": png(zlib.compress(raw[:-601]), size),
        "a byte too few": png(zlib.compress(raw[:-1]), size),
        "cut data": png(idat[:middle], size),
        "no data": png(b"", size, before=[(b"IDAT", b"")]),
        "no filter": png(zlib.compress(b"\7" + raw[1:]), size),
        "cut": whole[: len(whole) // 2],
        "cut before the end": whole[:end],
        "cut in the end": whole[:-3],
        "trailing garbage": whole + b"garbage",
        "data behind the data": png(idat + b"garbage", size),
        "wrong end": whole[:-1] + b"?",
        "interrupted data": png(idat[:middle], size, after=[(b"tIME", bytes(7)), (b"IDAT", idat)]),
        "wrong checksum of the header": whole[:29] + bytes([whole[29] ^ 1]) + whole[30:],
        "wrong checksum of metadata": png(idat, size, before=[(b"pHYs", bytes(9), 1)]),
        "a byte too many": png(zlib.compress(raw + b"?"), size),
        "a dictionary": png(b"\x78\xbb" + idat[2:], size),
        "another colour type": png(idat, size, colour=5),
        "no rows": png(idat, (7, 0)),
    }


@pytest.mark.parametrize("name", sorted(damaged_files()))
def test_damaged_files_are_judged_by_pillow(name, monkeypatch):
    assert_unnoticed(damaged_files()[name], monkeypatch)


def test_random_damage(monkeypatch):
    rng = np.random.default_rng(1)
    idat, refused = zlib.compress(rows(SMALL)), 0
    for _ in range(200):
        data = bytearray(idat)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        data = png(bytes(data))
        assert_unnoticed(data, monkeypatch)
        refused += isinstance(outcome(data), str)
    assert refused > 100


def test_the_limit_on_pixels_holds(monkeypatch):
    data = saved(Image.fromarray(SMALL))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(ImageReadError, match="decompression bomb"):
        load_image(data)


def test_images_of_the_caller_are_loaded_as_ever():
    with Image.open(BytesIO(saved(Image.fromarray(SMALL)))) as im:
        np.testing.assert_array_equal(load_image(im), SMALL)
        assert not im.tile  # loaded, as by any use of it


def test_a_smaller_window_is_left_to_pillow(monkeypatch):
    packer = zlib.compressobj(9, zlib.DEFLATED, 9)
    idat = packer.compress(rows(LARGE)) + packer.flush()
    assert not is_fast(png(idat, LARGE.shape[1::-1]))
    assert_unnoticed(png(idat, LARGE.shape[1::-1]), monkeypatch)
    liar = b"\x18\x19" + zlib.compress(rows(LARGE))[2:]  # says 512 bytes, needs more
    assert_unnoticed(png(liar, LARGE.shape[1::-1]), monkeypatch)


def test_very_large_files_are_left_to_pillow(monkeypatch):
    data = saved(Image.fromarray(SMALL))
    assert is_fast(data)
    monkeypatch.setattr(png_files, "_LARGEST", 100)
    assert not is_fast(data)


def test_one_row_more_than_a_stored_block_holds(monkeypatch):
    for width in (65534, 65535, 65536):
        image = RNG.integers(0, 256, (2, width), dtype=np.uint8)
        assert is_fast(saved(Image.fromarray(image)))
        assert_unnoticed(saved(Image.fromarray(image)), monkeypatch)


def test_without_the_library(monkeypatch):
    data = saved(Image.fromarray(LARGE))
    monkeypatch.setattr(png_files, "_library", lambda: None)
    assert not is_fast(data)
    np.testing.assert_array_equal(load_image(data), LARGE)


def test_the_library_is_imported_at_the_first_png_file(tmp_path):
    jpeg, plain = tmp_path / "a.jpg", tmp_path / "a.png"
    Image.fromarray(SMALL).save(jpeg)
    Image.fromarray(SMALL).save(plain)
    code = (
        "import sys; from skanomaly._images import load_image; load_image(sys.argv[1]);"
        "assert 'isal' not in sys.modules; load_image(sys.argv[2]);"
        "assert 'isal' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(jpeg), str(plain)], check=True)
