"""Bank reduction: greedy k-center, exact or on projections, its merging, and how well it covers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.random_projection import GaussianRandomProjection

from skanomaly._typing import ArrayLike, FloatArray, IntArray
from skanomaly.core.lazy_distances import DEFAULT_SIZES, LazyDistances, Sizes
from skanomaly.core.prepared import PreparedRows
from skanomaly.core.products import product


def greedy_k_center(
    tokens: FloatArray | PreparedRows,
    n_centers: int,
    start: int = 0,
    radius: float = 0.0,
    *,
    sizes: Sizes = DEFAULT_SIZES,
) -> tuple[IntArray, float]:
    """Farthest-first traversal: the subset of PatchCore's memory bank.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim), float32 or float64, or PreparedRows
        Finite patch tokens; distances are Euclidean.
    n_centers : int
        Largest size of the subset, in [1, n].
    start : int, default=0
        Row of the first centre.
    radius : float, default=0.0
        Stop before `n_centers` once every token is within this distance of a centre.
    sizes : Sizes, optional
        Of the steps; they do not change the result.

    Returns
    -------
    indices : ndarray of shape (n_chosen,), int64
        Chosen rows in the order they were chosen. Fewer than `n_centers` when the rest are within
        `radius` of what was chosen; with the default, when they are duplicates of it.
    radius : float
        Covering radius: the largest distance of a token to its nearest centre. At most twice the
        smallest radius that any subset of that size can reach.

    Raises
    ------
    ValueError
        If `n_centers`, `start` or `radius` is out of range, or a token is not finite.

    Notes
    -----
    Each step takes the token farthest from the centres so far; of equal ones the lowest row.
    Distances are those of float64, taken as differences, so that the order does not depend on
    the threads or the kernels of the linear algebra, and a subset is the beginning of any larger
    one. The work is done by float32 matrix products, which leave out what their rounding error
    allows to be left out, and lazily: a distance that was measured against fewer centres is an
    upper bound, and most tokens are never compared with most centres.

    Beyond the tokens and the centres, memory for some 30 bytes per token and 100 MB of blocks at
    384 components is taken.

    References
    ----------
    .. [1] Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical
       Computer Science 38, 1985.
    .. [2] Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.coreset import greedy_k_center
    >>> tokens = np.array([[0.0], [1.0], [5.0], [6.0]])
    >>> greedy_k_center(tokens, 2)
    (array([0, 3]), 1.0)
    >>> greedy_k_center(tokens, 4, radius=1.0)
    (array([0, 3]), 1.0)
    """
    tokens = _checked(tokens)
    n = len(tokens)
    if isinstance(n_centers, bool) or not 1 <= n_centers <= n:
        raise ValueError(f"n_centers must be in [1, {n}], got {n_centers}")
    if isinstance(start, bool) or not 0 <= start < n:
        raise ValueError(f"start must be a row, in [0, {n - 1}], got {start}")
    if not radius >= 0:
        raise ValueError(f"radius must be >= 0, got {radius}")
    distances = LazyDistances(tokens, n_centers, start, sizes)
    while True:
        row, distance = distances.farthest()
        if len(distances.chosen) == n_centers or distance <= radius:
            return distances.chosen.copy(), distance
        distances.add(row)


def projected_k_center(
    tokens: FloatArray | PreparedRows,
    n_centers: int,
    start: int = 0,
    *,
    n_components: int = 128,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[IntArray, float]:
    """Greedy k-center on a Gaussian random projection of the tokens: an approximation.

    The order is greedy in the projection, so that the covering radius in the space of the tokens
    is larger than that of :func:`greedy_k_center`: by 10 to 15% for 384 components, of which each
    step is a third as much work. As the radius is measured besides, the time is hardly shorter.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim), float32 or float64, or PreparedRows
        Finite patch tokens.
    n_centers : int
        Largest size of the subset, in [1, n].
    start : int, default=0
        Row of the first centre.
    n_components : int, default=128
        Dimension of the projection. Tokens of no more components are not projected.
    random_state : int, RandomState instance or None, default=None
        Of the projection. None draws anew at each call.

    Returns
    -------
    indices : ndarray of shape (n_chosen,), int64
        Chosen rows in the order they were chosen.
    radius : float
        Covering radius in the space of the tokens, as from :func:`covering_radius`.

    References
    ----------
    .. [1] Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.
    .. [2] Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
       Approach", ICLR 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.coreset import projected_k_center
    >>> tokens = np.random.default_rng(0).normal(size=(500, 64)).astype("float32")
    >>> indices, radius = projected_k_center(tokens, 50, n_components=8, random_state=0)
    >>> len(indices)
    50
    """
    tokens = _checked(tokens)
    if tokens.shape[1] <= n_components:
        return greedy_k_center(tokens, n_centers, start)
    projection = GaussianRandomProjection(n_components, random_state=random_state).fit(tokens[:1])
    directions = projection.components_.T.astype(tokens.dtype)
    # A common offset would drown the distances in the rounding of the products.
    blocks = [slice(first, first + 4096) for first in range(0, len(tokens), 4096)]
    total = sum(tokens[rows].sum(axis=0, dtype=np.float64) for rows in blocks)
    reference = np.asarray(total / len(tokens), dtype=tokens.dtype)
    projected = np.empty((len(tokens), n_components), dtype=tokens.dtype)
    for rows in blocks:
        projected[rows] = product(tokens[rows] - reference, directions)
    indices, _ = greedy_k_center(projected, n_centers, start)
    return indices, covering_radius(tokens, indices)


def covering_radius(
    tokens: FloatArray | PreparedRows, indices: ArrayLike, *, sizes: Sizes = DEFAULT_SIZES
) -> float:
    """Largest distance of a token to the nearest of the chosen ones.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim), float32 or float64, or PreparedRows
        Finite patch tokens; distances are Euclidean.
    indices : array-like of int of shape (n_chosen,)
        The chosen rows, at least one.
    sizes : Sizes, optional
        Of the steps; they do not change the result.

    Returns
    -------
    float
        The radius, to the precision of float64.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.coreset import covering_radius
    >>> covering_radius(np.array([[0.0], [1.0], [5.0], [8.0]]), [1, 2])
    3.0
    """
    indices = np.asarray(indices)
    distances = LazyDistances(_checked(tokens), len(indices), indices[0], sizes)
    for row in indices[1:]:
        distances.add(row)
    return distances.farthest()[1]


def merge_coresets(
    coresets: Sequence[FloatArray],
    radii: Sequence[float],
    n_centers: int,
    start: int = 0,
    radius: float = 0.0,
) -> tuple[IntArray, float]:
    """A coreset of coresets, and a radius within which it covers all that they cover.

    Coresets of parts of the data, made on other machines or days, are merged without the data: a
    token lies within the radius of its part from a token of that part's coreset, which lies within
    the radius of the merger from a token of the merged one. By the triangle inequality it lies
    within the sum of both.

    Parameters
    ----------
    coresets : sequence of ndarray of shape (n_i, dim)
        The chosen tokens of each part, all of one dtype.
    radii : sequence of float
        Covering radius of each coreset.
    n_centers : int
        Largest size of the merged coreset, in [1, sum of n_i].
    start : int, default=0
        Row of the first centre.
    radius : float, default=0.0
        Stop before `n_centers` once every token of the coresets is within this distance.

    Returns
    -------
    indices : ndarray of shape (n_chosen,), int64
        Chosen rows of ``np.concatenate(coresets)`` in the order they were chosen.
    radius : float
        ``max(radii)`` plus the covering radius of the chosen in the coresets.

    Raises
    ------
    ValueError
        If there is not one radius, >= 0, for each coreset, or as :func:`greedy_k_center` does.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.coreset import merge_coresets
    >>> merge_coresets([np.array([[0.0], [4.0]]), np.array([[5.0], [9.0]])], [0.5, 0.25], 3)
    (array([0, 3, 1]), 1.5)
    """
    if len(coresets) != len(radii) or len(radii) == 0:
        raise ValueError(f"{len(coresets)} coresets and {len(radii)} radii: give one for each")
    if not min(radii) >= 0:
        raise ValueError(f"radii must be >= 0, got {list(radii)}")
    indices, added = greedy_k_center(np.concatenate(coresets), n_centers, start, radius)
    return indices, float(max(radii)) + added


def extend_k_center(
    tokens: FloatArray, n_kept: int, n_centers: int, *, sizes: Sizes = DEFAULT_SIZES
) -> tuple[IntArray, float]:
    """Farthest-first traversal that goes on from centres that were chosen before.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim), float32 or float64
        Finite patch tokens; the first ones are the centres so far.
    n_kept : int
        How many these are, at least 1.
    n_centers : int
        Largest size of the subset, in [n_kept, n].
    sizes : Sizes, optional
        Of the steps; they do not change the result.

    Returns
    -------
    indices : ndarray of shape (n_chosen,), int64
        ``0`` to ``n_kept - 1``, and the rows that were added, in their order.
    radius : float
        Largest distance of a token to the nearest of these.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.coreset import extend_k_center
    >>> extend_k_center(np.array([[0.0], [1.0], [5.0], [6.0]]), 1, 2)
    (array([0, 3]), 1.0)
    """
    distances = LazyDistances(_checked(tokens), n_centers, 0, sizes)
    for row in range(1, n_kept):
        distances.add(row)
    while True:
        row, distance = distances.farthest()
        if len(distances.chosen) == n_centers or distance <= 0:
            return distances.chosen.copy(), distance
        distances.add(row)


def coreset_size(coreset: float, n_tokens: int) -> int:
    """Number of tokens to keep for a ratio or a count.

    Parameters
    ----------
    coreset : float or int
        A float in (0, 1] is a ratio, an int a count.
    n_tokens : int
        Tokens to choose from.

    Returns
    -------
    int
        At least 1 for a ratio, and at most `n_tokens`.

    Raises
    ------
    ValueError
        For a bool.

    Examples
    --------
    >>> from skanomaly.core.coreset import coreset_size
    >>> coreset_size(0.1, 1000), coreset_size(50, 1000), coreset_size(5000, 1000)
    (100, 50, 1000)
    """
    if isinstance(coreset, bool):
        raise ValueError(f"coreset must be a ratio or a number of tokens, got {coreset!r}")
    if isinstance(coreset, float):
        return max(1, int(coreset * n_tokens))
    return min(int(coreset), n_tokens)


def _checked(tokens):
    if isinstance(tokens, PreparedRows):
        return tokens
    tokens = np.ascontiguousarray(tokens)
    if tokens.ndim != 2 or tokens.dtype not in (np.float32, np.float64):
        raise ValueError(
            "tokens must be a float32 or float64 array of shape (n, dim), got shape "
            f"{tokens.shape} and dtype {tokens.dtype}"
        )
    return tokens
