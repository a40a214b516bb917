"""Nothing lost: what the command line writes, what it never writes over, and what it says first."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from skanomaly._output import is_own_picture
from skanomaly.base import BasePatchEmbedder
from skanomaly.cli import app
from skanomaly.cli._options import DEFAULT_MODEL
from skanomaly.datasets import make_surfaces
from skanomaly.registry._table import SCORERS

SMALL = ("--scorer", "knn", "--set", "image_size=32")
FAILS = """
from skanomaly import PatchKNNScorer
from skanomaly.registry import register_scorer

class Fails(PatchKNNScorer):
    calls = 0
    def fit(self, X, y=None):
        Fails.calls += 1
        if Fails.calls == {at}:
            {what}
        return super().fit(X, y)

register_scorer("fails_{name}", Fails, overwrite=True)
"""


@pytest.fixture(autouse=True)
def registered():
    """What plug-ins register is forgotten."""
    before = set(SCORERS)
    yield
    for name in set(SCORERS) - before:
        del SCORERS[name]


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def contents(folder):
    """Every file below a folder, with its bytes."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def surfaces():
    """Ten good images and four defective ones of 32 pixels, each with its mask."""
    return make_surfaces(10, 4, surface="fabric", image_size=32, random_state=0)


def write_images(folder, images, names, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / f"{name}{suffix}")


def write_mvtec(root, surfaces, shift=0):
    """Six images to train on, four good ones and four scratches to test on."""
    images = [
        np.clip(image.astype(int) + shift, 0, 255).astype(np.uint8) for image in surfaces.images
    ]
    write_images(root / "train" / "good", images[:6], range(6))
    write_images(root / "test" / "good", images[6:10], range(6, 10))
    write_images(root / "test" / "scratch", images[10:], range(10, 14))
    return root


@pytest.fixture
def mvtec(tmp_path, surfaces):
    return write_mvtec(tmp_path / "nut", surfaces)


@pytest.fixture
def categories(tmp_path, surfaces):
    root = tmp_path / "all"
    for i, name in enumerate(("a", "b", "c")):
        write_mvtec(root / name, surfaces, shift=i)
    return root


# Never over inputs, nor over what others wrote


def test_photographs_are_not_replaced_by_their_heat_maps(tmp_path, surfaces):
    parts = tmp_path / "parts"
    write_images(parts / "good", surfaces.images[:10], range(10))
    write_images(parts / "scratch", surfaces.images[10:], range(4))
    before = contents(parts)
    for output in (parts, parts / "report"):
        for overwrite in ((), ("--overwrite",)):
            result = run("evaluate", parts, *SMALL, "--output", output, *overwrite)
            assert result.exit_code == 1 and "outside of the data set" in result.stderr
    assert contents(parts) == before
    result = run("evaluate", parts, *SMALL, "--output", tmp_path / "report")
    assert result.exit_code == 0 and contents(parts) == before


@pytest.mark.parametrize("link", [False, True])
def test_no_heat_map_takes_the_place_of_an_input(tmp_path, mvtec, link):
    """In any layout, and through a link to the folder of the images."""
    output = mvtec / "test"
    if link:
        (tmp_path / "link").symlink_to(output)
        output = tmp_path / "link"
    before = contents(mvtec)
    for overwrite in ((), ("--overwrite",)):
        result = run("evaluate", mvtec, *SMALL, "--output", output, *overwrite)
        assert result.exit_code == 1 and "outside of the data set" in result.stderr
    assert contents(mvtec) == before


def test_heat_maps_do_not_land_among_images(tmp_path, surfaces):
    """They would be read as images by the next run, though no file has their names."""
    root = tmp_path / "nut"
    write_images(root / "train" / "good", surfaces.images[:6], range(6), ".bmp")
    write_images(root / "test" / "good", surfaces.images[6:10], range(4), ".bmp")
    write_images(root / "test" / "scratch", surfaces.images[10:], range(4), ".bmp")
    before = contents(root)
    result = run("evaluate", root, *SMALL, "--output", root / "test", "--overwrite")
    assert result.exit_code == 1 and "outside of the data set" in result.stderr
    assert contents(root) == before


def test_files_of_others_stay(tmp_path, mvtec):
    output = tmp_path / "report"
    (output / "scratch").mkdir(parents=True)
    (output / "scratch" / "10.png").write_bytes(b"a drawing of mine")
    (output / "scores.csv").write_text("part,score\n1,2\n")
    before = contents(output)
    arguments = ("evaluate", mvtec, *SMALL, "--output", output)
    result = run(*arguments)
    assert result.exit_code == 1 and "what skanomaly did not write" in result.stderr
    assert "--overwrite" in result.stderr and contents(output) == before
    assert run(*arguments, "--overwrite").exit_code == 0
    assert is_own_picture(output / "scratch" / "10.png")
    assert (output / "scores.csv").read_text().count("\n") == 9
    # What is ours is replaced unasked.
    assert run(*arguments).exit_code == 0


@pytest.mark.parametrize("shots", [(), ("--shots", 2)])
@pytest.mark.parametrize(
    "content",
    [
        '{"oven": 180}',  # one line, not terminated
        '{"oven": 180}\n',
        '{\n  "name": "cake"\n}',
        "1,2,3\n",
        b"\x89\xff\x00",
    ],
)
def test_a_file_of_others_is_no_results_file(tmp_path, mvtec, content, shots):
    file = tmp_path / "recipe.json"
    content = content if isinstance(content, bytes) else content.encode()
    file.write_bytes(content)
    result = run("evaluate", mvtec, *SMALL, *shots, "--json", file)
    assert result.exit_code == 1 and "what skanomaly did not write" in result.stderr
    assert str(file) in result.stderr and file.read_bytes() == content


def test_a_file_of_others_is_replaced_where_asked_for(tmp_path, mvtec):
    file = tmp_path / "recipe.json"
    for shots in ((), ("--shots", 2)):
        file.write_text('{"oven": 180}')
        result = run("evaluate", mvtec, *SMALL, *shots, "--json", file, "--overwrite")
        assert result.exit_code == 0, result.output
        assert [row["name"] for row in lines_of(file)] == ["nut"]


def test_results_never_replace_an_input(tmp_path, surfaces):
    write_mvtec(tmp_path, surfaces)
    rows = [f"train/good/{i}.png,train,good" for i in range(6)]
    rows += [f"test/good/{i}.png,test,good" for i in range(6, 10)]
    rows += [f"test/scratch/{i}.png,test,scratch" for i in range(10, 14)]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["image,split,defect_type", *rows]))
    plugin = tmp_path / "plugin_of_mine.py"
    plugin.write_text("\n")
    arguments = ("evaluate", manifest, *SMALL, "--plugin", plugin, "--overwrite", "--json")
    for file in (manifest, plugin, tmp_path / "test" / "good" / "7.png"):
        before = file.read_bytes()
        result = run(*arguments, file)
        assert result.exit_code == 1 and "an input of this run would be replaced" in result.stderr
        assert file.read_bytes() == before


def test_the_demo_writes_over_nothing_of_others(tmp_path):
    arguments = ("demo", "--output", tmp_path, "--images", 3, "--size", 32)
    mine = tmp_path / "disc-32px-3-seed0" / "train" / "good" / "001.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    result = run(*arguments)
    assert result.exit_code == 1 and str(mine) in result.stderr
    assert list(contents(tmp_path)) == [mine] and mine.read_bytes() == b"mine"
    recipe = tmp_path / "recipe.json"
    recipe.write_text("{}")
    assert run(*arguments, "--overwrite", "--json", recipe).exit_code == 0
    assert is_own_picture(mine)
    recipe.write_text("{}")
    assert run(*arguments, "--json", recipe).exit_code == 1 and recipe.read_text() == "{}"


# Names


def test_names_of_a_manifest_are_a_strangers_claims(tmp_path, surfaces):
    kinds = ["../../escaped", "a/b", "a_b", "x" * 300, "scores.csv", "[/red]\x1b[2J\n", "..", "CON"]
    root = tmp_path / "deep" / "er" / "nut"
    bad = np.minimum(surfaces.images[10], 240)
    made = [*surfaces.images[:10], *(bad + np.uint8(i) for i in range(8))]
    write_images(root / "images", made, range(18))
    lines = [{"image": f"images/{i}.png", "split": "train", "y": 1} for i in range(6)]
    lines += [{"image": f"images/{i}.png", "split": "test", "y": 1} for i in range(6, 10)]
    lines += [
        {"image": f"images/{10 + i}.png", "split": "test", "y": -1, "defect_type": kind}
        for i, kind in enumerate(kinds)
    ]
    manifest = root / "parts.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = contents(tmp_path)
    result = run("datasets", manifest)
    assert result.exit_code == 0 and "[/red]" in result.stdout and "\x1b" not in result.stdout
    output = root / "report"
    result = run("evaluate", manifest, *SMALL, "--output", output)
    assert result.exit_code == 0, result.output
    assert "12 heat maps" in result.stderr and "\x1b[2J" not in result.stdout
    written = {path for path in contents(tmp_path) if path not in before}
    assert all(output in path.parents for path in written) and len(written) == 13
    with open(output / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {output / row["heat_map"] for row in rows} == written - {output / "scores.csv"}
    assert {row["defect_type"] for row in rows} == {"good", *(kind.strip() for kind in kinds)}
    # Each is drawn from its own image, whose good side is on the left.
    for row in rows:
        folder = Path(row["heat_map"]).parent.name
        assert len(folder.encode()) <= 150 and folder.rstrip(". ") == folder
    by_kind = {row["defect_type"]: Path(row["heat_map"]).parent.name for row in rows}
    assert by_kind["a_b"] == "a_b" and by_kind["a/b"] != "a_b" and by_kind["CON"] == "_CON"


def test_images_of_one_name_have_pictures_of_their_own(tmp_path, surfaces):
    root = tmp_path / "nut"
    write_images(root / "train", surfaces.images[:6], range(6))
    rows = [f"train/{i}.png,train,good" for i in range(6)]
    for camera, image in zip(("cam1", "cam2", "CAM3"), (6, 7, 8), strict=True):
        write_images(root / camera, [surfaces.images[image]], ["part7"])
        write_images(root / camera / "bad", [surfaces.images[image + 4]], ["part7"])
        write_images(root / camera, [surfaces.images[image + 3][::-1]], [f"only-{camera}"])
        rows += [f"{camera}/part7.png,test,good", f"{camera}/bad/part7.png,test,scratch"]
        rows += [f"{camera}/only-{camera}.png,test,scratch"]
    (root / "manifest.csv").write_text("\n".join(["image,split,defect_type", *rows]))
    output = tmp_path / "report"
    result = run("evaluate", root, *SMALL, "--output", output)
    assert result.exit_code == 0, result.output
    assert "9 heat maps" in result.stderr
    pictures = {path.relative_to(output).as_posix() for path in output.rglob("*.png")}
    assert pictures == {
        *(f"good/{camera}-part7.png" for camera in ("cam1", "cam2", "CAM3")),
        *(f"scratch/{camera}-bad-part7.png" for camera in ("cam1", "cam2", "CAM3")),
        *(f"scratch/only-{camera}.png" for camera in ("cam1", "cam2", "CAM3")),
    }
    with open(output / "scores.csv", newline="") as file:
        table = {row["image"]: row["heat_map"] for row in csv.DictReader(file)}
    assert len(table) == 9 and set(table.values()) == pictures
    for image, picture in table.items():
        with Image.open(image) as part, Image.open(output / picture) as drawn:
            corner = np.asarray(drawn.convert("RGB")).astype(int)
            part = np.asarray(part.convert("RGB")).astype(int)
        # In the corner of the picture stands the image of its row, enlarged six times.
        assert np.abs(corner[: 6 * 32 : 6, : 6 * 32 : 6] - part).max() <= 1


def test_names_that_cannot_be_decoded(tmp_path, surfaces):
    """They reach the table, the results and the terminal without an error after the work."""
    root = tmp_path / "all"
    odd = root / os.fsdecode(b"nut\xff")
    try:
        odd.mkdir(parents=True)
    except OSError:
        pytest.skip("this file system takes no such names")
    for folder in (odd, root / "[bold]bolt"):
        write_mvtec(folder, surfaces)
    odd = odd / "test" / "scratch"
    (odd / "10.png").rename(odd / os.fsdecode(b"part\xfe.png"))
    output, results = tmp_path / "report", tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "skanomaly.cli", "evaluate", root, *SMALL]
    done = subprocess.run(
        [*map(str, command), "--output", str(output), "--json", str(results)],
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    assert b"[bold]bolt" in done.stdout and rb"nut\udcff" in done.stdout
    assert [row["name"] for row in lines_of(results)] == [
        "[bold]bolt",
        os.fsdecode(b"nut\xff"),
    ]
    assert sorted(path.name for path in output.iterdir()) == ["[bold]bolt", "nut_"]
    with open(output / "nut_" / "scores.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(output / "nut_" / row["heat_map"]).is_file() for row in rows} == {True}
    assert any(row["image"].endswith(r"part\udcfe.png") for row in rows)
    assert (output / "nut_" / "scratch" / "part_.png").is_file()


# Results as they are had


def plugin_that(tmp_path, name, what, at):
    file = tmp_path / f"plugin_{name}.py"
    file.write_text(FAILS.format(name=name, what=what, at=at))
    model = ("--model", "vision_tiny", "--scorer", f"fails_{name}")
    return ("--plugin", file, *model, "--set", "image_size=32")


@pytest.mark.parametrize(
    ("name", "what", "code", "message"),
    [
        ("error", "raise RuntimeError('out of luck')", 1, "error: out of luck"),
        ("ctrl_c", "raise KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_finished_categories_are_kept(tmp_path, categories, name, what, code, message):
    results = tmp_path / "results.jsonl"
    options = plugin_that(tmp_path, name, what, at=3)
    result = run("evaluate", categories, *options, "--json", results)
    assert result.exit_code == code and "Traceback" not in result.output
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert [row["name"] for row in lines_of(results)] == ["a", "b"]


def test_finished_shots_are_kept_and_shown(tmp_path, categories):
    results = tmp_path / "results.jsonl"
    options = plugin_that(tmp_path, "shots", "raise KeyboardInterrupt", at=5)
    shots = ("--shots", 2, 3)
    result = run("evaluate", categories, *options, *shots, "--json", results)
    assert result.exit_code == 130
    had = [(row["name"], row["shots"]) for row in lines_of(results)]
    assert had == [("a", 2), ("a", 3), ("b", 2), ("b", 3)]
    assert result.stdout.count("│ b ") == 2
    # It goes on where it was.
    before = results.read_bytes()
    assert run("evaluate", categories, *options, *shots, "--json", results).exit_code == 0
    assert results.read_bytes().startswith(before) and len(lines_of(results)) == 6


def test_numbers_come_before_pictures(tmp_path, categories):
    """A disk that is full for pictures, but not for the numbers."""
    resource = pytest.importorskip("resource")
    results, output = tmp_path / "results.jsonl", tmp_path / "report"
    command = [sys.executable, "-m", "skanomaly.cli", "evaluate", categories, *SMALL]
    rng = np.random.default_rng(0)
    for path in categories.rglob("test/*/*.png"):  # pictures of these are larger than the limit
        noise = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    limit = 15_000
    done = subprocess.run(
        [*map(str, command), "--json", str(results), "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert [row["name"] for row in lines_of(results)] == ["a"]
    assert not list(output.rglob("*.png")) and not list(output.rglob("*.tmp"))


def test_earlier_results_are_kept(tmp_path, categories):
    results = tmp_path / "results.jsonl"

    def evaluate(*options):
        done = run("evaluate", categories, *SMALL, "--json", results, *options)
        assert done.exit_code == 0, done.output
        return [(row["name"], row["contamination"], row["shots"]) for row in lines_of(results)]

    assert evaluate("--category", "a") == [("a", 0.1, None)]
    expected = [("a", 0.1, None), ("b", 0.1, None)]
    assert evaluate("--category", "b") == expected
    assert evaluate("--category", "a") == [*expected, ("a", 0.1, None)]  # the later one counts
    assert len(evaluate("--category", "a", "--contamination", "0.2")) == 4
    assert len(evaluate("--category", "a", "--shots", "2")) == 5
    assert len(evaluate("--category", "a", "--shots", "2")) == 5  # read instead of repeated


def test_a_line_that_was_cut_off_is_left_out(tmp_path, categories):
    results = tmp_path / "results.jsonl"
    options = ("evaluate", categories, *SMALL, "--json", results, "--category")
    for name in ("a", "b"):
        assert run(*options, name).exit_code == 0
    whole = results.read_text()
    results.write_text(whole + whole[:300])
    assert run(*options, "c").exit_code == 0
    assert results.read_text().startswith(whole)
    assert [row["name"] for row in lines_of(results)] == ["a", "b", "c"]
    # A line that lacks nothing but its end is whole.
    results.write_text(whole.rstrip("\n"))
    assert run(*options, "c").exit_code == 0
    assert [row["name"] for row in lines_of(results)] == ["a", "b", "c"]


def test_a_link_to_the_results_stays_one(tmp_path, mvtec):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "results.jsonl"
    link.symlink_to(tmp_path / "elsewhere" / "results.jsonl")
    assert run("evaluate", mvtec, *SMALL, "--json", link).exit_code == 0
    assert link.is_symlink() and len(lines_of(tmp_path / "elsewhere" / "results.jsonl")) == 1


def test_two_data_sets_of_one_name_share_no_rows(tmp_path, surfaces):
    """Nor does one that was changed, or a model whose weights were."""
    results = tmp_path / "runs.jsonl"
    good = write_mvtec(tmp_path / "lineA" / "nut", surfaces)
    bad = write_mvtec(tmp_path / "lineB" / "nut", surfaces)
    dim = [np.maximum(image, 1) - np.uint8(1) for image in surfaces.images]
    write_images(bad / "test" / "scratch", dim[:4], range(10, 14))

    def auroc(root):
        done = run("evaluate", root, *SMALL, "--shots", 3, "--json", results)
        assert done.exit_code == 0, done.output
        own = run("evaluate", root, *SMALL, "--shots", 3, "--json", "-")
        numbers = json.loads(own.stdout)["metrics"]
        assert f"{numbers['image_auroc']:.4f}" in done.stdout
        return numbers["image_auroc"]

    assert auroc(good) > auroc(bad) and len(lines_of(results)) == 2
    assert auroc(good) > 0 and len(lines_of(results)) == 2
    write_images(good / "test" / "good", dim[6:7], ["new"])
    assert auroc(good) > 0 and len(lines_of(results)) == 3


# Said before the work


@pytest.fixture
def no_work(monkeypatch):
    """No image may be embedded, and none be decoded."""

    def fail(*args, **kwargs):
        raise AssertionError("this is work")

    monkeypatch.setattr(BasePatchEmbedder, "transform", fail)
    monkeypatch.setattr(BasePatchEmbedder, "fit_transform", fail)


def test_shots_that_cannot_be(mvtec, no_work):
    small = ("evaluate", mvtec, "--set", "image_size=32", "--shots")
    result = run(*small, 7)
    assert result.exit_code == 1 and "nut, 7 shots: seed 0 takes images 0 to 6" in result.stderr
    # Gaussians need three images.
    result = run(*small, 4, 2, "--model", "vision_tiny", "--scorer", "gaussian")
    assert result.exit_code == 1
    assert "PatchGaussianScorer needs at least 3 normal images to train on, not 2" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "FILE/maps"), "there is a file of that name"),
        (("--output", "FILE"), "there is a file of that name"),
        (("--json", "FILE/x.json"), "there is no folder for"),
        (("--json", "no/x.json"), "there is no folder for"),
        (("--json", "FOLDER"), "is a folder"),
        (("--json", "/dev/null"), "there is something else"),
        (("--json", "/proc/x.json"), "/proc"),
        (("--output", "/proc/maps"), "/proc/maps"),
        (("--set", "cache_dir=FILE/cache"), "cache_dir="),
        (("--output", "FOLDER/out", "--json", "FOLDER/out/scores.csv"), "--output will write"),
        (("--output", "FOLDER/out", "--json", "FOLDER/out/scratch/10.png"), "--output will write"),
        (("--json", "FOLDER/" + "x" * 300), "File name too long"),
    ],
)
def test_outputs_that_cannot_be_written(tmp_path, mvtec, no_work, options, message):
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / "FOLDER").mkdir()
    options = [
        text.replace("FILE", str(tmp_path / "FILE")).replace("FOLDER", str(tmp_path / "FOLDER"))
        for text in options
    ]
    result = run("evaluate", mvtec, *SMALL, *options)
    assert result.exit_code == 1 and message in result.stderr, result.output
    assert (tmp_path / "FILE").read_text() == "mine"


def test_images_and_masks_that_do_not_fit(mvtec, no_work):
    mask = mvtec / "ground_truth" / "scratch"
    write_images(mask, [np.full((9, 9), 255, np.uint8)] * 4, [f"{i}_mask" for i in range(10, 14)])
    (mvtec / "train" / "good" / "3.png").write_bytes(b"no image")
    for shots in ((), ("--shots", 2)):
        result = run("evaluate", mvtec, *SMALL, *shots)
        assert result.exit_code == 1
        lines = result.stderr.splitlines()
        assert lines[0] == "error: nut: these images or masks cannot be used"
        assert len(lines) == 6  # each in a line of its own
        assert "3.png" in lines[1] and "not an image" in lines[1]
        assert "sizes (height, width) differ" in lines[5]


def test_pixels_beyond_the_limit(mvtec):
    limit = Image.MAX_IMAGE_PIXELS
    for command in (("evaluate", mvtec, *SMALL), ("datasets", mvtec)):
        result = run(*command, "--max-pixels", 1000)
        assert result.exit_code == 1 and "1024 pixels" in result.output
        assert run(*command, "--max-pixels", 1024).exit_code == 0
        assert Image.MAX_IMAGE_PIXELS == limit
    result = run("evaluate", mvtec, *SMALL, "--max-pixels", 1000)
    assert "on the command line --max-pixels" in result.stderr


def test_a_folder_below_home(tmp_path, mvtec, monkeypatch):
    """Shells leave the ~ in --output=~/x to the program."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = run("evaluate", "~/nut", *SMALL, "--output=~/maps", "--json=~/x.jsonl")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "maps" / "scores.csv").is_file() and len(lines_of(tmp_path / "x.jsonl")) == 1
    (tmp_path / "weights.pth").write_bytes(b"none")
    arguments = ("evaluate", "~/nut", "--model", "vision_anomalib_checkpoint")
    assert "~" not in run(*arguments, "--weights=~/weights.pth").stderr
    (tmp_path / "exits.py").write_text("raise SystemExit('good bye')")
    assert "SystemExit: good bye" in run("evaluate", "~/nut", "--plugin=~/exits.py").stderr
    assert not (tmp_path / "~").exists()


# Plain words


def test_errors_that_list_several_things_keep_their_lines(tmp_path, mvtec):
    for name in ("a.txt", "b.txt"):
        (mvtec / "train" / "good" / name).write_text("no image")
    result = run("evaluate", mvtec)
    lines = result.stderr.rstrip().splitlines()
    assert result.exit_code == 1 and lines[0].endswith("2 paths do not fit the layout")
    assert ["a.txt" in lines[1], "b.txt" in lines[2], len(lines)] == [True, True, 3]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [("SystemExit(3)", 1, "failed: SystemExit: 3"), ("KeyboardInterrupt", 130, "interrupted")],
)
def test_a_plugin_that_ends_the_program(tmp_path, error, code, message):
    plugin = tmp_path / f"plugin_{code}.py"
    plugin.write_text(f"raise {error}")
    result = run("models", "--plugin", plugin)
    assert result.exit_code == code and message in result.stderr


def test_what_a_scorer_takes():
    result = run("models", "knn")
    assert result.exit_code == 0 and "--scorer knn" in result.stdout
    assert "knn__coreset" in result.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--coreset", "0.1"), "no option --coreset; a parameter of the model is given as --set"),
        (("--coreset=0.1",), "--set coreset=0.1"),
        (("--ouput", "x"), "no option --ouput; did you mean --output?"),
        (
            ("--set", "n_neighbors=2"),
            f"--set n_neighbors: {DEFAULT_MODEL} has no parameter 'n_neighbors'; --scorer",
        ),
        (("--set", "knn__n_neighbors=2"), f"--set knn__n_neighbors: {DEFAULT_MODEL} has no"),
        (("--set", "emb__layers=3"), f"--set emb__layers: {DEFAULT_MODEL} has no parameter"),
    ],
)
def test_options_are_named_as_they_were_typed(mvtec, options, expected):
    result = run("evaluate", mvtec, *options)
    message = " ".join(result.stderr.replace("│", " ").split())
    assert result.exit_code == (1 if "--set" in options else 2) and expected in message
    assert "resize" not in result.stderr
    if "--set" in options:
        name = options[1].partition("=")[0]
        takers = {
            "n_neighbors": "--scorer knn, retrieval and --model",
            "knn__n_neighbors": "--scorer knn and --model",
            "emb__layers": "vision_patchcore",
        }[name]
        assert takers in message and f"have {name if '__' in name else 'it'}" in message


@pytest.mark.parametrize("options", [(), ("--json", "-"), ("--json", "-", "--shots", "2", "3")])
def test_a_reader_that_goes_away(mvtec, options):
    """As `| head` does."""
    command = [sys.executable, "-m", "skanomaly.cli", "evaluate", str(mvtec), *SMALL, *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert error == "" and process.returncode == 1


def test_progress_does_not_stand_among_results(tmp_path, mvtec):
    result = run("evaluate", mvtec, *SMALL, "--output", tmp_path / "maps", "--json", "-")
    assert json.loads(result.stdout)["name"] == "nut" and "8 heat maps" in result.stderr


def test_interrupted_by_a_person(tmp_path, categories):
    """A real Ctrl-C, from outside."""
    results = tmp_path / "results.jsonl"
    options = plugin_that(tmp_path, "slow", "__import__('time').sleep(60)", at=2)
    command = [sys.executable, "-m", "skanomaly.cli", "evaluate", categories, *options]
    with subprocess.Popen(
        [*map(str, command), "--json", str(results)],
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background ignores it, and so would all that it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not (results.exists() and results.read_text().endswith("\n")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130 and error.startswith("interrupted")
    assert [row["name"] for row in lines_of(results)] == ["a"]


def test_heat_maps_do_not_land_among_images_of_others(tmp_path, surfaces):
    """A later run would train on them."""
    root, other = tmp_path / "a", tmp_path / "b"
    write_mvtec(root, surfaces)
    write_images(other / "scratch", surfaces.images[:3], ["IMG_1", "IMG_2", "IMG_3"])
    before = contents(other)
    for option in ([], ["--overwrite"]):
        result = run("evaluate", root, *SMALL, "--output", other, *option)
        assert result.exit_code == 1 and "holds images that are no heat maps" in result.stderr
    assert contents(other) == before


@pytest.mark.parametrize("place", ["all/nut/test/report", "all/nut", "all"])
def test_heat_maps_do_not_land_in_a_data_set(tmp_path, surfaces, place):
    write_mvtec(tmp_path / "all" / "nut", surfaces)
    before = contents(tmp_path)
    result = run("evaluate", tmp_path / "all" / "nut", *SMALL, "--output", tmp_path / place)
    assert result.exit_code == 1 and "outside of the data set" in result.stderr
    assert contents(tmp_path) == before


def test_an_earlier_report_stays_until_there_is_a_new_one(tmp_path, surfaces, monkeypatch):
    root, output = tmp_path / "nut", tmp_path / "report"
    write_mvtec(root, surfaces)
    assert run("evaluate", root, *SMALL, "--output", output).exit_code == 0
    before = contents(output)
    monkeypatch.setattr("skanomaly.report._folder.save_picture", no_space)
    result = run("evaluate", root, *SMALL, "--output", output)
    assert result.exit_code == 1 and "No space left" in result.stderr
    assert contents(output) == before
    monkeypatch.undo()
    (root / "test" / "scratch" / "10.png").unlink()
    (root / "ground_truth" / "scratch" / "10_mask.png").unlink(missing_ok=True)
    assert run("evaluate", root, *SMALL, "--output", output).exit_code == 0
    assert set(before) - set(contents(output)) == {output / "scratch" / "10.png"}


def no_space(*_):
    raise OSError(28, "No space left on device")


def test_the_demo_trains_on_no_image_of_others(tmp_path):
    small = ["--images", 3, "--size", 32, "--output", tmp_path / "demo"]
    assert run("demo", *small).exit_code == 0
    folder = tmp_path / "demo" / "disc-32px-3-seed0" / "train" / "good"
    with Image.open(folder / "000.png") as image:
        image.rotate(90).save(folder / "mine.jpg")
    result = run("demo", *small)
    assert result.exit_code == 1 and "mine.jpg is none of these surfaces" in result.stderr
