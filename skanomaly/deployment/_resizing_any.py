"""Resizing in a graph of images of any size: the weights are computed in the graph."""

from __future__ import annotations

import numpy as np

from skanomaly.core.resampling import PILLOW_BITS
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._resizing import LOW_BITS, rounded_sums

_FLOAT, _DOUBLE = 1, 11  # as ONNX numbers them
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


def resized_of_any_size(
    graph: Graph, image: str, new_size: tuple[int, int], interpolation: str, by_torch: bool
) -> str:
    """Add the nodes that resize images of any size to one.

    Parameters
    ----------
    graph : Graph
    image : str
        Of uint8 (batch, height, width, 3).
    new_size : tuple of int
        (height, width) that is wanted.
    interpolation : {"bilinear", "bicubic"}
        The filter.
    by_torch : bool
        Whether images of which that is possible are resized by torch, as
        :func:`skanomaly.embedders._resize.fast_resize` does.

    Returns
    -------
    str
        Of float32 (batch, 3, new_height, new_width): grey levels from 0 to 255.

    Raises
    ------
    ValueError
        For another filter.

    Notes
    -----
    The same as Pillow's to the bit where that begins with the width, as it does but for images that
    are higher than wide, in versions of 2026 on; of these a few pixels differ by a grey level.
    """
    if interpolation not in _SUPPORT:
        raise ValueError(
            f"images are resized by the filter {interpolation!r}, which a graph for images of any "
            "size does not have; export for a fixed size"
        )
    sides = []
    for axis in (0, 1):
        shape = graph.op("Shape", image, start=axis + 1, end=axis + 2)
        side = graph.op("Squeeze", shape, graph.constant(np.array([0])))
        sides.append(graph.op("Cast", side, to=_DOUBLE))
    torch = _torch_agrees(graph, sides, new_size) if by_torch else None
    x = graph.op("Cast", graph.op("Transpose", image, perm=[0, 3, 1, 2]), to=_FLOAT)
    for axis in (1, 0):
        weights = _weights(graph, sides[axis], new_size[axis], interpolation)
        scale = _double(graph, 2.0**PILLOW_BITS)
        if torch is not None:
            scale = graph.op("Where", torch, _torch_scale(graph, weights), scale)
        whole = _halves_away(graph, graph.op("Mul", weights, scale))
        unit = _double(graph, 2.0**LOW_BITS)
        high = graph.op("Round", graph.op("Div", whole, unit))
        low = graph.op("Div", graph.op("Sub", whole, graph.op("Mul", high, unit)), unit)
        share = graph.op("Div", unit, scale)
        high, low, share = (
            graph.op("Cast", part, to=_FLOAT) for part in (graph.op("Mul", high, share), low, share)
        )
        x = rounded_sums(graph, x, high, low, share, axis)
    return x


def _torch_agrees(graph: Graph, sides: list[str], new_size: tuple[int, int]) -> str | None:
    """Whether torch resizes; None where it never does."""
    if min(new_size) == 1:
        return None
    (old_height, old_width), (height, width) = sides, new_size
    least = [7 * height / 4, 7 * width / 4]
    conditions = [
        graph.op("GreaterOrEqual", side, _double(graph, bound))
        for side, bound in zip(sides, least, strict=True)
    ]
    conditions.append(graph.op("LessOrEqual", old_height, old_width))
    across = graph.op("Mul", old_width, _double(graph, height))
    down = graph.op("Mul", old_height, _double(graph, width))
    conditions.append(graph.op("LessOrEqual", down, across))
    agrees = conditions[0]
    for condition in conditions[1:]:
        agrees = graph.op("And", agrees, condition)
    return agrees


def _weights(graph: Graph, n_in: str, n_out: int, interpolation: str) -> str:
    """Of float64 (n_out, n_in), as :func:`skanomaly.core.resampling.resampling_weights`."""
    half, zero, one = (_double(graph, value) for value in (0.5, 0, 1))
    scale = graph.op("Div", n_in, _double(graph, n_out))
    stretch = graph.op("Max", scale, one)
    reach = graph.op("Mul", stretch, _double(graph, _SUPPORT[interpolation]))
    middles = graph.constant(np.arange(n_out)[:, None] + 0.5)
    centres = graph.op("Mul", middles, scale)
    first, last = (
        graph.op("Floor", graph.op("Add", graph.op(kind, centres, reach), half))
        for kind in ("Sub", "Add")
    )
    pixels = graph.op("Range", zero, n_in, one)
    after = graph.op("GreaterOrEqual", pixels, first)
    inside = graph.op("And", after, graph.op("Less", pixels, last))
    offsets = graph.op("Add", graph.op("Sub", pixels, centres), half)
    distance = graph.op("Abs", graph.op("Mul", offsets, graph.op("Div", one, stretch)))
    kernel = _triangle if interpolation == "bilinear" else _cubic
    weights = graph.op("Where", inside, kernel(graph, distance), zero)
    total = graph.op("ReduceSum", weights, graph.constant(np.array([1])), keepdims=1)
    return graph.op("Div", weights, total)


def _triangle(graph: Graph, x: str) -> str:
    return graph.op("Max", graph.op("Sub", _double(graph, 1), x), _double(graph, 0))


def _cubic(graph: Graph, x: str) -> str:
    inner = graph.op("Sub", graph.op("Mul", x, _double(graph, 1.5)), _double(graph, 2.5))
    inner = graph.op("Mul", graph.op("Mul", inner, x), x)
    inner = graph.op("Add", inner, _double(graph, 1))
    outer = graph.op("Mul", graph.op("Sub", x, _double(graph, 5)), x)
    outer = graph.op("Mul", graph.op("Add", outer, _double(graph, 8)), x)
    outer = graph.op("Mul", graph.op("Sub", outer, _double(graph, 4)), _double(graph, -0.5))
    outer = graph.op("Where", graph.op("Less", x, _double(graph, 2)), outer, _double(graph, 0))
    return graph.op("Where", graph.op("Less", x, _double(graph, 1)), inner, outer)


def _torch_scale(graph: Graph, weights: str) -> str:
    """2 to the power of :func:`skanomaly.core.resampling.torch_bits`."""
    largest = graph.op("ReduceMax", weights, keepdims=0)
    powers = 2.0 ** np.arange(1, PILLOW_BITS + 1)
    wholes = graph.op("Mul", largest, graph.constant(powers))
    wholes = graph.op("Floor", graph.op("Add", wholes, _double(graph, 0.5)))
    fits = graph.op("Less", wholes, _double(graph, 2**15))
    bits = graph.op("ReduceSum", graph.op("Cast", fits, to=7), keepdims=0)
    return graph.op("Gather", graph.constant(2.0 ** np.arange(PILLOW_BITS + 1)), bits)


def _halves_away(graph: Graph, x: str) -> str:
    """Whole numbers, halves away from zero."""
    magnitude = graph.op("Floor", graph.op("Add", graph.op("Abs", x), _double(graph, 0.5)))
    return graph.op("Mul", magnitude, graph.op("Sign", x))


def _double(graph: Graph, value: float) -> str:
    return graph.constant(np.float64(value))
