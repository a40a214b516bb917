"""The threshold of regions, from the held-out maps of good images."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from skanomaly._patch_tokens import fill_masked
from skanomaly._pipelines import contamination_of, split_detector
from skanomaly._warn import warn_user
from skanomaly.core.calibration import contamination_offset, images_for_share
from skanomaly.core.maps import map_maximum
from skanomaly.inspection._maps import check_sigma, check_size

_SHARE = 0.1  # of good images, where the scorer's own threshold is no share of them
# Products of other shapes are rounded otherwise: a map may come out higher by so much, relatively
# to the greatest of the patch scores, whatever their sign.
_ROUNDING = 1e-6


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
        As for :func:`~skanomaly.anomaly_maps`; fitted.
    share : float or None, default=None
        Share of new good *images* that may show any region, in (0, 1). None: the `contamination`
        of the scorer, also where its threshold was given as a number; 0.1 where it is no share.
    sigma : float, default=4.0
        As for :func:`~skanomaly.anomaly_maps`.
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
    of a whole image: however many pixels that has, and however many of them are above it. Images
    of one group count each for itself, as in that threshold.

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
    calibration = RegionCalibration(estimator, share, float(sigma))
    calibration.warn_of_few_images()
    return calibration.threshold(size)


class RegionCalibration:
    """Thresholds of regions by the size of the map, each found once.

    Parameters
    ----------
    estimator, share, sigma
        As for :func:`~skanomaly.inspection.region_threshold`; with `sigma` checked.
    """

    def __init__(self, estimator: Any, share: float | None, sigma: float) -> None:
        scorer = split_detector(estimator).scorer
        self.sigma = sigma
        self.share = _share_of(scorer) if share is None else _check_share(share)
        self.known: dict[tuple[int, int] | None, float] = {}
        self.grids = _held_out_grids(scorer)
        self.fixed: float | None = None
        if self.grids is None:
            self.fixed = -float(scorer._fixed_offset)

    def warn_of_few_images(self) -> None:
        """Warn where there are too few training images for the share that is promised."""
        if self.grids is not None and len(self.grids) < images_for_share(self.share):
            n = len(self.grids)
            warn_user(
                f"regions are calibrated on {n} image{'s' * (n > 1)}: of new good images about "
                f"{1 / (n + 1):.0%} will show a region, not {self.share:.3g} of them. That share "
                f"needs {images_for_share(self.share)} or more images"
            )

    def threshold(self, size: tuple[int, int] | None) -> float:
        """The value that the share of new good images exceeds anywhere."""
        if self.fixed is not None:
            return self.fixed
        if size not in self.known:
            maxima = [
                float(grid.max()) if size is None else map_maximum(grid, size, self.sigma)
                for grid in self.grids
            ]
            highest = -contamination_offset([-value for value in maxima], self.share)
            greatest = max(float(np.abs(grid).max()) for grid in self.grids)
            self.known[size] = highest + _ROUNDING * greatest
        return self.known[size]


def _held_out_grids(scorer):
    """Held-out patch scores as maps show them; None for a fixed threshold."""
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
    return [fill_masked(grid) for grid in grids]


def _share_of(scorer):
    """The share of the threshold, or of `fit`, from whose scores regions have theirs."""
    share = contamination_of(scorer)
    if share is None:
        share = getattr(scorer, "contamination", None)
    return float(share) if isinstance(share, Real) else _SHARE


def _check_share(share):
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share < 1:
        raise ValueError(f"share must be a share of good images, in (0, 1), got {share!r}")
    return float(share)
