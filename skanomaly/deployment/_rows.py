"""Patch tokens in a graph: which are masked, and in what units they are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.deployment._graph import Graph


@dataclass(frozen=True)
class Rows:
    """Names of the patch tokens of a batch of images.

    Attributes
    ----------
    tokens : str
        Of float32 (batch, n_patches, dim); 0 where a patch is masked.
    valid : str
        Of bool (batch, n_patches); False where a patch is masked.
    grid : tuple of int
        ``(grid_h, grid_w)`` with ``grid_h * grid_w == n_patches``.
    """

    tokens: str
    valid: str
    grid: tuple[int, int]

    @property
    def n_patches(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]


def rows_of(graph: Graph, tokens: str, grid: tuple[int, int]) -> Rows:
    """The patches of a batch in rows.

    Parameters
    ----------
    graph : Graph
    tokens : str
        Of float32 (batch, grid_h, grid_w, dim); a masked patch is NaN in all components.
    grid : tuple of int

    Returns
    -------
    Rows
    """
    rows = reshape(graph, tokens, (0, grid[0] * grid[1], -1))
    first = graph.op("Gather", rows, integers(graph, 0), axis=2)
    valid = graph.op("Not", graph.op("IsNaN", first))
    kept = graph.op("Where", unsqueeze(graph, valid, 2), rows, floats(graph, 0.0))
    return Rows(kept, valid, grid)


def integers(graph: Graph, value: int | Sequence[int] | np.ndarray) -> str:
    """A constant of int64."""
    return graph.constant(np.asarray(value, dtype=np.int64))


def floats(graph: Graph, value: float | FloatArray) -> str:
    """A constant of float32."""
    return graph.constant(np.asarray(value, dtype=np.float32))


def doubles(graph: Graph, value: float | FloatArray | IntArray) -> str:
    """A constant of float64."""
    return graph.constant(np.asarray(value, dtype=np.float64))


def reshape(graph: Graph, x: str, shape: Sequence[int]) -> str:
    """In another shape; 0 stands for the size that there is, -1 for what is left."""
    return graph.op("Reshape", x, integers(graph, shape))


def unsqueeze(graph: Graph, x: str, axis: int) -> str:
    """With an axis of size 1."""
    return graph.op("Unsqueeze", x, integers(graph, [axis]))


def as_double(graph: Graph, x: str) -> str:
    """In float64."""
    return graph.op("Cast", x, to=_DOUBLE)


def as_float(graph: Graph, x: str) -> str:
    """In float32."""
    return graph.op("Cast", x, to=_FLOAT)


_FLOAT, _DOUBLE = 1, 11  # as ONNX numbers them


def minus(graph: Graph, x: str, value: FloatArray) -> str:
    """``x - value`` of float32 tokens, as exact as of a value in float64.

    What float32 leaves of the value is taken off after the rest, when little is left of x.
    """
    high = value.astype(np.float32)
    low = (value.astype(np.float64) - high).astype(np.float32)
    x = graph.op("Sub", x, floats(graph, high))
    return graph.op("Sub", x, floats(graph, low)) if low.any() else x


def squared_length(graph: Graph, x: str, *, keepdims: bool = False) -> str:
    """Sum of squares along the last axis."""
    return graph.op("ReduceSumSquare", x, integers(graph, [-1]), keepdims=int(keepdims))


def unit_length(graph: Graph, x: str) -> tuple[str, str]:
    """Rows at unit length, and which are zero, of bool (..., 1): they stay so."""
    peak = graph.op("ReduceMax", graph.op("Abs", x), integers(graph, [-1]), keepdims=1)
    is_zero = graph.op("Equal", peak, floats(graph, 0.0))
    one = floats(graph, 1.0)
    x = graph.op("Div", x, graph.op("Where", is_zero, one, peak))  # squares of it neither vanish
    length = graph.op("Sqrt", squared_length(graph, x, keepdims=True))  # nor overflow
    return graph.op("Div", x, graph.op("Where", is_zero, one, length)), is_zero
