"""The tutorial: its commands run, and make every file that its page shows."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "tutorial.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tutorial():
    spec = importlib.util.spec_from_file_location("docs_tutorial", DOCS / "_tutorial.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named_on_the_page():
    """Files below the folder of generated ones, by any kind of link or block of the page."""
    return set(re.findall(r"_static/generated/tutorial/([\w./-]+\w)", PAGE))


def test_all_that_is_shown_is_found(tutorial):
    assert set(tutorial.included(PAGE)) == named_on_the_page()
    assert len(named_on_the_page()) > 10


def test_each_block_of_the_page_is_a_step(tutorial):
    found = tutorial.steps(PAGE)
    for language in ("sh", "python"):
        n_steps = sum(step.language == language for step in found)
        assert n_steps == PAGE.count(f"\n```{language}\n") > 0
    assert sum("skanomaly " in step.code for step in found) >= 8


def test_output_without_a_command_is_an_error(tutorial):
    lost = "```{literalinclude} _static/generated/tutorial/a.txt\n```\n"
    with pytest.raises(ValueError, match="a.txt of the page follows no command"):
        tutorial.steps(lost)
    with pytest.raises(ValueError, match="b.txt"):
        tutorial.steps("```sh\ntrue\n```\n" + lost + lost.replace("a.txt", "b.txt"))


def test_a_command_that_fails_is_an_error(tutorial, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```sh\necho before\nskanomaly info nothing.skan\n```\n", encoding="utf-8")
    monkeypatch.setattr(tutorial, "PAGE", page)
    with pytest.raises(RuntimeError, match=r"(?s)code 1:.*before.*nothing\.skan"):
        tutorial.build(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_tutorial(tutorial, tmp_path):
    """`build` raises where a command does not end with 0."""
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f'{name} is not installed: pip install -e ".[onnx]"')
    ran = tutorial.build(tmp_path / "out")
    made = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert made == named_on_the_page()
    printed = "".join(step.printed for step in ran)
    assert str(tmp_path) not in printed and "Traceback" not in printed
    verdicts = dict(
        line.split(",")[:2] for line in printed.splitlines() if line.startswith("incoming/")
    )
    assert len(verdicts) == 11
    called = {verdicts[name] for name in verdicts if "good" not in name}
    assert called == {"anomalous"}  # the text says so of the defects that it shows
    assert "ended with code 3" in printed
    assert [line.split()[0] for line in ran[-1].printed.splitlines()] == ["normal", "anomalous"]
