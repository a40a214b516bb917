"""Distances to the nearest patches near a place as nodes of a graph.

As in :mod:`skanomaly.core.local_search` each block of the bank, which is the patches of a place or
of a row of places, is multiplied by all queries that are compared with it, so that an image reads
the bank once. Expanded squares in float32 say which patch is the nearest; it is then measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.local_bank import LocalBank
from skanomaly.core.local_units import Units
from skanomaly.core.products import product, squared_norms
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._knn_graph import few_scores
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
from skanomaly.scorers._local_model import FewImages


@dataclass(frozen=True)
class Windows:
    """Which queries each block of a bank is compared with.

    Attributes
    ----------
    queries : ndarray of shape (n_blocks, n_slots), int
        Places of the queries of each block; 0 where its window reaches beyond the grid.
    found_at : ndarray of shape (n_places, n_near), int
        For each query and each block in its window, where it stands in the raveled `queries`.
    is_there : ndarray of shape (n_places, n_near), bool
        False where the window of a query reaches beyond the grid.
    n_columns : int
        Places of a block: 1, or those of a row of the grid.
    """

    queries: IntArray
    found_at: IntArray
    is_there: NDArray[np.bool_]
    n_columns: int


def windows_of(grid: tuple[int, int], radius: int, by_rows: bool) -> Windows:
    """The windows of all places of a grid.

    Parameters
    ----------
    grid : tuple of int
    radius : int
        Rows and columns around a place.
    by_rows : bool
        Whether a block is a row of places; else it is one place.

    Returns
    -------
    Windows
        By rows, a block goes with all queries of the rows around it, whatever their column.

    Examples
    --------
    >>> from skanomaly.deployment._local_graph import windows_of
    >>> windows = windows_of((1, 3), 1, by_rows=False)
    >>> windows.queries.tolist()
    [[0, 0, 1], [0, 1, 2], [1, 2, 0]]
    >>> windows.queries.ravel()[windows.found_at][windows.is_there]
    array([0, 0, 1, 1, 1, 2, 2])
    """
    height, width = grid
    n_columns = width if by_rows else 1
    down, right = min(radius, height - 1), 0 if by_rows else min(radius, width - 1)
    shifts = np.indices((2 * down + 1, 2 * right + 1)).reshape(2, -1).T - (down, right)

    def shifted(blocks_down: IntArray, blocks_right: IntArray) -> tuple[IntArray, Any]:
        """Blocks around blocks, and which of them there are."""
        rows, columns = blocks_down[:, None] + shifts[:, 0], blocks_right[:, None] + shifts[:, 1]
        n_across = width // n_columns
        there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < n_across)
        return np.where(there, rows * n_across + columns, 0), there

    blocks = np.arange(height * width // n_columns)
    around, there = shifted(*np.divmod(blocks, width // n_columns))
    # A block's queries: all places of the blocks around it.
    queries = (around[:, :, None] * n_columns + np.arange(n_columns)) * there[:, :, None]
    queries = queries.reshape(len(blocks), -1)
    block, column = np.divmod(np.arange(height * width), n_columns)
    # Seen from the other block the shift is the other way round.
    slots = np.arange(len(shifts))[::-1] * n_columns
    found_at = around[block] * queries.shape[1] + slots + column[:, None]
    return Windows(queries, found_at * there[block], there[block], n_columns)


def local_scores(graph: Graph, scorer: Any, rows: Rows) -> str:
    """Distance of each patch to the nearest patch near its place.

    Parameters
    ----------
    graph : Graph
    scorer : LocalKNNScorer
        Fitted.
    rows : Rows

    Returns
    -------
    str
        Of float32 (batch, n_patches). Infinite where there is no patch near a place, which a fit
        with all places does not leave.

    Raises
    ------
    ValueError
        When the images have another grid than the training images.
    """
    if isinstance(scorer._model, FewImages):
        return few_scores(graph, scorer, rows)
    bank: LocalBank = scorer._model.bank
    if rows.grid != bank.grid or len(scorer._model.grid) != 2:
        raise ValueError(
            f"the images have a grid of {rows.grid[0]} x {rows.grid[1]} patches, the places of "
            f"the training images are {' x '.join(map(str, scorer._model.grid))}: export for "
            "images of the size of the training images, or fit with resize='squash'"
        )
    x = _in_units(graph, rows.tokens, bank.units)
    if bank.is_local:
        return _by_own_metrics(graph, bank, x)
    tokens: FloatArray = bank.tokens.astype(np.float64)
    if bank.metric.whitening is not None:
        factor = bank.factors[0]
        tokens = product(tokens.reshape(-1, len(factor)), factor.astype(np.float64))
        tokens = tokens.reshape(bank.tokens.shape)
        x = graph.op("MatMul", x, floats(graph, factor))
    # Expanded squares lose the fewer digits the shorter patches are.
    centre = tokens[bank.valid].mean(axis=0)
    kept = (tokens - centre).astype(np.float32)
    x = minus(graph, x, centre)
    width = bank.grid[1]
    by_rows = width <= 2 * (2 * bank.radius + 1)  # most places of a row are in most windows
    windows = windows_of(bank.grid, bank.radius, by_rows)
    squared = squared_norms(kept.reshape(-1, kept.shape[2])).reshape(bank.valid.shape)
    norms = np.where(bank.valid, squared, np.inf).reshape(len(windows.queries), 1, 1, -1)
    near, is_there = _nearest(graph, bank, kept, windows, norms, _places_first(graph, x))
    distances = squared_length(graph, graph.op("Sub", x, near))
    return _distances(graph, distances, is_there)


def _in_units(graph: Graph, x: str, units: Units) -> str:
    """Tokens in the units of a bank; float32 (batch, n_patches, components)."""
    if units.unit_length:
        x, _ = unit_length(graph, x)
    if units.centre.any():
        x = minus(graph, x, units.centre)
    if (units.scale != 1).any():
        x = graph.op("Div", x, floats(graph, units.scale))
    if units.components is not None:
        x = graph.op("MatMul", x, floats(graph, units.components))
    return x


def _by_own_metrics(graph: Graph, bank: LocalBank, x: str) -> str:
    """Distances where each place has its own metric."""
    windows = windows_of(bank.grid, bank.radius, by_rows=False)
    factors = floats(graph, bank.factors)  # (places, components, components)
    centred = graph.op("Sub", x, floats(graph, bank.means))
    white = graph.op("MatMul", _places_first(graph, centred), factors)
    white = graph.op("Transpose", white, perm=[0, 2, 1])
    slopes = graph.op("Transpose", graph.op("MatMul", factors, white), perm=[0, 2, 1])
    norms = _norms(bank, windows)[:, :, None]
    near, is_there = _nearest(graph, bank, bank.tokens, windows, norms, slopes)
    difference = _places_first(graph, graph.op("Sub", x, near))
    squared = squared_length(graph, graph.op("MatMul", difference, factors))
    return _distances(graph, graph.op("Transpose", squared, perm=[1, 0]), is_there)


def _places_first(graph: Graph, x: str) -> str:
    return graph.op("Transpose", x, perm=[1, 0, 2])


def _norms(bank: LocalBank, windows: Windows) -> FloatArray:
    """Squared distance of each patch to the origin of each query, in its metric.

    Those that the bank keeps are bounds, and a little lower. Of shape (n_blocks, n_slots, n).
    """
    n_places, n, dim = bank.tokens.shape
    norms = np.full((windows.queries.size, n), np.inf, dtype=np.float32)
    for place in range(n_places):
        there = windows.is_there[place]
        at = windows.found_at[place][there]
        near = at // windows.queries.shape[1]
        factor = bank.factors[place].astype(np.float64)
        patches = bank.tokens[near].reshape(-1, dim) - bank.means[place].astype(np.float64)
        squared = squared_norms(product(patches, factor)).reshape(len(near), n)
        norms[at] = np.where(bank.valid[near], squared, np.inf)
    return norms.reshape(*windows.queries.shape, n)


def _nearest(
    graph: Graph, bank: LocalBank, tokens: FloatArray, windows: Windows, norms: Any, slopes: str
) -> tuple[str, str]:
    """The nearest patch to each query.

    Parameters
    ----------
    graph : Graph
    bank : LocalBank
    tokens : ndarray of shape (n_places, n, dim), float32
        Its patches.
    windows : Windows
    norms : ndarray, broadcast to (n_blocks, n_slots, batch, patches of a block)
    slopes : str
        Of float32 (n_places, batch, dim): ``norms - 2 slopes @ patch`` is least for the nearest.

    Returns
    -------
    near : str
        Of float32 (batch, n_places, dim).
    is_there : str
        Of bool (batch, n_places): whether there is any.
    """
    (n_blocks, n_slots), (n_places, n, dim) = windows.queries.shape, tokens.shape
    size = n * windows.n_columns
    blocks = floats(graph, tokens.reshape(n_blocks, size, dim).transpose(0, 2, 1).copy())
    left = graph.op("Mul", slopes, floats(graph, -2.0))
    left = graph.op("Gather", left, integers(graph, windows.queries), axis=0)
    left = reshape(graph, left, (n_blocks, -1, dim))
    bounds = reshape(graph, graph.op("MatMul", left, blocks), (n_blocks, n_slots, -1, size))
    bounds = graph.op("Add", bounds, floats(graph, norms))
    if windows.n_columns > 1:
        column = np.arange(windows.n_columns)
        far = np.abs(column[:, None] - column) > bank.radius
        far = np.repeat(np.tile(far, (n_slots // len(column), 1)), n, axis=1)
        bounds = graph.op("Add", bounds, floats(graph, np.where(far, np.inf, 0)[:, None]))
    least = graph.op("ReduceMin", bounds, integers(graph, [3]), keepdims=0)
    number = graph.op("ArgMin", bounds, axis=3, keepdims=0)
    least, number = (
        graph.op("Transpose", reshape(graph, of, (n_blocks * n_slots, -1)), perm=[1, 0])
        for of in (least, number)
    )
    found_at = integers(graph, windows.found_at)
    beyond = floats(graph, np.where(windows.is_there, 0, np.inf))
    of_block = graph.op("Add", graph.op("Gather", least, found_at, axis=1), beyond)
    best = graph.op("ArgMin", of_block, axis=2, keepdims=1)  # (batch, n_places, 1)
    n_near = windows.found_at.shape[1]
    first = integers(graph, np.arange(n_places)[:, None] * n_near)
    at = graph.op(
        "Gather", integers(graph, windows.found_at.ravel()), graph.op("Add", best, first), axis=0
    )
    at = graph.op("Squeeze", at, integers(graph, [2]))
    number = graph.op("GatherElements", number, at, axis=1)
    block = graph.op("Div", at, integers(graph, n_slots))
    value = graph.op("GatherElements", least, at, axis=1)
    is_there = graph.op("Not", graph.op("IsInf", value))
    where = graph.op(
        "Concat",
        unsqueeze(graph, block, 2),
        unsqueeze(graph, graph.op("Sub", block, block), 2),
        unsqueeze(graph, number, 2),
        axis=2,
    )
    component = np.zeros((dim, 3), dtype=np.int64)
    component[:, 1] = np.arange(dim)
    where = graph.op("Add", unsqueeze(graph, where, 2), integers(graph, component))
    return graph.op("GatherND", blocks, where), is_there


def _distances(graph: Graph, squared: str, is_there: str) -> str:
    return graph.op("Where", is_there, graph.op("Sqrt", squared), floats(graph, np.inf))
