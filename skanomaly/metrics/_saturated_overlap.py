"""Saturated per-region overlap, the localization metric of MVTec LOCO AD.

Where a part is missing, no pixel in particular is wrong: the annotation marks all places where the
part could have been, and a detector is done once it has marked as much area as the part covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from skanomaly.metrics._ranking import partial_area
from skanomaly.metrics._streaming import DefectScores, count_among
from skanomaly.metrics._validation import (
    Map,
    Maps,
    Mask,
    check_mask,
    check_max_fpr,
    check_same_size,
    check_threshold,
)


def spro(
    regions: Iterable[Sequence[ArrayLike]],
    maps: Iterable[ArrayLike],
    saturation: Iterable[Sequence[float] | None] | None,
    threshold: float,
) -> float:
    """Saturated per-region overlap at a threshold, averaged over the regions.

    Parameters
    ----------
    regions : sequence of array-like of shape (n_regions, height, width), bool
        One mask for each annotated defect of the image, none for a good image. A mask need not be
        connected, and masks may overlap.
    maps : sequence of array-like of shape (height, width)
        Anomaly maps; higher is more anomalous. Sizes may differ between images.
    saturation : sequence of sequence of float, or None
        For each region the area in pixels, above 0, from which it counts as found in full. More
        than the area of the region means just that; so does None, for all regions.
    threshold : float
        A pixel is called a defect where ``map > threshold``, strictly, as published.

    Returns
    -------
    float
        In [0, 1]: the mean of ``min(pixels found / saturation, 1)``.

    Raises
    ------
    ValueError
        When there is no region at all, or one is empty; when a map has NaN or infinity; when
        numbers or sizes differ, or a mask is neither bool nor integers of two levels, such as where
        regions and maps are swapped.
        The error names the image.

    References
    ----------
    .. [1] Bergmann, Batzner, Fauser, Sattlegger and Steger, "Beyond Dents and Scratches: Logical
       Constraints in Unsupervised Anomaly Detection and Localization", International Journal of
       Computer Vision 130, 2022.

    Examples
    --------
    >>> from skanomaly.metrics import spro
    >>> maps, regions = [[[1.0, 2.0, 3.0, 4.0]]], [[[[True, True, True, False]]]]
    >>> spro(regions, maps, [[2]], threshold=2.0)
    0.5
    >>> spro(regions, maps, [[2]], threshold=1.0)
    1.0
    """
    limit = check_threshold(threshold)
    images = _Regions(regions, maps, saturation)
    found = []
    for i in range(len(images)):
        marked, heat_map = images.pair(i, images.masks(i))
        for mask, area in marked:
            found.append(min(np.count_nonzero(heat_map[mask] > limit) / area, 1.0))
    return float(np.mean(found)) if found else _no_region()


def auspro(
    regions: Iterable[Sequence[ArrayLike]],
    maps: Iterable[ArrayLike],
    saturation: Iterable[Sequence[float] | None] | None,
    max_fpr: float = 0.05,
) -> float:
    """Area under the curve of saturated per-region overlap up to a false-positive rate.

    As :func:`skanomaly.metrics.aupro`, of which it is the generalization: every distinct score is
    a threshold, the false-positive rate is over the pixels outside all regions, of good images
    too, and the area is divided by the limit.

    Parameters
    ----------
    regions : sequence of array-like of shape (n_regions, height, width), bool
        See :func:`spro`, which also lists the errors.
    maps : sequence of array-like of shape (height, width)
        Anomaly maps; higher is more anomalous.
    saturation : sequence of sequence of float, or None
        For each region the area in pixels, above 0, from which it counts as found in full.
    max_fpr : float, default=0.05
        The limit, in (0, 1]; MVTec LOCO AD reports 0.05.

    Returns
    -------
    float
        In [0, 1].

    Examples
    --------
    >>> from skanomaly.metrics import auspro
    >>> maps, regions = [[[9.0, 8.0, 1.0, 5.0]]], [[[[True, True, True, False]]]]
    >>> auspro(regions, maps, [[2]])
    1.0
    >>> round(auspro(regions, maps, None), 3)  # the third pixel scores below the normal one
    0.667
    """
    limit = check_max_fpr(max_fpr)
    images = _Regions(regions, maps, saturation)
    defect, with_regions, n_regions = _region_pixels(images)
    normal = count_among(_normal_pixels(images, with_regions), defect.values)
    before, after = normal.above / normal.n_pixels, normal.at_least / normal.n_pixels
    total = defect.weights @ partial_area(before, after, limit)
    return min(float(total / n_regions / limit), 1.0)


def _region_pixels(images):
    """Scores of pixels by what their regions gain, the images with regions, and their number."""
    defect, with_regions, n_regions = DefectScores(images.maps.dtype, weighted=True), set(), 0
    for i in range(len(images)):
        masks = images.masks(i)
        if not masks:
            continue
        with_regions.add(i)
        n_regions += len(masks)
        marked, heat_map = images.pair(i, masks)
        for mask, area in marked:
            values = np.sort(heat_map[mask])[::-1]
            # What the region gains with its 1st, 2nd, ... highest pixel. Ties share their sum.
            gains = np.diff(np.minimum(np.arange(values.size + 1) / area, 1.0))
            n_gaining = np.count_nonzero(gains > 0)
            defect.add(values[:n_gaining], gains[:n_gaining])
    if not n_regions:
        _no_region()
    defect.settle()
    return defect, with_regions, n_regions


def _normal_pixels(images, with_regions):
    """The pixels of each image outside all of its regions."""
    for i in range(len(images)):
        marked, heat_map = images.pair(i, images.masks(i) if i in with_regions else [])
        if i in with_regions:
            yield heat_map[~np.logical_or.reduce([mask for mask, _ in marked])]
        else:
            yield heat_map


def _no_region():
    raise ValueError("undefined: no image has a region")


class _Regions:
    """Regions with their saturation areas and maps, those of an image checked when asked for."""

    def __init__(
        self,
        regions: Iterable[Sequence[ArrayLike]],
        maps: Iterable[ArrayLike],
        saturation: Iterable[Sequence[float] | None] | None,
    ) -> None:
        self._regions = regions if isinstance(regions, Sequence) else list(regions)
        if len(self._regions):
            self.masks(0)  # of arguments that are swapped, the message must not be about the maps
        self.maps = Maps(maps)
        self._areas = [None] * len(self.maps) if saturation is None else list(saturation)
        for argument, given in (("regions", self._regions), ("saturation", self._areas)):
            if len(given) != len(self.maps):
                raise ValueError(
                    f"there are {len(self.maps)} maps but {argument} of {len(given)} images"
                )

    def __len__(self) -> int:
        return len(self.maps)

    def pair(self, i: int, masks: list[Mask]) -> tuple[list[tuple[Mask, float]], Map]:
        """Image `i`: its masks, each with its saturation area in pixels, and its map."""
        areas, heat_map = self._areas[i], self.maps[i]
        areas = [np.inf] * len(masks) if areas is None else list(areas)
        if len(areas) != len(masks):
            raise ValueError(f"regions[{i}] has {len(masks)} masks, but {len(areas)} areas")
        marked = []
        for number, (mask, area) in enumerate(zip(masks, areas, strict=True)):
            name = f"regions[{i}][{number}]"
            check_same_size(mask, heat_map, name)
            if not mask.any():
                raise ValueError(f"{name} is empty; a good image has no regions")
            if not area > 0:
                raise ValueError(f"the saturation of {name} must be above 0, got {area}")
            marked.append((mask, min(float(area), float(np.count_nonzero(mask)))))
        return marked, heat_map

    def masks(self, i: int) -> list[Mask]:
        """The masks of image `i`."""
        masks = self._regions[i]
        if masks is None:
            check_mask(None, f"regions[{i}]", "(regions, maps)")
        return [
            check_mask(mask, f"regions[{i}][{number}]", "(regions, maps)")
            for number, mask in enumerate(masks)
        ]
