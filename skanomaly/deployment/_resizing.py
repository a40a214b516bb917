"""Resizing in a graph, equal to the bit to what an embedder does before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray
from skanomaly.core.resampling import (
    PILLOW_BITS,
    resample,
    resampling_weights,
    torch_bits,
    whole_weights,
)
from skanomaly.deployment._graph import Graph

# Pixels of a line that are computed by one product: few enough that most weights in it are not 0.
_BLOCK = 32
# Weights are split into two whole numbers, so that float32 holds every sum of products exactly.
LOW_BITS = 7
_EXACT = 2**24
# Pixels and images of noise by which the arithmetic is told; of small images there are more.
_PROBED = 20_000
_MOST_PROBES = 64

Resize = Callable[[NDArray[np.uint8], tuple[int, int]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Pass:
    """Resizing along one axis.

    Attributes
    ----------
    axis : int
        0 for the height, 1 for the width.
    weights : ndarray of shape (n_out, n_in), float64
        Whole.
    bits : int
        Behind the point of the weights.
    """

    axis: int
    weights: FloatArray
    bits: int


def resized(
    graph: Graph,
    image: str,
    size: tuple[int, int],
    new_size: tuple[int, int],
    interpolation: str,
    resize: Resize,
) -> str:
    """Add the nodes that resize images.

    Parameters
    ----------
    graph : Graph
    image : str
        Of uint8 (batch, height, width, 3).
    size, new_size : tuple of int
        (height, width) of the images, and the one that is wanted.
    interpolation : str
        The filter.
    resize : callable
        ``resize(image, new_size)`` is what the graph shall do.

    Returns
    -------
    str
        Of float32 (batch, 3, new_height, new_width): grey levels from 0 to 255.

    Raises
    ------
    ValueError
        When `resize` does something else than the resampling of Pillow or torch.
    """
    x = graph.op("Transpose", image, perm=[0, 3, 1, 2])
    x = graph.op("Cast", x, to=1)
    for one in passes(size, new_size, interpolation, resize):
        x = _passed(graph, x, one)
    return x


def passes(
    size: tuple[int, int], new_size: tuple[int, int], interpolation: str, resize: Resize
) -> list[Pass]:
    """Along which axes to resize, in which order, and with which weights.

    Pillow and torch differ in the bits of their weights, and versions of Pillow in the axis that
    they begin with: what a function does is seen by what it makes of noise.

    Parameters
    ----------
    size, new_size, interpolation, resize
        As for :func:`resized`.

    Returns
    -------
    list of Pass
        Without the axis that stays as it is.

    Raises
    ------
    ValueError
        When `resize` does something else than the resampling of Pillow or torch.
    """
    if size == new_size:
        return []
    random = np.random.default_rng(0)
    n_probes = min(_MOST_PROBES, -(-_PROBED // (size[0] * size[1])))
    probes = random.integers(0, 2, (n_probes, *size, 3), dtype=np.uint8) * np.uint8(255)
    wanted = np.stack([resize(probe, new_size) for probe in probes])
    for candidate in _candidates(size, new_size, interpolation):
        made = probes
        for one in candidate:
            made = resample(made, one.weights, one.bits, one.axis + 1)
        if np.array_equal(made, wanted):
            return candidate
    raise ValueError(
        f"images of {size} pixels (height, width) are resized to {new_size} in a way that is "
        "neither Pillow's nor torch's, so that no graph can do the same; resize them before "
        "fitting, and export for that size"
    )


def _candidates(
    size: tuple[int, int], new_size: tuple[int, int], interpolation: str
) -> Iterator[list[Pass]]:
    weights = [
        resampling_weights(*sides, interpolation) for sides in zip(size, new_size, strict=True)
    ]
    for bits in ([PILLOW_BITS] * 2, [torch_bits(w) for w in weights]):
        both = [
            Pass(axis, whole_weights(weights[axis], bits[axis]), bits[axis])
            for axis in (1, 0)
            if size[axis] != new_size[axis]
        ]
        yield both
        if len(both) == 2:
            yield both[::-1]


def _passed(graph: Graph, x: str, one: Pass) -> str:
    """Resize float32 (batch, 3, height, width) of whole numbers along one axis."""
    axis = one.axis + 2
    parts = []
    for start in range(0, len(one.weights), _BLOCK):
        weights = one.weights[start : start + _BLOCK]
        used = np.flatnonzero(weights.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        there = x
        if (first, last) != (0, weights.shape[1]):
            bounds = [graph.constant(np.array([n])) for n in (first, last, axis)]
            there = graph.op("Slice", x, *bounds)
        parts.append(_rounded_product(graph, there, weights[:, first:last], one))
    return parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=axis)


def _rounded_product(graph: Graph, x: str, weights: FloatArray, one: Pass) -> str:
    """Sums of pixels by their weights, rounded and cut to 0..255."""
    high = np.round(weights / 2**LOW_BITS)
    low = weights - high * 2**LOW_BITS
    for part in (high, low):
        if 255 * np.abs(part).sum(axis=1).max() >= _EXACT:
            raise ValueError(
                f"an image of {one.weights.shape[1]} pixels in height or width is resized to "
                f"{one.weights.shape[0]}, by more than the sums in a graph can hold; raise "
                "image_size, or make images smaller before"
            )
    # Powers of two are taken out where nothing is rounded.
    unit = 2.0 ** (LOW_BITS - one.bits)
    upper = graph.constant((high * unit).astype(np.float32))
    lower = graph.constant((low / 2**LOW_BITS).astype(np.float32))
    return rounded_sums(graph, x, upper, lower, graph.constant(np.float32(unit)), one.axis)


def rounded_sums(graph: Graph, x: str, high: str, low: str, share: str, axis: int) -> str:
    """Add the nodes that weigh pixels by whole weights in two parts.

    Parameters
    ----------
    graph : Graph
    x : str
        Of float32 (batch, 3, height, width), whole.
    high, low : str
        Of float32 (n_out, n_in): the parts of the weights, that of the low bits over
        ``2 ** LOW_BITS``.
    share : str
        Of float32: what a one of the low part's sum is of a grey level.
    axis : int
        0 for the height, 1 for the width.

    Returns
    -------
    str
        Of float32, `n_out` long along the axis: rounded, halves up, and cut to 0..255.
    """
    if axis == 1:
        high, low = (graph.op("Transpose", part, perm=[1, 0]) for part in (high, low))
        sums = [graph.op("MatMul", x, part) for part in (high, low)]
    else:
        sums = [graph.op("MatMul", part, x) for part in (high, low)]
    # Cut to whole numbers, or the sum with the high part would be rounded before its time.
    carried = graph.op("Mul", graph.op("Floor", sums[1]), share)
    total = graph.op("Add", graph.op("Add", sums[0], carried), graph.constant(np.float32(0.5)))
    black, white = (graph.constant(np.float32(level)) for level in (0, 255))
    return graph.op("Clip", graph.op("Floor", total), black, white)
