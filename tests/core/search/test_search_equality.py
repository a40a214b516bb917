"""One bank, one answer: whatever the algorithm, the threads, the blocks, the batch or the order."""

import contextlib
import functools
import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from skanomaly import PatchKNNScorer
from skanomaly.core.search import index
from skanomaly.core.search.brute_force import prepare_bank
from skanomaly.core.search.index import PatchIndex
from skanomaly.core.search.tuning import Tuning
from skanomaly.scorers import _memory_bank

METRICS = ["cosine", "euclidean"]
# However little the bounds rule out, they are what decides: brute force never looks cheaper.
ALWAYS = {"comparison_cost": 0}
WIDE = {"least_sample": 1, "hopeless_share": -1.0, "queries_for_all_coordinates": 1}
ALGORITHMS = {
    "brute": {},
    "certified float32": {**ALWAYS, "precision": "float32"},
    "certified bfloat16": {**ALWAYS, "precision": "bfloat16"},
    "certified wide": {**ALWAYS, "precision": "bfloat16", **WIDE},
    "wide": ALWAYS,
    "auto": {"small_bank": 1000},
    "auto small": {},
    "torch:cpu": {},
}
BOUNDED = [name for name in ALGORITHMS if "certified" in name or name == "wide"]
CASES = [(metric, k, grouped) for metric in METRICS for k in (1, 5) for grouped in (False, True)]
TWO_CASES = [("cosine", 5, True), ("euclidean", 1, False)]
DIM, N_QUERIES, N_BANK, N_GROUPS = 40, 300, 2500, 6
TOLERANCE = 1e-6

# Sizes, each far from the default: those of all searches at once.
SIZES = {
    "small": {
        "rows_per_product": 33,
        "queries_at_once": 19,
        "rows_per_device_product": 501,
        "pairs_at_once": 7,
        "rows_per_sign": 64,
        "rows_per_wide_product": 128,
        "pairs_of_bounds": 5000,
        "rows_per_part": 100,
    },
    "large": {
        "rows_per_product": 2**16,
        "queries_at_once": 2**16,
        "rows_per_device_product": 2**20,
        "pairs_at_once": 2**20,
        "rows_per_part": 2**20,
        "rows_per_wide_product": 2**20,
    },
    "short blocks": {"rows_per_block": 8},
    "some to brute force": {"comparison_cost": 30, "least_brute_force": 0},
}


def make_index(bank, metric, algorithm, **sizes):
    """An index with one of `ALGORITHMS`."""
    if re.search("bfloat16|wide|torch", algorithm):
        pytest.importorskip("torch")
    tuning = Tuning(**{**ALGORITHMS[algorithm], **sizes})
    return PatchIndex(bank, metric, algorithm.split(" ")[0], tuning=tuning)


@contextlib.contextmanager
def threads(n):
    """Threads of BLAS, OpenMP and torch."""
    with contextlib.ExitStack() as stack:
        if importlib.util.find_spec("torch"):
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(n)
        stack.enter_context(threadpool_limits(n))
        yield


def clustered(n, rng, dim=DIM):
    """Clusters of few directions; of every tenth token there are copies and near copies."""
    fixed = np.random.default_rng(0)
    centers = fixed.standard_normal((12, dim))
    directions = 0.3 * fixed.standard_normal((12, 5, dim))
    cluster = rng.integers(0, 12, n)
    weights = rng.standard_normal((n, 1, 5))
    tokens = centers[cluster] + (weights @ directions[cluster])[:, 0]
    tokens += 0.01 * rng.standard_normal(tokens.shape)
    source, kind = tokens[rng.integers(0, n // 10, n)], rng.integers(0, 10, n)
    near = 1 + 1e-7 * rng.standard_normal(tokens.shape)
    tokens = np.where((kind == 0)[:, None], source, tokens)
    return np.where((kind == 1)[:, None], source * near, tokens)


@functools.cache
def problem():
    """Queries and a bank, float32, and their groups.

    Some queries are rows of the bank or next to one, some are far from all of it.
    """
    rng = np.random.default_rng(1)
    tokens = clustered(N_QUERIES + N_BANK, rng)
    queries, bank = tokens[:N_QUERIES], tokens[N_QUERIES:]
    queries[::5] = bank[rng.integers(0, N_BANK, len(queries[::5]))]
    queries[1::15] *= 1 + 1e-6 * rng.standard_normal(queries[1::15].shape)
    queries[2::50] *= -3
    groups = rng.integers(-1, N_GROUPS, N_QUERIES), rng.integers(0, N_GROUPS, N_BANK)
    return queries.astype(np.float32), bank.astype(np.float32), groups


def scikit_learn(queries, bank, k, metric):
    brute = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric)
    return brute.fit(bank.astype(np.float64)).kneighbors(queries.astype(np.float64))[0]


@functools.cache
def expected(metric, k, grouped):
    """Distances by scikit-learn's brute force in float64, group by group."""
    queries, bank, (own, of_row) = problem()
    if not grouped:
        return scikit_learn(queries, bank, k, metric)
    out = np.empty((len(queries), k))
    for group in np.unique(own):
        rows, left = own == group, (of_row != group) | (group < 0)
        out[rows] = scikit_learn(queries[rows], bank[left], k, metric)
    return out


def prepared(metric):
    queries, bank, _ = problem()
    return prepare_bank(queries, metric), prepare_bank(bank, metric)


def found(algorithm, metric, k, grouped, order=None, **sizes):
    """Distances and rows of a fresh index; with `order`, of a bank in that order."""
    queries, bank = prepared(metric)
    groups = problem()[2] if grouped else (None, None)
    order = np.arange(N_BANK) if order is None else order
    of_row = groups[1][order] if grouped else None
    index = make_index(bank[order], metric, algorithm, **sizes)
    distances, rows = index.search(queries, k, groups[0], of_row)
    return distances, order[rows]


@functools.cache
def reference(metric, k, grouped):
    """What brute force finds with one thread, for comparison to the last bit."""
    with threads(1):
        return found("brute", metric, k, grouped)


def assert_nearest(result, metric, k, grouped):
    """Distances are scikit-learn's, and the rows are at these distances, but for ties."""
    distances, rows = result
    queries, bank, (own, of_row) = problem()
    np.testing.assert_allclose(distances, expected(metric, k, grouped), rtol=0, atol=TOLERANCE)
    query, near = queries.astype(np.float64)[:, None], bank.astype(np.float64)[rows]
    if metric == "cosine":
        norms = np.linalg.norm(query, axis=2) * np.linalg.norm(near, axis=2)
        claimed = 1 - (query * near).sum(axis=2) / norms
    else:
        claimed = np.linalg.norm(query - near, axis=2)
    np.testing.assert_allclose(distances, claimed, rtol=0, atol=TOLERANCE)
    assert (np.diff(np.sort(rows, axis=1), axis=1) > 0).all()  # none twice
    if grouped:
        assert (of_row[rows] != own[:, None]).all()


def assert_same(result, expected):
    np.testing.assert_array_equal(result[0], expected[0])
    np.testing.assert_array_equal(result[1], expected[1])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("metric, k, grouped", CASES)
def test_algorithms(metric, k, grouped, algorithm):
    result = found(algorithm, metric, k, grouped)
    assert_nearest(result, metric, k, grouped)
    assert_same(result, reference(metric, k, grouped))


@pytest.mark.parametrize("algorithm", BOUNDED)
@pytest.mark.parametrize("metric", METRICS)
def test_bounds_decide(metric, algorithm, monkeypatch):
    """The comparisons of this module are not of brute force with itself."""
    queries, bank = prepared(metric)
    monkeypatch.setattr(index, "nearest_patches", None)
    make_index(bank, metric, algorithm).search(queries)


@pytest.mark.parametrize("metric, n_threads", [("cosine", 2), ("euclidean", 4)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_threads(algorithm, metric, n_threads):
    """The bank is sorted, and the bounds are computed, with these threads too."""
    with threads(n_threads):
        result = found(algorithm, metric, 5, True)
    assert_same(result, reference(metric, 5, True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_callers_at_once(algorithm):
    """Threads that share an index, of which the first search prepares it."""
    queries, bank = prepared("euclidean")
    groups = problem()[2]
    with ThreadPoolExecutor(4) as pool:
        index = make_index(bank, "euclidean", algorithm)
        parts = np.array_split(np.arange(N_QUERIES), 12)
        search = functools.partial(index.search, n_neighbors=5, bank_groups=groups[1])
        jobs = [pool.submit(search, queries[p], query_groups=groups[0][p]) for p in parts]
        results = [job.result() for job in jobs]
    result = tuple(np.concatenate(values) for values in zip(*results, strict=True))
    assert_same(result, reference("euclidean", 5, True))


@pytest.mark.parametrize("sizes", sorted(SIZES))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("metric, k, grouped", TWO_CASES)
def test_sizes(metric, k, grouped, algorithm, sizes):
    result = found(algorithm, metric, k, grouped, **SIZES[sizes])
    assert_same(result, reference(metric, k, grouped))


@pytest.mark.parametrize("size, metric", [(1, "cosine"), (7, "euclidean"), (128, "cosine")])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_batches_of_queries(algorithm, size, metric):
    """Shuffled, and a batch at a time."""
    queries, bank = prepared(metric)
    own, of_row = problem()[2]
    shuffled = np.random.default_rng(2).permutation(N_QUERIES)[: 20 * size]
    distances, rows = reference(metric, 5, True)
    index = make_index(bank, metric, algorithm)
    for start in range(0, len(shuffled), size):
        batch = shuffled[start : start + size]
        result = index.search(queries[batch], 5, own[batch], of_row)
        assert_same(result, (distances[batch], rows[batch]))


@pytest.mark.parametrize("order", ["shuffled", "by group"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("metric, k, grouped", TWO_CASES)
def test_order_of_the_bank(metric, k, grouped, algorithm, order):
    """Distances stay to the last bit; of rows at the same distance others may be found."""
    order = {
        "shuffled": np.random.default_rng(3).permutation(N_BANK),
        "by group": np.argsort(problem()[2][1], kind="stable"),
    }[order]
    result = found(algorithm, metric, k, grouped, order)
    np.testing.assert_array_equal(result[0], reference(metric, k, grouped)[0])
    assert_nearest(result, metric, k, grouped)


@functools.cache
def images():
    """12 training images and 5 others of 9 x 9 patches, float32."""
    tokens = clustered(17 * 81, np.random.default_rng(4)).reshape(17, 9, 9, DIM)
    tokens[14:, 2:4, 5:8] += 0.5
    tokens = tokens.astype(np.float32)
    return tokens[:12], tokens[12:]


@functools.cache
def expected_scores(metric, k):
    """Patch scores of the new images, image scores of both, and the threshold, in float64."""
    train, new = (tokens.reshape(len(tokens), -1, DIM) for tokens in images())
    held_out = np.empty(train.shape[:2])
    for i, image in enumerate(train):
        rest = np.delete(train, i, axis=0).reshape(-1, DIM)
        held_out[i] = scikit_learn(image, rest, k, metric).mean(axis=1)
    bank = train.reshape(-1, DIM)
    patches = np.stack([scikit_learn(image, bank, k, metric).mean(axis=1) for image in new])
    train_scores, scores = (-np.sort(x, axis=1)[:, -8:].mean(axis=1) for x in (held_out, patches))
    offset = np.quantile(train_scores, 0.2, method="weibull")
    return patches, scores, train_scores, offset


def scores_of(metric, k, algorithm):
    train, new = images()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_memory_bank, "PatchIndex", lambda bank, m, _: make_index(bank, m, algorithm))
        name = algorithm.split(" ")[0]
        scorer = PatchKNNScorer(k, metric=metric, topk=0.1, contamination=0.2, algorithm=name)
        scorer.fit(train)
        patches, from_patches = scorer.score_patches(new, return_scores=True)
        alone = scorer.score_samples(new)
        np.testing.assert_allclose(from_patches, alone, rtol=1e-12, atol=0)
        again = scorer.score_samples(train)
    np.testing.assert_array_equal(again, scorer.train_scores_)
    return patches.reshape(len(new), -1), from_patches, scorer.train_scores_, scorer.offset_


@functools.cache
def reference_scores(metric, k):
    with threads(1):
        return scores_of(metric, k, "brute")


@pytest.mark.parametrize("metric, k, n_threads", [("cosine", 5, 1), ("euclidean", 1, 2)])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_scorer(algorithm, metric, k, n_threads):
    with threads(n_threads):
        result = scores_of(metric, k, algorithm)
    for values, wanted, same in zip(
        result, expected_scores(metric, k), reference_scores(metric, k), strict=True
    ):
        np.testing.assert_allclose(values, wanted, rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(values, same)
