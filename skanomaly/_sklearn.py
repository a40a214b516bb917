"""The one door to what scikit-learn keeps private: nothing else imports these names.

Seen in scikit-learn 1.6 to 1.9; `tests/test_sklearn_door.py` says which of them is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    RealNotInt,
    StrOptions,
)
from sklearn.utils.metaestimators import _BaseComposition

__all__ = [
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "Options",
    "RealNotInt",
    "StrOptions",
    "_BaseComposition",
    "_fit_context",
]

if TYPE_CHECKING:  # scikit-learn's own says nothing of what it returns
    from collections.abc import Callable

    _Method = TypeVar("_Method", bound=Callable[..., object])

    def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[_Method], _Method]: ...

else:
    from sklearn.base import _fit_context
