"""Products of all coordinates in bfloat16 find what brute force finds, whatever the data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_brute_force import METRICS, assert_nearest, make, oracle
from test_certified import SHAPES, assert_same, quick, shaped

from skanomaly.core.search.brute_force import nearest_patches, prepare_bank
from skanomaly.core.search.index import PatchIndex
from skanomaly.core.search.low_precision import torch_products
from skanomaly.core.search.tuning import Tuning
from skanomaly.core.search.wide import WideSearch, _rows_of

pytest.importorskip("torch")


def both(queries, bank, k, metric, query_groups=None, bank_groups=None, **sizes):
    """What the wide search and brute force find."""
    queries, bank = prepare_bank(queries, metric), prepare_bank(bank, metric)
    tuning = Tuning(**{"comparison_cost": 0, "rows_per_wide_product": 256, **sizes})
    index = PatchIndex(bank.copy(), metric, "wide", tuning=tuning)
    return (
        index.search(queries, k, query_groups, bank_groups),
        nearest_patches(queries, bank, k, metric, query_groups, bank_groups),
    )


@pytest.fixture
def left_over(monkeypatch):
    """Which queries the wide search gives up, of each call."""
    left, candidates = [], WideSearch.candidates

    def spied(self, queries, *args):
        result = candidates(self, queries, *args)
        left.append(np.isin(np.arange(len(queries)), result[2]))
        return result

    monkeypatch.setattr(WideSearch, "candidates", spied)
    return left


@pytest.mark.parametrize("metric, dtype", [("cosine", np.float32), ("euclidean", np.float64)])
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_finds_what_brute_force_finds(kind, metric, dtype, left_over):
    queries, bank = shaped(kind, 15, 600, 65, dtype)
    found, expected = both(queries, bank, 3, metric)
    assert_same(found, expected)
    assert_nearest(*found, oracle(queries, bank, metric), metric, dtype)
    if left_over:  # the norms of some banks are beyond all bounds
        assert not left_over[0].all()


@pytest.mark.parametrize("metric", METRICS)
@given(kind=st.sampled_from(sorted(SHAPES)), k=st.integers(1, 40), seed=st.integers(0, 1000))
@quick
def test_groups_are_left_out(metric, kind, k, seed):
    queries, bank = shaped(kind, 12, 250, 16, np.float32, seed)
    rng = np.random.default_rng(seed)
    bank_groups = np.sort(rng.integers(0, 4, len(bank)))
    query_groups = rng.integers(-1, 6, len(queries))
    found, expected = both(queries, bank, k, metric, query_groups, bank_groups)
    assert_same(found, expected)
    assert (bank_groups[found[1]] != query_groups[:, None]).all()


@pytest.mark.parametrize("metric, dtype", [("cosine", np.float32), ("euclidean", np.float64)])
@pytest.mark.parametrize(
    "kind",
    ["plain", "clusters", "far clusters", "duplicates", "zeros", "outlier", "between", "integers"],
)
def test_a_row_that_reaches_what_is_asked_for_is_never_ruled_out(kind, dtype, metric):
    """Asked for its very own similarity, taken in float64, a row is within the limit."""
    queries, bank = (prepare_bank(x, metric) for x in shaped(kind, 20, 700, 65, dtype))
    queries = queries[queries.any(axis=1)]
    search = WideSearch(bank, metric)
    exact = queries.astype(np.float64) @ bank.astype(np.float64).T
    if metric == "euclidean":
        exact -= 0.5 * (bank.astype(np.float64) ** 2).sum(axis=1)
    columns, limit_of, out_of_range = search._columns_of(queries)
    assert not out_of_range.any()
    ((_, products),) = torch_products(search.rows, columns, len(search.rows))
    for rank in (1, 10, 100):
        reached = np.partition(exact, -rank, axis=1)[:, -rank]
        if metric == "cosine":  # the norms of the unit vectors are right to an ulp of float32
            reached -= 1e-6
        possible = products[: len(bank)] <= limit_of(reached)
        assert possible.T[exact >= reached[:, None]].all()
        assert not (products[len(bank) :] <= limit_of(reached)).any()  # which only fill up
    if kind == "plain":
        assert possible.mean() < 0.3  # and most are ruled out


@pytest.mark.parametrize("n_rows, at_once", [(128, 2048), (2048, 2048), (2176, 2048), (5120, 256)])
def test_blocks_hold_each_row_once(n_rows, at_once):
    rows = _rows_of(np.arange(n_rows // 8), n_rows, at_once)
    np.testing.assert_array_equal(np.sort(rows.ravel()), np.arange(n_rows))
    # As the products of so many rows at a time are folded.
    first = np.arange(min(n_rows, at_once)).reshape(8, -1).T
    np.testing.assert_array_equal(rows[: len(first)], first)


def test_few_rows_of_noise_are_compared(monkeypatch):
    """What a few coordinates cannot do."""
    queries, bank = (prepare_bank(x, "cosine") for x in make("plain", 64, 9000, 384, np.float32))
    compared, compare = [], WideSearch._similarities
    monkeypatch.setattr(
        WideSearch,
        "_similarities",
        lambda self, queries, q, *args: compared.append(len(q)) or compare(self, queries, q, *args),
    )
    PatchIndex(bank, "cosine", "wide").search(queries)
    assert len(compared) == 2  # the blocks that look nearest, and what these do not rule out
    assert compared[0] < 2 * 64
    assert sum(compared) < 10 * 64


def test_what_cannot_be_told_apart_goes_to_brute_force(left_over):
    """Rows nearer to each other than the rounding of their coordinates."""
    rng = np.random.default_rng(0)
    circle = rng.standard_normal((6000, 32))
    circle /= np.linalg.norm(circle, axis=1, keepdims=True)
    bank = (circle * (1 + 1e-5 * rng.standard_normal((6000, 1)))).astype(np.float32)
    queries = (1e-4 * rng.standard_normal((80, 32))).astype(np.float32)
    queries[:5] = 3 * bank[:5]
    assert_same(*both(queries, bank, 1, "euclidean", comparison_cost=4))
    assert left_over[0][5:].all() and not left_over[0][:5].any()


def test_queries_far_from_a_narrow_bank(left_over):
    rng = np.random.default_rng(0)
    bank = (1e-12 * rng.standard_normal((400, 12))).astype(np.float32)
    for size in (1e-3, 1e6, 1e14, 1e18):
        queries = (size * rng.standard_normal((9, 12))).astype(np.float32)
        queries[4:] = bank[:5]
        assert_same(*both(queries, bank, 1, "euclidean"))
    assert left_over[-1].tolist() == [True] * 4 + [False] * 5


def test_too_many_candidates_are_given_up(left_over):
    queries, bank = make("plain", 50, 900, 8, np.float32)
    bank[::3] = bank[0]
    queries[:25] = bank[0]
    assert_same(*both(queries, bank, 2, "euclidean", candidates_per_query=20))
    assert left_over[0][:25].all() and not left_over[0].all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 3, 128])
@pytest.mark.parametrize("kind", ["between", "integers"])
def test_coordinates_that_are_rounded_the_most(kind, dim, metric):
    queries, bank = shaped(kind, 30, 1000, dim, np.float32)
    bank = np.concatenate([bank, -bank, queries[:30]])  # whose centre is next to nought
    assert_same(*both(queries, bank, 1, metric))


@pytest.mark.parametrize("size", [1, 31, 33, 512, 513])
def test_banks_of_any_size(size):
    queries, bank = make("plain", 20, size, 9, np.float32)
    assert_same(*both(queries, bank, 1, "euclidean"))


def test_equal_rows():
    bank = np.ones((300, 5), dtype=np.float32)
    queries = np.vstack([bank[:2], 2 * bank[:2], -bank[:1]])
    for metric in METRICS:
        assert_same(*both(queries, bank, 3, metric))
