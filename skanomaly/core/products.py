"""Products of finite arrays."""

from __future__ import annotations

import numpy as np

from skanomaly._typing import FloatArray


def product(left: FloatArray, right: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """``left @ right`` of finite arrays without NumPy's spurious warnings.

    BLAS kernels for small matrices may compute on whatever lies beyond the end of an array and
    drop the result: the product is right, but NumPy sees the floating-point flag and warns.

    Parameters
    ----------
    left, right : ndarray
        As for ``np.matmul``.
    out : ndarray, optional
        Array for the result.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.products import product
    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    with np.errstate(invalid="ignore", over="ignore"):
        return np.matmul(left, right, out=out)


def squared_norms(tokens: FloatArray) -> FloatArray:
    """Squared Euclidean norms of rows.

    Parameters
    ----------
    tokens : ndarray of shape (n, dim)

    Returns
    -------
    ndarray of shape (n,), float64
    """
    return np.einsum("ij,ij->i", tokens, tokens, dtype=np.float64)
