"""`skanomaly export`: a model file as one graph."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import (
    DeployedDetector,
    FilterBankPatches,
    PatchKNNScorer,
    RetrievalKNNScorer,
    recalibrate,
    save_model,
)
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces

pytest.importorskip("onnx")

SURFACES = make_surfaces(12, 3, image_size=64, random_state=0)


def run(*args, stdin=None):
    return CliRunner().invoke(app, ["export", *map(str, args)], input=stdin)


@pytest.fixture(scope="module")
def fitted():
    return make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(
        SURFACES.images[:8]
    )


@pytest.fixture
def here(tmp_path, fitted, monkeypatch):
    """A folder with a model and good images."""
    monkeypatch.chdir(tmp_path)
    save_model(fitted, "parts.skan")
    (tmp_path / "good").mkdir()
    for i, image in enumerate(SURFACES.images[:8]):
        Image.fromarray(image).save(tmp_path / "good" / f"{i}.png")
    return tmp_path


def test_a_graph(here, fitted):
    result = run("parts.skan", "good", "-o", "parts.onnx")
    assert result.exit_code == 0, result.output
    assert "graph     parts.onnx, " in result.stdout and "for ONNX Runtime" in result.stdout
    assert "any number of images of height 64, width 64, RGB" in result.stdout
    told = re.search(r"copies of 8 images: the same decisions, (\d) of 8 anomalous;", result.stdout)
    about = DeployedDetector("parts.onnx").manifest_["verified"]
    assert int(told[1]) == about["n_anomalous"]
    new = SURFACES.images[8:]
    found = DeployedDetector("parts.onnx")
    np.testing.assert_allclose(found.score_samples(new), fitted.score_samples(new), rtol=1e-5)
    np.testing.assert_array_equal(found.predict(new), fitted.predict(new))


@pytest.mark.filterwarnings("default:.* altered copies were called anomalous")
def test_sides_are_told_by_their_names_and_decisions_of_one_side_too(here, fitted):
    save_model(recalibrate(fitted, threshold=1.0), "strict.skan")
    for path in (here / "good").iterdir():
        Image.fromarray(np.asarray(Image.open(path))[:40]).save(path)
    result = run("strict.skan", "good", "-o", "parts.onnx")
    assert result.exit_code == 0, result.output
    assert "warning: All of the 8 altered copies" in result.stderr
    assert "any number of images of height 40, width 64, RGB" in result.stdout
    assert "the same decisions, 8 of 8 anomalous;" in result.stdout


def test_any_size_a_list_and_json(here):
    Image.fromarray(SURFACES.images[0][:40]).save("good/0.png")
    listed = "\n".join(str(path) for path in (here / "good").iterdir())
    refused = run("parts.skan", "-", "-o", "parts.onnx", stdin=listed)
    assert refused.exit_code == 1 and "any_size" in refused.stderr
    arguments = ("parts.skan", "-", "-o", "parts.onnx", "--any-size", "--json", "-")
    result = run(*arguments, stdin=listed)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["command"], told["height"], told["width"]) == ("export", "any", "any")
    assert told["format"] == "onnx" and told["verified"]["n_images"] == 8
    assert told["verified"]["score_deviation"] < 1e-4


def test_what_is_there_stays(here):
    assert run("parts.skan", "good", "-o", "parts.onnx").exit_code == 0
    before = (here / "parts.onnx").read_bytes()
    again = run("parts.skan", "good", "-o", "parts.onnx")
    assert again.exit_code == 1 and "--overwrite" in again.stderr
    assert (here / "parts.onnx").read_bytes() == before
    assert run("parts.skan", "good", "-o", "parts.onnx", "--overwrite").exit_code == 0
    (here / "other.onnx").write_bytes(b"a model of somebody")
    other = run("parts.skan", "good", "-o", "other.onnx", "--overwrite")
    assert other.exit_code == 1 and "other.onnx" in other.stderr
    assert (here / "other.onnx").read_bytes() == b"a model of somebody"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("parts.skan", "good", "-o", "parts.skan"), "must end in .onnx"),
        (("parts.skan", "good", "-o", "none/parts.onnx"), "there is no folder"),
        (("parts.skan", "none", "-o", "parts.onnx"), "none is no file"),
        (("none.skan", "good", "-o", "parts.onnx"), "none.skan"),
        (("good/0.png", "good", "-o", "parts.onnx"), "is not a model file"),
        (("parts.skan", "good", "-o", "parts.onnx", "--json", "parts.onnx"), "--json"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(here, words, message):
    result = run(*words)
    assert result.exit_code == 1 and message in result.stderr
    assert sorted(path.name for path in here.iterdir()) == ["good", "parts.skan"]


def test_a_model_that_has_no_graph(here):
    pipe = make_pipeline(FilterBankPatches(image_size=64), RetrievalKNNScorer())
    save_model(pipe.fit(SURFACES.images[:8]), "other.skan")
    result = run("other.skan", "good", "-o", "parts.onnx")
    assert result.exit_code == 1 and "RetrievalKNNScorer has no form as a graph" in result.stderr
    assert not (here / "parts.onnx").exists()
