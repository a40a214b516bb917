"""From an empty folder to a report, by one command each, offline and without any extra."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skanomaly.cli._options import DEFAULT_MODEL

pytestmark = pytest.mark.slow

# The program without the extras, on a machine without a network.
PROGRAM = """
import socket, sys
EXTRAS = {"torch", "torchvision", "timm", "open_clip", "transformers", "anomalib", "onnx", "faiss",
          "onnxruntime", "onnxscript", "openvino", "matplotlib", "huggingface_hub", "pandas",
          "pyarrow"}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
def refuse(*args, **kwargs):
    raise AssertionError("this machine has no network")
socket.socket.connect = refuse
from skanomaly.cli import app
app(prog_name="skanomaly")
"""
DATA = Path("skanomaly-demo") / "disc-128px-40-seed0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("an empty # folder")


def type_in(folder, *words, code=0):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(os.fspath, words)],
        capture_output=True,
        cwd=folder,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "160", "PYTHONIOENCODING": "utf-8"},
    )
    error = done.stderr.decode()
    assert done.returncode == code and "Traceback" not in error, error
    return done.stdout.decode(), error


@pytest.fixture(scope="module")
def demo(folder):
    return type_in(folder, "demo", "--images", "40", "--size", "128")


@pytest.fixture(scope="module")
def model(folder, demo):
    return type_in(folder, "fit", DATA / "train" / "good", "-o", "parts.skan", "--json", "fit.json")


@pytest.fixture(scope="module")
def scores(folder, model):
    type_in(folder, "score", "parts.skan", DATA / "test", "--jsonl", "scores.jsonl")
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]


def test_demo(folder, demo):
    out, error = demo
    assert "image auroc" in out and (folder / DATA / "train" / "good").is_dir()
    # What it says to type next is what is typed next.
    assert f"skanomaly fit {DATA / 'train' / 'good'} -o parts.skan" in error


def test_fit(folder, model):
    out, error = model
    assert f"trained    {DEFAULT_MODEL} on 40 good images" in out
    assert "Next: skanomaly score parts.skan" in error
    summary = json.loads((folder / "fit.json").read_text())
    assert summary["n_images"] == 40 and (folder / "parts.skan").stat().st_size == summary["bytes"]


def test_info(folder, model):
    out, _ = type_in(folder, "info", "parts.skan")
    assert "ImageUnion" in out and "000.png" in out
    out, _ = type_in(folder, "info", "parts.skan", "--json", "-")
    assert json.loads(out)["training_images"]["count"] == 40


def test_score(folder, scores):
    assert len(scores) == 100 and all(row["error"] is None for row in scores)
    threshold = json.loads((folder / "fit.json").read_text())["threshold"]
    flagged = {"good": 0, "defective": 0}
    for row in scores:
        assert row["threshold"] == pytest.approx(threshold)
        assert (row["decision"] == "anomalous") == (row["score"] < threshold)
        kind = "good" if Path(row["path"]).parent.name == "good" else "defective"
        flagged[kind] += row["decision"] == "anomalous"
    assert flagged["good"] <= 15 and flagged["defective"] >= 35
    type_in(folder, "score", "parts.skan", DATA / "test" / "good", "--csv", "good.csv")
    arguments = ("score", "parts.skan", DATA / "test" / "missing_piece", "--fail-on-anomaly")
    type_in(folder, *arguments, code=3)


def test_explain(folder, scores):
    worst = min(scores, key=lambda row: row["score"])["path"]
    out, _ = type_in(folder, "explain", "parts.skan", worst)
    assert out.strip()


def test_calibrate(folder, model):
    arguments = ("calibrate", "parts.skan", "--contamination", "0.05", "-o", "strict.skan")
    out, _ = type_in(folder, *arguments, "--json", "-")
    summary = json.loads(out)
    assert summary["after"]["threshold"] < summary["before"]["threshold"]
    out, _ = type_in(folder, "score", "strict.skan", DATA / "test", "--jsonl", "-")
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["threshold"] for row in rows} == {summary["after"]["threshold"]}


def test_report(folder, model):
    type_in(folder, "report", "parts.skan", "--data", DATA, "-o", "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    for outside in ('src="http', 'href="http', "url(http"):
        assert outside not in page.replace('href="https://skanomaly', "")
    type_in(folder, "report", "parts.skan", DATA / "test" / "scratch", "-o", "images.html")
    assert (folder / "images.html").stat().st_size > 10_000
