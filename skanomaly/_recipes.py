"""What a model is before it is fitted, in words and digests that are the same everywhere."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np

from skanomaly._cache import cache_key
from skanomaly._parameters import NO_MATTER, without_addresses
from skanomaly._stamps import file_digest

# Packages whose code does not change within a version.
_VERSIONED = {"builtins", "numpy", "scipy", "skanomaly", "sklearn", "torch"}


def fingerprint_of(estimator: Any) -> str:
    """Digest of all that the results of a model depend on, before it is fitted to images.

    Classes and parameters of every step, and for each that has a `_fingerprint()`, as embedders
    and detectors of this package have, what that says in their place: the digest of its weights,
    with layers, sizes and the precision that this machine gives it. Of a parameter that is the
    path of a file, the content counts. The version of this package is not in it.

    Networks are loaded for it. Classes and functions of others count by name and by the content of
    the file that defines them, not of what that imports; objects by what `repr` shows of them.
    What `fit` learned is not in it.

    Parameters
    ----------
    estimator : estimator
        A Pipeline, a scorer, a detector or a search of one, fitted or not.

    Returns
    -------
    str
        64 hexadecimal digits, the same in every process.

    Raises
    ------
    OSError, ValueError
        When a network cannot be loaded, as from `fit`.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer
    >>> from skanomaly._recipes import fingerprint_of
    >>> one = make_pipeline(FilterBankPatches(), PatchKNNScorer())
    >>> other = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> fingerprint_of(one) == fingerprint_of(other)
    False
    """
    return cache_key(estimator=_described(estimator))


def _described(value: Any) -> Any:
    """An estimator, or a parameter of one, as plain values."""
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    if isinstance(value, (str, os.PathLike)) and Path(value).suffix and _is_file(value):
        return {"file": file_digest(value)}
    if isinstance(value, dict):
        return {value_as_text(name): _described(item) for name, item in value.items()}
    if inspect.isclass(value) or inspect.isroutine(value):
        return [value_as_text(value), _source(value)]
    if not hasattr(value, "get_params"):
        return [value_as_text(value), _source(type(value))]
    params = value.get_params(deep=False)
    if hasattr(value, "_fingerprint"):
        # No fingerprint has these two, views being of `fit` alone; nor has it all of an object.
        own = ("augmentation", "value_range")
        besides = {k: v for k, v in params.items() if k in own or not _is_plain(v)}
        params = {**besides, "fingerprint": dict(value._fingerprint())}
    known = {name: _described(item) for name, item in params.items() if name not in NO_MATTER}
    return {"class": _described(type(value)), "params": known}


def _source(value: Any) -> str | None:
    """Digest of the file that defines a class or function; None of ours and of libraries'.

    Those have versions, and a person's own file, such as a plug-in, is changed without one.
    """
    if (value.__module__ or "builtins").partition(".")[0] in _VERSIONED:
        return None
    try:
        return file_digest(inspect.getfile(value))
    except (OSError, TypeError):  # written in C, or typed in
        return None


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, tuple, os.PathLike))


def _is_file(path: Any) -> bool:
    try:
        return Path(path).expanduser().is_file()
    except (OSError, ValueError):  # a text that cannot be a path
        return False


def value_as_text(value: Any) -> str:
    """A parameter in words that are the same in every process.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    str
        Functions and classes by module and qualified name, arrays by a digest of their values;
        other objects by their class and what `repr` shows of them, without addresses, or where
        that is nothing by the numbers, texts and arrays that they hold.

    Examples
    --------
    >>> from skanomaly._parameters import check_integer
    >>> from skanomaly._recipes import value_as_text
    >>> value_as_text([1, "a", check_integer])
    "[1, 'a', skanomaly._parameters.check_integer]"
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(value_as_text, value))}]"
    if isinstance(value, dict):
        items = sorted(
            f"{value_as_text(key)}: {value_as_text(item)}" for key, item in value.items()
        )
        return f"{{{', '.join(items)}}}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return f"array({value.dtype}, {value.shape}, {digest})"
    if isinstance(value, np.random.RandomState):
        return f"RandomState{value_as_text(value.get_state())}"
    if isinstance(value, np.random.Generator):
        return f"Generator{value_as_text(value.bit_generator.state)}"
    if isinstance(value, functools.partial):
        return f"partial{value_as_text([value.func, value.args, value.keywords])}"
    if inspect.isclass(value) or inspect.isroutine(value):
        owner = getattr(value, "__self__", None)
        bound = "" if owner is None or inspect.ismodule(owner) else f" of {value_as_text(owner)}"
        return f"{value.__module__}.{getattr(value, '__qualname__', value.__name__)}{bound}"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(value_as_text, value)))}}}"
    if type(value).__repr__ is object.__repr__:  # which says nothing: as a distribution of SciPy
        inside = getattr(value, "__dict__", {})
        shown: Any = {k: v if _is_simple(v) else type(v) for k, v in inside.items()}
    else:
        shown = without_addresses(repr(value))
    return f"{value_as_text(type(value))} {value_as_text(shown)}"


def _is_simple(value: Any) -> bool:
    """Whether it holds no further object, so that describing it comes to an end."""
    scalar = (type(None), bool, int, float, str, np.generic)
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, scalar) for item in value)
    return isinstance(value, scalar) or (isinstance(value, np.ndarray) and value.dtype != object)
