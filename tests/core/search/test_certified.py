"""Searches that rule out rows by bounds find what brute force finds, whatever the data."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_brute_force import KINDS, METRICS, assert_nearest, make, oracle

from skanomaly.core.search.brute_force import nearest_patches, prepare_bank
from skanomaly.core.search.certified import CertifiedSearch
from skanomaly.core.search.index import PatchIndex
from skanomaly.core.search.sorting import sort_bank, split_order
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning

quick = settings(max_examples=25, deadline=None, derandomize=True)

# What the products that bound may be computed in here: bfloat16 goes through torch.
PRECISIONS = ["float32", "bfloat16"]

# Further data: few leading directions, many equal ones, and clusters far from the origin.
SHAPES = {
    **KINDS,
    "low rank": lambda x, rng: x * 2.0 ** -np.arange(x.shape[1]),
    "clusters": lambda x, rng: 0.1 * x + 3 * x[rng.integers(0, 4, len(x))],
    "far clusters": lambda x, rng: 1e-2 * x + 1e3 * x[rng.integers(0, 4, len(x))],
    # As far as can be from the numbers that bfloat16 holds.
    "between": lambda x, rng: np.sign(x) * (1 + 0.999 * 2.0**-8),
    "integers": lambda x, rng: np.round(2 * x),
    "outlier": lambda x, rng: x * np.where(np.arange(len(x)) == 3, 1e6, 1)[:, None],
}


@pytest.fixture(params=PRECISIONS)
def precision(request):
    if request.param == "bfloat16":
        pytest.importorskip("torch")
    return request.param


# Each metric and each precision once.
EACH_ONCE = pytest.mark.parametrize(
    "metric, precision",
    [("cosine", "bfloat16"), ("euclidean", "float32")],
    indirect=["precision"],
)


def shaped(kind, n_queries, n_bank, dim, dtype, seed=0):
    if kind in KINDS:
        return make(kind, n_queries, n_bank, dim, dtype, seed)
    rng = np.random.default_rng(seed)
    tokens = SHAPES[kind](rng.standard_normal((n_queries + n_bank, dim)), rng).astype(dtype)
    return tokens[:n_queries], tokens[n_queries:]


def both(queries, bank, k, metric, query_groups=None, bank_groups=None, tuning=DEFAULT_TUNING):
    """What the certified search and brute force find."""
    queries, bank = prepare_bank(queries, metric), prepare_bank(bank, metric)
    index = PatchIndex(bank.copy(), metric, "certified", tuning=tuning)
    return (
        index.search(queries, k, query_groups, bank_groups),
        nearest_patches(queries, bank, k, metric, query_groups, bank_groups),
    )


def assert_same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize(
    "metric, dtype, precision",
    [("cosine", np.float64, "float32"), ("euclidean", np.float32, "bfloat16")],
    indirect=["precision"],
)
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_finds_what_brute_force_finds(kind, metric, dtype, precision):
    queries, bank = shaped(kind, 15, 600, 65, dtype)
    tuning = Tuning(precision=precision, comparison_cost=0, rows_per_part=200)
    found, expected = both(queries, bank, 3, metric, tuning=tuning)
    assert_same(found, expected)
    assert_nearest(*found, oracle(queries, bank, metric), metric, dtype)


@pytest.mark.parametrize("metric", METRICS)
@given(
    kind=st.sampled_from(sorted(SHAPES)),
    n_queries=st.integers(1, 20),
    n_bank=st.integers(4, 200),
    dim=st.sampled_from([1, 2, 3, 4, 8, 65]),
    k=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@quick
def test_any_data(metric, kind, n_queries, n_bank, dim, k, seed):
    queries, bank = shaped(kind, n_queries, n_bank, dim, np.float32, seed)
    assert_same(*both(queries, bank, k, metric))


@EACH_ONCE
def test_tokens_of_a_real_dimension(metric, precision):
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((12, 384)) / 384**0.5
    tokens = rng.standard_normal((5300, 12)) @ directions + 1
    tokens += 0.01 * rng.standard_normal((5300, 1))
    queries, bank = np.split(tokens.astype(np.float32), [300])
    queries[::50] *= -3  # far from all of the bank
    assert_same(*both(queries, bank, 1, metric, tuning=Tuning(precision=precision)))


@EACH_ONCE
@pytest.mark.parametrize("kind", ["plain", "clusters", "duplicates", "zeros"])
def test_bounds_rule_out_rows_but_never_the_nearest(kind, metric, precision):
    """The columns bound y.z - |z|^2 / 2 - t from above for every pair, in float64."""
    queries, bank = (prepare_bank(x, metric) for x in shaped(kind, 30, 700, 65, np.float32))
    queries = queries[queries.any(axis=1)]
    _, parts = sort_bank(bank, DEFAULT_TUNING.rows_per_block)
    search = CertifiedSearch(bank, parts, metric, Tuning(precision=precision))
    exact = queries.astype(np.float64) @ bank.T.astype(np.float64)
    if metric == "euclidean":
        exact -= 0.5 * (bank.astype(np.float64) ** 2).sum(axis=1)
    # Whatever value is asked for: a block that holds a row which reaches it is kept.
    for rank in (1, 10, 100):
        reached = np.partition(exact, -rank, axis=1)[:, -rank]
        if metric == "cosine":  # the norms of the unit vectors are right to an ulp of float32
            reached -= 1e-6
        possible = search._possible(search._query_columns(queries.astype(np.float64), reached))
        blocks = zip(search.blocks.starts, search.blocks.stops, strict=True)
        for block, (start, stop) in enumerate(blocks):
            needed = (exact[:, start:stop] >= reached[:, None]).any(axis=1)
            assert possible[block][needed].all()
    if kind == "clusters":
        assert possible.mean() < 1  # and some are ruled out


@pytest.mark.parametrize("metric", METRICS)
@given(kind=st.sampled_from(sorted(SHAPES)), k=st.integers(1, 3), seed=st.integers(0, 1000))
@quick
def test_groups_are_left_out(metric, kind, k, seed):
    queries, bank = shaped(kind, 12, 150, 16, np.float32, seed)
    rng = np.random.default_rng(seed)
    bank_groups = np.sort(rng.integers(0, 4, len(bank)))  # whole blocks of one group
    query_groups = rng.integers(-1, 6, len(queries))
    found, expected = both(queries, bank, k, metric, query_groups, bank_groups)
    assert_same(found, expected)
    assert (bank_groups[found[1]] != query_groups[:, None]).all()


@pytest.mark.parametrize("size", [1e-3, 1e6, 1e14, 1e18])
def test_queries_far_from_a_narrow_bank(size, precision):
    rng = np.random.default_rng(0)
    bank = (1e-12 * rng.standard_normal((400, 12))).astype(np.float32)
    queries = (size * rng.standard_normal((9, 12))).astype(np.float32)
    queries[4:] = bank[:5]
    tuning = Tuning(precision=precision, comparison_cost=0)
    assert_same(*both(queries, bank, 1, "euclidean", tuning=tuning))


@pytest.mark.parametrize("metric", METRICS)
def test_leave_one_image_out(metric):
    """Queries are rows of the bank, and the blocks near them are mostly their own image's."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(6), 200)
    tokens = 5 * rng.standard_normal((6, 1, 20)) + rng.standard_normal((6, 200, 20))
    tokens = tokens.reshape(-1, 20).astype(np.float32)
    assert_same(*both(tokens, tokens, 2, metric, image, image, Tuning(comparison_cost=0)))


def test_every_row_left_out_is_an_error():
    bank = prepare_bank(make("plain", 1, 100, 8, np.float32)[1], "cosine")
    index, group = PatchIndex(bank.copy(), algorithm="certified"), np.zeros(100, dtype=int)
    with pytest.raises(ValueError, match="n_neighbors=1 is more than the 0 patches"):
        index.search(bank[:2], 1, group[:2], group)
    with pytest.raises(ValueError, match="n_neighbors=101"):
        index.search(bank[:2], 101)


@pytest.mark.parametrize("k", [33, 65, 100])
def test_more_neighbors_than_rows_of_a_block(k):
    queries, bank = make("plain", 7, 300, 8, np.float32)
    assert_same(*both(queries, bank, k, "cosine"))


def test_noise_is_not_ruled_out_by_a_few_coordinates(precision, monkeypatch):
    """Of equal directions the bounds see a sixth: they would only be in the way."""
    queries, bank = make("plain", 160, 3000, 384, np.float32)
    queries[::3] *= -1
    calls, possible = [], CertifiedSearch._possible
    monkeypatch.setattr(
        CertifiedSearch, "_possible", lambda *args: calls.append(len(args)) or possible(*args)
    )
    assert_same(*both(queries, bank, 1, "cosine", tuning=Tuning(precision=precision)))
    assert set(calls) == {3}  # the samples alone


def test_too_many_candidates_are_given_up():
    tuning = Tuning(
        candidates_at_once=500, candidates_per_query=20, pairs_at_once=64, comparison_cost=0
    )
    queries, bank = make("plain", 50, 900, 8, np.float32)
    bank[::3] = bank[0]
    queries[:25] = bank[0]
    assert_same(*both(queries, bank, 2, "euclidean", tuning=tuning))


@pytest.mark.parametrize("metric", METRICS)
@given(kind=st.sampled_from(sorted(SHAPES)), seed=st.integers(0, 100))
@quick
def test_batch_and_order_of_queries_change_nothing(metric, kind, seed):
    queries, bank = (prepare_bank(x, metric) for x in shaped(kind, 9, 200, 12, np.float32, seed))
    index = PatchIndex(bank.copy(), metric, "certified")
    distances, indices = index.search(queries, 2)
    alone = [index.search(query[None], 2) for query in queries]
    np.testing.assert_array_equal(distances, np.concatenate([d for d, _ in alone]))
    np.testing.assert_array_equal(indices, np.concatenate([i for _, i in alone]))


@pytest.mark.parametrize("kind", sorted(SHAPES))
@pytest.mark.parametrize("metric", METRICS)
def test_upper_bounds(kind, metric):
    queries, bank = (prepare_bank(x, metric) for x in shaped(kind, 60, 900, 24, np.float32))
    groups = np.arange(900) % 5
    index = PatchIndex(bank.copy(), metric, "certified")
    if not index.has_bounds:
        assert kind in {"tiny", "half underflown", "tiniest", "huge"}
        return
    for k, options in ((1, {}), (3, {}), (3, {"query_groups": groups[:60], "bank_groups": groups})):
        exact, _ = index.search(queries, k, **options)
        bounds = index.upper_bounds(queries, k, **options)
        assert (bounds >= exact).all()
        assert np.isfinite(bounds).all()
    assert np.isinf(index.upper_bounds(queries, 200)).all()


@pytest.mark.parametrize("algorithm", ["brute", "certified"])
def test_index_keeps_the_order_of_the_bank(algorithm):
    _, bank = make("plain", 1, 500, 8, np.float32)
    index = PatchIndex(bank.copy(), algorithm=algorithm)
    np.testing.assert_array_equal(index.bank, bank)
    assert len(index) == 500
    assert index.dtype == np.float32


def test_pickle_holds_the_bank_once():
    queries, bank = (prepare_bank(x, "cosine") for x in make("plain", 20, 3000, 64, np.float32))
    index = PatchIndex(bank.copy(), algorithm="certified")
    before = index.search(queries)
    data = pickle.dumps(index)
    assert len(data) < 1.1 * bank.nbytes
    assert_same(pickle.loads(data).search(queries), before)


@pytest.mark.parametrize("k, metric", [(1, "cosine"), (4, "euclidean")])
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_search_on_a_device(kind, metric, k):
    torch = pytest.importorskip("torch")
    tuning = Tuning(rows_per_device_product=100)
    queries, bank = (prepare_bank(x, metric) for x in shaped(kind, 30, 350, 24, np.float32))
    groups = np.arange(350) % 7
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        index = PatchIndex(bank.copy(), metric, f"torch:{device}", tuning=tuning)
        for query_groups, bank_groups in ((None, None), (groups[:30], groups)):
            found = index.search(queries, k, query_groups, bank_groups)
            expected = nearest_patches(queries, bank, k, metric, query_groups, bank_groups)
            assert_same(found, expected)


def test_unknown_algorithm():
    with pytest.raises(ValueError, match="'hnsw'"):
        PatchIndex(np.eye(3), algorithm="hnsw")


def test_short_runs_of_the_order_are_compact():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((1000, 3))
    order = split_order(points, 32)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    runs = [points[order[i : i + 32]].std(axis=0).mean() for i in range(0, 1000, 32)]
    assert max(runs) < 0.7 * points.std(axis=0).mean()
