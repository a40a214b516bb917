"""Names that every system takes, and files that are whole or as they were."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skanomaly._output import (
    Guard,
    check_folder,
    is_own_picture,
    safe_name,
    save_picture,
    unique_names,
    written_beside,
)

# Halves of characters too, which is how Python shows bytes that it could not decode.
TEXTS = st.text(st.characters(), max_size=300) | st.sampled_from(
    ["", ".", "..", "../x", "a/b", "CON", "nul.txt", "x" * 300, "é" * 200, " a ", "a.", "COM1 .x"]
)


@given(TEXTS)
def test_a_name_is_one_part_of_a_path(text):
    name = safe_name(text)
    assert 0 < len(name.encode("utf-8")) <= 120 and safe_name(name) == name
    assert not set(name) & set('/\\:*?"<>|\0\n\r\t\x1b') and name.isprintable()
    assert name[0] not in " ." and name[-1] not in " ."
    assert name.split(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_no_two_names_are_alike(tmp_path_factory, texts):
    names = unique_names(texts, reserved=["scores.csv"])
    assert len({name.casefold() for name in [*names, "scores.csv"]}) == len(texts) + 1
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        (folder / f"{name}.png").touch(exist_ok=False)
    assert len(os.listdir(folder)) == len(names)


def test_good_names_stay():
    names = ["scratch", "metal nut", "Kratzer (tief)", "划痕", "éclat", "000", "a-b_c.d"]
    assert unique_names(names) == names
    assert unique_names(["a/b", "a_b"]) == ["a_b-2", "a_b"]
    long = ["x" * 300, "x" * 301]
    assert len(set(unique_names(long))) == 2 and all(
        n.startswith("xxx") for n in map(safe_name, long)
    )


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "results"
    path.write_bytes(b"before")
    path.chmod(0o640)
    with pytest.raises(RuntimeError), written_beside(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["results"]
    with written_beside(path) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after" and os.listdir(tmp_path) == ["results"]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3), (8, 6, 4)])
def test_our_pictures_are_known_again(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    save_picture(Image.fromarray(array), tmp_path / "ours.png")
    assert is_own_picture(tmp_path / "ours.png")
    with Image.open(tmp_path / "ours.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), array)
    Image.fromarray(array).save(tmp_path / "theirs.png")
    (tmp_path / "text.png").write_text("Software\0skanomaly")
    for name in ("theirs.png", "text.png", "none.png", ""):
        assert not is_own_picture(tmp_path / name)


def test_what_is_guarded(tmp_path):
    for name in ("input", "own", "foreign"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("input")
    (tmp_path / "dangling").symlink_to("nowhere")

    def own(path):
        return path.name == "own"

    targets = {name: tmp_path / name for name in os.listdir(tmp_path)} | {"new": tmp_path / "new"}
    for overwrite, allowed in (
        (False, {"own", "new"}),
        (True, {"own", "new", "foreign", "dangling"}),
    ):
        guard = Guard([tmp_path / "input", tmp_path / "not there"], overwrite)
        for name, path in targets.items():
            if name in allowed:
                guard.check([path], own)
            else:
                with pytest.raises(FileExistsError, match=f"\n  .*{name}$"):
                    guard.check([targets["new"], path], own)
    assert guard.holds_inputs(tmp_path) and not guard.holds_inputs(tmp_path / "folder")


def test_a_folder_that_cannot_be_written(tmp_path):
    check_folder(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match=f"{folder}"):
            check_folder(folder)
