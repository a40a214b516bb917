"""Graphs of scorers against the fitted scorers."""

import numpy as np
import onnxruntime
import pytest
from _prompts import AxisPrompts
from sklearn.ensemble import IsolationForest

from skanomaly import (
    LocalKNNScorer,
    MutualScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PatchwiseScorer,
    PromptScorer,
    RetrievalKNNScorer,
    ScoreUnion,
)
from skanomaly.core.local_places import window
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._local_graph import windows_of
from skanomaly.deployment._scorers import scores_graph

pytest.importorskip("onnx")

GRID, DIM = (7, 6), 12
TEXTS = {
    "text_features_normal": np.eye(DIM)[0],
    "text_features_anomaly": np.eye(DIM)[1] + 0.3,
}


def tokens_of(n, seed, shift=0.0):
    """Tokens of images whose places differ."""
    places = np.random.default_rng(99).normal(size=(*GRID, DIM)) * 2
    noise = np.random.default_rng(seed).normal(size=(n, *GRID, DIM))
    return (places + noise + shift).astype(np.float32)


def run(scorer, tokens):
    graph, grid = Graph(), tokens.shape[1:3]
    name = graph.input("tokens", np.float32, ["batch", *tokens.shape[1:]])
    patches, scores = scores_graph(graph, scorer, name, grid)
    graph.output(patches, "patches", np.float32, ["batch", *grid])
    graph.output(scores, "scores", np.float64, ["batch"])
    session = onnxruntime.InferenceSession(graph.model({}).SerializeToString())
    return session.run(None, {"tokens": tokens})


def check_same(scorer, tokens):
    expected_patches, expected = scorer.score_patches(tokens, return_scores=True)
    patches, scores = run(scorer, tokens)
    assert patches.dtype == np.float32 and scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=2e-6, atol=1e-9)
    span = np.abs(expected_patches).max()
    np.testing.assert_allclose(patches, expected_patches, atol=1e-5 * span)
    alone = run(scorer, tokens[1:2])  # the batch may be of any size
    np.testing.assert_allclose(alone[1], expected[1:2], rtol=2e-6, atol=1e-9)


def odd_tokens():
    """Of new images: one with masked patches, one with a row of them, one with a zero token."""
    tokens = tokens_of(5, 1)
    tokens[1, 2, 3] = tokens[2, :3] = np.nan
    tokens[3, 0, 0] = 0
    return tokens


KNN, GAUSSIAN = PatchKNNScorer(), PatchGaussianScorer()
EUCLIDEAN = {"metric": "euclidean", "aggregation": "max"}
SCORERS = {
    "cosine": KNN,
    "euclidean": PatchKNNScorer(metric="euclidean"),
    "three neighbours": PatchKNNScorer(3, aggregation=0.9),
    "coreset": PatchKNNScorer(coreset=0.1, aggregation="max"),
    "parts": PatchKNNScorer(parts=[4, 8], aggregation="mean"),
    "positions": PatchKNNScorer(position_weight=0.3, topk=5),
    "positions, euclidean": PatchKNNScorer(position_weight=0.3, metric="euclidean"),
    "reweighting": PatchKNNScorer(reweighting=9, **EUCLIDEAN),
    "reweighting, coreset": PatchKNNScorer(reweighting=3, coreset=0.2, **EUCLIDEAN),
    "reweighting by itself": PatchKNNScorer(reweighting=1, **EUCLIDEAN),
    "local": LocalKNNScorer(),
    "local, wide": LocalKNNScorer(20),
    "local, one place": LocalKNNScorer(0),
    "shared": LocalKNNScorer(whitening="shared"),
    "not whitened, by rows": LocalKNNScorer(2, whitening=None),
    "not whitened, by places": LocalKNNScorer(0, whitening=None),
    "directions": LocalKNNScorer(unit_length=True, topk=3),
    "components": LocalKNNScorer(n_components=5),
    "components, shared": LocalKNNScorer(n_components=5, whitening="shared"),
    "local coreset": LocalKNNScorer(coreset=0.3),
    "few images": LocalKNNScorer(few=100),
    "gaussian": GAUSSIAN,
    "gaussian, shared": PatchGaussianScorer("shared", aggregation=0.5),
    "gaussian, some": PatchGaussianScorer(n_components=5, random_state=0),
    "gaussian, principal": PatchGaussianScorer(n_components=5, reduction="pca"),
    "gaussian, neighbourhood": PatchGaussianScorer(neighborhood=3, shrinkage=0.2),
    "subspace": PatchSubspaceScorer(),
    "small subspace": PatchSubspaceScorer(0.5),
    "texts": PromptScorer(**TEXTS, contamination=0.1, logit_scale=3.0),
    "texts, ratio": PromptScorer(**TEXTS, contamination=0.1, mode="ratio"),
    "texts, diff": PromptScorer(**TEXTS, contamination=0.1, mode="diff"),
    "union": ScoreUnion([("knn", KNN), ("gaussian", GAUSSIAN)], scorer_weights=[1, 2]),
    "highest of two": ScoreUnion([("knn", KNN), ("gaussian", GAUSSIAN)], combination="max"),
    "image scores of two": ScoreUnion(
        [("knn", KNN), ("gaussian", GAUSSIAN)], aggregation="members"
    ),
    "as they are": ScoreUnion([("knn", KNN), ("gaussian", GAUSSIAN)], normalization=None),
}


@pytest.mark.parametrize("name", SCORERS)
def test_graph_scores_as_the_scorer(name):
    scorer = SCORERS[name].fit(tokens_of(30, 0))
    check_same(scorer, odd_tokens())


@pytest.mark.parametrize("name", ["euclidean", "local", "shared", "gaussian", "subspace"])
def test_far_from_zero(name):
    """Tokens of which most is the same in all images lose no digits."""
    scorer = SCORERS[name].fit(tokens_of(30, 0, shift=500))
    check_same(scorer, tokens_of(5, 1, shift=500))


@pytest.mark.parametrize("name", ["cosine", "local", "few images", "gaussian", "union"])
def test_region_that_is_masked_in_all_images(name):
    good, new = tokens_of(30, 0), tokens_of(5, 1)
    good[:, :2] = new[:, :2] = np.nan
    check_same(SCORERS[name].fit(good), new)


@pytest.mark.parametrize("name", ["cosine", "positions", "parts"])
def test_zero_tokens_in_the_bank(name):
    good, new = tokens_of(10, 0), tokens_of(3, 1)
    good[0, 0, 0] = new[1, 3, 3] = 0
    check_same(SCORERS[name].fit(good), new)


def test_bank_of_several_chunks(monkeypatch):
    monkeypatch.setattr("skanomaly.deployment._search_graph._CHUNK", 100)
    for name in ("cosine", "three neighbours", "reweighting"):
        check_same(SCORERS[name].fit(tokens_of(10, 0)), tokens_of(3, 1))


def test_moved_fold_of_one_image():
    with pytest.warns(UserWarning, match="single image"):
        scorer = PatchKNNScorer().fit(tokens_of(1, 0))
    check_same(scorer, tokens_of(3, 1))


def test_patches_without_neighbours_are_infinitely_far():
    """As at a place around which no training image has a patch, which a fitted region masks."""
    good, new = tokens_of(30, 0), tokens_of(2, 1)
    good[:, :4] = np.nan
    scorer = LocalKNNScorer(1).fit(good)
    patches, scores = run(scorer, new)
    assert np.isinf(patches[:, :2]).all() and np.isfinite(patches[:, 4:]).all()
    assert (scores == -np.inf).all()


def test_image_whose_patches_are_all_masked_has_no_score():
    tokens = tokens_of(2, 1)
    tokens[0] = np.nan
    _, scores = run(PatchKNNScorer(topk=3).fit(tokens_of(10, 0)), tokens)
    assert np.isnan(scores[0]) and np.isfinite(scores[1])


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 1), (4, 5)])
@pytest.mark.parametrize("radius", [0, 1, 2, 9])
@pytest.mark.parametrize("by_rows", [False, True])
def test_windows(grid, radius, by_rows):
    found = windows_of(grid, radius, by_rows)
    n_slots = found.queries.shape[1]
    for place in range(grid[0] * grid[1]):
        at = found.found_at[place][found.is_there[place]]
        assert (found.queries.ravel()[at] == place).all()
        blocks = at // n_slots
        assert len(set(blocks)) == len(blocks)
        near = [p for run in window(grid, place, radius) for p in range(run.start, run.stop)]
        assert set(blocks) == {p // found.n_columns for p in near}


@pytest.mark.parametrize(
    ("scorer", "reason"),
    [
        (RetrievalKNNScorer(), "RetrievalKNNScorer has no form as a graph"),
        (
            PatchwiseScorer(IsolationForest(n_estimators=5)),
            "PatchwiseScorer has no form as a graph",
        ),
        (MutualScorer(), "MutualScorer has no form as a graph"),
        (AxisPrompts(), "AxisPrompts has no form as a graph"),
        (PromptScorer(**TEXTS, windows=(2,)), "windows"),
        (ScoreUnion([("one", KNN), ("two", RetrievalKNNScorer())]), "scorer 'two': Retrieval"),
        (PatchKNNScorer(topk=40), "topk=40 is more than the 6 patches"),
    ],
)
def test_what_a_graph_cannot_be_is_refused(scorer, reason):
    if not isinstance(scorer, (MutualScorer, PromptScorer)):
        scorer = scorer.fit(tokens_of(10, 0))
    with pytest.raises(ValueError, match=reason):
        run(scorer, tokens_of(1, 1)[:, :2, :3])


@pytest.mark.parametrize("scorer", [LocalKNNScorer(), GAUSSIAN])
def test_other_grid_than_that_of_fit_is_refused(scorer):
    scorer = scorer.fit(tokens_of(20, 0))
    with pytest.raises(ValueError, match=r"grid of 2 x 3 patches.* 7 x 6"):
        run(scorer, tokens_of(1, 1)[:, :2, :3])


def test_approximate_search_is_refused():
    pytest.importorskip("faiss")
    scorer = PatchKNNScorer(algorithm="faiss:Flat").fit(tokens_of(10, 0))
    with pytest.raises(ValueError, match="approximately"):
        run(scorer, tokens_of(1, 1))
