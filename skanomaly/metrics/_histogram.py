"""Approximate pixel metrics from histograms, for maps that do not fit in memory together."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from skanomaly._typing import FloatArray, IntArray
from skanomaly.metrics._ranking import partial_area
from skanomaly.metrics._validation import (
    check_limits,
    check_map,
    check_mask,
    check_same_size,
    label_regions,
)


class HistogramPixelMetrics:
    """Approximate AUROC, average precision, F1-max and AUPRO, one image at a time.

    The scores are rounded down to `n_bins` values between `low` and `high`, and the metrics are
    the exact ones of the rounded maps. Memory does not grow with the images: three histograms.

    Parameters
    ----------
    low, high : float
        All scores must lie in ``[low, high]``; ``low < high``.
    n_bins : int, default=65536
        From 1 to 2**24.

    Attributes
    ----------
    n_images_, n_regions_ : int
        Images counted so far, and the regions of their masks.

    Notes
    -----
    What is lost is the order of the pixels within a bin, so :meth:`error_bounds` can be, and is, a
    guarantee and not an estimate. With ``P`` defect pixels in all and ``p`` in a bin, ``N`` normal
    pixels and ``n`` in the bin, the AUROC is off by at most half the sum of
    ``(p / P) * (n / N)``; AUPRO by at most half the sum of the bins' share of the overlap times
    their share of the false-positive rate below the limit (all of it in the bin that holds the
    limit), divided by the limit. If all distinct scores lie in distinct bins, nothing is lost.

    Scores with heavy tails crowd in few bins: the bounds say so. Give the logarithm of the scores
    instead; no exact metric depends on it.

    Examples
    --------
    >>> from skanomaly.metrics import HistogramPixelMetrics
    >>> metrics = HistogramPixelMetrics(low=0.0, high=1.0)
    >>> for mask, heat_map in [([[False, True]], [[0.1, 0.9]]), ([[False, False]], [[0.3, 0.2]])]:
    ...     metrics.update(mask, heat_map)
    >>> metrics.compute(max_fpr=0.3)["approximate_aupro_0.3"]
    1.0
    >>> metrics.error_bounds(max_fpr=0.3)["approximate_aupro_0.3"]
    0.0
    """

    def __init__(self, low: float, high: float, n_bins: int = 65536) -> None:
        if not (1e-300 < high - low < np.inf):
            raise ValueError(f"low must be less than high, both finite; got {low} and {high}")
        if isinstance(n_bins, bool) or not isinstance(n_bins, Integral) or not 0 < n_bins <= 2**24:
            raise ValueError(f"n_bins must be an integer from 1 to 2**24, got {n_bins!r}")
        self.low: float = float(low)
        self.high: float = float(high)
        self.n_bins: int = int(n_bins)
        self.n_images_: int = 0
        self.n_regions_: int = 0
        self._all: IntArray = np.zeros(self.n_bins, dtype=np.int64)
        self._defect: IntArray = np.zeros(self.n_bins, dtype=np.int64)
        self._overlap: FloatArray = np.zeros(self.n_bins)

    def update(self, mask: ArrayLike, heat_map: ArrayLike) -> None:
        """Count one image.

        Parameters
        ----------
        mask : array-like of shape (height, width), bool
            True where there is a defect; all False for a good image. Or integers of two levels, 0
            and one other.
        heat_map : array-like of shape (height, width)
            Anomaly map; higher is more anomalous. All values in ``[low, high]``.

        Raises
        ------
        ValueError
            When a value lies outside the range or is NaN, when the sizes differ, or when the mask
            is None, of float, or of more levels than two. The image does not count then. The error
            names it by its number.
        """
        name = f"image {self.n_images_}: the "
        mask = check_mask(mask, name + "mask", "(mask, heat_map)")
        heat_map = check_map(heat_map, name + "map")
        check_same_size(mask, heat_map, name + "mask")
        bins = self._bins(heat_map, name + "map")
        self._all += np.bincount(bins.ravel(), minlength=self.n_bins)
        labels, sizes = label_regions(mask)
        if sizes.size:
            found = bins[mask]
            self._defect += np.bincount(found, minlength=self.n_bins)
            weights = (1 / sizes)[labels]
            self._overlap += np.bincount(found, weights=weights, minlength=self.n_bins)
        self.n_regions_ += sizes.size
        self.n_images_ += 1

    def compute(self, max_fpr: float | Sequence[float] = (0.3, 0.05)) -> dict[str, float]:
        """The metrics so far.

        Parameters
        ----------
        max_fpr : float or sequence of float, default=(0.3, 0.05)
            Limits of the false-positive rate, in (0, 1], one AUPRO for each.

        Returns
        -------
        dict of str to float
            `approximate_pixel_auroc`, `approximate_pixel_average_precision`,
            `approximate_pixel_f1_max`, and `approximate_aupro_0.3` and so on.

        Raises
        ------
        ValueError
            When no pixel or every pixel lies in a mask.
        """
        return {name: value for name, (value, _) in self._evaluate(max_fpr).items()}

    def error_bounds(self, max_fpr: float | Sequence[float] = (0.3, 0.05)) -> dict[str, float]:
        """How far each of the metrics can be from the exact one, whatever the maps.

        Parameters
        ----------
        max_fpr : float or sequence of float, default=(0.3, 0.05)
            As for :meth:`compute`.

        Returns
        -------
        dict of str to float
            For every name that :meth:`compute` returns, a bound of the absolute error, next to
            which the rounding of float64 is left out. The error itself is most often far smaller,
            as the pixels of a bin are in no particular order.

        Raises
        ------
        ValueError
            As :meth:`compute`.
        """
        return {name: bound for name, (_, bound) in self._evaluate(max_fpr).items()}

    def _bins(self, heat_map, name):
        """Bin of every pixel. Rounding may shift an edge, but never swaps the order of scores."""
        low, high = float(heat_map.min()), float(heat_map.max())
        if low < self.low or high > self.high:
            raise ValueError(
                f"{name} has values from {low} to {high}, outside the range "
                f"[{self.low}, {self.high}]"
            )
        scale = self.n_bins / (self.high - self.low)
        # Beyond 2**20 bins float32 could not tell neighbouring ones apart; nor must it overflow.
        narrow = heat_map.dtype == np.float32 and self.n_bins <= 2**20
        narrow = narrow and max(abs(self.low), abs(self.high), scale) < 1e30
        bins = np.subtract(heat_map, self.low, dtype=np.float32 if narrow else np.float64)
        bins *= scale
        return np.minimum(bins, self.n_bins - 1, out=bins).astype(np.intp)

    def _evaluate(self, max_fpr):
        """For each metric its value and its error bound."""
        limits = check_limits(max_fpr)
        used = np.flatnonzero(self._all)[::-1]
        defect, overlap = self._defect[used], self._overlap[used] / max(self.n_regions_, 1)
        normal = self._all[used] - defect
        n_defect, n_normal = int(defect.sum()), int(normal.sum())
        if not n_defect:
            raise ValueError("undefined: no mask holds a defect pixel")
        if not n_normal:
            raise ValueError(
                "undefined: every pixel lies in a mask, so there is no false-positive rate"
            )
        true, false = np.cumsum(defect), np.cumsum(normal)
        # In the worst order of a bin its normal pixels come first, in the best its defect pixels.
        precision, holds = true / (true + false), defect > 0
        least = (true - defect + 1)[holds]
        worst = least / (least + false[holds])
        best = true[holds] / (true + false - normal)[holds]
        off = np.maximum(precision[holds] - worst, best - precision[holds])
        f1 = (2 * true / (true + false + n_defect)).max()
        f1_best = (2 * true / (true + false - normal + n_defect)).max()
        before, after = (false - normal) / n_normal, false / n_normal
        results = {
            "pixel_auroc": (
                1 - float((defect / n_defect) @ ((before + after) / 2)),
                float((defect / n_defect) @ (normal / n_normal)) / 2,
            ),
            "pixel_average_precision": (
                float(defect @ precision) / n_defect,
                float(defect[holds] @ off) / n_defect,
            ),
            "pixel_f1_max": (float(f1), float(f1_best - f1)),
        }
        for limit in limits:
            area = partial_area(before, after, limit)
            off = np.where(after <= limit, (after - before) / 2, np.maximum(limit - before, 0))
            results[f"aupro_{limit:g}"] = (
                min(float(overlap @ area) / limit, 1.0),
                float(overlap @ off) / limit,
            )
        return {f"approximate_{name}": value for name, value in results.items()}
