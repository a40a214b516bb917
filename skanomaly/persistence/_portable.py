"""What of an estimator belongs to the computer that it was fitted on, and does not travel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator

# Folders of caches: written to, and read from, when the estimator is used.
_FOLDERS = ("cache_dir", "memory")


def without_folders(value: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The state of an object without the folders of caches, as if they had not been there at `fit`.

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
    for name in _FOLDERS:
        if state.get(name) is not None:
            state = {**state, name: None}
    return with_params(state, lambda name, old: None if name in _FOLDERS else old)


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
