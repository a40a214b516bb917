"""Exact pixel metrics: every distinct score is a threshold, and no curve is ever binned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from skanomaly._docstrings import document
from skanomaly._typing import FloatArray
from skanomaly.metrics._docstrings import METRIC_DOCS
from skanomaly.metrics._ranking import curve_of, measure, rank_pixels, threshold_at
from skanomaly.metrics._validation import Pairs, check_limits, check_max_fpr, check_threshold


@document(METRIC_DOCS)
def pixel_metrics(
    masks: Iterable[ArrayLike],
    maps: Iterable[ArrayLike],
    max_fpr: float | Sequence[float] = (0.3, 0.05),
) -> dict[str, float]:
    """AUROC, average precision, best F1 and AUPRO of anomaly maps, from one pass.

    Parameters
    ----------
    %(masks)s
    %(maps)s
    max_fpr : float or sequence of float, default=(0.3, 0.05)
        Limits of the false-positive rate, in (0, 1], one AUPRO for each.

    Returns
    -------
    dict of str to float
        `pixel_auroc`, `pixel_average_precision`, `pixel_f1_max`, and `aupro_0.3` and so on: each
        as by the function of its name; `pixel_f1_threshold` as by :func:`pixel_f1_max_threshold`.

    Raises
    ------
    %(pixel_errors)s

    Notes
    -----
    As all pixel metrics it takes sequences that make a mask or a map when they are asked for item
    `i`: a `collections.abc.Sequence` with ``__len__`` and ``__getitem__``, whose maps are of one
    dtype. Here masks, and maps of images with defects, are asked for twice, other maps once, the
    first mask and the first map once more, and none is kept. Memory grows with the distinct scores
    of defect pixels alone, by 52 bytes each at most; float32 has 8.4 million of these between a
    number and its double. Normal pixels are sorted and counted a block of 33 million at a time.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.metrics import pixel_metrics
    >>> maps = [np.array([[0.1, 0.9, 0.4]]), np.array([[0.3, 0.2]])]
    >>> masks = [np.array([[False, True, True]]), np.array([[False, False]])]
    >>> pixel_metrics(masks, maps, max_fpr=0.3)
    {'pixel_auroc': 1.0, 'pixel_average_precision': 1.0, 'pixel_f1_max': 1.0,
     'pixel_f1_threshold': 0.35, 'aupro_0.3': 1.0}
    """
    limits = check_limits(max_fpr)
    ranked = rank_pixels(masks, maps, neighbours=True)
    measured = measure(ranked, limits)
    return {
        "pixel_auroc": measured.auroc,
        "pixel_average_precision": measured.average_precision,
        "pixel_f1_max": measured.f1_max,
        "pixel_f1_threshold": threshold_at(ranked, measured.f1_lowest),
        **{f"aupro_{x:g}": area for x, area in zip(limits, measured.aupro, strict=True)},
    }


@document(METRIC_DOCS)
def pixel_auroc(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]) -> float:
    """Area under the ROC curve of pixels: the chance that a defect pixel outscores a normal one.

    Parameters
    ----------
    %(masks)s
    %(maps)s

    Returns
    -------
    float
        In [0, 1], over all pixels of all images; ties count one half.

    Raises
    ------
    %(pixel_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import pixel_auroc
    >>> pixel_auroc([[[False, True, False]]], [[[1.0, 2.0, 3.0]]])
    0.5
    """
    return measure(rank_pixels(masks, maps, regions=False)).auroc


@document(METRIC_DOCS)
def pixel_average_precision(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]) -> float:
    """Average precision of defect pixels (area under the step-wise precision-recall curve).

    Parameters
    ----------
    %(masks)s
    %(maps)s

    Returns
    -------
    float
        In (0, 1], over all pixels of all images, as scikit-learn's.

    Raises
    ------
    %(pixel_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import pixel_average_precision
    >>> pixel_average_precision([[[False, True, False]]], [[[1.0, 2.0, 3.0]]])
    0.5
    """
    return measure(rank_pixels(masks, maps, regions=False)).average_precision


@document(METRIC_DOCS)
def pixel_f1_max(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]) -> float:
    """The best F1 of defect pixels over all thresholds.

    Parameters
    ----------
    %(masks)s
    %(maps)s

    Returns
    -------
    float
        In (0, 1]. It knows the masks: a bound on what a threshold can do, not a result.

    Raises
    ------
    %(pixel_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import pixel_f1_max
    >>> pixel_f1_max([[[False, True, False, True]]], [[[1.0, 2.0, 3.0, 4.0]]])
    0.8
    """
    return measure(rank_pixels(masks, maps, regions=False)).f1_max


@document(METRIC_DOCS)
def pixel_f1_max_threshold(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]) -> float:
    """The threshold of the best F1 of defect pixels: a defect is where ``map >= threshold``.

    Parameters
    ----------
    %(masks)s
    %(maps)s

    Returns
    -------
    float
        In the unit of the maps: midway between the lowest score that is still called a defect and
        the next lower score of any pixel, the former itself where there is none. Of equally good
        ones the highest. It parts the pixels of maps of one dtype when they are compared in that
        dtype, as NumPy does; where dtypes are mixed, compare in the widest. It knows the masks, as
        :func:`pixel_f1_max` does.

    Raises
    ------
    %(pixel_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import pixel_f1_max_threshold
    >>> pixel_f1_max_threshold([[[False, True, False, True]]], [[[1.0, 2.0, 3.0, 4.0]]])
    1.5
    """
    ranked = rank_pixels(masks, maps, regions=False, neighbours=True)
    return threshold_at(ranked, measure(ranked).f1_lowest)


@document(METRIC_DOCS)
def aupro(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike], max_fpr: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, divided by it.

    The regions of all masks, connected at sides and corners, weigh the same, whatever their size
    and image. The false-positive rate is over all pixels outside the masks, of good images too.
    The curve starts at (0, 0), has a point for every distinct score, and is linear between them
    and up to the limit.

    Parameters
    ----------
    %(masks)s
    %(maps)s
    max_fpr : float, default=0.3
        The limit, in (0, 1]; MVTec AD reports 0.3, MVTec AD 2 0.05.

    Returns
    -------
    float
        In [0, 1]. A constant map has ``max_fpr / 2``.

    Raises
    ------
    %(pixel_errors)s

    References
    ----------
    .. [1] Bergmann, Batzner, Fauser, Sattlegger and Steger, "The MVTec Anomaly Detection Dataset:
       A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection", International
       Journal of Computer Vision 129, 2021.

    Examples
    --------
    >>> from skanomaly.metrics import aupro
    >>> aupro([[[True, False, True, False]]], [[[9.0, 7.0, 8.0, 1.0]]])
    1.0
    >>> aupro([[[True, False, True, False]]], [[[5.0, 5.0, 5.0, 5.0]]])
    0.15
    """
    return measure(rank_pixels(masks, maps), [check_max_fpr(max_fpr)]).aupro[0]


@document(METRIC_DOCS)
def pro_curve(
    masks: Iterable[ArrayLike], maps: Iterable[ArrayLike]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The per-region overlap against the false-positive rate.

    Parameters
    ----------
    %(masks)s
    %(maps)s

    Returns
    -------
    fpr : ndarray of shape (n_points,), float64
        Share of the pixels outside the masks with ``map >= threshold``; from 0 to 1.
    pro : ndarray of shape (n_points,), float64
        Share of a region with ``map >= threshold``, averaged over the regions; from 0 to 1.
    thresholds : ndarray of shape (n_points,), float64
        Decreasing, from infinity. Points on a straight line between their neighbours are left out.

    Raises
    ------
    %(pixel_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import pro_curve
    >>> fpr, pro, thresholds = pro_curve([[[True, False, True, False]]], [[[9, 7, 8, 1]]])
    >>> fpr, pro, thresholds
    (array([0., 0., 0., 1.]), array([0. , 0.5, 1. , 1. ]), array([inf,  9.,  8.,  1.]))
    """
    fpr, pro, thresholds = curve_of(rank_pixels(masks, maps, neighbours=True))
    assert thresholds is not None
    return fpr, pro, thresholds


def pro_curve_and_area(
    masks: Iterable[ArrayLike], maps: Iterable[ArrayLike], max_fpr: float
) -> tuple[FloatArray, FloatArray, float]:
    """Both of :func:`pro_curve`'s rates, and :func:`aupro` up to a limit, from one pass."""
    ranked = rank_pixels(masks, maps)
    fpr, pro, _ = curve_of(ranked)
    return fpr, pro, measure(ranked, [max_fpr]).aupro[0]


@document(METRIC_DOCS)
def pixel_iou(masks: Iterable[ArrayLike], maps: Iterable[ArrayLike], threshold: float) -> float:
    """Intersection over union of the masks and the pixels at or above a threshold.

    Parameters
    ----------
    %(masks)s
    %(maps)s
    threshold : float
        A pixel is called a defect where ``map >= threshold``, as by
        :func:`pixel_f1_max_threshold`. NaN is an error.

    Returns
    -------
    float
        In [0, 1], over all pixels of all images; ``F1 / (2 - F1)`` at the same threshold.

    Raises
    ------
    %(pixel_errors)s

    Examples
    --------
    >>> from skanomaly.metrics import pixel_iou
    >>> pixel_iou([[[False, True, False]]], [[[1.0, 2.0, 3.0]]], threshold=2.0)
    0.5
    """
    limit = check_threshold(threshold)
    pairs, n_defect, intersection, union = Pairs(masks, maps), 0, 0, 0
    for i in range(len(pairs)):
        mask = pairs.mask(i)
        found = pairs.heat_map(i, mask) >= limit
        n_defect += int(np.count_nonzero(mask))
        intersection += int(np.count_nonzero(found & mask))
        union += int(np.count_nonzero(found | mask))
    if not n_defect:
        raise ValueError("undefined: no mask holds a defect pixel")
    return intersection / union
