"""Detectors of images as nodes of a graph: an embedder with its scorer, and unions of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skanomaly._pipelines import SplitPipeline, split_detector
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._images import tokens_graph, transformed_graph
from skanomaly.deployment._maps import maps_graph
from skanomaly.deployment._rows import as_double, as_float
from skanomaly.deployment._scorers import check_scorer, named, scores_graph
from skanomaly.deployment._verdict import joined
from skanomaly.detectors import ImageUnion


@dataclass(frozen=True)
class Scored:
    """Names of what a detector says of a batch of images.

    Attributes
    ----------
    patches : str
        Of float32 (batch, grid_h, grid_w); higher is more anomalous.
    grid : tuple of int
        ``(grid_h, grid_w)``.
    scores : str
        `score_samples`, of float64 (batch,).
    """

    patches: str
    grid: tuple[int, int]
    scores: str


def check_detector(estimator: Any) -> None:
    """Raise where a detector has a step that no graph has, before any work is done.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted.

    Raises
    ------
    ValueError
        The message names the step, and says why.
    TypeError
        When it is no detector of images.
    """
    split = split_detector(estimator)
    if type(split.scorer) is ImageUnion:
        _check_images_alone(split, 0)
        for name, member in split.scorer.detectors_.items():
            with named(f"detector {name!r}"):
                check_detector(member)
        return
    if hasattr(split.scorer, "score_maps"):
        raise ValueError(
            f"{type(split.scorer).__name__} is a model of another package, or in a file of its "
            "own: export it there"
        )
    _check_images_alone(split, 1)
    check_scorer(split.scorer)


def _check_images_alone(split: SplitPipeline, n_embedders: int) -> None:
    before = split.image_transformers[: len(split.image_transformers) - n_embedders]
    if before:
        names = ", ".join(type(step).__name__ for step in before)
        raise ValueError(f"{names}, before what takes images, has no form as a graph")


def detector_graph(
    graph: Graph, estimator: Any, image: str, size: tuple[int, int] | None, probe: np.ndarray
) -> Scored:
    """What a fitted detector says of images that are new to it.

    Parameters
    ----------
    graph : Graph
    estimator : Pipeline or detector
        Of which :func:`check_detector` says that it can be.
    image : str
        Of uint8 (batch, height, width, 3).
    size : tuple of int or None
        ``(height, width)``; None where images may be of any.
    probe : ndarray of shape (height, width, 3), uint8
        An image of that size, by which the grid of each embedder is known.

    Returns
    -------
    Scored

    Raises
    ------
    ValueError
        When something of it has no form as a graph; the message says what, and why.
    """
    split = split_detector(estimator)
    if type(split.scorer) is ImageUnion:
        return _union_graph(graph, split.scorer, image, size, probe)
    embedder = split.image_transformers[-1]
    (tokens_of_probe,) = embedder.transform([probe])
    grid = tokens_of_probe.shape[0], tokens_of_probe.shape[1]
    tokens = tokens_graph(graph, embedder, image, size)
    for step in split.token_transformers:
        tokens = transformed_graph(graph, step, tokens, grid)
    patches, scores = scores_graph(graph, split.scorer, tokens, grid)
    return Scored(patches, grid, scores)


def _union_graph(
    graph: Graph, union: ImageUnion, image: str, size: tuple[int, int] | None, probe: np.ndarray
) -> Scored:
    members = []
    for name, member in union.detectors_.items():
        with named(f"detector {name!r}"):
            members.append(detector_graph(graph, member, image, size, probe))
    finest = max(m.grid[0] for m in members), max(m.grid[1] for m in members)
    maps = [
        member.patches
        if member.grid == finest
        else maps_graph(graph, member.patches, finest, sigma=0)
        for member in members
    ]
    maps = [as_double(graph, of_member) for of_member in maps]
    scores = [graph.op("Neg", member.scores) for member in members]
    patches = as_float(graph, joined(graph, union, maps))
    return Scored(patches, finest, graph.op("Neg", joined(graph, union, scores)))
