"""Saturated per-region overlap, the localization metric of MVTec LOCO AD.

Where a part is missing, no pixel in particular is wrong: the annotation marks all places where the
part could have been, and a detector is done once it has marked as much area as the part covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from skanomaly.metrics._ranking import count_normal, partial_area, sorted_normal_pixels
from skanomaly.metrics._validation import (
    check_maps,
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
    images, heat_maps = _check_regions(regions, maps, saturation)
    found = [
        min(np.count_nonzero(heat_map[region] > limit) / area, 1.0)
        for image, heat_map in zip(images, heat_maps, strict=True)
        for region, area in image
    ]
    return float(np.mean(found))


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
    images, heat_maps = _check_regions(regions, maps, saturation)
    masks = [
        np.logical_or.reduce([region for region, _ in image])
        if image
        else np.zeros(m.shape, dtype=np.bool_)
        for image, m in zip(images, heat_maps, strict=True)
    ]
    normal = sorted_normal_pixels(masks, heat_maps)
    n_regions, total = sum(map(len, images)), 0.0
    for image, heat_map in zip(images, heat_maps, strict=True):
        for region, area in image:
            values = np.sort(heat_map[region].astype(normal.dtype))[::-1]
            # What the region gains with its 1st, 2nd, ... highest pixel. Ties share their sum.
            gains = np.diff(np.minimum(np.arange(values.size + 1) / area, 1.0))
            values = values[: np.count_nonzero(gains > 0)]
            above, at_least = (count / normal.size for count in count_normal(normal, values))
            total += gains[: values.size] @ partial_area(above, at_least, limit)
    return min(float(total / n_regions / limit), 1.0)


def _check_regions(regions, maps, saturation):
    """For each image a list of (mask, saturation area in pixels), and the maps."""
    checked = []
    for index, masks in enumerate(regions):
        if masks is None:
            check_mask(None, f"regions[{index}]", "(regions, maps)")
        names = [f"regions[{index}][{number}]" for number in range(len(masks))]
        checked.append(
            [
                (check_mask(mask, name, "(regions, maps)"), name)
                for mask, name in zip(masks, names, strict=True)
            ]
        )
    maps = check_maps(maps)
    all_areas = [None] * len(maps) if saturation is None else list(saturation)
    for argument, given in (("regions", checked), ("saturation", all_areas)):
        if len(given) != len(maps):
            raise ValueError(f"there are {len(maps)} maps but {argument} of {len(given)} images")
    images = []
    for index, (masks, heat_map, areas) in enumerate(zip(checked, maps, all_areas, strict=True)):
        areas = [np.inf] * len(masks) if areas is None else list(areas)
        if len(areas) != len(masks):
            raise ValueError(f"regions[{index}] has {len(masks)} masks, but {len(areas)} areas")
        image = []
        for (mask, name), area in zip(masks, areas, strict=True):
            check_same_size(mask, heat_map, name)
            if not mask.any():
                raise ValueError(f"{name} is empty; a good image has no regions")
            if not area > 0:
                raise ValueError(f"the saturation of {name} must be above 0, got {area}")
            image.append((mask, min(float(area), float(np.count_nonzero(mask)))))
        images.append(image)
    if not any(images):
        raise ValueError("undefined: no image has a region")
    return images, maps
