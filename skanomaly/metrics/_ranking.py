"""What all exact pixel metrics follow from: the scores of defect pixels among the normal ones.

Two numbers per distinct score of a defect pixel suffice: how many normal pixels score above it, and
how many at least as high. The area that a defect pixel adds under the curve between the two has a
closed form.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from skanomaly._typing import FloatArray
from skanomaly.metrics._streaming import CHUNK, DefectScores, NormalCounts, count_among
from skanomaly.metrics._validation import Pairs, label_regions, threshold_between


class RankedPixels(NamedTuple):
    """The distinct scores of the defect pixels, ascending, and the normal pixels around each."""

    defect: DefectScores
    normal: NormalCounts
    n_regions: int
    narrowest: np.dtype[Any]  # the least precise dtype of the maps, in which NumPy may compare


class Measured(NamedTuple):
    auroc: float
    average_precision: float
    f1_max: float
    f1_lowest: float  # the lowest score that is called a defect where F1 is best
    aupro: list[float]


def rank_pixels(
    masks: Iterable[ArrayLike | None],
    maps: Iterable[ArrayLike],
    regions: bool = True,
    neighbours: bool = False,
) -> RankedPixels:
    """Count the normal pixels above each score of a defect pixel.

    Masks, and maps of images with defects, are asked for twice, other maps once; the first ones
    once more.

    Parameters
    ----------
    masks, maps : iterable
        As for :class:`~skanomaly.metrics._validation.Pairs`.
    regions : bool, default=True
        Whether a defect pixel weighs ``1 / pixels of its region``.
    neighbours : bool, default=False
        Whether the nearest scores of normal pixels are wanted too.

    Returns
    -------
    RankedPixels
    """
    pairs = Pairs(masks, maps)
    defect, with_defects, n_regions = _defect_pixels(pairs, regions)
    normal = count_among(_normal_pixels(pairs, with_defects), defect.values, neighbours)
    return RankedPixels(defect, normal, n_regions, pairs.maps.narrowest)


def _defect_pixels(pairs, regions):
    """Scores of the defect pixels, the images that have some, and the number of regions."""
    defect, with_defects, n_regions = DefectScores(pairs.maps.dtype, regions), set(), 0
    for i in range(len(pairs)):
        mask = pairs.mask(i)
        if not mask.any():
            continue
        with_defects.add(i)
        weights = np.empty(0)
        if regions:
            labels, sizes = label_regions(mask)
            weights, n_regions = (1 / sizes)[labels], n_regions + sizes.size
        defect.add(pairs.heat_map(i, mask)[mask], weights)
    if not with_defects:
        raise ValueError("undefined: no mask holds a defect pixel")
    defect.settle()
    return defect, with_defects, n_regions


def _normal_pixels(pairs, with_defects):
    """The normal pixels of each image."""
    for i in range(len(pairs)):
        mask = pairs.mask(i)
        heat_map = pairs.heat_map(i, mask)
        yield heat_map[~mask] if i in with_defects else heat_map


def threshold_at(ranked: RankedPixels, lowest: float) -> float:
    """The threshold midway between a score and the next lower one of any pixel."""
    values, below = ranked.defect.values, ranked.normal.next_below
    assert below is not None
    # As a scalar of their dtype: for a Python float NumPy would copy all values to float64.
    place = int(np.searchsorted(values, values.dtype.type(lowest)))
    low = max(float(below[place]), float(values[place - 1]) if place else -np.inf)
    return lowest if low == -np.inf else threshold_between(low, lowest, ranked.narrowest)


def partial_area(before: FloatArray, after: FloatArray, limit: float) -> FloatArray:
    """Area up to `limit` under a curve that rises from 0 at `before` to 1 at `after`."""
    area = np.where(after <= limit, limit - (before + after) / 2, 0.0)
    cut = np.flatnonzero((before < limit) & (after > limit))
    area[cut] = (limit - before[cut]) ** 2 / (2 * (after[cut] - before[cut]))
    return area


def measure(ranked: RankedPixels, limits: Sequence[float] = ()) -> Measured:
    """All metrics, in one pass over the distinct scores of the defect pixels."""
    values, counts, weights = ranked.defect.values, ranked.defect.counts, ranked.defect.weights
    normal, n_defect = ranked.normal, int(ranked.defect.counts.sum())
    pairs, precision, f1_max, f1_lowest, left = 0, 0.0, 0.0, np.nan, n_defect
    areas = np.zeros(len(limits))
    for start in range(0, values.size, CHUNK):
        part = slice(start, start + CHUNK)
        count, above, at_least = counts[part], normal.above[part], normal.at_least[part]
        # Twice the pairs that a defect pixel loses, ties counted once: integers, hence exact.
        pairs += int(count @ above) + int(count @ at_least)
        found = left - np.cumsum(count) + count
        left -= int(count.sum())
        precision += float((count * (found / (found + at_least))).sum())
        f1 = 2 * found / (found + at_least + n_defect)
        best = f1.size - 1 - int(f1[::-1].argmax())
        if f1[best] >= f1_max:
            f1_max, f1_lowest = float(f1[best]), float(values[part][best])
        if weights.size:
            before, after = above / normal.n_pixels, at_least / normal.n_pixels
            for index, limit in enumerate(limits):
                areas[index] += weights[part] @ partial_area(before, after, limit)
    overlaps = areas / max(ranked.n_regions, 1)
    return Measured(
        auroc=1 - pairs / (2 * normal.n_pixels * n_defect),
        average_precision=precision / n_defect,
        f1_max=f1_max,
        f1_lowest=f1_lowest,
        aupro=[min(float(area / limit), 1.0) for area, limit in zip(overlaps, limits, strict=True)],
    )


def curve_of(
    ranked: RankedPixels, most: int | None = None
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    """The per-region overlap against the false-positive rate, from (0, 0) to (1, 1).

    Parameters
    ----------
    ranked : RankedPixels
        With weights.
    most : int or None, default=None
        At most so many points, at even steps along both axes, each of them exact; None: all.

    Returns
    -------
    fpr, pro : ndarray of shape (n_points,), float64
        Points on a straight line between their neighbours are left out.
    thresholds : ndarray of shape (n_points,), float64, or None
        Decreasing, from infinity; None where `ranked` has no neighbours.
    """
    normal, weights = ranked.normal, ranked.defect.weights
    above, at_least, values = normal.above[::-1], normal.at_least[::-1], ranked.defect.values[::-1]
    next_above = None if normal.next_above is None else normal.next_above[::-1]
    after = np.cumsum(weights[::-1])
    total = after[-1]
    kept: Any = slice(None)
    if most is not None and 2 * values.size + 2 > most:  # each gives two points
        steps = np.linspace(0, 1, (most - 4) // 4)
        steps_along = (at_least, steps * at_least[-1]), (after, steps * total)
        places = [np.searchsorted(reached, at) for reached, at in steps_along]
        kept = np.unique([*places, np.full(len(steps), values.size - 1)])
    before = np.append(0.0, after[:-1])[kept]
    is_flat = (above > np.append(0, at_least[:-1]))[kept]
    above, at_least, after, values = above[kept], at_least[kept], after[kept], values[kept]
    # The curve is flat from one value of the defect pixels to just above the next, and straight
    # from there: two points each. The former is the threshold at the next normal pixel above.
    keep = np.append([True], np.stack([is_flat, np.ones_like(is_flat)], 1))
    end = [1.0] if at_least[-1] < normal.n_pixels else []
    fpr = np.concatenate([[0.0], np.stack([above, at_least], 1).ravel() / normal.n_pixels])[keep]
    pro = np.concatenate([[0.0], np.stack([before, after], 1).ravel() / total])[keep]
    if next_above is None:
        return np.append(fpr, end), np.append(pro, end), None
    levels = np.stack([next_above[kept], values.astype(np.float64)], 1).ravel()
    thresholds = np.append(np.inf, levels)[keep]
    return (
        np.append(fpr, end),
        np.append(pro, end),
        np.append(thresholds, [normal.lowest] * len(end)),
    )
