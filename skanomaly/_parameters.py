"""How parameters are checked: of every estimator of the package, and of functions."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from sklearn.base import BaseEstimator

from skanomaly._sklearn import InvalidParameterError

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
