"""Rows of the fault matrix about pictures that are read, and have to be read rightly."""

import numpy as np
import pytest
from _fault_models import (
    GOOD,
    embedder,
    fitted,
    is_read_as,
    is_refused,
    picture,
    saved,
    scores_of_good,
)
from _fault_table import Table
from _image_files import encode
from PIL import Image

from skanomaly import anomaly_maps, iter_scores
from skanomaly._images import image_size
from skanomaly.datasets import ImageSet

ORDER = 1
TABLE = Table(
    "pictures",
    "Orientation, pages and sizes",
    "The picture that is read has to be the one that a person sees: upright, complete, and the\n"
    "right one of several.",
)
PICTURE = picture()
TELLS = "`ImageReadError`, with number and path: "


# ---------------------------------------------------------------- what is read, and rightly


@TABLE.row(
    "suffix-{format}-{name}",
    "a {format} file named `{name}`",
    "it is read as what it is; the suffix says nothing",
    name=["part.jpg", "part.PNG", "part.txt", "part"],
    format=["PNG", "TIFF"],
)
def _(here, name, format):
    is_read_as(saved(here, name=name, format=format), PICTURE)


def turned(orientation, array):
    """What a camera stores when the upright picture is `array`."""
    return {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.swapaxes(0, 1),
        6: np.rot90(array),
        7: array[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(array, -1),
    }[orientation]


@TABLE.row(
    "exif-{orientation}-{format}",
    "a {format} file of EXIF orientation {orientation}",
    "it is turned upright: tokens, map and size are those of the upright picture, and not of the "
    "stored one",
    orientation=list(range(1, 9)),
    format=["PNG", "TIFF"],
)
def _(here, orientation, format):
    wide = picture(3, 32, 48)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(turned(orientation, wide))
    path = saved(here, stored, "part", format, exif=exif)
    is_read_as(path, wide)
    assert image_size(path) == (32, 48)
    (found,), (expected,), (lying,) = (
        anomaly_maps(fitted(), [item]) for item in (path, wide, stored)
    )
    assert found.shape == (32, 48)
    np.testing.assert_array_equal(found, expected)
    if orientation > 1:
        assert found.shape != lying.shape or not np.array_equal(found, lying)


@TABLE.row(
    "exif-{orientation}-mask",
    "a photograph of EXIF orientation {orientation}, and the mask that was drawn over it upright",
    "the mask is as large as the map, and marks the same pixels",
    orientation=list(range(1, 9)),
)
def _(here, orientation):
    wide, mask = picture(3, 32, 48), np.zeros((32, 48), np.uint8)
    mask[2:9, 30:44] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = saved(here, np.ascontiguousarray(turned(orientation, wide)), exif=exif)
    upright = saved(here, mask, "mask.png")
    # A mask that is stored as the photograph is says so by the same tag.
    stored = saved(here, np.ascontiguousarray(turned(orientation, mask)), "lying.png", exif=exif)
    for path in (upright, stored):
        found = ImageSet([photo], [-1], [path], ["cut"], "parts").load_mask(0)
        np.testing.assert_array_equal(found, mask > 0)


@TABLE.row(
    "exif-{kind}",
    "EXIF data that are {kind}",
    "the picture counts as upright",
    kind={"damaged": "damaged", "zero": "of orientation 0", "large": "of orientation 65535"},
)
def _(here, kind):
    exif = Image.Exif()
    exif[0x0112] = {"zero": 0, "large": 65535}.get(kind, 6)
    data = b"Exif\0\0MM\0*\xff\xff" if kind == "damaged" else exif
    is_read_as(saved(here, exif=data), PICTURE)


def pages(format):
    first = Image.fromarray(PICTURE)
    options = {"save_all": True, "append_images": [Image.fromarray(GOOD[0])]}
    return encode(first, format, **options)


@TABLE.row(
    "several-{format}",
    "a {format} file of several pictures",
    f"{TELLS}“animated or has several pages”; not its first picture",
    format=["GIF", "PNG", "TIFF"],
)
def _(here, format):
    path = here / "several"
    path.write_bytes(pages(format))
    is_refused(path, "it is animated or has several pages", path=path)


@TABLE.row("camera-mpo", "a JPEG of a camera with a preview behind it (MPO)", "its first picture")
def _(here):
    path = here / "part.jpg"
    path.write_bytes(pages("MPO"))
    is_read_as(path, PICTURE, tolerance=40)


@TABLE.row(
    "side-{height}x{width}",
    "a picture of {width} x {height} pixels",
    "it is embedded and judged; its map has its own size",
    height=[1, 3, 400],
    width=[1, 2, 500],
)
def _(here, height, width):
    path = saved(here, picture(0, height, width))
    (found,) = anomaly_maps(fitted(), [path])
    assert found.shape == (height, width) and np.isfinite(found).all()


@TABLE.row(
    "extreme-{resize}",
    "a picture of 2 x 3000 pixels, `resize={resize!r}`",
    "it is embedded whole, or refused by number where its grid would be too large; never cropped",
    resize=["squash", "shortest_edge"],
)
def _(here, resize):
    thin = picture(0, 2, 3000)
    model = embedder(resize=resize)
    if resize == "shortest_edge":
        with pytest.raises(ValueError, match=r"image 1 of \(2, 3000\) pixels .* resize='squash'"):
            model.transform([PICTURE, thin])
        thin = thin[:, :80]
    tokens = model.transform([thin])
    marked = thin.copy()
    marked[:, -4:] = 0  # at the very end
    assert not np.array_equal(tokens, model.transform([marked]))


@TABLE.row(
    "mixed-sizes",
    "pictures of three sizes in one call",
    "each has the score and the map that it has alone",
)
def _(here):
    items = [picture(1, 32, 32), picture(2, 50, 20), picture(3, 7, 90)]
    together = fitted().score_samples(items)
    alone = [fitted().score_samples([item])[0] for item in items]
    assert together.tolist() == alone
    assert [found.shape for found in anomaly_maps(fitted(), items)] == [(32, 32), (50, 20), (7, 90)]


@TABLE.row(
    "names-every-{count}",
    "{count} of five pictures cannot be read, `on_error='record'`",
    "a `Failure` each, by number; the others have the scores of a run without",
    count=[1, 2, 5],
)
def _(here, count):
    items = [*GOOD[:2], *GOOD[:2], GOOD[0]]
    for number in range(5 - count, 5):
        items[number] = here / f"no{number}.png"
    found = list(iter_scores(fitted(), items, on_error="record"))
    assert [one.index for one in found] == list(range(5))
    for number, one in enumerate(found):
        if number >= 5 - count:
            assert f"image {number} (" in one.error and f"no{number}.png" in one.error
        else:
            assert one.score == scores_of_good()[number % 2]


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
