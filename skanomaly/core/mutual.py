"""Mutual scores: how far each patch of an image is from the patches of every other image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.prepared import unit_rows
from skanomaly.core.products import product
from skanomaly.core.squares import box_sums

BLOCK_BYTES = 2**29  # of the distances of some images' patches to every image
_ROWS = 1024  # of a product; images of few patches are taken together


def neighborhood_tokens(tokens: PatchTokens, part: slice, side: int) -> FloatArray:
    """Unit tokens of the mean over the square around each patch, rounded for exact products.

    Parameters
    ----------
    tokens : PatchTokens
        Without views.
    part : slice
        Components that are taken.
    side : int
        Odd side of the square, in patches. Beyond the border of the grid, and where a patch is
        masked, there is nothing to add.

    Returns
    -------
    ndarray of shape (n_tokens, n_components), float32
        Multiples of a power of two, such that sums of their products are exact in float64; zero for
        masked patches.

    Raises
    ------
    ValueError
        When there are squares of several patches, and no grid.
    """
    n_components = len(range(*part.indices(tokens.dim)))
    out = np.empty((len(tokens.values), n_components), dtype=np.float32)
    # Sums of so many products of numbers up to 1, and of their squared norms, fit 53 bits.
    unit = 0.5 ** ((52 - int(np.ceil(np.log2(n_components + 2)))) // 2)
    for image, grid in enumerate(tokens.grids):
        rows = tokens.rows(image)
        values = np.where(tokens.valid[rows, None], tokens.values[rows, part], 0)
        if side > 1 and grid:
            if len(grid) != 2:
                raise ValueError(
                    f"neighborhoods of {side} x {side} patches need tokens of a grid, of shape "
                    "(n_images, grid_h, grid_w, dim): pass these, or neighborhoods=(1,)"
                )
            values = box_sums(values.reshape(*grid, -1).astype(np.float64), side)
            values = values.reshape(len(out[rows]), -1)
        directions = unit_rows(values.astype(np.float64, copy=False))
        out[rows] = np.rint(directions / unit) * unit
        out[rows][~tokens.valid[rows]] = 0
    return out


def query_blocks(tokens: PatchTokens) -> Iterator[IntArray]:
    """Numbers of consecutive images whose distances to all images take no more than some memory.

    Parameters
    ----------
    tokens : PatchTokens
        An image alone may take more.

    Yields
    ------
    ndarray of int
    """
    rows, start = max(1, BLOCK_BYTES // (4 * tokens.n_images)), 0
    while start < tokens.n_images:
        last = np.searchsorted(tokens.offsets, tokens.offsets[start] + rows, side="right") - 1
        stop = max(start + 1, int(last))
        yield np.arange(start, stop)
        start = stop


def image_distances(
    directions: FloatArray,
    tokens: PatchTokens,
    queries: IntArray,
    excluded: NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Distance of each patch of some images to the nearest patch of every image.

    Parameters
    ----------
    directions : ndarray of shape (n_tokens, dim), float32
        From :func:`neighborhood_tokens`.
    tokens : PatchTokens
        Whose masked patches are nearest to nothing.
    queries : ndarray of int
        Consecutive images.
    excluded : ndarray of shape (n_tokens,), bool, optional
        Patches that are nobody's nearest, but are measured.

    Returns
    -------
    ndarray of shape (n_query_tokens, n_images), float32
        Euclidean, between unit vectors. Infinite to an image without any patch left, and undefined
        for masked patches.

    Notes
    -----
    The products are exact, so that nothing depends on the order of the images. Two query images are
    compared by one product, in both directions.
    """
    first, stop = tokens.offsets[queries[0]], tokens.offsets[queries[-1] + 1]
    out = np.full((stop - first, tokens.n_images), np.inf, dtype=np.float32)
    kept = tokens.valid if excluded is None else tokens.valid & ~excluded
    chunks = _chunks(tokens, queries)
    own = {int(chunk[0]) for chunk in chunks}
    before = np.arange(queries[0])
    after = np.arange(queries[-1] + 1, tokens.n_images)
    others = chunks + [c for images in (before, after) for c in _chunks(tokens, images)]
    for number, left in enumerate(chunks):
        rows = _valid_rows(tokens, left)
        left_terms = _with_norms(directions[rows], swapped=False)
        for right in others[number:]:
            columns = _valid_rows(tokens, right)
            # Minus half the squared distances.
            near = product(left_terms, _with_norms(directions[columns], swapped=True).T)
            found = _nearest(near, kept[columns], columns, tokens, right)
            out[np.ix_(rows - first, right)] = found
            if int(right[0]) in own and right is not left:
                found = _nearest(near.T, kept[rows], rows, tokens, left)
                out[np.ix_(columns - first, left)] = found
    return out


def mutual_blocks(
    tokens: PatchTokens,
    parts: Sequence[slice],
    sides: Sequence[int],
    share: float,
    others: NDArray[np.bool_],
    excluded: NDArray[np.bool_] | None = None,
    means: bool = False,
) -> Iterator[tuple[IntArray, FloatArray, FloatArray | None]]:
    """Scores of patches by all other images, some images at a time.

    Parameters
    ----------
    tokens : PatchTokens
        Without views.
    parts : sequence of slice
        Parts of a token, each compared by itself.
    sides : sequence of int
        Of the squares that tokens are averaged over, each compared by itself.
    share : float
        As of :func:`lowest_mean`.
    others : ndarray of shape (n_images, n_images), bool
        Which images each image is compared to.
    excluded : ndarray of shape (n_tokens,), bool, optional
        As of :func:`image_distances`.
    means : bool
        Whether mean distances are wanted.

    Yields
    ------
    images : ndarray of int
        Consecutive.
    scores : ndarray of shape (n_tokens_of_images,), float64
        The mean over parts and sides; undefined for masked patches.
    distances : ndarray of shape (n_tokens_of_images, n_images), float32, or None
        The same mean of the distances to each image.
    """
    n = len(parts) * len(sides)
    for images in query_blocks(tokens):
        start, stop = tokens.offsets[images[0]], tokens.offsets[images[-1] + 1]
        scores, mean = np.zeros(stop - start), None
        for part in parts:
            for side in sides:
                directions = neighborhood_tokens(tokens, part, side)
                found = image_distances(directions, tokens, images, excluded)
                for image in images:
                    rows = slice(tokens.offsets[image] - start, tokens.offsets[image + 1] - start)
                    scores[rows] += lowest_mean(found[rows], others[image], share) / n
                if means:
                    found /= n
                    mean = found if mean is None else np.add(mean, found, out=mean)
        yield images, scores, mean


def _chunks(tokens, images):
    """Consecutive images, so many together as a product takes rows of."""
    chunks, start = [], 0
    while start < len(images):
        end = tokens.offsets[images[start]] + _ROWS
        stop = start + 1
        while stop < len(images) and tokens.offsets[images[stop] + 1] <= end:
            stop += 1
        chunks.append(images[start:stop])
        start = stop
    return chunks


def _valid_rows(tokens, images):
    first, stop = tokens.offsets[images[0]], tokens.offsets[images[-1] + 1]
    return first + np.flatnonzero(tokens.valid[first:stop])


def _with_norms(directions, swapped):
    """Rows whose products with the swapped ones are minus half the squared distances, exactly."""
    terms = np.empty((len(directions), directions.shape[1] + 2))
    terms[:, :-2] = directions
    half = -0.5 * np.einsum("ij,ij->i", terms[:, :-2], terms[:, :-2])
    terms[:, -2], terms[:, -1] = (1, half) if swapped else (half, 1)
    return terms


def _nearest(near, kept, columns, tokens, images):
    """Distance of each row to the nearest column of each image."""
    if not kept.all():
        near, columns = near[:, kept], columns[kept]
    starts = np.searchsorted(columns, tokens.offsets[images])
    filled = np.diff([*starts, len(columns)]) > 0
    out = np.full((len(near), len(images)), np.inf)
    if len(images) == 1 and filled[0]:
        out[:, 0] = near.max(axis=1)
    elif filled.any():
        out[:, filled] = np.maximum.reduceat(near, starts[filled], axis=1)
    out[:, filled] = np.sqrt(np.maximum(-2 * out[:, filled], 0))
    return out


def lowest_mean(distances: FloatArray, others: NDArray[np.bool_], share: float) -> FloatArray:
    """Mean of each patch's lowest distances to other images.

    Parameters
    ----------
    distances : ndarray of shape (n_tokens, n_images), float32
        Of the patches of one image.
    others : ndarray of shape (n_images,), bool
        Which images count.
    share : float
        Of the others, rounded down, but one at least.

    Returns
    -------
    ndarray of shape (n_tokens,), float64
        Infinite distances, to images without any patch left, count where no others do.
    """
    found = distances[:, others]
    count = n_lowest(int(others.sum()), share)
    lowest = np.sort(np.partition(found, count - 1, axis=1)[:, :count], axis=1).astype(np.float64)
    finite = np.isfinite(lowest)
    return np.where(finite, lowest, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)


def n_lowest(n_others: int, share: float) -> int:
    """How many of the other images a share of them is: rounded down, but one at least."""
    return max(1, int(share * n_others))
