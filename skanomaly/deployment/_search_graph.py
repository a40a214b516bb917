"""The nearest rows of a memory bank as nodes of a graph.

Most of the time of a search is the product of all queries with all rows of the bank. Of tokens a
few directions hold nearly all: in the coordinates of these, and the length of what is left, each
distance has a lower bound that takes a fraction of the product. The few rows with the least
bounds are measured. Where the farthest of these bounds is above the distance found, no other row
can be nearer; the other queries, some in a hundred, are compared with the whole bank. How many
directions to take is a matter of time alone. What is found is exact but for the rounding of that
last product: of more than a few rows that are nearer to each other than it tells apart, relative
to their lengths about the mean of the bank, any may be found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skanomaly._typing import FloatArray
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._rows import floats, integers, squared_length, unsqueeze

_CHUNK = 2**14  # rows of a bank that queries are compared with at a time
# Of so many rows the least bound is found before that of a row: minima of blocks are found at
# several times the speed at which ONNX Runtime finds where a minimum is.
_BLOCK = 32
_FAR = np.float32(1e38)  # a squared length of rows that fill up a block, and are never the nearest
_N_DIRECTIONS = (16, 32, 48, 64, 96, 128, 192, 256)
_N_MEASURED = (4, 8, 16)  # rows with the least bounds, of each chunk
_MEASURING = 50  # what a component of these takes, in multiplications of the product
_SPARE = 3  # rows more than are asked for, where the product with the whole bank finds them
_N_SAMPLED = 128  # rows as queries, by which the number of directions is chosen


@dataclass(frozen=True)
class Directions:
    """Directions that hold most of the rows of a bank.

    Attributes
    ----------
    basis : ndarray of float32, shape (n_components, n_directions)
        Of orthogonal unit length.
    n_measured : int
        Rows with the least bounds that are measured.
    """

    basis: FloatArray
    n_measured: int

    def shortened(self, rows: FloatArray) -> FloatArray:
        """Coordinates and the length of the rest, (n_rows, n_directions + 1), in float64."""
        rows = rows.astype(np.float64)
        basis = self.basis.astype(np.float64)
        along = rows @ basis
        rest = np.linalg.norm(rows - along @ basis.T, axis=1, keepdims=True)
        return np.concatenate([along, rest], axis=1)


class SearchGraph:
    """A memory bank in a graph.

    Parameters
    ----------
    graph : Graph
    bank : ndarray of float32, shape (n_rows, n_components)
        About a mean of zero: squared distances as sums of squared lengths and products lose the
        fewer digits the shorter the rows are.
    n_neighbors : int
        How many are asked for most of all.
    """

    def __init__(self, graph: Graph, bank: FloatArray, n_neighbors: int) -> None:
        self.n_rows, self.n_components = bank.shape
        self._graph = graph
        self._directions = directions_of(bank, n_neighbors)
        self._chunks = []
        for part in np.array_split(bank, -(-len(bank) // _CHUNK)):
            self._chunks.append(_Chunk.of(part, self._directions))
        lengths = np.einsum("ij,ij->i", bank, bank, dtype=np.float64)
        self._longest = float(np.sqrt(lengths.max()))

    def nearest(self, queries: str, count: int) -> tuple[str, str]:
        """Squared distances of queries, (n, count), to their nearest rows, and these rows.

        Parameters
        ----------
        queries : str
            Of float32 (n, n_components).
        count : int
            At most `n_rows`.
        """
        if self._directions is None or count >= self._directions.n_measured:
            return self._by_product(queries, count)
        graph = self._graph
        low, squared_lengths = self._shortened(queries)
        found, limits = [], []
        for chunk in self._chunks:
            bounds = chunk.bounds(graph, low, chunk.short)
            numbers, limit = self._least(bounds, self._directions.n_measured)
            found.append((chunk.rows, numbers))
            limits.append(limit)
        least, near = self._measured(queries, found, count)
        # Bounds lack the squared length of the query, and may be too high by their rounding.
        limit = limits[0] if len(limits) == 1 else graph.op("Min", *limits)
        farthest = graph.op("Slice", least, *(integers(graph, [i]) for i in (count - 1, count, 1)))
        is_certain = graph.op(
            "LessOrEqual",
            graph.op("Sub", farthest, squared_lengths),
            graph.op("Sub", limit, self._rounding(squared_lengths)),
        )
        return self._completed(queries, is_certain, least, near, count)

    def _shortened(self, queries):
        """Coordinates and the length of the rest of queries, and their squared lengths."""
        graph, basis = self._graph, self._directions.basis
        along = graph.op("MatMul", queries, floats(graph, basis))
        squared = squared_length(graph, queries, keepdims=True)
        rest = graph.op("Sub", squared, squared_length(graph, along, keepdims=True))
        rest = graph.op("Max", rest, floats(graph, 0.0))
        # Too long by its rounding, never too short.
        rest = graph.op("Add", rest, graph.op("Mul", squared, floats(graph, self._error)))
        return graph.op("Concat", along, graph.op("Sqrt", rest), axis=1), squared

    @property
    def _error(self):
        """Of a product with a row, relative to the lengths of both; twice that of rounding."""
        n_directions = self._directions.basis.shape[1]
        n_terms = self.n_components * np.sqrt(n_directions) + n_directions + 8
        return 2 * n_terms * float(np.finfo(np.float32).eps)

    def _rounding(self, squared_lengths):
        """How much too high bounds may be: ``error * (|query| + longest)^2``."""
        graph = self._graph
        total = graph.op("Add", graph.op("Sqrt", squared_lengths), floats(graph, self._longest))
        return graph.op("Mul", graph.op("Mul", total, total), floats(graph, self._error))

    def _completed(self, queries, is_certain, least, near, count):
        """With the results of queries that are not certain from the whole bank."""
        graph = self._graph
        flat = graph.op("Reshape", is_certain, integers(graph, [-1]))
        at = graph.op("NonZero", graph.op("Not", flat))
        at = graph.op("Reshape", at, integers(graph, [-1]))
        # The first query is always among them: products of no rows are not known everywhere.
        at = graph.op("Concat", integers(graph, [0]), at, axis=0)
        squared, rows = self._by_product(graph.op("Gather", queries, at, axis=0), count)
        at = unsqueeze(graph, at, 1)
        return graph.op("ScatterND", least, at, squared), graph.op("ScatterND", near, at, rows)

    def _by_product(self, queries, count):
        """As `nearest`, from distances by the product with the whole bank.

        A few rows more than are asked for are measured, for the product rounds: rows that are
        nearer to each other than it tells apart are told apart by their differences.
        """
        graph, found = self._graph, []
        for chunk in self._chunks:
            bounds = chunk.bounds(graph, queries, chunk.rows)
            n_measured = min(count + _SPARE, chunk.n_rows)
            if n_measured * _BLOCK <= len(chunk.rows):
                numbers, _ = self._least(bounds, n_measured)
            else:
                k = integers(graph, [n_measured])
                numbers = graph.ops("TopK", bounds, k, n_outputs=2, axis=1, largest=0)[1]
            found.append((chunk.rows, numbers))
        return self._measured(queries, found, count)

    def _measured(self, queries, found, count):
        """The nearest of rows that were found, with their squared distances."""
        graph, squared, rows = self._graph, [], []
        for chunk, numbers in found:
            rows.append(graph.op("Gather", floats(graph, chunk), numbers, axis=0))
            difference = graph.op("Sub", rows[-1], unsqueeze(graph, queries, 1))
            squared.append(squared_length(graph, difference))
        all_squared, all_rows = squared[0], rows[0]
        if len(found) > 1:
            all_squared = graph.op("Concat", *squared, axis=1)
            all_rows = graph.op("Concat", *rows, axis=1)
        k = integers(graph, [count])
        least, order = graph.ops("TopK", all_squared, k, n_outputs=2, axis=1, largest=0)
        near = graph.op("GatherND", all_rows, unsqueeze(graph, order, 2), batch_dims=1)
        return least, near

    def _least(self, bounds, count):
        """Numbers of the least bounds of each query, (n, count), and the last of these bounds.

        They lie in the `count` blocks whose least bounds are the least.
        """
        graph, k = self._graph, integers(self._graph, [count])
        blocks = graph.op("Reshape", bounds, integers(graph, (0, -1, _BLOCK)))
        minima = graph.op("ReduceMin", blocks, integers(graph, [2]), keepdims=0)
        block = graph.ops("TopK", minima, k, n_outputs=2, axis=1, largest=0)[1]
        within = graph.op("GatherND", blocks, unsqueeze(graph, block, 2), batch_dims=1)
        within = graph.op("Reshape", within, integers(graph, (0, count * _BLOCK)))
        values, place = graph.ops("TopK", within, k, n_outputs=2, axis=1, largest=0)
        size = integers(graph, _BLOCK)
        block = graph.op("GatherElements", block, graph.op("Div", place, size), axis=1)
        place = graph.op("Mod", place, size)
        numbers = graph.op("Add", graph.op("Mul", block, size), place)
        ends = (count - 1, count, 1)
        return numbers, graph.op("Slice", values, *(integers(graph, [i]) for i in ends))


@dataclass(frozen=True)
class _Chunk:
    """Rows of a bank, filled up to a multiple of `_BLOCK`; all of float32."""

    rows: FloatArray
    short: FloatArray  # coordinates and the length of the rest
    lengths: FloatArray  # squared
    n_rows: int

    @classmethod
    def of(cls, part: FloatArray, directions: Directions | None) -> _Chunk:
        rows = ((0, -len(part) % _BLOCK), (0, 0))
        short = part[:, :0] if directions is None else directions.shortened(part)
        lengths = np.einsum("ij,ij->i", part, part, dtype=np.float64)
        lengths = np.pad(lengths, rows[0], constant_values=_FAR)
        return cls(
            np.pad(part, rows).astype(np.float32),
            np.pad(short, rows).astype(np.float32),
            lengths.astype(np.float32),
            len(part),
        )

    def bounds(self, graph: Graph, queries: str, rows: FloatArray) -> str:
        """Squared distances without the squared lengths of the queries, by the product."""
        held, lengths = floats(graph, rows), floats(graph, self.lengths)
        return graph.op("Gemm", queries, held, lengths, alpha=-2.0, transB=1)


def directions_of(bank: FloatArray, n_neighbors: int) -> Directions | None:
    """Directions by which a search takes the least time, or None where the product does.

    Parameters
    ----------
    bank : ndarray of float32, shape (n_rows, n_components)
    n_neighbors : int

    Returns
    -------
    Directions or None

    Notes
    -----
    Rows of the bank stand for queries, each without itself. Those of a coreset lie farther from
    each other than patches from it, so that more is compared here than later.
    """
    n_rows, n_components = bank.shape
    n_chunks = -(-n_rows // _CHUNK)
    if n_rows < _BLOCK * max(_N_MEASURED) * n_chunks:
        return None
    sample = bank[:: -(-n_rows // 2**14)].astype(np.float64)
    basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1].astype(np.float32)
    queries = bank[:: -(-n_rows // _N_SAMPLED)]
    squared = _squared_distances(queries, bank)
    own = squared <= 1e-6 * np.einsum("ij,ij->i", queries, queries)[:, None]
    farthest = np.partition(np.where(own, np.inf, squared), n_neighbors - 1, axis=1)
    farthest = farthest[:, n_neighbors - 1, None]
    best, least = None, float(n_rows * n_components)
    for n_directions in _N_DIRECTIONS:
        if n_directions >= n_components:
            break
        some = Directions(np.ascontiguousarray(basis[:, :n_directions]), 0)
        bounds = _squared_distances(some.shortened(queries), some.shortened(bank))
        nearer = ((bounds < farthest) & ~own).sum(axis=1)
        for n_measured in _N_MEASURED:
            time = n_rows * (n_directions + 1 + np.mean(nearer >= n_measured) * n_components)
            time += _MEASURING * n_chunks * n_measured * n_components
            if time < least:
                best, least = Directions(some.basis, n_measured), time
    return best


def _squared_distances(queries, rows):
    """By the expanded squares, whose rounding is of no matter to a choice by time."""
    lengths = (np.einsum("ij,ij->i", x, x) for x in (queries, rows))
    of_queries, of_rows = lengths
    return of_queries[:, None] + of_rows - 2 * (queries @ rows.T)
