"""Signs of inner products, in bfloat16 where the machine has it."""

import functools
import importlib.util
import time

import numpy as np

_CHUNK = 512  # rows in one matrix product: its result stays in the cache


def to_nearest(values, dtype):
    """Round to numbers that `dtype` ("bfloat16" or "float32") holds; returned as float32."""
    out = np.asarray(values).astype(np.float32)
    if dtype == "bfloat16":
        bits = out.view(np.uint32)
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        bits &= np.uint32(0xFFFF0000)
    return out


def to_above(values, dtype):
    """The same, but never below `values` (float64)."""
    out = np.asarray(values).astype(np.float32)
    out = np.where(out < values, np.nextafter(out, np.float32(np.inf)), out)
    if dtype == "bfloat16":
        bits = out.view(np.uint32)
        # Cutting the lower half of the bits moves negative numbers up and positive ones down.
        bits += np.where(out > 0, np.uint32(0xFFFF), np.uint32(0))
        bits &= np.uint32(0xFFFF0000)
    return out


def two_terms_above(values, dtype):
    """Two columns whose sum is never below `values` (float64), and next to them."""
    high = to_nearest(values, dtype)
    return np.stack([high, to_above(values - high, dtype)], axis=-1)


def pack(values, dtype):
    """Numbers that `dtype` holds, as from the functions above, in its layout in memory.

    Returns
    -------
    ndarray, float32 or uint16
        The upper halves of the floats for bfloat16.
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    if dtype == "float32":
        return values
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def round_and_pack(values):
    """The numbers of bfloat16 next to `values` (floats), by torch: uint16, as from `pack`."""
    import torch

    return torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


def blocks_reaching_zero(rows, columns, block):
    """Blocks of rows that have with a column an inner product that is not negative.

    Parameters
    ----------
    rows : ndarray of shape (n_blocks * block, dim), uint16 or float32
        As from :func:`pack`; finite.
    columns : ndarray of shape (dim, n_columns), the same dtype
    block : int
        Rows of a block; it divides 512.

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
    multiply = _torch_products if rows.dtype == np.uint16 else _numpy_products
    for start, signs in multiply(rows, columns):
        signs = signs.reshape(-1, block, n_columns)
        first = start // block
        np.greater_equal(signs.max(axis=1), 0, out=out[first : first + len(signs)])
    return out


def _numpy_products(rows, columns):
    result = np.empty((_CHUNK, columns.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        left = rows[start : start + _CHUNK]
        with np.errstate(invalid="ignore", over="ignore"):  # see skanomaly.core.products
            np.matmul(left, columns, out=result[: len(left)])
        yield start, result[: len(left)].view(np.int32)


def _torch_products(rows, columns):
    import torch

    rows = torch.from_numpy(rows.view(np.int16)).view(torch.bfloat16)
    columns = torch.from_numpy(columns.view(np.int16)).view(torch.bfloat16)
    result = torch.empty(_CHUNK, columns.shape[1], dtype=torch.bfloat16)
    signs = result.view(torch.int16).numpy()
    for start in range(0, len(rows), _CHUNK):
        left = rows[start : start + _CHUNK]
        torch.mm(left, columns, out=result[: len(left)])
        yield start, signs[: len(left)]


@functools.cache
def fastest_dtype():
    """The faster of "float32" and, if torch sums its products in float32, "bfloat16"."""
    if importlib.util.find_spec("torch") is None:
        return "float32"
    rng = np.random.default_rng(0)
    half = to_nearest(rng.standard_normal((1024, 32)), "bfloat16")
    rows = np.concatenate([half, -rng.permuted(half, axis=1)], axis=1)
    columns = np.ones((64, 512), dtype=np.float32)
    left, right = pack(rows, "bfloat16"), pack(columns, "bfloat16")
    # Each sum is 0. In bfloat16 it would be off by a thousand times what is allowed for.
    allowed = 64 * 2.0**-22 * np.sqrt(np.einsum("ij,ij->i", rows, rows) * 64)
    for start, bits in _torch_products(left, right):
        sums = (bits.astype(np.int32) << 16).view(np.float32)
        if (np.abs(sums) > allowed[start : start + len(sums), None]).any():
            return "float32"
    slow = _seconds(rows, columns)
    return "bfloat16" if _seconds(left, right) < slow else "float32"


def _seconds(rows, columns):
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        blocks_reaching_zero(rows, columns, 32)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
