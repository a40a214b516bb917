"""Nearest patches among those near the same place, in the metric of that place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.local_bank import EPS32, LocalBank
from skanomaly.core.local_places import window
from skanomaly.core.products import exact_product, product, squared_norms

MEASURED = 2**14  # of them again in float64 at a time
LARGEST = 1e12  # number that is multiplied in float32


@dataclass(frozen=True)
class Window:
    """The patches with which those of a place are compared, and the metric.

    Attributes
    ----------
    bank : LocalBank
    runs : list of slice
        Of its places.
    norms : ndarray of shape (n_near,), float32
        As of :meth:`skanomaly.core.local_bank.LocalBank.window_norms`.
    mean : ndarray of shape (dim,), float64
        The origin of the place.
    factor : ndarray of shape (dim, dim), float64
    """

    bank: LocalBank
    runs: list[slice]
    norms: FloatArray
    mean: FloatArray
    factor: FloatArray

    def products(self, left: FloatArray) -> FloatArray:
        """Products of rows with each patch.

        Parameters
        ----------
        left : ndarray of shape (n, dim)

        Returns
        -------
        ndarray of shape (n, n_near), float32
        """
        left, dim, start = left.astype(np.float32), len(self.mean), 0
        out = np.empty((len(left), len(self.norms)), dtype=np.float32)
        for run in self.runs:
            near = self.bank.tokens[run].reshape(-1, dim)
            product(left, near.T, out=out[:, start : start + len(near)])
            start += len(near)
        return out

    def patches(self, numbers: IntArray) -> FloatArray:
        """Patches by their number in the window.

        Parameters
        ----------
        numbers : ndarray of shape (n,), int

        Returns
        -------
        ndarray of shape (n, dim), float32
        """
        places = np.concatenate([np.arange(run.start, run.stop) for run in self.runs])
        n = self.bank.tokens.shape[1]
        return self.bank.tokens[places[numbers // n], numbers % n]


def window_of(bank: LocalBank, place: int, norms: FloatArray, factor: FloatArray) -> Window:
    """The patches with which those of a place are compared, in a metric.

    Parameters
    ----------
    bank : LocalBank
    place : int
    norms : ndarray of shape (n_near,), float32
        As of :meth:`skanomaly.core.local_bank.LocalBank.window_norms`.
    factor : ndarray of shape (dim, dim), float32

    Returns
    -------
    Window
    """
    runs = window(bank.grid, place, bank.radius)
    mean = bank.origin(place).astype(np.float64)
    return Window(bank, runs, norms, mean, factor.astype(np.float64))


def nearest(
    near: Window,
    place: int,
    x: FloatArray,
    allowed: NDArray[np.bool_] | None = None,
    loss: Any = None,
) -> tuple[FloatArray, FloatArray]:
    """Squared distance of each query to the nearest patch of a window, and the difference from it.

    Parameters
    ----------
    near : Window
    place : int
    x : ndarray of shape (n_queries, dim), float64
        In the units of the bank.
    allowed : ndarray of shape (n_queries, n), bool, optional
        With which images each is compared; None for all.
    loss : Loss or None, default=None
        Of :mod:`skanomaly.core.local_held_out`: what the metric loses for each.

    Returns
    -------
    squared : ndarray of shape (n_queries,), float64
    differences : ndarray of shape (n_queries, dim), float64
    """
    dim, n = x.shape[1], near.bank.tokens.shape[1]
    white = product(x - near.mean, near.factor)
    slopes = product(white, near.factor.T)
    length = np.sqrt(squared_norms(slopes))
    usable = length < LARGEST  # others are compared with every patch
    products = near.products(np.where(usable[:, None], slopes, 0))
    added = None if loss is None else loss.bounds(near, white, products)
    lower = np.multiply(products, np.float32(-2), out=products)
    lower += near.norms
    if added is not None:
        lower += added
    if allowed is not None:
        for row, images in zip(lower, allowed, strict=True):
            row.reshape(-1, n)[:, ~images] = np.inf
    first = lower.argmin(axis=1)
    queries = np.arange(len(x))
    best, nearest = measured(near, x, queries, first, loss), near.patches(first)
    # No patch whose bound is above this can be measured as nearer.
    slack = float(np.linalg.norm(near.factor)) * np.sqrt(dim) * 2.0**-22
    slack = slack * (np.sqrt(squared_norms(x)) + near.bank.longest)
    if loss is not None:
        slack *= loss.stretch
    error = 2.02 * (dim + 8) * EPS32 * length * near.bank.longest
    constant = squared_norms(white) + 2 * (slopes @ near.mean) - error
    limit = np.square(np.sqrt(best) + slack) * (1 + 1e-9) - constant
    limit = np.where(usable, limit, np.inf)
    with np.errstate(over="ignore"):
        limit = np.nextafter(limit.astype(np.float32), np.float32(np.inf))
    close = lower <= np.minimum(limit, np.finfo(np.float32).max)[:, None]
    close[queries, first] = False
    rows, columns = np.divmod(np.flatnonzero(close), close.shape[1])
    for start in range(0, len(rows), MEASURED):
        part = slice(start, start + MEASURED)
        found = measured(near, x[rows[part]], rows[part], columns[part], loss)
        order = np.lexsort((found, rows[part]))
        order = order[np.concatenate([[True], np.diff(rows[part][order]) > 0])]
        order = order[found[order] < best[rows[part][order]]]
        nearer = rows[part][order]
        best[nearer], nearest[nearer] = found[order], near.patches(columns[part][order])
    for k in np.flatnonzero(np.isinf(lower[queries, first])).tolist():
        images = None if allowed is None else allowed[k]
        best[k], nearest[k] = nearest_beyond(near, place, x[k], k, images, loss)
    return best, x - nearest


def measured(
    near: Window, x: FloatArray, queries: IntArray, patches: IntArray, loss: Any
) -> FloatArray:
    """Squared distances of queries to patches, in float64.

    Parameters
    ----------
    near : Window
    x : ndarray of shape (n, dim), float64
        In the units of the bank.
    queries : ndarray of shape (n,), int
        Numbers of the queries among those of `loss`.
    patches : ndarray of shape (n,), int
        Numbers in the window.
    loss : Loss or None
        As of :func:`nearest`.

    Returns
    -------
    ndarray of shape (n,), float64
    """
    white = exact_product(x - near.patches(patches), near.factor)  # alike in any batch
    squared = squared_norms(white)
    return squared if loss is None else squared + loss.added(white, queries)


def nearest_beyond(
    near: Window,
    place: int,
    x: FloatArray,
    query: int = 0,
    images: NDArray[np.bool_] | None = None,
    loss: Any = None,
) -> tuple[float, FloatArray]:
    """The nearest patch to a query in whose window there is none.

    Parameters
    ----------
    near : Window
    place : int
    x : ndarray of shape (dim,), float64
        In the units of the bank.
    query : int, default=0
        Its number among those of `loss`.
    images : ndarray of shape (n,), bool, optional
        With which it is compared; None for all.
    loss : Loss or None, default=None
        As of :func:`nearest`.

    Returns
    -------
    squared : float
    patch : ndarray of shape (dim,)
        Within the least radius at which there is one.
    """
    bank, radius = near.bank, near.bank.radius
    while radius <= max(bank.grid):
        radius = 2 * radius + 1
        runs = window(bank.grid, place, radius)
        valid = np.concatenate([bank.valid[run] for run in runs])
        patches = np.flatnonzero(valid if images is None else valid & images)
        if patches.size:
            wide = Window(bank, runs, near.norms, near.mean, near.factor)
            queries = np.full(len(patches), query)
            rows = np.broadcast_to(x, (len(patches), len(x)))
            found = measured(wide, rows, queries, patches, loss)
            return float(found.min()), wide.patches(patches[[found.argmin()]])[0]
    raise ValueError("there is no patch of another image to compare with")
