"""The examples of the documentation's gallery run, draw, and lead on."""

import ast
import re
import runpy
import warnings
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
GALLERY = DOCS / "gallery"
EXAMPLES = sorted(GALLERY.glob("*/plot_*.py"))
NAMES = [path.relative_to(GALLERY).as_posix() for path in EXAMPLES]
NEEDS = {"plot_onnx.py": "onnxruntime"}


def label_of(path):
    """The label that sphinx-gallery gives to an example, in the folder that conf.py names."""
    parts = path.relative_to(GALLERY).parts
    return "_".join(("sphx_glr_auto_examples", *parts))


LABELS = {label_of(path) for path in EXAMPLES}


def cells(path):
    """The text cells of an example, without their number signs."""
    found, cell = [], None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# %%"):
            cell = []
            found.append(cell)
        elif cell is not None and line.startswith("#"):
            cell.append(line[1:].strip())
        else:
            cell = None
    return ["\n".join(lines) for lines in found]


def links(text):
    """Pages and labels that a text refers to."""
    return re.findall(r":(doc|ref):`(?:[^`<]*<)?([^`>]+)>?`", text)


def resolves(kind, target):
    if kind == "ref":
        return target in LABELS
    return any((DOCS / f"{target[1:]}{suffix}").is_file() for suffix in (".md", ".rst"))


def test_there_are_examples_in_each_part():
    assert len(EXAMPLES) >= 15
    headers = sorted(GALLERY.glob("**/GALLERY_HEADER.rst"))
    assert {path.parent for path in headers} == {GALLERY, *(path.parent for path in EXAMPLES)}
    for header in headers:
        title, line, empty, text = header.read_text(encoding="utf-8").split("\n", 3)
        assert len(line) == len(title) and not empty and len(set(line)) == 1, header
        assert text.strip(), header


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_an_example_asks_tells_and_leads_on(path):
    title, line, empty, paragraph = ast.get_docstring(
        ast.parse(path.read_text(encoding="utf-8"))
    ).split("\n", 3)
    assert line == "=" * len(title) and not empty
    assert "?" in title + paragraph, "says no question that it answers"
    assert "\n\n" not in paragraph.strip(), "one paragraph says what is asked"
    last = cells(path)[-1]
    assert links(last), "its last cell leads nowhere"
    text = "\n".join(cells(path))
    assert [found for found in links(text) if not resolves(*found)] == []
    assert path.read_text(encoding="utf-8").rstrip().endswith(last.split("\n")[-1]), "ends in code"


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_an_example_runs_and_draws(path, tmp_path, monkeypatch, capsys):
    """As a script of somebody, in a folder of its own, without a word of warning."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip(NEEDS.get(path.name, "skanomaly"))
    pyplot.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    pyplot.close("all")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runpy.run_path(str(path), run_name="__main__")
        figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
        assert figures, "draws nothing"
        for figure in figures:
            figure.canvas.draw()
            assert any(ax.has_data() for ax in figure.axes), "draws an empty figure"
    finally:
        pyplot.close("all")
    assert not capsys.readouterr().err


def test_what_leads_nowhere_is_found():
    (kind, target), (other, page) = links(
        "see :ref:`sphx_glr_auto_examples_nowhere_plot_x.py` and :doc:`a page </no-such-page>`"
    )
    assert (kind, other) == ("ref", "doc")
    assert not resolves(kind, target) and not resolves(other, page)
    assert resolves("doc", "/calibration") and resolves("ref", sorted(LABELS)[0])
