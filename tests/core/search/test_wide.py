"""Products of all coordinates in bfloat16 find what brute force finds, whatever the data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_brute_force import METRICS, assert_nearest, make, oracle
from test_certified import SHAPES, assert_same, quick, shaped
from test_certified import both as both_tuned

from skanomaly.core.search.blocks import Blocks
from skanomaly.core.search.brute_force import prepare_bank
from skanomaly.core.search.index import PatchIndex
from skanomaly.core.search.low_precision import pack, two_terms_above
from skanomaly.core.search.sorting import sort_bank
from skanomaly.core.search.tuning import Tuning
from skanomaly.core.search.wide import WideSearch

pytest.importorskip("torch")


# All queries go to the products of all coordinates, and none of them to brute force.
WIDE = {
    "precision": "bfloat16",
    "least_sample": 1,
    "hopeless_share": -1.0,
    "queries_for_all_coordinates": 1,
    "comparison_cost": 0,
}


def both(*args, **sizes):
    return both_tuned(*args, tuning=Tuning(**{**WIDE, **sizes}))


@pytest.fixture
def left_over(monkeypatch):
    """What the wide search gives up, of each call."""
    left, candidates = [], WideSearch.candidates

    def spied(*args):
        result = candidates(*args)
        left.append(result[2])
        return result

    monkeypatch.setattr(WideSearch, "candidates", spied)
    return left


@pytest.mark.parametrize("metric, dtype", [("cosine", np.float32), ("euclidean", np.float64)])
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_finds_what_brute_force_finds(kind, metric, dtype, left_over):
    queries, bank = shaped(kind, 15, 600, 65, dtype)
    found, expected = both(queries, bank, 3, metric, rows_per_part=200)
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
    """Asked for its very own similarity, taken in float64, the block of a row is kept."""
    queries, bank = (prepare_bank(x, metric) for x in shaped(kind, 20, 700, 65, dtype))
    queries = queries[queries.any(axis=1)]
    _, parts = sort_bank(bank, Tuning().rows_per_block)
    search = WideSearch(Blocks(bank, parts, metric))
    wide, narrow = queries.astype(np.float64), bank.astype(np.float64)
    exact = wide @ narrow.T
    if metric == "euclidean":
        exact -= 0.5 * (narrow**2).sum(axis=1)
    columns, threshold, out_of_range = search._columns_of(wide)
    assert not out_of_range.any()
    for rank in (1, 10, 100):
        reached = np.partition(exact, -rank, axis=1)[:, -rank]
        if metric == "cosine":  # the norms of the unit vectors are right to an ulp of float32
            reached -= 1e-6
        columns[-2:] = pack(two_terms_above(-threshold(reached), "bfloat16").T, "bfloat16")
        possible = search._possible(0, len(search.blocks), columns)
        for block, (start, stop) in enumerate(
            zip(search.blocks.starts, search.blocks.stops, strict=True)
        ):
            needed = (exact[:, start:stop] >= reached[:, None]).any(axis=1)
            assert possible[block][needed].all()
    if kind == "plain":
        assert possible.mean() < 1  # and some are ruled out


def test_few_rows_of_noise_are_compared(monkeypatch):
    """What a few coordinates cannot do."""
    queries, bank = (prepare_bank(x, "cosine") for x in make("plain", 64, 9000, 384, np.float32))
    index = PatchIndex(bank, "cosine", "certified", tuning=Tuning(**WIDE))
    index.search(queries[:1])
    compared, compare = [], Blocks.compare
    monkeypatch.setattr(
        Blocks,
        "compare",
        lambda self, queries, q, *args: compared.append(len(q)) or compare(self, queries, q, *args),
    )
    index.search(queries)
    assert len(compared) > 4
    assert sum(compared) < 0.1 * 64 * len(index._search.blocks)


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
