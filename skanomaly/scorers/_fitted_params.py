"""Parameters as they were in `fit`, to notice a change."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np


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
