"""Distances to memory banks as nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from skanomaly.core.search.index import PatchIndex
from skanomaly.core.token_space import TokenSpace, places_in_grids
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._rows import (
    Rows,
    floats,
    integers,
    minus,
    reshape,
    squared_length,
    unit_length,
    unsqueeze,
)
from skanomaly.deployment._search_graph import SearchGraph


@dataclass(frozen=True)
class _Bank:
    """A memory bank in a graph, its rows and those of queries without the mean of the bank.

    Expanded squares, by which the nearest rows are found, lose the fewer digits the shorter the
    rows are.
    """

    space: TokenSpace
    search: SearchGraph
    queries: str  # (batch * n_patches, n_components), the patches of the images


def knn_scores(graph: Graph, scorer: Any, rows: Rows) -> tuple[str, Callable[[str], str] | None]:
    """Mean distance of each patch to the nearest ones of each bank.

    Parameters
    ----------
    graph : Graph
    scorer : PatchKNNScorer
        Fitted.
    rows : Rows

    Returns
    -------
    scores : str
        Of float32 (batch, n_patches).
    factor : callable or None
        With `reweighting`: from the number of the patch of each image with the highest score, of
        int64 (batch,), to PatchCore's weight of the score of the image, of float32 (batch,).

    Raises
    ------
    ValueError
        When the search is approximate.
    """
    if any(not isinstance(bank.index, PatchIndex) for bank in scorer._model.banks):
        raise ValueError(
            f"algorithm={scorer.algorithm!r} finds neighbours approximately, by an index that no "
            "graph holds: fit with algorithm='auto'"
        )
    dim = scorer.n_features_in_
    banks = [_bank_of(graph, bank, rows, dim, scorer.n_neighbors) for bank in scorer._model.banks]
    scores = _mean_distances(graph, banks, rows, scorer.n_neighbors)
    if scorer.reweighting is None:
        return scores, None
    count = min(scorer.reweighting, banks[0].search.n_rows)
    if count == 1:  # no neighbours, no weight
        return scores, None
    return scores, lambda highest: _factor(graph, banks[0], rows, highest, count)


def few_scores(graph: Graph, scorer: Any, rows: Rows) -> str:
    """Distance of each patch to the nearest patch of a few images, wherever it lies.

    Parameters
    ----------
    graph : Graph
    scorer : LocalKNNScorer
        Fitted to no more than `few` images.
    rows : Rows

    Returns
    -------
    str
        Of float32 (batch, n_patches).
    """
    banks = scorer._model.banks.banks
    made = [_bank_of(graph, bank, rows, scorer.n_features_in_, 1) for bank in banks]
    return _mean_distances(graph, made, rows, 1)


def _mean_distances(graph: Graph, banks: list[_Bank], rows: Rows, n_neighbors: int) -> str:
    """Mean distance of each patch to so many nearest ones of each bank."""
    found = []
    for bank in banks:
        squared, _ = bank.search.nearest(bank.queries, n_neighbors)
        if bank.space.metric == "cosine":
            distances = graph.op("Mul", squared, floats(graph, 0.5))
        else:
            distances = graph.op("Sqrt", squared)
        found.append(graph.op("ReduceMean", distances, integers(graph, [1]), keepdims=0))
    total = found[0] if len(found) == 1 else graph.op("Mean", *found)
    return reshape(graph, total, (-1, rows.n_patches))


def _bank_of(graph: Graph, bank: Any, rows: Rows, dim: int, n_neighbors: int) -> _Bank:
    """A bank, and the patches of the images as it compares them."""
    space, values = bank.space, np.asarray(bank.index.bank, dtype=np.float64)
    x = rows.tokens
    if space.stop - space.first < dim:
        x = graph.op("Slice", x, *(integers(graph, [i]) for i in (space.first, space.stop, 2)))
    if space.metric == "cosine":
        # A zero token is at distance 1 from all others: a component of its own says so.
        x, is_zero = unit_length(graph, x)
        x = graph.op("Concat", x, graph.op("Cast", is_zero, to=1), axis=2)
        if not space.position_weight:  # with one, rows have this component
            values = np.concatenate([values, ~values.any(axis=1, keepdims=True)], axis=1)
    if space.position_weight:
        places = space.position_weight * places_in_grids([rows.grid])
        shape = graph.op("Shape", rows.valid)
        places = graph.op(
            "Expand",
            floats(graph, places[None]),
            graph.op("Concat", shape, integers(graph, [2]), axis=0),
        )
        x = graph.op("Concat", x, places, axis=2)
    centre = values.mean(axis=0)
    search = SearchGraph(graph, (values - centre).astype(np.float32), n_neighbors)
    queries = reshape(graph, minus(graph, x, centre), (-1, values.shape[1]))
    return _Bank(space, search, queries)


def _factor(graph: Graph, bank: _Bank, rows: Rows, highest: str, count: int) -> str:
    """See :func:`skanomaly.core.reweighting.softmax_factor`."""
    n_components = bank.search.n_components
    queries = graph.op("Reshape", bank.queries, integers(graph, (-1, rows.n_patches, n_components)))
    query = graph.op("GatherND", queries, unsqueeze(graph, highest, 1), batch_dims=1)
    nearest = reshape(graph, bank.search.nearest(query, 1)[1], (-1, n_components))
    around = bank.search.nearest(nearest, count)[1]
    difference = graph.op("Sub", around, unsqueeze(graph, query, 1))
    distances = graph.op("Sqrt", squared_length(graph, difference))
    shares = graph.op("Softmax", distances, axis=1)
    own = graph.op("Gather", shares, integers(graph, 0), axis=1)
    return graph.op("Sub", floats(graph, 1.0), own)
