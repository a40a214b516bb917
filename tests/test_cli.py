"""The command line, as a person runs it."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import skanomaly
from skanomaly.cli import app, build_pipeline


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    result = run("demo", "--output", output, "--images", 12, "--size", 128, "--json", output / "r")
    assert result.exit_code == 0, result.output
    return output, result


def test_demo(demo):
    output, result = demo
    assert "image auroc" in result.output and "aupro 0.3" in result.output
    numbers = json.loads((output / "r").read_text())
    assert numbers["n_train"] == 12 and numbers["n_normal"] == 10 and numbers["n_anomalous"] == 15
    assert numbers["metrics"]["image_auroc"] > 0.8
    heat_maps = sorted((output / "heatmaps").rglob("*.png"))
    assert len(heat_maps) == 25
    with Image.open(heat_maps[0]) as picture:
        assert picture.size == (256, 128)  # the image, and beside it the map over it
    with open(output / "heatmaps" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 25
    for row in rows:
        verdict = "anomalous" if float(row["score"]) < float(row["threshold"]) else "normal"
        assert row["verdict"] == verdict
        assert (output / "heatmaps" / row["heat_map"]).is_file()


def test_heat_is_where_the_defect_is(demo):
    output, _ = demo
    data = output / "disc-128px-12-seed0"
    hits = 0
    for mask_path in (data / "ground_truth" / "missing_piece").iterdir():
        stem = mask_path.stem.removesuffix("_mask")
        with Image.open(mask_path) as im:
            mask = np.asarray(im) > 0
        with Image.open(output / "heatmaps" / "missing_piece" / f"{stem}.png") as im:
            plain, painted = np.split(np.asarray(im).astype(int), 2, axis=1)
        change = np.abs(painted - plain).sum(axis=-1)
        hits += change[mask].mean() > 3 * change[~mask].mean()
    assert hits == 3


def test_evaluate(demo, tmp_path):
    data = demo[0] / "disc-128px-12-seed0"
    args = ("evaluate", data, "--image-size", 64, "--scorer", "knn", "--topk", 0.05)
    result = run(*args, "--coreset", 0.5, "--contamination", 0.2, "--json", "-")
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert numbers["contamination"] == 0.2 and numbers["n_train"] == 12
    result = run(*args, "--output", tmp_path / "maps", "--cache-dir", tmp_path / "cache")
    assert result.exit_code == 0 and "12 / 10 / 15" in result.stdout
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 25
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 37


def test_evaluate_with_weights(demo, shared):
    pytest.importorskip("timm")
    result = run(
        *("evaluate", demo[0] / "disc-128px-12-seed0", "--model", "vit_tiny_patch16_224"),
        *("--weights", shared / "weights" / "vit_tiny_patch16_224.safetensors"),
        *("--layers", "5,7", "--image-size", 96, "--json", "-"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["metrics"]["image_auroc"] > 0.6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "no-such-folder"], "no-such-folder"),
        (["evaluate", "DATA", "--scorer", "svm"], "scorer must be"),
        (["evaluate", "DATA", "--model", "vit_tinny_patch16_224"], "did you mean vit_tiny"),
        (["evaluate", "DATA", "--layers", "3"], "FilterBankPatches has no parameter layers"),
        (["evaluate", "DATA", "--layers", "x", "--model", "resnet18"], "layers"),
        (["evaluate", "DATA", "--image-size", "100"], "not a multiple"),
        (["evaluate", "DATA", "--contamination", "0.7"], "contamination"),
        (["evaluate", "DATA", "--topk", "x"], "--topk must be"),
        (["evaluate", "DATA", "--json", "TMP/no/x.json"], "x.json"),
        (["evaluate", "DATA", "--model", "resnet18", "--device", "cuda:99"], "cuda:99"),
        (["demo", "--surface", "cheese", "--output", "TMP"], "cheese"),
    ],
)
def test_one_line_errors(demo, tmp_path, args, message):
    places = {"DATA": str(demo[0] / "disc-128px-12-seed0"), "TMP": str(tmp_path)}
    if "--model" in args:
        pytest.importorskip("timm")
    result = run(*(str.replace(places.get(arg, arg), "TMP", str(tmp_path)) for arg in args))
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


def test_unknown_parameter_and_names():
    assert type(build_pipeline("dinov2_vits14")[0]).__name__ == "DinoV2Patches"
    assert type(build_pipeline("resnet18")[0]).__name__ == "TimmPatches"
    with pytest.raises(ValueError, match="PatchGaussianScorer has no parameter coreset"):
        build_pipeline("filterbank", scoring={"coreset": 0.1})


def test_a_second_run_replaces_the_maps_of_the_first(demo, tmp_path):
    data = demo[0] / "disc-128px-12-seed0"
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.png").write_bytes(b"kept")
    arguments = ("evaluate", data, "--image-size", 64, "--output", tmp_path / "maps")
    for _ in range(2):
        assert run(*arguments, "--scorer", "knn", "--topk", 3).exit_code == 0
    stale = data / "test" / "good" / "012.png"
    moved = stale.rename(data / "test" / "good" / "renamed.png")
    try:
        assert run(*arguments).exit_code == 0
    finally:
        moved.rename(stale)
    names = {path.name for path in (tmp_path / "maps").rglob("*.png")}
    assert len(names) == 26 and {"renamed.png", "mine.png"} <= names and "012.png" not in names


def test_few_shots(demo, tmp_path):
    data, table = demo[0] / "disc-128px-12-seed0", tmp_path / "runs.jsonl"
    arguments = ("evaluate", data, "--image-size", 64, "--scorer", "knn", "--json", table)
    arguments += ("--shots", 2, 3, "--seeds", 2)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [(row["shots"], row["seed"], row["n_train"]) for row in rows] == [
        (2, 0, 2),
        (2, 1, 2),
        (3, 0, 3),
        (3, 1, 3),
    ]
    before = table.read_text()
    assert run(*arguments).exit_code == 0 and table.read_text() == before
    assert "unexpected arguments: 5" in run("evaluate", data, "5").stderr
    assert "leave out --shots" in run(*arguments, "--output", tmp_path).stderr
    assert "--seeds is for --shots" in run("evaluate", data, "--seeds", 2).stderr
    table.write_text('{"name": "another"}\n')
    assert "holds other things than runs" in run(*arguments).stderr
    assert table.read_text() == '{"name": "another"}\n'


def test_datasets(demo, tmp_path):
    root = tmp_path / "all"
    for name in ("a", "b"):
        shutil.copytree(demo[0] / "disc-128px-12-seed0", root / name)
    result = run("datasets", root)
    assert result.exit_code == 0 and "scratch" in result.stdout
    assert result.stdout.count("train") == 2
    mask = next((root / "b" / "ground_truth" / "spot").iterdir())
    Image.new("L", (5, 5), 255).save(mask)
    result = run("datasets", root)
    assert result.exit_code == 1 and "1 problems found" in result.stderr
    assert "sizes (height, width) differ" in result.stdout
    result = run("evaluate", root, "--category", "a", "--image-size", 64, "--json", "-")
    assert result.exit_code == 0 and json.loads(result.stdout)["n_train"] == 12
    mask.unlink()
    assert "does not fit the layout" in run("datasets", root).stderr


def test_version():
    assert run("--version").output.strip() == skanomaly.__version__


def test_runs_are_repeatable(demo):
    arguments = ("evaluate", demo[0] / "disc-128px-12-seed0", "--json", "-")
    first, second = (json.loads(run(*arguments).stdout) for _ in range(2))
    assert first.pop("seconds") != second.pop("seconds")
    assert first == second


def test_installed_command():
    help_text = subprocess.run(
        [sys.executable, "-m", "skanomaly.cli", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert help_text.returncode == 0 and "evaluate" in help_text.stdout
