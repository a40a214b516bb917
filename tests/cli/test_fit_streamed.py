"""``skanomaly fit --stream``: when tokens are not held at once, and that the model is the same."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from skanomaly import load_model
from skanomaly.cli import _streamed, app
from skanomaly.datasets import make_surfaces

MODEL = ("--model", "vision_filterbank", "--set", "image_size=32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "good"
    folder.mkdir()
    surfaces = make_surfaces(14, 1, surface="fabric", image_size=32, random_state=0)
    for i, image in enumerate(surfaces.images):
        Image.fromarray(image).save((folder if i < 14 else folder.parent) / f"{i}.png")
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("scorer", ["knn", "gaussian", "subspace"])
def test_the_model_is_that_of_a_fit(folder, tmp_path, scorer):
    images = sorted(str(path) for path in folder.parent.rglob("*.png"))
    scores = []
    for option in ("--stream", "--no-stream"):
        model = tmp_path / f"{option}.skan"
        result = run("fit", folder, *MODEL, "--scorer", scorer, option, "-o", model)
        assert "trained    vision_filterbank on 14 good images" in result.output
        loaded = load_model(model)
        scores.append([*loaded.score_samples(images), loaded[-1].offset_])
    np.testing.assert_allclose(*scores, rtol=1e-6)


def test_what_is_too_large_is_streamed_and_the_user_is_told(folder, tmp_path, monkeypatch):
    result = run("fit", folder, *MODEL, "--scorer", "knn", "-o", tmp_path / "held.skan")
    assert "embedded some at a time" not in result.output
    monkeypatch.setattr(_streamed, "MOST_HELD", 14 * 16 * 102 * 4 - 1)
    result = run("fit", folder, *MODEL, "--scorer", "knn", "-o", tmp_path / "streamed.skan")
    told = "the patch tokens of 14 images take about 0.0 GB: they are embedded some at a time"
    assert told in result.output
    one, two = (load_model(tmp_path / f"{name}.skan") for name in ("held", "streamed"))
    assert one[-1].offset_ == two[-1].offset_
    # What cannot be streamed is fitted as before, and so is what is not to be.
    for options in (("--scorer", "local"), ("--scorer", "knn", "--no-stream")):
        result = run("fit", folder, *MODEL, *options, "-o", tmp_path / f"{options[-1]}.skan")
        assert "embedded some at a time" not in result.output


def test_what_cannot_be_streamed_is_said_before_the_work(tmp_path):
    where = ("-o", tmp_path / "model.skan", "--stream")
    result = run("fit", tmp_path / "nothing", *where, code=1)
    assert "ImageUnion cannot be fitted to a stream of images" in result.output
    coreset = (
        "--scorer",
        "knn",
        "--set",
        "knn__coreset=0.1",
        "--set",
        "knn__coreset_method=random",
    )
    result = run("fit", tmp_path / "nothing", *MODEL, *coreset, *where, code=1)
    assert "coreset_method='random' has to see all patches at once" in result.output
