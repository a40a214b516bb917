"""What a threshold costs: defects that it misses, and good parts that it flags."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, column_or_1d

from skanomaly._docstrings import document
from skanomaly._labels import check_labels
from skanomaly._parameters import is_finite
from skanomaly._typing import FloatArray, IntArray
from skanomaly.metrics._docstrings import METRIC_DOCS
from skanomaly.metrics._validation import compared_in


@document(METRIC_DOCS)
def expected_cost_curve(
    y_true: ArrayLike,
    scores: ArrayLike,
    *,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
    prevalence: float | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Expected cost of an inspected image, and the rates of both errors, by threshold.

    Parameters
    ----------
    %(y_true)s
    %(scores)s
    cost_miss : float, default=1.0
        Cost of an anomalous image that is not flagged, at least 0.
    cost_false_alarm : float, default=1.0
        Cost of a normal image that is flagged, at least 0; not both may be 0.
    prevalence : float or None, default=None
        Share of anomalous images among those that will be inspected, in (0, 1); None: as among
        these images, which is seldom that of a line.

    Returns
    -------
    thresholds : ndarray of shape (n_levels + 1,), float64
        Ascending; an image is flagged where ``score < threshold``. The first is the lowest score,
        which flags none of the images; then the midpoint of each two neighbouring levels; the last
        lies above the highest score and flags all. They are all the decisions that a threshold can
        make on these images.
    cost : ndarray of shape (n_levels + 1,), float64
        ``prevalence * cost_miss * miss_rate + (1 - prevalence) * cost_false_alarm *
        false_alarm_rate``.
    miss_rate : ndarray of shape (n_levels + 1,), float64
        Share of the anomalous images that is not flagged: it falls from 1 to 0.
    false_alarm_rate : ndarray of shape (n_levels + 1,), float64
        Share of the normal images that is flagged: it rises from 0 to 1.

    Raises
    ------
    %(image_errors)s

    References
    ----------
    .. [1] Drummond and Holte, "Cost curves: An improved method for visualizing classifier
       performance", Machine Learning 65, 2006.

    Examples
    --------
    >>> from skanomaly.metrics import expected_cost_curve
    >>> thresholds, cost, missed, false_alarms = expected_cost_curve(
    ...     [1, 1, -1, -1], [-1.0, -4.0, -3.0, -9.0], cost_miss=10, prevalence=0.1
    ... )
    >>> thresholds.round(2)
    array([-9. , -6.5, -3.5, -2. , -1. ])
    >>> missed, false_alarms
    (array([1. , 0.5, 0.5, 0. , 0. ]), array([0. , 0. , 0.5, 0.5, 1. ]))
    >>> cost
    array([1.  , 0.5 , 0.95, 0.45, 0.9 ])
    """
    labels = check_labels(y_true, "y_true")
    dtype = np.asarray(scores).dtype
    values = column_or_1d(scores).astype(np.float64)
    check_consistent_length(labels, values)
    if not np.isfinite(values).all():
        raise ValueError("scores contain NaN or infinity")
    anomalous = labels == -1
    n_anomalous = np.count_nonzero(anomalous)
    if n_anomalous in (0, len(labels)):
        raise ValueError(
            "undefined: y_true needs normal (+1) and anomalous (-1) images, got only "
            f"{'anomalous' if n_anomalous else 'normal'} ones"
        )
    check_costs(cost_miss, cost_false_alarm, prevalence)
    levels, level = np.unique(values, return_inverse=True)
    bad, good = (np.bincount(level[of], minlength=levels.size) for of in (anomalous, ~anomalous))
    share = n_anomalous / len(labels) if prevalence is None else float(prevalence)
    curve = curve_of_counts(bad, good, cost_miss, cost_false_alarm, share)
    return (thresholds_of(levels, dtype), *curve)


def curve_of_counts(
    anomalous: IntArray,
    normal: IntArray,
    cost_miss: float,
    cost_false_alarm: float,
    prevalence: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cost and rates where no level, the lowest, the two lowest and so on are flagged.

    Parameters
    ----------
    anomalous, normal : ndarray of shape (n_levels,), int
        Images of each score, ascending; some of both.
    cost_miss, cost_false_alarm, prevalence : float
        As for :func:`expected_cost_curve`.

    Returns
    -------
    cost, miss_rate, false_alarm_rate : ndarray of shape (n_levels + 1,), float64
    """
    # From whole numbers, so that equally good thresholds are equal floats.
    missed = np.concatenate([[0], np.cumsum(anomalous[::-1])])[::-1]
    flagged = np.concatenate([[0], np.cumsum(normal)])
    miss_rate, false_alarm_rate = missed / missed[0], flagged / flagged[-1]
    costs = cost_miss, cost_false_alarm, prevalence
    return expected_cost(miss_rate, false_alarm_rate, *costs), miss_rate, false_alarm_rate


def expected_cost(
    miss_rate: Any,
    false_alarm_rate: Any,
    cost_miss: float,
    cost_false_alarm: float,
    prevalence: Any,
) -> Any:
    """Cost of an inspected image by both rates, numbers or arrays of them."""
    of_misses = prevalence * cost_miss * miss_rate
    return of_misses + (1 - prevalence) * cost_false_alarm * false_alarm_rate


def cheapest(cost: FloatArray) -> int:
    """Number of the highest threshold among the cheapest, which may differ by rounding."""
    # A cost is a sum of two that are at least 0: it is rounded relatively to itself.
    return int(np.flatnonzero(cost <= cost.min() * (1 + 1e-12))[-1])


def thresholds_of(levels: FloatArray, dtype: Any = np.float64) -> FloatArray:
    """A threshold below, between and above neighbouring scores.

    Parameters
    ----------
    levels : ndarray of shape (n_levels,), float64
        Different scores, ascending.
    dtype : dtype, default=float64
        Of the scores before they were float64: the thresholds part them there, as those of
        :func:`skanomaly.metrics._validation.threshold_between` do.

    Returns
    -------
    ndarray of shape (n_levels + 1,), float64
    """
    kind, low, high = compared_in(dtype), levels[:-1], levels[1:]
    middle = (low / 2 + high / 2).astype(kind).astype(np.float64)
    between = np.where((low < middle) & (middle <= high), middle, high)
    return np.array([levels[0], *between, np.nextafter(kind(levels[-1]), kind(np.inf))], float)


def check_costs(cost_miss: Any, cost_false_alarm: Any, prevalence: Any) -> None:
    """ValueError where costs are no numbers of at least 0, or the share is not in (0, 1)."""
    for name, cost in (("cost_miss", cost_miss), ("cost_false_alarm", cost_false_alarm)):
        if not is_finite(cost) or cost < 0:
            raise ValueError(f"{name} must be a finite number of at least 0, got {cost!r}")
    if cost_miss == cost_false_alarm == 0:
        raise ValueError("cost_miss and cost_false_alarm are both 0: every threshold costs nothing")
    if prevalence is not None and not (is_finite(prevalence) and 0 < prevalence < 1):
        raise ValueError(
            "prevalence must be the share of anomalous images among those to be inspected, in "
            f"(0, 1), got {prevalence!r}"
        )
