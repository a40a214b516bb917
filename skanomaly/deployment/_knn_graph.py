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

_CHUNK = 2**14  # rows of a bank that patches are compared with at a time
# Of so many rows the least bound is found before that of a row: minima of blocks are found at
# several times the speed at which ONNX Runtime finds where a minimum is.
_BLOCK = 64
_FAR = np.float32(1e38)  # a squared length of rows that fill up a block, and are never the nearest


@dataclass(frozen=True)
class _Bank:
    """A memory bank in a graph, its rows and those of queries without the mean of the bank.

    Expanded squares, by which the nearest rows are found, lose the fewer digits the shorter the
    rows are.
    """

    space: TokenSpace
    chunks: list[tuple[str, str, int]]  # rows, their squared lengths, how many
    queries: str  # (batch * n_patches, n_components), the patches of the images
    n_components: int


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
    banks = [_bank_of(graph, bank, rows, scorer.n_features_in_) for bank in scorer._model.banks]
    scores = _mean_distances(graph, banks, rows, scorer.n_neighbors)
    if scorer.reweighting is None:
        return scores, None
    count = min(scorer.reweighting, sum(n for *_, n in banks[0].chunks))
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
    made = [_bank_of(graph, bank, rows, scorer.n_features_in_) for bank in banks]
    return _mean_distances(graph, made, rows, 1)


def _mean_distances(graph: Graph, banks: list[_Bank], rows: Rows, n_neighbors: int) -> str:
    """Mean distance of each patch to so many nearest ones of each bank."""
    found = []
    for bank in banks:
        squared, _ = _nearest(graph, bank, bank.queries, n_neighbors)
        if bank.space.metric == "cosine":
            distances = graph.op("Mul", squared, floats(graph, 0.5))
        else:
            distances = graph.op("Sqrt", squared)
        found.append(graph.op("ReduceMean", distances, integers(graph, [1]), keepdims=0))
    total = found[0] if len(found) == 1 else graph.op("Mean", *found)
    return reshape(graph, total, (-1, rows.n_patches))


def _bank_of(graph: Graph, bank: Any, rows: Rows, dim: int) -> _Bank:
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
    kept = (values - centre).astype(np.float32)
    chunks = []
    for part in np.array_split(kept, -(-len(kept) // _CHUNK)):
        part = np.ascontiguousarray(part)
        lengths = np.einsum("ij,ij->i", part, part, dtype=np.float64)
        missing = -len(part) % _BLOCK
        filled = np.pad(part, ((0, missing), (0, 0)))
        lengths = np.pad(lengths, (0, missing), constant_values=_FAR)
        chunks.append((floats(graph, filled), floats(graph, lengths), len(part)))
    queries = reshape(graph, minus(graph, x, centre), (-1, kept.shape[1]))
    return _Bank(space, chunks, queries, kept.shape[1])


def _nearest(graph: Graph, bank: _Bank, queries: str, count: int) -> tuple[str, str]:
    """Squared distances of queries to their nearest rows, (n, count), and these rows.

    They are found by expanded squares, and then measured.
    """
    squared, rows = [], []
    for chunk, lengths, size in bank.chunks:
        bounds = graph.op("Gemm", queries, chunk, lengths, alpha=-2.0, transB=1)
        if count == 1:
            numbers = _least(graph, bounds)
        else:
            k = integers(graph, [min(count, size)])
            numbers = graph.ops("TopK", bounds, k, n_outputs=2, axis=1, largest=0)[1]
        rows.append(graph.op("Gather", chunk, numbers, axis=0))
        difference = graph.op("Sub", rows[-1], unsqueeze(graph, queries, 1))
        squared.append(squared_length(graph, difference))
    all_squared = graph.op("Concat", *squared, axis=1)
    all_rows = graph.op("Concat", *rows, axis=1)
    k = integers(graph, [count])
    least, order = graph.ops("TopK", all_squared, k, n_outputs=2, axis=1, largest=0)
    near = graph.op("GatherND", all_rows, unsqueeze(graph, order, 2), batch_dims=1)
    return least, near


def _least(graph: Graph, bounds: str) -> str:
    """Number of the least bound of each query, (n, 1), of a multiple of `_BLOCK` bounds."""
    blocks = graph.op("Reshape", bounds, integers(graph, (0, -1, _BLOCK)))
    minima = graph.op("ReduceMin", blocks, integers(graph, [2]), keepdims=0)
    block = graph.op("ArgMin", minima, axis=1, keepdims=1)
    within = graph.op("GatherND", blocks, block, batch_dims=1)
    place = graph.op("ArgMin", within, axis=1, keepdims=1)
    return graph.op("Add", graph.op("Mul", block, integers(graph, _BLOCK)), place)


def _factor(graph: Graph, bank: _Bank, rows: Rows, highest: str, count: int) -> str:
    """See :func:`skanomaly.core.reweighting.softmax_factor`."""
    queries = graph.op(
        "Reshape", bank.queries, integers(graph, (-1, rows.n_patches, bank.n_components))
    )
    query = graph.op("GatherND", queries, unsqueeze(graph, highest, 1), batch_dims=1)
    nearest = reshape(graph, _nearest(graph, bank, query, 1)[1], (-1, bank.n_components))
    around = _nearest(graph, bank, nearest, count)[1]
    difference = graph.op("Sub", around, unsqueeze(graph, query, 1))
    distances = graph.op("Sqrt", squared_length(graph, difference))
    shares = graph.op("Softmax", distances, axis=1)
    own = graph.op("Gather", shares, integers(graph, 0), axis=1)
    return graph.op("Sub", floats(graph, 1.0), own)
