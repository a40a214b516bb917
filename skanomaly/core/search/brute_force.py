"""Exact nearest patches in blocks of bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.prepared import unit_rows
from skanomaly.core.products import product, squared_norms
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning


def prepare_bank(tokens: FloatArray, metric: str, rows: IntArray | None = None) -> FloatArray:
    """Tokens as the search wants them: unit vectors for the cosine, unchanged otherwise.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim), float32 or float64
        Finite patch tokens.
    metric : {"cosine", "euclidean"}
        Norms are taken in float64, so that neither tiny nor huge tokens over- or underflow.
    rows : ndarray of int, optional
        Only these rows, in their order.

    Returns
    -------
    ndarray of shape (n, dim)
        A new C-contiguous array of the dtype of `tokens`. The zero vector stays zero.

    Raises
    ------
    ValueError
        For another metric.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.search.brute_force import prepare_bank
    >>> prepare_bank(np.array([[3.0, 4.0], [0.0, 0.0]]), "cosine")
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    if metric == "euclidean":
        return np.array(tokens, order="C") if rows is None else tokens[rows]
    if metric != "cosine":
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}")
    return unit_rows(tokens, rows)


def nearest_patches(
    queries: FloatArray,
    bank: FloatArray,
    n_neighbors: int = 1,
    metric: str = "cosine",
    query_groups: IntArray | None = None,
    bank_groups: IntArray | None = None,
    block_bytes: int = 2**26,
    row_numbers: IntArray | None = None,
    *,
    tuning: Tuning = DEFAULT_TUNING,
) -> tuple[FloatArray, IntArray]:
    """Exact nearest neighbours of patch tokens in a memory bank.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, dim)
        Finite tokens; prepared by :func:`prepare_bank` for the cosine.
    bank : ndarray of shape (n_bank, dim)
        The memory bank, prepared likewise, of the same dtype.
    n_neighbors : int, default=1
        How many neighbours.
    metric : {"cosine", "euclidean"}, default="cosine"
        The cosine distance is ``1 - cos``, in [0, 2]. A zero vector is at distance 0 from a zero
        vector and 1 from any other.
    query_groups, bank_groups : ndarray of int, optional
        A query never finds a bank row of its own group (leave-one-image-out); group -1 excludes
        nothing.
    block_bytes : int, default=2**26
        Bound on the memory of one block of inner products.
    row_numbers : ndarray of shape (n_bank,), int64, optional
        Numbers by which the rows of the bank go; 0, 1, 2, ... if None.
    tuning : Tuning, optional
        Sizes of the steps.

    Returns
    -------
    distances : ndarray of shape (n_queries, n_neighbors), float64
        Ascending.
    indices : ndarray of shape (n_queries, n_neighbors), int64
        Rows of the bank, by number; of equal distances the lower one comes first.

    Raises
    ------
    ValueError
        When a query is left with fewer than `n_neighbors` rows, and for rows whose squares are
        beyond their dtype, under "euclidean".

    Notes
    -----
    One matrix product per block ranks the candidates in the dtype of the bank. All that come
    within its rounding error of the best are measured again in float64, as differences, so that
    the result does not depend on how the queries are batched and identical tokens are at
    distance 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.search.brute_force import nearest_patches
    >>> bank = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> distances, indices = nearest_patches(np.array([[0.0, 1.0]]), bank)
    >>> distances, indices
    (array([[0.]]), array([[1]]))
    """
    if n_neighbors > len(bank):
        raise ValueError(_too_few(n_neighbors, len(bank)))
    half_norms = None if metric == "cosine" else 0.5 * squared_norms(bank)
    if half_norms is not None:
        for squares in (half_norms, 0.5 * squared_norms(queries)):
            if squares.max(initial=0) > np.finfo(bank.dtype).max / 4:
                raise ValueError(
                    f"these patch tokens are too large for distances in {bank.dtype}: multiply all "
                    "tokens by a number that brings them near 1"
                )
    query_block = max(1, min(2048, block_bytes // (tuning.rows_per_product * bank.itemsize)))
    distances = np.empty((len(queries), n_neighbors))
    indices = np.empty((len(queries), n_neighbors), dtype=np.int64)
    for start in range(0, len(queries), query_block):
        rows = slice(start, start + query_block)
        groups = None if query_groups is None else query_groups[rows]
        part = queries[rows]
        pairs = _candidates(
            part, bank, half_norms, n_neighbors, groups, bank_groups, metric, row_numbers, tuning
        )
        distances[rows], indices[rows] = measure(
            part, bank, pairs, n_neighbors, metric, row_numbers
        )
    return distances, indices


def pairs_of(mask: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """Do as ``np.nonzero`` does for a contiguous matrix of bools, several times faster.

    Parameters
    ----------
    mask : ndarray of shape (n_rows, n_columns), bool

    Returns
    -------
    rows, columns : ndarray of int64
        Of the entries that are True.
    """
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _candidates(
    queries, bank, half_norms, n_neighbors, query_groups, bank_groups, metric, row_numbers, tuning
):
    """Pairs (query, row of the bank) among which every one of the nearest is.

    They are ranked by q.b for the cosine and by q.b - |b|^2 / 2 otherwise: as by the distance.
    """
    dtype = bank.dtype
    slack = rounding_bound(queries, half_norms, bank)
    best = np.full((len(queries), n_neighbors), -np.inf, dtype=dtype)
    found = []
    for start in range(0, len(bank), tuning.rows_per_product):
        block = slice(start, start + tuning.rows_per_product)
        similarity = product(queries, bank[block].T)
        if half_norms is not None:
            similarity -= half_norms[block].astype(dtype)
        if query_groups is not None:
            _exclude_groups(similarity, query_groups, bank_groups[block])
        top = _largest(_maxima(similarity, n_neighbors), n_neighbors)
        best = _largest(np.concatenate([best, top], axis=1), n_neighbors)
        threshold = np.maximum(best[:, 0] - slack, np.finfo(dtype).min)
        # Most blocks hold a candidate of few queries: look for the pairs of those only.
        hit = np.flatnonzero(top[:, -1] >= threshold)
        similarity = similarity[hit]
        near = similarity >= threshold[hit, None]
        most = tuning.ties_to_measure + n_neighbors
        tied_rows = np.flatnonzero(np.count_nonzero(near, axis=1) > most)
        for part in np.array_split(tied_rows, -(-len(tied_rows) // 256) or 1):
            if part.size:
                tied = queries[hit[part]]
                numbers = None if row_numbers is None else row_numbers[block]
                near[part] = _thin_ties(tied, bank[block], near[part], n_neighbors, metric, numbers)
        q, r = pairs_of(near)
        found.append((hit[q], r + start, similarity[q, r]))
    q, r, value = (np.concatenate(parts) for parts in zip(*found, strict=True))
    keep = value >= threshold[q]
    return q[keep], r[keep]


def rounding_bound(
    queries: FloatArray, half_norms: FloatArray | None, bank: FloatArray
) -> float | FloatArray:
    """By how much a row that is among the nearest may look worse than the best one does.

    Parameters
    ----------
    queries : ndarray of shape (n_queries, dim)
        Prepared.
    half_norms : ndarray of shape (n_bank,), float64, or None
        Half the squared norms of the bank; None for unit vectors, under the cosine.
    bank : ndarray of shape (n_bank, dim)
        Prepared, of the dtype in which similarities are computed.

    Returns
    -------
    float or ndarray of shape (n_queries,)
        Twice a bound on the rounding errors of a similarity and of the distance that is measured
        in float64. Derived in ``docs/development/search.md``.
    """
    terms, info = bank.shape[1] + 4, np.finfo(bank.dtype)
    if half_norms is None:
        # In float64 the measured distances are no more precise than the similarities.
        return terms * info.eps if bank.dtype == np.float32 else 3 * terms * info.eps
    largest = np.sqrt(2 * half_norms.max())
    norms = np.sqrt(squared_norms(queries))
    product_error = terms * float(info.eps) * largest * (norms + largest)
    # Of a query far from all of the bank, even float64 measures equal distances.
    measured_error = terms * 2.0**-52 * (norms + largest) ** 2
    return product_error + measured_error + 2 * terms * float(info.tiny)  # tiny: underflow


def _exclude_groups(similarity, query_groups, bank_groups):
    for group in np.intersect1d(query_groups, bank_groups):
        if group >= 0:
            own = np.ix_(query_groups == group, bank_groups == group)
            similarity[own] = -np.inf


def _maxima(values, count):
    """Values of each row, in which the `count`-th largest is a lower bound of that of `values`.

    A maximum over strided columns is cheap; to find the largest of many numbers is not.
    """
    n_rows, n_columns = values.shape
    if count == 1 or n_columns < 64 * count or n_columns % 32:
        return values
    return values.reshape(n_rows, 32, n_columns // 32).max(axis=1)


def _largest(values, count):
    """The `count` largest of each row in ascending order, padded with -inf."""
    if count == 1:
        return values.max(axis=1, keepdims=True)
    if values.shape[1] > count:
        values = np.partition(values, values.shape[1] - count, axis=1)[:, -count:]
    top = np.sort(values, axis=1)
    missing = count - top.shape[1]
    return np.pad(top, ((0, 0), (missing, 0)), constant_values=-np.inf) if missing else top


def _thin_ties(queries, bank, near, n_neighbors, metric, row_numbers):
    """Of the candidates (bool matrix) of each query keep those that float64 cannot rank either.

    Of identical ones the `n_neighbors` lowest rows are kept.
    """
    rows = np.flatnonzero(near.any(axis=0))
    tokens = bank[rows]
    q, b = queries.astype(np.float64), tokens.astype(np.float64)
    one_is_zero = q.any(axis=1)[:, None] != b.any(axis=1)
    # Ties often have a large common offset: seen from one of the queries it is gone.
    b -= q[0]
    q -= q[0]
    half_norms = 0.5 * squared_norms(b)
    value = product(q, b.T) - half_norms
    if metric == "cosine":
        value = np.where(one_is_zero, 0.5 * squared_norms(q)[:, None] - 1, value)
    value[~near[:, rows]] = -np.inf
    last = np.partition(value, -n_neighbors, axis=1)[:, -n_neighbors]
    kept = value >= (last - rounding_bound(q, half_norms, b))[:, None]

    as_bytes = tokens.view(f"V{tokens.itemsize * tokens.shape[1]}").ravel()
    _, copy_of = np.unique(as_bytes, return_inverse=True)
    order = np.lexsort((rows if row_numbers is None else row_numbers[rows], copy_of))
    copy_of, kept = copy_of[order], kept[:, order]
    count = np.pad(np.cumsum(kept, axis=1), ((0, 0), (1, 0)))
    before = count[:, np.searchsorted(copy_of, copy_of)]
    thinned = np.zeros_like(near)
    thinned[:, rows[order]] = kept & (count[:, 1:] - before <= n_neighbors)
    return thinned


def measure(
    queries: FloatArray,
    bank: FloatArray,
    pairs: tuple[IntArray, IntArray],
    n_neighbors: int,
    metric: str,
    row_numbers: IntArray | None = None,
) -> tuple[FloatArray, IntArray]:
    """Measure the candidate pairs in float64 and keep the nearest of each query.

    Parameters
    ----------
    queries, bank, n_neighbors, metric, row_numbers
        As for :func:`nearest_patches`.
    pairs : tuple of (q, rows)
        Candidates: numbers of queries and rows of the bank, at least `n_neighbors` a query.

    Returns
    -------
    distances, indices : ndarray of shape (n_queries, n_neighbors)
        As from :func:`nearest_patches`.

    Raises
    ------
    ValueError
        When a query has fewer candidates.
    """
    q, r = pairs
    distances = np.empty(len(q))
    step = max(1, 2**17 // bank.shape[1])  # what stays in the cache
    for start in range(0, len(q), step):
        part = slice(start, start + step)
        difference = queries[q[part]].astype(np.float64) - bank[r[part]]
        squared = np.einsum("ij,ij->i", difference, difference)
        if metric == "cosine":
            # For unit vectors 1 - cos = |u - v|^2 / 2, without the cancellation; against a zero
            # vector that is 1/2, and the distance is 1.
            one_is_zero = np.abs(squared - 1) < 1e-3
            one_is_zero[one_is_zero] = ~(
                queries[q[part][one_is_zero]].any(axis=1) & bank[r[part][one_is_zero]].any(axis=1)
            )
            distances[part] = np.where(one_is_zero, 1.0, np.minimum(0.5 * squared, 2.0))
        else:
            distances[part] = np.sqrt(squared)
    r = r if row_numbers is None else row_numbers[r]
    order = np.lexsort((r, distances, q))
    q, r, distances = q[order], r[order], distances[order]
    rank = np.arange(len(q)) - np.searchsorted(q, q, side="left")
    kept = rank < n_neighbors
    if kept.sum() != len(queries) * n_neighbors:
        fewest = np.bincount(q, minlength=len(queries)).min()
        raise ValueError(_too_few(n_neighbors, fewest))
    shape = (len(queries), n_neighbors)
    return distances[kept].reshape(shape), r[kept].reshape(shape)


def _too_few(n_neighbors, n_left):
    return (
        f"n_neighbors={n_neighbors} is more than the {n_left} patches of the bank that are left "
        "to compare with; lower n_neighbors, enlarge the coreset or give more normal images"
    )
