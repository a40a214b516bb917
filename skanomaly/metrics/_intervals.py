"""How sure a share is that was counted on a few images."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skanomaly._typing import FloatArray


def binomial_interval(
    counts: ArrayLike, n: int, confidence_level: float
) -> tuple[FloatArray, FloatArray]:
    """The exact intervals of shares, each of so many among `n` images (Clopper and Pearson).

    Parameters
    ----------
    counts : array-like of int
        Images counted, from 0 to `n`.
    n : int
        Images, at least 1.
    confidence_level : float
        In (0, 1).

    Returns
    -------
    low, high : ndarray of float64
        In the shape of `counts`.

    Examples
    --------
    >>> from skanomaly.metrics._intervals import binomial_interval
    >>> [round(float(end), 3) for end in binomial_interval(0, 10, 0.95)]
    [0.0, 0.308]
    """
    from scipy.stats import beta  # half a second, which a decision need not wait for

    counts, outside = np.asarray(counts), (1 - confidence_level) / 2
    with np.errstate(invalid="ignore"):  # no share is below 0 or above 1
        low = beta.ppf(outside, counts, n - counts + 1)
        high = beta.isf(outside, counts + 1, n - counts)
    return np.where(counts == 0, 0.0, low), np.where(counts == n, 1.0, high)


def check_confidence_level(confidence_level: Any) -> None:
    """ValueError where it is no number in (0, 1)."""
    is_number = isinstance(confidence_level, Real) and not isinstance(confidence_level, bool)
    if not is_number or not 0 < float(confidence_level) < 1:
        raise ValueError(f"confidence_level must lie in (0, 1), got {confidence_level!r}")
