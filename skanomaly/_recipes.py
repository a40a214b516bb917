"""What a model is, before `fit` and after, in words and digests that are the same everywhere."""

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
_VERSIONED = {"builtins", "copyreg", "numpy", "scipy", "skanomaly", "sklearn", "torch"}
# In the state of an estimator, but no part of what it says of an image.
_NOT_LEARNED = NO_MATTER | {"trust", "_params_at_fit", "_sklearn_version", "_skanomaly_version"}


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


def digest_of_fitted(estimator: Any) -> str:
    """Digest of all that a fitted model is: by it one is known again after a journey.

    What `fit` learned, to the bit, with classes and parameters, the fingerprint of the weights that
    it was fitted with among them; of functions and classes of others as of :func:`fingerprint_of`.
    What only says how and where results are computed does not count, nor does the version of this
    package. Nothing is loaded for it.

    Parameters
    ----------
    estimator : estimator
        A fitted Pipeline, scorer, detector or search.

    Returns
    -------
    str
        64 hexadecimal digits, the same in every process, and of a model that was pickled, or kept
        in a model file.

    Raises
    ------
    TypeError
        When it holds what cannot be pickled either.

    Examples
    --------
    >>> from copy import deepcopy
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer
    >>> from skanomaly._recipes import digest_of_fitted
    >>> from skanomaly.datasets import make_surfaces
    >>> images = make_surfaces(9, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(images)
    >>> digest_of_fitted(deepcopy(pipe)) == digest_of_fitted(pipe)
    True
    """
    return _digest_of(estimator, ()).hex()


def _digest_of(value: Any, above: tuple[int, ...]) -> bytes:
    """Digest of a value by its kind and what it holds; `above` are the objects that hold it."""
    if id(value) in above:
        return b"itself"
    above = (*above, id(value))
    parts: list[Any]
    if type(value) in (np.ndarray, np.memmap) and not value.dtype.hasobject:
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        kind, parts = f"array {value.dtype.str} {value.shape}", [flat.data]
    elif type(value) is np.ndarray:
        kind, parts = f"objects {value.shape}", [_digest_of(item, above) for item in value.flat]
    elif type(value) is dict:
        items = [(name, item) for name, item in value.items() if name not in _NOT_LEARNED]
        kind, parts = "dict", sorted(_digest_of(item, above) for item in items)
    elif type(value) in (set, frozenset):
        kind, parts = "set", sorted(_digest_of(item, above) for item in value)
    elif type(value) in (list, tuple):
        kind, parts = type(value).__name__, [_digest_of(item, above) for item in value]
    elif isinstance(value, (np.generic, np.dtype)):
        array = value if isinstance(value, np.generic) else np.empty(0, value)
        kind, parts = f"{array.dtype.str}", [array.tobytes()]
    elif isinstance(value, os.PathLike):  # whose class differs from system to system
        kind, parts = "path", [os.fsencode(value)]
    elif value is None or type(value) in (bool, int, float, complex, str, bytes):
        kind, parts = type(value).__name__, [repr(value).encode()]
    elif inspect.isclass(value) or inspect.isroutine(value):
        kind, parts = "name", [f"{value_as_text(value)} {_source(value)}".encode()]
    else:  # what pickle would write of it, as whoever made its class wants it kept
        made = value.__reduce_ex__(2)
        held = [made] if isinstance(made, str) else [*made[:3], *map(_listed, made[3:5])]
        kind, parts = "object", [_digest_of(item, above) for item in held]
    digest = hashlib.sha256(f"{kind} {len(parts)}".encode())
    for part in parts:
        digest.update(part)
    return digest.digest()


def _listed(items):
    return items if items is None else list(items)


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
