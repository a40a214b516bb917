"""What is measured of the test images of a data set: by their scores, and by their maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from skanomaly import metrics
from skanomaly._typing import FloatArray, IntArray
from skanomaly.datasets import ImageSet

Curve = tuple[FloatArray, FloatArray]

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
    """Metrics of maps of images whose masks are all known, and the curve of overlap."""
    masks: Sequence[Any] = [test.load_mask(i) for i in range(len(test))]
    out = metrics.pixel_metrics(masks, maps)
    del out["pixel_f1_threshold"]
    if test.defects is not None:
        regions, areas = zip(*(test.load_regions(i) for i in range(len(test))), strict=True)
        out["auspro_0.05"] = metrics.auspro(regions, maps, areas)
    fpr, overlap, _ = metrics.pro_curve(masks, maps)
    return out, thinned(fpr, overlap)


def roc_of(y: IntArray, scores: FloatArray) -> Curve:
    """Share of the anomalous images against the share of the normal ones below each threshold."""
    fpr, recall, _ = roc_curve(y == -1, -scores)
    return thinned(fpr, recall)


def thinned(x: FloatArray, y: FloatArray, most: int = _MOST_POINTS) -> Curve:
    """At most so many points of an ascending curve, at even steps along it, with both ends."""
    if x.size <= most:
        return x, y
    length = np.append(0.0, np.cumsum(np.diff(x) + np.diff(y)))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)).clip(max=x.size - 1))
    kept[-1] = x.size - 1
    return x[kept], y[kept]
