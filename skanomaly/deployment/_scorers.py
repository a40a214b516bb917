"""Scorers of patch tokens as nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from skanomaly.deployment._graph import Graph
from skanomaly.deployment._knn_graph import knn_scores
from skanomaly.deployment._local_graph import local_scores
from skanomaly.deployment._model_graphs import gaussian_scores, prompt_scores, subspace_scores
from skanomaly.deployment._rows import Rows, as_double, as_float, floats, reshape, rows_of
from skanomaly.deployment._verdict import aggregated, filled, joined
from skanomaly.scorers import (
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PromptScorer,
    ScoreUnion,
)

# Scores of patches, float32 (batch, n_patches), of scorers that aggregate these and no more.
_PATCHES: dict[type, Callable[[Graph, Any, Rows], str]] = {
    LocalKNNScorer: local_scores,
    PatchGaussianScorer: gaussian_scores,
    PatchSubspaceScorer: subspace_scores,
    PromptScorer: prompt_scores,
}


@contextmanager
def named(member: str) -> Iterator[None]:
    """Let what is said of a member of a union name it."""
    try:
        yield
    except ValueError as exc:
        raise ValueError(f"{member}: {exc}") from exc


def check_scorer(scorer: Any) -> None:
    """ValueError where a scorer is of a kind that no graph has, before any work is done."""
    kind = type(scorer)
    if kind is ScoreUnion:
        for name, member in scorer.scorers_.items():
            with named(f"scorer {name!r}"):
                check_scorer(member)
    elif kind is not PatchKNNScorer and kind not in _PATCHES:
        known = sorted(one.__name__ for one in (PatchKNNScorer, ScoreUnion, *_PATCHES))
        raise ValueError(f"{kind.__name__} has no form as a graph: {', '.join(known)} have one")


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
        When the scorer, or one of its parameters, has no form as a graph; the message says why.
    """
    check_scorer(scorer)
    rows = rows_of(graph, tokens, grid)
    patches, images = _scored(graph, scorer, rows)
    patches = filled(graph, patches, rows.valid)
    return reshape(graph, patches, (0, *grid)), graph.op("Neg", images)


def _scored(graph: Graph, scorer: Any, rows: Rows) -> tuple[str, str]:
    """Scores of patches, float32, and of images, float64; higher is more anomalous."""
    if type(scorer) is ScoreUnion:
        return _of_union(graph, scorer, rows)
    if type(scorer) is not PatchKNNScorer:
        patches = _PATCHES[type(scorer)](graph, scorer, rows)
        return patches, _aggregated(graph, scorer, patches, rows)
    patches, factor = knn_scores(graph, scorer, rows)
    images = _aggregated(graph, scorer, patches, rows)
    if factor is not None:
        kept = graph.op("Where", rows.valid, patches, floats(graph, -1.0))
        highest = graph.op("ArgMax", kept, axis=1, keepdims=0)
        images = graph.op("Mul", images, as_double(graph, factor(highest)))
    return patches, images


def _of_union(graph: Graph, union: ScoreUnion, rows: Rows) -> tuple[str, str]:
    members = []
    for name, scorer in union.scorers_.items():
        with named(f"scorer {name!r}"):
            members.append(_scored(graph, scorer, rows))
    patches = joined(graph, union, [as_double(graph, patches) for patches, _ in members])
    if union.aggregation == "members":
        images = joined(graph, union, [images for _, images in members])
    else:
        images = _aggregated(graph, union, patches, rows)
    return as_float(graph, patches), images


def _aggregated(graph: Graph, scorer: Any, patches: str, rows: Rows) -> str:
    return aggregated(graph, patches, rows.valid, rows.n_patches, scorer.aggregation, scorer.topk)
