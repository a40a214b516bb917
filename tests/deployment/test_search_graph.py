"""Nearest rows by a graph against plain distances in float64."""

import numpy as np
import onnxruntime
import pytest

from skanomaly.deployment import _search_graph
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._search_graph import Directions, SearchGraph, directions_of

pytest.importorskip("onnx")

DIM = 96


def mixture(n, seed, spread=0.02):
    """Rows near a space of 8 directions, about a mean of zero."""
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(5).normal(size=(8, DIM))
    rows = rng.normal(size=(n, 8)) @ plane + spread * rng.normal(size=(n, DIM))
    return (rows - rows.mean(axis=0)).astype(np.float32)


def noise(n, seed):
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def run(bank, queries, count):
    graph = Graph()
    name = graph.input("queries", np.float32, ["n", DIM])
    squared, rows = SearchGraph(graph, bank, min(count, 3)).nearest(name, count)
    graph.output(squared, "squared", np.float32, ["n", count])
    graph.output(rows, "rows", np.float32, ["n", count, DIM])
    model = graph.model({})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [node.op_type for node in model.graph.node], *session.run(None, {"queries": queries})


def check_exact(bank, queries, count):
    kinds, squared, rows = run(bank, queries, count)
    exact = ((queries[:, None].astype(float) - bank[None].astype(float)) ** 2).sum(axis=-1)
    expected = np.sort(exact, axis=1)[:, :count]
    np.testing.assert_allclose(squared, expected, rtol=1e-5, atol=1e-9)
    measured = ((queries[:, None].astype(float) - rows) ** 2).sum(axis=-1)
    np.testing.assert_allclose(measured, expected, rtol=1e-5, atol=1e-9)
    assert (rows[:, :, None] == bank[None, None]).all(axis=-1).any(axis=-1).all()
    return kinds


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("chunk", [2**14, 1100])
def test_few_directions_find_what_is_nearest(count, chunk, monkeypatch):
    monkeypatch.setattr(_search_graph, "_CHUNK", chunk)
    bank = mixture(2200, 0)
    queries = np.concatenate([mixture(60, 1), noise(20, 2), bank[:5], np.zeros((1, DIM), "f4")])
    kinds = check_exact(bank, queries, count)
    assert "NonZero" in kinds  # not the product alone
    check_exact(bank, queries[:1], count)


def test_queries_of_which_none_is_certain():
    bank = mixture(1100, 0)
    assert "NonZero" in check_exact(bank, 30 * noise(40, 1), 1)


def test_without_few_directions_it_is_the_product():
    assert directions_of(noise(1500, 0), 1) is None
    assert "NonZero" not in check_exact(noise(1500, 0), noise(30, 1), 1)
    assert directions_of(mixture(500, 0), 1) is None  # too few rows to rule any out


def test_more_neighbours_than_are_measured():
    assert "NonZero" not in check_exact(mixture(1100, 0), mixture(20, 1), 20)


@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
@pytest.mark.parametrize("seed", range(3))
def test_any_directions_at_all_find_what_is_nearest(seed, scale, monkeypatch):
    """Bad directions cost time, and change nothing that is found."""
    basis = np.linalg.qr(noise(DIM, seed))[0][:, : 4 + seed].astype(np.float32)
    monkeypatch.setattr(_search_graph, "directions_of", lambda *_: Directions(basis, 4))
    rows = np.concatenate([mixture(700, seed), noise(400, seed)]) * np.float32(scale)
    queries = np.concatenate([mixture(50, 9), noise(50, 9)]) * np.float32(scale)
    check_exact(rows - rows.mean(axis=0), queries, 2)


def test_duplicates_of_a_row():
    """More equal rows than are measured: none of them is nearer than the others."""
    bank = np.repeat(mixture(60, 0), 40, axis=0)
    check_exact(bank, mixture(30, 1), 1)
    check_exact(bank, bank[::100].copy(), 3)


@pytest.mark.parametrize("spread", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("rows", [mixture, noise])
def test_rows_that_are_nearer_to_each_other_than_a_product_tells_apart(rows, spread):
    """Of three rows in one place the nearest one is found, by their differences."""
    places = rows(200, 0).astype(float)
    moved = spread * np.random.default_rng(1).normal(size=(3, 200, DIM))
    bank = (places + moved).reshape(-1, DIM).astype(np.float32)
    queries = places + spread * np.random.default_rng(2).normal(size=(200, DIM))
    check_exact(bank, queries[:60].astype(np.float32), 1)
