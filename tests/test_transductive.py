"""Scorers that score the images of `fit` alone are refused wherever new images are scored."""

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import (
    FilterBankPatches,
    ImageUnion,
    MutualScorer,
    PatchKNNScorer,
    ScoreUnion,
    decide,
    evaluate_split,
)
from skanomaly.benchmarking import benchmark
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces, read_dataset
from skanomaly.datasets._surfaces import write_surfaces

MESSAGE = r"MutualScorer scores the images that it is fitted to.*fit_predict.*'Unlabelled images'"


def pipe(scorer=None):
    return make_pipeline(FilterBankPatches(image_size=32), scorer or MutualScorer())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "disc"
    write_surfaces(root, "disc", 6, 32, 0)
    return root


@pytest.fixture
def no_work(monkeypatch):
    """No image may be embedded."""

    def fail(*args, **kwargs):
        raise AssertionError("this is work")

    monkeypatch.setattr(FilterBankPatches, "fit_transform", fail)


@pytest.mark.parametrize("command", ["fit", "evaluate", "shots", "benchmark"])
def test_the_command_line_refuses_before_the_work(data, tmp_path, no_work, command):
    model, plugin = tmp_path / "model.skan", tmp_path / f"mutual_in_{command}.py"
    plugin.write_text(
        "from skanomaly import MutualScorer, ScoreUnion, registry\n"
        "def both():\n    return ScoreUnion([('mutual', MutualScorer())])\n"
        "registry.register_scorer('holds_mutual', both, overwrite=True)\n"
    )
    words = {
        "fit": ["fit", data / "train" / "good", "-o", model],
        "evaluate": ["evaluate", data],
        "shots": ["evaluate", data, "--shots", "4"],
        "benchmark": ["benchmark", data, "--models", "vision_musc"],
    }[command]
    several = [["--scorer", "mutual"], ["--scorer", "holds_mutual", "--plugin", plugin]]
    if command == "benchmark":  # which takes no scorer: a model that has it
        pytest.importorskip("timm")
        several = [[]]
    for options in several:
        result = CliRunner().invoke(app, list(map(str, [*words, *options])))
        assert result.exit_code == 1, result.output
        told = " ".join(result.stderr.split())
        assert "MutualScorer scores the images" in told and "the page 'Unlabelled images'" in told
        assert not model.exists()


def test_evaluations_refuse_before_the_work(data, no_work):
    split = read_dataset(data)
    for estimator in (pipe(), ImageUnion([("one", pipe())])):
        with pytest.raises(TypeError, match=MESSAGE):
            evaluate_split(estimator, split)
        with pytest.raises(TypeError, match=MESSAGE):
            benchmark({"mutual": estimator}, [split])
        with pytest.raises(TypeError, match=MESSAGE):
            benchmark({"mutual": estimator}, [split], shots=[4])


def test_unions_refuse_before_the_work(no_work):
    images = make_surfaces(6, image_size=32, random_state=0).images
    held = ScoreUnion([("knn", PatchKNNScorer()), ("mutual", MutualScorer())])
    with pytest.raises(TypeError, match=f"scorer 'mutual': {MESSAGE}"):
        held.fit(np.ones((6, 4, 4, 3)))
    for member in (pipe(), pipe(held)):
        with pytest.raises(TypeError, match=f"detector 'two': {MESSAGE}"):
            ImageUnion([("one", pipe(PatchKNNScorer())), ("two", member)]).fit(images)


def test_decisions_on_the_images_of_fit_have_no_p_value(tmp_path):
    paths = []
    for i, image in enumerate(make_surfaces(8, image_size=32, random_state=0).images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    fitted = pipe().fit(paths)
    found = decide(fitted, paths)
    assert [one.p_value for one in found] == [None] * 8
    assert [-1 if one.is_anomalous else 1 for one in found] == list(pipe().fit_predict(paths))
