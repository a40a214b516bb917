"""Rates of errors at a threshold, and how they and the threshold vary."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState

from skanomaly._typing import FloatArray, IntArray
from skanomaly.metrics._costs import cheapest, curve_of_counts, thresholds_of
from skanomaly.metrics._intervals import binomial_interval

_N_RESAMPLES = 1000


def interval_of_rate(n_errors: int, n: int, confidence_level: float) -> tuple[float, float]:
    """The exact interval of a rate, of so many errors among `n` images, as plain numbers."""
    low, high = binomial_interval(n_errors, n, confidence_level)
    return float(low), float(high)


def errors(labels: IntArray, scores: FloatArray, threshold: float) -> tuple[int, int]:
    """How many anomalous images are not flagged, and how many normal ones are."""
    flagged, anomalous = scores < threshold, labels == -1
    return int(np.count_nonzero(anomalous & ~flagged)), int(np.count_nonzero(flagged & ~anomalous))


def resample(
    labels: IntArray, scores: FloatArray, costs: dict[str, float], random: RandomState
) -> tuple[FloatArray, tuple[float, float] | None]:
    """Thresholds that resamples of the images choose, and how they judge the images left out.

    Parameters
    ----------
    labels : ndarray of shape (n_images,), int
        +1 normal, -1 anomalous.
    scores : ndarray of shape (n_images,), float64
        Higher is more normal.
    costs : dict of str to float
        Of :func:`skanomaly.metrics.expected_cost_curve`.
    random : RandomState
        Draws the resamples, from each class as many as it has.

    Returns
    -------
    thresholds : ndarray of shape (1000,), float64
        Of each resample the cheapest.
    rates : tuple of float, or None
        Rates of misses and false alarms, each the mean over images of how often those resamples
        erred that had not drawn the image. None with one image of a class, which is always drawn.
    """
    anomalous = labels == -1
    classes = [np.flatnonzero(anomalous), np.flatnonzero(~anomalous)]
    thresholds = np.empty(_N_RESAMPLES)
    n_judged, n_wrong = np.zeros(len(labels)), np.zeros(len(labels))
    levels, level = np.unique(scores, return_inverse=True)
    for i in range(_N_RESAMPLES):
        drawn = [random.choice(images, images.size) for images in classes]
        bad, good = (np.bincount(level[images], minlength=levels.size) for images in drawn)
        present = bad + good > 0
        cost, _, _ = curve_of_counts(bad[present], good[present], **costs)
        thresholds[i] = thresholds_of(levels[present])[cheapest(cost)]
        left_out = np.ones(len(labels), dtype=bool)
        left_out[np.concatenate(drawn)] = False
        n_judged += left_out
        n_wrong += left_out & ((scores < thresholds[i]) != anomalous)
    if any(images.size == 1 for images in classes):
        return thresholds, None
    missed, flagged = (float(np.mean(n_wrong[k] / n_judged[k])) for k in classes)
    return thresholds, (missed, flagged)
