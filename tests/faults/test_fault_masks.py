"""Rows of the fault matrix about masks of defects."""

from pathlib import Path

import numpy as np
import pytest
from _fault_models import folder_of_parts, picture, saved
from _fault_table import Table
from _image_files import encode
from PIL import Image

from skanomaly import ImageReadError
from skanomaly.datasets import find_problems, read_manifest

ORDER = 9
TABLE = Table(
    "masks",
    "Masks",
    "A mask has two levels, 0 and one other. The meaning of values in between would be a guess.",
)


def mask_of(here, data, name="m.png"):
    """What is read of a mask file: that of the third test image."""
    root = folder_of_parts(here)
    (root / "m.png").write_bytes(data)
    return read_manifest(root / "manifest.csv").test.load_mask(1)


def levels(values):
    marked = np.zeros((32, 32), np.uint8)
    for column, value in enumerate(values):
        marked[5:9, 4 * column : 4 * column + 4] = value
    return marked


def soft():
    image = Image.fromarray(levels([0, 255])).resize((16, 16)).resize((32, 32))
    return encode(image)


def half_clear():
    rgba = np.full((32, 32, 4), 255, np.uint8)
    rgba[..., 3] = levels([0, 128, 255])
    return encode(rgba)


def pages():
    first = Image.fromarray(levels([255]))
    return encode(first, "GIF", save_all=True, append_images=[Image.fromarray(levels([0, 255]))])


BAD_MASKS = {
    "three-levels": ("of three levels", lambda: encode(levels([1, 2])), "levels"),
    "soft": ("with soft edges", soft, "resize them by nearest neighbour"),
    "jpeg": ("in a JPEG", lambda: encode(levels([255, 0, 255]), "JPEG", quality=60), "levels"),
    "black": ("that is all black", lambda: encode(levels([])), "marks no pixel"),
    "larger": ("of another size", lambda: encode(np.full((40, 32), 255, np.uint8)), "differ"),
    "turned": ("that is lying", lambda: encode(np.full((32, 31), 255, np.uint8)), "differ"),
    "half-clear": ("that is half transparent", half_clear, "transparency of mask"),
    "text": ("that is a text", lambda: b"no mask", "not an image"),
    "empty": ("that is empty", lambda: b"", "is empty"),
    "cut": ("that is cut", lambda: encode(levels([255]))[:-40], "truncated"),
    "pages": ("of several pages", pages, "several pages"),
}


@TABLE.row(
    "mask-{kind}",
    "a mask {kind}",
    "an error that names the mask and says what is wrong; `find_problems` lists it with the others",
    kind={name: text for name, (text, _, _) in BAD_MASKS.items()},
)
def _(here, kind):
    _, make, says = BAD_MASKS[kind]
    with pytest.raises((ValueError, ImageReadError), match=says) as info:
        mask_of(here, make())
    assert "m.png" in str(info.value)
    problems = find_problems(read_manifest(here / "parts" / "manifest.csv"))
    assert any(says in reason for _, reason in problems), problems


MARKED = levels([255]) > 0


def palette():
    image = Image.fromarray((MARKED * 1).astype(np.uint8))
    image = image.convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    return image


def on_clear():
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[MARKED] = 255
    return encode(rgba)


GOOD_MASKS = {
    "255": ("of 0 and 255", lambda: encode(MARKED * np.uint8(255))),
    "1": ("of 0 and 1", lambda: encode(MARKED * np.uint8(1))),
    "bits": ("of 1 bit", lambda: encode(Image.fromarray(MARKED))),
    "palette": ("with a palette", lambda: encode(palette())),
    "colour": (
        "in red",
        lambda: encode(np.dstack([MARKED * np.uint8(255), *[MARKED * np.uint8(0)] * 2])),
    ),
    "alpha": ("on a transparent ground", on_clear),
    "16-bits": ("of 16 bits", lambda: encode(MARKED * np.uint16(65535))),
    "tiff": ("in a TIFF named `.png`", lambda: encode(MARKED * np.uint8(9), "TIFF")),
}


@TABLE.row(
    "mask-right-{kind}",
    "a mask {kind}",
    "exactly the marked pixels",
    kind={name: text for name, (text, _) in GOOD_MASKS.items()},
)
def _(here, kind):
    np.testing.assert_array_equal(mask_of(here, GOOD_MASKS[kind][1]()), MARKED)


@TABLE.row(
    "mask-inverted",
    "masks of which one marks nearly everything",
    "`find_problems`: “is it inverted?”",
)
def _(here):
    extra = [f"bad{i}.png,test,-1,m{i}.png" for i in range(4)]
    root = here / "parts"
    folder_of_parts(here, extra)
    for i in range(4):
        saved(root, picture(20 + i), f"bad{i}.png")
        saved(root, (MARKED ^ (i == 3)) * np.uint8(255), f"m{i}.png")
    problems = find_problems(read_manifest(root / "manifest.csv"))
    assert [Path(path).name for path, reason in problems if "inverted" in reason] == ["bad3.png"]


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
