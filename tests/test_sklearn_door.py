"""What we use of scikit-learn's inside is all in one module, and there."""

import importlib

import pytest
import sklearn

import skanomaly._sklearn as door

PRIVATE = {
    "sklearn.base": ["_fit_context"],
    "sklearn.utils.metaestimators": ["_BaseComposition"],
    "sklearn.utils._param_validation": [
        "HasMethods",
        "Interval",
        "InvalidParameterError",
        "Options",
        "RealNotInt",
        "StrOptions",
    ],
}


@pytest.mark.parametrize(
    "module, name", [(m, name) for m, names in PRIVATE.items() for name in names]
)
def test_what_scikit_learn_keeps_private_is_there(module, name):
    found = getattr(importlib.import_module(module), name, None)
    assert found is not None, (
        f"scikit-learn {sklearn.__version__} has no {module}.{name} any more, which "
        "skanomaly/_sklearn.py hands on: look for what took its place"
    )
    assert getattr(door, name) is found


def test_the_door_hands_on_nothing_else():
    assert sorted(door.__all__) == sorted(sum(PRIVATE.values(), []))


def test_constraints_say_what_we_rely_on():
    """Ours are written with them: an interval with a closed end, words, methods."""
    from numbers import Integral

    interval = door.Interval(Integral, 1, None, closed="left")
    assert interval.is_satisfied_by(1) and not interval.is_satisfied_by(0)
    assert door.Options(Integral, {16}).is_satisfied_by(16)
    assert not door.Options(Integral, {16}).is_satisfied_by(8)
    assert door.StrOptions({"a"}).is_satisfied_by("a")
    assert door.HasMethods("upper").is_satisfied_by("text")
    assert issubclass(door.InvalidParameterError, ValueError)
