"""Scores of several models as one: brought to a common scale, weighed and joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from skanomaly._patch_tokens import fill_masked
from skanomaly._typing import ArrayLike, FloatArray
from skanomaly.core.maps import upsample_map

Combination = Literal["mean", "max"]


def common_scale(scores: FloatArray) -> tuple[float, float]:
    """What brings the patch scores of one model to a scale that others have too.

    Parameters
    ----------
    scores : ndarray of shape (n_patches,)
        Held-out patch scores of good images; higher is more anomalous.

    Returns
    -------
    location, scale : float
        The median, and the distance from it to the 99% quantile; where that is 0, to the highest
        score, and where that is 0 too, 1.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.unions import common_scale
    >>> [round(value, 3) for value in common_scale(np.arange(101.0))]
    [50.0, 49.0]
    """
    median, top, highest = (float(value) for value in np.quantile(scores, [0.5, 0.99, 1.0]))
    noise = 1e-6 * float(np.abs(scores).max())  # patch scores are float32
    for scale in (top - median, highest - median):
        if scale > noise:
            return median, scale
    return median, 1.0


def join_scores(
    scores: Sequence[FloatArray],
    location: Sequence[float] | FloatArray,
    scale: Sequence[float] | FloatArray,
    combination: Combination,
    weights: FloatArray,
) -> FloatArray:
    """One score from those of several models.

    Parameters
    ----------
    scores : sequence of ndarray
        Of each model, all of one shape; higher is more anomalous.
    location, scale : sequence of float
        Of each model: its scores enter as ``(scores - location) / scale``.
    combination : {"mean", "max"}
        The weighted mean of these, or the highest.
    weights : ndarray of shape (n_models,)
        Of the mean; they sum to 1.

    Returns
    -------
    ndarray, float64

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.unions import join_scores
    >>> two = [np.array([1.0, 3.0]), np.array([10.0, 10.0])]
    >>> join_scores(two, [1, 0], [1, 10], "mean", np.array([0.5, 0.5]))
    array([0.5, 1.5])
    """
    scaled = [
        (np.asarray(of_model, dtype=np.float64) - middle) / spread
        for of_model, middle, spread in zip(scores, location, scale, strict=True)
    ]
    if combination == "max":
        highest: FloatArray = np.max(scaled, axis=0)
        return highest
    total: Any = sum(weight * of_model for weight, of_model in zip(weights, scaled, strict=True))
    return total


def union_weights(
    weights: ArrayLike | None, n_members: int, combination: str, what: str
) -> FloatArray:
    """The weights of a union's members, which sum to 1.

    Parameters
    ----------
    weights : array-like of shape (n_members,) or None
        As they were given; None for equal ones.
    n_members : int
        How many there must be.
    combination : {"mean", "max"}
        Of the union.
    what : str
        What a member is called, such as ``"scorer"``.

    Returns
    -------
    ndarray of shape (n_members,), float64

    Raises
    ------
    ValueError
        When they are no weights of so many members, or given for a maximum.

    Examples
    --------
    >>> from skanomaly.core.unions import union_weights
    >>> union_weights([3, 1], 2, "mean", "scorer")
    array([0.75, 0.25])
    """
    if weights is None:
        return np.full(n_members, 1 / n_members)
    name = f"{what}_weights"
    if combination == "max":
        raise ValueError(f"{name} are only for combination='mean'; for the maximum pass None")
    numbers: Any = np.asarray(weights)
    if numbers.dtype.kind not in "fiu" or numbers.shape != (n_members,):
        raise ValueError(
            f"{name} must be {n_members} numbers, one for each {what}, got {weights!r}"
        )
    if not (np.isfinite(numbers).all() and (numbers >= 0).all() and numbers.any()):
        raise ValueError(f"{name} must be at least 0 and not all 0, got {weights!r}")
    return numbers / numbers.sum()


def maps_of_one_size(maps: Sequence[FloatArray]) -> list[FloatArray]:
    """The maps that several models have of one image, at the size of the finest.

    Parameters
    ----------
    maps : sequence of ndarray of shape (height, width)
        Of each model, in whatever size; NaN where a patch is masked.

    Returns
    -------
    list of ndarray of shape (height, width), float32
        Of the most rows and the most columns that one of them has; where masked as from
        :func:`skanomaly._patch_tokens.fill_masked`.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.unions import maps_of_one_size
    >>> maps_of_one_size([np.array([[0.0, 1.0]]), np.zeros((1, 4))])[0]
    array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    size = tuple(max(heat.shape[axis] for heat in maps) for axis in (0, 1))
    return [upsample_map(fill_masked(heat), size, sigma=0) for heat in maps]
