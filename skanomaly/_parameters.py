"""How parameters are checked: of every estimator of the package, and of functions."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from numbers import Integral, Real
from typing import Any

from sklearn.base import BaseEstimator

from skanomaly._sklearn import InvalidParameterError
from skanomaly._typing import ValueRange

DOCUMENTATION = "https://skanomaly.readthedocs.io/en/stable"


class Estimator(BaseEstimator):
    """Base of the estimators: scikit-learn's, stricter with numbers, with links to our docs."""

    # HTML diagrams link an estimator to its page where its module is of this package.
    _doc_link_module = "skanomaly"
    _doc_link_template = DOCUMENTATION + "/api/{estimator_module}.{estimator_name}.html"

    def _validate_params(self):
        """Validate as scikit-learn does, and refuse True and False where a number is meant."""
        super()._validate_params()
        for name, constraints in self._parameter_constraints.items():
            value = getattr(self, name, None)
            if isinstance(value, bool) and not {"boolean", "verbose"} & _words(constraints):
                raise InvalidParameterError(
                    f"The {name!r} parameter of {type(self).__name__} must not be a bool. "
                    f"Got {value!r} instead."
                )
        check_value_range(getattr(self, "value_range", None))


def _words(constraints):
    return {constraint for constraint in constraints if isinstance(constraint, str)}


def is_integer(value: object) -> bool:
    """Whether it is an integer of Python or NumPy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_integer(value: Any, name: str, minimum: int) -> int:
    """An argument of a function as an integer; True and False are no numbers.

    Parameters
    ----------
    value : object
        What was passed.
    name : str
        Of the argument, for the message.
    minimum : int
        The least value allowed.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        When the value is no integer, a bool, or below `minimum`.

    Examples
    --------
    >>> from skanomaly._parameters import check_integer
    >>> check_integer(True, "n_shots", 1)
    Traceback (most recent call last):
    ...
    ValueError: n_shots must be an integer of at least 1, got True
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    return int(value)


def check_value_range(value_range: ValueRange | None) -> tuple[float, float] | None:
    """Black and white that a person asks for.

    Parameters
    ----------
    value_range : float, (float, float) or None
        White, black being 0; or black and white.

    Returns
    -------
    (black, white) : tuple of float, or None
        None: as the type of an image says.

    Raises
    ------
    ValueError
        When it is anything else, or black is not below white.

    Examples
    --------
    >>> from skanomaly._parameters import check_value_range
    >>> check_value_range(4095), check_value_range((20, 80))
    ((0.0, 4095.0), (20.0, 80.0))
    """
    if value_range is None:
        return None
    pair = tuple(value_range) if isinstance(value_range, Sequence) else (0, value_range)
    numbers: list[Any] = [
        value for value in pair if isinstance(value, Real) and not isinstance(value, bool)
    ]
    if len(pair) != 2 or len(numbers) != 2 or not -inf < numbers[0] < numbers[1] < inf:
        raise ValueError(
            f"value_range={value_range!r} is neither a number above 0, which is white, nor two "
            "numbers (black, white) with black below white"
        )
    return float(numbers[0]), float(numbers[1])
