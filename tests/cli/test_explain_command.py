"""``skanomaly explain``: a kept model, one image, words, numbers and a picture."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    decide,
    explain,
    save_model,
)
from skanomaly._output import is_own_picture
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces
from skanomaly.report import _explanation_picture

SIDE = 64


@pytest.fixture(scope="module")
def made():
    return make_surfaces(
        14, 1, surface="fabric", defects="missing_piece", image_size=SIDE, random_state=0
    ).images


@pytest.fixture
def parts(made, tmp_path):
    """Good parts, a bad one, and a model of nearest patches."""
    (tmp_path / "good").mkdir()
    good = [tmp_path / "good" / f"part {i:02d}.png" for i in range(14)]
    bad = tmp_path / "bad #1.png"
    for path, image in zip([*good, bad], made, strict=True):
        Image.fromarray(image).save(path)
    return good, bad


def kept(parts, tmp_path, scorer=None, **options):
    scorer = PatchKNNScorer(metric="euclidean") if scorer is None else scorer
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), scorer).fit(parts[0])
    save_model(pipe, tmp_path / "model.skan", **options)
    return pipe, str(tmp_path / "model.skan")


def run(*arguments):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_words_and_numbers(parts, tmp_path):
    pipe, model = kept(parts, tmp_path)
    expected, (decision,) = explain(pipe, parts[1]), decide(pipe, [parts[1]])
    result = run(model, parts[1])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"anomalous: score {decision.score:.6g} < threshold")
    assert lines[1:] == list(expected.lines())
    assert any(os.path.basename(expected.neighbors[0].path) in line for line in lines)
    result = run(model, parts[1], "--json", "-", "--neighbors", 1)
    found = json.loads(result.stdout)
    assert found["command"] == "explain" and found["decision"] == "anomalous"
    assert found["p_value"] == decision.p_value and found["threshold"] == decision.threshold
    (near,) = found["explanation"]["neighbors"]
    assert near["path"] == expected.neighbors[0].path
    assert found["explanation"]["patch"]["box"] == list(expected.box)
    target = tmp_path / "why.json"
    assert run(model, parts[1], "--json", target).exit_code == 0
    assert json.loads(target.read_text())["explanation"]["kind"] == "neighbors"


def test_picture(parts, tmp_path):
    _, model = kept(parts, tmp_path)
    target = tmp_path / "why.png"
    result = run(model, parts[1], "-o", target)
    assert result.exit_code == 0, result.output
    assert f"picture: {target}" in result.stdout
    assert is_own_picture(target)
    with Image.open(target) as picture:
        assert picture.width > 4 * 320 and len(picture.getcolors(2**24)) > 100
    assert run(model, parts[1], "-o", target).exit_code == 0  # one of ours is replaced
    other = tmp_path / "other.png"
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(other)
    result = run(model, parts[1], "-o", other)
    assert result.exit_code == 1 and "did not write" in result.stderr
    for held in (parts[1], parts[0][3], model):
        before = Path(held).read_bytes()
        result = run(model, parts[1], "-o", held, "--overwrite")
        assert result.exit_code == 1 and "would be replaced by its output" in result.stderr
        assert Path(held).read_bytes() == before


def test_training_images_that_are_not_there(parts, tmp_path):
    pipe, model = kept(parts, tmp_path)
    near = explain(pipe, parts[1]).neighbors[0]
    os.unlink(near.path)
    result = run(model, parts[1], "-o", tmp_path / "why.png")
    assert result.exit_code == 0, result.output
    assert f"{near.path} (the file is missing)" in result.stdout
    assert (tmp_path / "why.png").is_file()


def test_models_without_paths(parts, tmp_path):
    _, model = kept(parts, tmp_path, image_paths=False)
    result = run(model, parts[1], "-o", tmp_path / "why.png")
    assert result.exit_code == 0, result.output
    assert "of fit, patch (" in result.stdout and "holds no paths" in result.stdout
    assert str(tmp_path / "good") not in result.stdout


def test_components(parts, tmp_path):
    _, model = kept(parts, tmp_path, PatchGaussianScorer("shared"))
    result = run(model, parts[1], "-o", tmp_path / "why.png")
    assert result.exit_code == 0, result.output
    assert " sd, " in result.stdout and "of the squared distance" in result.stdout


def test_what_is_no_image(parts, tmp_path):
    _, model = kept(parts, tmp_path)
    for image, error in [
        (tmp_path / "none.png", "is not there"),
        (tmp_path / "good", "is a folder"),
        (model, "model.skan"),
    ]:
        result = run(model, image, "-o", tmp_path / "why.png")
        assert result.exit_code == 1 and error in result.stderr, result.output
        assert not (tmp_path / "why.png").exists()
    result = run(model, parts[1], "-o", tmp_path / "missing" / "why.png")
    assert result.exit_code == 1 and "no folder for --output" in result.stderr


def test_the_picture_names_no_folder(parts, tmp_path):
    """It is passed on: the same images elsewhere give the same picture."""
    elsewhere = tmp_path / "a folder of someone else, deep below many others" / "2026"
    shutil.copytree(tmp_path / "good", elsewhere)
    pictures = []
    for good in (parts[0], sorted(elsewhere.iterdir())):
        pipe = make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer()).fit(good)
        save_model(pipe, tmp_path / "model.skan")
        target = tmp_path / f"{len(pictures)}.png"
        assert run(tmp_path / "model.skan", parts[1], "-o", target).exit_code == 0
        pictures.append(np.asarray(Image.open(target)))
    np.testing.assert_array_equal(*pictures)


def test_the_picture_tells_files_of_one_name_apart():
    paths = [os.path.join("a", *rest) for rest in (("1", "t.png"), ("2", "t.png"), ("1", "t.png"))]
    shown = _explanation_picture._short_names([*paths, None])
    assert shown == [path.removeprefix(f"a{os.sep}") for path in paths] + [None]
    assert _explanation_picture._short_names(paths[:1]) == ["t.png"]
