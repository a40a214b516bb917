"""Tokens as nearest-neighbour searches and coresets want them, prepared when they are looked at."""

from __future__ import annotations

import numpy as np

from skanomaly._typing import FloatArray, IntArray

_ROWS_AT_ONCE = 256  # in float64: so many stay in the cache
_COPIED = 2**24  # numbers; 64 MB of float32


class PreparedRows:
    """Rows of tokens, brought to unit length for the cosine whenever they are read.

    Stands for the array that :func:`skanomaly.core.search.brute_force.prepare_bank` makes, and
    gives the same numbers to the bit, where a copy of all tokens would be too much memory.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim), float32 or float64
        Finite patch tokens, but for those that `rows` leaves out.
    metric : {"cosine", "euclidean"}
        Norms are taken in float64, so that neither tiny nor huge tokens over- or underflow.
    rows : ndarray of int, optional
        Only these rows, in their order.

    Raises
    ------
    ValueError
        For another metric.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.prepared import PreparedRows
    >>> PreparedRows(np.array([[3.0, 4.0], [0.0, 0.0]]), "cosine")[:1]
    array([[0.6, 0.8]])
    """

    def __init__(self, tokens: FloatArray, metric: str, rows: IntArray | None = None) -> None:
        if metric not in ("cosine", "euclidean"):
            raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}")
        self._tokens, self._rows = tokens, rows
        self.dtype = tokens.dtype
        self.shape = (len(tokens) if rows is None else len(rows), tokens.shape[1])
        self._scales, self._prepared = None, None
        if metric == "cosine" and self.shape[0] * self.shape[1] <= _COPIED:
            # A copy that takes little memory is faster to read.
            self._prepared = unit_rows(tokens, rows)
        elif metric == "cosine":
            scales = np.empty((2, len(self)))  # of each row the largest entry, and the norm then
            for part in blocks_of(len(self)):
                block = tokens[part if rows is None else rows[part]].astype(np.float64)
                scales[:, part] = divide_by_peak(block)
            self._scales = scales

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | IntArray) -> FloatArray:
        """Prepared rows; a slice may be a view of the tokens, or of a copy of them."""
        if self._prepared is not None:
            return self._prepared[key]
        given = self._tokens[key if self._rows is None else self._rows[key]]
        if self._scales is None:
            return given
        peaks, norms = self._scales[:, key, None]
        out = np.empty(given.shape, dtype=self.dtype)
        for part in blocks_of(len(out)):
            block = given[part].astype(np.float64)
            block /= peaks[part]
            np.divide(block, norms[part], out=out[part], casting="same_kind")
        return out


def unit_rows(tokens: FloatArray, rows: IntArray | None = None) -> FloatArray:
    """A copy of rows, brought to unit length; rows of zeros stay so.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim), float32 or float64
        Finite.
    rows : ndarray of int, optional
        Only these rows, in their order.

    Returns
    -------
    ndarray of shape (n, dim)
        C-contiguous, of the dtype of `tokens`; norms are taken in float64.
    """
    out = np.empty((len(tokens) if rows is None else len(rows), tokens.shape[1]), tokens.dtype)
    for part in blocks_of(len(out)):
        block = tokens[part if rows is None else rows[part]].astype(np.float64)
        _, norms = divide_by_peak(block)
        np.divide(block, norms[:, None], out=out[part], casting="same_kind")
    return out


def divide_by_peak(block: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Divide rows by their largest entries, in place.

    Parameters
    ----------
    block : ndarray of shape (n, dim), float64

    Returns
    -------
    peaks, norms : ndarray of shape (n,), float64
        By what each row was divided, and its norm afterwards; 1 for rows of zeros.
    """
    peaks = np.maximum(block.max(axis=1), -block.min(axis=1))
    peaks[peaks == 0] = 1
    block /= peaks[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", block, block))
    norms[norms == 0] = 1
    return peaks, norms


def blocks_of(n_rows: int) -> list[slice]:
    """Slices of so many rows as are in float64 at a time.

    Parameters
    ----------
    n_rows : int

    Returns
    -------
    list of slice
    """
    return [
        slice(start, min(start + _ROWS_AT_ONCE, n_rows))
        for start in range(0, n_rows, _ROWS_AT_ONCE)
    ]
