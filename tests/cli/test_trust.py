"""Models with parts of somebody else's, from fit to report, each command a process of its own."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from skanomaly import FilterBankPatches, PatchKNNScorer, save_model
from skanomaly.datasets import make_surfaces

PLUGIN = """
from pathlib import Path
import numpy as np
from skanomaly.base import BasePatchScorer
from skanomaly.registry import register_scorer

class Table:
    def __init__(self):
        self.values = np.arange(3000.0)

class Brightness(BasePatchScorer):
    def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.topk, self.aggregation, self.contamination = topk, aggregation, contamination

    def _fit_tokens(self, tokens):
        self.table_ = Table()
        return self._score_tokens(tokens.select_view(0))[1]

    def _score_tokens(self, tokens):
        scores = tokens.values.mean(axis=1, dtype=np.float64) + self.table_.values[0]
        return scores, -self._aggregate(tokens, scores)

register_scorer("brightness", Brightness)
"""


def run(*args, cwd):
    command = [sys.executable, "-m", "skanomaly.cli", *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "good").mkdir()
    for i, image in enumerate(make_surfaces(12, image_size=64, random_state=0).images):
        Image.fromarray(np.asarray(image)).save(tmp_path / "good" / f"{i}.png")
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path


@pytest.mark.slow
def test_a_scorer_of_a_plugin_from_fit_to_report(folder):
    plugin = ("--plugin", "mine.py")
    model = ("--model", "tiny", "--scorer", "brightness", "--set", "image_size=64")
    model += ("-o", "a.skan")
    fitted = run("fit", "good", *model, *plugin, cwd=folder)
    assert fitted.returncode == 0, fitted.stderr
    assert fitted.stderr.count("has to be named") == 1 and "mine.Brightness" in fitted.stderr
    # What it says to type next works as it stands, but for the images.
    (line,) = (line for line in fitted.stderr.splitlines() if line.startswith("Next: "))
    assert line == "Next: skanomaly score a.skan path/to/new/images --plugin mine.py"
    typed = shlex.split(line.removeprefix("Next: skanomaly "))
    done = run(*(word.replace("path/to/new/images", "good") for word in typed), cwd=folder)
    assert done.returncode == 0, done.stderr
    trusted = ("--trust=mine.Brightness", "--trust=mine.Table")
    elsewhere = run("score", folder / "a.skan", folder / "good", *trusted, cwd=folder / "good")
    assert elsewhere.returncode == 1 and "No module named 'mine'" in elsewhere.stderr
    assert "--plugin FILE" in elsewhere.stderr
    commands = {
        "score": ("a.skan", "good"),
        "explain": ("a.skan", "good/1.png"),
        "calibrate": ("a.skan", "good", "-o", "b.skan"),
        "report": ("a.skan", "good", "-o", "a.html"),
    }
    for name, words in commands.items():
        refused = run(name, *words, cwd=folder)
        assert refused.returncode == 1 and refused.stdout == ""
        assert "mine.Brightness" in refused.stderr and "--plugin FILE" in refused.stderr
        done = run(name, *words, *plugin, cwd=folder)
        if name == "explain":  # it does not, but it was loaded
            assert "Brightness does not explain its scores" in done.stderr
        else:
            assert done.returncode == 0, done.stderr
    scored = run("score", "b.skan", "good", "--plugin", "mine", "--jsonl", "-", cwd=folder)
    assert len([json.loads(line) for line in scored.stdout.splitlines()]) == 12
    info = run("info", "a.skan", "--json", "-", cwd=folder)
    assert json.loads(info.stdout)["trusted"] == ["mine.Brightness", "mine.Table"]


@pytest.mark.slow
def test_a_plugin_is_trusted_with_its_own_alone(folder):
    (folder / "other.py").write_text("from mine import *\nimport os\nfrom os import system\n")
    run("fit", "good", "--scorer", "brightness", "--plugin", "mine.py", "-o", "a.skan", cwd=folder)
    refused = run("score", "a.skan", "good", "--plugin", "other.py", cwd=folder)
    assert refused.returncode == 1 and "not trusted: mine.Brightness, mine.Table" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.slow
def test_trust_by_name(folder):
    faiss = pytest.importorskip("faiss")
    assert faiss is not None
    from sklearn.pipeline import make_pipeline

    images = sorted((folder / "good").iterdir())
    embedder, scorer = FilterBankPatches(image_size=64), PatchKNNScorer(algorithm="faiss:Flat")
    with pytest.warns(UserWarning, match="FaissIndex"):
        save_model(make_pipeline(embedder, scorer).fit(images), folder / "a.skan")
    refused = run("score", "a.skan", "good", cwd=folder)
    name = "skanomaly.core.search.faiss_index.FaissIndex"
    assert refused.returncode == 1 and name in refused.stderr and "--trust NAME" in refused.stderr
    done = run("score", "a.skan", "good", "--trust", name, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12
