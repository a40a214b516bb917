"""What all exact pixel metrics follow from: the defect pixels ranked among the normal ones.

Two numbers per defect pixel suffice: how many normal pixels score above it, and how many at least
as high. So only the values of normal pixels are sorted, and defect pixels looked up in them. The
area that a defect pixel adds under the curve between the two has a closed form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from skanomaly._typing import FloatArray, IntArray
from skanomaly.metrics._validation import (
    Map,
    Mask,
    check_pairs,
    compared_in,
    label_regions,
    threshold_between,
)

_CHUNK = 2**16  # defect pixels looked up at once: their temporaries stay in the cache


class RankedPixels(NamedTuple):
    """Values of the normal and of the defect pixels, both ascending; weights of the latter."""

    normal: FloatArray
    defect: FloatArray
    weights: Any  # None where regions do not count
    narrowest: np.dtype[Any]  # the least precise dtype of the maps, in which NumPy may compare


class Measured(NamedTuple):
    auroc: float
    average_precision: float
    f1_max: float
    f1_lowest: float  # the lowest score that is called a defect where F1 is best
    aupro: list[float]


def rank_pixels(
    masks: Iterable[ArrayLike], maps: Iterable[ArrayLike], regions: bool = True
) -> RankedPixels:
    """Sort the pixels' values; a defect pixel weighs ``1 / (pixels of its region * regions)``."""
    maps = list(maps)
    truth, found = check_pairs(masks, maps)
    values, labels, sizes, n_regions = [], [], [], 0
    for mask, heat_map in zip(truth, found, strict=True):
        values.append(heat_map[mask])
        if regions and values[-1].size:
            of_pixel, of_region = label_regions(mask)
            labels.append(of_pixel + np.int32(n_regions))
            sizes.append(of_region)
            n_regions += of_region.size
    normal = sorted_normal_pixels(truth, found)
    defect = np.concatenate(values, dtype=normal.dtype)
    if not defect.size:
        raise ValueError("undefined: no mask holds a defect pixel")
    # Of the maps as they were given: checking them widens half floats.
    dtypes = {compared_in(getattr(heat_map, "dtype", np.float64)) for heat_map in maps}
    narrowest = min(map(np.dtype, dtypes), key=lambda dtype: dtype.itemsize)
    if not regions:
        defect.sort()
        return RankedPixels(normal, defect, None, narrowest)
    order = np.argsort(defect)
    weights = (1 / n_regions / np.concatenate(sizes))[np.concatenate(labels)[order]]
    return RankedPixels(normal, defect[order], weights, narrowest)


def threshold_at(ranked: RankedPixels, lowest: float) -> float:
    """The threshold midway between a score and the next lower one of any pixel."""
    # As a scalar of their dtype: for a Python float NumPy would copy all values to float64.
    arrays = ranked.normal, ranked.defect
    places = [(values, np.searchsorted(values, values.dtype.type(lowest))) for values in arrays]
    below = [float(values[place - 1]) for values, place in places if place]
    return threshold_between(max(below), lowest, ranked.narrowest) if below else lowest


def sorted_normal_pixels(masks: list[Mask], maps: list[Map]) -> Map:
    """Values of all pixels outside the masks, ascending, in a dtype that fits all maps."""
    counts = [int(mask.size - np.count_nonzero(mask)) for mask in masks]
    if not sum(counts):
        raise ValueError(
            "undefined: every pixel lies in a mask, so there is no false-positive rate"
        )
    dtype = np.result_type(*{heat_map.dtype for heat_map in maps})
    normal, start = np.empty(sum(counts), dtype=dtype), 0
    for mask, heat_map, count in zip(masks, maps, counts, strict=True):
        normal[start : start + count] = heat_map.ravel() if count == mask.size else heat_map[~mask]
        start += count
    normal.sort()
    return normal


def count_normal(normal: Map, values: Map) -> tuple[IntArray, IntArray]:
    """How many of the ascending `normal` lie above each of `values`, and how many at or above."""
    below = np.searchsorted(normal, values)
    up_to = below.copy()
    # Ties are rare among floats, so the second search is for them alone.
    tied = normal[np.minimum(below, normal.size - 1)] == values
    up_to[tied] = np.searchsorted(normal, values[tied], side="right")
    return normal.size - up_to, normal.size - below


def partial_area(before: FloatArray, after: FloatArray, limit: float) -> FloatArray:
    """Area up to `limit` under a curve that rises from 0 at `before` to 1 at `after`."""
    area = np.where(after <= limit, limit - (before + after) / 2, 0.0)
    cut = np.flatnonzero((before < limit) & (after > limit))
    area[cut] = (limit - before[cut]) ** 2 / (2 * (after[cut] - before[cut]))
    return area


def measure(ranked: RankedPixels, limits: Sequence[float] = ()) -> Measured:
    """All metrics, in one pass over the defect pixels."""
    normal, defect, weights, _ = ranked
    pairs, precision, f1_max, f1_lowest = 0, 0.0, 0.0, np.nan
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
            f1_max, f1_lowest = float(f1[best]), float(values[best])
        before, after = above / normal.size, at_least / normal.size
        for index, limit in enumerate(limits):
            areas[index] += weights[part] @ partial_area(before, after, limit)
    return Measured(
        auroc=1 - pairs / (2 * normal.size * defect.size),
        average_precision=precision / defect.size,
        f1_max=f1_max,
        f1_lowest=f1_lowest,
        aupro=[min(float(area / limit), 1.0) for area, limit in zip(areas, limits, strict=True)],
    )
