"""Where patch tokens come from: what made an array, as long as the array lives."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from skanomaly._parameters import equal_params
from skanomaly._token_stream import TokenStream

# Plain values by name: the embedder's class, its weights, layers, sizes, precision.
Origin: TypeAlias = Mapping[str, object]

# Parts that tokens depend on by rounding at most: the cache keeps them apart, nobody else does.
_WITHIN_NOISE = {"runtime_version"}

# By the id of an array: a reference that ends with it, and its origin. An array cannot be a key.
_origins: dict[int, tuple[weakref.ref[Any], Origin]] = {}


def set_origin(tokens: Any, origin: Origin) -> None:
    """Remember what made an array, while it lives; nothing is written on it.

    Parameters
    ----------
    tokens : ndarray, or another object that weak references can point to
        Patch tokens. Views of an array share its origin, copies have none.
    origin : mapping of str to plain values
        All that tokens depend on but the image.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._origins import origin_of, set_origin
    >>> tokens = np.zeros((3, 2, 2, 5))
    >>> set_origin(tokens, {"embedder": "TimmPatches", "layers": [5]})
    >>> origin_of(tokens[1:])["layers"], origin_of(tokens.copy())
    ([5], None)
    """
    key = id(tokens)

    # Called before the memory of the array, and with it its id, can be used again.
    def forget(reference: Any, pop: Any = _origins.pop) -> None:
        pop(key, None)

    _origins[key] = weakref.ref(tokens, forget), origin


def origin_of(X: Any) -> Origin | None:
    """What made patch tokens; None where it is not known.

    Parameters
    ----------
    X : array-like
        Patch tokens in any form. Of a list and of an object array, the first element counts where
        the whole is not known.

    Returns
    -------
    mapping or None
    """
    owner = X
    while owner is not None:
        reference, origin = _origins.get(id(owner), (None, None))
        if reference is not None and reference() is owner:
            return origin
        owner = owner.base if isinstance(owner, (np.ndarray, TokenStream)) else None
    listed = isinstance(X, (list, tuple)) or (isinstance(X, np.ndarray) and X.dtype == object)
    return origin_of(X[0]) if listed and len(X) and isinstance(X[0], np.ndarray) else None


def differences(before: Origin, now: Origin) -> dict[str, str]:
    """In what two origins differ.

    Parameters
    ----------
    before, now : mapping
        Origins.

    Returns
    -------
    dict of str to str
        By the name of what differs, what to say of it: both values where they are short. Of
        different embedders that alone.

    Examples
    --------
    >>> differences({"layers": [5], "dtype": "float32"}, {"layers": [8], "dtype": "float32"})
    {'layers': 'layers is [8], was [5]'}
    """
    found = {}
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if name not in _WITHIN_NOISE and not equal_params(old, new):
            both = [repr(value) for value in (new, old)]
            short = max(map(len, both)) <= 40
            found[name] = f"{name} is {both[0]}, was {both[1]}" if short else f"other {name}"
    return {"embedder": found["embedder"]} if "embedder" in found else found
