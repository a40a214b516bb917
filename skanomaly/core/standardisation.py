"""Mean and spread of each component of patch tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray

_BLOCK_BYTES = 2**21  # of float64 at a time: so much stays in the cache


def row_blocks(n_rows: int, dim: int, n_bytes: int = _BLOCK_BYTES) -> list[slice]:
    """Slices of so many rows as are in float64 at a time.

    Parameters
    ----------
    n_rows : int
        How many there are.
    dim : int
        Components of each.
    n_bytes : int
        What the rows of a slice take at most, if they are several.

    Returns
    -------
    list of slice
    """
    step = max(1, n_bytes // (dim * 8))
    return [slice(start, start + step) for start in range(0, n_rows, step)]


def valid_blocks(tokens: FloatArray, valid: NDArray[np.bool_]) -> Iterator[FloatArray]:
    """The rows that are not masked, so many at a time.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
    valid : ndarray of shape (n_tokens,), bool

    Yields
    ------
    ndarray of shape (n, dim)
    """
    for rows in row_blocks(*tokens.shape):
        yield tokens[rows] if valid[rows].all() else tokens[rows][valid[rows]]


def standardisation(
    tokens: FloatArray, valid: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Mean and standard deviation of each component.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches, which do not count.

    Returns
    -------
    centre, scale : ndarray of shape (dim,), float64
        Constant components, such as the colours of grey images, get the mean standard deviation of
        the others, or 1 where all are constant.
    varies : ndarray of shape (dim,), bool
        False for constant components.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.standardisation import standardisation
    >>> standardisation(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([True, True]))
    (array([2., 5.]), array([1., 1.]), array([ True, False]))
    """
    count = np.count_nonzero(valid)
    centre, squares = np.zeros((2, tokens.shape[1]))
    for x in valid_blocks(tokens, valid):
        centre += x.sum(axis=0, dtype=np.float64) / count
    for x in valid_blocks(tokens, valid):
        squares += np.square(x - centre).sum(axis=0) / count
    return (centre, *scales(centre, squares))


def scales(centre: FloatArray, variance: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Standard deviation of each component, as :func:`standardisation` has it.

    Parameters
    ----------
    centre, variance : ndarray of shape (dim,), float64

    Returns
    -------
    scale, varies : ndarray of shape (dim,)
    """
    scale = np.sqrt(variance)
    # What is left of a constant by rounding is no variance.
    varies = scale > 1e-6 * np.abs(centre)
    usual = scale[varies].mean() if varies.any() else 1.0
    return np.where(varies, scale, usual), varies
