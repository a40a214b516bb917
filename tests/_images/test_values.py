"""Which numbers of an image are black and white, against plain NumPy."""

import io

import numpy as np
import pytest
from _image_files import encode, png, png16, tiff
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, features

from skanomaly._images import (
    ImageReadError,
    content_digest,
    image_size,
    load_image,
    load_with_span,
    small_range_message,
    viewable_image,
)
from skanomaly._images.values import Span
from skanomaly._parameters import check_value_range

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (6, 7)).astype(np.uint16)
TWELVE[0, :2] = 0, 4095
EIGHT = RNG.integers(0, 201, (6, 7, 3)).astype(np.uint8)
COLOUR = RNG.integers(0, 4096, (6, 7, 3)).astype(np.uint16)
DEGREES = RNG.uniform(20, 80, (6, 7)).astype(np.float32)
SIGNED = RNG.integers(-3000, 3001, (6, 7)).astype(np.int16)
BIG = RNG.integers(2**31 + 5, 2**31 + 100_000, (6, 7)).astype(np.uint32)
# Two numbers of 12 bits in three bytes: 0xfff and 0x801.
TIFF_12 = tiff(2, 1, 12, 1, bytes([0xFF, 0xF8, 0x01]))


def unit(values, black, white):
    """In float64; greys as (H, W, 3)."""
    scaled = (np.asarray(values, np.float64) - black) / (white - black)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


def grey_tiff(values, photometric=1, sample_format=1, order="<"):
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = 8 * values.itemsize
    return tiff(7, 6, bits, photometric, data, sample_format, order=order)


def colour_tiff(values, order="<", planar=1):
    channels = values.shape[2]
    data = np.moveaxis(values, 2, 0) if planar == 2 else values
    data = np.ascontiguousarray(data).astype(f"{order}u2").tobytes()
    return tiff(7, 6, 16, 2, data, samples=channels, planar=planar, order=order)


KINDS = {
    "uint16 array": (TWELVE, 4095, unit(TWELVE, 0, 4095)),
    "big-endian array": (TWELVE.astype(">u2"), 4095, unit(TWELVE, 0, 4095)),
    "pair": (TWELVE, (0, 4095), unit(TWELVE, 0, 4095)),
    "black": (TWELVE + np.uint16(100), (100, 4195), unit(TWELVE, 0, 4095)),
    "uint16 RGB array": (COLOUR, 4095, unit(COLOUR, 0, 4095)),
    "uint8 array": (EIGHT, 200, unit(EIGHT, 0, 200)),
    "int16 array": (SIGNED, (-3000, 3000), unit(SIGNED, -3000, 3000)),
    "uint32 array": (BIG, (2**31, 2**31 + 100_000), unit(BIG, 2**31, 2**31 + 100_000)),
    "float32 array": (DEGREES, (20.0, 80.0), unit(DEGREES, 20, 80)),
    "float64 array": (DEGREES.astype(float), (20.0, 80.0), unit(DEGREES, 20, 80)),
    "float16 array": (np.float16([[20, 50, 80]]), (20, 80), unit([[20, 50, 80]], 20, 80)),
    "bool array": (TWELVE > 2000, 255, unit(TWELVE > 2000, 0, 1)),
    "PNG": (encode(TWELVE), 4095, unit(TWELVE, 0, 4095)),
    "8-bit PNG": (encode(EIGHT), 200, unit(EIGHT, 0, 200)),
    "I;16": (Image.fromarray(TWELVE), 4095, unit(TWELVE, 0, 4095)),
    "I": (Image.fromarray(SIGNED.astype(np.int32)), (-3000, 3000), unit(SIGNED, -3000, 3000)),
    "F": (Image.fromarray(DEGREES), (20.0, 80.0), unit(DEGREES, 20, 80)),
    "float TIFF": (encode(DEGREES, "TIFF"), (20.0, 80.0), unit(DEGREES, 20, 80)),
    "signed TIFF": (grey_tiff(SIGNED, 1, 2), (-3000, 3000), unit(SIGNED, -3000, 3000)),
    "signed big-endian TIFF": (
        grey_tiff(SIGNED, 1, 2, ">"),
        (-3000, 3000),
        unit(SIGNED, -3000, 3000),
    ),
    "signed 8-bit TIFF": (
        grey_tiff((SIGNED // 30).astype(np.int8), 1, 2),
        (-100, 100),
        unit(SIGNED // 30, -100, 100),
    ),
    "uint32 TIFF": (grey_tiff(BIG), (2**31, 2**31 + 100_000), unit(BIG, 2**31, 2**31 + 100_000)),
    "white is zero": (grey_tiff(TWELVE, 0), 4095, 1 - unit(TWELVE, 0, 4095)),
    "white is zero, 8 bits": (grey_tiff(EIGHT[..., 0], 0), 200, 1 - unit(EIGHT[..., 0], 0, 200)),
    "white is zero, float": (
        grey_tiff(DEGREES, 0, 3),
        (20, 80),
        1 - unit(DEGREES, 20, 80),
    ),
    "12-bit TIFF": (TIFF_12, 4095, unit([[4095, 0x801]], 0, 4095)),
    "RGB PNG of 16 bits": (png16(COLOUR), 4095, unit(COLOUR, 0, 4095)),
    "RGB TIFF of 16 bits": (colour_tiff(COLOUR), 4095, unit(COLOUR, 0, 4095)),
    "big-endian RGB TIFF": (colour_tiff(COLOUR, ">"), 4095, unit(COLOUR, 0, 4095)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_black_and_white_become_0_and_1(kind, tmp_path):
    item, value_range, expected = KINDS[kind]
    image = load_image(item, value_range=value_range)
    assert image.dtype == np.float32 and image.flags.c_contiguous
    np.testing.assert_allclose(image, expected, atol=2e-7)
    assert image.min() >= 0 and image.max() <= 1
    assert image_size(item) == expected.shape[:2]
    if isinstance(item, bytes):
        (tmp_path / "a").write_bytes(item)
        np.testing.assert_array_equal(load_image(tmp_path / "a", value_range=value_range), image)


def over_white(values):
    """In float64, of numbers of 16 bits."""
    scaled = values / 65535
    return scaled[..., :3] * scaled[..., 3:] + 1 - scaled[..., 3:]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "big-endian TIFF"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_is_read_at_its_precision(form, channels):
    values = RNG.integers(0, 65536, (6, 7, channels)).astype(np.uint16)
    data = png16(values) if form == "PNG" else colour_tiff(values, "<>"[form != "TIFF"])
    expected = over_white(values) if channels == 4 else values / 65535
    image = load_image(data)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, atol=2e-7)


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
def test_compressed_16_bit_colour(compression):
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, COLOUR, photometric="rgb", compression=compression)
    image = load_image(stream.getvalue(), value_range=4095)
    np.testing.assert_allclose(image, unit(COLOUR, 0, 4095), atol=2e-7)


def test_turned_16_bit_colour():
    values = RNG.integers(0, 65536, (6, 7, 3)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    rows = [row.astype(">u2").tobytes() for row in values]
    image = load_image(png(7, 6, 16, 2, rows, before=[(b"eXIf", block)]))
    np.testing.assert_allclose(image, np.rot90(values, -1) / 65535, atol=1e-7)


@pytest.mark.parametrize("form", ["array", "PNG"])
def test_alpha_keeps_its_own_scale(form):
    alpha = RNG.integers(0, 65536, (6, 7, 1)).astype(np.uint16)
    alpha[0, 0], alpha[0, 1] = 0, 65535
    rgba = np.concatenate([COLOUR, alpha], axis=2)
    rgba[0, 0, :3] = 65535  # beyond the range, but not to be seen
    item = rgba if form == "array" else png16(rgba)
    share = alpha / 65535
    expected = COLOUR / 4095 * share + 1 - share
    image, span = load_with_span(item, value_range=4095)
    np.testing.assert_allclose(image, expected, atol=2e-7)
    assert span.high <= 4095
    eight = np.dstack([EIGHT, np.full((6, 7), 255, np.uint8)])
    eight[0, 0, 3] = 0
    expected = unit(EIGHT, 0, 200)
    expected[0, 0] = 1
    np.testing.assert_allclose(load_image(eight, value_range=200), expected, atol=1e-7)
    nan = np.dstack([DEGREES] * 3 + [np.ones_like(DEGREES)])
    nan[0, 0] = np.nan, np.nan, np.nan, 0
    assert load_image(nan, value_range=(20, 80))[0, 0].tolist() == [1, 1, 1]


def test_the_transparent_number_of_a_grey_file_may_lie_anywhere():
    rows = [np.array([60000, 0, 4095], ">u2").tobytes()]
    data = png(3, 1, 16, 0, rows, [(b"tRNS", np.array(60000, ">u2").tobytes())])
    assert load_image(data, value_range=4095)[0, :, 0].tolist() == [1, 0, 1]
    assert load_image(np.zeros((2, 2, 4)), value_range=5).min() == 1  # nothing is seen


def test_what_is_read_as_8_bits_is_scaled_in_8_bits():
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 100, 150, 200, 20, 40, 60])
    expected = [[0, 0, 0], [0.5, 0.75, 1], [0.1, 0.2, 0.3]]
    for item in (palette, encode(palette)):
        np.testing.assert_allclose(load_image(item, value_range=200)[0], expected, atol=1e-7)
    two_bits = png(4, 1, 2, 0, [bytes([0b00011011])])
    expected = np.array([0, 1, 2, 3]) / 3
    np.testing.assert_allclose(load_image(two_bits, value_range=255)[0, :, 0], expected, atol=1e-7)
    cmyk = Image.fromarray(EIGHT).convert("CMYK")
    np.testing.assert_allclose(load_image(cmyk, value_range=200), unit(EIGHT, 0, 200), atol=1e-7)
    assert load_image(Image.new("1", (1, 1), 1), value_range=255).tolist() == [[[1, 1, 1]]]


REFUSED = [
    (TWELVE, 2000, "its values span 0..4095, beyond value_range=(0, 2000); pass value_range="),
    (TWELVE, 2000, "(0, 4095), or wider"),
    (TWELVE + np.uint16(5), (10, 5000), "span 5..4100, beyond value_range=(10, 5000)"),
    (EIGHT, 4095, "has its white at 4095, but this image is read with 8 bits"),
    (encode(EIGHT), 4095, "nearly black"),
    (Image.new("1", (2, 2)), 4095, "8 bits"),
    (encode(TWELVE), 65536, "16 bits, of which 65535 is the most"),
    (TIFF_12, 65535, "12 bits, of which 4095 is the most"),
    (DEGREES, (20.0, 60.0), "beyond value_range=(20, 60)"),
    (np.float32([[np.nan, 30]]), (20, 80), "NaN or infinity"),
    (Image.fromarray(DEGREES), None, "pass value_range=(black, white)"),
    (SIGNED, None, "dtype int16 does not say which number is white; pass value_range="),
    (grey_tiff(np.abs(SIGNED), 1, 2), None, "dtype int16 does not say which number is white"),
    (grey_tiff(np.full((6, 7), 3, np.int8), 1, 2), None, "dtype int8 does not say"),
    (Image.fromarray(np.full((2, 2), 70000, np.int32)), None, "70000..70000, beyond the 16-bit"),
    (grey_tiff(BIG), None, "beyond the 16-bit range 0..65535"),
    (np.dstack([SIGNED] * 4), (-3000, 3000), "alpha of dtype int16 has no known scale"),
    (png16(COLOUR[..., :2]), 4095, "Pillow reads its 16 bits as 8"),
    (Image.open(io.BytesIO(png16(COLOUR))), 4095, "pass a path or bytes"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_refused(number):
    item, value_range, message = REFUSED[number]
    with pytest.raises(ImageReadError) as info:
        load_image(item, 17, value_range)
    assert message in str(info.value) and "image 17 (" in str(info.value)
    if value_range is not None:
        assert "value_range" in str(info.value) or "NaN" in message or "alpha" in message


def test_16_bit_planes_that_pillow_misreads_are_refused():
    data = colour_tiff(COLOUR, planar=2)
    for read in (load_image, image_size):
        with pytest.raises(ImageReadError, match="image 3 .*plane for each channel"):
            read(data, 3)


@pytest.mark.parametrize(
    "value", [0, -1, (5, 5), (5, 1), (1, 2, 3), (1,), ("a", 3), (0, np.inf), np.nan, (True, 3)]
)
def test_no_range(value):
    with pytest.raises(ValueError, match="value_range="):
        check_value_range(value)
    with pytest.raises(ValueError, match="value_range="):
        load_image(TWELVE, value_range=value)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64]),
        (3, 4),
        elements=st.integers(0, 100),
    ),
    st.integers(-50, 0),
    st.integers(100, 255),
)
def test_any_type_has_the_same_image(values, black, white):
    image = load_image(values, value_range=(black, white))
    np.testing.assert_allclose(image, unit(values, black, white), atol=1e-6)


def test_digests_of_what_only_a_range_can_read():
    image = Image.fromarray(DEGREES)
    assert content_digest(image, 0, (20, 80)) == content_digest(image.copy(), 0, (20, 80))
    assert content_digest(SIGNED) != content_digest(SIGNED + np.int16(1))


# ---------------------------------------------------------------- a small part of the range


SIXTEEN = (0, 65535)


@pytest.mark.parametrize(
    "item, expected",
    [
        (TWELVE, (0, 4095, *SIXTEEN)),
        (encode(TWELVE), (0, 4095, *SIXTEEN)),
        (png16(COLOUR), (COLOUR.min(), COLOUR.max(), *SIXTEEN)),
        (np.float32([[0.25, 0.5]]), (0.25, 0.5, 0, 1)),
        (TIFF_12, (0x801, 4095, 0, 4095)),
        (EIGHT, None),
        (encode(EIGHT), None),
        (TWELVE > 5, None),
    ],
)
def test_spans_are_in_the_numbers_of_the_file(item, expected):
    assert load_with_span(item)[1] == expected


def test_spans_with_a_range():
    assert load_with_span(TWELVE, 0, (0, 8000))[1] == (0, 4095, 0, 8000)
    assert load_with_span(EIGHT, 0, 200)[1] is None


@pytest.mark.parametrize(
    "spans, found, remedy",
    [
        ([Span(5, 4000, *SIXTEEN)], "values 5..4000 of 0..65535", "Pass value_range=4095 if"),
        ([Span(5, 900, *SIXTEEN), Span(2, 1000, *SIXTEEN), None], "2..1000", "value_range=1023"),
        ([Span(0, 255, *SIXTEEN)], "0..255", "value_range=255 if these are numbers of 8 bits"),
        ([Span(0, 16383, *SIXTEEN)], "0..16383", "value_range=16383"),
        ([Span(20000, 24000, *SIXTEEN)], "20000..24000", "Pass value_range=(black, white)"),
        ([Span(3000, 3500, *SIXTEEN)], "3000..3500", "Pass value_range=(black, white)"),
        ([Span(0.0, 0.0625, 0, 1)], "0..0.0625 of 0..1", "Pass value_range=(black, white)"),
        ([Span(0, 1000, 0, 8000), Span(0, 1, 0, 1)], "0..1000 of 0..8000", "value_range=1023"),
        ([Span(-5, 9, -100, 100)], "-5..9 of -100..100", "Pass value_range=(black, white)"),
    ],
)
def test_a_small_part_is_told(spans, found, remedy):
    message = small_range_message(spans)
    assert found in message and remedy in message


@pytest.mark.parametrize(
    "spans",
    [
        [],
        [None, None],
        [Span(0, 16384, *SIXTEEN)],
        [Span(0, 10, *SIXTEEN), Span(30000, 30001, *SIXTEEN)],  # together they use it
        [Span(7, 7, *SIXTEEN)],  # of one number: no range gives it contrast
    ],
)
def test_a_large_part_is_not_told(spans):
    assert small_range_message(spans) is None


# ---------------------------------------------------------------- for the eye


def test_deep_images_can_be_seen():
    np.testing.assert_allclose(viewable_image(TWELVE), unit(TWELVE, 0, 4095), atol=1e-7)
    low, high = DEGREES.min(), DEGREES.max()
    np.testing.assert_allclose(viewable_image(DEGREES), unit(DEGREES, low, high), atol=1e-6)
    low, high = int(SIGNED.min()), int(SIGNED.max())
    np.testing.assert_allclose(viewable_image(SIGNED), unit(SIGNED, low, high), atol=1e-6)
    for item in (EIGHT, encode(EIGHT), TWELVE * np.uint16(16), np.full((3, 3), 0.5)):
        np.testing.assert_array_equal(viewable_image(item), load_image(item))
    assert viewable_image(np.full((2, 2), 30.0)).max() == 0


# ---------------------------------------------------------------- truncated files

CUT = ["PNG", "JPEG", "BMP", "TIFF", "PPM", "GIF"]
CUT += ["WEBP"] * features.check("webp") + ["JPEG2000"] * features.check("jpg_2000")


@pytest.mark.parametrize("format", CUT)
def test_a_truncated_file_is_never_another_image(format):
    """Cut anywhere: refused, or the same picture where only what follows the pixels is gone."""
    image = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    options = {"tile_size": (16, 16)} if format == "JPEG2000" else {}
    data = encode(image, format, **options)
    whole, refused = load_image(data), 0
    for end in [*range(1, len(data), 7), *range(len(data) - 25, len(data))]:
        try:
            np.testing.assert_array_equal(load_image(data[:end]), whole)
        except ImageReadError as exc:
            assert "Cannot read image" in str(exc)
            refused += 1
    assert refused >= len(data) // 7 - 25


@pytest.mark.parametrize("share", [1.5, 3])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_told_in_one_way(monkeypatch, share):
    """Pillow warns beyond its limit, and raises beyond twice that, telling twice the limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(EIGHT[..., 0].size / share))
    for read in (load_image, image_size):
        with pytest.raises(ImageReadError) as info:
            read(encode(EIGHT), 4)
        for text in ("image 4 (", "42 pixels", f"limit of {int(42 / share)} ", "--max-pixels"):
            assert text in str(info.value)
        assert "PIL.Image.MAX_IMAGE_PIXELS" in str(info.value)
