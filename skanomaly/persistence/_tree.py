"""An estimator as a tree that skops can write, with its arrays beside it.

skops would copy each array several times, and could not map it when it is read. So what it writes
is a shallow copy of the tree, in which the number of each larger array stands in its place; when
the tree has been read, the arrays are put back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skanomaly._parameters import Estimator

# Smaller arrays stay in the tree: each one outside takes some 200 bytes of names and headers.
LEAST_BYTES = 4096

_CONTAINERS = (dict, list, tuple)
_SETTERS = (None, BaseEstimator.__setstate__, Estimator.__setstate__)


class StoredArray:
    """In place of an array: its number in the file."""

    number: int


class StoredPath:
    """In place of a path: its text. The names of Python's classes differ by version and system."""

    text: str


def take_out(
    estimator: Any, edit: Callable[[Any, dict[str, Any]], dict[str, Any]]
) -> tuple[Any, list[np.ndarray]]:
    """A shallow copy of an estimator for skops, and its larger arrays.

    Parameters
    ----------
    estimator : estimator
        It stays as it is.
    edit : callable
        Takes an object and its state, by names; returns the state to be written.

    Returns
    -------
    tree : object
        Serves skops alone: its objects only have the names of their classes.
    arrays : list of ndarray
        In the order of their numbers; no copies.

    Raises
    ------
    TypeError
        When something in it could not be found again by its name.
    """
    arrays: list[np.ndarray] = []
    # By id: the object, so that its id stays its own, and its copy.
    done: dict[int, tuple[Any, Any]] = {}

    def copied(value: Any) -> Any:
        if id(value) in done:
            return done[id(value)][1]
        copy: Any
        if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
            array = np.asarray(value)
            if not array.flags.c_contiguous and not array.flags.f_contiguous:
                # In the order of its strides, by which BLAS sums products one way or another.
                array = np.copy(array, order="K")
            if array.dtype.hasobject or array.nbytes < LEAST_BYTES:
                copy = array
            else:
                copy = _stand_in(StoredArray, {"number": len(arrays)})
                arrays.append(array)
        elif isinstance(value, PurePath):
            copy = _stand_in(StoredPath, {"text": str(value)})
        elif type(value) is dict:
            _check_keys(value)
            copy = {}
            done[id(value)] = value, copy
            copy.update((key, copied(item)) for key, item in value.items())
        elif type(value) is list:
            copy = []
            done[id(value)] = value, copy
            copy.extend(map(copied, value))
        elif type(value) is tuple:
            copy = tuple(map(copied, value))
        elif _is_open(value):
            _check_name(type(value), type(value))
            copy = _stand_in(type(value), {})
            done[id(value)] = value, copy
            vars(copy).update(copied(edit(value, _state(value))))
        else:
            if isinstance(value, (FunctionType, BuiltinFunctionType, type)):
                _check_name(value, value)
            return value
        done[id(value)] = value, copy
        return copy

    return copied(estimator), arrays


def put_back(tree: Any, arrays: Sequence[np.ndarray]) -> Any:
    """An estimator from what skops made of a tree of :func:`take_out`, which is changed in place.

    Parameters
    ----------
    tree : object
        As skops made it.
    arrays : sequence of ndarray
        Of the same file.

    Returns
    -------
    estimator

    Raises
    ------
    ValueError
        When there is no array of some number.
    """
    done: dict[int, tuple[Any, Any]] = {}

    def restored(value: Any) -> Any:
        if id(value) in done:
            return done[id(value)][1]
        result = value
        if isinstance(value, StoredArray):
            number = getattr(value, "number", None)
            if type(number) is not int or not 0 <= number < len(arrays):
                raise ValueError(f"there is no array of the number {number!r}")
            result = arrays[number]
        elif isinstance(value, StoredPath):
            result = Path(value.text)
        elif type(value) is tuple:
            result = tuple(map(restored, value))
        elif type(value) in (dict, list) or _is_open(value):
            done[id(value)] = value, value
            items: Any = value if isinstance(value, _CONTAINERS) else vars(value)
            for key, item in list(items.items() if isinstance(items, dict) else enumerate(items)):
                items[key] = restored(item)
        done[id(value)] = value, result
        return result

    return restored(tree)


def objects_of(estimator: Any) -> Iterator[Any]:
    """The estimators in an estimator, itself first, and what else holds their state; each once."""
    seen: dict[int, Any] = {}
    waiting = [estimator]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not (type(value) in _CONTAINERS or _is_open(value)):
            continue
        seen[id(value)] = value
        if type(value) not in _CONTAINERS:
            yield value
            value = vars(value)
        waiting += reversed(list(value.values() if isinstance(value, dict) else value))


def _is_open(value: Any) -> bool:
    """Whether an object is what its attributes are: estimators, and parts of ours."""
    kind = type(value)
    ours = kind.__module__.partition(".")[0] == "skanomaly"
    if not (ours or isinstance(value, BaseEstimator)) or isinstance(value, (type, FunctionType)):
        return False
    plain = kind.__reduce__ is object.__reduce__ and kind.__reduce_ex__ is object.__reduce_ex__
    setter = getattr(kind, "__setstate__", None)
    return plain and hasattr(value, "__dict__") and (ours or setter in _SETTERS)


def _state(value: Any) -> dict[str, Any]:
    state = value.__getstate__() if hasattr(value, "__getstate__") else vars(value)
    return dict(state or {})


def _stand_in(kind: type, state: dict[str, Any]) -> Any:
    """An object of the same name that has nothing but its state."""
    value = type(kind.__name__, (), {"__module__": kind.__module__})()
    vars(value).update(state)
    return value


def _check_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if isinstance(key, bool) or not isinstance(key, (str, int, float, np.integer, np.floating)):
            raise TypeError(f"a dictionary has the key {key!r}: keys must be text or numbers")


def _check_name(value: Any, named: Any) -> None:
    module, name = getattr(named, "__module__", None), named.__name__
    home = sys.modules.get(module) if module else None
    if module and getattr(home, name, None) is not value:
        raise TypeError(
            f"{module}.{getattr(named, '__qualname__', name)} cannot be found by its name when "
            "the file is read: define it at the top of a module, not in a function or as lambda"
        )
