"""What the pixel metrics take: pairs of a mask and a map, checked, and the regions of a mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from skanomaly._masks import two_level
from skanomaly._typing import FloatArray, IntArray

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)

Mask = NDArray[np.bool_]
Map = NDArray[Any]


class Maps:
    """Anomaly maps that can be gone through more than once; each is checked when it is asked for.

    Parameters
    ----------
    maps : iterable of array-like of shape (height, width)
        Higher is more anomalous. Sizes may differ. A `Sequence` other than a list or a tuple may
        make a map when it is asked for it: nothing is kept of it here.

    Attributes
    ----------
    dtype : dtype
        That fits the checked maps.
    narrowest : dtype
        The least precise one in which NumPy may compare a map with a number.

    Examples
    --------
    >>> from skanomaly.metrics._validation import Maps
    >>> maps = Maps([[[0.5, 2.0]]])
    >>> len(maps), maps[0]
    (1, array([[0.5, 2. ]]))
    """

    def __init__(self, maps: Iterable[ArrayLike]) -> None:
        stacked = isinstance(maps, np.ndarray) and maps.dtype != object
        listed = isinstance(maps, (list, tuple)) or not isinstance(maps, Sequence)
        kept: Any = maps if stacked or not listed else [np.asarray(m) for m in maps]
        self._maps = kept
        if not len(kept):
            raise ValueError("undefined: there is no map")
        dtypes = {np.asarray(m).dtype for m in (kept if listed and not stacked else [kept[0]])}
        self.narrowest = min(
            (np.dtype(compared_in(dtype)) for dtype in dtypes), key=lambda dtype: dtype.itemsize
        )
        checked = [_checked_dtype(dtype) for dtype in dtypes if dtype.kind in "biuf"]
        self.dtype: np.dtype[Any] = np.result_type(*checked or [np.float64])

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, i: int) -> Map:
        name = f"maps[{i}]"
        heat_map = check_map(self._maps[i], name)
        if np.result_type(heat_map.dtype, self.dtype) != self.dtype:
            raise ValueError(
                f"{name} holds {heat_map.dtype}, but maps[0] {self.dtype}: maps that are made when "
                "they are asked for must be of one dtype"
            )
        return heat_map


class Pairs:
    """Masks with their maps, each pair checked when it is asked for.

    Parameters
    ----------
    masks : iterable of array-like of shape (height, width), bool
        True where there is a defect; all False for a good image. Or integers, 0 and one other.
    maps : iterable of array-like of shape (height, width)
        As for :class:`Maps`.

    Raises
    ------
    ValueError
        When there are more or fewer masks than maps; when a map that is asked for is not
        two-dimensional, empty, not of real numbers, NaN or infinite; when a mask is None, of more
        levels than two, or of another size than its map. The error names the image.

    Examples
    --------
    >>> from skanomaly.metrics._validation import Pairs
    >>> pairs = Pairs([[[True, False]]], [[[0.5, 2.0]]])
    >>> pairs.mask(0), pairs.heat_map(0)
    (array([[ True, False]]), array([[0.5, 2. ]]))
    """

    def __init__(self, masks: Iterable[ArrayLike | None], maps: Iterable[ArrayLike]) -> None:
        self._masks: Any = masks if isinstance(masks, (Sequence, np.ndarray)) else list(masks)
        if len(self._masks):
            self.mask(0)  # of arguments that are swapped, the message must not be about the maps
        self.maps = Maps(maps)
        if len(self._masks) != len(self.maps):
            raise ValueError(f"there are {len(self.maps)} maps but {len(self._masks)} masks")

    def __len__(self) -> int:
        return len(self.maps)

    def mask(self, i: int) -> Mask:
        """The mask of image `i`."""
        return check_mask(self._masks[i], f"masks[{i}]", "(masks, maps)")

    def heat_map(self, i: int, mask: Mask | None = None) -> Map:
        """The map of image `i`, of the size of its mask if that is given."""
        heat_map = self.maps[i]
        if mask is not None:
            check_same_size(mask, heat_map, f"masks[{i}]")
        return heat_map


def check_map(heat_map: ArrayLike, name: str) -> Map:
    """One anomaly map as an array: float32 or wider, or integers; not copied if it can be avoided.

    ValueError where it is not two-dimensional, empty, not of real numbers, NaN or infinite.
    """
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


def _checked_dtype(dtype):
    """The dtype of a map that :func:`check_map` returns."""
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype == np.float16 else dtype


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
