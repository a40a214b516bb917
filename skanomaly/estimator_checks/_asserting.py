"""What the checks of scorers and of embedders have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import clone


def prepared(estimator: Any, **params: Any) -> Any:
    """A clone, with a random state, and with those of the parameters that it has."""
    estimator = clone(estimator)
    known = estimator.get_params(deep=False)
    if known.get("random_state", 0) is None:
        params["random_state"] = 0
    return estimator.set_params(**{name: params[name] for name in params if name in known})


@contextmanager
def must_raise(*errors: type[Exception], what: str) -> Iterator[None]:
    """Fail where none of the errors is raised within."""
    try:
        yield
    except errors:
        return
    names = " or ".join(error.__name__ for error in errors)
    raise AssertionError(f"{what} must raise {names}")


def assert_same(actual: Any, expected: Any, what: str, rtol: float = 1e-6) -> None:
    """Fail where numbers differ by more than rounding, measured by the largest of them."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * scale, err_msg=what)


def numeric_params(estimator: Any) -> list[str]:
    """Names of the parameters that are, or may be, numbers."""
    constraints = getattr(estimator, "_parameter_constraints", {})
    names = []
    for name, value in estimator.get_params(deep=False).items():
        kinds = {
            one if isinstance(one, str) else type(one).__name__ for one in constraints.get(name, [])
        }
        if kinds & {"boolean", "verbose"} or isinstance(value, bool):
            continue
        if isinstance(value, (int, float)) or kinds & {"Interval", "random_state"}:
            names.append(name)
    return names


def check_bools(estimator: Any, use: Callable[[Any], object]) -> None:
    """Fail where True is taken for a number by `use(estimator)`."""
    for name in numeric_params(estimator):
        wrong = prepared(estimator).set_params(**{name: True})
        with must_raise(ValueError, TypeError, what=f"{name}=True"):
            use(wrong)
