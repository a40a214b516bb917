"""The filter bank in a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skanomaly._typing import FloatArray
from skanomaly.core.filter_bank import (
    CALIBRATION,
    COLOUR_WINDOWS,
    EDGE_STEERING,
    ENERGY_WINDOWS,
    FIRST,
    FLAT,
    HALVE,
    LINE_STEERING,
    SECOND,
    SMOOTH,
    pooling_matrix,
    total_weights,
)
from skanomaly.deployment._graph import Graph

_REACH = len(SMOOTH) // 2
_DOUBLE, _FLOAT = 11, 1  # as ONNX numbers them


def filter_bank_tokens(graph: Graph, x: str, size: tuple[int, int], stride: int) -> str:
    """Add the nodes of :func:`skanomaly.core.filter_bank.filter_bank_features`.

    Parameters
    ----------
    graph : Graph
    x : str
        Of float32 (batch, 3, height, width): grey levels from 0 to 255.
    size : tuple of int
        ``(height, width)``.
    stride : int
        Side of a patch in pixels.

    Returns
    -------
    str
        Of float32 (batch, grid_h, grid_w, 102).
    """
    grid = (-(-size[0] // stride), -(-size[1] // stride))
    planes = _opponent_planes(graph, x)
    groups = _colour_statistics(graph, planes, size, grid)
    level_size = size
    for level, window in enumerate(ENERGY_WINDOWS):
        if level:
            planes, level_size = _halved(graph, planes, level_size)
        energies = _energies(graph, planes, level_size)
        pooled = _pooled(graph, energies, level_size, size, grid, window, level)
        groups.append(_calibrated(graph, _fourth_root(graph, pooled), _ENERGIES))
    return graph.op("Transpose", graph.op("Concat", *groups, axis=1), perm=[0, 2, 3, 1])


def _opponent_planes(graph: Graph, x: str) -> str:
    """(batch, 3, height, width): luma, red against green, yellow against blue."""
    red, green, blue = graph.ops("Split", x, n_outputs=3, axis=1, num_outputs=3)
    yellow = graph.op("Add", red, green)
    luma = graph.op("Div", graph.op("Add", yellow, blue), _float(graph, 3))
    against_blue = graph.op("Sub", graph.op("Div", yellow, _float(graph, 2)), blue)
    planes = graph.op("Concat", luma, graph.op("Sub", red, green), against_blue, axis=1)
    return graph.op("Div", planes, _float(graph, 255))


def _colour_statistics(
    graph: Graph, planes: str, size: tuple[int, int], grid: tuple[int, int]
) -> list[str]:
    """Mean and compressed standard deviation of each plane, in each of the windows."""
    means, contrasts = [], []
    sides = graph.constant(np.array([2, 3]))
    offset = graph.op("ReduceMean", graph.op("Cast", planes, to=_DOUBLE), sides, keepdims=1)
    offset = graph.op("Cast", offset, to=_FLOAT)
    planes = graph.op("Cast", graph.op("Sub", planes, offset), to=_DOUBLE)
    offset = graph.op("Cast", offset, to=_DOUBLE)
    moments = graph.op("Concat", planes, graph.op("Mul", planes, planes), axis=1)
    for window in COLOUR_WINDOWS:
        pooled = _pooled(graph, moments, size, size, grid, window, 0, np.float64)
        mean, square = graph.ops("Split", pooled, n_outputs=2, axis=1, num_outputs=2)
        # Not times 1 - FLAT at once, which ONNX Runtime takes for times 1.
        flat = graph.op("Mul", square, graph.constant(np.float64(FLAT)))
        total = graph.constant(total_weights(size, grid, window))
        variance = graph.op("Sub", square, graph.op("Div", graph.op("Mul", mean, mean), total))
        variance = graph.op("Sub", variance, flat)
        variance = graph.op("Max", variance, graph.constant(np.float64(0)))
        contrast = graph.op("Cast", _fourth_root(graph, variance), to=_FLOAT)
        mean = graph.op("Cast", graph.op("Add", mean, offset), to=_FLOAT)
        means.append(_calibrated(graph, mean, _MEANS))
        contrasts.append(_calibrated(graph, contrast, _CONTRASTS))
    return means + contrasts


def _steering() -> FloatArray:
    """From the derivatives to 4 edges of luma, 2 of each colour, 4 lines of luma, and 2 blobs.

    The other half of the responses are these with the other sign. Derivatives are, of each plane,
    the first along x, the second along x, the first along y and the second along y; and the mixed
    one of luma.
    """
    made = np.zeros((14, 13), dtype=np.float32)
    luma, chroma = (EDGE_STEERING[name] for name in ("luma", "chroma"))
    for rows, plane, steering in (((0, 4), 0, luma), ((4, 6), 1, chroma), ((6, 8), 2, chroma)):
        half = steering[: len(steering) // 2]
        made[slice(*rows), [2 * plane, 6 + 2 * plane]] = half
    made[8:12, [1, 12, 7]] = LINE_STEERING
    made[12, [3, 9]] = made[13, [5, 11]] = 1
    return made[:, :, None, None]


# Where the responses of the filters, and after them those of the other sign, belong.
_ORDER = [0, 1, 2, 3, 14, 15, 16, 17]  # luma edges
_ORDER += [4, 5, 18, 19, 6, 7, 20, 21]  # chroma edges
_ORDER += [8, 9, 10, 11, 22, 23, 24, 25]  # luma lines
_ORDER += [12, 13, 26, 27]  # chroma blobs
_ENERGIES = ["luma edges"] * 8 + ["chroma edges"] * 8 + ["luma lines"] * 8 + ["chroma blobs"] * 4
_MEANS = ["luma", "chroma", "chroma"]
_CONTRASTS = ["luma contrast", "chroma contrast", "chroma contrast"]


def _energies(graph: Graph, planes: str, size: tuple[int, int]) -> str:
    """Squares of the rectified responses, (batch, 28, height, width)."""
    padded = _reflected(graph, planes, size, _REACH, (_REACH, _REACH))
    # Step by step, as by NumPy: where an image is flat, what is left is rounding alone.
    smooth_y, smooth_x = (_filtered(graph, padded, [SMOOTH], axis) for axis in (0, 1))
    along_x = _filtered(graph, smooth_y, [FIRST, SECOND], 1)
    along_y = _filtered(graph, smooth_x, [FIRST, SECOND], 0)
    luma = graph.op("Slice", padded, *(graph.constant(np.array([n])) for n in (0, 1, 1)))
    mixed = _filtered(graph, _filtered(graph, luma, [FIRST], 0, 1), [FIRST], 1, 1)
    derivatives = graph.op("Concat", along_x, along_y, mixed, axis=1)
    found = graph.op("Conv", derivatives, graph.constant(_steering()))
    both = graph.op("Concat", found, graph.op("Neg", found), axis=1)
    rectified = graph.op("Relu", both)
    return graph.op("Mul", rectified, rectified)


def _filtered(
    graph: Graph, planes: str, kernels: list[FloatArray], axis: int, n_planes: int = 3
) -> str:
    """Each plane by each of some filters along one axis, which becomes shorter by their reach."""
    kernel = np.tile(np.stack(kernels), (n_planes, 1))[:, None]
    shaped = np.expand_dims(kernel, 3 - axis)
    return graph.op("Conv", planes, graph.constant(shaped), group=n_planes)


def _halved(graph: Graph, planes: str, size: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    """Next level of the pyramid, and its size."""
    padded = _reflected(graph, planes, size, 1, (1 + size[0] % 2, 1 + size[1] % 2))
    kernel = np.broadcast_to(np.outer(HALVE, HALVE), (3, 1, 4, 4))
    halved = graph.op("Conv", padded, graph.constant(kernel), group=3, strides=[2, 2])
    return halved, (-(-size[0] // 2), -(-size[1] // 2))


def _reflected(
    graph: Graph, planes: str, size: tuple[int, int], before: int, after: tuple[int, int]
) -> str:
    """Continued beyond the borders by reflection, the outermost pixel being the first of it."""
    for axis in (0, 1):
        source = np.pad(np.arange(size[axis]), (before, after[axis]), mode="symmetric")
        planes = graph.op("Gather", planes, graph.constant(source), axis=axis + 2)
    return planes


def _pooled(
    graph: Graph,
    channels: str,
    level_size: tuple[int, int],
    size: tuple[int, int],
    grid: tuple[int, int],
    window: float,
    level: int,
    dtype: type[np.floating[Any]] = np.float32,
) -> str:
    """Gaussian means around the centres of the cells."""
    rows, columns = (
        np.asarray(pooling_matrix(*sides, window, level), dtype=dtype)
        for sides in zip(level_size, size, grid, strict=True)
    )
    # A copy: the function hands out the same array again, the transpose of which is another.
    across = graph.op("MatMul", channels, graph.constant(np.ascontiguousarray(columns.T)))
    return graph.op("MatMul", graph.constant(rows), across)


def _fourth_root(graph: Graph, x: str) -> str:
    return graph.op("Sqrt", graph.op("Sqrt", x))


def _calibrated(graph: Graph, channels: str, names: Sequence[str]) -> str:
    if names is _ENERGIES:
        channels = graph.op("Gather", channels, graph.constant(np.array(_ORDER)), axis=1)
    centres, scales = np.array([CALIBRATION[name] for name in names], dtype=np.float32).T
    channels = graph.op("Sub", channels, graph.constant(centres.reshape(-1, 1, 1)))
    return graph.op("Div", channels, graph.constant(scales.reshape(-1, 1, 1)))


def _float(graph: Graph, value: float) -> str:
    return graph.constant(np.float32(value))
