"""The one door to what scikit-learn keeps private: nothing else imports these names.

Seen in scikit-learn 1.6 to 1.9; `tests/test_sklearn_door.py` says which of them is gone.
"""

from __future__ import annotations

from sklearn.base import _fit_context
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    RealNotInt,
    StrOptions,
)
from sklearn.utils.metaestimators import _BaseComposition

__all__ = [
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "RealNotInt",
    "StrOptions",
    "_BaseComposition",
    "_fit_context",
]
