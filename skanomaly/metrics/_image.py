"""Metrics of image scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d

from skanomaly._docstrings import document
from skanomaly._labels import check_labels
from skanomaly._parameters import check_integer
from skanomaly.metrics._docstrings import METRIC_DOCS
from skanomaly.metrics._validation import compared_in, threshold_between

Metric = Callable[[ArrayLike, ArrayLike], float]


@document(METRIC_DOCS)
def image_auroc(y_true: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that an anomalous image scores below a normal one.

    Parameters
    ----------
    %(y_true)s
    %(scores)s

    Returns
    -------
    float
        In [0, 1]; ties count one half.

    Raises
    ------
    %(image_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import image_auroc
    >>> image_auroc([1, 1, -1, -1], [-0.1, -0.4, -0.3, -0.9])
    0.75
    """
    anomalous, values = _check(y_true, scores)
    return float(roc_auc_score(anomalous, -values))


@document(METRIC_DOCS)
def image_average_precision(y_true: ArrayLike, scores: ArrayLike) -> float:
    """Average precision of the anomalous images (area under the step-wise PR curve).

    Parameters
    ----------
    %(y_true)s
    %(scores)s

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    %(image_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import image_average_precision
    >>> round(image_average_precision([1, 1, -1, -1], [-0.1, -0.4, -0.3, -0.9]), 3)
    0.833
    """
    anomalous, values = _check(y_true, scores)
    return float(average_precision_score(anomalous, -values))


@document(METRIC_DOCS)
def image_f1_max(y_true: ArrayLike, scores: ArrayLike) -> float:
    """The best F1 of the anomalous images over all thresholds.

    Parameters
    ----------
    %(y_true)s
    %(scores)s

    Returns
    -------
    float
        In [0, 1]. It knows the test labels: a bound on what a threshold can do, not a result.

    Raises
    ------
    %(image_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import image_f1_max
    >>> image_f1_max([1, 1, -1, -1], [-0.1, -0.4, -0.3, -0.9])
    0.8
    """
    anomalous, values = _check(y_true, scores)
    precision, recall, _ = precision_recall_curve(anomalous, -values)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return float(f1[:-1].max())


@document(METRIC_DOCS)
def image_f1_max_threshold(y_true: ArrayLike, scores: ArrayLike) -> float:
    """The threshold of the best F1: an image is called anomalous where ``score < threshold``.

    Parameters
    ----------
    %(y_true)s
    %(scores)s

    Returns
    -------
    float
        In the unit of the scores, such as `offset_` is: midway between the highest score that is
        still called anomalous and the next higher one; the next number above the former where all
        images are called anomalous. Of equally good ones the highest. It knows the test labels, as
        :func:`image_f1_max` does: to set a threshold by it, take other images than those that
        the detector is then measured on.

    Raises
    ------
    %(image_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import image_f1_max_threshold
    >>> image_f1_max_threshold([1, 1, -1, -1], [-1.0, -4.0, -3.0, -9.0])
    -2.0
    """
    dtype = np.asarray(scores).dtype
    anomalous, values = _check(y_true, scores)
    levels = np.unique(values)
    called = np.searchsorted(np.sort(values), levels, side="right")
    found = np.searchsorted(np.sort(values[anomalous]), levels, side="right")
    # From whole numbers, so that equally good thresholds are equal floats.
    f1 = 2 * found / (called + np.count_nonzero(anomalous))
    best = int(np.flatnonzero(f1 == f1.max())[-1])
    if best + 1 < levels.size:
        return threshold_between(levels[best], levels[best + 1], dtype)
    kind = compared_in(dtype)
    with np.errstate(over="ignore"):  # beyond the largest float there is infinity
        return float(np.nextafter(kind(levels[best]), kind(np.inf)))


@document(METRIC_DOCS)
def image_recall_at_zero_fpr(y_true: ArrayLike, scores: ArrayLike) -> float:
    """Share of the anomalous images found without flagging a single normal one ("zero overkill").

    Parameters
    ----------
    %(y_true)s
    %(scores)s

    Returns
    -------
    float
        In [0, 1]: the anomalous images that score strictly below every normal one.

    Raises
    ------
    %(image_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import image_recall_at_zero_fpr
    >>> image_recall_at_zero_fpr([1, 1, -1, -1], [-0.1, -0.4, -0.3, -0.9])
    0.5
    """
    anomalous, values = _check(y_true, scores)
    return float((values[anomalous] < values[~anomalous].min()).mean())


@document(METRIC_DOCS)
def image_fpr_at_recall(y_true: ArrayLike, scores: ArrayLike, recall: float = 0.95) -> float:
    """Share of the normal images flagged where at least the share `recall` of anomalous ones is.

    Parameters
    ----------
    %(y_true)s
    %(scores)s
    recall : float, default=0.95
        In (0, 1].

    Returns
    -------
    float
        In [0, 1]; lower is better. At the strictest threshold that reaches the recall.

    Raises
    ------
    ValueError
        When only one class is present, a score is not finite, or `recall` is out of range.

    Examples
    --------
    >>> from skanomaly.metrics import image_fpr_at_recall
    >>> image_fpr_at_recall([1, 1, -1, -1], [-0.1, -0.4, -0.3, -0.9])
    0.5
    """
    if isinstance(recall, bool) or not 0 < recall <= 1:
        raise ValueError(f"recall must lie in (0, 1], got {recall!r}")
    anomalous, values = _check(y_true, scores)
    lowest_first = np.sort(values[anomalous])
    # The shares themselves are compared: recall times their number could round up to one more.
    shares = np.arange(1, lowest_first.size + 1) / lowest_first.size
    threshold = lowest_first[np.searchsorted(shares, recall)]
    return float((values[~anomalous] <= threshold).mean())


@document(METRIC_DOCS)
def bootstrap_interval(
    metric: Metric,
    y_true: ArrayLike,
    scores: ArrayLike,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    random_state: int | np.random.RandomState | None = 0,
) -> tuple[float, float]:
    """Percentile bootstrap confidence interval of an image metric.

    Normal and anomalous images are drawn apart, with replacement, each as often as there are: no
    resample lacks a class. The interval is for the test images alone; the spread over training
    sets and seeds comes on top.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, scores) -> float``, for example :func:`image_auroc`.
    %(y_true)s
    %(scores)s
    confidence : float, default=0.95
        Nominal coverage, in (0, 1).
    n_resamples : int, default=1000
        Resamples, at least 1.
    random_state : int, RandomState instance or None, default=0
        Seed of the resampling.

    Returns
    -------
    low, high : float
        The ends of the interval. Where the metric separates the images perfectly, both are its best
        value, because no resample of them can be worse.

    Raises
    ------
    ValueError
        When only one class is present, a score is not finite, or a parameter is out of range.

    References
    ----------
    .. [1] Efron and Tibshirani, "An Introduction to the Bootstrap", Chapman and Hall, 1993.

    Examples
    --------
    >>> from skanomaly.metrics import bootstrap_interval, image_auroc
    >>> y_true, scores = [1] * 4 + [-1] * 4, [-1, -2, -3, -6, -4, -5, -7, -8]
    >>> low, high = bootstrap_interval(image_auroc, y_true, scores)
    >>> low <= image_auroc(y_true, scores) <= high
    True
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}")
    check_integer(n_resamples, "n_resamples", 1)
    anomalous, values = _check(y_true, scores)
    labels, random = np.where(anomalous, -1, 1), check_random_state(random_state)
    classes = [np.flatnonzero(~anomalous), np.flatnonzero(anomalous)]
    results = []
    for _ in range(n_resamples):
        drawn = np.concatenate([random.choice(images, images.size) for images in classes])
        results.append(float(metric(labels[drawn], values[drawn])))
    low, high = np.quantile(results, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check(y_true, scores):
    """Whether each image is anomalous, and the scores as float64."""
    y_true, scores = check_labels(y_true, "y_true"), column_or_1d(scores).astype(np.float64)
    check_consistent_length(y_true, scores)
    if not np.isfinite(scores).all():
        raise ValueError("scores contain NaN or infinity")
    anomalous = y_true == -1
    if anomalous.all() or not anomalous.any():
        raise ValueError(
            "undefined: y_true needs normal (+1) and anomalous (-1) images, got only "
            f"{'anomalous' if anomalous.any() else 'normal'} ones"
        )
    return anomalous, scores
