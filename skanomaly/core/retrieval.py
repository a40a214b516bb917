"""Nearest patches among those of a few training images: the most similar ones of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import product, squared_norms
from skanomaly.core.search.brute_force import measure, nearest_patches, rounding_bound


def similar_images(
    descriptor: FloatArray, descriptors: FloatArray, allowed: NDArray[np.bool_], count: int
) -> IntArray:
    """The images whose descriptors are nearest to that of one, by the cosine.

    Parameters
    ----------
    descriptor : ndarray of shape (dim,)
        A unit vector.
    descriptors : ndarray of shape (n_images, dim)
        Unit vectors, of the same dtype.
    allowed : ndarray of shape (n_images,), bool
        Which images may be found; at least one.
    count : int
        How many, at most.

    Returns
    -------
    ndarray of int
        Numbers of the images, the most similar first.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.retrieval import similar_images
    >>> similar_images(np.array([0.6, 0.8]), np.eye(2), np.array([True, True]), 1)
    array([1])
    """
    numbers = np.flatnonzero(allowed)
    count = min(count, len(numbers))
    _, found = nearest_patches(descriptor[None], descriptors[numbers], count, "cosine")
    return numbers[found[0]]


def nearest_within(
    queries: FloatArray,
    bank: FloatArray,
    allowed: NDArray[np.bool_],
    places: IntArray,
    grid: tuple[int, int],
    radius: int,
    n_neighbors: int = 1,
    metric: str = "cosine",
) -> tuple[FloatArray, IntArray]:
    """Exact nearest patches among those that lie near the same place of their images.

    Parameters
    ----------
    queries : ndarray of shape (grid_h * grid_w, dim)
        Prepared patches of one image.
    bank : ndarray of shape (n_images * grid_h * grid_w, dim)
        Prepared likewise, image after image.
    allowed : ndarray of shape (n_images * grid_h * grid_w,), bool
        False for patches that are masked.
    places : ndarray of int
        Which of the queries are asked for, ascending.
    grid : tuple of int
        ``(grid_h, grid_w)``.
    radius : int
        Rows and columns by which places may differ.
    n_neighbors : int, default=1
    metric : {"cosine", "euclidean"}, default="cosine"

    Returns
    -------
    distances : ndarray of shape (n_places, n_neighbors), float64
        Ascending.
    rows : ndarray of shape (n_places, n_neighbors), int64
        Of the bank.

    Raises
    ------
    ValueError
        When fewer than `n_neighbors` patches lie so near.

    Notes
    -----
    Shift after shift of the places, so that beside the bank one copy of it is in memory, and a few
    numbers a patch, whatever `radius` is.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.retrieval import nearest_within
    >>> bank = np.array([[0.0], [5.0], [9.0]])  # an image of three patches
    >>> distances, rows = nearest_within(
    ...     bank[::-1], bank, np.ones(3, bool), np.arange(3), (1, 3), 1, metric="euclidean"
    ... )
    >>> distances.ravel()
    array([4., 0., 5.])
    """
    height, width = grid
    n_places = height * width
    images = bank.reshape(-1, n_places, bank.shape[1])
    half_norms = None if metric == "cosine" else 0.5 * squared_norms(bank)
    rows = np.arange(n_places).reshape(grid)
    best = np.full((n_places, n_neighbors), -np.inf)  # the highest so far, ascending
    bound = np.zeros(n_places)
    bound[places] = rounding_bound(queries[places], half_norms, bank)
    is_asked = np.zeros(n_places, dtype=bool)
    is_asked[places] = True
    near_pairs = []
    for down in range(max(-radius, 1 - height), min(radius, height - 1) + 1):
        for right in range(max(-radius, 1 - width), min(radius, width - 1) + 1):
            own = rows[_overlap(height, -down), _overlap(width, -right)].ravel()
            other = rows[_overlap(height, down), _overlap(width, right)].ravel()
            # One product a place, whose shape does not depend on the other images of a call.
            near = images[:, other].transpose(1, 2, 0)
            values = product(queries[own][:, None], near)[:, 0]
            at = np.arange(len(images))[:, None] * n_places + other
            if half_norms is not None:
                values = values - half_norms[at].T.astype(values.dtype)
            values[~allowed[at].T] = -np.inf
            values[~is_asked[own]] = -np.inf
            both = np.concatenate([best[own], values], axis=1)
            best[own] = np.sort(np.partition(both, -n_neighbors)[:, -n_neighbors:])
            # The best only rise: what is behind them now is no candidate later.
            close = values >= (best[own, 0] - bound[own])[:, None]
            place, image = np.nonzero(close & np.isfinite(values))
            near_pairs.append((own[place], at[image, place], values[place, image]))
    q, r, value = (np.concatenate(column) for column in zip(*near_pairs, strict=True))
    least = np.bincount(q, minlength=n_places)[places].min()
    if least < n_neighbors:
        raise ValueError(
            f"n_neighbors={n_neighbors} is more than the {least} patches of the retrieved images "
            f"that lie within radius={radius} of a patch and are not masked; raise radius or "
            "n_retrieved, or lower n_neighbors"
        )
    close = value >= best[q, 0] - bound[q]
    number = np.cumsum(is_asked) - 1
    pairs = number[q[close]], r[close]
    return measure(queries[places], bank, pairs, n_neighbors, metric)


def _overlap(side, shift):
    """Places of a side that are still on it when they are moved back by a shift."""
    return slice(max(0, shift), min(side, side + shift))
