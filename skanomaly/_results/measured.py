"""What is measured of the test images of a data set: by their scores, and by their maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import roc_curve

from skanomaly import metrics
from skanomaly._results.remade import masks_of, regions_of
from skanomaly._typing import FloatArray, IntArray
from skanomaly.datasets import ImageSet
from skanomaly.metrics._ranking import curve_of, measure, rank_pixels

Curve = tuple[FloatArray, FloatArray]

_LIMITS = (0.3, 0.05)  # of the false-positive rate, for AUPRO
_MOST_POINTS = 1000  # of a curve that is kept


def image_metrics(test: ImageSet, scores: FloatArray) -> dict[str, float]:
    """Metrics of image scores, and with groups of the worst score of each."""
    out = {
        "image_auroc": metrics.image_auroc(test.y, scores),
        "image_average_precision": metrics.image_average_precision(test.y, scores),
        "image_f1_max": metrics.image_f1_max(test.y, scores),
        "image_recall_at_zero_fpr": metrics.image_recall_at_zero_fpr(test.y, scores),
        "image_fpr_at_95_recall": metrics.image_fpr_at_recall(test.y, scores, 0.95),
    }
    if test.groups is not None:
        _, sample = np.unique(test.groups, return_inverse=True)
        y, worst = np.ones(sample.max() + 1, dtype=int), np.full(sample.max() + 1, np.inf)
        np.minimum.at(y, sample, test.y)
        np.minimum.at(worst, sample, scores)
        out["sample_auroc"] = metrics.image_auroc(y, worst)
    return out


def pixel_metrics(test: ImageSet, maps: Sequence[FloatArray]) -> tuple[dict[str, float], Curve]:
    """Metrics of maps of images whose masks are all known, and the curve of overlap.

    Maps are asked for one at a time, those of images with defects more than once.
    """
    ranked = rank_pixels(masks_of(test), maps)
    measured = measure(ranked, _LIMITS)
    out = {
        "pixel_auroc": measured.auroc,
        "pixel_average_precision": measured.average_precision,
        "pixel_f1_max": measured.f1_max,
        **{f"aupro_{x:g}": area for x, area in zip(_LIMITS, measured.aupro, strict=True)},
    }
    fpr, overlap, _ = curve_of(ranked, _MOST_POINTS)
    del ranked
    if test.defects is not None:
        regions, areas = regions_of(test)
        out["auspro_0.05"] = metrics.auspro(regions, maps, areas)
    return out, (fpr, overlap)


def roc_of(y: IntArray, scores: FloatArray) -> Curve:
    """Share of the anomalous images against the share of the normal ones below each threshold."""
    fpr, recall, _ = roc_curve(y == -1, -scores)
    return fpr, recall
