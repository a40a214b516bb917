"""Anomalous regions of images: where a heat map is above what good parts show."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from sklearn.exceptions import NotFittedError

from skanomaly._images import check_images, image_size
from skanomaly._parameters import check_integer
from skanomaly._pipelines import contamination_of, split_detector
from skanomaly._typing import FloatArray, Images
from skanomaly._warn import warn_user
from skanomaly.core.calibration import contamination_offset
from skanomaly.core.maps import map_maximum, upsample_map
from skanomaly.inspection._maps import check_sigma, check_size, score_images

_IMAGES = 32  # scored at a time, which bounds the memory for what a detector gives of each
_SHARE = 0.1  # of good images, where the scorer's own threshold is no share of them
# Products of other shapes are rounded otherwise: a map may come out higher by so much, relatively.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Region:
    """A connected region of a heat map.

    Attributes
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


def region_threshold(
    estimator: Any,
    *,
    share: float | None = None,
    sigma: float = 4.0,
    size: tuple[int, int] | None = None,
) -> float:
    """The value of heat maps that few good images exceed anywhere.

    Parameters
    ----------
    estimator : Pipeline or detector
        As for :func:`anomaly_maps`; fitted.
    share : float or None, default=None
        Share of new good *images* that may show any region, in (0, 1). None: the `contamination`
        of the scorer, or 0.1 where that is no share.
    sigma : float, default=4.0
        As for :func:`anomaly_maps`.
    size : tuple of int or None, default=None
        ``(height, width)`` of the maps in pixels. None: a threshold for maps of any size and
        `sigma`, from the patch scores themselves, which no map exceeds; it is higher than need be.

    Returns
    -------
    float
        For :func:`find_regions`.

    Raises
    ------
    NotFittedError
        When nothing was calibrated yet: `fit` a detector to good images first.
    TypeError
        When the scorer keeps no held-out patch scores.

    Warns
    -----
    UserWarning
        When there are too few training images for the share.

    Notes
    -----
    Of each training image, the map of its held-out patch scores is made, and the highest value of
    it taken; the threshold is the quantile of these that flags new images with the probability
    `share`, as for the threshold of image scores
    (:func:`skanomaly.core.calibration.contamination_offset`). With fewer than ``1 / share - 1``
    training images it is the highest value of all, and the probability ``1 / (n + 1)``. It is one
    of a whole image: however many pixels that has, and however many of them are above it.

    The threshold of :class:`skanomaly.PromptScorer` without `fit` is 0.5, whatever `share` is:
    where the anomalous text is the nearer one.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchGaussianScorer
    >>> from skanomaly.datasets import make_surfaces
    >>> from skanomaly.inspection import region_threshold
    >>> good = make_surfaces(20, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchGaussianScorer()).fit(good)
    >>> region_threshold(pipe, size=(64, 64)) < region_threshold(pipe)
    True
    """
    check_sigma(sigma)
    if size is not None:
        size = check_size(size)
    return _Calibration(estimator, share, float(sigma)).threshold(size)


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
        As for :func:`anomaly_maps`; fitted.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.
    threshold : "calibrated" or float, default="calibrated"
        ``"calibrated"``: that of :func:`region_threshold` for the size of the image, so that of new
        good images the share `contamination` shows any region. A number: that value of the maps.
    min_area : int, default=1
        Regions of fewer pixels are left out.
    sigma : float, default=4.0
        As for :func:`anomaly_maps`.

    Returns
    -------
    list of list of Region
        Of each image its regions, that of the highest peak first; an empty list where it has none.

    Raises
    ------
    NotFittedError, TypeError
        As from :func:`region_threshold`, before any image is scored.

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
        calibration = _Calibration(estimator, None, float(sigma))
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


class _Calibration:
    """Thresholds of regions by the size of the map, each found once."""

    def __init__(self, estimator: Any, share: float | None, sigma: float) -> None:
        scorer = split_detector(estimator).scorer
        self.sigma = sigma
        self.share = _check_share(contamination_of(scorer) if share is None else share)
        self.known: dict[tuple[int, int] | None, float] = {}
        self.grids = held_out_grids(scorer)
        self.fixed = None
        if self.grids is None:
            self.fixed = -float(scorer._fixed_offset)
        elif len(self.grids) < 1 / self.share - 1 - 1e-9:
            n = len(self.grids)
            warn_user(
                f"regions are calibrated on {n} image{'s' * (n > 1)}: of new good images about "
                f"{1 / (n + 1):.0%} will show a region, not {self.share:.3g} of them. That share "
                f"needs {int(np.ceil(1 / self.share - 1 - 1e-9))} or more images"
            )

    def threshold(self, size: tuple[int, int] | None) -> float:
        """The value that the share of new good images exceeds anywhere."""
        if self.grids is None:
            return self.fixed
        if size not in self.known:
            maxima = [
                float(grid.max()) if size is None else map_maximum(grid, size, self.sigma)
                for grid in self.grids
            ]
            highest = -contamination_offset([-value for value in maxima], self.share)
            self.known[size] = highest + _ROUNDING * abs(highest)
        return self.known[size]


def held_out_grids(scorer: Any) -> list[FloatArray] | None:
    """Held-out patch scores as maps show them, 0 where masked; None for a fixed threshold.

    Parameters
    ----------
    scorer : estimator
        The scorer of a pipeline, or a detector of images.

    Returns
    -------
    list of ndarray of shape (grid_h, grid_w), or None

    Raises
    ------
    NotFittedError, TypeError
        Where there are none, and there is no threshold that needs none.
    """
    grids = getattr(scorer, "held_out_patches_", None)
    if grids is None:
        name = type(scorer).__name__
        if getattr(scorer, "_fixed_offset", None) is not None:
            return None
        if hasattr(type(scorer), "held_out_patches_"):
            raise NotFittedError(
                f"this {name} has no calibrated threshold of regions: fit it on good images, or "
                "pass threshold= a value of its maps"
            )
        raise TypeError(
            f"{name} has no held_out_patches_, the patch scores of good images that the threshold "
            "of regions is calibrated on: pass threshold= a value of its maps"
        )
    if any(np.ndim(grid) != 2 for grid in grids):
        raise TypeError("maps need tokens of shape (n_images, grid_h, grid_w, dim)")
    return [np.nan_to_num(grid, nan=0.0) for grid in grids]


def _check_share(share):
    if share is None:
        return _SHARE
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share < 1:
        raise ValueError(f"share must be a share of good images, in (0, 1), got {share!r}")
    return float(share)


def _check_threshold(threshold):
    is_number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if not is_number or not np.isfinite(threshold):
        raise ValueError(f"threshold must be a finite number, got {threshold!r}")
