"""Tests of reading images, against oracles that do not share code with it."""

import io
import os
import pickle
import random
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from _image_files import encode, png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile, features

from skanomaly._images import (
    ImageReadError,
    check_images,
    content_digest,
    files,
    image_size,
    load_image,
    read_item,
    resize_image,
)
from skanomaly._images.files import EncodedImage

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
# No two cells and no two orientations of it are alike.
ASYMMETRIC = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
# What a camera stores under each EXIF orientation when the upright picture is ASYMMETRIC.
STORED = {
    1: [[10, 20, 30], [40, 50, 60]],
    2: [[30, 20, 10], [60, 50, 40]],
    3: [[60, 50, 40], [30, 20, 10]],
    4: [[40, 50, 60], [10, 20, 30]],
    5: [[10, 40], [20, 50], [30, 60]],
    6: [[30, 60], [20, 50], [10, 40]],
    7: [[60, 30], [50, 20], [40, 10]],
    8: [[40, 10], [50, 20], [60, 30]],
}


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def grey(values, dtype=np.uint8):
    return np.repeat(np.asarray(values, dtype=dtype)[..., None], 3, axis=-1)


def over_white(rgba, full):
    """Alpha compositing, one pixel at a time, in float64 and in [0, 1]."""
    out = np.empty((*rgba.shape[:2], 3))
    for i, j, c in np.ndindex(out.shape):
        alpha = float(rgba[i, j, 3]) / full
        out[i, j, c] = float(rgba[i, j, c]) / full * alpha + 1.0 * (1.0 - alpha)
    return out


def check_contract(image):
    assert type(image) is np.ndarray
    assert image.ndim == 3 and image.shape[2] == 3 and image.flags.c_contiguous
    assert image.dtype in (np.uint8, np.float32)
    if image.dtype == np.float32:
        assert image.min() >= 0 and image.max() <= 1


# ---------------------------------------------------------------- decoding


def test_every_kind_of_item_gives_the_same_image(tmp_path):
    data = encode(RGB)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    encoded = read_item(path)
    assert encoded == EncodedImage(data, str(path)) and "PNG" not in repr(encoded)
    items = [str(path), path, data, bytearray(data), memoryview(data), encoded]
    items += [read_item(str(path)), Image.open(io.BytesIO(data)), Image.fromarray(RGB)]
    items += [RGB, RGB[:, ::-1][:, ::-1]]
    for item in items:
        image = load_image(item)
        check_contract(image)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, RGB)
        assert image_size(item) == (5, 7)
    for item in items[2:5] + items[7:]:
        assert read_item(item) is item


def test_bytes_pathlike(tmp_path):
    class BytesPath:
        def __fspath__(self):
            return os.fsencode(tmp_path / "a.png")

    (tmp_path / "a.png").write_bytes(encode(RGB))
    np.testing.assert_array_equal(load_image(BytesPath()), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "TIFF-LZW", "WEBP", "JPEG"])
def test_exif_orientation(format, orientation, tmp_path):
    stored = np.array(STORED[orientation], dtype=np.uint8)
    options = {"exif": exif(orientation)}
    tolerance = 0
    if format == "TIFF-LZW":
        options["compression"] = "tiff_lzw"
    elif format == "WEBP":
        options["lossless"] = True
    elif format == "JPEG":
        options["quality"] = 100
        tolerance = 2
    data = encode(grey(stored), format.split("-")[0], **options)
    path = tmp_path / "image"
    path.write_bytes(data)
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    unloaded = Image.open(io.BytesIO(data))
    for item in (data, path, loaded, unloaded, loaded.copy()):
        assert image_size(item) == (2, 3)
        image = load_image(item).astype(int)
        assert np.abs(image - grey(ASYMMETRIC)).max() <= tolerance
    # A second read of the same object does not turn it again.
    assert load_image(unloaded).shape == (2, 3, 3)


def test_exif_orientation_of_an_image_that_was_transposed_by_the_caller():
    from PIL import ImageOps

    data = encode(grey(STORED[6]), exif=exif(6))
    with Image.open(io.BytesIO(data)) as im:
        np.testing.assert_array_equal(load_image(ImageOps.exif_transpose(im)), grey(ASYMMETRIC))


def test_exif_orientation_keeps_16_bits():
    wide = np.array(STORED[6], dtype=np.uint16) * 1000
    image = load_image(encode(wide, exif=exif(6)))
    np.testing.assert_array_equal(image, grey(ASYMMETRIC * np.float32(1000) / 65535, np.float32))


def test_png_exif_behind_the_pixels():
    stored = np.array(STORED[6], dtype=np.uint8)
    block = exif(6).tobytes().removeprefix(b"Exif\0\0")
    data = png(2, 3, 8, 0, [bytes(row) for row in stored], after=[(b"eXIf", block)])
    np.testing.assert_array_equal(load_image(data), grey(ASYMMETRIC))
    assert image_size(data) == (2, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_nonsense_orientation_is_upright(value):
    data = encode(grey(ASYMMETRIC), exif=exif(value))
    np.testing.assert_array_equal(load_image(data), grey(ASYMMETRIC))


def test_damaged_exif_is_upright():
    data = encode(grey(ASYMMETRIC), exif=b"Exif\0\0MM\0*\xff\xff")
    np.testing.assert_array_equal(load_image(data), grey(ASYMMETRIC))
    assert image_size(data) == (2, 3)


RAMP = np.linspace(0, 65535, 4 * 64).round().astype(np.uint16).reshape(4, 64)


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(RAMP, id="array"),
        pytest.param(RAMP.astype(">u2"), id="big-endian array"),
        pytest.param(RAMP[..., None], id="one channel"),
        pytest.param(np.repeat(RAMP[..., None], 3, -1), id="three channels"),
        pytest.param(encode(RAMP), id="PNG"),
        pytest.param(encode(RAMP, "TIFF"), id="TIFF"),
        pytest.param(encode(RAMP, "TIFF", compression="tiff_lzw"), id="TIFF-LZW"),
        pytest.param(encode(Image.fromarray(RAMP.astype(">u2")), "TIFF"), id="big-endian TIFF"),
        pytest.param(b"P5 64 4 65535\n" + RAMP.astype(">u2").tobytes(), id="PGM"),
        pytest.param(tiff(64, 4, 16, 0, (65535 - RAMP).tobytes()), id="WhiteIsZero TIFF"),
        pytest.param(Image.fromarray(RAMP), id="I;16"),
        pytest.param(Image.frombytes("I;16B", (64, 4), RAMP.astype(">u2").tobytes()), id="I;16B"),
        pytest.param(Image.frombytes("I;16L", (64, 4), RAMP.tobytes()), id="I;16L"),
        pytest.param(Image.fromarray(RAMP.astype(np.int32)), id="I"),
        pytest.param(Image.fromarray((RAMP / 65535).astype(np.float32)), id="F"),
        pytest.param(RAMP / 65535, id="float64"),
        pytest.param((RAMP / 65535).astype(np.longdouble), id="longdouble"),
    ],
)
def test_wide_greys_keep_their_precision(item):
    image = load_image(item)
    check_contract(image)
    np.testing.assert_array_equal(image, grey((RAMP / 65535), np.float32))
    assert image_size(item) == (4, 64)


def test_float16():
    values = np.array([[0, 0.25, 1]], dtype=np.float16)
    np.testing.assert_array_equal(load_image(values), grey(values, np.float32))


def test_12_bit_tiff():
    # Two values in three bytes: 0xfff and 0x801.
    image = load_image(tiff(2, 1, 12, 1, bytes([0xFF, 0xF8, 0x01])))
    np.testing.assert_allclose(image[0, :, 0], [1.0, 0x801 / 4095], atol=0.5 / 65535)


def test_pil_images_of_16_bit_colour_are_right_to_one_grey_level():
    values = RNG.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    data = png(5, 6, 16, 2, [row.astype(">u2").tobytes() for row in values])
    image = load_image(Image.open(io.BytesIO(data)))
    assert image.dtype == np.uint8
    assert np.abs(image / 255 - values / 65535).max() <= 1 / 255


@pytest.mark.parametrize("dtype, full", [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_alpha_of_arrays(dtype, full):
    rgba = RNG.random((9, 8, 4)) * full
    rgba[0, 0], rgba[0, 1] = 0, full
    rgba[1, :4, 3], rgba[1, 4:, 3] = 0, full
    rgba = (rgba.round() if full > 1 else rgba).astype(dtype)
    image = load_image(rgba)
    check_contract(image)
    expected = over_white(rgba, full)
    if dtype == np.uint8:
        np.testing.assert_array_equal(image, np.rint(expected * 255))
    else:
        np.testing.assert_allclose(image, expected, atol=2e-7)


def test_uint8_compositing_is_exactly_rounded_for_every_pair():
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([colour, colour, colour, alpha], axis=-1).astype(np.uint8)
    expected = np.rint((colour * alpha + 255.0 * (255 - alpha)) / 255)
    np.testing.assert_array_equal(load_image(rgba), grey(expected))


def alpha_images():
    rgba = RNG.integers(0, 256, (4, 6, 4), dtype=np.uint8)
    rgba[0, :3, 3], rgba[0, 3:, 3] = 0, 255
    la = rgba.copy()
    la[..., 1] = la[..., 2] = la[..., 0]
    palette = Image.fromarray((np.arange(24, dtype=np.uint8) % 5).reshape(4, 6)).convert("P")
    colours = RNG.integers(0, 256, (5, 4), dtype=np.uint8)
    palette.putpalette(colours[:, :3].tobytes())
    looked_up = colours[np.arange(24) % 5].reshape(4, 6, 4)
    by_alphas = palette.copy()
    by_alphas.info["transparency"] = colours[:, 3].tobytes()
    by_index = palette.copy()
    by_index.info["transparency"] = 2
    one_clear = np.dstack([looked_up[..., :3], 255 * (np.arange(24).reshape(4, 6) % 5 != 2)])
    rgba_palette = palette.copy()
    rgba_palette.putpalette(colours.tobytes(), "RGBA")
    pa = Image.frombytes("PA", (6, 4), np.dstack([np.asarray(palette), rgba[..., 3]]).tobytes())
    pa.putpalette(colours[:, :3].tobytes())
    return {
        "RGBA": (Image.fromarray(rgba), rgba),
        "LA": (Image.frombytes("LA", (6, 4), la[..., 2:].tobytes()), la),
        "P alphas": (by_alphas, looked_up),
        "P index": (by_index, one_clear),
        "P RGBA palette": (rgba_palette, looked_up),
        "PA": (pa, np.dstack([looked_up[..., :3], rgba[..., 3]])),
    }


@pytest.mark.parametrize("name", list(alpha_images()))
def test_alpha_of_pil_images_and_files(name):
    image, rgba = alpha_images()[name]
    expected = np.rint(over_white(rgba, 255) * 255)
    before = image.copy()
    np.testing.assert_array_equal(load_image(image), expected)
    np.testing.assert_array_equal(load_image(image), expected)
    assert image == before and image.info == before.info
    if name in ("RGBA", "LA", "P alphas", "P index"):
        np.testing.assert_array_equal(load_image(encode(image)), expected)


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_alpha(mode):
    pixel = (64, 32, 0, 128) if mode == "RGBa" else (64, 128)
    colour = np.array(pixel[:-1]) if mode == "RGBa" else np.full(3, 64)
    image = load_image(Image.new(mode, (1, 1), pixel))
    assert np.abs(image[0, 0] - (colour + 255 - 128.0)).max() <= 1


# (depth, colour type, one row of samples as bytes, key as in the file, row expected)
KEYED = [
    (1, 0, bytes([0b10100000]), (1,), [255, 0, 255], "white is clear, on white"),
    (1, 0, bytes([0b10100000]), (0,), [255, 255, 255], "black is clear"),
    (2, 0, bytes([0b00011000]), (1,), [0, 255, 170], "2-bit grey"),
    (4, 0, bytes([0x01, 0x20]), (1,), [0, 255, 34], "4-bit grey"),
    (8, 0, bytes([0, 1, 2]), (1,), [0, 255, 2], "8-bit grey"),
    (8, 2, bytes([0, 1, 2, 3, 4, 5, 0, 1, 9]), (0, 1, 2), [[255] * 3, [3, 4, 5], [0, 1, 9]], "RGB"),
    (
        16,
        2,
        struct.pack(">9H", 0x1234, 0x5678, 0x9ABC, 0x3434, 0x7878, 0xBCBC, 0, 0, 0),
        (0x1234, 0x5678, 0x9ABC),
        [[255] * 3, [0x34, 0x78, 0xBC], [0] * 3],
        "16-bit RGB",
    ),
]


@pytest.mark.parametrize("depth, colour, row, key, expected, name", KEYED)
def test_png_transparent_colour(depth, colour, row, key, expected, name):
    data = png(3, 1, depth, colour, [row], [(b"tRNS", struct.pack(f">{len(key)}H", *key))])
    expected = [[v] * 3 if isinstance(v, int) else v for v in expected]
    assert load_image(Image.open(io.BytesIO(data)))[0].tolist() == expected
    if depth < 16:
        assert load_image(data)[0].tolist() == expected


def test_png_transparent_colour_of_16_bit_rgb():
    # The first two have the same high bytes, the first and the last the same low ones.
    key, near, far = (0x1234, 0x5678, 0x9ABC), (0x1235, 0x5678, 0x9ABC), (0x0034, 0x0078, 0x00BC)
    row = struct.pack(">9H", *key, *near, *far)
    data = png(3, 1, 16, 2, [row], [(b"tRNS", struct.pack(">3H", *key))])
    expected = np.float32([[1, 1, 1], np.divide(near, 65535), np.divide(far, 65535)])
    np.testing.assert_array_equal(load_image(data)[0], expected)


def test_png_transparent_colour_of_16_bit_grey():
    # 300 and 44 have the same low byte; 300 and 301 the same high byte.
    data = png(3, 1, 16, 0, [struct.pack(">3H", 300, 44, 301)], [(b"tRNS", struct.pack(">H", 300))])
    expected = np.float32([1, 44 / 65535, 301 / 65535])
    np.testing.assert_array_equal(load_image(data)[0, :, 0], expected)


def test_gif_transparent_index():
    im = Image.frombytes("P", (2, 1), bytes([0, 1]))
    im.putpalette([9, 8, 7, 1, 2, 3])
    data = encode(im, "GIF", transparency=1)
    assert load_image(data).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def srgb_of_lab(lightness, a, b):
    """The CIE formulas, D50, with the Bradford-adapted matrix of sRGB."""
    y = (lightness + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.96422, 1, 0.82521]
    matrix = [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
    linear = np.clip(matrix @ xyz, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_lab():
    # Pillow stores L* scaled to 255, and a* and b* as signed bytes.
    stored = [(0, 0, 0), (255, 0, 0), (128, 0, 0), (149, 27, 56), (200, -30, 20), (90, 10, -40)]
    im = Image.frombytes("LAB", (6, 1), np.array(stored, dtype=np.int16).astype(np.int8).tobytes())
    expected = [srgb_of_lab(lightness / 2.55, a, b) for lightness, a, b in stored]
    assert np.abs(load_image(im)[0] - np.array(expected)).max() <= 2


@pytest.mark.parametrize("stored", ["L", "1", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_modes(stored):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (255, 255, 255), (0, 0, 0)]
    if stored in ("L", "1"):
        colours = [(v, v, v) for v in (0, 255)] + ([(v, v, v) for v in (7, 99)] * (stored == "L"))
    rgb = np.array([colours], dtype=np.uint8)
    image = load_image(Image.fromarray(rgb).convert(stored))
    check_contract(image)
    tolerance = {"YCbCr": 2, "HSV": 4}.get(stored, 0)
    if stored == "P":
        image_of_palette = Image.frombytes("P", (6, 1), bytes(range(6)))
        image_of_palette.putpalette(rgb.tobytes())
        image = load_image(image_of_palette)
    assert np.abs(image.astype(int) - rgb).max() <= tolerance


def test_cmyk_jpeg():
    image = load_image(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 3


def test_bool_array():
    assert load_image(np.array([[True, False]])).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1), (3, 2, 3), (3, 2, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool, np.float32, np.float64])
def test_arrays_are_neither_aliased_nor_changed(shape, dtype):
    array = RNG.random(shape).round().astype(dtype)
    before = array.copy()
    array.flags.writeable = False
    image = load_image(array)
    check_contract(image)
    assert not np.shares_memory(image, array) and image.flags.writeable
    image[:] = 0
    np.testing.assert_array_equal(array, before)


def test_results_from_pil_images_are_writeable():
    source = Image.fromarray(RGB)
    load_image(source)[:] = 0
    np.testing.assert_array_equal(np.asarray(source), RGB)


def test_multi_picture_jpeg_is_its_first_picture():
    other = Image.new("RGB", (16, 16), "red")
    data = encode(Image.new("RGB", (8, 8)), "MPO", save_all=True, append_images=[other])
    assert load_image(data).shape == (8, 8, 3) and load_image(data).max() <= 2


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
            lambda s: st.sampled_from([s, (*s, 3)])
        ),
    )
)
def test_png_round_trip(array):
    expected = array if array.ndim == 3 else grey(array)
    np.testing.assert_array_equal(load_image(encode(array)), expected)
    np.testing.assert_array_equal(load_image(array), expected)


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32, np.float64, np.int32, np.int64, object]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
        elements=st.just(1),
    )
)
def test_any_array_is_read_or_refused(array):
    try:
        image = load_image(array)
    except ImageReadError:
        return
    check_contract(image)
    assert image.shape[:2] == array.shape[:2] == image_size(array)


# ---------------------------------------------------------------- errors


def frames(format):
    pages = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    return encode(pages[0], format, save_all=True, append_images=pages[1:])


def bad_items(folder):
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("<html>not found</html>")
    (folder / "cut.png").write_bytes(encode(RNG.integers(0, 256, (50, 50), np.uint8))[:900])
    nan = np.full((2, 2), 0.5)
    nan[0, 1] = np.nan
    items = [
        ("missing", str(folder / "no.png"), "path not found"),
        ("empty path", "", "path not found"),
        ("null character", "a\0b", "cannot be opened"),
        ("directory", folder, "is a directory"),
        ("empty file", folder / "empty.png", "empty (0 bytes)"),
        ("empty bytes", b"", "empty (0 bytes)"),
        ("text", folder / "text.png", "not an image"),
        ("text bytes", b"hello", "not an image"),
        ("truncated PNG", folder / "cut.png", "truncated"),
        ("truncated JPEG", encode(np.resize(RGB, (64, 64, 3)), "JPEG")[:-400], "truncated"),
        ("channels 2", np.zeros((8, 8, 2), np.uint8), "2 channels"),
        ("channels 5", np.zeros((8, 8, 5), np.uint8), "5 channels"),
        ("channels first 1", np.zeros((1, 8, 9), np.uint8), "np.moveaxis(x, 0, -1)"),
        ("channels first 3", np.zeros((3, 8, 9), np.uint8), "np.moveaxis(x, 0, -1)"),
        ("channels first 4", np.zeros((4, 8, 9), np.uint8), "np.moveaxis(x, 0, -1)"),
        ("1-D", np.zeros(8, np.uint8), "2 or 3 dimensions"),
        ("4-D", np.zeros((1, 8, 8, 3), np.uint8), "2 or 3 dimensions"),
        ("no pixels", np.zeros((0, 8, 3), np.uint8), "no pixels"),
        ("no pixels PIL", Image.new("RGB", (0, 3)), "no pixels"),
        ("NaN", nan, "NaN or infinity"),
        ("inf", nan * np.inf, "NaN or infinity"),
        ("float 255", np.full((2, 2), 255.0), "divide values of 0..255 by 255"),
        ("negative", np.full((2, 2), -0.1, np.float32), "-0.1..-0.1"),
        ("mode F", Image.fromarray(np.full((2, 2), 2, np.float32)), "must lie in [0, 1]"),
        ("mode F NaN", Image.fromarray(nan.astype(np.float32)), "NaN or infinity"),
        ("mode I", Image.fromarray(np.full((2, 2), 65536, np.int32)), "0..65535"),
        ("mode I negative", Image.fromarray(np.full((2, 2), -1, np.int32)), "0..65535"),
        ("GIF", frames("GIF"), "pick it in Python"),
        ("APNG", frames("PNG"), "pick it in Python"),
        ("TIFF", frames("TIFF"), "pick it in Python"),
        ("PIL GIF", Image.open(io.BytesIO(frames("GIF"))), "pick it in Python"),
        ("None", None, "accepted are a path"),
        ("int", 3, "accepted are a path"),
        ("list", [[0, 1]], "accepted are a path"),
    ]
    if features.check("webp"):
        items.append(("WebP", frames("WEBP"), "pick it in Python"))
    for dtype in (np.int64, np.int8, np.uint32):
        items.append((f"dtype {dtype}", np.zeros((2, 2), dtype), "does not say which number is"))
    for dtype in (np.complex64, object, "U1"):
        items.append((f"dtype {dtype}", np.zeros((2, 2), dtype), "accepted: uint8, uint16, bool"))
    return items


def test_errors(tmp_path):
    for name, item, message in bad_items(tmp_path):
        with pytest.raises(ImageReadError) as info:
            load_image(item, 17)
        assert message in str(info.value) and "image 17 (" in str(info.value), name
        if isinstance(item, (str, Path)):
            assert repr(str(item)) in str(info.value), name
        with pytest.raises(ImageReadError) as info:
            load_image(item)
        assert str(info.value).startswith("Cannot read image ("), name


def test_header_errors_are_those_of_loading(tmp_path):
    header_only = ("path", "opened", "directory", "empty", "not an image", "channels", "moveaxis")
    header_only += ("dimensions", "no pixels", "pick it in Python", "accepted")
    for name, item, message in bad_items(tmp_path):
        if any(word in message for word in header_only):
            with pytest.raises(ImageReadError) as info:
                image_size(item, 17)
            assert message in str(info.value) and "image 17 (" in str(info.value), name


def test_header_is_enough_for_the_size(tmp_path):
    data = encode(RNG.integers(0, 256, (50, 60), np.uint8))[:900]
    assert image_size(data) == (50, 60)
    assert image_size(EncodedImage(data, "a.png")) == (50, 60)


def test_encoded_images_remember_their_path(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    encoded = read_item(tmp_path / "text.png", 2)
    (tmp_path / "text.png").unlink()
    with pytest.raises(ImageReadError, match="image 5 .*text.png"):
        load_image(encoded, 5)


def test_read_item_errors(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    for name, message in [("empty.png", "empty"), ("no.png", "not found"), ("", "directory")]:
        with pytest.raises(ImageReadError, match=message):
            read_item(tmp_path / name, 3)


def test_permission(monkeypatch):
    def denied(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open", denied, raising=False)
    with pytest.raises(ImageReadError, match="image 4 .*permission denied"):
        load_image("secret.png", 4)


def test_the_error_is_an_oserror_and_a_valueerror_and_keeps_its_cause():
    with pytest.raises(ImageReadError) as info:
        load_image(b"hello", 1)
    assert isinstance(info.value, OSError) and isinstance(info.value, ValueError)
    assert isinstance(info.value.__cause__, Image.UnidentifiedImageError)
    assert str(pickle.loads(pickle.dumps(info.value))) == str(info.value)


@pytest.mark.parametrize("limit", [34, 20, 10, 1])  # the image has 35 pixels
@pytest.mark.parametrize("action", ["error", "ignore", "always"])
def test_decompression_bombs(monkeypatch, limit, action):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for read in (load_image, image_size):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            if action == "always":
                warnings.filterwarnings("ignore", category=ResourceWarning)
                with warnings.catch_warnings(record=True), pytest.raises(ImageReadError) as info:
                    read(encode(RGB), 2)
            else:
                with pytest.raises(ImageReadError) as info:
                    read(encode(RGB), 2)
        assert "35 pixels" in str(info.value)
        assert "PIL.Image.MAX_IMAGE_PIXELS" in str(info.value)
        assert "image 2 (" in str(info.value)
    assert load_image(RGB).shape == RGB.shape  # an array in memory is no bomb


@pytest.mark.parametrize("limit", [None, 35])
def test_the_limit_on_pixels_is_the_users(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    np.testing.assert_array_equal(load_image(encode(RGB)), RGB)


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF"])
def test_truncation_is_an_error_whatever_the_global(monkeypatch, value, format):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", value)
    data = encode(RNG.integers(0, 256, (40, 40, 3), np.uint8), format)
    cut = data[: len(data) // 2] if format != "TIFF" else data[:-1000]
    for item in (cut,) if format == "TIFF" else (cut, Image.open(io.BytesIO(cut))):
        with pytest.raises(ImageReadError):
            load_image(item)
    assert load_image(data).shape == (40, 40, 3)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is value


def test_truncation_is_an_error_in_threads(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encode(RNG.integers(0, 256, (40, 40, 3), np.uint8), "JPEG")
    outcomes = []

    def work(own, expected):
        for _ in range(30):
            try:
                load_image(own)
                outcomes.append(expected is None)
            except ImageReadError:
                outcomes.append(expected is ImageReadError)

    jobs = [(data, None), (data[:-300], ImageReadError)] * 2
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 120 and all(outcomes)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    "error", [struct.error, SyntaxError, EOFError, zlib.error, OverflowError, MemoryError, KeyError]
)
def test_strange_errors_of_decoders(monkeypatch, error):
    def broken(self):
        raise error("strange")

    monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
    with pytest.raises(ImageReadError) as info:
        load_image(encode(RGB, "BMP"), 6)
    assert isinstance(info.value.__cause__, error)


FUZZ_FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF"] + ["WEBP"] * features.check("webp")


@pytest.mark.parametrize("format", FUZZ_FORMATS)
def test_damaged_files_are_read_or_refused(format):
    random_ = random.Random(f"fuzz {format}")
    image = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
    valid = encode(image, format, **({"exif": exif(6)} if format not in ("GIF", "BMP") else {}))
    load_image(valid)
    for case in range(50):
        data = bytearray(valid)
        if case % 2:
            del data[random_.randrange(len(data)) :]
        else:
            # Half of the flips go to the headers, where the structure is.
            end = 64 if case % 4 else len(data)
            for _ in range(random_.randint(1, 4)):
                data[random_.randrange(end)] ^= 1 << random_.randrange(8)
        for read in (load_image, image_size):
            try:
                result = read(bytes(data), case)
            except ImageReadError as exc:
                assert f"image {case} (" in str(exc)
            else:
                if read is load_image:
                    check_contract(result)


# ---------------------------------------------------------------- digests


def test_digest_is_of_the_content(tmp_path):
    data = encode(RGB)
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "b.dat").write_bytes(data)
    items = [tmp_path / "a.png", str(tmp_path / "b.dat"), data, bytearray(data), memoryview(data)]
    items.append(read_item(tmp_path / "a.png"))
    digests = {content_digest(item) for item in items}
    assert len(digests) == 1 and len(digests.pop()) == 64
    assert content_digest(data) != content_digest(data + b"\0")


def test_digests_of_arrays_differ_with_everything_that_matters():
    zeros = np.zeros((2, 3), np.uint8)
    changed = zeros.copy()
    changed[1, 2] = 1
    arrays = [zeros, zeros.T, changed, zeros[..., None]]
    arrays += [zeros.astype(bool), zeros.astype(np.float32)]
    assert len({content_digest(array) for array in arrays}) == len(arrays)
    assert content_digest(RGB) == content_digest(RGB.copy()) == content_digest(RGB[::-1][::-1])
    assert content_digest(np.asfortranarray(RGB)) == content_digest(RGB)


def test_digests_of_pil_images_differ_with_the_decoded_pixels():
    indices = Image.frombytes("P", (2, 3), bytes(range(6)))
    palettes = []
    for transparency in (None, 0, 1, bytes([9, 8])):
        for palette in (list(range(18)), list(range(1, 19))):
            image = indices.copy()
            image.putpalette(palette)
            if transparency is not None:
                image.info["transparency"] = transparency
            palettes.append(image)
    images = palettes + [indices.convert("L"), indices.convert("L").resize((3, 2))]
    turned = [Image.open(io.BytesIO(encode(RGB, exif=exif(k)))) for k in range(1, 9)]
    digests = [content_digest(image) for image in images + turned]
    assert len(set(digests)) == len(digests)
    assert digests == [content_digest(image) for image in images + turned]
    assert content_digest(Image.fromarray(RGB)) == content_digest(Image.fromarray(RGB.copy()))


@pytest.mark.parametrize("item", [np.array([[None]]), "no.png", None, Image.new("L", (0, 0))])
def test_digest_errors(item):
    with pytest.raises(ImageReadError, match="image 3 "):
        content_digest(item, 3)


# ---------------------------------------------------------------- containers


def test_check_images_accepts_collections():
    pandas = pytest.importorskip("pandas")
    paths = ["a.png", "b.png"]
    mixed = np.empty(3, dtype=object)
    mixed[:] = ["a.png", RGB, None]
    assert check_images(paths) == check_images(tuple(paths)) == paths
    assert check_images(np.array(paths)) == paths
    assert type(check_images(np.array(paths))[0]) is str
    assert check_images(np.array(paths, dtype=object)) == paths
    assert check_images(pandas.Series(paths, index=[7, 7])) == paths
    assert check_images(pandas.Series(paths, dtype="string")) == paths
    assert check_images(mixed)[1] is RGB
    assert check_images(paths) is not paths
    for channels in (1, 3, 4):
        batch = RNG.integers(0, 256, (2, 5, 6, channels), dtype=np.uint8)
        items = check_images(batch)
        assert isinstance(items, list) and len(items) == 2
        np.testing.assert_array_equal(items[1], batch[1])


@pytest.mark.parametrize(
    "X, error, message",
    [
        ("a.png", TypeError, "wrap it in a list"),
        (Path("a.png"), TypeError, "wrap it in a list"),
        (b"abc", TypeError, "wrap it in a list"),
        (bytearray(b"abc"), TypeError, "wrap it in a list"),
        (Image.new("L", (2, 2)), TypeError, "wrap it in a list"),
        (EncodedImage(b"", "a"), TypeError, "wrap it in a list"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, "wrap a single image in a list"),
        ({"a": 1}, TypeError, "dict"),
        ({"a.png"}, TypeError, "set"),
        ((p for p in ["a.png"]), TypeError, "generator"),
        (None, TypeError, "NoneType"),
        (3, TypeError, "int"),
        (np.zeros((4, 5)), ValueError, "not a table of numbers"),
        (np.zeros(4), ValueError, "not a table of numbers"),
        (np.array(1), ValueError, "not a table of numbers"),
        (np.zeros((2, 8, 8, 3), np.float32), ValueError, "must be uint8"),
        (np.zeros((2, 8, 8, 3), np.uint16), ValueError, "must be uint8"),
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, "np.moveaxis(X, 1, -1)"),
        (np.zeros((2, 8, 8, 2), np.uint8), ValueError, "channels are accepted"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), ValueError, "(n, H, W, C)"),
        (np.array([["a.png"]]), ValueError, "X.ravel()"),
        (np.array(None), ValueError, "1-D"),
    ],
)
def test_check_images_refuses(X, error, message):
    with pytest.raises(error) as info:
        check_images(X)
    assert message in str(info.value)


@pytest.mark.parametrize(
    "X", [[], (), np.array([], dtype=object), np.array([], dtype=str), np.zeros((0, 4, 4, 3), "u1")]
)
def test_check_images_refuses_empty_input(X):
    with pytest.raises(ValueError) as info:
        check_images(X)
    assert "0 sample(s)" in str(info.value) and "minimum of 1 is required" in str(info.value)


def test_check_images_refuses_a_data_frame():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match="column"):
        check_images(pandas.DataFrame({"path": ["a.png"]}))


# ---------------------------------------------------------------- resizing


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    "old, new",
    [((1, 1), (9, 4)), ((3000, 2), (1, 1))],
)
def test_resizing_a_flat_image_gives_a_flat_image(interpolation, dtype, old, new):
    colour = np.array([0, 100, 255]) if dtype == np.uint8 else np.array([0, 0.3, 1])
    image = np.broadcast_to(colour.astype(dtype), (*old, 3))
    resized = resize_image(image, new, interpolation)
    check_contract(resized)
    assert resized.dtype == dtype and resized.shape == (*new, 3)
    np.testing.assert_allclose(resized, np.broadcast_to(colour, resized.shape), atol=1e-6)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resizing_is_the_same_for_both_dtypes(interpolation):
    # Of low contrast: uint8 overshoots are clipped between the two passes, float ones after both.
    image = RNG.integers(100, 150, (20, 31, 3), dtype=np.uint8)
    for size in [(7, 9), (40, 50), (1, 31)]:
        wide = resize_image((image / 255).astype(np.float32), size, interpolation)
        check_contract(wide)
        narrow = resize_image(image, size, interpolation)
        assert np.abs(wide * 255 - narrow).max() <= 1.5


def test_resizing_antialiases():
    stripes = np.zeros((8, 64, 3), np.float32)
    stripes[:, ::2] = 1
    np.testing.assert_allclose(resize_image(stripes, (8, 8), "bilinear")[:, 1:-1], 0.5, atol=0.01)


def test_bilinear_halving_against_its_formula():
    # At half size the triangle filter spans four pixels, with weights 1, 3, 3, 1.
    row = RNG.random(12).astype(np.float32)
    image = np.broadcast_to(row[None, :, None], (2, 12, 3))
    expected = [row[2 * i - 1 : 2 * i + 3].astype(float) @ [1, 3, 3, 1] / 8 for i in range(1, 5)]
    resized = resize_image(image, (2, 6), "bilinear")
    np.testing.assert_allclose(resized[0, 1:5, 1], expected, atol=1e-6)


def test_overshoot_is_clipped():
    edge = np.zeros((4, 8, 3), np.float32)
    edge[:, 4:] = 1
    for interpolation in ("bicubic", "lanczos"):
        resized = resize_image(edge, (16, 32), interpolation)
        assert resized.min() == 0 and resized.max() == 1


def test_resizing_to_the_same_size_does_nothing():
    assert resize_image(RGB, RGB.shape[:2]) is RGB


@pytest.mark.parametrize(
    "image, size, interpolation, message",
    [
        (RGB, (4, 4), "area", "not one of"),
        (RGB, (0, 4), "bicubic", "Cannot resize"),
        (RGB[:0], (4, 4), "bicubic", "Cannot resize"),
        (RGB[..., 0], (4, 4), "bicubic", "uint8 or float32 image"),
        (RGB.astype(float), (4, 4), "bicubic", "uint8 or float32 image"),
    ],
)
def test_resizing_refuses(image, size, interpolation, message):
    with pytest.raises(ValueError, match=message):
        resize_image(image, size, interpolation)
