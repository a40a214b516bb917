"""Scorers that score the images of `fit` by each other alone, where others are asked for."""

from __future__ import annotations

from typing import Any


def check_scores_new_images(estimator: Any, name: str = "") -> None:
    """Raise before the work where images are to be scored that a detector was not fitted to.

    Parameters
    ----------
    estimator : estimator
        A scorer, a detector or a search, which may hold others; fitted or not.
    name : str, default=""
        What the message begins with, such as the name of a member.

    Raises
    ------
    TypeError
        When it is, or holds, a scorer that is marked as ``_transductive``: see
        :mod:`skanomaly._pipelines`.
    """
    held = estimator.get_params().values() if hasattr(estimator, "get_params") else ()
    for part in (estimator, *held):
        if getattr(part, "_transductive", False):
            kind = type(part).__name__
            raise TypeError(
                f"{name}{': ' * bool(name)}{kind} scores the images that it is fitted to, "
                "unlabelled, by each other, and no new ones: call fit_predict of a Pipeline with "
                "it on them in Python, see the page 'Unlabelled images' of the documentation; or "
                "take another scorer"
            )
