"""Scorers of patch tokens as nodes of a graph."""

from __future__ import annotations

from typing import Any

from skanomaly.deployment._graph import Graph
from skanomaly.deployment._knn_graph import knn_scores
from skanomaly.deployment._local_graph import local_scores
from skanomaly.deployment._rows import Rows, as_double, floats, reshape, rows_of
from skanomaly.deployment._verdict import aggregated, filled
from skanomaly.scorers import LocalKNNScorer, PatchKNNScorer


def scores_graph(graph: Graph, scorer: Any, tokens: str, grid: tuple[int, int]) -> tuple[str, str]:
    """Scores of patches and of images, as a fitted scorer gives them to images that are new to it.

    Parameters
    ----------
    graph : Graph
    scorer : estimator
        Fitted.
    tokens : str
        Of float32 (batch, grid_h, grid_w, dim). A masked patch is NaN in all components: it counts
        in no score.
    grid : tuple of int
        ``(grid_h, grid_w)``.

    Returns
    -------
    patch_scores : str
        Of float32 (batch, grid_h, grid_w); higher is more anomalous. Masked patches have 0, or the
        lowest score of their image where that is below 0.
    scores : str
        `score_samples`, of float64 (batch,); higher is more normal. NaN where no patch is left.

    Raises
    ------
    ValueError
        When the scorer, or one of its parameters, is none that a graph has; the message says why.
    """
    rows = rows_of(graph, tokens, grid)
    patches, images = _scored(graph, scorer, rows)
    patches = filled(graph, patches, rows.valid)
    return reshape(graph, patches, (0, *grid)), graph.op("Neg", images)


def _scored(graph: Graph, scorer: Any, rows: Rows) -> tuple[str, str]:
    """Scores of patches, float32, and of images, float64; higher is more anomalous."""
    if type(scorer) is PatchKNNScorer:
        patches, factor = knn_scores(graph, scorer, rows)
        images = _aggregated(graph, scorer, patches, rows)
        if factor is not None:
            kept = graph.op("Where", rows.valid, patches, floats(graph, -1.0))
            highest = graph.op("ArgMax", kept, axis=1, keepdims=0)
            images = graph.op("Mul", images, as_double(graph, factor(highest)))
        return patches, images
    if type(scorer) is LocalKNNScorer:
        patches = local_scores(graph, scorer, rows)
        return patches, _aggregated(graph, scorer, patches, rows)
    raise ValueError(f"{type(scorer).__name__} is none of the scorers that a graph has")


def _aggregated(graph: Graph, scorer: Any, patches: str, rows: Rows) -> str:
    return aggregated(graph, patches, rows.valid, rows.n_patches, scorer.aggregation, scorer.topk)
