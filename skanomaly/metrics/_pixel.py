"""Exact pixel metrics: every distinct score is a threshold, and no curve is ever binned.

All follow from two numbers per defect pixel: how many normal pixels score above it, and how many at
least as high. So only the values of normal pixels are sorted, and defect pixels looked up in them.
The area that a defect pixel adds under the curve between the two has a closed form.
"""

from typing import NamedTuple

import numpy as np

from skanomaly.metrics._validation import (
    check_maps,
    check_masks,
    check_max_fpr,
    check_threshold,
    label_regions,
)

_CHUNK = 2**16  # defect pixels looked up at once: their temporaries stay in the cache


def pixel_metrics(maps, masks, max_fpr=(0.3, 0.05)):
    """AUROC, average precision, best F1 and AUPRO of anomaly maps, from one sort.

    Parameters
    ----------
    maps : sequence of array-like of shape (height, width)
        Anomaly maps; higher is more anomalous. Sizes may differ between images.
    masks : sequence of array-like of shape (height, width), bool
        True where there is a defect; all False for a good image.
    max_fpr : float or sequence of float, default=(0.3, 0.05)
        Limits of the false-positive rate, in (0, 1], one AUPRO for each.

    Returns
    -------
    dict of str to float
        `pixel_auroc`, `pixel_average_precision`, `pixel_f1_max`, `pixel_f1_threshold`, and
        `aupro_0.3` and so on: each as by the function of its name.

    Raises
    ------
    ValueError
        When a metric is undefined, as no pixel or every pixel lies in a mask; when a map has NaN
        or infinity; when sizes differ, a mask is None or not bool. The error names the image.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.metrics import pixel_metrics
    >>> maps = [np.array([[0.1, 0.9, 0.4]]), np.array([[0.3, 0.2]])]
    >>> masks = [np.array([[False, True, True]]), np.array([[False, False]])]
    >>> pixel_metrics(maps, masks, max_fpr=0.3)
    {'pixel_auroc': 1.0, 'pixel_average_precision': 1.0, 'pixel_f1_max': 1.0,
     'pixel_f1_threshold': 0.4, 'aupro_0.3': 1.0}
    """
    limits = [check_max_fpr(limit) for limit in np.atleast_1d(max_fpr)]
    measured = _measure(_rank(maps, masks), limits)
    return {
        "pixel_auroc": measured.auroc,
        "pixel_average_precision": measured.average_precision,
        "pixel_f1_max": measured.f1_max,
        "pixel_f1_threshold": measured.f1_threshold,
        **{f"aupro_{x:g}": area for x, area in zip(limits, measured.aupro, strict=True)},
    }


def pixel_auroc(maps, masks):
    """Area under the ROC curve of pixels: the chance that a defect pixel outscores a normal one.

    Parameters
    ----------
    maps, masks : sequence of array-like of shape (height, width)
        See :func:`pixel_metrics`, which also lists the errors.

    Returns
    -------
    float
        In [0, 1], over all pixels of all images; ties count one half.

    Examples
    --------
    >>> from skanomaly.metrics import pixel_auroc
    >>> pixel_auroc([[[1.0, 2.0, 3.0]]], [[[False, True, False]]])
    0.5
    """
    return _measure(_rank(maps, masks, regions=False)).auroc


def pixel_average_precision(maps, masks):
    """Average precision of defect pixels (area under the step-wise precision-recall curve).

    Parameters
    ----------
    maps, masks : sequence of array-like of shape (height, width)
        See :func:`pixel_metrics`, which also lists the errors.

    Returns
    -------
    float
        In (0, 1], over all pixels of all images, as scikit-learn's.

    Examples
    --------
    >>> from skanomaly.metrics import pixel_average_precision
    >>> pixel_average_precision([[[1.0, 2.0, 3.0]]], [[[False, True, False]]])
    0.5
    """
    return _measure(_rank(maps, masks, regions=False)).average_precision


def pixel_f1_max(maps, masks):
    """The best F1 of defect pixels over all thresholds.

    Parameters
    ----------
    maps, masks : sequence of array-like of shape (height, width)
        See :func:`pixel_metrics`, which also lists the errors.

    Returns
    -------
    f1 : float
        In (0, 1]. It knows the masks: a bound on what a threshold can do, not a result.
    threshold : float
        The lowest score that is still called a defect, ``map >= threshold``; of equally good
        ones the highest.

    Examples
    --------
    >>> from skanomaly.metrics import pixel_f1_max
    >>> pixel_f1_max([[[1.0, 2.0, 3.0, 4.0]]], [[[False, True, False, True]]])
    (0.8, 2.0)
    """
    measured = _measure(_rank(maps, masks, regions=False))
    return measured.f1_max, measured.f1_threshold


def aupro(maps, masks, max_fpr=0.3):
    """Area under the per-region overlap curve up to a false-positive rate, divided by it.

    The regions of all masks, connected at sides and corners, weigh the same, whatever their size
    and image. The false-positive rate is over all pixels outside the masks, of good images too.
    The curve starts at (0, 0), has a point for every distinct score, and is linear between them
    and up to the limit.

    Parameters
    ----------
    maps, masks : sequence of array-like of shape (height, width)
        See :func:`pixel_metrics`, which also lists the errors.
    max_fpr : float, default=0.3
        The limit, in (0, 1]; MVTec AD reports 0.3, MVTec AD 2 0.05.

    Returns
    -------
    float
        In [0, 1]. A constant map has ``max_fpr / 2``.

    References
    ----------
    .. [1] Bergmann, Batzner, Fauser, Sattlegger and Steger, "The MVTec Anomaly Detection Dataset:
       A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection", International
       Journal of Computer Vision 129, 2021.

    Examples
    --------
    >>> from skanomaly.metrics import aupro
    >>> aupro([[[9.0, 7.0, 8.0, 1.0]]], [[[True, False, True, False]]])
    1.0
    >>> aupro([[[5.0, 5.0, 5.0, 5.0]]], [[[True, False, True, False]]])
    0.15
    """
    return _measure(_rank(maps, masks), [check_max_fpr(max_fpr)]).aupro[0]


def pro_curve(maps, masks):
    """The per-region overlap against the false-positive rate.

    Parameters
    ----------
    maps, masks : sequence of array-like of shape (height, width)
        See :func:`pixel_metrics`, which also lists the errors.

    Returns
    -------
    fpr : ndarray of shape (n_points,), float64
        Share of the pixels outside the masks with ``map >= threshold``; from 0 to 1.
    pro : ndarray of shape (n_points,), float64
        Share of a region with ``map >= threshold``, averaged over the regions; from 0 to 1.
    thresholds : ndarray of shape (n_points,), float64
        Decreasing, from infinity. Points on a straight line between their neighbours are left out.

    Examples
    --------
    >>> from skanomaly.metrics import pro_curve
    >>> fpr, pro, thresholds = pro_curve([[[9, 7, 8, 1]]], [[[True, False, True, False]]])
    >>> fpr, pro, thresholds
    (array([0., 0., 0., 1.]), array([0. , 0.5, 1. , 1. ]), array([inf,  9.,  8.,  1.]))
    """
    normal, defect, weights = _rank(maps, masks)
    first = np.flatnonzero(np.append(True, defect[1:] != defect[:-1]))
    values = defect[first][::-1]
    after = np.cumsum(np.add.reduceat(weights, first)[::-1])
    before = np.append(0.0, after[:-1])
    above, at_least = count_normal(normal, values)
    # The curve is flat from one value of the defect pixels to just above the next, and straight
    # from there: two points each. The former is the threshold at the next normal pixel above.
    next_normal = np.append(normal.astype(np.float64), np.inf)[normal.size - above]
    keep = np.append([True], np.stack([above > np.append(0, at_least[:-1]), above >= 0], 1))
    end = [1.0] if at_least[-1] < normal.size else []
    fpr = np.concatenate([[0.0], np.stack([above, at_least], 1).ravel() / normal.size])[keep]
    pro = np.concatenate([[0.0], np.stack([before, after], 1).ravel() / after[-1]])[keep]
    thresholds = np.concatenate([[np.inf], np.stack([next_normal, values], 1).ravel()])[keep]
    lowest = [float(normal[0])] * len(end)
    return np.append(fpr, end), np.append(pro, end), np.append(thresholds, lowest)


def pixel_iou(maps, masks, threshold):
    """Intersection over union of the masks and the pixels at or above a threshold.

    Parameters
    ----------
    maps, masks : sequence of array-like of shape (height, width)
        See :func:`pixel_metrics`, which also lists the errors.
    threshold : float
        A pixel is called a defect where ``map >= threshold``, as by :func:`pixel_f1_max`. NaN is
        an error.

    Returns
    -------
    float
        In [0, 1], over all pixels of all images; ``F1 / (2 - F1)`` at the same threshold.

    Examples
    --------
    >>> from skanomaly.metrics import pixel_iou
    >>> pixel_iou([[[1.0, 2.0, 3.0]]], [[[False, True, False]]], threshold=2.0)
    0.5
    """
    threshold = check_threshold(threshold)
    maps = check_maps(maps)
    masks = check_masks(masks, maps)
    if not any(mask.any() for mask in masks):
        raise ValueError("undefined: no mask holds a defect pixel")
    pairs = [(pixels >= threshold, mask) for pixels, mask in zip(maps, masks, strict=True)]
    intersection = sum(int(np.count_nonzero(found & mask)) for found, mask in pairs)
    return intersection / sum(int(np.count_nonzero(found | mask)) for found, mask in pairs)


class _Ranked(NamedTuple):
    """Values of the normal and of the defect pixels, both ascending, and the latters' weights."""

    normal: np.ndarray
    defect: np.ndarray
    weights: np.ndarray | None


class _Measured(NamedTuple):
    auroc: float
    average_precision: float
    f1_max: float
    f1_threshold: float
    aupro: list


def _rank(maps, masks, regions=True):
    """Sort the pixels' values; a defect pixel weighs ``1 / (pixels of its region * regions)``."""
    maps = check_maps(maps)
    masks = check_masks(masks, maps)
    values, labels, sizes, n_regions = [], [], [], 0
    for pixels, mask in zip(maps, masks, strict=True):
        values.append(pixels[mask])
        if regions and values[-1].size:
            of_pixel, of_region = label_regions(mask)
            labels.append(of_pixel + np.int32(n_regions))
            sizes.append(of_region)
            n_regions += of_region.size
    normal = sorted_normal_pixels(maps, masks)
    defect = np.concatenate(values, dtype=normal.dtype)
    if not defect.size:
        raise ValueError("undefined: no mask holds a defect pixel")
    if not regions:
        defect.sort()
        return _Ranked(normal, defect, None)
    order = np.argsort(defect)
    weights = (1 / n_regions / np.concatenate(sizes))[np.concatenate(labels)[order]]
    return _Ranked(normal, defect[order], weights)


def sorted_normal_pixels(maps, masks):
    """Values of all pixels outside the masks, ascending, in a dtype that fits all maps."""
    counts = [mask.size - np.count_nonzero(mask) for mask in masks]
    if not sum(counts):
        raise ValueError(
            "undefined: every pixel lies in a mask, so there is no false-positive rate"
        )
    dtype = np.result_type(*{pixels.dtype for pixels in maps})
    normal, start = np.empty(sum(counts), dtype=dtype), 0
    for pixels, mask, count in zip(maps, masks, counts, strict=True):
        normal[start : start + count] = pixels.ravel() if count == mask.size else pixels[~mask]
        start += count
    normal.sort()
    return normal


def count_normal(normal, values):
    """How many of the ascending `normal` lie above each of `values`, and how many at or above."""
    below = np.searchsorted(normal, values)
    up_to = below.copy()
    # Ties are rare among floats, so the second search is for them alone.
    tied = normal[np.minimum(below, normal.size - 1)] == values
    up_to[tied] = np.searchsorted(normal, values[tied], side="right")
    return normal.size - up_to, normal.size - below


def partial_area(before, after, limit):
    """Area up to `limit` under a curve that rises from 0 at `before` to 1 at `after`."""
    area = np.where(after <= limit, limit - (before + after) / 2, 0.0)
    cut = np.flatnonzero((before < limit) & (after > limit))
    area[cut] = (limit - before[cut]) ** 2 / (2 * (after[cut] - before[cut]))
    return area


def _measure(ranked, limits=()):
    """All metrics, in one pass over the defect pixels."""
    normal, defect, weights = ranked
    pairs, precision, f1_max, f1_threshold = 0, 0.0, 0.0, np.nan
    areas = np.zeros(len(limits))
    for start in range(0, defect.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        values = defect[part]
        above, at_least = count_normal(normal, values)
        # Twice the pairs that a defect pixel loses, ties counted once: integers, hence exact.
        pairs += int(above.sum()) + int(at_least.sum())
        found = defect.size - np.searchsorted(defect, values)
        precision += float((found / (found + at_least)).sum())
        f1 = 2 * found / (found + at_least + defect.size)
        best = f1.size - 1 - int(f1[::-1].argmax())
        if f1[best] >= f1_max:
            f1_max, f1_threshold = float(f1[best]), float(values[best])
        before, after = above / normal.size, at_least / normal.size
        for index, limit in enumerate(limits):
            areas[index] += weights[part] @ partial_area(before, after, limit)
    return _Measured(
        auroc=1 - pairs / (2 * normal.size * defect.size),
        average_precision=precision / defect.size,
        f1_max=f1_max,
        f1_threshold=f1_threshold,
        aupro=[min(float(area / limit), 1.0) for area, limit in zip(areas, limits, strict=True)],
    )
