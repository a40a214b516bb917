"""The same patches get the same scores, to the bit: in any form, batch and order of images."""

import numpy as np
import pytest
from _prompts import AxisPrompts
from sklearn.ensemble import IsolationForest
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from skanomaly import (
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PatchwiseScorer,
    RetrievalKNNScorer,
    ScoreUnion,
)
from skanomaly.base import BasePatchScorer
from skanomaly.scorers import _base, _checked

DIM, GRID = 48, (4, 5)
SCORERS = [
    PatchKNNScorer(),
    PatchKNNScorer(algorithm="certified"),
    PatchKNNScorer(algorithm="certified", metric="euclidean", n_neighbors=9, aggregation="mean"),
    PatchKNNScorer(metric="euclidean", n_neighbors=2, aggregation="max"),
    PatchKNNScorer(coreset=0.3),
    PatchKNNScorer(coreset=0.3, coreset_method="random", random_state=0),
    PatchKNNScorer(coreset=0.3, coreset_method="projected_k_center", random_state=0),
    LocalKNNScorer(),
    LocalKNNScorer(few=50),
    LocalKNNScorer(1, coreset=0.5),
    LocalKNNScorer(1, whitening="shared"),
    LocalKNNScorer(0, whitening=None),
    PatchKNNScorer(parts=(16, 32), n_neighbors=2, algorithm="certified"),
    PatchKNNScorer(metric="euclidean", aggregation="max", reweighting=9),
    PatchKNNScorer(metric="euclidean", aggregation="max", reweighting=3, coreset=0.3),
    RetrievalKNNScorer(3, parts=2, class_token=True),
    RetrievalKNNScorer(4, metric="euclidean", n_neighbors=2),
    PatchKNNScorer(position_weight=0.5),
    PatchKNNScorer(position_weight=5.0, metric="euclidean", algorithm="certified"),
    RetrievalKNNScorer(5, radius=1, parts=(16, 32)),
    PatchGaussianScorer(),
    PatchGaussianScorer(n_components=7, random_state=0),
    PatchGaussianScorer(n_components=7, reduction="pca"),
    PatchGaussianScorer(shrinkage=0.5, neighborhood=3),
    PatchGaussianScorer("shared"),
    PatchGaussianScorer("shared", n_components=7, reduction="pca", aggregation=0.9),
    PatchSubspaceScorer(),
    PatchSubspaceScorer(0.4, aggregation="mean"),
    PatchwiseScorer(IsolationForest(n_estimators=10, random_state=0)),
    PatchwiseScorer(OneClassSVM(gamma=1e-3), n_patches=100, random_state=0),
    AxisPrompts(logit_scale=10),
    AxisPrompts(mode="diff", contamination=0.1),
    ScoreUnion([("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer("shared"))]),
    ScoreUnion(
        [("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer())], aggregation="members"
    ),
]
UNORDERED = [scorer for scorer in SCORERS[:-1] if not getattr(scorer, "_uses_positions", False)]


def tokens(n_images, seed):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(DIM, DIM))
    return (rng.normal(size=(n_images, *GRID, DIM)) @ mixing + 1).astype(np.float32)


def for_scorer(scorer, X):
    """The same tokens; their second half, where a scorer says so, is the image's class token."""
    if not getattr(scorer, "class_token", False):
        return X
    half = np.where(np.isnan(X[..., DIM // 2 :]), np.nan, X[:, :1, :1, DIM // 2 :])
    return np.concatenate([X[..., : DIM // 2], half], axis=-1)


def results(scorer, X):
    patches, scores = scorer.score_patches(X, return_scores=True)
    return np.stack([patch.ravel() for patch in patches]), scores, scorer.score_samples(X)


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def objects(X):
    out = np.empty(len(X), dtype=object)
    out[:] = list(X)
    return out


@pytest.fixture
def new():
    """33 images, one of them with a masked patch."""
    new = tokens(33, 1)
    new[8, 2, 2] = np.nan
    return new


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_in_any_batch_order_and_form(scorer, threads, new):
    train, new = for_scorer(scorer, tokens(12, 2)), for_scorer(scorer, new)
    with threadpool_limits(threads):
        scorer.fit(train)
        X = np.concatenate([new, train[3:5]])  # and images that it was fitted to
        whole = results(scorer, X)
        for size in (1, 2, 3, 7, 33):
            parts = [results(scorer, X[i : i + size]) for i in range(0, len(X), size)]
            assert_equal([np.concatenate(part) for part in zip(*parts, strict=True)], whole)
        order = np.random.default_rng(3).permutation(len(X))
        assert_equal(results(scorer, X[order]), [values[order] for values in whole])
        for form in (X.reshape(len(X), -1, DIM), list(X), objects(X), X.astype(np.float64)):
            found = results(scorer, form)
            if getattr(form, "dtype", None) == np.float64:
                # Of a bank in float32 it is the same; a Gaussian keeps more digits on the way.
                for one, other in zip(found, whole, strict=True):
                    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
            else:
                assert_equal(found, whole)


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_of_one_patch_in_any_form(scorer):
    train, new = tokens(40, 2)[:, 0, 0], tokens(33, 1)[:, 0, 0]
    if getattr(scorer, "neighborhood", 1) > 1:
        pytest.skip("needs a grid")
    scorer.fit(train)
    whole = results(scorer, new)
    assert_equal(results(scorer, new[:, None]), whole)
    assert_equal(results(scorer, new[:, None, None]), whole)
    alone = [results(scorer, row[None]) for row in new]
    assert_equal([np.concatenate(part) for part in zip(*alone, strict=True)], whole)


@pytest.mark.parametrize("scorer", UNORDERED, ids=repr)
def test_with_patches_in_another_order(scorer, new):
    scorer.fit(for_scorer(scorer, tokens(12, 2)))
    flat = for_scorer(scorer, new).reshape(len(new), -1, DIM)
    patches, scores, again = results(scorer, flat)
    order = np.random.default_rng(3).permutation(flat.shape[1])
    assert_equal(results(scorer, flat[:, order]), [patches[:, order], scores, again])


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_in_parts_of_any_size(scorer, new, monkeypatch):
    train, new = for_scorer(scorer, tokens(12, 2)), for_scorer(scorer, new)
    expected, predicted = results(scorer.fit(train), new), scorer.fit_predict(train)
    for images in (1, 4):
        for module in (_base, _checked):
            monkeypatch.setattr(module, "PART_BYTES", images * 20 * DIM * 4)
        assert_equal(results(scorer, new), expected)
        np.testing.assert_array_equal(scorer.fit_predict(train), predicted)


class Faulty(BasePatchScorer):
    """Gives the images whose first component is 7 no score."""

    def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.topk, self.aggregation, self.contamination = topk, aggregation, contamination

    def _fit_tokens(self, tokens):
        return self._score_tokens(tokens)[1]

    def _score_tokens(self, tokens):
        scores = tokens.values[:, 0].astype(float)
        images = -self._aggregate(tokens, scores)
        return scores, np.where(images == -7, np.nan, images)


@pytest.mark.parametrize("method", ["score_samples", "score_patches"])
def test_errors_name_the_image_among_all(method, monkeypatch):
    monkeypatch.setattr(_checked, "PART_BYTES", 3 * 20 * DIM * 4)
    X = tokens(11, 1)
    with pytest.raises(ValueError, match="Faulty gave image 10 the score nan"):
        getattr(Faulty().fit(X), method)(np.concatenate([X[:10], np.full_like(X[:1], 7)]))
    counted = Faulty(aggregation="topk_mean", topk=20).fit(X)
    X[9, 0, 0] = np.nan
    with pytest.raises(ValueError, match="image 9: topk=20"):
        getattr(counted, method)(X)
