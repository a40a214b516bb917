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


def exact_product(left: FloatArray, right: FloatArray) -> FloatArray:
    """``left @ right`` in which no sum is rounded: a row does not depend on the other rows.

    BLAS takes other kernels, which add in another order, for matrices of other shapes, and on
    other machines. Here entries are first rounded so that all sums are exact in float64, in
    whatever order they are taken.

    Parameters
    ----------
    left : ndarray of shape (..., n, dim)
    right : ndarray of shape (..., dim, m), float64
        As :func:`rounded_for_products` leaves it, with ``axis=-2``.

    Returns
    -------
    ndarray of shape (..., n, m), float64
        To 23 bits of the largest entry of each row of `left` and of each column of `right`, up to
        128 components; one bit less from each fourfold of them on.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.products import exact_product
    >>> exact_product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """
    return product(rounded_for_products(left, right.shape[-2], axis=-1), right)


def rounded_for_products(values: FloatArray, dim: int, axis: int) -> FloatArray:
    """Entries rounded so that sums of `dim` products of them are exact in float64.

    Parameters
    ----------
    values : ndarray
        Finite.
    dim : int
        Products in a sum.
    axis : int
        Along which the sums run.

    Returns
    -------
    ndarray of the same shape, float64
        Multiples of a power of two that fits the largest entry along the axis.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.products import rounded_for_products
    >>> rounded_for_products(np.array([[1.0, 2.0**-30]]), 128, axis=1)
    array([[1., 0.]])
    """
    bits = (53 - int(np.ceil(np.log2(max(dim, 2))))) // 2
    peak = np.maximum(values.max(axis=axis, keepdims=True), -values.min(axis=axis, keepdims=True))
    unit = np.ldexp(1.0, np.frexp(peak)[1] - bits)
    out = values / unit  # powers of two: only `rint` rounds
    np.rint(out, out=out)
    out *= unit
    return out


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
