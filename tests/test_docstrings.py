"""Docstrings of all that is public, by numpydoc's validation."""

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
