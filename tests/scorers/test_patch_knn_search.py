"""PatchKNNScorer: every exact algorithm gives the same scores, the approximate ones say theirs."""

import pickle
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from skanomaly import PatchKNNScorer
from skanomaly.core.aggregation import aggregate_patch_scores, highest_scores, n_decisive
from skanomaly.core.search.index import PatchIndex
from skanomaly.core.search.tuning import Tuning
from skanomaly.scorers import _memory_bank

quick = settings(max_examples=40, deadline=None, derandomize=True)
AGGREGATIONS = [("topk_mean", 0.05), ("topk_mean", 3), ("max", 0.01), (0.9, 0.01), ("mean", 0.01)]


@pytest.fixture(scope="module")
def tokens():
    """20 training images and 6 others of 8 x 8 patches, float32; one patch is masked."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((8, 24))
    tokens = rng.standard_normal((26, 8, 8, 8)) @ directions + 3
    tokens += 0.05 * rng.standard_normal(tokens.shape)
    tokens[22:, 2:4, 3:5] += 2 * rng.standard_normal((4, 2, 2, 24))
    tokens = tokens.astype(np.float32)
    tokens[23, 0, 0] = np.nan
    return tokens[:20], tokens[20:]


@pytest.fixture(autouse=True)
def never_brute(monkeypatch):
    """However little the bounds rule out, they are what decides."""
    tuned = partial(PatchIndex, tuning=Tuning(comparison_cost=0))
    monkeypatch.setattr(_memory_bank, "PatchIndex", tuned)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("coreset", [None, 0.3])
def test_exact_algorithms_agree(metric, k, coreset, tokens):
    train, new = tokens
    fitted = {
        algorithm: PatchKNNScorer(k, metric=metric, coreset=coreset, algorithm=algorithm).fit(train)
        for algorithm in ("brute", "certified", "auto")
    }
    brute = fitted["brute"]
    for scorer in fitted.values():
        assert scorer.approximation_error_ == 0
        np.testing.assert_array_equal(scorer.bank_, brute.bank_)
        np.testing.assert_array_equal(scorer.train_scores_, brute.train_scores_)
        np.testing.assert_array_equal(scorer.score_patches(new), brute.score_patches(new))
        np.testing.assert_array_equal(scorer.score_samples(new), brute.score_samples(new))
        np.testing.assert_array_equal(scorer.score_samples(train), scorer.train_scores_)


@pytest.mark.parametrize("aggregation, topk", AGGREGATIONS)
@pytest.mark.parametrize("k", [1, 3])
def test_image_scores_alone_are_those_of_all_patches(aggregation, topk, k, tokens):
    train, new = tokens
    scorer = PatchKNNScorer(k, aggregation=aggregation, topk=topk, algorithm="certified").fit(train)
    for X in (new, train[3:5], np.concatenate([new, train[:2]])):
        _, expected = scorer.score_patches(X, return_scores=True)
        np.testing.assert_allclose(scorer.score_samples(X), expected, rtol=1e-12, atol=0)


def test_few_patches_are_searched_for_image_scores(monkeypatch, tokens):
    train, new = tokens
    scorer = PatchKNNScorer(algorithm="certified", topk=2).fit(train)
    index, searched = scorer._model.banks[0].index, []
    search = index.search
    monkeypatch.setattr(
        index,
        "search",
        lambda queries, *args, **kw: searched.append(queries) or search(queries, *args, **kw),
    )
    scorer.score_samples(new)
    assert sum(map(len, searched)) < 0.5 * new[..., 0].size


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    aggregation=st.sampled_from(AGGREGATIONS),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.0, 0.1, np.inf]),
)
@quick
def test_highest_scores_decide(lengths, aggregation, seed, spread):
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    scores = np.round(rng.uniform(size=offsets[-1]), 1)  # with ties
    bounds = scores + spread * rng.uniform(0.01, 1, size=len(scores)) if spread else scores
    name, topk = aggregation
    counts = [n_decisive(length, name, topk) for length in lengths]
    calls = []

    def evaluate(patches):
        calls.append(patches)
        return scores[patches]

    found = highest_scores(bounds, offsets, counts, evaluate)
    evaluated = np.concatenate(calls)
    assert len(calls) <= 2
    assert len(np.unique(evaluated)) == len(evaluated)
    for start, stop in zip(offsets[:-1], offsets[1:], strict=True):
        if name == "topk_mean" and topk == 3 and stop - start < 3:
            continue
        expected = aggregate_patch_scores(scores[start:stop], name, topk)
        assert aggregate_patch_scores(found[start:stop], name, topk) == expected


@pytest.mark.parametrize("aggregation", [0.0, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_decisive_patches_of_a_quantile(aggregation, n):
    scores = np.sort(np.random.default_rng(0).uniform(1, 2, n))
    expected = aggregate_patch_scores(scores, aggregation)
    scores[: n - n_decisive(n, aggregation)] = 0
    assert aggregate_patch_scores(scores, aggregation) == expected


def test_pickle_holds_the_bank_once():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((5, 30, 30, 64)).astype(np.float32)
    scorer = PatchKNNScorer(algorithm="certified").fit(train)
    brute = clone(scorer).set_params(algorithm="brute").fit(train)
    assert len(pickle.dumps(scorer)) < 1.1 * len(pickle.dumps(brute))
    new = train[:1] + 0.1
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(scorer)).score_samples(new), brute.score_samples(new)
    )


def test_unknown_algorithm(tokens):
    with pytest.raises(ValueError, match="got 'ball_tree'"):
        PatchKNNScorer(algorithm="ball_tree").fit(tokens[0])


def test_faiss_missing(monkeypatch, tokens):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"skanomaly\[faiss\]"):
        PatchKNNScorer(algorithm="faiss:Flat").fit(tokens[0])


class TestFaiss:
    @pytest.fixture(autouse=True)
    def faiss(self):
        return pytest.importorskip("faiss")

    @pytest.mark.parametrize("metric", ["cosine", "euclidean"])
    @pytest.mark.parametrize("k", [1, 3])
    def test_flat_index_is_exact(self, metric, k, tokens):
        train, new = tokens
        exact = PatchKNNScorer(k, metric=metric, algorithm="brute").fit(train)
        scorer = clone(exact).set_params(algorithm="faiss:Flat").fit(train)
        assert scorer.approximation_error_ < 1e-6
        np.testing.assert_allclose(scorer.train_scores_, exact.train_scores_, rtol=1e-6)
        np.testing.assert_allclose(scorer.score_samples(new), exact.score_samples(new), rtol=1e-6)

    @pytest.mark.parametrize("coreset", [None, 0.5])
    def test_error_of_an_approximate_index(self, coreset, tokens):
        """Scores are never too low, and the error is that of held-out images."""
        train, new = tokens
        exact = PatchKNNScorer(coreset=coreset, algorithm="brute").fit(train)
        scorer = clone(exact).set_params(algorithm="faiss:IVF30,Flat").fit(train)
        assert (scorer.score_patches(new) >= exact.score_patches(new)).all()
        assert 0 < scorer.approximation_error_ < 1
        if coreset is None:  # 10 of the 20 images, at even steps
            ratio = scorer.train_scores_ / exact.train_scores_
            assert scorer.approximation_error_ == pytest.approx(ratio[::2].max() - 1, rel=1e-9)

    def test_pickle(self, tokens):
        train, new = tokens
        scorer = PatchKNNScorer(algorithm="faiss:HNSW8").fit(train)
        again = pickle.loads(pickle.dumps(scorer))
        np.testing.assert_array_equal(again.score_samples(new), scorer.score_samples(new))

    @pytest.mark.parametrize("description", ["nonsense", "PQ7"])
    def test_index_that_does_not_fit(self, description, tokens):
        with pytest.raises(ValueError, match=f"faiss:{description}' does not fit a bank of 1280"):
            PatchKNNScorer(algorithm=f"faiss:{description}").fit(tokens[0])

    def test_single_image(self, tokens):
        with pytest.warns(UserWarning, match="calibrated on a single image"):
            scorer = PatchKNNScorer(algorithm="faiss:Flat").fit(tokens[0][:1])
        assert np.isnan(scorer.approximation_error_)
