"""Limits of a colour scale for heat maps, from the calibration of a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError

from skanomaly._pipelines import offset_of, split_detector
from skanomaly._typing import FloatArray
from skanomaly._warn import warn_user

Limits = tuple[float, float]


def color_limits(estimator: Any) -> Limits | None:
    """Limits of the colours of heat maps: what good parts show, whatever images are looked at.

    Parameters
    ----------
    estimator : Pipeline or detector
        As for :func:`~skanomaly.anomaly_maps`; fitted.

    Returns
    -------
    tuple of float or None
        ``(low, high)``, for :func:`overlay_map` and :class:`~skanomaly.AnomalyMapDisplay`: maps are
        clear up to `low` and violet from `high` on. None where the detector has no calibration.

    Raises
    ------
    TypeError
        When the estimator gives no maps of images.

    Notes
    -----
    They are the `patch_limits_` of the scorer or detector. Scorers of this package and of others
    that derive from its base classes have them. Of the held-out patch scores of the training
    images, `low` is the 95% quantile, and `high` the 90% quantile of the images' highest ones, plus
    ``(that - low) / n_images``. A usual good part is thus all clear, and nine of ten show no full
    heat; what is violet is beyond what they show. :class:`skanomaly.PromptScorer` without `fit` has
    the limits 0.5, its threshold, and 1; :class:`skanomaly.AnomalibDetector` those of the maps of
    the images given to `fit`, and none before.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer
    >>> from skanomaly.datasets import make_surfaces
    >>> from skanomaly.inspection import color_limits
    >>> images = make_surfaces(8, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(images)
    >>> low, high = color_limits(pipe)
    >>> 0 < low < high
    True
    """
    scorer = split_detector(estimator).scorer
    limits = getattr(scorer, "patch_limits_", None)
    return None if limits is None else (float(limits[0]), float(limits[1]))


def limits_for(estimator: Any, maps: Sequence[FloatArray] | None = None) -> Limits:
    """The limits of a detector's colours, with a substitute, which is warned of, where it has none.

    Parameters
    ----------
    estimator : Pipeline or detector
        As for :func:`~skanomaly.inspection.color_limits`.
    maps : sequence of ndarray or None, default=None
        Maps or grids of patch scores of all images that will be shown, for a detector that has no
        threshold in their unit either. None: an error then.

    Returns
    -------
    tuple of float
        ``(low, high)``: those of :func:`~skanomaly.inspection.color_limits`; else from the
        threshold to twice the threshold, for an image score is minus an aggregate of patch scores;
        else the median and the highest value of `maps`.

    Raises
    ------
    ValueError
        Where the detector has neither limits nor a threshold, and no maps are given.
    """
    limits = color_limits(estimator)
    if limits is not None:
        return limits
    scorer = split_detector(estimator).scorer
    name, offset = type(scorer).__name__, threshold_of(scorer)
    lacks = f"{name} has no patch_limits_ (it is not fitted, or does not calibrate its maps)"
    if offset is not None and offset < 0:
        warn_user(f"{lacks}: colours go from its threshold, {-offset:.3g}, to twice that")
        return -offset, -2 * offset
    if maps is None:
        raise ValueError(
            f"{lacks}, nor a threshold in the unit of its maps: fit it on good images, or pass "
            "limits=(low, high), values of its maps. From the images shown alone, the most unusual "
            "place of a good part would look like a defect"
        )
    warn_user(
        f"{lacks}: colours span the maps that are shown, so that the most unusual place is violet "
        "even in good parts"
    )
    values = np.concatenate([np.ravel(heat) for heat in maps])
    return float(np.median(values)), float(values.max())


def threshold_of(scorer: Any) -> float | None:
    """The threshold of a scorer or detector, below which images are anomalous; None without one."""
    try:
        return offset_of(scorer)
    except (TypeError, NotFittedError):
        return None
