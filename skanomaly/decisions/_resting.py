"""Thresholds that rest on few images, which score far below all others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from skanomaly._pipelines import contamination_of, offset_of
from skanomaly._warn import warn_user
from skanomaly.core.calibration import resting_on
from skanomaly.decisions._tuned_on import listed


class Rest(NamedTuple):
    """What a threshold rests on, and where the other scores begin."""

    positions: list[int]  # in the held-out scores, the lowest first
    scores: list[float]
    next_score: float


def rest_of(scorer: Any) -> Rest | None:
    """The few outlying scores that a threshold rests on.

    Parameters
    ----------
    scorer : scorer or detector
        Fitted.

    Returns
    -------
    Rest or None
        None where the threshold lies among the other scores or near to them, and where it is a
        number that somebody gave.
    """
    scores = np.asarray(getattr(scorer, "train_scores_", ()), dtype=np.float64)
    if contamination_of(scorer) is None or not scores.size:
        return None
    low = resting_on(scores, offset_of(scorer))
    if not low:
        return None
    order = np.argsort(scores, kind="stable")
    return Rest(order[:low].tolist(), scores[order[:low]].tolist(), float(scores[order[low]]))


def warn_of_rest(scorer: Any) -> None:
    """Warn where a threshold rests on few outlying images.

    Parameters
    ----------
    scorer : scorer or detector
        Calibrated.
    """
    if (rest := rest_of(scorer)) is None:
        return
    n = len(rest.positions)
    warn_user(
        f"the threshold rests on {n} image{'s' * (n > 1)} ({listed(rest.positions)} in "
        f"train_scores_) of a score up to {rest.scores[-1]:.4g}; all other images score "
        f"{rest.next_score:.4g} or higher. Defects that score between pass. Leave out what is no "
        "usual good part, and check that known defects are found"
    )
