"""`skanomaly fit --update`, `forget` and `merge`: models that change, from file to file."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import (
    FilterBankPatches,
    PatchKNNScorer,
    RetrievalKNNScorer,
    load_model,
    model_manifest,
    recalibrate,
    save_model,
)
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces

MADE = make_surfaces(20, 2, image_size=64, random_state=0)


def run(*args, stdin=None):
    return CliRunner().invoke(app, [*map(str, args)], input=stdin)


@pytest.fixture(scope="module")
def fitted():
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(contamination=0.2))
    return pipe.fit(MADE.images[:12])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two folders of good images, and a model of each."""
    monkeypatch.chdir(tmp_path)
    for name, numbers in (("may", range(12)), ("june", range(12, 20))):
        (tmp_path / name).mkdir()
        for i in numbers:
            Image.fromarray(MADE.images[i]).save(f"{name}/{i:02d}.png")
        pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(contamination=0.2))
        save_model(pipe.fit(sorted((tmp_path / name).iterdir())), f"{name}.skan")
    return tmp_path


def expected(here, *folders, without=()):
    paths = [path for name in folders for path in sorted((here / name).iterdir())]
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(contamination=0.2))
    return pipe.fit([path for path in paths if path.name not in without])


def assert_same(file, model):
    found = load_model(file)
    np.testing.assert_allclose(found[-1].train_scores_, model[-1].train_scores_, rtol=1e-6)
    np.testing.assert_allclose(found.score_samples(MADE.images), model.score_samples(MADE.images))
    assert found[0]._train_images == model[0]._train_images


def test_update(here):
    result = run("fit", "june", "--update", "may.skan", "-o", "both.skan", "--json", "told.json")
    assert result.exit_code == 0, result.output
    model = expected(here, "may", "june")
    assert_same("both.skan", model)
    told = json.loads((here / "told.json").read_text())
    assert (told["command"], told["model"], told["file"]) == ("fit", "may.skan", "both.skan")
    assert (told["n_new"], told["n_images"], told["n_groups"]) == (8, 20, None)
    assert told["threshold"] == pytest.approx(model[-1].offset_)
    assert told["before"] == load_model("may.skan")[-1].offset_
    assert told["expected_share"] == pytest.approx(0.2)
    assert "updated    may.skan with 8 good images, to 20, in " in result.stdout
    assert "threshold  -0." in result.stdout and "; it was -0." in result.stdout


def test_update_with_groups_and_without_paths(here):
    args = ("fit", "june", "--update", "may.skan", "--groups-by-folder", "--no-image-paths")
    result = run(*args, "-o", "both.skan")
    assert result.exit_code == 0, result.output
    both = load_model("both.skan")
    assert both[-1].calibration_["n_groups"] == 13  # twelve images, and a folder
    assert set(both[0]._train_images.paths) == {None}
    assert model_manifest("both.skan")["training_images"]["count"] == 20


def test_update_takes_the_model_as_it_is(here):
    result = run(
        *("fit", "june", "--update", "may.skan", "-o", "x.skan"),
        *("--model", "filterbank+tiny", "--set", "image_size=32", "--contamination", 0.3),
    )
    assert result.exit_code == 2
    assert "leave out --model, --set, --contamination" in result.stderr
    result = run("fit", "june", "-o", "x.skan", "--trust", "os.system")
    assert result.exit_code == 2 and "--trust is for the file of --update" in result.stderr
    assert not (here / "x.skan").exists()


def test_forget(here):
    run("fit", "june", "--update", "may.skan", "-o", "both.skan")
    result = run("forget", "both.skan", "may/03.png", "june/1[23].png", "-o", "left.skan")
    assert result.exit_code == 0, result.output
    without = ("03.png", "12.png", "13.png")
    assert_same("left.skan", expected(here, "may", "june", without=without))
    assert "forgotten  3 of 20 good images of both.skan" in result.stdout
    result = run("forget", "may.skan", "june/12.png", "may/01.png", "-o", "x.skan")
    assert result.exit_code == 1
    assert "the model was not fitted to image 0 (june/12.png), and cannot" in result.stderr
    result = run("forget", "may.skan", "-", "-o", "told.skan", "--json", "-", stdin="may/01.png\n")
    told = json.loads(result.stdout)
    assert (told["command"], told["n_forgotten"], told["n_images"]) == ("forget", 1, 11)
    assert not (here / "x.skan").exists()


def test_merge(here):
    result = run("merge", "may.skan", "june.skan", "-o", "both.skan", "--json", "told.json")
    assert result.exit_code == 0, result.output
    assert_same("both.skan", expected(here, "may", "june"))
    assert "merged     2 models of 20 good images" in result.stdout
    told = json.loads((here / "told.json").read_text())
    assert told["models"] == ["may.skan", "june.skan"] and told["n_images"] == 20
    for models in (["may.skan"], ["may.skan", "./may.skan"]):
        result = run("merge", *models, "-o", "x.skan")
        assert result.exit_code == 2 and "two models or more, each named once" in result.stderr
    other = make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer(contamination=0.2))
    save_model(other.fit(MADE.images[:12]), "other.skan")
    result = run("merge", "may.skan", "other.skan", "-o", "x.skan")
    assert result.exit_code == 1
    assert "FilterBankPatches is another: image_size is 32, was 64" in result.stderr
    assert not (here / "x.skan").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("fit", "june", "--update", "may.skan"),
        ("forget", "may.skan", "may/00.png"),
        ("merge", "may.skan", "june.skan"),
    ],
    ids=lambda command: command[0],
)
def test_nothing_is_overwritten(here, command):
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    for target, more, why in [
        ("may.skan", (), "is there already: name another file, or replace it with --overwrite"),
        ("may.skan", ("--overwrite",), "an input of this run would be replaced"),
        ("may/00.png", ("--overwrite",), "is no model file, and is never replaced"),
        ("none/x.skan", (), "there is no folder for --output"),
        ("new.skan", ("--json", "new.skan"), "is the file of --output"),
    ]:
        result = run(*command, "-o", target, *more)
        assert result.exit_code == 1 and why in result.stderr, result.output
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_models_that_cannot_change(here, fitted):
    bank = FilterBankPatches(image_size=64)
    save_model(recalibrate(fitted, threshold=-1.0), "moved.skan")
    save_model(make_pipeline(bank, RetrievalKNNScorer(3)).fit(MADE.images[:12]), "other.skan")
    for model, why in [
        ("moved.skan", "was given or tuned as a number"),
        ("other.skan", "RetrievalKNNScorer cannot take in images after fit"),
    ]:
        for command in (("fit", "june", "--update", model), ("forget", model, "may/00.png")):
            result = run(*command, "-o", "x.skan")
            assert result.exit_code == 1 and why in result.stderr, result.output
    result = run("merge", "may.skan", "moved.skan", "-o", "x.skan")
    assert result.exit_code == 1 and "model 1: the threshold of this model" in result.stderr
    assert not (here / "x.skan").exists()
