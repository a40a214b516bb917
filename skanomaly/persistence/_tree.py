"""An estimator as a tree that skops can write, with its arrays beside it.

skops would copy each array several times, and could not map it when it is read. So what it writes
is a shallow copy of the tree, in which the number of each larger array stands in its place; when
the tree has been read, the arrays are put back.
"""

from __future__ import annotations

import json
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


class StoredArrays:
    """In place of a list of arrays of one shape: the number of the array of all of them."""

    number: int


class StoredPath:
    """In place of a path: its text. The names of Python's classes differ by version and system."""

    text: str


class _StandIn:
    """Base of what stands in a tree for objects."""


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
        In the order of their numbers; copies only where many of one shape are put together.

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
        if isinstance(value, np.ma.MaskedArray):
            if value.dtype.hasobject:
                copy = np.ma.MaskedArray(copied(value.data), value.mask)
            else:
                copy = value
        elif isinstance(value, np.ndarray):
            array = np.asarray(value)
            if array.dtype.hasobject:
                if array.ndim != 1:  # skops would open the lists in it
                    raise TypeError(f"an array of objects has {array.ndim} dimensions, not 1")
                copy = np.empty(array.shape, dtype=object)
                done[id(value)] = value, copy
                for place, item in np.ndenumerate(array):
                    copy[place] = copied(item)
            else:
                if not array.flags.c_contiguous and not array.flags.f_contiguous:
                    # In the order of its strides, by which BLAS sums one way or another.
                    array = np.copy(array, order="K")
                if array.nbytes < LEAST_BYTES:
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
        elif type(value) is list and _are_alike(value):
            copy = _stand_in(StoredArrays, {"number": len(arrays)})
            arrays.append(np.stack(value))
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
        if isinstance(value, (StoredArray, StoredArrays)):
            number = getattr(value, "number", None)
            if type(number) is not int or not 0 <= number < len(arrays):
                raise ValueError(f"there is no array of the number {number!r}")
            result = arrays[number] if isinstance(value, StoredArray) else list(arrays[number])
        elif isinstance(value, StoredPath):
            result = Path(value.text)
        elif type(value) is tuple:
            result = tuple(map(restored, value))
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:
            done[id(value)] = value, value
            data = value.data if isinstance(value, np.ma.MaskedArray) else value
            for place, item in np.ndenumerate(data):
                data[place] = restored(item)
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
    return filter(_is_open, values_of(estimator))


def values_of(estimator: Any) -> Iterator[Any]:
    """All that an estimator holds, itself first, wherever it stands; each once."""
    seen: dict[int, Any] = {}
    waiting = [estimator]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (str, int, float)):
            continue
        seen[id(value)] = value
        yield value
        inner: Any = ()
        if isinstance(value, dict):
            inner = value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            inner = value
        elif isinstance(value, np.ndarray):
            inner = np.ma.getdata(value).ravel() if value.dtype.hasobject else ()
        elif (
            isinstance(value, _StandIn)
            or _is_open(value)
            or type(value).__module__.startswith("sklearn.")
        ):
            inner = getattr(value, "__dict__", {}).values()
        waiting += reversed(list(inner))


def _are_alike(value: list[Any]) -> bool:
    """Whether a list is of arrays that can be one array, such as grids of patch scores."""
    first = value[0] if len(value) > 1 else None
    return (
        type(first) is np.ndarray
        and not first.dtype.hasobject
        and first.dtype.names is None
        and all(
            type(item) is np.ndarray
            and item.dtype == first.dtype
            and item.shape == first.shape
            and item.flags.c_contiguous
            for item in value
        )
        and len(value) * first.nbytes >= LEAST_BYTES
    )


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
    value = type(kind.__name__, (_StandIn,), {"__module__": kind.__module__})()
    vars(value).update(state)
    return value


def _check_keys(value: dict[Any, Any]) -> None:
    written: dict[str, Any] = {}
    for key in value:
        if isinstance(key, bool) or not isinstance(key, (str, int, float, np.integer, np.floating)):
            raise TypeError(f"a dictionary has the key {key!r}: keys must be text or numbers")
        number = key.item() if isinstance(key, np.generic) else key
        text = key if isinstance(key, str) else json.dumps(number)
        if text in written:
            raise TypeError(
                f"a dictionary has the keys {written[text]!r} and {key!r}, which are one in a file"
            )
        written[text] = key


def _check_name(value: Any, named: Any) -> None:
    module, name = getattr(named, "__module__", None), named.__name__
    home = sys.modules.get(module) if module else None
    if module and getattr(home, name, None) is not value:
        raise TypeError(
            f"{module}.{getattr(named, '__qualname__', name)} cannot be found by its name when "
            "the file is read: define it at the top of a module, not in a function or as lambda"
        )
