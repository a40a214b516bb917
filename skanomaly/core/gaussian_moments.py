"""Moments of patch tokens by position, which are added up, and the Gaussians that follow."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray
from skanomaly.core.gaussian import (
    PatchGaussian,
    check_varies,
    gaussians_of_sums,
    whitening_factor,
)
from skanomaly.core.products import product
from skanomaly.core.standardisation import scales

_BLOCK_BYTES = 2**20  # of outer products, or tokens, in float64 at a time


class GaussianMoments:
    """All that Gaussians of positions need to know of tokens, however many they are.

    Parameters
    ----------
    n_positions, dim : int
        Of no tokens yet.

    Attributes
    ----------
    count : ndarray of shape (n_positions,), float64
        How many tokens there are.
    mean : ndarray of shape (n_positions, dim), float64
    scatter : ndarray of shape (n_positions, dim, dim), float64
        Sums of the outer products of their deviations from the mean.

    Notes
    -----
    Moments of parts are joined by Chan's formula [1]_, position by position: exactly, up to the
    rounding of float64, and in any order. Parts are added, never taken away, so that nothing
    cancels.

    References
    ----------
    .. [1] Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
       Sample Variances", 1979.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.gaussian_moments import GaussianMoments
    >>> moments = GaussianMoments(1, 2)
    >>> moments.add(np.array([[[1.0, 2.0]], [[3.0, 2.0]]]), np.array([[True], [True]]))
    >>> moments.count, moments.mean, moments.scatter[0]
    (array([2.]), array([[2., 2.]]), array([[2., 0.],
           [0., 0.]]))
    """

    def __init__(self, n_positions: int, dim: int) -> None:
        self.count = np.zeros(n_positions)
        self.mean = np.zeros((n_positions, dim))
        self.scatter = np.zeros((n_positions, dim, dim))

    def add(self, tokens: FloatArray, valid: NDArray[np.bool_]) -> None:
        """Take in tokens.

        Parameters
        ----------
        tokens : ndarray of shape (n, n_positions, dim)
        valid : ndarray of shape (n, n_positions), bool
            False for masked patches, which do not count.
        """
        n, dim = len(tokens), tokens.shape[2]
        rows_at_once = max(1, _BLOCK_BYTES // (dim * 8))
        for start in range(0, n, rows_at_once):
            rows = slice(start, start + rows_at_once)
            for part in self._parts(min(n, rows_at_once)):
                is_valid = valid[rows, part, None]
                x = np.where(is_valid, tokens[rows, part], 0).astype(np.float64)
                count = is_valid[..., 0].sum(axis=0).astype(np.float64)
                mean = x.sum(axis=0) / np.maximum(count, 1)[:, None]
                x -= mean
                x *= is_valid
                x = x.transpose(1, 2, 0)
                self._join(part, count, mean, product(x, x.transpose(0, 2, 1)))

    def join(self, other: GaussianMoments) -> None:
        """Take in the tokens of other moments.

        Parameters
        ----------
        other : GaussianMoments
            Of as many positions and components; it stays as it is.
        """
        for part in self._parts(1):
            self._join(part, other.count[part], other.mean[part], other.scatter[part].astype(float))

    def rounded(self) -> GaussianMoments:
        """A copy whose scatter is in single precision, if it can be, for half of the memory.

        Returns
        -------
        GaussianMoments
            Not to be added to; it can be joined with others.
        """
        out = copy(self)
        if np.abs(self.scatter).max() <= np.finfo(np.float32).max:
            out.scatter = self.scatter.astype(np.float32)
        return out

    def gaussians(
        self, grid: tuple[int, int], shrinkage: float, regularization: float, neighborhood: int = 1
    ) -> PatchGaussian:
        """The Gaussians of all positions.

        Parameters
        ----------
        grid, shrinkage, regularization, neighborhood
            As for :func:`skanomaly.core.gaussian.fit_gaussians`.

        Returns
        -------
        PatchGaussian
            As from that of the tokens themselves, to 1e-6: products are in single precision there.

        Raises
        ------
        ValueError
            When the tokens do not vary at all.
        """
        centre, scale = self._standard()
        shift = (self.mean - centre) / scale
        second = np.empty_like(self.scatter)
        for part in self._parts(1):
            x = shift[part]
            second[part] = self.scatter[part] / np.outer(scale, scale)
            second[part] += (x * self.count[part, None])[:, :, None] * x[:, None, :]
        shift *= self.count[:, None]
        return gaussians_of_sums(
            (self.count, shift, second),
            (centre, scale),
            grid,
            shrinkage,
            regularization,
            neighborhood,
        )

    def shared_gaussian(self, regularization: float) -> PatchGaussian:
        """The Gaussian of moments of one position, for all.

        Parameters
        ----------
        regularization : float
            As for :func:`skanomaly.core.gaussian.fit_shared_gaussian`.

        Returns
        -------
        PatchGaussian
            As from that of the tokens themselves, to 1e-6.

        Raises
        ------
        ValueError
            When the tokens do not vary at all.
        """
        centre, scale = self._standard()
        covariance = self.scatter[0] / (self.count[0] * np.outer(scale, scale))
        covariance += regularization * np.eye(len(centre))
        return PatchGaussian(
            mean=centre[None].astype(np.float32),
            scale=scale.astype(np.float32),
            whitening=whitening_factor(covariance)[None],
        )

    def _standard(self):
        """Mean and standard deviation of each component, over all positions."""
        n = self.count.sum()
        centre = self.count @ self.mean / n
        variance = np.einsum("pdd->d", self.scatter)
        variance = (variance + self.count @ np.square(self.mean - centre)) / n
        scale, varies = scales(centre, variance)
        check_varies(varies)
        return centre, scale

    def _parts(self, n):
        """Positions at a time, of which there are `n` tokens each."""
        dim = self.mean.shape[1]
        step = max(1, _BLOCK_BYTES // (8 * dim * max(n, dim)))
        return [slice(start, start + step) for start in range(0, len(self.count), step)]

    def _join(self, part, count, mean, scatter):
        """Chan's formula for some positions; `scatter` is overwritten."""
        known = self.count[part]
        both = known + count
        share = count / np.maximum(both, 1)
        shift = mean - self.mean[part]
        shift[count == 0] = 0
        weighted = shift * (known * share)[:, None]
        scatter += weighted[:, :, None] * shift[:, None, :]
        self.scatter[part] += scatter
        self.mean[part] += shift * share[:, None]
        self.count[part] = both


def join_moments(parts: Iterable[GaussianMoments]) -> GaussianMoments:
    """Moments of all tokens, from those of their parts, which stay as they are.

    Parameters
    ----------
    parts : iterable of GaussianMoments
        At least one.

    Returns
    -------
    GaussianMoments

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.gaussian_moments import GaussianMoments, join_moments
    >>> one, two = GaussianMoments(1, 1), GaussianMoments(1, 1)
    >>> one.add(np.array([[[1.0]]]), np.array([[True]]))
    >>> two.add(np.array([[[4.0]]]), np.array([[True]]))
    >>> join_moments([one, two]).scatter
    array([[[4.5]]])
    """
    first, *others = parts
    out = GaussianMoments(*first.mean.shape)
    for part in (first, *others):
        out.join(part)
    return out
