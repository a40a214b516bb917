"""Scorers and embedders of one's own by name, without touching the package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from typer.testing import CliRunner

import skanomaly
from skanomaly import PatchKNNScorer, create_model, list_models, model_info
from skanomaly.cli import app
from skanomaly.registry import list_scorers, register_embedder, register_scorer

PLUGIN = '''
"""Names of ours."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from skanomaly import PatchKNNScorer
from skanomaly.registry import register_embedder, register_scorer


class ThreeNearest(PatchKNNScorer):
    """Distance to the three nearest patches."""

    def __init__(self, n_neighbors=3, contamination=0.2):
        super().__init__(n_neighbors=n_neighbors, contamination=contamination)


class Cells(TransformerMixin, BaseEstimator):
    """Mean colours of 8x8 pixels."""

    def __init__(self, gain=1.0):
        self.gain = gain

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        from PIL import Image

        arrays = [x if isinstance(x, np.ndarray) else np.asarray(Image.open(x)) for x in X]
        cells = [a.reshape(a.shape[0] // 8, 8, a.shape[1] // 8, 8, 3) for a in arrays]
        return np.stack([c.mean(axis=(1, 3)) for c in cells]) * self.gain

    def __sklearn_is_fitted__(self):
        return True


register_scorer("PREFIX_nearest", ThreeNearest)
register_embedder("PREFIX_cells", Cells)
'''


def plugin(folder, prefix):
    """A file of Python that registers PREFIX_nearest and PREFIX_cells."""
    path = folder / f"{prefix}_plugin.py"
    path.write_text(PLUGIN.replace("PREFIX", prefix))
    return path


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from skanomaly.datasets._surfaces import write_surfaces

    folder = tmp_path_factory.mktemp("data")
    write_surfaces(folder, "disc", 6, 64, 0)
    return folder


class Grey(TransformerMixin, BaseEstimator):
    """Mean brightness of 16x16 pixels."""

    def __init__(self, power=1.0):
        self.power = power

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        cells = np.asarray(X, dtype=float).reshape(len(X), 4, 16, 4, 16, 3)
        return cells.mean(axis=(2, 4)) ** self.power

    def __sklearn_is_fitted__(self):
        return True


def test_one_call_makes_a_scorer_known():
    register_scorer("seven_nearest", lambda: PatchKNNScorer(n_neighbors=7))
    assert "seven_nearest" in list_scorers()
    model = create_model("filterbank", scorer="seven_nearest", contamination=0.3, topk=2)
    assert model.steps[-1][0] == "seven_nearest"
    scorer = model["seven_nearest"]
    assert (scorer.n_neighbors, scorer.contamination, scorer.topk) == (7, 0.3, 2)
    assert create_model("filterbank", scorer="seven_nearest")[-1] is not scorer
    assert create_model("filterbank", seven_nearest__topk=3, scorer="seven_nearest")[-1].topk == 3


def test_one_call_makes_an_embedder_known():
    register_embedder("grey", Grey)
    assert "grey" in list_models() and "grey" in list_models("registered")
    info = model_info("grey")
    assert info.summary == "Mean brightness of 16x16 pixels." and info.extras == ()
    assert info.parameters["emb__power"] == 1.0 and "knn__contamination" in info.parameters
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    model = create_model("grey", power=2.0, contamination=0.5)
    assert [name for name, _ in model.steps] == ["emb", "knn"] and model["emb"].power == 2.0
    assert set(model.fit(images).predict(images)) == {-1, 1}
    assert list(create_model("grey", scorer="gaussian").named_steps) == ["emb", "gaussian"]
    other = create_model("vision_patchcore", embedder="grey", power=3.0)
    assert isinstance(other["emb"], Grey) and other["knn"].coreset == 0.01


def test_an_embedder_need_not_be_a_transformer():
    class Pixels:
        def embed(self, image):
            return image.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))

    register_embedder("pixels", Pixels)
    assert isinstance(create_model("pixels")["emb"], skanomaly.FunctionPatches)
    assert "emb__n_jobs" in model_info("pixels").parameters


def test_a_backbone_in_place_of_a_models_own():
    model = create_model("vision_patchcore", embedder="filterbank", image_size=64)
    assert type(model["emb"]) is skanomaly.FilterBankPatches and model["emb"].image_size == 64
    assert model["knn"].aggregation == "max"


@pytest.mark.parametrize("register", [register_scorer, register_embedder])
def test_a_name_that_is_taken(register):
    def first():
        return PatchKNNScorer()

    register(f"taken_by_{register.__name__}", first)
    with pytest.raises(ValueError, match="is taken"):
        register(f"taken_by_{register.__name__}", PatchKNNScorer)
    register(f"taken_by_{register.__name__}", PatchKNNScorer, overwrite=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: register_scorer("knn", Grey), ValueError, "'knn' is taken by another scorer"),
        (lambda: register_embedder("filterbank", Grey), ValueError, "is taken by another embedder"),
        (
            lambda: register_embedder("vision_padim", Grey, overwrite=True),
            ValueError,
            "is taken by a model",
        ),
        (lambda: register_scorer("emb", Grey), ValueError, "that name means something else"),
        (lambda: register_scorer("memory", Grey), ValueError, "that name means something else"),
        (lambda: register_scorer("two__parts", Grey), ValueError, "an identifier of Python"),
        (lambda: register_scorer("", Grey), ValueError, "an identifier of Python"),
        (lambda: register_embedder("a/b", Grey), ValueError, "an identifier of Python"),
        (lambda: register_scorer(3, Grey), TypeError, "must be named by text, got 3"),
        (lambda: register_scorer("an_object", PatchKNNScorer()), TypeError, "a class or a func"),
        (lambda: register_embedder("nothing", None), TypeError, "a class or a function"),
    ],
)
def test_what_cannot_be_registered(call, error, message):
    before = list_scorers(), list_models()
    with pytest.raises(error, match=message):
        call()
    assert (list_scorers(), list_models()) == before


def test_a_parameter_named_topk_without_an_aggregation():
    class Fixed(PatchKNNScorer):
        def __init__(self, topk=2):
            super().__init__(topk=topk)

    register_scorer("fixed", Fixed)
    assert create_model("filterbank", scorer="fixed", topk=3)["fixed"].topk == 3


# The command line


def test_a_file_on_the_command_line(tmp_path, data):
    path = plugin(tmp_path, "cli")
    shown = run("models", "--plugin", path)
    assert shown.exit_code == 0, shown.output
    assert "cli_nearest" in shown.stdout and "cli_cells" in shown.stdout
    assert "Distance to the three nearest patches." in shown.stdout
    options = ("evaluate", data, "--plugin", path, "--json", "-")
    done = run(*options, "--model", "cli_cells", "--scorer", "cli_nearest")
    assert done.exit_code == 0, done.output
    parameters = json.loads(done.stdout)["parameters"]
    assert parameters["emb__gain"] == "1.0" and parameters["cli_nearest__n_neighbors"] == "3"
    wrong = run(*options, "--scorer", "cli_neares")
    assert wrong.exit_code == 1 and "did you mean 'cli_nearest'" in wrong.stderr


def test_a_module_on_the_command_line(tmp_path, data, monkeypatch):
    plugin(tmp_path, "module")
    monkeypatch.syspath_prepend(tmp_path)
    options = ("--model", "module_cells", "--plugin", "module_plugin", "--json", "-")
    done = run("evaluate", data, *options)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no file"),
        ("import no_such_module_of_mine", "no_such_module_of_mine"),
        ("def broken(:", "SyntaxError"),
        ("from skanomaly.registry import register_scorer\nregister_scorer('knn', int)", "taken"),
        ("raise KeyError('mine')", "KeyError: 'mine'"),
    ],
)
def test_a_plugin_that_fails_ends_with_one_line(tmp_path, data, text, message):
    path = tmp_path / "failing_plugin.py"
    if text is not None:
        path.write_text(text)
    done = run("evaluate", data, "--plugin", path)
    (line,) = done.stderr.strip().splitlines()
    assert done.exit_code == 1 and message in line and "failing_plugin.py" in line
    assert "failing_plugin" not in sys.modules


def test_a_file_named_like_a_module_is_refused(tmp_path, data):
    path = plugin(tmp_path, "json").rename(tmp_path / "json.py")
    done = run("evaluate", data, "--plugin", path)
    assert done.exit_code == 1 and "rename the file" in done.stderr
    assert str(tmp_path) not in sys.path


# Entry points of installed packages


@pytest.mark.slow
def test_installed_plugins_are_found_when_a_name_is_unknown(tmp_path, data):
    plugin(tmp_path, "installed")
    (tmp_path / "failing_entry.py").write_text("raise KeyError('mine')")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[skanomaly.plugins]\nbad = failing_entry\ntheirs = installed_plugin\n"
    )
    code = """
import sys, warnings
from skanomaly import create_model, list_models
warnings.simplefilter("ignore", UserWarning)
names = list_models()
create_model("filterbank", scorer="knn")
assert "installed_plugin" not in sys.modules and "installed_cells" not in names
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = create_model("filterbank", scorer="installed_nearest")
assert [str(w.message) for w in caught] == [
    "the plug-in bad (failing_entry) failed: KeyError: 'mine'"
]
assert "installed_cells" in list_models()
create_model("installed_cells")
try:
    create_model("filterbank", scorer="installed_nearst")
except ValueError as exc:
    assert "did you mean 'installed_nearest'" in str(exc)
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    options = {"capture_output": True, "text": True, "timeout": 120, "env": environment}
    done = subprocess.run([sys.executable, "-c", code], **options)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "skanomaly.cli", "evaluate", str(data), "--json", "-"]
    done = subprocess.run([*command, "--model", "installed_cells"], **options)
    assert done.returncode == 0, done.stderr
