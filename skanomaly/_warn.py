"""Warnings that point at the line of the person who reads them."""

from __future__ import annotations

import sys
import warnings

# Between a person's line and ours stand scikit-learn's: pipelines, searches, checks of parameters.
_NOT_THE_USERS = frozenset({"skanomaly", "sklearn", "joblib"})


def warn_user(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of this package and scikit-learn that led here.

    Parameters
    ----------
    message : str or Warning
        What to say.
    category : type of Warning, default=UserWarning
        Of the warning, if `message` is text.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _package(frame) in _NOT_THE_USERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def _package(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0]
