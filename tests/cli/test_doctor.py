"""``skanomaly doctor``: what is there, what is broken, and whether it works."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import skanomaly
from skanomaly.cli import app
from skanomaly.cli._installation import (
    EXTRAS,
    REQUIRED,
    caches,
    fastest_networks,
    fastest_searches,
)

ROOT = Path(__file__).resolve().parents[2]
# What each module does when it is imported, in place of the real one.
FAKES = {
    "torch": "raise OSError('no driver\\n  at all')",
    "torchvision": "",
    "timm": "raise SystemExit(3)",
    "open_clip": "import os; os.abort()",
    "transformers": "",
    "anomalib": "import nothing_such_at_all",
    "onnxruntime": "print('welcome')",
    "onnx": "",
    "onnxscript": "",
    "openvino": "",
    "faiss": "",
    "matplotlib": "",
}


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture
def no_extras(monkeypatch):
    """Importing them takes long, and is not what is tested."""
    monkeypatch.setattr("skanomaly.cli._doctor.EXTRAS", {})


def test_extras_and_requirements_are_those_of_the_package():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements):
        return {re.match(r"[\w-]+", text)[0] for text in requirements} - {"skanomaly"}

    assert set(REQUIRED) == names(project["dependencies"])
    extras = project["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"all", "test", "docs"}
    for extra, distributions in EXTRAS.items():
        assert set(distributions) == names(extras[extra])


@pytest.mark.slow
def test_libraries_that_are_broken_are_shown_as_such(tmp_path):
    """One that raises, ends the program, crashes, lacks another, and one that prints."""
    for name, what in FAKES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(what)
    places = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "skanomaly.cli", "doctor", "--json", "-"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {
        *("command", "skanomaly", "python", "platform", "versions", "extras", "devices"),
        *("processor", "fastest", "caches", "environment", "self_test"),
    }
    extras = {extra["extra"]: extra for extra in found["extras"]}
    assert {name for name, extra in extras.items() if extra["state"] == "broken"} == {
        "torch",
        "clip",
        "anomalib",
    }
    assert extras["torch"]["error"] == ("torch: OSError: no driver at all; timm: SystemExit: 3")
    assert extras["clip"]["error"].startswith("open_clip: the import ended Python")
    assert "No module named 'nothing_such_at_all'" in extras["anomalib"]["error"]
    assert extras["onnx"]["state"] == "ready" and found["devices"] == ["cpu"]
    assert found["fastest"]["transformers"] is None
    assert found["self_test"]["ok"] and found["self_test"]["error"] is None
    assert "importing torch, torchvision, timm ..." in done.stderr


def test_without_extras():
    code = (
        "import sys\n"
        f"extras = {sorted([*FAKES, 'pyarrow'])!r}\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in extras:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from skanomaly.cli import app\napp(['doctor'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    for extra in EXTRAS:
        assert f'pip install "skanomaly[{extra}]"' in done.stdout
    assert "importing" not in done.stderr and "HF_HUB_OFFLINE" in done.stdout
    assert "downloads" not in done.stdout and "self-test: ok" in done.stdout
    assert skanomaly.__version__ in done.stdout


def test_the_fastest_ways_are_timed():
    pytest.importorskip("torch")
    from skanomaly._networks.runtimes import native_bfloat16

    found = fastest_networks()
    if not native_bfloat16("cpu"):
        assert found == []
        return
    assert [choice["question"] for choice in found] == [
        "linear maps of 384 to 1536, bfloat16",
        "attention of 256 tokens, 6 heads of 64, bfloat16",
        "attention of 1024 tokens, 6 heads of 64, bfloat16",
    ]
    for choice in found:
        assert choice["winner"] in choice["milliseconds"]
        assert min(choice["milliseconds"].values()) > 0


def test_the_searches_are_timed():
    (choice,) = fastest_searches()
    assert choice["question"].startswith("search of < 16384 rows of 384, < 2048 queries")
    assert choice["winner"] in choice["milliseconds"]
    assert {"brute", "certified"} <= set(choice["milliseconds"]) <= {"brute", "certified", "wide"}
    assert min(choice["milliseconds"].values()) > 0


def test_the_fastest_ways_are_shown(no_extras, monkeypatch):
    choice = {"question": "attention of 9 tokens", "winner": "by head"}
    choice["milliseconds"] = {"by head": 1.0, "fused": 2.345}
    ready = {"extra": "torch", "state": "ready", "versions": {"torch": "3"}}
    monkeypatch.setattr("skanomaly.cli._doctor.EXTRAS", {"torch": {}})
    monkeypatch.setattr("skanomaly.cli._doctor.look_at_extra", lambda extra: (ready, []))
    search = {"question": "search of rows", "winner": "wide", "milliseconds": {"wide": 7.125}}
    monkeypatch.setattr("skanomaly.cli._doctor.fastest_networks", lambda: [choice])
    monkeypatch.setattr("skanomaly.cli._doctor.fastest_searches", lambda: [search])
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("doctor").stdout
    assert shown.index("self-test: ok") < shown.index("fastest here")
    assert "by head 1.00 ms, fused 2.35 ms" in shown and "wide 7.12 ms" in shown
    monkeypatch.setattr("skanomaly.cli._doctor.fastest_networks", lambda: None)
    monkeypatch.setattr("skanomaly.cli._doctor.fastest_searches", lambda: None)
    result = run("doctor")
    assert result.exit_code == 0 and "fastest here" not in result.stdout


def test_ways_that_cannot_be_timed(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    assert fastest_networks() is None and fastest_searches() is None


def test_a_self_test_that_fails(no_extras, monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(skanomaly, "load_model", broken)
    result = run("doctor")
    assert result.exit_code == 1
    assert "self-test: FAILED" in result.stdout
    assert "ZeroDivisionError: of all things" in result.stdout
    result = run("doctor", "--json", tmp_path / "found.json")
    assert result.exit_code == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["self_test"]["ok"] and found["extras"] == []


def test_caches_are_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "FILE"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    blobs = tmp_path / "hf" / "hub" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a").write_bytes(bytes(1000))
    (blobs / "b").symlink_to(blobs / "a")
    (tmp_path / "FILE").write_text("in the way")
    hub, torch, _ = caches()
    assert hub == {
        "of": "timm and open_clip",
        "folder": str(tmp_path / "hf" / "hub"),
        "bytes": 1000,
        "writable": True,
    }
    assert not torch["writable"] and torch["bytes"] == 0


def test_a_summary_that_cannot_be_written(no_extras, monkeypatch, tmp_path):
    """Is said before the work."""
    monkeypatch.setattr("skanomaly.cli._doctor.processor", None)
    (tmp_path / "mine.json").write_text('{"oven": 180}')
    result = run("doctor", "--json", tmp_path / "mine.json")
    assert result.exit_code == 1 and "what skanomaly did not write" in result.stderr
