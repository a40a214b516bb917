"""Thresholds, p-values and colours from held-out scores of normal images."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from skanomaly._typing import ArrayLike, FloatArray, IntArray

# Scores below which none says what is far from the others, and the share of them that is few.
_FEWEST_TO_TELL, _FEW = 10, 0.2


def contamination_offset(train_scores: ArrayLike, contamination: float) -> float:
    """The threshold that flags the share `contamination` of held-out normal scores.

    Parameters
    ----------
    train_scores : array-like of shape (n_images,)
        Held-out scores of normal images; higher is more normal.
    contamination : float
        Share of them to lie below the threshold, in (0, 0.5].

    Returns
    -------
    float
        The `contamination` quantile.

    Notes
    -----
    Of the ways to interpolate a quantile, the one that places the i-th of `n` scores at
    ``i / (n + 1)`` is unbiased: a new normal image, exchangeable with these, falls below it with
    probability `contamination`, on average over the held-out scores. NumPy's default would flag
    2.6 percentage points more than 10% with 30 scores. With fewer than ``1 / contamination - 1``
    scores the threshold is the lowest of them, and the probability ``1 / (n + 1)``.

    References
    ----------
    .. [1] Hyndman and Fan, "Sample Quantiles in Statistical Packages", The American Statistician
       50(4), 1996 (definition 6).

    Examples
    --------
    >>> from skanomaly.core.calibration import contamination_offset
    >>> contamination_offset([-3.0, -2.0, -1.0], 0.25)
    -3.0
    >>> contamination_offset([-3.0, -2.0, -1.0], 0.375)
    -2.5
    """
    scores = np.asarray(train_scores, dtype=np.float64)
    return float(np.quantile(scores, contamination, method="weibull"))


def images_for_share(share: float) -> int:
    """How many held-out normal images a threshold takes that flags no more than a share.

    Parameters
    ----------
    share : float
        Of new normal images, in (0, 1).

    Returns
    -------
    int
        ``1 / share - 1``, rounded up: with fewer, even the lowest score flags more of them.

    Examples
    --------
    >>> from skanomaly.core.calibration import images_for_share
    >>> [images_for_share(share) for share in (0.5, 0.1, 0.015)]
    [1, 9, 66]
    """
    return ceil((1 - 1e-9) / share) - 1  # 1 / 0.1 may be a little above 10


def resting_on(train_scores: ArrayLike, threshold: float) -> int:
    """How many outlying scores a threshold rests on: few that lie far below all others.

    Parameters
    ----------
    train_scores : array-like of shape (n_images,)
        Held-out scores of normal images; higher is more normal.
    threshold : float
        A share of them, as from :func:`contamination_offset`.

    Returns
    -------
    int
        How many scores lie below an empty gap that begins at the threshold or above it, with all
        other scores far above; 0 for a threshold that lies among the scores or near to them, and
        with fewer than 10 scores, which do not tell what is far.

    Notes
    -----
    Such a threshold would lie elsewhere without the few scores below the gap: defects fall into
    the gap, and pass. "Far" is measured by the scores above the gap: it is longer than
    ``2.5 (1 + 10 / n_images)`` times the greater of their interquartile range and the distance of
    the lowest of them from their median.

    Examples
    --------
    >>> from skanomaly.core.calibration import resting_on
    >>> scores = [-4.2, -1.9, -1.8, -1.7, -1.7, -1.7, -1.7, -1.7, -1.6, -1.6]
    >>> resting_on(scores, -3.9), resting_on(scores, -1.9)
    (1, 0)
    """
    scores = np.sort(np.asarray(train_scores, dtype=np.float64))
    n = len(scores)
    low = int(np.searchsorted(scores, threshold, side="right"))
    if n < _FEWEST_TO_TELL or low < 1 or not np.isfinite(scores).all():
        return 0
    n_below = np.arange(low, int(n * _FEW) + 1)

    def quantile_above(share):
        place = n_below + share * (n - 1 - n_below)
        before = place.astype(int)
        after = scores[np.minimum(before + 1, n - 1)]
        return scores[before] + (place - before) * (after - scores[before])

    # Robust spreads, which a single outlier cannot enlarge. The second one is the length of the
    # lower tail itself: where it is long by nature, as of logarithmic or exponential scores, a gap
    # in it is no surprise. The fewer the scores, the less their spread is known: hence 10 / n.
    # `python -m benchmarks.outlying_images` shows how seldom ordinary samples have such a gap.
    quartiles = quantile_above(0.75) - quantile_above(0.25)
    spread = np.maximum(quartiles, quantile_above(0.5) - scores[n_below])
    gap = scores[n_below] - np.maximum(threshold, scores[n_below - 1])
    far = n_below[(gap > 2.5 * (1 + 10 / n) * spread) & (spread > 0)]
    return int(far[0]) if far.size else 0


def conformal_p_values(
    train_scores: ArrayLike, scores: ArrayLike, groups: ArrayLike | None = None
) -> FloatArray:
    """Conformal p-values of scores against held-out scores of normal images.

    Parameters
    ----------
    train_scores : array-like of shape (n_images,)
        Held-out scores of normal images; higher is more normal.
    scores : array-like of shape (n,)
        Scores to be judged, on the same scale.
    groups : array-like of shape (n_images,), default=None
        Group of each held-out image, such as the part it shows; None: each is one of its own.

    Returns
    -------
    ndarray of shape (n,), float64
        ``(1 + #{held-out images at least as anomalous}) / (n_images + 1)``, in
        ``[1 / (n_images + 1), 1]``. If the scored image is exchangeable with the held-out ones,
        the chance of a p-value of at most `a` is at most `a`. With groups, each counts once: an
        image in it by one over their number [2]_, and the lowest is ``1 / (n_groups + 1)``. That
        chance is then the same for an image of a new group, if groups are exchangeable.

    References
    ----------
    .. [1] Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", Springer, 2005.
    .. [2] Lee, Barber and Willett, "Distribution-free inference with hierarchical data", 2023.

    Examples
    --------
    >>> from skanomaly.core.calibration import conformal_p_values
    >>> conformal_p_values([-3.0, -2.0, -1.0], [-5.0, -2.0, 0.0])
    array([0.25, 0.75, 1.  ])
    >>> conformal_p_values([-3.0, -2.9, -2.0, -1.0], [-5.0, -2.95, 0.0], groups=[0, 0, 1, 2])
    array([0.25 , 0.375, 1.   ])
    """
    train_scores = np.asarray(train_scores, dtype=np.float64)
    order = np.argsort(train_scores)
    at_most = np.searchsorted(train_scores[order], np.asarray(scores, np.float64), side="right")
    if groups is None:
        return (1 + at_most) / (train_scores.size + 1)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weight = np.concatenate([[0.0], np.cumsum((1 / sizes)[group][order])])
    return np.minimum((1 + weight[at_most]) / (len(sizes) + 1), 1.0)  # sums are rounded


def patch_score_limits(patch_scores: Sequence[ArrayLike]) -> tuple[float, float]:
    """What is usual in a normal image, and what is beyond it: the limits of a colour scale.

    Parameters
    ----------
    patch_scores : sequence of array-like
        Held-out patch scores of each normal image, or a sample of them with the highest; higher is
        more anomalous.

    Returns
    -------
    low, high : float
        `low`, the 95% quantile of all patch scores: up to it nothing is to be painted. `high`, the
        90% quantile of the images' highest patch scores, plus ``(that - low) / n_images``: nine of
        ten normal images show nothing beyond it, and few of them know less of what is usual.

    Examples
    --------
    >>> from skanomaly.core.calibration import patch_score_limits
    >>> patch_score_limits([[0.0] * 20 + [1.0], [0.0] * 20 + [2.0], [0.0] * 20 + [3.0]])
    (0.0, 3.733333333333333)
    """
    scores = [np.ravel(image) for image in patch_scores]
    low = float(np.quantile(np.concatenate(scores), 0.95))
    highest = [image.max() for image in scores if image.size]
    above = max(0.0, float(np.quantile(highest, 0.9)) - low)
    return low, low + above * (1 + 1 / len(highest))


def calibration_folds(groups: ArrayLike, n_folds: int) -> IntArray:
    """Fold of each image for cross-fitting: of as many groups as can be, each held out once.

    Parameters
    ----------
    groups : array-like of shape (n_images,), int
        Group of each image, at least 2 of them; ``range(n_images)`` where each is one of its own.
    n_folds : int
        At most this many folds; with fewer groups each is a fold of its own.

    Returns
    -------
    ndarray of shape (n_images,), int
        Fold numbers. They ascend with the groups: neighbours, which often show one part, are held
        out together.

    Examples
    --------
    >>> from skanomaly.core.calibration import calibration_folds
    >>> calibration_folds(range(5), 3)
    array([0, 0, 1, 1, 2])
    >>> calibration_folds([0, 0, 0, 1, 1, 2], 2)
    array([0, 0, 0, 0, 0, 1])
    """
    known, group = np.unique(groups, return_inverse=True)
    return group * min(len(known), n_folds) // len(known)
