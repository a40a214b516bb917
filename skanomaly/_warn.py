"""Warnings that point at the line of the person who reads them."""

from __future__ import annotations

import sys
import threading
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


def keep_workers_warning() -> None:
    """Let what joblib warns of its workers stay a warning, where warnings are errors.

    The thread that hands out the work would end with the error, and whoever asked for the work
    would wait for ever. Called where an estimator is pickled; it does nothing where that is not for
    another process.
    """
    if threading.current_thread().name == "QueueFeederThread":
        warnings.filterwarnings("default", "A worker stopped while some jobs", UserWarning)


def _package(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0]
