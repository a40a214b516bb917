"""One bank, one answer: whatever the algorithm, the threads, the blocks, the batch or the order."""

import contextlib
import functools
import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from skanomaly import PatchKNNScorer
from skanomaly.core.search import (
    blocks,
    brute_force,
    certified,
    index,
    low_precision,
    sorting,
    torch_device,
    wide,
)
from skanomaly.core.search.brute_force import prepare_bank
from skanomaly.core.search.certified import CertifiedSearch
from skanomaly.core.search.index import PatchIndex

METRICS = ["cosine", "euclidean"]
CERTIFIED = ["certified float32", "certified bfloat16", "certified wide"]
ALGORITHMS = ["brute", *CERTIFIED, "torch:cpu"]
CASES = [(metric, k, grouped) for metric in METRICS for k in (1, 5) for grouped in (False, True)]
DIM, N_QUERIES, N_BANK, N_GROUPS = 40, 300, 2500, 6
TOLERANCE = 1e-6

# Sizes of blocks, each far from the default: those of all searches at once.
BLOCKS = {
    "small": [
        (brute_force, "_BANK_BLOCK", 33),
        (index, "_QUERIES", 19),
        (torch_device, "_BLOCK", 41),
        (blocks, "_PAIRS", 7),
        (low_precision, "_CHUNK", 64),
        (wide, "_TOGETHER", 3),
        (sorting, "_ROWS_PER_PART", 100),
    ],
    "large": [
        (brute_force, "_BANK_BLOCK", 2**16),
        (index, "_QUERIES", 2**16),
        (torch_device, "_BLOCK", 2**20),
        (blocks, "_PAIRS", 2**20),
        (sorting, "_ROWS_PER_PART", 2**20),
    ],
    "short runs": [(module, "BLOCK", 8) for module in (blocks, certified, index, wide)],
    "some to brute force": [(blocks, "_COST", 30), (certified, "_FEW", 0)],
}


@pytest.fixture(autouse=True)
def never_brute(monkeypatch):
    """However little the bounds rule out, they are what decides."""
    monkeypatch.setattr(blocks, "_COST", 0)


def skip_without_torch(algorithm):
    if algorithm in ("certified bfloat16", "certified wide", "torch:cpu"):
        pytest.importorskip("torch")


@contextlib.contextmanager
def precision_of(algorithm):
    """The name that an index knows for one of `ALGORITHMS`, while its precision is set."""
    skip_without_torch(algorithm)
    with pytest.MonkeyPatch.context() as patch:
        name, _, dtype = algorithm.partition(" ")
        if dtype == "wide":
            dtype = "bfloat16"
            patch.setattr(CertifiedSearch, "_rules_out_little", lambda *args: True)
            patch.setattr(certified, "_HARD", 1)
        if dtype:
            patch.setattr(certified, "fastest_dtype", lambda: dtype)
        yield name


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


def found(algorithm, metric, k, grouped, order=None):
    """Distances and rows of a fresh index; with `order`, of a bank in that order."""
    queries, bank = prepared(metric)
    groups = problem()[2] if grouped else (None, None)
    order = np.arange(N_BANK) if order is None else order
    with precision_of(algorithm) as name:
        index = PatchIndex(bank[order], metric, name)
        of_row = groups[1][order] if grouped else None
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


@pytest.mark.parametrize("algorithm", CERTIFIED)
@pytest.mark.parametrize("metric", METRICS)
def test_bounds_decide(metric, algorithm, monkeypatch):
    """The comparisons of this module are not of brute force with itself."""
    queries, bank = prepared(metric)
    monkeypatch.setattr(index, "nearest_patches", None)
    with precision_of(algorithm) as name:
        PatchIndex(bank, metric, name).search(queries)


@pytest.mark.parametrize("n_threads", [2, 4])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_threads(metric, k, algorithm, n_threads):
    """The bank is sorted, and the bounds are computed, with these threads too."""
    with threads(n_threads):
        result = found(algorithm, metric, k, True)
    assert_same(result, reference(metric, k, True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("metric", METRICS)
def test_callers_at_once(metric, algorithm):
    """Threads that share an index, of which the first search prepares it."""
    queries, bank = prepared(metric)
    groups = problem()[2]
    with precision_of(algorithm) as name, ThreadPoolExecutor(4) as pool:
        index = PatchIndex(bank, metric, name)
        parts = np.array_split(np.arange(N_QUERIES), 12)
        search = functools.partial(index.search, n_neighbors=5, bank_groups=groups[1])
        jobs = [pool.submit(search, queries[p], query_groups=groups[0][p]) for p in parts]
        results = [job.result() for job in jobs]
    result = tuple(np.concatenate(values) for values in zip(*results, strict=True))
    assert_same(result, reference(metric, 5, True))


@pytest.mark.parametrize("blocks", sorted(BLOCKS))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("metric, k, grouped", CASES)
def test_blocks(metric, k, grouped, algorithm, blocks, monkeypatch):
    wanted = reference(metric, k, grouped)
    for module, name, value in BLOCKS[blocks]:
        monkeypatch.setattr(module, name, value)
    assert_same(found(algorithm, metric, k, grouped), wanted)


@pytest.mark.parametrize("size", [1, 7, 128])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("metric", METRICS)
def test_batches_of_queries(metric, algorithm, size):
    """Shuffled, and a batch at a time."""
    queries, bank = prepared(metric)
    own, of_row = problem()[2]
    shuffled = np.random.default_rng(2).permutation(N_QUERIES)[: 40 * size]
    distances, rows = reference(metric, 5, True)
    with precision_of(algorithm) as name:
        index = PatchIndex(bank, metric, name)
        for start in range(0, len(shuffled), size):
            batch = shuffled[start : start + size]
            result = index.search(queries[batch], 5, own[batch], of_row)
            assert_same(result, (distances[batch], rows[batch]))


@pytest.mark.parametrize("how", ["reversed", "shuffled", "by group"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("metric, k, grouped", CASES)
def test_order_of_the_bank(metric, k, grouped, algorithm, how):
    """Distances stay to the last bit; of rows at the same distance others may be found."""
    order = {
        "reversed": np.arange(N_BANK)[::-1],
        "shuffled": np.random.default_rng(3).permutation(N_BANK),
        "by group": np.argsort(problem()[2][1], kind="stable"),
    }[how]
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
    with precision_of(algorithm) as name:
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


@pytest.mark.parametrize("n_threads", [1, 2, 4])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_scorer(metric, k, algorithm, n_threads):
    with threads(n_threads):
        result = scores_of(metric, k, algorithm)
    for values, wanted, same in zip(
        result, expected_scores(metric, k), reference_scores(metric, k), strict=True
    ):
        np.testing.assert_allclose(values, wanted, rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(values, same)
