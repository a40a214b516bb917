"""Metrics of image scores, in scikit-learn's signs.

Everywhere `y_true` is +1 for normal and -1 for anomalous images, and `scores` are higher for more
normal images, as `score_samples` and `decision_function` return them. The anomalous images are
the positive class of precision and recall.
"""

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.utils import check_consistent_length, column_or_1d


def image_auroc(y_true, scores):
    """Area under the ROC curve: the chance that an anomalous image scores below a normal one.

    Parameters
    ----------
    y_true : array-like of shape (n_images,)
        +1 normal, -1 anomalous.
    scores : array-like of shape (n_images,)
        Higher is more normal.

    Returns
    -------
    float
        In [0, 1]; ties count one half.

    Raises
    ------
    ValueError
        When only one class is present, or a score is not finite.

    Examples
    --------
    >>> from skanomaly.metrics import image_auroc
    >>> image_auroc([1, 1, -1, -1], [-0.1, -0.4, -0.3, -0.9])
    0.75
    """
    anomalous, scores = _check(y_true, scores)
    return float(roc_auc_score(anomalous, -scores))


def image_average_precision(y_true, scores):
    """Average precision of the anomalous images (area under the step-wise PR curve).

    Parameters
    ----------
    y_true : array-like of shape (n_images,)
        +1 normal, -1 anomalous.
    scores : array-like of shape (n_images,)
        Higher is more normal.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        When only one class is present, or a score is not finite.

    Examples
    --------
    >>> from skanomaly.metrics import image_average_precision
    >>> round(image_average_precision([1, 1, -1, -1], [-0.1, -0.4, -0.3, -0.9]), 3)
    0.833
    """
    anomalous, scores = _check(y_true, scores)
    return float(average_precision_score(anomalous, -scores))


def image_f1_max(y_true, scores):
    """The best F1 of the anomalous images over all thresholds.

    Parameters
    ----------
    y_true : array-like of shape (n_images,)
        +1 normal, -1 anomalous.
    scores : array-like of shape (n_images,)
        Higher is more normal.

    Returns
    -------
    f1 : float
        In [0, 1]. It knows the test labels: a bound on what a threshold can do, not a result.
    threshold : float
        The highest score that is still called anomalous.

    Raises
    ------
    ValueError
        When only one class is present, or a score is not finite.

    Examples
    --------
    >>> from skanomaly.metrics import image_f1_max
    >>> image_f1_max([1, 1, -1, -1], [-0.1, -0.4, -0.3, -0.9])
    (0.8, -0.3)
    """
    anomalous, scores = _check(y_true, scores)
    precision, recall, thresholds = precision_recall_curve(anomalous, -scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    best = int(f1.argmax())
    return float(f1[best]), float(-thresholds[best])


def _check(y_true, scores):
    """Whether each image is anomalous, and the scores as float64."""
    y_true, scores = column_or_1d(y_true), column_or_1d(scores).astype(np.float64)
    check_consistent_length(y_true, scores)
    if not np.isin(y_true, (-1, 1)).all():
        raise ValueError("y_true must hold +1 (normal) and -1 (anomalous) only")
    if not np.isfinite(scores).all():
        raise ValueError("scores contain NaN or infinity")
    anomalous = y_true == -1
    if anomalous.all() or not anomalous.any():
        raise ValueError(
            "undefined: y_true needs normal (+1) and anomalous (-1) images, got only "
            f"{'anomalous' if anomalous.any() else 'normal'} ones"
        )
    return anomalous, scores
