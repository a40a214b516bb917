"""The metric of a place: the inverse of a covariance of normal patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from skanomaly._typing import FloatArray
from skanomaly.core.gaussian import whitening_factor

Whitening: TypeAlias = Literal["local", "shared"] | None


@dataclass(frozen=True)
class Metric:
    """How the distances of a place are measured.

    Attributes
    ----------
    whitening : {"local", "shared"} or None
    shrinkage : float
        Share of `pooled` in the covariance of a place.
    ridge : float
        What is added to the diagonal; without whitening it is all there is, 1.
    pooled : ndarray of shape (dim, dim), float64
        Covariance within places, of tokens in the units of the bank.
    """

    whitening: Whitening
    shrinkage: float
    ridge: float
    pooled: FloatArray

    def own_share(self, n_tokens: int) -> float:
        """Share of a place's own covariance, of so many tokens, in its metric."""
        if self.whitening != "local" or n_tokens < 2:
            return 0.0
        return 1 - self.shrinkage

    def factor(self, scatter: FloatArray | None, n_tokens: int) -> FloatArray:
        """L of a place, float32: distances are ``|(x - b) L|``.

        Parameters
        ----------
        scatter : ndarray of shape (dim, dim) or None
            Sum of the outer products of the place's tokens without their mean, for
            ``whitening="local"``.
        n_tokens : int
            How many they are.

        Returns
        -------
        ndarray of shape (dim, dim), float32
            As :func:`skanomaly.core.gaussian.whitening_factor` leaves it.
        """
        if self.whitening is None:
            return np.eye(len(self.pooled), dtype=np.float32)
        own = self.own_share(n_tokens)
        covariance = (1 - own) * self.pooled
        if own and scatter is not None:
            covariance += own / n_tokens * scatter.astype(np.float64, copy=False)
        covariance.flat[:: len(covariance) + 1] += self.ridge
        try:
            return whitening_factor(covariance)
        except np.linalg.LinAlgError as exc:
            raise nearly_singular() from exc


def nearly_singular() -> ValueError:
    """What to say of covariances that float32 tokens do not determine."""
    return ValueError(
        "the covariances of these tokens are too nearly singular to be inverted: raise "
        "regularization, to 0.001 or more"
    )
