"""The curves of a report, as short lists of points."""

from __future__ import annotations

from typing import Any

import numpy as np

from skanomaly._results.measured import Curve, roc_of
from skanomaly._typing import ArrayLike, FloatArray

_MOST_POINTS = 400

Points = dict[str, list[float]]


def curves_of(subject: Any, held_out: FloatArray | None) -> dict[str, Points | None]:
    """The curves of what was measured.

    Parameters
    ----------
    subject : Subject
        From :func:`skanomaly.report._report_data.subject_of`.
    held_out : ndarray of shape (n_train,) or None
        Held-out scores of the training images.

    Returns
    -------
    dict of str to (dict of str to list of float, or None)
        `roc`, `pro` and `calibration`, each as lists `x` and `y`; None where labels, masks or
        held-out scores are not known.
    """
    out: dict[str, Points | None] = {"roc": None, "pro": None, "calibration": None}
    if subject.y is None:
        return out
    normal = subject.y == 1
    curves = dict(subject.curves)
    if "roc" not in curves and normal.any() and not normal.all():
        curves["roc"] = roc_of(subject.y, subject.scores)
    out.update({name: _points(curve) for name, curve in curves.items() if name in out})
    if held_out is not None and normal.any():
        out["calibration"] = _points(calibration_curve(held_out, subject.scores[normal]))
    return out


def calibration_curve(train_scores: ArrayLike, good_scores: FloatArray) -> Curve:
    """What share of new good images each threshold flags, against what it should.

    Parameters
    ----------
    train_scores : array-like of shape (n_train,)
        Held-out scores of the training images.
    good_scores : ndarray of shape (n_good,)
        Scores of good images that were not trained on.

    Returns
    -------
    nominal, actual : ndarray of shape (n_train,)
        For the threshold at the i-th lowest of the `n` held-out scores: the share ``i / (n + 1)``
        of good images that should lie below it, and the share that does.
    """
    levels = np.sort(np.asarray(train_scores, dtype=np.float64))
    nominal = np.arange(1, levels.size + 1) / (levels.size + 1)
    actual = np.searchsorted(np.sort(good_scores), levels, side="left") / good_scores.size
    return nominal, actual


def _points(curve: Curve) -> Points:
    x, y = _thinned(*curve)
    return {"x": [round(float(v), 5) for v in x], "y": [round(float(v), 5) for v in y]}


def _thinned(x, y):
    """At most so many points of an ascending curve, at even steps along it, with both ends."""
    if x.size <= _MOST_POINTS:
        return x, y
    length = np.append(0.0, np.cumsum(np.diff(x) + np.diff(y)))
    steps = np.linspace(0, length[-1], _MOST_POINTS)
    kept = np.unique(np.searchsorted(length, steps).clip(max=x.size - 1))
    kept[-1] = x.size - 1
    return x[kept], y[kept]
