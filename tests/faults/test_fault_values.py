"""Rows of the fault matrix about what the numbers of an image mean."""

import io

import numpy as np
import pytest
from _fault_models import GOOD, embedder, is_read_as, picture, saved
from _fault_table import Table
from _image_files import encode, png16, tiff
from PIL import Image

from skanomaly._images import load_image

ORDER = 3
TABLE = Table(
    "values",
    "Depth, colour and transparency",
    "The reader has to know which number is black and which is white: with a wrong guess a\n"
    "picture has no contrast.",
)
PICTURE = picture()
WIDE = np.random.default_rng(5).integers(0, 65536, (8, 10, 3)).astype(np.uint16)
TELLS = "`ImageReadError`, with number: "


def unit(values, white):
    return (np.asarray(values, np.float64) / white).astype(np.float32)


def grey(values):
    return np.ascontiguousarray(np.repeat(np.asarray(values)[..., None], 3, axis=-1))


# ---------------------------------------------------------------- depth


@TABLE.row(
    "{bits}-bits-in-16-{form}",
    "numbers of {bits} bits in a {form} of 16, `value_range={bits} bits`",
    "white is the greatest number of {bits} bits; nothing is clipped, nothing is nearly black",
    bits=[10, 12, 14],
    form=["array", "PNG", "TIFF"],
)
def _(here, bits, form):
    white = 2**bits - 1
    values = np.linspace(0, white, 80).round().astype(np.uint16).reshape(8, 10)
    item = values if form == "array" else encode(values, form)
    found = load_image(item, value_range=white)
    np.testing.assert_allclose(found, grey(unit(values, white)), atol=1e-7)
    assert len(np.unique(found)) == 80 and found.max() == 1


@TABLE.row(
    "{bits}-bits-untold",
    "training images of {bits} bits in 16 without `value_range`",
    "`fit` warns, names the least and the greatest number, and says `value_range={bits} bits`",
    bits=[10, 12, 14],
)
def _(here, bits):
    white = 2**bits - 1
    deep = [(image[..., 0].astype(np.uint16) * (white // 255)) for image in GOOD]
    with pytest.warns(UserWarning, match=f"Pass value_range={white} if these are numbers of"):
        embedder().fit_transform(deep)


@TABLE.row(
    "beyond-{what}",
    "a number beyond `value_range`, in {what}",
    f"{TELLS}“beyond value_range”; it is not clipped",
    what={"uint16": "an array of 16 bits", "file": "a file of 16 bits", "float": "floats"},
)
def _(here, what):
    values = np.full((8, 8), 4096)
    item = {"uint16": values.astype(np.uint16), "float": values * 1.0}.get(what)
    item = encode(values.astype(np.uint16)) if item is None else item
    with pytest.raises(ValueError, match=r"image 1 \(.*4096..4096, beyond value_range=\(0, 4095\)"):
        embedder(value_range=4095).transform([values.astype(np.uint16) - 9, item])


@TABLE.row(
    "range-{value}",
    "`value_range={value}`",
    "`ValueError`: “value_range=” with what was passed, before any image is read",
    value=[0, -1, (5, 5), (5, 1), (1, 2, 3), "white", float("nan"), (0, float("inf")), True],
)
def _(here, value):
    with pytest.raises(ValueError, match="value_range"):
        embedder(value_range=value).transform([here / "is not read.png"])


@TABLE.row(
    "range-of-8-bits",
    "`value_range=4095` and a picture of 8 bits",
    f"{TELLS}“has its white at 4095, but this image is read with 8 bits”",
)
def _(here):
    path = saved(here)
    with pytest.raises(ValueError, match="image 0 .*part.png.*white at 4095, but .* 8 bits"):
        embedder(value_range=4095).transform([path])


@TABLE.row(
    "degrees",
    "temperatures in a float TIFF file, `value_range=(20, 80)`",
    "20 is black, 80 is white, to the precision of float32",
)
def _(here):
    values = np.linspace(20, 80, 60, dtype=np.float32).reshape(6, 10)
    path = saved(here, values, "heat.tif", "TIFF")
    found = load_image(path, value_range=(20.0, 80.0))
    np.testing.assert_allclose(found, grey((values - 20) / 60), atol=1e-6)


@TABLE.row(
    "colour-16-{form}",
    "colour of 16 bits in a {form}",
    "all 16 bits are kept, where Pillow itself keeps 8",
    form={"PNG": "PNG file", "TIFF": "TIFF file", "RGBA": "PNG file with alpha"},
)
def _(here, form):
    if form == "TIFF":
        data = tiff(10, 8, 16, 2, WIDE.tobytes(), samples=3)
    else:
        alpha = np.full((8, 10, 1), 65535, np.uint16)
        data = png16(np.concatenate([WIDE, alpha], axis=2) if form == "RGBA" else WIDE)
    found = load_image(data)
    np.testing.assert_allclose(found, unit(WIDE, 65535), atol=1e-7)
    eight_bits = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(found - eight_bits / 255).max() > 1e-4


@TABLE.row(
    "grey-16-{form}",
    "greys of 16 bits as {form}",
    "all 16 bits are kept; nothing is clipped at 255",
    form=["PNG", "TIFF", "PIL", "array", "big-endian"],
)
def _(here, form):
    values = WIDE[..., 0]
    item = {
        "PIL": lambda: Image.fromarray(values),
        "array": lambda: values,
        "big-endian": lambda: values.astype(">u2"),
    }.get(form, lambda: encode(values, form))()
    is_read_as(item, grey(unit(values, 65535)))


@TABLE.row(
    "float-{kind}",
    "an array of {kind} in [0, 1]",
    "it is taken as it is, as float32",
    kind=["float16", "float32", "float64", "longdouble"],
)
def _(here, kind):
    values = unit(PICTURE, 255).astype(kind)
    is_read_as(values, values.astype(np.float32))


# ---------------------------------------------------------------- modes

CLEAR = np.dstack([PICTURE, np.where(np.arange(32) < 9, 0, 255) * np.ones((32, 1), int)])
OVER_WHITE = np.where(CLEAR[..., 3:] > 0, PICTURE, 255).astype(np.uint8)
LEVELS = PICTURE[..., 0]


def palette():
    return Image.fromarray(PICTURE).quantize(16)


MODES = {
    "L": (lambda: Image.fromarray(LEVELS), lambda: grey(LEVELS)),
    "LA": (
        lambda: Image.merge(
            "LA", [Image.fromarray(c) for c in (LEVELS, CLEAR[..., 3].astype("u1"))]
        ),
        lambda: np.where(CLEAR[..., 3:] > 0, grey(LEVELS), 255).astype(np.uint8),
    ),
    "RGBA": (lambda: Image.fromarray(CLEAR.astype(np.uint8)), lambda: OVER_WHITE),
    "P": (palette, lambda: np.asarray(palette().convert("RGB"))),
    "1": (lambda: Image.fromarray(LEVELS > 120), lambda: grey((LEVELS > 120) * np.uint8(255))),
    "CMYK": (
        lambda: Image.fromarray(PICTURE).convert("CMYK"),
        lambda: np.asarray(Image.fromarray(PICTURE).convert("CMYK").convert("RGB")),
    ),
}
FORMAT_OF = {"CMYK": "TIFF"}


@TABLE.row(
    "mode-{mode}-{how}",
    "a picture of mode {mode}, as a {how}",
    "its colours, on white where it is transparent; not its palette numbers, nor black below alpha",
    mode=list(MODES),
    how=["file", "PIL image"],
)
def _(here, mode, how):
    image, expected = (make() for make in MODES[mode])
    item = image if how == "PIL image" else encode(image, FORMAT_OF.get(mode, "PNG"))
    is_read_as(item, expected)


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
