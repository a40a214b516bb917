"""Rows of the fault matrix about arrays, and about what holds several images."""

import numpy as np
import pytest
from _fault_models import (
    GOOD,
    fitted,
    is_read_as,
    is_refused,
    picture,
    row_marks,
    saved,
    scores_of_good,
)
from _fault_table import Table
from _image_files import tiff
from PIL import Image

from skanomaly import PatchKNNScorer, iter_scores

ORDER = 2
TABLE = Table(
    "arrays",
    "Arrays, and what holds several images",
    "If something may be an image only by mistake, it is refused, and the error gives its number.\n"
    "Nothing is guessed.",
)
PICTURE = picture()
WIDE = np.random.default_rng(5).integers(0, 65536, (8, 10, 3)).astype(np.uint16)
TELLS = "`ImageReadError`, with number: "
LEVELS = PICTURE[..., 0]
CLEAR = np.dstack([PICTURE, np.where(np.arange(32) < 9, 0, 255) * np.ones((32, 1), int)])
OVER_WHITE = np.where(CLEAR[..., 3:] > 0, PICTURE, 255).astype(np.uint8)


def unit(values, white):
    return (np.asarray(values, np.float64) / white).astype(np.float32)


def grey(values):
    return np.ascontiguousarray(np.repeat(np.asarray(values)[..., None], 3, axis=-1))


# ---------------------------------------------------------------- what is refused


def refused(id, given, says, make, marks=()):
    TABLE.add(id, given, f"{TELLS}“{says}”", lambda here: is_refused(make(), says), marks)


def of_float(**changes):
    """A picture in floats of which some pixels are something else."""
    values = unit(PICTURE, 255)
    for place, value in changes.items():
        values[{"one": (3, 4), "corner": (31, 31), "row": 5}[place]] = value
    return values


def torch_tensor(*shape):
    import torch

    return torch.zeros(shape)


class Foreign:
    """An array of another library."""

    def __array__(self, dtype=None, copy=None):
        return PICTURE


MASKED = np.ma.masked_array(PICTURE, mask=PICTURE > 150)
refused("nan", "a float array with one NaN", "NaN or infinity", lambda: of_float(one=np.nan))
refused("inf", "a float array with infinity", "NaN or infinity", lambda: of_float(row=np.inf))
refused("minus-inf", "with -infinity", "NaN or infinity", lambda: of_float(corner=-np.inf))
refused("float-255", "floats of 0..255", "divide values of 0..255 by 255", lambda: PICTURE * 1.0)
refused("float-above", "a float above 1", "must lie in [0, 1]", lambda: of_float(one=1.01))
refused("float-below", "a float below 0", "must lie in [0, 1]", lambda: of_float(one=-0.01))
refused("normalised", "an array less its mean", "[0, 1]", lambda: of_float() - 0.5)
for kind in (np.int8, np.int16, np.int32, np.int64, np.uint32, np.uint64):
    name = np.dtype(kind).name
    refused(
        name,
        f"an array of {name}",
        f"dtype {name} does not say which number is white; pass value_range=",
        lambda kind=kind: (PICTURE // 2).astype(kind),
    )
for kind in ("complex64", "object", "U3", "datetime64[s]", "S2"):
    refused(
        f"dtype-{kind}",
        f"an array of {kind}",
        "is not supported; accepted: uint8, uint16, bool, or float",
        lambda kind=kind: np.ones((8, 8), kind),
    )
for count in (2, 5, 7):
    refused(
        f"channels-{count}",
        f"an array of {count} channels",
        f"it has {count} channels; accepted are 1 (grey), 3 (RGB) and 4 (RGBA)",
        lambda count=count: np.zeros((8, 9, count), np.uint8),
    )
for count in (1, 3, 4):
    refused(
        f"channels-first-{count}",
        f"an array of {count} channels that come first",
        "the channels come last: try np.moveaxis(x, 0, -1)",
        lambda count=count: np.zeros((count, 8, 9), np.uint8),
    )
refused("one-dimension", "an array of shape (8,)", "2 or 3 dimensions", lambda: np.zeros(8))
refused("batch-as-item", "shape (1, 8, 8, 3)", "2 or 3 dimensions", lambda: np.zeros((1, 8, 8, 3)))
refused("no-rows", "shape (0, 8, 3)", "it has no pixels", lambda: np.zeros((0, 8, 3), np.uint8))
refused("pil-0", "a PIL image of 0 x 3 pixels", "no pixels", lambda: Image.new("RGB", (0, 3)))
refused("masked-array", "a masked array", "it is a masked array", lambda: MASKED)
refused("none", "None", "NoneType is not an image; accepted are a path", lambda: None)
refused("a-number", "the number 3", "int is not an image; accepted are a path", lambda: 3)
refused("nested-list", "an image as lists", "list is not an image", lambda: PICTURE.tolist())
refused("dict", "a dict with an image in it", "dict is not an image", lambda: {"image": PICTURE})
refused("foreign", "an array of another library", "Make an array of it", Foreign)
refused(
    "tensor",
    "a tensor of torch",
    "Tensor is not an image",
    lambda: torch_tensor(8, 8, 3),
    row_marks("torch"),
)
refused("mode-I", "a PIL image of mode I above 65535", "beyond the 16-bit", lambda: deep_pil(70000))
refused("mode-I-below", "of mode I below 0", "0..65535", lambda: deep_pil(-1))
refused(
    "mode-F", "a PIL image of mode F above 1", "value_range=(black, white)", lambda: float_pil(30)
)
refused("mode-F-nan", "of mode F with NaN", "NaN or infinity", lambda: float_pil(np.nan))
refused(
    "planes-16",
    "a TIFF file of 16 bits with a plane for each channel",
    "Pillow misreads TIFF files of 16 bits",
    lambda: tiff(10, 8, 16, 2, WIDE.transpose(2, 0, 1).tobytes(), samples=3, planar=2),
)


def deep_pil(value):
    return Image.fromarray(np.full((8, 8), value, np.int32))


def float_pil(value):
    return Image.fromarray(np.full((8, 8), value, np.float32))


@TABLE.row(
    "array-{kind}",
    "an array that is {kind}",
    "the same tokens as of the plain array; it is not changed",
    kind=["strided", "Fortran", "read-only", "bool", "4 channels", "mapped", "subclass"],
)
def _(here, kind):
    plain = PICTURE
    if kind == "bool":
        item, plain = LEVELS > 120, grey((LEVELS > 120) * np.uint8(255))
    elif kind == "4 channels":
        item, plain = CLEAR.astype(np.uint8), OVER_WHITE
    elif kind == "mapped":
        np.save(here / "a.npy", PICTURE)
        item = np.load(here / "a.npy", mmap_mode="r")
    elif kind == "subclass":
        item = np.ma.masked_array(PICTURE)  # of which nothing is masked
    else:
        item = {
            "strided": np.repeat(PICTURE, 2, axis=1)[:, ::2],
            "Fortran": np.asfortranarray(PICTURE),
            "read-only": np.frombuffer(PICTURE.tobytes(), np.uint8).reshape(PICTURE.shape),
        }[kind]
    before = np.array(item)
    is_read_as(item, plain)
    np.testing.assert_array_equal(before, item)


# ---------------------------------------------------------------- what holds several images


class Series:
    """What holds values without being a list, such as a Series of polars."""

    def __len__(self):
        return 2

    def __iter__(self):
        return iter(GOOD[:2])


def frame():
    import pandas

    return pandas.DataFrame({"path": ["a.png"]})


POLARS = row_marks("polars")


def polars_series():
    import polars

    return polars.Series("path", ["a.png", "b.png"])


def polars_frame():
    import polars

    return polars.DataFrame({"path": ["a.png", "b.png"]})


@TABLE.row(
    "polars-list-{of}",
    "`list(X)` of a series of polars, of {of}",
    "the pictures, as of any other list",
    POLARS,
    of=["paths", "bytes"],
)
def _(here, of):
    import polars

    paths = [saved(here, image, f"{i}.png") for i, image in enumerate(GOOD[:2])]
    given = [str(path) if of == "paths" else path.read_bytes() for path in paths]
    found = fitted().score_samples(list(polars.Series("images", given)))
    assert tuple(found) == scores_of_good()


def tensor_of_images():
    import torch

    return torch.zeros((2, 32, 32, 3), dtype=torch.uint8)


def several(id, given, error, says, make, marks=()):
    TABLE.error(id, given, error, (says,), lambda here: fitted().score_samples(make()), marks)


several("single-path", "a path, and no list", TypeError, "wrap it in a list: [X]", lambda: "a.png")
several("single-image", "one PIL image", TypeError, "[X]", lambda: Image.new("RGB", (8, 8)))
several("single-array", "one array", ValueError, "wrap a single image in a list", lambda: PICTURE)
several("bytes", "bytes, and no list", TypeError, "single bytes", lambda: b"\x89PNG")
several("no-image", "an empty list", ValueError, "0 sample(s)", list)
several("generator", "a generator", TypeError, "make it a list", lambda: (i for i in GOOD))
several("set", "a set of paths, which has no order", TypeError, "fixed order", lambda: {"a.png"})
several("mapping", "a dict of images", TypeError, "make it a list", lambda: {"a": PICTURE})
several("frame", "a table of pandas", TypeError, "X['path']", frame, row_marks("pandas"))
several(
    "series-of-others",
    "a series of another library than pandas",
    TypeError,
    "make it a list, e.g. list(X)",
    Series,
)
several("polars-series", "a series of polars", TypeError, "list(X)", polars_series, POLARS)
several("polars-frame", "a table of polars", TypeError, "X['path']", polars_frame, POLARS)
several(
    "polars-lazy",
    "a lazy table of polars",
    TypeError,
    "X['path']",
    lambda: polars_frame().lazy(),
    POLARS,
)
TABLE.error(
    "polars-frame-stream",
    "`iter_scores` of a table of polars, which goes through its columns",
    TypeError,
    ("X['path']",),
    lambda here: list(iter_scores(fitted(), polars_frame())),
    POLARS,
)
several("tensor-4d", "a tensor", TypeError, "got Tensor", tensor_of_images, row_marks("torch"))
several("table", "a table of numbers", ValueError, "not a table of", lambda: np.zeros((4, 9)))
several(
    "floats-4d", "a 4-D float array", ValueError, "must be uint8", lambda: np.zeros((1, 8, 8, 3))
)
several(
    "nchw",
    "a 4-D array whose channels come first",
    ValueError,
    "np.moveaxis(X, 1, -1)",
    lambda: np.zeros((2, 3, 8, 9), np.uint8),
)
several(
    "grid-of-paths",
    "a 2-D array of paths",
    ValueError,
    "X.ravel()",
    lambda: np.array([["a.png", "b.png"]]),
)


@TABLE.row(
    "container-{kind}",
    "images in a {kind}",
    "the scores of the list, in its order",
    kind=["tuple", "object array", "4-D array", "pandas Series"],
)
def _(here, kind):
    if kind == "pandas Series":
        made = pytest.importorskip("pandas").Series(GOOD[:3], index=[7, 5, 6])
    elif kind == "object array":
        made = np.empty(3, object)
        made[:] = GOOD[:3]
    else:
        made = tuple(GOOD[:3]) if kind == "tuple" else np.stack(GOOD[:3])
    assert fitted().score_samples(made).tolist() == fitted().score_samples(GOOD[:3]).tolist()


@TABLE.row(
    "images-to-a-scorer",
    "images, where a scorer wants patch tokens",
    "`ValueError`: “A scorer takes patch tokens; put an embedder before it for images”",
)
def _(here):
    with pytest.raises(ValueError, match="put an embedder before it for images"):
        PatchKNNScorer().fit([saved(here), saved(here)])


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
