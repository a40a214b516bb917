"""Anomalous regions of images: where a heat map is above what good parts show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from skanomaly._images import check_images, image_size
from skanomaly._parameters import check_integer, is_finite
from skanomaly._pipelines import split_detector
from skanomaly._typing import Images
from skanomaly.core.maps import upsample_map
from skanomaly.inspection._maps import check_sigma, score_images
from skanomaly.inspection._region_threshold import RegionCalibration

_IMAGES = 32  # scored at a time, which bounds the memory for what a detector gives of each


@dataclass(frozen=True)
class Region:
    """A connected region of a heat map.

    Parameters
    ----------
    box : tuple of int
        ``(x, y, width, height)`` in pixels of the image.
    area : int
        How many pixels the region has.
    centroid : tuple of float
        ``(x, y)``, the mean of its pixels' columns and rows.
    peak : float
        Highest value of the map in the region.
    peak_at : tuple of int
        ``(x, y)``, the pixel of the peak.
    mean : float
        Mean value of the map in the region.
    mask : ndarray of shape (height, width), bool
        Which pixels of the box belong to the region.

    Examples
    --------
    >>> from skanomaly.inspection import find_regions
    >>> (region,) = find_regions([[0.0, 3.0, 2.0], [0.0, 0.0, 0.0]], threshold=1.0)
    >>> region
    Region(box=(1, 0, 2, 1), area=2, centroid=(1.5, 0.0), peak=3.0, peak_at=(1, 0), mean=2.5)
    """

    box: tuple[int, int, int, int]
    area: int
    centroid: tuple[float, float]
    peak: float
    peak_at: tuple[int, int]
    mean: float
    mask: NDArray[np.bool_] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the mask, as plain values.

        Returns
        -------
        dict of str to object
            Tuples are lists, as in JSON.
        """
        return {
            "box": list(self.box),
            "area": self.area,
            "centroid": list(self.centroid),
            "peak": self.peak,
            "peak_at": list(self.peak_at),
            "mean": self.mean,
        }


def find_regions(heat_map: ArrayLike, threshold: float, min_area: int = 1) -> list[Region]:
    """Connected regions of a map above a threshold.

    Parameters
    ----------
    heat_map : array-like of shape (height, width)
        Higher is more anomalous.
    threshold : float
        Pixels with a value above it belong to regions; those at it do not.
    min_area : int, default=1
        Regions of fewer pixels are left out.

    Returns
    -------
    list of Region
        By their peaks, the highest first. Pixels that touch at a corner are connected.

    Raises
    ------
    ValueError
        For a map that is not finite or not 2-D, or a threshold that is no number.

    Examples
    --------
    >>> from skanomaly.inspection import find_regions
    >>> heat_map = [[5, 0, 0, 0], [0, 4, 0, 9]]
    >>> [(region.box, region.peak) for region in find_regions(heat_map, 1)]
    [((3, 1, 1, 1), 9.0), ((0, 0, 2, 2), 5.0)]
    """
    values = np.asarray(heat_map)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"heat_map must be a 2-D array of numbers, got {values.dtype} of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("heat_map must be finite")
    _check_threshold(threshold)
    min_area = check_integer(min_area, "min_area", 1)
    labels, _ = ndimage.label(values > threshold, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel())
    regions = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if areas[number] < min_area:
            continue
        mask = labels[place] == number
        (top, left), (rows, columns) = (axis.start for axis in place), np.nonzero(mask)
        inside = values[place][mask].astype(np.float64)
        highest = int(inside.argmax())
        regions.append(
            Region(
                box=(left, top, mask.shape[1], mask.shape[0]),
                area=int(areas[number]),
                centroid=(float(left + columns.mean()), float(top + rows.mean())),
                peak=float(inside[highest]),
                peak_at=(int(left + columns[highest]), int(top + rows[highest])),
                mean=float(inside.mean()),
                mask=mask,
            )
        )
    return sorted(regions, key=lambda region: -region.peak)


def anomaly_regions(
    estimator: Any,
    images: Images,
    *,
    threshold: float | str = "calibrated",
    min_area: int = 1,
    sigma: float = 4.0,
) -> list[list[Region]]:
    """Connected regions of each image whose heat map is above what good images show.

    Parameters
    ----------
    estimator : Pipeline or detector
        As for :func:`~skanomaly.anomaly_maps`; fitted.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.
    threshold : "calibrated" or float, default="calibrated"
        ``"calibrated"``: that of :func:`~skanomaly.inspection.region_threshold` for the size of the
        image, so that of new good images the share `contamination` shows any region, also where the
        threshold of images is now a number, as by ``recalibrate(estimator, threshold=...)``; 0.1
        where it is no share. A number: that value of the maps.
    min_area : int, default=1
        Regions of fewer pixels are left out.
    sigma : float, default=4.0
        As for :func:`~skanomaly.anomaly_maps`.

    Returns
    -------
    list of list of Region
        Of each image its regions, that of the highest peak first; an empty list where it has none.

    Raises
    ------
    NotFittedError, TypeError
        As from :func:`~skanomaly.inspection.region_threshold`, before any image is scored.

    Notes
    -----
    The regions are those of ``anomaly_maps(estimator, [image], sigma=sigma)``, of which one is in
    memory at a time. They and the verdict on an image are calibrated apart: an image score is a
    mean of its highest patch scores, a region a place. So an anomalous image may have no region,
    and a normal one may have some.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, anomaly_regions
    >>> from skanomaly.datasets import make_surfaces
    >>> made = make_surfaces(12, 2, image_size=64, defects="missing_piece", random_state=0)
    >>> pipe = make_pipeline(
    ...     FilterBankPatches(image_size=64), PatchKNNScorer(metric="euclidean")
    ... ).fit(made.images[:12])
    >>> regions = anomaly_regions(pipe, made.images[12:])
    >>> [len(of_image) for of_image in regions]
    [1, 1]
    """
    split_detector(estimator)
    check_sigma(sigma)
    check_integer(min_area, "min_area", 1)
    items = check_images(images)
    calibration = None
    if isinstance(threshold, str) and threshold == "calibrated":
        calibration = RegionCalibration(estimator, None, float(sigma))
        calibration.warn_of_few_images()
    elif isinstance(threshold, str):
        raise ValueError(f"threshold must be 'calibrated' or a number, got {threshold!r}")
    else:
        _check_threshold(threshold)
    regions = []
    for start in range(0, len(items), _IMAGES):
        part = items[start : start + _IMAGES]
        sizes = [image_size(item, start + i) for i, item in enumerate(part)]
        grids, _ = score_images(estimator, part)
        for grid, size in zip(grids, sizes, strict=True):
            limit = calibration.threshold(size) if calibration is not None else threshold
            regions.append(find_regions(upsample_map(grid, size, sigma), float(limit), min_area))
    return regions


def _check_threshold(threshold):
    if not is_finite(threshold):
        raise ValueError(f"threshold must be a finite number, got {threshold!r}")
