"""Docstrings of all that is public, by numpydoc's validation."""

import doctest
import inspect
from pathlib import Path

import pytest
from _public import public_methods, public_objects

validate = pytest.importorskip("numpydoc.validate")
tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on

SETTINGS = tomllib.loads(
    (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
)["tool"]["numpydoc_validation"]
CHECKS = validate.get_validation_checks(set(SETTINGS["checks"]))
PUBLIC = public_objects()


def faults(path):
    """The faults of one docstring, as text."""
    found = validate.validate(path)["errors"]
    return [f"{path}: {code} {message}" for code, message in found if code in CHECKS]


@pytest.mark.parametrize("path", PUBLIC)
def test_docstring(path):
    found = faults(path)
    if inspect.isclass(PUBLIC[path]):
        for name, _ in public_methods(PUBLIC[path]):
            found += faults(f"{path}.{name}")
    assert not found, "\n".join(found)


# matplotlib is an extra, without which the examples of docstrings run too.
DRAWN = {
    "skanomaly.AnomalyMapDisplay",
    "skanomaly.inspection.CalibrationDisplay",
    "skanomaly.inspection.NearestPatchDisplay",
    "skanomaly.inspection.ScoreHistogramDisplay",
    "skanomaly.inspection.ThresholdDisplay",
}


def examples(text):
    """The lines of a section Examples, and of these the ones that run and are no imports."""
    shown = text.partition("\nExamples\n--------\n")[2]
    lines = doctest.DocTestParser().get_examples(shown)
    run = [line for line in lines if not line.options.get(doctest.SKIP)]
    return lines, [line for line in run if not line.source.startswith(("import ", "from "))]


@pytest.mark.parametrize("path", PUBLIC)
def test_has_an_example_that_runs(path):
    shown, run = examples(inspect.getdoc(PUBLIC[path]))
    assert shown and bool(run) != (path in DRAWN)


def test_an_example_that_is_skipped_does_not_run():
    skipped = "Do.\n\nExamples\n--------\n>>> import os\n>>> os.stat('x')  # doctest: +SKIP\n"
    assert list(map(len, examples(skipped))) == [2, 0]
    assert list(map(len, examples(skipped.replace("  # doctest: +SKIP", "")))) == [2, 1]
    assert list(map(len, examples(">>> 1 + 1\n2\n"))) == [0, 0]


def documented(size, name):
    """Double a size.

    Parameters
    ----------
    size : int
        What to double.

    Returns
    -------
    int
        Twice the size.
    """
    return 2 * size


def test_the_validation_finds_what_is_missing():
    path = f"{__name__}.documented"
    assert faults(path) == [f"{path}: PR01 Parameters {{'name'}} not documented"]
