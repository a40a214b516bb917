"""Signs of inner products, in bfloat16 where the machine has it."""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skanomaly._typing import FloatArray
from skanomaly.core.search.tuning import DEFAULT_TUNING

_PACKED = NDArray[Any]  # numbers in the layout of their dtype in memory, see `pack`


def to_nearest(values: ArrayLike, dtype: str) -> NDArray[np.float32]:
    """Round to the nearest numbers that a dtype holds.

    Parameters
    ----------
    values : array-like of float
    dtype : {"bfloat16", "float32"}

    Returns
    -------
    ndarray of the same shape, float32
        Off by at most 2^-8 (bfloat16) or 2^-24 (float32) of the value.
    """
    out = np.asarray(values).astype(np.float32)
    if dtype == "bfloat16":
        bits = out.view(np.uint32)
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        bits &= np.uint32(0xFFFF0000)
    return out


def to_above(values: FloatArray, dtype: str) -> NDArray[np.float32]:
    """Round to numbers that a dtype holds, never down.

    Parameters
    ----------
    values : ndarray, float64
    dtype : {"bfloat16", "float32"}

    Returns
    -------
    ndarray of the same shape, float32
        Above by at most 2^-7 (bfloat16) or 2^-23 (float32) of the value.
    """
    out = np.asarray(values).astype(np.float32)
    out = np.where(out < values, np.nextafter(out, np.float32(np.inf)), out)
    if dtype == "bfloat16":
        bits = out.view(np.uint32)
        # Cutting the lower half of the bits moves negative numbers up and positive ones down.
        bits += np.where(out > 0, np.uint32(0xFFFF), np.uint32(0))
        bits &= np.uint32(0xFFFF0000)
    return out


def two_terms_above(values: FloatArray, dtype: str) -> NDArray[np.float32]:
    """Two numbers that a dtype holds, whose sum is never below a value, and next to it.

    Parameters
    ----------
    values : ndarray of shape (n,), float64
    dtype : {"bfloat16", "float32"}

    Returns
    -------
    ndarray of shape (n, 2), float32
    """
    high = to_nearest(values, dtype)
    return np.stack([high, to_above(values - high, dtype)], axis=-1)


def pack(values: FloatArray, dtype: str) -> _PACKED:
    """Numbers that a dtype holds, as from the functions above, in its layout in memory.

    Parameters
    ----------
    values : ndarray
    dtype : {"bfloat16", "float32"}

    Returns
    -------
    ndarray, float32 or uint16
        The upper halves of the floats for bfloat16.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if dtype == "float32":
        return values
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def round_and_pack(values: FloatArray) -> NDArray[np.uint16]:
    """Round to the nearest numbers of bfloat16 and pack them, by torch.

    Parameters
    ----------
    values : ndarray, float32 or float64

    Returns
    -------
    ndarray of the same shape, uint16
        As from :func:`pack`.
    """
    import torch

    return torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


def blocks_reaching_zero(
    rows: _PACKED,
    columns: _PACKED,
    block: int,
    rows_per_product: int = DEFAULT_TUNING.rows_per_sign,
) -> NDArray[np.bool_]:
    """Blocks of rows that have with a column an inner product that is not negative.

    Parameters
    ----------
    rows : ndarray of shape (n_blocks * block, dim), uint16 or float32
        As from :func:`pack`; finite.
    columns : ndarray of shape (dim, n_columns), the same dtype
    block : int
        Rows of a block.
    rows_per_product : int, default=512
        Rows in one matrix product, a multiple of `block`.

    Returns
    -------
    ndarray of shape (n_blocks, n_columns), bool

    Notes
    -----
    The products are summed in float32, and rounding a sum to bfloat16 keeps its sign. Read as
    integers, floats keep their sign too, and the maximum of integers is cheaper.
    """
    n_columns = columns.shape[1]
    out = np.empty((len(rows) // block, n_columns), dtype=bool)
    multiply = torch_products if rows.dtype == np.uint16 else _numpy_products
    for start, signs in multiply(rows, columns, rows_per_product):
        signs = signs.reshape(-1, block, n_columns)
        first = start // block
        np.greater_equal(signs.max(axis=1), 0, out=out[first : first + len(signs)])
    return out


def _numpy_products(rows, columns, step):
    result = np.empty((step, columns.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), step):
        left = rows[start : start + step]
        with np.errstate(invalid="ignore", over="ignore"):  # see skanomaly.core.products
            np.matmul(left, columns, out=result[: len(left)])
        yield start, result[: len(left)].view(np.int32)


def torch_products(
    rows: _PACKED, columns: _PACKED, step: int
) -> Iterator[tuple[int, NDArray[np.int16]]]:
    """Products in bfloat16, so many rows at a time.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, dim), uint16
        As from :func:`pack`; finite.
    columns : ndarray of shape (dim, n_columns), uint16
    step : int
        Rows in one matrix product.

    Yields
    ------
    start : int
        The first row.
    values : ndarray of shape (step or less, n_columns), int16
        The products in bfloat16, read as integers: those of numbers that are not negative have
        the order of the numbers. The next product overwrites them.
    """
    import torch

    left = torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)
    right = torch.from_numpy(columns.view(np.int16)).view(torch.bfloat16)
    result = torch.empty(min(step, len(rows)), columns.shape[1], dtype=torch.bfloat16)
    signs = result.view(torch.int16).numpy()
    for start in range(0, len(rows), step):
        n_rows = min(step, len(rows) - start)
        torch.mm(left[start : start + n_rows], right, out=result[:n_rows])
        yield start, signs[:n_rows]


@functools.cache
def fastest_dtype() -> Literal["bfloat16", "float32"]:
    """Precision in which the products that bound are faster on this machine.

    Returns
    -------
    {"bfloat16", "float32"}
        ``"bfloat16"`` only if torch is installed and sums the products in float32.
    """
    if not bfloat16_is_summed_in_float32():
        return "float32"
    rows, columns = _cancelling_products(1024, 64)
    left, right = pack(rows, "bfloat16"), pack(columns, "bfloat16")
    slow = _seconds(rows, columns)
    return "bfloat16" if _seconds(left, right) < slow else "float32"


@functools.cache
def bfloat16_is_summed_in_float32() -> bool:
    """Whether torch is installed and sums products of bfloat16 in float32 on this machine.

    Returns
    -------
    bool
        The bounds in bfloat16 hold only where it does.
    """
    if importlib.util.find_spec("torch") is None:
        return False
    # Products of all coordinates are of more terms, for which a library may sum in several steps.
    for n_rows, n_terms, step in ((1024, 64, DEFAULT_TUNING.rows_per_sign), (256, 1024, 256)):
        rows, columns = _cancelling_products(n_rows, n_terms)
        left, right = pack(rows, "bfloat16"), pack(columns, "bfloat16")
        if not _are_zero(torch_products(left, right, step), rows):
            return False
    return True


def _cancelling_products(n_rows, n_terms):
    """Rows and columns in bfloat16 of which every product is 0."""
    rng = np.random.default_rng(0)
    half = to_nearest(rng.standard_normal((n_rows, n_terms // 2)), "bfloat16")
    rows = np.concatenate([half, -rng.permuted(half, axis=1)], axis=1)
    return rows, np.ones((n_terms, 512), dtype=np.float32)


def _are_zero(products, rows):
    """Whether products with ones are zero up to the errors that the bounds allow for.

    Summed in bfloat16 they would be off by much more. `products` is of `torch_products`.
    """
    n_terms = rows.shape[1]
    allowed = n_terms * 2.0**-22 * np.sqrt(np.einsum("ij,ij->i", rows, rows) * n_terms)
    return not any(
        (
            np.abs((bits.astype(np.int32) << 16).view(np.float32))
            > allowed[start:][: len(bits), None]
        ).any()
        for start, bits in products
    )


def _seconds(rows, columns):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        blocks_reaching_zero(rows, columns, 32)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
