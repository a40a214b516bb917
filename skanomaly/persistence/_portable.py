"""What of an estimator belongs to the computer that it was fitted on, and does not travel."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skanomaly._images.training import TrainingImages

# Folders of caches, which are written to, and read from, when the estimator is used; and that code
# of a checkpoint may be run. With what they are where nobody has set them.
_OF_PEOPLE: dict[str, Any] = {"cache_dir": None, "memory": None, "trust": False}
_N_STATE = 624  # words of the Mersenne Twister


def without_rights(value: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state of an object without what only a person sets, as if that had been so at `fit`.

    Parameters
    ----------
    value : object
        An estimator or a part of one.
    state : dict
        Its attributes by name.

    Returns
    -------
    dict
        The same, or a changed copy.
    """
    if not isinstance(value, BaseEstimator):
        return state
    for name, unset in _OF_PEOPLE.items():
        if state.get(name, unset) is not unset:
            state = {**state, name: unset}
    return with_params(state, lambda name, old: _OF_PEOPLE.get(name, old))


def check_value(value: Any) -> None:
    """Check a value that comes from a file, or goes into one.

    Parameters
    ----------
    value : object
        Any of those that an estimator holds.

    Raises
    ------
    ValueError
        When a dictionary, such as the grid of a search, sets what only a person sets; or when the
        value cannot be used without harm.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            name = key.rpartition("__")[2] if isinstance(key, str) else None
            if name in _OF_PEOPLE and item is not _OF_PEOPLE[name]:
                raise ValueError(
                    f"a dictionary, such as the grid of a search, sets {key!r}: "
                    f"{', '.join(_OF_PEOPLE)} are not kept in a file"
                )
    elif isinstance(value, np.random.RandomState):
        place = value.get_state(legacy=False)["state"]["pos"]
        if not 0 <= place <= _N_STATE:  # from where NumPy reads, unchecked
            raise ValueError(f"a RandomState is at the place {place}")
    elif isinstance(value, TrainingImages):
        for of_each in (value.paths, value.digests):
            texts = type(of_each) is tuple and all(type(x) in (str, NoneType) for x in of_each)
            if not texts or len(of_each) != len(value.paths):
                raise ValueError("training images are not as they are remembered")


def with_params(state: dict[str, Any], changed: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A state whose parameters at `fit`, by which a change is noticed, are others.

    Parameters
    ----------
    state : dict
        Attributes of an estimator by name.
    changed : callable
        ``changed(name, value) -> value``, with the name as the estimator that has it calls it.

    Returns
    -------
    dict
        The same, or a changed copy.
    """
    at_fit = state.get("_params_at_fit")
    if not isinstance(at_fit, dict):
        return state
    new = {name: changed(name.rpartition("__")[2], value) for name, value in at_fit.items()}
    same = all(new[name] is at_fit[name] for name in at_fit)
    return state if same else {**state, "_params_at_fit": new}
