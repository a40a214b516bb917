"""``skanomaly report``, and the reports of ``evaluate`` and ``demo``."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from skanomaly import create_model, save_model
from skanomaly.cli import app
from skanomaly.datasets import read_mvtec
from skanomaly.datasets._surfaces import write_surfaces
from skanomaly.report._html_page import is_own_page


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A data set, and a model of its good images."""
    root = tmp_path_factory.mktemp("parts")
    write_surfaces(root / "disc", "disc", 12, 64, 0)
    model = create_model("filterbank", scorer="knn", image_size=64)
    save_model(model.fit(read_mvtec(root / "disc").train.images), root / "parts.skan")
    return root


def data_of(path):
    text = path.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])


def test_images_without_labels(parts, tmp_path):
    target = tmp_path / "report.html"
    good = parts / "disc" / "test" / "good"
    result = run("report", parts / "parts.skan", good, "-o", target, "--json", "-")
    assert result.exit_code == 0, result.output
    summary, data = json.loads(result.stdout), data_of(target)
    n = len(list(good.iterdir()))
    assert summary["n_images"] == len(data["images"]) == n
    flagged = [row["score"] < data["threshold"] for row in data["images"]]
    assert summary["n_anomalous"] == sum(flagged)
    assert {row["y"] for row in data["images"]} == {None}
    assert is_own_page(target) and summary["bytes"] == target.stat().st_size


def test_a_data_set(parts, tmp_path):
    target = tmp_path / "report.html"
    options = ("--data", parts / "disc", "--cost-miss", 7)
    result = run("report", parts / "parts.skan", "-o", target, *options)
    assert result.exit_code == 0, result.output
    assert "images called anomalous" in result.stdout
    data = data_of(target)
    assert {row["y"] for row in data["images"]} == {1, -1}
    assert data["metrics"]["image_auroc"] > 0.5 and data["costs"]["miss"] == 7
    assert data["curves"]["pro"] is not None


def test_wrong_use(parts, tmp_path):
    model, images = parts / "parts.skan", parts / "disc" / "test" / "good"
    target = tmp_path / "report.html"
    for args, says in (
        ((model, "-o", target), "name the images"),
        ((model, images, "--data", parts / "disc", "-o", target), "not both"),
        ((model, images, "--category", "x", "-o", target), "are for --data"),
        ((model, images, "--cost-miss", "-1", "-o", target), "--cost-miss"),
        ((model, images, "-o", model), "input"),
        ((model, tmp_path / "none", "-o", target), "is no file"),
    ):
        result = run("report", *args)
        code = 1 if says in ("input", "is no file") else 2
        assert result.exit_code == code and says in result.stderr, (args, result.output)
    assert not list(tmp_path.iterdir())


def test_test_images_of_one_kind(parts, tmp_path):
    shutil.copytree(parts / "disc", tmp_path / "disc")
    shutil.rmtree(tmp_path / "disc" / "test" / "good")
    target = tmp_path / "report.html"
    result = run("report", parts / "parts.skan", "--data", tmp_path / "disc", "-o", target)
    assert result.exit_code == 1 and "leave out --data" in result.stderr
    images = tmp_path / "disc" / "test"
    assert run("report", parts / "parts.skan", images, "-o", target).exit_code == 0


def test_evaluate_writes_one(parts, tmp_path):
    target = tmp_path / "report.html"
    settings = ("--set", "image_size=64", "--scorer", "knn")
    result = run("evaluate", parts / "disc", *settings, "--report", target)
    assert result.exit_code == 0, result.output
    assert f"inspection report in {target}" in result.stderr and is_own_page(target)
    result = run("evaluate", parts / "disc", *settings, "--report", target, "--shots", "2")
    assert result.exit_code == 2 and "--report" in result.stderr
