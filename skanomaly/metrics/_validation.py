"""What the pixel metrics take: pairs of a mask and a map, checked, and the regions of a mask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from skanomaly._masks import two_level
from skanomaly._typing import FloatArray, IntArray

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)

Mask = NDArray[np.bool_]
Map = NDArray[Any]


def check_pairs(
    masks: Iterable[ArrayLike | None], maps: Iterable[ArrayLike]
) -> tuple[list[Mask], list[Map]]:
    """Masks and anomaly maps as arrays, every one checked, and every mask against its map.

    Parameters
    ----------
    masks : sequence of array-like of shape (height, width), bool
        True where there is a defect; all False for a good image. Or integers, 0 and one other.
    maps : sequence of array-like of shape (height, width)
        Higher is more anomalous. Sizes may differ.

    Returns
    -------
    masks : list of ndarray of shape (height, width), bool
    maps : list of ndarray of shape (height, width)
        float32 or wider, or integers. Neither is copied where that can be avoided.

    Raises
    ------
    ValueError
        As :func:`check_maps`; when there are more or fewer masks than maps; when one is None, of
        more levels than two, or of another size than its map. The error names the image.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.metrics._validation import check_pairs
    >>> check_pairs([[[True, False]]], [[[0.5, 2.0]]])
    ([array([[ True, False]])], [array([[0.5, 2. ]])])
    """
    # Masks first: of arguments that are swapped, the message must not be about the maps.
    truth = [check_mask(mask, f"masks[{i}]", "(masks, maps)") for i, mask in enumerate(masks)]
    found = check_maps(maps)
    if len(truth) != len(found):
        raise ValueError(f"there are {len(found)} maps but {len(truth)} masks")
    for i, (mask, heat_map) in enumerate(zip(truth, found, strict=True)):
        check_same_size(mask, heat_map, f"masks[{i}]")
    return truth, found


def check_maps(maps: Iterable[ArrayLike]) -> list[Map]:
    """Anomaly maps as arrays, every one checked.

    Parameters
    ----------
    maps : sequence of array-like of shape (height, width)
        Higher is more anomalous. Sizes may differ.

    Returns
    -------
    list of ndarray of shape (height, width)
        Not copied where that can be avoided; float32 or wider, or integers.

    Raises
    ------
    ValueError
        When there is none, or one is not two-dimensional, empty, not of real numbers, NaN or
        infinite. The error names the image.

    Examples
    --------
    >>> from skanomaly.metrics._validation import check_maps
    >>> check_maps([[[0.5, 2.0]]])
    [array([[0.5, 2. ]])]
    """
    checked = [check_map(heat_map, f"maps[{index}]") for index, heat_map in enumerate(maps)]
    if not checked:
        raise ValueError("undefined: there is no map")
    return checked


def check_map(heat_map: ArrayLike, name: str) -> Map:
    """One anomaly map as an array; see :func:`check_maps`."""
    heat_map = np.asarray(heat_map)
    if heat_map.ndim != 2 or not heat_map.size:
        raise ValueError(f"{name} has shape {heat_map.shape}; a map is (height, width), not empty")
    if heat_map.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {heat_map.dtype}; a map is of real numbers")
    if heat_map.dtype.kind == "b":
        return heat_map.view(np.uint8)
    if heat_map.dtype.kind == "f":
        if not np.isfinite(heat_map).all():
            raise ValueError(f"{name} contains NaN or infinity")
        if heat_map.dtype.itemsize == 2:
            return heat_map.astype(np.float32)  # sorting half floats is slow
    return heat_map


def check_mask(mask: ArrayLike | None, name: str, order: str) -> Mask:
    """One mask, bool or of two levels, as bool; `order` is how the metric wants its arguments."""
    if mask is None:
        raise ValueError(
            f"{name} is None, so whether the image has defects is not known: leave the image out, "
            "or pass an all-False mask if it is good"
        )
    mask = np.asarray(mask)
    if mask.dtype.kind == "f":
        raise ValueError(
            f"{name} holds {mask.dtype}, as a map does; a mask is bool, and the order of the "
            f"arguments is {order}"
        )
    if mask.dtype.kind not in "biu":
        raise ValueError(f"{name} holds {mask.dtype}; a mask is bool, for example `mask != 0`")
    return mask if mask.dtype == bool else two_level(mask, name)


def check_same_size(mask: Mask, heat_map: Map, name: str) -> None:
    """ValueError where a mask and its map differ in shape."""
    if mask.shape != heat_map.shape:
        raise ValueError(f"{name} has shape {mask.shape}, but its map has {heat_map.shape}")


def label_regions(mask: Mask) -> tuple[NDArray[np.int32], IntArray]:
    """The connected regions of a mask, pixels touching at a corner included.

    Parameters
    ----------
    mask : ndarray of shape (height, width), bool
        True where there is a defect.

    Returns
    -------
    labels : ndarray of shape (n_defect_pixels,), int32
        Region of every defect pixel, from 0, in the order of ``map[mask]``.
    sizes : ndarray of shape (n_regions,), int64
        Pixels of every region.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.metrics._validation import label_regions
    >>> label_regions(np.array([[1, 0, 0, 1], [0, 1, 0, 1]], dtype=bool))
    (array([0, 1, 0, 1], dtype=int32), array([2, 2]))
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    # Only the box around the defects is labelled: it is most often a small part of the image.
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, n_regions = ndimage.label(box, structure=_EIGHT_CONNECTED, output=np.int32)
    labels = labels[box] - np.int32(1)
    return labels, np.bincount(labels, minlength=n_regions)


def check_threshold(threshold: float) -> FloatArray:
    """A threshold as an array of one float64, not NaN: NumPy would round a scalar to float32."""
    if np.isnan(threshold):
        raise ValueError("threshold is NaN")
    return np.array([threshold], dtype=np.float64)


def check_max_fpr(max_fpr: float) -> float:
    """A limit of the false-positive rate as a float in (0, 1]."""
    # True is 1.0 to Python, but whoever passes it means something else.
    if isinstance(max_fpr, (bool, np.bool_)) or not 0 < float(max_fpr) <= 1:
        raise ValueError(f"max_fpr must lie in (0, 1], got {max_fpr!r}")
    return float(max_fpr)


def check_limits(max_fpr: float | Iterable[float]) -> list[float]:
    """One limit of the false-positive rate, or several, as a list of floats in (0, 1]."""
    if isinstance(max_fpr, Iterable):
        return [check_max_fpr(limit) for limit in max_fpr]
    return [check_max_fpr(max_fpr)]


def threshold_between(low: float, high: float, dtype: Any = np.float64) -> float:
    """A threshold that parts two neighbouring scores: ``low < threshold <= high``.

    It is their midpoint, to which a new score that differs a little from one of them does not
    matter; `high` itself where rounding would bring the midpoint down to `low`.

    Parameters
    ----------
    low, high : float
        ``low < high``.
    dtype : dtype, default=float64
        Of the scores. NumPy compares an array of float32 with a number in float32, and one of
        float16 in float16, so the threshold must part them there.

    Returns
    -------
    float

    Examples
    --------
    >>> from skanomaly.metrics._validation import threshold_between
    >>> threshold_between(1.0, 2.0)
    1.5
    """
    with np.errstate(over="ignore"):  # of maps in several dtypes
        middle = float(compared_in(dtype)(np.float64(low) / 2 + np.float64(high) / 2))
    return middle if low < middle <= high else float(high)


def compared_in(dtype: Any) -> type[np.floating[Any]]:
    """The type in which NumPy compares an array of this dtype with a number of Python."""
    kind = np.dtype(dtype)
    return kind.type if kind.kind == "f" and kind.itemsize <= 8 else np.float64
