"""Rows of the fault matrix about data sets: lists, names, links and masks."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from _fault_models import ROWS, folder_of_parts, picture, saved
from _fault_table import Table
from _image_files import encode

from skanomaly._output import safe_name, unique_names
from skanomaly.datasets import LayoutError, find_problems, read_dataset, read_manifest

ORDER = 8
TABLE = Table(
    "datasets",
    "Data sets",
    "Names in lists and folders may come from strangers and may be wrong. If a label or a mask is\n"
    "taken for another one, every number of an evaluation is wrong.",
)


def refused(id, given, says, **changes):
    """A `LayoutError` that names the list and its line; no image of it is read."""

    def check(here):
        root = folder_of_parts(here, **changes)
        (here / "secret").mkdir()
        saved(here / "secret", name="0.png")
        os.symlink(here / "secret", root / "link")
        os.symlink(here / "secret" / "0.png", root / "linked.png")
        with pytest.raises(LayoutError) as info:
            read_manifest(root / "manifest.csv")
        text = str(info.value)
        assert says in text and "manifest.csv" in text, text
        assert str(here / "secret") not in text

    TABLE.add(id, given, f"`LayoutError` with list and line: “{says}”", check)


# ---------------------------------------------------------------- names, and where they lead

HOSTILE = {
    "parent": ("../secret/0.png", "'..'"),
    "parent-below": ("a/../../secret/0.png", "'..'"),
    "backslashes": ("..\\secret\\0.png", "'..'"),
    "absolute": ("/etc/passwd.png", "absolute path"),
    "drive": ("C:\\secret.png", "absolute path"),
    "share": ("\\\\host\\share\\0.png", "absolute path"),
    "linked-folder": ("link/0.png", "outside of the root"),
    "linked-file": ("linked.png", "outside of the root"),
    "missing": ("nothing.png", "this file is missing"),
    "long": ("x" * 5000 + ".png", "this file is missing"),
    "folder": (".", "manifest.csv"),
    "no-image": ("manifest.csv", "not an image suffix"),
    "web": ("https://example.com/a.png", "this file is missing"),
}
for name, (text, says) in HOSTILE.items():
    for what, row in {"image": f"{text},test,1,", "mask": f"train0.png,test,-1,{text}"}.items():
        if what == "mask":
            kept = [ROWS[0].replace("train0", "train1"), *ROWS[2:]]
        refused(
            f"path-{name}-{what}",
            f"a list whose {what} is `{text if len(text) < 60 else text[:9] + '...'}`",
            says,
            extra=[row],
            **({"rows": kept} if what == "mask" else {}),
        )


@TABLE.row(
    "path-{kind}",
    "a list in JSON whose image is {kind}",
    "`LayoutError` with the line; no file is made of it",
    kind={"null": "a name with a null", "half": "half of a letter", "number": "a number"},
)
def _(here, kind):
    image = {"null": "a\0.png", "half": "\ud800.png", "number": 7}[kind]
    text = json.dumps({"image": image, "split": "train", "y": 1})
    (here / "list.jsonl").write_text(text, encoding="ascii")
    with pytest.raises(LayoutError, match="line 1: "):
        read_manifest(here / "list.jsonl")


@TABLE.row(
    "folder-link",
    "a data set of folders, one of which is a link out of it",
    "`LayoutError`: “symbolic link to a place outside”",
)
def _(here):
    root, outside = here / "parts", here / "outside"
    for place in (root / "train" / "good", root / "test" / "good", root / "ground_truth", outside):
        place.mkdir(parents=True)
        saved(place)
    os.symlink(outside, root / "test" / "cut")
    with pytest.raises(LayoutError, match="link.*outside"):
        read_dataset(root)


NAMES = {
    "parent": "../../evil",
    "absolute": "/etc/passwd",
    "drive": "C:\\evil",
    "null": "a\0b",
    "newline": "a\nb",
    "reserved": "CON",
    "empty": "",
    "hidden": ".bashrc",
    "long": "x" * 4000,
    "dots": "..",
    "escape": "\x1b[2J",
}


@TABLE.row(
    "output-{name}",
    "a type of defect that is named {name}, of which a folder of heat maps is named",
    "a name of one part, in the folder; two types have two names",
    name=list(NAMES),
)
def _(here, name):
    text = NAMES[name]
    made = safe_name(text)
    assert (here / made).resolve().parent == here.resolve() and len(made.encode()) <= 120
    assert made.isprintable() and made[:1] not in ("", ".")
    (here / made).mkdir()
    both = unique_names([text, text + "?"])
    assert len({one.casefold() for one in both}) == 2


# ---------------------------------------------------------------- lists

refused("label-0", "`y` of 0", "y is '0', expected 1 (normal)", extra=["m.png,test,0,"])
refused("label-word", "`y` in words", "y is 'good'", extra=["m.png,test,good,"])
refused("label-missing", "no label", "are all missing", extra=["m.png,test,,"])
refused("split-unknown", "a split named `dev`", "split is 'dev'", extra=["m.png,dev,1,"])
refused("twice", "an image in train and test", "2 times", extra=["train0.png,test,1,"])
refused(
    "normal-with-mask",
    "a normal image with a mask",
    "a normal image with a mask",
    extra=["m.png,test,1,cut.png"],
)
refused("more-cells", "a row of too many cells", "the header has 4", extra=["m.png,test,1,,,,"])
refused("no-test", "a list without test images", "lists no test image", rows=ROWS[:2])
refused("no-train", "a list without training images", "no train", rows=ROWS[2:])
refused(
    "no-column", "a list without `split`", "lacks the columns split", header="image,part,y,mask"
)
refused("misspelt", "a column named `masks`", "did you mean 'mask'?", header="image,split,y,masks")
refused("column-twice", "a column that is there twice", "columns twice", header="image,split,y,y")
refused(
    "numbers-as-labels",
    "a number in `label`",
    "label is '1', expected one of",
    header="image,split,label,mask",
)
refused("open-quote", "a quotation mark that is not closed", "unexpected end", extra=['"m.png,te'])


@TABLE.row(
    "list-{kind}",
    "a list that is {kind}",
    "`LayoutError` that names it",
    kind={"empty": "empty", "latin": "not in UTF-8", "image": "a picture"},
)
def _(here, kind):
    data = {
        "empty": b"",
        "latin": b"image,split,y\nM\xfcller.png,train,1\n",
        "image": encode(picture()),
    }
    (here / "manifest.csv").write_bytes(data[kind])
    with pytest.raises(LayoutError, match="manifest.csv"):
        read_manifest(here / "manifest.csv")


@TABLE.row(
    "list-key-twice",
    "a list in JSON that says `y` twice, -1 and 1",
    "`LayoutError`: “an object has 'y' twice”",
)
def _(here):
    (here / "list.jsonl").write_text('{"image": "a.png", "split": "test", "y": -1, "y": 1}')
    with pytest.raises(LayoutError, match="line 1: is not JSON: an object has 'y' twice"):
        read_manifest(here / "list.jsonl")


@TABLE.row("list-bom", "a list from a spreadsheet, with a byte order mark", "it is read as without")
def _(here):
    root = folder_of_parts(here)
    text = (root / "manifest.csv").read_bytes()
    (root / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + text)
    assert read_manifest(root / "manifest.csv").test.y.tolist() == [1, -1]


@TABLE.row(
    "no-layout", "a folder that is no data set", "`LayoutError` that says what was looked for"
)
def _(here):
    (here / "notes.txt").write_text("nothing")
    with pytest.raises(LayoutError, match="notes.txt|looked for"):
        read_dataset(here)


@TABLE.row(
    "copies-{where}",
    "a test image that is a copy of {where}",
    "`find_problems` names it: it is no new image",
    where={"train0.png": "a training image", "good.png": "another test image"},
)
def _(here, where):
    root = folder_of_parts(here, ["copy.png,test,1,"])
    (root / "copy.png").write_bytes((root / where).read_bytes())
    problems = find_problems(read_manifest(root / "manifest.csv"))
    assert any("the same image" in reason and where in reason for _, reason in problems), problems


@TABLE.row(
    "command-{what}",
    "`skanomaly datasets` on a data set {what}",
    "exit code 1 and one message without a traceback; the file is named",
    what={"hostile": "with a way out of it", "masks": "with a mask of many levels"},
)
def _(here, what):
    root = folder_of_parts(here, ["../secret.png,test,1,"] if what == "hostile" else [])
    if what == "masks":
        saved(root, np.arange(1024, dtype=np.uint8).reshape(32, 32), "m.png")
    done = subprocess.run(
        [sys.executable, "-m", "skanomaly.cli", "datasets", str(root)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said
    assert ("secret.png" if what == "hostile" else "m.png") in said


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
