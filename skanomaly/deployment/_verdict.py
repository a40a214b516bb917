"""From the scores of patches to the verdict on an image, as nodes of a graph."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly._unions import UnionEstimator
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._rows import as_double, doubles, floats, integers, unsqueeze

_LEAST = -np.inf


def aggregated(
    graph: Graph, scores: str, valid: str, n_patches: int, aggregation: str | float, topk: float
) -> str:
    """The score of each image from those of its patches, masked ones left out.

    Parameters
    ----------
    graph : Graph
    scores : str
        Of float32 or float64 (batch, n_patches).
    valid : str
        Of bool (batch, n_patches).
    n_patches : int
    aggregation, topk
        As for :func:`skanomaly.core.aggregation.aggregate_patch_scores`.

    Returns
    -------
    str
        Of float64 (batch,); higher is more anomalous. NaN where fewer patches are left than `topk`
        asks for.

    Raises
    ------
    ValueError
        When no image has as many patches as `topk` asks for.
    """
    axis = integers(graph, [1])
    scores = as_double(graph, scores)
    n = graph.op("ReduceSum", as_double(graph, valid), axis, keepdims=1)
    if aggregation == "mean":
        kept = graph.op("Where", valid, scores, doubles(graph, 0.0))
        return _divided(graph, kept, n)
    kept = graph.op("Where", valid, scores, doubles(graph, _LEAST))
    size = integers(graph, [n_patches])
    ordered, _ = graph.ops("TopK", kept, size, n_outputs=2, axis=1, largest=1)
    if isinstance(aggregation, Real):
        return _quantile(graph, ordered, n, float(aggregation))
    if aggregation == "max":
        return graph.op("Gather", ordered, integers(graph, 0), axis=1)
    if isinstance(topk, Integral):
        if topk > n_patches:
            raise ValueError(f"topk={topk} is more than the {n_patches} patches of the images")
        count = graph.op(
            "Where",
            graph.op("Less", n, doubles(graph, topk)),
            doubles(graph, np.nan),
            doubles(graph, topk),
        )
    else:
        share = graph.op("Floor", graph.op("Mul", n, doubles(graph, float(topk))))
        count = graph.op("Max", share, doubles(graph, 1.0))
    counts = graph.op("Less", doubles(graph, np.arange(n_patches)[None]), count)
    return _divided(graph, graph.op("Where", counts, ordered, doubles(graph, 0.0)), count)


def _divided(graph: Graph, kept: str, n: str) -> str:
    total = graph.op("ReduceSum", kept, integers(graph, [1]), keepdims=1)
    return graph.op("Squeeze", graph.op("Div", total, n), integers(graph, [1]))


def _quantile(graph: Graph, ordered: str, n: str, share: float) -> str:
    """Of descending scores, of which the first `n` count."""
    last = graph.op("Sub", n, doubles(graph, 1.0))
    place = graph.op("Mul", last, doubles(graph, 1.0 - share))
    before = graph.op("Floor", place)
    after = graph.op("Min", graph.op("Add", before, doubles(graph, 1.0)), last)
    one, other = (
        graph.op("GatherElements", ordered, graph.op("Cast", number, to=7), axis=1)
        for number in (before, after)
    )
    step = graph.op("Mul", graph.op("Sub", other, one), graph.op("Sub", place, before))
    return graph.op("Squeeze", graph.op("Add", one, step), integers(graph, [1]))


def filled(graph: Graph, scores: str, valid: str) -> str:
    """Scores of patches, masked ones as from :func:`skanomaly._patch_tokens.fill_masked`."""
    zero = floats(graph, 0.0)
    kept = graph.op("Where", valid, scores, zero)
    least = graph.op("ReduceMin", kept, integers(graph, [1]), keepdims=1)
    return graph.op("Where", valid, scores, graph.op("Min", least, zero))


def decided(graph: Graph, scores: str, offset: float) -> str:
    """+1 for normal images, -1 for anomalous ones and those without a score; int64 (batch,)."""
    normal = graph.op("GreaterOrEqual", scores, doubles(graph, offset))
    return graph.op("Where", normal, integers(graph, 1), integers(graph, -1))


def conformal(graph: Graph, scores: str, train_scores: FloatArray, groups: IntArray | None) -> str:
    """As :func:`skanomaly.core.calibration.conformal_p_values`; float64 (batch,)."""
    weights, n_groups = np.ones(len(train_scores)), len(train_scores)
    if groups is not None:
        _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        weights, n_groups = 1 / sizes[group], len(sizes)
    at_most = graph.op(
        "LessOrEqual", doubles(graph, train_scores[None]), unsqueeze(graph, scores, 1)
    )
    weighed = graph.op("Where", at_most, doubles(graph, weights[None]), doubles(graph, 0.0))
    count = graph.op("ReduceSum", weighed, integers(graph, [1]), keepdims=0)
    share = graph.op(
        "Div", graph.op("Add", count, doubles(graph, 1.0)), doubles(graph, n_groups + 1.0)
    )
    return graph.op("Min", share, doubles(graph, 1.0))


def joined(graph: Graph, union: UnionEstimator, scores: list[str]) -> str:
    """Scores of the members of a union as one, of float64; higher is more anomalous."""
    scaled = []
    for of_member, location, scale in zip(scores, union.location_, union.scale_, strict=True):
        shifted = graph.op("Sub", of_member, doubles(graph, location))
        scaled.append(graph.op("Div", shifted, doubles(graph, scale)))
    if union.combination == "max":
        return graph.op("Max", *scaled)
    weighed = [
        graph.op("Mul", of_member, doubles(graph, weight))
        for of_member, weight in zip(scaled, union._weights(), strict=True)
    ]
    return graph.op("Sum", *weighed)
