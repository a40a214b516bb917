"""Copies and near copies among images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import ArrayLike, FloatArray
from skanomaly.core.products import product

# What float32 leaves between two runs of one model on one image, relative to the features; and
# how small that has to be beside their spread to tell images apart.
_NOISE, _SEPARATION = 1e-5, 1e-3
# An image and its near copies may be so many; the distance to the next one is what is usual.
_BURST = 10
# Share of the usual distance below which two images are copies: between these. What the distances
# say of the images decides; where they are too few to say it, it is the lower one.
_LOW, _HIGH = 0.07, 0.4
_FIRST = 4  # a nearer image than the fourth is not asked: it may be a copy
# Those of a curve have dimension 1. Less is the gap between large bursts.
_LEAST_DIMENSION = 0.7
# So many pairs in a set of independent images may come that near by chance: above the lower share,
# and below it.
_HARDLY_ANY, _FEW = 1e-6, 0.1
# Of fewer numbers an image is told from no other, and two may be equal by chance.
_LEAST_FEATURES = 64
_PROJECTIONS, _SKETCH = 8, 256


def find_copies(features: ArrayLike) -> list[tuple[int, int]]:
    """Find the images that are copies of another, up to noise.

    Parameters
    ----------
    features : array-like of shape (n_images, n_features)
        What an image looks like, by finite numbers; Euclidean distances tell how much two differ.

    Returns
    -------
    list of (int, int)
        ``(i, j)`` with ``i < j`` for each image `j` that is a copy of an earlier one, by `j`; `i`
        is the earliest of the images that are copies of one another.

    Notes
    -----
    Equal images are copies. Two others are, if their distance is a small share of that to each
    one's 10th nearest image (of fewer than 18 images: of that to half of the others), or of what
    that is in the median, where it is less. How small
    depends on how alike different images come by chance. Where distances behave as those of points
    in m dimensions, the nearest of `k` is within the share `t` of the k-th with a probability of
    about ``k t^m``; `t` is chosen so that one set in a million has such a pair, at most 0.4, or as
    0.07 where less than one set in ten has one that near. `m` is estimated from the distances to
    the 4th to 10th nearest, after [1]_; with fewer than 18 images `t` is 0.07. Of two images only
    equal ones are found, and near copies of more than nine others are not.

    References
    ----------
    .. [1] Levina and Bickel, "Maximum Likelihood Estimation of Intrinsic Dimension", NeurIPS 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.copies import find_copies
    >>> images = np.random.default_rng(0).normal(size=(8, 100))
    >>> images[5] = images[2] + 1e-3
    >>> images[7] = images[2]
    >>> find_copies(images)
    [(2, 5), (2, 7)]
    """
    features = np.asarray(features, dtype=np.float64)
    n = len(features)
    if n < 2:
        return []
    n_neighbors = min(_BURST, n // 2 + 1, n - 1)
    search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute")
    neighbors = search.fit(features - features.mean(axis=0)).kneighbors(return_distance=False)
    # The search finds them by products, which leave equal images at a distance.
    distances = np.stack(
        [np.linalg.norm(features - features[column], axis=1) for column in neighbors.T], axis=1
    )
    usual = distances.max(axis=1)
    # Of a kind of parts with few images, the furthest neighbour is one of another kind.
    usual = np.minimum(usual, np.median(usual))
    share = _share(np.sort(distances[usual > 0], axis=1)) if n > 2 else 0.0
    limit = np.maximum(share * usual, _noise(features))
    left, right = np.repeat(np.arange(n), n_neighbors), neighbors.ravel()
    near = distances.ravel() <= np.minimum(limit[left], limit[right])
    edges = coo_matrix((np.ones(near.sum()), (left[near], right[near])), shape=(n, n))
    _, part = connected_components(edges, directed=False)
    _, first = np.unique(part, return_index=True)
    return [(int(first[p]), j) for j, p in enumerate(part) if first[p] < j]


def _noise(features: FloatArray) -> FloatArray:
    """Distance to each image that is none; by a median, for outliers among the numbers."""
    spread = np.median(np.abs(features - np.median(features, axis=1, keepdims=True)), axis=1)
    separation = _SEPARATION * spread * np.sqrt(features.shape[1])
    return np.minimum(_NOISE * np.linalg.norm(features, axis=1), separation)


def _share(distances: FloatArray) -> float:
    """Share of the distance to the last neighbour within which different images hardly come."""
    n, n_neighbors = distances.shape
    if n == 0 or n_neighbors < _BURST:
        return _LOW
    ranks = np.arange(_FIRST, _BURST)
    with np.errstate(divide="ignore"):  # of equal distances, which say that m is infinite
        dimensions = np.log(_BURST / ranks) / np.log(
            distances[:, -1:] / distances[:, _FIRST - 1 : -1]
        )
    dimension = float(np.median(dimensions))
    if dimension < _LEAST_DIMENSION:
        return _LOW
    rare, seldom = ((pairs / (n * _BURST)) ** (1 / dimension) for pairs in (_HARDLY_ANY, _FEW))
    return float(np.clip(rare, min(seldom, _LOW), _HIGH))


def copies_among(tokens: PatchTokens) -> list[tuple[int, int]]:
    """Find the images whose patch tokens are copies of another image's, up to noise.

    Parameters
    ----------
    tokens : PatchTokens
        Of a view of each image.

    Returns
    -------
    list of (int, int)
        As of :func:`find_copies`. Images of different grids are not compared, nor those of fewer
        than 64 numbers, whose tokens tell too little of them.

    Notes
    -----
    Tokens are reduced to a few random projections of each patch, and these to 256 sums. The mean
    of an image counts as much as one patch, so that two exposures of one part are near copies.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._tokens import check_tokens
    >>> from skanomaly.core.copies import copies_among
    >>> images = np.random.default_rng(0).normal(size=(8, 5, 5, 6))
    >>> images[4] = images[1]
    >>> copies_among(check_tokens(images))
    [(1, 4)]
    """
    return copies_by_features(image_features(tokens))


def image_features(tokens: PatchTokens) -> list[FloatArray]:
    """By what :func:`copies_among` tells images apart.

    Parameters
    ----------
    tokens : PatchTokens
        Of a view of each image.

    Returns
    -------
    list of ndarray of shape (n_features,), float64
        At most 264 numbers of each image, which depend on it alone; none of an image of fewer than
        64 numbers. The first is its number of patches.
    """
    lengths, dim = np.diff(tokens.offsets), tokens.dim
    found: list[FloatArray] = [np.empty(0)] * tokens.n_images
    for length in np.unique(lengths).tolist():
        if length * dim < _LEAST_FEATURES:
            continue
        images = np.flatnonzero(lengths == length)
        of_length = _features(tokens, images, length)
        for image, features in zip(images.tolist(), of_length, strict=True):
            found[image] = np.concatenate([[length], features])
    return found


def copies_by_features(features: Sequence[FloatArray]) -> list[tuple[int, int]]:
    """Find the images that are copies of another one, by what was kept of them.

    Parameters
    ----------
    features : sequence of ndarray
        As from :func:`image_features`, of any images.

    Returns
    -------
    list of (int, int)
        As of :func:`copies_among`.
    """
    lengths = np.array([of_image[0] if len(of_image) else 0 for of_image in features])
    pairs = []
    for length in np.unique(lengths[lengths > 0]):
        images = np.flatnonzero(lengths == length).tolist()
        if len(images) > 1:
            found = find_copies(np.stack([features[i][1:] for i in images]))
            pairs += [(images[i], images[j]) for i, j in found]
    return sorted(pairs, key=lambda pair: pair[1])


def _features(tokens: PatchTokens, images: np.ndarray, length: int) -> FloatArray:
    """What tells images of one number of patches apart, (n_images, n_features), float64."""
    rng, dim = np.random.RandomState(0), tokens.dim
    directions = rng.standard_normal((dim, _PROJECTIONS)) if dim > _PROJECTIONS else np.eye(dim)
    directions = directions.astype(tokens.values.dtype)
    n_numbers = length * directions.shape[1]
    # Each number, with a random sign, enters one of the sums: distances are kept on average.
    order = rng.permutation(n_numbers)
    signs = rng.choice([-1.0, 1.0], n_numbers)
    starts = np.arange(min(_SKETCH, n_numbers)) * n_numbers // min(_SKETCH, n_numbers)
    out = np.empty((len(images), len(starts) + directions.shape[1]))
    for k, image in enumerate(images):
        rows = tokens.rows(image)
        numbers = product(tokens.values[rows], directions).astype(np.float64)
        valid = tokens.valid[rows]
        mean = numbers[valid].mean(axis=0)
        numbers = np.where(valid[:, None], numbers - mean, 0).ravel()
        out[k] = np.concatenate([np.add.reduceat((numbers * signs)[order], starts), mean])
    return out
