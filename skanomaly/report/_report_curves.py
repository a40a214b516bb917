"""The curves of a report, as short lists of points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from skanomaly._images import image_size
from skanomaly._typing import ArrayLike, FloatArray
from skanomaly.core.maps import upsample_map
from skanomaly.datasets import ImageSet
from skanomaly.metrics import HistogramPixelMetrics

_MOST_POINTS = 400

Curve = dict[str, list[float]]


def image_roc(y: NDArray[Any], scores: FloatArray) -> Curve:
    """The ROC curve of images.

    Parameters
    ----------
    y : ndarray of shape (n_images,)
        +1 normal, -1 anomalous; both are there.
    scores : ndarray of shape (n_images,)
        Higher is more normal.

    Returns
    -------
    dict of str to list of float
        `x`, the share of normal images flagged, and `y`, that of anomalous ones.
    """
    false, true, _ = roc_curve(y == -1, -scores)
    return _thinned(false, true)


def pro_curve_of(test: ImageSet, grids: Iterable[FloatArray], sigma: float = 4.0) -> Curve | None:
    """The per-region overlap of the maps of test images, one image in memory at a time.

    Parameters
    ----------
    test : ImageSet
        With the masks of all anomalous images; else there is no curve.
    grids : iterable of ndarray of shape (grid_h, grid_w)
        Patch scores of the images.
    sigma : float, default=4.0
        Of the maps, in pixels of the image.

    Returns
    -------
    dict of str to list of float, or None
        `x`, the share of pixels flagged outside of the masks, and `y`, the overlap.
    """
    unknown = any(label == -1 and mask is None for label, mask in zip(test.y, test.masks))
    grids = list(grids)
    low = min(float(grid.min()) for grid in grids)
    high = max(float(grid.max()) for grid in grids)
    if unknown or not low < high:
        return None
    # Heights of a curve on the screen: 65,536 levels of the maps are more than it has pixels.
    measured = HistogramPixelMetrics(low, np.nextafter(high, np.inf))
    for i, grid in enumerate(grids):
        heat_map = upsample_map(grid, image_size(test.images[i]), sigma)
        measured.update(test.load_mask(i), np.clip(heat_map, low, high))
    false, overlap = measured.pro_curve()
    return _thinned(false, overlap)


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
    dict of str to list of float
        For the threshold at the i-th lowest of the `n` held-out scores: `x`, the nominal share
        ``i / (n + 1)``, and `y`, the share of the good images below it.
    """
    levels = np.sort(np.asarray(train_scores, dtype=np.float64))
    nominal = np.arange(1, levels.size + 1) / (levels.size + 1)
    actual = np.searchsorted(np.sort(good_scores), levels, side="left") / good_scores.size
    return _thinned(nominal, actual)


def _thinned(x, y):
    """Few points of a rising curve: one for each step that can be seen, the ends always."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.size > _MOST_POINTS:
        # Of equal length along the curve, so that steep parts keep their points.
        along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        wanted = np.linspace(0, along[-1], _MOST_POINTS)
        keep = np.unique(np.append(np.searchsorted(along, wanted), x.size - 1))
        x, y = x[keep.clip(0, x.size - 1)], y[keep.clip(0, x.size - 1)]
    return {"x": [round(float(v), 5) for v in x], "y": [round(float(v), 5) for v in y]}
