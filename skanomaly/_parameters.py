"""How parameters are checked: of every estimator of the package, and of functions."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from contextvars import ContextVar
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from skanomaly._sklearn import InvalidParameterError
from skanomaly._typing import ValueRange
from skanomaly._version import __version__
from skanomaly._warn import keep_workers_warning, warn_user

DOCUMENTATION = "https://skanomaly.readthedocs.io/en/stable"


# Parameters that say how and where results are computed, not which.
NO_MATTER = frozenset(
    "cache_dir cache_size device memory n_jobs pre_dispatch stream verbose".split()
)

# True while a model file is read, wherever in it an estimator stands.
FROM_A_FILE: ContextVar[bool] = ContextVar("from_a_file", default=False)
# What only a person says, and no file: that code may be run, and where is written to.
_NOT_OF_A_FILE = {"trust": False, "cache_dir": None}

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
_VERSION_KEY = "_skanomaly_version"  # in pickles only, never on an estimator


class PickledByAnotherVersion(InconsistentVersionWarning):
    """scikit-learn's warning, in words that name this package."""

    def __str__(self) -> str:
        return (
            f"{self.estimator_name} was pickled by skanomaly {self.original_sklearn_version} and "
            f"is loaded by {self.current_sklearn_version}: its scores may not be those that it "
            "was calibrated on. Fit it again, or install that version"
        )


class Estimator(BaseEstimator):
    """Base of the estimators: scikit-learn's, stricter with numbers, with links to our docs.

    Pickles hold the version of this package, and loading them under another one warns.
    """

    # HTML diagrams link an estimator to its page where its module is of this package.
    _doc_link_module = "skanomaly"
    _doc_link_template = DOCUMENTATION + "/api/generated/skanomaly.{estimator_name}.html"

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

    def __getstate__(self):
        keep_workers_warning()
        return {**super().__getstate__(), _VERSION_KEY: __version__}

    def __setstate__(self, state):
        state = dict(state)
        version = state.pop(_VERSION_KEY, __version__)
        if version != __version__:
            warn_user(
                PickledByAnotherVersion(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=__version__,
                    original_sklearn_version=version,
                )
            )
        if FROM_A_FILE.get():
            state |= {name: value for name, value in _NOT_OF_A_FILE.items() if name in state}
        super().__setstate__(state)

    def _remember_params(self) -> None:
        """Keep the parameters of `fit`, to notice a change."""
        self._params_at_fit = {
            name: copy_of_param(value) for name, value in self.get_params(deep=True).items()
        }

    def _changed_params(self) -> list[str]:
        """Names of the parameters that are not what they were in `fit`, if there was one."""
        params = self.get_params(deep=True)
        return [
            name
            for name, value in self.__dict__.get("_params_at_fit", {}).items()
            if not (name in params and equal_params(params[name], value))
        ]


def copy_of_estimator(part: Any, replaced: dict[int, Any] | None = None) -> Any:
    """A copy of a fitted estimator that shares what was learned, and no estimator.

    Pipelines, unions and searches fit the steps that they hold in place: steps are copied too, so
    that neither the copy nor the original is changed by what becomes of the other.

    Parameters
    ----------
    part : object
        An estimator, a list or tuple that may hold some, or anything else, which is shared.
    replaced : dict of int to object or None, default=None
        What stands for an estimator in the copy, by the `id` of the former; it is added to.

    Returns
    -------
    object

    Raises
    ------
    TypeError
        When an estimator cannot be copied.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skanomaly._parameters import copy_of_estimator
    >>> pipe = make_pipeline(StandardScaler()).fit([[1.0], [3.0]])
    >>> made = copy_of_estimator(pipe)
    >>> made[0] is pipe[0], made[0].mean_ is pipe[0].mean_
    (False, True)
    """
    known = {} if replaced is None else replaced
    if id(part) in known:
        return known[id(part)]
    if type(part) in (list, tuple):
        items = [copy_of_estimator(item, known) for item in part]
        same = all(item is old for item, old in zip(items, part, strict=True))
        return part if same else type(part)(items)
    if isinstance(part, type) or not hasattr(part, "fit"):
        return part
    try:
        made = known[id(part)] = copy.copy(part)
    except Exception as exc:
        raise TypeError(
            f"{type(part).__name__} cannot be copied ({exc}), and what shares it would be changed "
            "by a fit of the copy: give it a method __copy__"
        ) from exc
    names = list(part.get_params(deep=False)) if hasattr(part, "get_params") else []
    for name in (*names, "best_estimator_"):
        value = getattr(part, name, None)
        if (new := copy_of_estimator(value, known)) is not value:
            setattr(made, name, new)
    if "_params_at_fit" in getattr(part, "__dict__", ()):
        kept = part._params_at_fit.items()
        made._params_at_fit = {name: copy_of_estimator(value, known) for name, value in kept}
    return made


def copy_of_param(value: Any) -> Any:
    """A parameter as it is now: lists, dicts and arrays may be changed in place later.

    Estimators and random states stay themselves: that they are the same object is what tells
    that they were not replaced.
    """
    if type(value) in (list, tuple):
        return type(value)(map(copy_of_param, value))
    if isinstance(value, dict) or hasattr(value, "__array__"):
        return copy.deepcopy(value)
    return value


def equal_params(left: Any, right: Any) -> bool:
    """Whether two values of a parameter mean the same, arrays and lists of arrays included."""
    if left is right:
        return True
    if hasattr(left, "__array__") or hasattr(right, "__array__"):
        return np.array_equal(left, right)
    if isinstance(left, (list, tuple)) and type(left) is type(right):
        return len(left) == len(right) and all(map(equal_params, left, right))
    return bool(left == right)


def without_addresses(text: str) -> str:
    """What `repr` gives without addresses in memory, which differ from process to process.

    Parameters
    ----------
    text : str
        Of any object.

    Returns
    -------
    str

    Examples
    --------
    >>> from skanomaly._parameters import without_addresses
    >>> without_addresses("[<function mean at 0x7f0c>, 5]")
    '[<function mean>, 5]'
    """
    return _ADDRESS.sub("", text)


def _words(constraints):
    return {constraint for constraint in constraints if isinstance(constraint, str)}


def is_integer(value: object) -> bool:
    """Whether it is an integer of Python or NumPy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether it is a number that a float can be; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return isfinite(value)
    except OverflowError:  # of an integer beyond all floats
        return False


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
