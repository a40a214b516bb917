"""Nearest patches: exact, whatever the data, the blocks, the batch or the order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import NearestNeighbors

from skanomaly.core.search.brute_force import nearest_patches, prepare_bank
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning

quick = settings(max_examples=40, deadline=None, derandomize=True)
METRICS = ["cosine", "euclidean"]
DTYPES = [np.float32, np.float64]

# Ways to spoil a random matrix; each is where a matrix product alone ranks wrongly.
KINDS = {
    "plain": lambda x, rng: x,
    "duplicates": lambda x, rng: x[rng.integers(0, 3, len(x))],
    "near ties": lambda x, rng: x[rng.integers(0, 3, len(x))] + 1e-7 * x,
    "one direction": lambda x, rng: 1 + 1e-4 * x,
    "tiny": lambda x, rng: x * 1e-20,
    "half underflown": lambda x, rng: x * 1e-22,
    "tiniest": lambda x, rng: x * 1e-30,
    "mixed norms": lambda x, rng: x * 10.0 ** rng.integers(-30, 1, (len(x), 1)),
    "huge": lambda x, rng: x * 1e15,
    "offset": lambda x, rng: x + 1e3,
    "whole numbers": lambda x, rng: np.round(x),
    "zeros": lambda x, rng: x * rng.integers(0, 2, (len(x), 1)),
}


def make(kind, n_queries, n_bank, dim, dtype, seed=0):
    """Queries and a bank; a third of the queries are rows of the bank."""
    rng = np.random.default_rng(seed)
    tokens = KINDS[kind](rng.standard_normal((n_queries + n_bank, dim)), rng).astype(dtype)
    queries, bank = tokens[:n_queries].copy(), tokens[n_queries:].copy()
    queries[::3] = bank[rng.integers(0, n_bank, len(queries[::3]))]
    return queries, bank


def oracle(queries, bank, metric):
    """All distances in float64, one query at a time."""
    queries, bank = queries.astype(np.float64), bank.astype(np.float64)
    if metric == "euclidean":
        return np.array([np.sqrt(((bank - query) ** 2).sum(axis=1)) for query in queries])
    # scikit-learn takes tokens of tiny norm for zero vectors: let none be tiny.
    queries, bank = (x / np.maximum(abs(x).max(axis=1), 1e-300)[:, None] for x in (queries, bank))
    distances = cosine_distances(queries, bank)
    both_zero = ~queries.any(axis=1)[:, None] & ~bank.any(axis=1)
    distances[both_zero] = 0
    return distances


def search(queries, bank, k=1, metric="cosine", **options):
    return nearest_patches(
        prepare_bank(queries, metric), prepare_bank(bank, metric), k, metric, **options
    )


def assert_nearest(distances, indices, expected, metric, dtype):
    """`expected` holds the distances to every row of the bank."""
    k = distances.shape[1]
    # The cosine of float32 tokens is that of unit vectors rounded to float32. The Euclidean
    # distance is measured in float64 from the tokens themselves: relative error only.
    atol = {np.float32: 1e-6, np.float64: 1e-12}[dtype] if metric == "cosine" else 0
    rtol = 0 if metric == "cosine" else 1e-12
    assert distances.dtype == np.float64
    assert indices.dtype == np.int64
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :k], rtol=rtol, atol=atol)
    claimed = np.take_along_axis(expected, indices, axis=1)
    np.testing.assert_allclose(distances, claimed, rtol=rtol, atol=atol)
    steps, rows = np.diff(distances, axis=1), np.diff(indices, axis=1)
    assert (steps >= 0).all()
    assert (rows[steps == 0] > 0).all()  # of equal ones the lower row first, none twice


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 5])
def test_equals_scikit_learn_brute_force(metric, k, dtype):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((70, 48)).astype(dtype)
    bank = rng.standard_normal((400, 48)).astype(dtype)
    brute = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric)
    expected, expected_indices = brute.fit(bank.astype(np.float64)).kneighbors(
        queries.astype(np.float64)
    )
    distances, indices = search(queries, bank, k, metric)
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(distances, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(indices, expected_indices)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    n_queries=st.integers(1, 12),
    n_bank=st.integers(4, 90),
    dim=st.sampled_from([1, 2, 3, 17, 64]),
    k=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@quick
def test_exact_for_any_data(metric, dtype, kind, n_queries, n_bank, dim, k, seed):
    queries, bank = make(kind, n_queries, n_bank, dim, dtype, seed)
    distances, indices = search(queries, bank, k, metric)
    assert_nearest(distances, indices, oracle(queries, bank, metric), metric, dtype)


@pytest.mark.parametrize("metric, dtype", [("cosine", np.float32), ("euclidean", np.float64)])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_more_ties_than_are_measured_again(kind, metric, dtype):
    """Each bank of 300 rows holds far more than 32 candidates for some of the kinds."""
    queries, bank = make(kind, 24, 300, 64, dtype)
    distances, indices = search(queries, bank, 3, metric)
    assert_nearest(distances, indices, oracle(queries, bank, metric), metric, dtype)
    alone = [search(query[None], bank, 3, metric)[0][0] for query in queries]
    np.testing.assert_array_equal(distances, alone)


def test_offset_beyond_the_square_root_of_float64():
    """|b|^2 is 1e16 times the squared distances: inner products alone tell nothing."""
    rng = np.random.default_rng(0)
    tokens = 1e8 + rng.standard_normal((320, 16))
    queries, bank = tokens[:20], tokens[20:]
    distances, indices = search(queries, bank, 2, "euclidean")
    assert_nearest(distances, indices, oracle(queries, bank, "euclidean"), "euclidean", np.float64)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_copies", [DEFAULT_TUNING.ties_to_measure + 1, 500])
def test_duplicates_of_the_nearest_come_by_row(n_copies, metric):
    rng = np.random.default_rng(0)
    bank = rng.standard_normal((700, 33)).astype(np.float32)
    copies = np.sort(rng.permutation(700)[:n_copies])
    bank[copies] = bank[copies[0]]
    distances, indices = search(bank[copies[:3]], bank, 4, metric)
    np.testing.assert_array_equal(distances, np.zeros((3, 4)))
    np.testing.assert_array_equal(indices, np.tile(copies[:4], (3, 1)))


@pytest.mark.parametrize("metric, dtype", [("cosine", np.float64), ("euclidean", np.float32)])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_distance_to_itself_is_zero(kind, metric, dtype):
    _, bank = make(kind, 1, 100, 64, dtype)
    distances, _ = search(bank, bank, 1, metric)
    np.testing.assert_array_equal(distances, np.zeros((100, 1)))


@pytest.mark.parametrize("kind", ["plain", "duplicates", "near ties", "zeros", "offset"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rows_per_product, block_bytes", [(64, 1), (33, 33 * 8 * 5)])
def test_blocks_change_nothing(kind, metric, rows_per_product, block_bytes):
    queries, bank = make(kind, 31, 130, 24, np.float32)
    at_once, _ = search(queries, bank, 5, metric)
    tuning = Tuning(rows_per_product=rows_per_product)
    blocks, indices = search(queries, bank, 5, metric, block_bytes=block_bytes, tuning=tuning)
    np.testing.assert_array_equal(blocks, at_once)
    assert_nearest(blocks, indices, oracle(queries, bank, metric), metric, np.float32)


@pytest.mark.parametrize("metric, dtype", [("cosine", np.float64), ("euclidean", np.float32)])
def test_bank_larger_than_one_block(metric, dtype):
    n_bank = DEFAULT_TUNING.rows_per_product + 300
    queries, bank = make("plain", 9, n_bank, 8, dtype)
    distances, indices = search(queries, bank, 4, metric)
    assert_nearest(distances, indices, oracle(queries, bank, metric), metric, dtype)


@given(kind=st.sampled_from(sorted(KINDS)), dim=st.integers(1, 40), seed=st.integers(0, 1000))
@quick
def test_batch_and_order_of_queries_change_nothing(kind, dim, seed):
    queries, bank = make(kind, 11, 60, dim, np.float32, seed)
    for metric in METRICS:
        distances, indices = search(queries, bank, 2, metric)
        alone = [search(query[None], bank, 2, metric) for query in queries]
        np.testing.assert_array_equal(distances, np.concatenate([d for d, _ in alone]))
        np.testing.assert_array_equal(indices, np.concatenate([i for _, i in alone]))
        order = np.random.default_rng(seed).permutation(len(queries))
        np.testing.assert_array_equal(search(queries[order], bank, 2, metric)[0], distances[order])


@given(kind=st.sampled_from(sorted(KINDS)), dim=st.integers(1, 40), seed=st.integers(0, 1000))
@quick
def test_order_of_the_bank_changes_no_distance(kind, dim, seed):
    queries, bank = make(kind, 5, 60, dim, np.float64, seed)
    order = np.random.default_rng(seed).permutation(len(bank))
    for metric in METRICS:
        distances, _ = search(queries, bank, 2, metric)
        np.testing.assert_array_equal(search(queries, bank[order], 2, metric)[0], distances)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@given(kind=st.sampled_from(sorted(KINDS)), dim=st.integers(1, 40), seed=st.integers(0, 1000))
@quick
def test_one_more_patch_in_the_bank(metric, dtype, kind, dim, seed):
    """It never raises a score, and leaves it as it is when it is farther than the nearest."""
    queries, bank = make(kind, 8, 41, dim, dtype, seed)
    before, _ = search(queries, bank[:-1], 1, metric)
    after, indices = search(queries, bank, 1, metric)
    assert (after <= before).all()
    np.testing.assert_array_equal(after[indices < 40], before[indices < 40])
    # Rounding aside, the new patch is nearest only where it is nearer.
    new = oracle(queries, bank[-1:], metric)
    farther = new > before * (1 + 1e-9) + (1e-5 if metric == "cosine" else 0)
    np.testing.assert_array_equal(after[farther], before[farther])


@pytest.mark.parametrize("metric", METRICS)
@given(kind=st.sampled_from(sorted(KINDS)), k=st.integers(1, 3), seed=st.integers(0, 1000))
@quick
def test_groups_are_left_out(metric, kind, k, seed):
    queries, bank = make(kind, 12, 80, 16, np.float32, seed)
    rng = np.random.default_rng(seed)
    bank_groups = rng.integers(0, 4, len(bank))  # in no order
    query_groups = rng.integers(-1, 6, len(queries))  # -1 and 4, 5 exclude nothing
    distances, indices = search(
        queries, bank, k, metric, query_groups=query_groups, bank_groups=bank_groups
    )
    assert (bank_groups[indices] != query_groups[:, None]).all()
    for i, query in enumerate(queries):
        left = np.flatnonzero(bank_groups != query_groups[i])
        expected, rows = search(query[None], bank[left], k, metric)
        np.testing.assert_array_equal(distances[i], expected[0])
        np.testing.assert_array_equal(indices[i], left[rows[0]])
        exact = oracle(query[None], bank[left], metric)
        assert_nearest(expected, rows, exact, metric, np.float32)


@pytest.mark.parametrize("rows_per_product", [10, 8192])
def test_groups_in_order_and_across_blocks(rows_per_product):
    tuning = Tuning(rows_per_product=rows_per_product)
    _, bank = make("plain", 1, 60, 16, np.float64)
    groups = np.repeat(np.arange(4), 15)
    distances, indices = search(
        bank, bank, 2, query_groups=groups, bank_groups=groups, tuning=tuning
    )
    expected = oracle(bank, bank, "cosine")
    expected[groups[:, None] == groups] = np.inf
    assert_nearest(distances, indices, expected, "cosine", np.float64)


def test_group_minus_one_finds_its_own_row():
    _, bank = make("plain", 1, 20, 8, np.float32)
    groups = np.full(20, -1)
    distances, indices = search(bank, bank, query_groups=groups, bank_groups=groups)
    np.testing.assert_array_equal(indices[:, 0], np.arange(20))
    np.testing.assert_array_equal(distances, np.zeros((20, 1)))


@pytest.mark.parametrize("kind, metric", [("plain", "cosine"), ("duplicates", "euclidean")])
@pytest.mark.parametrize(
    "k, query_groups, bank_groups",
    [
        (7, None, None),
        (1, [0], [0, 0, 0, 0, 0, 0]),
        (4, [1, 0], [0, 0, 1, 1, 1, 0]),
        (5, [-1, 1], [0, 0, 1, 1, 0, 0]),
    ],
)
def test_too_few_rows_left(kind, metric, k, query_groups, bank_groups):
    queries, bank = make(kind, 2, 6, 4, np.float32)
    groups = {}
    if query_groups is not None:
        queries = queries[: len(query_groups)]
        groups = {"query_groups": np.array(query_groups), "bank_groups": np.array(bank_groups)}
    with pytest.raises(ValueError, match=f"n_neighbors={k}"):
        search(queries, bank, k, metric, **groups)


@pytest.mark.parametrize("metric", METRICS)
def test_all_rows_can_be_asked_for(metric):
    queries, bank = make("plain", 5, 9, 4, np.float64)
    distances, indices = search(queries, bank, 9, metric)
    assert_nearest(distances, indices, oracle(queries, bank, metric), metric, np.float64)
    np.testing.assert_array_equal(np.sort(indices, axis=1), np.tile(np.arange(9), (5, 1)))


@pytest.mark.parametrize("n_bank", [3, 200])
def test_zero_vectors_under_the_cosine(n_bank):
    """A zero vector is at distance 0 from a zero vector and 1 from any other."""
    rng = np.random.default_rng(0)
    bank = rng.standard_normal((n_bank, 3)).astype(np.float32)
    bank[-1] = 0
    queries = np.array([[0, 0, 0], [1, 0, 0]], dtype=np.float32)
    distances, indices = search(queries, bank)
    assert distances[0, 0] == 0
    assert indices[0, 0] == n_bank - 1
    np.testing.assert_array_equal(search(queries[:1], bank[:-1])[0], [[1.0]])
    np.testing.assert_array_equal(search(queries[1:], bank[-1:])[0], [[1.0]])


def test_zero_vector_does_not_hide_those_slightly_nearer():
    """Seen as a point it is nearer than 60 degrees, by definition it is at distance 1."""
    rng = np.random.default_rng(0)
    bank = rng.standard_normal((60, 32))
    bank[:, 0] = rng.uniform(1e-7, 1e-6, 60)
    bank = bank.astype(np.float32)
    query = np.eye(1, 32, dtype=np.float32)
    before = search(query, bank)
    after = search(query, np.concatenate([bank, np.zeros((1, 32), dtype=np.float32)]))
    assert before[0] < 1
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_bank", [20, 3000])
def test_of_rows_that_float64_cannot_tell_apart_the_lowest_are_found(dtype, n_bank):
    """So far away, every row is at the same distance as it is measured."""
    bank = np.random.default_rng(0).standard_normal((n_bank, 4)).astype(dtype)
    query = np.full((1, 4), 1e18, dtype=dtype)
    measured = np.unique(oracle(query, bank, "euclidean"))
    assert len(measured) == 1
    distances, indices = search(query, bank, 3, "euclidean")
    np.testing.assert_array_equal(indices, [[0, 1, 2]])
    np.testing.assert_allclose(distances, np.tile(measured, (1, 3)), rtol=1e-15)


def test_range_of_the_cosine():
    token = np.array([[0.3, -0.4, 0.5]])
    distances, indices = search(token, np.concatenate([-token, token]), 2)
    np.testing.assert_allclose(distances, [[0.0, 2.0]], atol=1e-15)
    assert distances.max() <= 2
    np.testing.assert_array_equal(indices, [[1, 0]])


@pytest.mark.parametrize("dtype", DTYPES)
@given(dim=st.integers(1, 40), power=st.integers(-30, 15), seed=st.integers(0, 1000))
@quick
def test_prepared_tokens_are_unit_vectors(dtype, dim, power, seed):
    rng = np.random.default_rng(seed)
    tokens = (rng.standard_normal((6, dim)) * 10.0**power).astype(dtype)
    tokens[2] = 0
    before = tokens.copy()
    bank = prepare_bank(tokens, "cosine")
    np.testing.assert_array_equal(tokens, before)
    assert bank.dtype == dtype
    assert bank.flags.c_contiguous
    for token, unit in zip(tokens.astype(np.float64), bank.astype(np.float64), strict=True):
        norm = np.sqrt(sum(float(x / 10.0**power) ** 2 for x in token)) * 10.0**power
        expected = token / norm if norm > 0 else token
        np.testing.assert_allclose(unit, expected, rtol=4 * np.finfo(dtype).eps, atol=0)


def test_prepared_tokens_stay_as_they_are_otherwise():
    tokens = np.arange(12.0).reshape(3, 4)[:, ::-1]
    bank = prepare_bank(tokens, "euclidean")
    np.testing.assert_array_equal(bank, tokens)
    assert bank.flags.c_contiguous
    with pytest.raises(ValueError, match="manhattan"):
        prepare_bank(tokens, "manhattan")
