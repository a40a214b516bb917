"""The images that commands are given."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skanomaly._output import save_picture
from skanomaly.cli._inputs import image_paths

ODD_NAMES = ["with space.png", "new\nline.png", "#hash.png", "[1]*?.png", "-dash.png"]
needs_bytes = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="names are text on this system"
)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Images in two folders, and what else lies there."""
    for name in (
        "parts/b.png",
        "parts/a.JPG",
        "parts/sub/c.tiff",
        "parts/sub/d.png",
        "parts/notes.txt",
        "parts/Thumbs.db",
        "parts/.hidden.png",
        "parts/.hidden/e.png",
        "parts/readme",
        "other/f.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments, **options):
    return [path.as_posix() for path in image_paths(arguments, **options)]


def listed(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_folders_are_searched_in_the_order_of_names(tree, capsys):
    assert names("parts") == ["parts/a.JPG", "parts/b.png", "parts/sub/c.tiff", "parts/sub/d.png"]
    # What no desktop put there is told; standard output is for results.
    told = capsys.readouterr()
    assert told.out == "" and told.err == "left out of the folders: 1 .txt, 1 without suffix\n"


def test_files_are_read_whatever_their_suffix(tree, capsys):
    assert names("parts/notes.txt", "parts/.hidden.png", "parts/b.png") == [
        "parts/notes.txt",
        "parts/.hidden.png",
        "parts/b.png",
    ]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("parts/*.png", ["parts/b.png"]),
        ("*/*.png", ["other/f.png", "parts/b.png"]),
        ("parts/**/*.png", ["parts/b.png", "parts/sub/d.png"]),
        ("**/sub", ["parts/sub/c.tiff", "parts/sub/d.png"]),
        ("parts/s*", ["parts/sub/c.tiff", "parts/sub/d.png"]),
        ("parts/[ab].*", ["parts/a.JPG", "parts/b.png"]),
        ("parts/**", ["parts/a.JPG", "parts/b.png", "parts/sub/c.tiff", "parts/sub/d.png"]),
    ],
)
def test_globs(tree, pattern, expected):
    assert names(pattern) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="no such names on this system")
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_is_there_is_no_glob(tree, name):
    (tree / "parts" / name).touch()
    (tree / "parts" / "1x.png").touch()
    assert names(f"parts/{name}") == [f"parts/{name}"]
    assert f"parts/{name}" in names("parts")


def test_what_is_named_twice_comes_once(tree):
    assert names("parts/sub/d.png", "parts", "./parts/*.png", str(tree / "parts")) == [
        "parts/sub/d.png",
        "parts/a.JPG",
        "parts/b.png",
        "parts/sub/c.tiff",
    ]


def test_heat_maps_of_ours_are_left_out_of_folders(tree, capsys):
    save_picture(Image.new("RGB", (4, 4)), tree / "other" / "map.png")
    assert names("other") == ["other/f.png"]
    assert capsys.readouterr().err == "left out of the folders: 1 heat maps of skanomaly\n"
    assert names("other/map.png") == ["other/map.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_are_followed_and_loops_end(tree):
    (tree / "parts" / "sub" / "up").symlink_to(tree / "parts")
    (tree / "other" / "linked").symlink_to(tree / "parts" / "sub")
    assert names("parts")[-1] == "parts/sub/d.png" and len(names("parts")) == 4
    assert "other/linked/c.tiff" in names("other")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is no file and no folder"),
        (["parts", "no*where"], r"no\*where matches no file"),
        (["empty"], "empty holds no images$"),
        (["texts"], "texts holds no images but 2 .txt; a file that is named is read as it is"),
        (["-", "-"], "once only"),
    ],
)
def test_what_stands_for_nothing_is_an_error_before_the_first_image(tree, arguments, message):
    (tree / "empty").mkdir()
    (tree / "texts").mkdir()
    for name in "ab":
        (tree / "texts" / f"{name}.txt").touch()
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        image_paths(arguments)


def test_null_is_for_a_list(tree):
    with pytest.raises(ValueError, match="--null"):
        image_paths(["parts"], null=True)


def test_a_list_comes_as_it_is(tree, monkeypatch):
    """Duplicates, what is not there and what looks like a glob too; a folder is searched."""
    content = b"parts/b.png\n\nparts/b.png\nno*where\nparts/sub\nlast.png"
    listed(monkeypatch, content)
    expected = ["parts/b.png", "parts/b.png", "no*where", "parts/sub/c.tiff", "parts/sub/d.png"]
    assert names("-") == [*expected, "last.png"]
    listed(monkeypatch, content.replace(b"\n", b"\r\n"))
    assert names("other", "-") == ["other/f.png", *expected, "last.png"]


def test_names_with_newlines_in_a_list(tree, monkeypatch):
    listed(monkeypatch, b"new\nline.png\0b.png\0")
    assert names("-", null=True) == ["new\nline.png", "b.png"]


@needs_bytes
def test_names_that_are_not_utf8(tree, monkeypatch):
    raw = b"parts/\xff\xe9.png"
    try:
        with open(raw, "wb"):
            pass
    except OSError:
        pytest.skip("names are text in this file system")
    assert os.fsdecode(raw) in names("parts")
    listed(monkeypatch, raw + b"\n")
    [path] = image_paths(["-"])
    assert os.fsencode(path) == raw and path.is_file()


def test_a_list_is_read_as_it_comes(tmp_path):
    """The first path is had while the list goes on."""
    code = (
        "from skanomaly.cli._inputs import image_paths\n"
        "for path in image_paths(['-']): print(path, flush=True)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        child.stdin.write(b"first.png\nseco")
        child.stdin.flush()
        assert child.stdout.readline().strip() == b"first.png"
        child.stdin.write(b"nd.png\n")
        child.stdin.close()
        assert child.stdout.read().strip() == b"second.png"


def test_paths_are_images_to_the_package(tree):
    from skanomaly._images import load_image

    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save("parts/b.png")
    [path] = image_paths(["parts/b.png"])
    assert isinstance(path, Path) and load_image(path).shape == (4, 4, 3)
