"""Gaussians, subspaces and texts of normal patches as nodes of a graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from skanomaly.core.subspace import Subspace
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._rows import (
    Rows,
    floats,
    integers,
    minus,
    squared_length,
    unit_length,
)


def gaussian_scores(graph: Graph, scorer: Any, rows: Rows) -> str:
    """Mahalanobis distance of each patch.

    Parameters
    ----------
    graph : Graph
    scorer : PatchGaussianScorer
        Fitted.
    rows : Rows

    Returns
    -------
    str
        Of float32 (batch, n_patches).

    Raises
    ------
    ValueError
        When there is a Gaussian for each position, of another grid.
    """
    model, x = scorer._model, rows.tokens
    if model.grid is not None and model.grid != rows.grid:
        raise ValueError(
            f"the images have a grid of {rows.grid[0]} x {rows.grid[1]} patches, the Gaussians of "
            f"each position are of a grid of {' x '.join(map(str, model.grid))}: export for "
            "images of the size of the training images, or fit with resize='squash'"
        )
    if model.components is not None and model.components.ndim == 1:
        x = graph.op("Gather", x, integers(graph, model.components), axis=2)
    elif model.components is not None:
        x = graph.op("MatMul", x, floats(graph, model.components))
    gaussian = model.gaussian
    x = graph.op("Sub", x, floats(graph, gaussian.mean))
    x = graph.op("Div", x, floats(graph, gaussian.scale))
    if len(gaussian.whitening) == 1:
        x = graph.op("MatMul", x, floats(graph, gaussian.whitening[0]))
        return graph.op("Sqrt", squared_length(graph, x))
    x = graph.op("Transpose", x, perm=[1, 0, 2])  # a product for each position
    x = graph.op("MatMul", x, floats(graph, gaussian.whitening))
    distances = graph.op("Sqrt", squared_length(graph, x))
    return graph.op("Transpose", distances, perm=[1, 0])


def subspace_scores(graph: Graph, scorer: Any, rows: Rows) -> str:
    """Squared distance of each patch from a subspace.

    Parameters
    ----------
    graph : Graph
    scorer : PatchSubspaceScorer
        Fitted.
    rows : Rows

    Returns
    -------
    str
        Of float32 (batch, n_patches).
    """
    model: Subspace = scorer._model
    x = minus(graph, rows.tokens, model.mean)
    if model.n_components:
        found = graph.op("MatMul", x, floats(graph, model.axes))
        if model.outside:
            x = found
        else:
            back = floats(graph, np.ascontiguousarray(model.axes.T))
            x = graph.op("Sub", x, graph.op("MatMul", found, back))
    return squared_length(graph, x)


def prompt_scores(graph: Graph, scorer: Any, rows: Rows) -> str:
    """Similarity of each patch to texts, which are those of now and stay so.

    Parameters
    ----------
    graph : Graph
    scorer : PromptScorer
        Fitted or not.
    rows : Rows

    Returns
    -------
    str
        Of float32 (batch, n_patches).

    Raises
    ------
    ValueError
        When tokens hold windows.
    """
    if scorer.windows is not None:
        raise ValueError(
            f"windows={scorer.windows!r}, of WinCLIP, are not exported: take windows=None in "
            "scorer and embedder"
        )
    (normal, anomaly), scale = scorer._texts_of(scorer._text_features(0).shape[1])
    x, _ = unit_length(graph, rows.tokens)
    direction = floats(graph, (anomaly - normal)[:, None])
    difference = graph.op("Squeeze", graph.op("MatMul", x, direction), integers(graph, [2]))
    if scorer.mode == "ratio":
        return graph.op("Exp", difference)
    if scorer.mode == "softmax":
        return graph.op("Sigmoid", graph.op("Mul", difference, floats(graph, scale)))
    return difference
