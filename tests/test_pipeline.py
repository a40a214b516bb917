"""Embedder and scorer in scikit-learn's own machinery."""

import importlib.util

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import Pipeline

from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    TimmPatches,
)
from skanomaly.datasets import make_surfaces


def mean_colours(image):
    return image.reshape(8, image.shape[0] // 8, 8, image.shape[1] // 8, 3).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(18, 9, surface="wood", image_size=64, random_state=0)


EMBEDDERS = [
    FilterBankPatches(image_size=64),
    FunctionPatches(mean_colours),
]
if importlib.util.find_spec("timm") is not None:
    EMBEDDERS += [
        TimmPatches("vit_tiny_patch16_224", image_size=64, layers=3, weights="random"),
    ]
PIPELINES = [
    Pipeline([("emb", embedder), ("scorer", scorer)])
    for embedder in EMBEDDERS
    for scorer in (PatchKNNScorer(), PatchGaussianScorer(n_components=8, random_state=0))
]
each_pipeline = pytest.mark.parametrize(
    "pipe", PIPELINES, ids=lambda pipe: "-".join(type(step).__name__ for _, step in pipe.steps)
)


@each_pipeline
def test_fit_predict_score(pipe, surfaces):
    pipe = clone(pipe).fit(surfaces.images, surfaces.y)
    scores = pipe.score_samples(surfaces.images)
    np.testing.assert_array_equal(
        pipe.predict(surfaces.images), np.where(scores < pipe[-1].offset_, -1, 1)
    )
    assert pipe[-1].train_scores_.shape == (18,)
    np.testing.assert_array_equal(
        clone(pipe).fit_predict(surfaces.images, surfaces.y), pipe.predict(surfaces.images)
    )


@each_pipeline
def test_clone_params_and_persistence(pipe, surfaces, tmp_path):
    good, new = surfaces.images[:12], surfaces.images[12:]
    pipe = clone(pipe).set_params(scorer__contamination=0.3, scorer__topk=2)
    assert pipe.get_params()["scorer__topk"] == 2
    assert clone(pipe).get_params()["scorer__contamination"] == 0.3
    pipe.fit(good)
    joblib.dump(pipe, tmp_path / "pipe.joblib")
    loaded = joblib.load(tmp_path / "pipe.joblib")
    np.testing.assert_array_equal(loaded.score_samples(new), pipe.score_samples(new))
    joblib.dump(pipe[0], tmp_path / "emb.joblib")
    assert (tmp_path / "emb.joblib").stat().st_size < 100_000


@each_pipeline
def test_diagram(pipe):
    with sklearn.config_context(display="diagram"):
        html = pipe._repr_html_()
    assert type(pipe[0]).__name__ in html and type(pipe[1]).__name__ in html


@pytest.mark.parametrize("embedder", EMBEDDERS, ids=lambda embedder: type(embedder).__name__)
def test_memory(embedder, surfaces, tmp_path):
    pipe = Pipeline([("emb", embedder), ("knn", PatchKNNScorer())])
    cached = clone(pipe).set_params(memory=str(tmp_path))
    for _ in range(2):
        cached.fit(surfaces.images[:12])
        np.testing.assert_array_equal(
            cached.predict(surfaces.images),
            clone(pipe).fit(surfaces.images[:12]).predict(surfaces.images),
        )


def test_grid_search_of_the_readme(surfaces):
    pipe = Pipeline([("emb", FilterBankPatches(image_size=64)), ("knn", PatchKNNScorer())])
    grid = {"knn__topk": [0.01, 0.05, 4], "knn__contamination": [0.1, 0.3]}
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(pipe, grid, scoring="roc_auc", cv=cv, error_score="raise")
    search.fit(list(surfaces.images), surfaces.y)
    assert search.best_score_ > 0.7
    # contamination moves the threshold, not the ranks; topk moves the ranks.
    results = search.cv_results_
    auc = {
        (p["knn__topk"], p["knn__contamination"]): score
        for p, score in zip(results["params"], results["mean_test_score"], strict=True)
    }
    assert auc[0.01, 0.1] == auc[0.01, 0.3]
    assert len({auc[topk, 0.1] for topk in grid["knn__topk"]}) > 1
    # The refit on everything stays one-class.
    assert len(search.best_estimator_[-1].train_scores_) == 18
    assert search.predict(surfaces.images).shape == (27,)


def test_grid_search_over_gaussians_in_processes(surfaces, tmp_path):
    pipe = Pipeline(
        [
            ("emb", FilterBankPatches(image_size=64, cache_dir=tmp_path)),
            ("gaussian", PatchGaussianScorer(n_components=8, random_state=0)),
        ]
    )
    grid = {"gaussian__neighborhood": [1, 3], "gaussian__shrinkage": [0.0, 0.5]}
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(pipe, grid, scoring="roc_auc", cv=cv, n_jobs=2, error_score="raise")
    search.fit(surfaces.images, surfaces.y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 27


def test_cross_validate(surfaces):
    scores = cross_validate(
        PIPELINES[0],
        surfaces.images,
        surfaces.y,
        scoring=["roc_auc", "average_precision"],
        cv=KFold(3, shuffle=True, random_state=0),
        error_score="raise",
    )
    assert (scores["test_roc_auc"] > 0.6).all()


def test_views_reach_the_scorer(surfaces):
    pipe = Pipeline(
        [
            ("emb", FilterBankPatches(image_size=64, augmentation="rotate90")),
            ("knn", PatchKNNScorer()),
        ]
    ).fit(surfaces.images[:10])
    assert len(pipe[-1].bank_) == 10 * 4 * 64
    np.testing.assert_allclose(
        pipe.score_samples(surfaces.images[:10]), pipe[-1].train_scores_, rtol=1e-6
    )
    np.testing.assert_array_equal(
        clone(pipe).fit_predict(surfaces.images[:10]), pipe.predict(surfaces.images[:10])
    )
