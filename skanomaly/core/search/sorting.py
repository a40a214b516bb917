"""An order of the rows of a bank in which those near in space are near in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import product

_K_MEANS_ROUNDS = 5
_K_MEANS_ROWS = 256  # for each centre, that k-means looks at
_BASIS_ROWS = 20000  # of a part, that its basis is computed from
_DIRECTIONS = 57  # of a basis: with 7 columns more, the products that bound are of 64 terms


@dataclass
class Part:
    """A run of rows of a sorted bank, and the coordinates in which it is widest.

    Parameters
    ----------
    start, stop : int
        The rows.
    center : ndarray of shape (dim,), float64
    basis : ndarray of shape (dim, n_directions), float64
        Orthonormal columns.
    scale : float
        A power of two about as large as the largest distance of a row to the centre.
    """

    start: int
    stop: int
    center: FloatArray
    basis: FloatArray
    scale: float

    def n_blocks(self, block: int) -> int:
        """Blocks of so many rows that the part is cut into, the last of which may be shorter.

        Parameters
        ----------
        block : int
            Rows of a block.

        Returns
        -------
        int
        """
        return -(-(self.stop - self.start) // block)


def sort_bank(
    bank: FloatArray, leaf: int, rows_per_part: int = 12288
) -> tuple[IntArray, list[Part]]:
    """Sort the rows of a bank in place, so that runs of `leaf` rows are compact.

    Parameters
    ----------
    bank : ndarray of shape (n, dim), float32 or float64
        Finite; norms between 1e-15 and 1e15.
    leaf : int
        Rows of a run.
    rows_per_part : int, default=12288
        About how many rows a part has.

    Returns
    -------
    order : ndarray of shape (n,), int64
        Where each row was before.
    parts : list of Part
        In the order of their rows.
    """
    rng = np.random.default_rng(0)
    centers = k_means(bank, max(1, len(bank) // rows_per_part), rng)
    part_of_row = nearest_center(bank, centers)
    orders, parts, start = [], [], 0
    for number in np.unique(part_of_row):
        rows = np.flatnonzero(part_of_row == number)
        center, basis = _coordinates(bank, rows, rng)
        widest = 0.0
        heads = np.empty((rows.size, basis.shape[1]), dtype=bank.dtype)
        for first in range(0, rows.size, 8192):
            tokens = bank[rows[first : first + 8192]] - center.astype(bank.dtype)
            heads[first : first + 8192] = product(tokens, basis.astype(bank.dtype))
            norms = np.sqrt(np.einsum("ij,ij->i", tokens, tokens, dtype=np.float64))
            widest = max(widest, float(norms.max()))
        scale = 2.0 ** np.ceil(np.log2(widest)) if widest > 0 else 1.0
        orders.append(rows[split_order(heads, leaf)])
        parts.append(Part(start, start + rows.size, center, basis, scale))
        start += rows.size
    order = np.concatenate(orders)
    for start in range(0, bank.shape[1], 16):  # columns: a whole copy would double the memory
        columns = slice(start, start + 16)
        bank[:, columns] = bank[order, columns]
    return order, parts


def k_means(tokens: FloatArray, n_centers: int, rng: np.random.Generator) -> FloatArray:
    """Centres of clusters by Lloyd's algorithm, on a sample of the tokens.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim)
    n_centers : int
        At most n.
    rng : numpy Generator
        Draws the sample and the first centres.

    Returns
    -------
    ndarray of shape (n_centers, dim)
        Of the dtype of `tokens`.
    """
    size = min(len(tokens), n_centers * _K_MEANS_ROWS)
    sample = tokens[np.sort(rng.choice(len(tokens), size, replace=False))]
    centers = sample[rng.choice(size, n_centers, replace=False)]
    for _ in range(_K_MEANS_ROUNDS):
        nearest = nearest_center(sample, centers)
        order = np.argsort(nearest, kind="stable")
        count = np.bincount(nearest, minlength=n_centers)
        used = np.flatnonzero(count)
        sums = np.add.reduceat(sample[order], (np.cumsum(count) - count)[used], axis=0)
        centers[used] = sums / count[used, None]
    return centers


def nearest_center(tokens: FloatArray, centers: FloatArray, block: int = 8192) -> IntArray:
    """Number of the centre nearest to each token, up to rounding.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim)
    centers : ndarray of shape (n_centers, dim)
    block : int, default=8192
        Tokens in one matrix product.

    Returns
    -------
    ndarray of shape (n,), int64
    """
    nearest = np.empty(len(tokens), dtype=np.int64)
    half_norms = 0.5 * np.einsum("ij,ij->i", centers, centers)
    for start in range(0, len(tokens), block):
        part = slice(start, start + block)
        nearest[part] = (product(tokens[part], centers.T) - half_norms).argmax(axis=1)
    return nearest


def split_order(coordinates: FloatArray, leaf: int) -> IntArray:
    """Order of the rows in which runs of `leaf` are compact: halved across the widest axis.

    Parameters
    ----------
    coordinates : ndarray of shape (n, n_axes)
    leaf : int

    Returns
    -------
    ndarray of shape (n,), int64
    """
    leaves, stack = [], [np.arange(len(coordinates))]
    while stack:
        rows = stack.pop()
        if len(rows) <= leaf:
            leaves.append(rows)
            continue
        here = coordinates[rows]
        axis = here.var(axis=0).argmax()
        order = np.argsort(here[:, axis], kind="stable")
        half = -(-len(rows) // leaf) // 2 * leaf
        stack += [rows[order[half:]], rows[order[:half]]]
    return np.concatenate(leaves)


def _coordinates(bank, rows, rng):
    if rows.size > _BASIS_ROWS:
        rows = np.sort(rng.choice(rows, _BASIS_ROWS, replace=False))
    tokens = bank[rows].astype(np.float64)
    center = tokens.mean(axis=0)
    tokens -= center
    _, vectors = np.linalg.eigh(product(tokens.T, tokens))
    return center, np.ascontiguousarray(vectors[:, ::-1][:, :_DIRECTIONS])
