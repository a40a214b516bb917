"""Warnings that point at the line of the person who called."""

from __future__ import annotations

import sys
import warnings

# What may stand between a method of ours and the line that called it: our own methods, wrappers of
# scikit-learn, Pipelines and searches.
_BETWEEN = {"skanomaly", "sklearn", "joblib"}


def warn_caller(message: str) -> None:
    """Give a `UserWarning` at the nearest line that is neither ours nor scikit-learn's.

    Parameters
    ----------
    message : str
        What it says.

    Examples
    --------
    >>> from skanomaly._warnings import warn_caller
    >>> warn_caller("two images are copies")  # doctest: +SKIP
    UserWarning: two images are copies
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _package(frame) in _BETWEEN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


def _package(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0]
