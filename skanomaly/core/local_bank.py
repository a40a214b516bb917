"""Patches of normal images by their place, and the metric of each place."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.coreset import greedy_k_center
from skanomaly.core.local_metric import Metric, Whitening
from skanomaly.core.local_places import window, window_pairs
from skanomaly.core.local_units import Units, component_units, standard_units
from skanomaly.core.products import product

EPS32 = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class LocalBank:
    """Patches of normal images at each place, and the metric of each place.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of places.
    radius : int
        Rows and columns around a place in which patches are compared with those of the place.
    tokens : ndarray of shape (n_places, n, dim), float32
        In the units of the bank; 0 for masked ones.
    valid : ndarray of shape (n_places, n), bool
    sources : ndarray of shape (n_places, n) or (1, n), int
        Number of the training image, or view of one, from which each patch comes.
    units : Units
        In which tokens are kept and compared.
    means : ndarray of shape (n_places, dim), float32
        Of the training tokens of each place.
    factors : ndarray of shape (n_places, dim, dim) or (1, dim, dim), float32
        As of :meth:`Metric.factor`.
    norms : ndarray of shape (n_pairs, n) or (n_places, n), float32
        Of the patches of a place, for each place that they are compared with, in the order of
        :func:`skanomaly.core.local_places.window_pairs`: no more than their squared distance to
        the origin of the other place, in its metric; once where all places share a metric.
        Infinite for masked patches.
    longest : float
        Length of the longest of `tokens`.
    metric : Metric
    """

    grid: tuple[int, int]
    radius: int
    tokens: FloatArray
    valid: NDArray[np.bool_]
    sources: IntArray
    units: Units
    means: FloatArray
    factors: FloatArray
    norms: FloatArray
    longest: float
    metric: Metric

    def factor(self, place: int) -> FloatArray:
        """The metric of a place.

        Parameters
        ----------
        place : int

        Returns
        -------
        ndarray of shape (dim, dim), float32
        """
        return self.factors[place if len(self.factors) > 1 else 0]

    def origin(self, place: int) -> FloatArray:
        """The point from which a place measures the length of patches.

        Parameters
        ----------
        place : int

        Returns
        -------
        ndarray of shape (dim,), float32
            The mean of the place; where all places share a metric, 0.
        """
        return self.means[place] if self.is_local else np.zeros_like(self.means[place])

    @property
    def is_local(self) -> bool:
        """Whether each place has its own metric."""
        return self.metric.whitening == "local"

    def count(self, place: int) -> int:
        """How many tokens the metric of a place is learned from.

        Parameters
        ----------
        place : int

        Returns
        -------
        int
            Of images, where all places share it.
        """
        return int(np.count_nonzero(self.valid[place])) if self.is_local else self.valid.shape[1]

    def norms_of(self, place: int) -> FloatArray:
        """The norms of the patches in the window of a place, in its metric.

        Parameters
        ----------
        place : int

        Returns
        -------
        ndarray of shape (n_window_places * n,), float32
        """
        near, starts, turned = window_pairs(self.grid, self.radius)
        rows = turned if self.is_local else near
        return self.norms[rows[starts[place] : starts[place + 1]]].ravel()

    def scatter(self, place: int) -> FloatArray:
        """Sum of the outer products of the tokens of a place without their mean.

        Parameters
        ----------
        place : int

        Returns
        -------
        ndarray of shape (dim, dim), float64
        """
        return _scatter(self.tokens[place], self.valid[place], self.means[place])

    def window_norms(self, place: int, factor: FloatArray) -> FloatArray:
        """No more than the squared distance of each patch in a window to the origin of its place.

        Parameters
        ----------
        place : int
        factor : ndarray of shape (dim, dim), float32
            The metric.

        Returns
        -------
        ndarray of shape (n_window_places * n,), float32
            Infinite for masked patches.
        """
        runs = window(self.grid, place, self.radius)
        return np.concatenate([self.norms_to(self.origin(place), factor, run) for run in runs])

    def norms_to(self, origin: FloatArray, factor: FloatArray, places: slice) -> FloatArray:
        """No more than the squared distances of the patches of some places to a point.

        Parameters
        ----------
        origin : ndarray of shape (dim,), float32
        factor : ndarray of shape (dim, dim), float32
            The metric.
        places : slice

        Returns
        -------
        ndarray of shape (n_places * n,), float32
            Infinite for masked patches. Computed in float32, less a bound of what that rounds.
        """
        dim, size = len(factor), float(np.linalg.norm(factor))
        error = 1.01 * (dim + 4) * EPS32 * size * (self.longest + float(np.linalg.norm(origin)))
        white = product(self.tokens[places].reshape(-1, dim), factor)
        white -= product(origin, factor)
        norms = np.sqrt(np.einsum("ij,ij->i", white, white)) * (1 - (dim + 4) * EPS32) - error
        norms = np.square(np.maximum(norms, 0)) * (1 - 16 * EPS32)
        return np.where(self.valid[places].ravel(), norms, np.inf).astype(np.float32)


def fit_local_bank(
    values: FloatArray,
    valid: NDArray[np.bool_],
    rows: IntArray,
    grid: tuple[int, int],
    *,
    radius: int,
    whitening: Whitening,
    shrinkage: float,
    ridge: float,
    unit_length: bool = False,
    n_components: int | None = None,
    n_kept: int | None = None,
) -> LocalBank:
    """Sort the patches of normal images by their place, and learn the metric of each place.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, dim)
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches.
    rows : ndarray of shape (n, n_places), int
        Where the patch of each image, or view of one, is that lies at each place.
    grid : tuple of int
        Rows and columns of places.
    radius : int
        At least 0.
    whitening : {"local", "shared"} or None
        Whether a place has its own covariance, that of all places, or none.
    shrinkage : float
        In [0, 1].
    ridge : float
        More than 0: what is added to the diagonal of covariances.
    unit_length : bool, default=False
        Whether tokens are divided by their length first.
    n_components : int or None, default=None
        Of how many principal components within places tokens are made: whitened ones, unless
        `whitening` is None, so that with "shared" nothing is left to whiten. None for all
        components, standardised.
    n_kept : int or None, default=None
        Patches of each place to keep, chosen by greedy k-center; None for all.

    Returns
    -------
    LocalBank
    """
    n, n_places = rows.shape
    seen = np.flatnonzero(valid[rows].any(axis=1))  # images that are held out are masked
    rows = rows[seen]
    dim = values.shape[1]
    if n_components is not None:
        units = component_units(
            values,
            valid,
            rows,
            n_components=n_components,
            ridge=None if whitening is None else ridge,
            unit_length=unit_length,
        )
        dim = n_components
        if whitening == "shared":
            whitening = None  # the components are whitened
    else:
        units = standard_units(values, valid, unit_length)
    tokens = np.empty((n_places, len(seen), dim), dtype=np.float32)
    is_valid = valid[rows.T]
    for place in range(n_places):
        here = is_valid[place, :, None]
        tokens[place] = np.where(here, units.of(np.where(here, values[rows[:, place]], 0)), 0)
    counts = is_valid.sum(axis=1)
    means = np.empty((n_places, dim), dtype=np.float32)
    pooled = np.zeros((dim, dim))
    local = whitening == "local"
    scatters = np.empty((n_places if local else 0, dim, dim), dtype=np.float32)
    for place in range(n_places):
        x = tokens[place].astype(np.float64)
        means[place] = x.sum(axis=0) / max(1, counts[place])
        scatter = _scatter(tokens[place], is_valid[place], means[place])
        pooled += scatter
        if local:
            scatters[place] = scatter
    ridge = 1.0 if whitening is None else ridge
    metric = Metric(whitening, shrinkage, ridge, pooled / counts.sum())
    if local:
        factors = scatters  # in its place
        for place in range(n_places):
            factors[place] = metric.factor(scatters[place], int(counts[place]))
    else:
        factors = metric.factor(None, len(seen))[None]
    sources = seen[None]
    if n_kept is not None and n_kept < len(seen):
        tokens, is_valid, sources = _thinned(tokens, is_valid, seen, n_kept)
    squared = [float(np.einsum("ij,ij->i", x, x, dtype=np.float64).max()) for x in tokens]
    bank = LocalBank(
        grid=grid,
        radius=radius,
        tokens=tokens,
        valid=is_valid,
        sources=sources,
        units=units,
        means=means,
        factors=factors,
        norms=np.empty(0, dtype=np.float32),
        longest=float(np.sqrt(max(squared))),
        metric=metric,
    )
    if not local:
        of_places = [
            bank.norms_to(bank.origin(place), factors[0], slice(place, place + 1))
            for place in range(n_places)
        ]
        return replace(bank, norms=np.stack(of_places))
    _, starts, turned = window_pairs(grid, radius)
    norms = np.empty((len(turned), tokens.shape[1]), dtype=np.float32)
    for place, (start, stop) in enumerate(zip(starts, starts[1:], strict=False)):
        of_place = bank.window_norms(place, bank.factor(place))
        norms[turned[start:stop]] = of_place.reshape(stop - start, -1)
    return replace(bank, norms=norms)


def _scatter(x, valid, mean):
    residuals = np.where(valid[:, None], x.astype(np.float64) - mean, 0)
    return product(residuals.T, residuals)


def _thinned(tokens, valid, seen, n_kept):
    """The patches of each place that greedy k-center keeps."""
    n_places, _, dim = tokens.shape
    kept = np.zeros((n_places, n_kept, dim), dtype=np.float32)
    is_valid = np.zeros((n_places, n_kept), dtype=bool)
    sources = np.zeros((n_places, n_kept), dtype=np.int64)
    for place in range(n_places):
        images = np.flatnonzero(valid[place])
        if len(images) > n_kept:
            chosen, _ = greedy_k_center(tokens[place][images], n_kept)
            images = images[chosen]
        kept[place, : len(images)] = tokens[place][images]
        is_valid[place, : len(images)] = True
        sources[place, : len(images)] = seen[images]
    return kept, is_valid, sources
