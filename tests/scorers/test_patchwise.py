"""Outlier detectors of scikit-learn, and by PyOD's protocol, on patches."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import SGDOneClassSVM
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from skanomaly import (
    FilterBankPatches,
    PatchwiseScorer,
    ScoreUnion,
    anomaly_maps,
    create_model,
    load_model,
    save_model,
)
from skanomaly.datasets import make_surfaces
from skanomaly.model_selection import OneClassSplit
from skanomaly.scorers import _patchwise


def tokens(n, seed, grid=(4, 5), dim=6):
    return np.random.default_rng(seed).normal(size=(n, *grid, dim)).astype(np.float32)


class OutlierProtocol(BaseEstimator):
    """What a detector of PyOD is to its users: higher scores for outliers, labels 0 and 1."""

    def __init__(self, contamination=0.1):
        self.contamination = contamination

    def fit(self, X, y=None):
        self.centre_ = np.mean(X, axis=0)
        self.decision_scores_ = self.decision_function(X)
        self.threshold_ = np.quantile(self.decision_scores_, 1 - self.contamination)
        self.labels_ = (self.decision_scores_ > self.threshold_).astype(int)
        return self

    def decision_function(self, X):
        return np.linalg.norm(np.asarray(X, dtype=float) - self.centre_, axis=1)

    def predict(self, X):
        return (self.decision_function(X) > self.threshold_).astype(int)


class DecisionAlone(BaseEstimator):
    """A detector with scikit-learn's sign, and without score_samples."""

    def fit(self, X, y=None):
        return self

    def decision_function(self, X):
        return 3 - np.linalg.norm(X, axis=1)


DETECTORS = [
    IsolationForest(n_estimators=20, random_state=0),
    OneClassSVM(nu=0.1),
    SGDOneClassSVM(random_state=0),
    LocalOutlierFactor(novelty=True),
    EllipticEnvelope(random_state=0),
    GaussianMixture(2, random_state=0),
    KernelDensity(bandwidth=2.0),
    OutlierProtocol(),
    DecisionAlone(),
    make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)),
    make_pipeline(StandardScaler(), OutlierProtocol()),
]
NAMES = [repr(detector).partition("(")[0] + str(i) for i, detector in enumerate(DETECTORS)]


@pytest.mark.parametrize("estimator", DETECTORS, ids=NAMES)
def test_scores_are_those_of_the_estimator_higher_for_outliers(estimator):
    X, new = tokens(12, 0), tokens(5, 1)
    new[2, 1, 3] += 9
    scorer = PatchwiseScorer(estimator, n_patches=None).fit(X)
    own = clone(estimator).fit(X.reshape(-1, 6))
    if hasattr(own, "score_samples"):
        expected = -own.score_samples(new.reshape(-1, 6))
    else:
        expected = own.decision_function(new.reshape(-1, 6))
        expected = -expected if isinstance(estimator, DecisionAlone) else expected
    patches, scores = scorer.score_patches(new, return_scores=True)
    np.testing.assert_allclose(patches.ravel(), expected, rtol=1e-5)
    np.testing.assert_allclose(scores, -expected.reshape(5, -1).max(axis=1))
    if not isinstance(estimator, SGDOneClassSVM):  # a half-space does not see all directions
        assert np.argmax(patches) == 2 * 20 + 1 * 5 + 3
        assert scorer.predict(new)[2] == -1
    assert type(scorer.estimator_) is type(estimator) and scorer.estimator is estimator


def test_held_out_scores_come_from_estimators_that_have_not_seen_the_image():
    X = tokens(10, 0)
    scorer = PatchwiseScorer(OutlierProtocol(), n_patches=None).fit(X)
    for fold in range(5):
        own = np.arange(10) // 2 == fold
        others = PatchwiseScorer(OutlierProtocol(), n_patches=None).fit(X[~own])
        np.testing.assert_array_equal(scorer.train_scores_[own], others.score_samples(X[own]))


class Counting(OutlierProtocol):
    """Tells how many patches it is given."""

    fitted: list = []
    scored: list = []

    def fit(self, X, y=None):
        self.fitted.append(np.array(X))
        return super().fit(X)

    def decision_function(self, X):
        self.scored.append(len(X))
        return super().decision_function(X)


def test_masked_patches_are_never_the_highest():
    X, new = tokens(12, 0), tokens(4, 1)
    new[1, :2] = new[3, 0, 0] = np.nan
    scorer = PatchwiseScorer(OneClassSVM(nu=0.1)).fit(X)
    patches, scores = scorer.score_patches(new, return_scores=True)
    masked = np.isnan(new[..., 0])
    assert (patches < 0).all()  # on the scale of the estimator, where 0 is an outlier
    for image, where, score in zip(patches, masked, scores, strict=True):
        np.testing.assert_array_equal(image[where], image[~where].min())
        assert image.max() == pytest.approx(-score)


def test_a_seeded_draw_of_valid_patches(monkeypatch):
    X = tokens(12, 0)
    X[3, :2] = np.nan
    rows = X.reshape(-1, 6)
    monkeypatch.setattr(Counting, "fitted", [])
    PatchwiseScorer(Counting(), n_patches=50, random_state=1).fit(X)
    PatchwiseScorer(Counting(), n_patches=50, random_state=1).fit(X)
    PatchwiseScorer(Counting(), n_patches=50, random_state=2).fit(X)
    drawn = Counting.fitted
    assert len(drawn) == 18 and all(found.shape == (50, 6) for found in drawn)
    np.testing.assert_array_equal(drawn[0], drawn[6])
    assert not np.array_equal(drawn[0], drawn[12])
    known = {row.tobytes() for row in rows[~np.isnan(rows[:, 0])]}
    assert {row.tobytes() for row in drawn[0]} <= known
    assert len({row.tobytes() for row in drawn[0]}) == 50


def test_patches_are_scored_in_blocks(monkeypatch):
    X, new = tokens(12, 0), tokens(9, 1)
    new[0, 0] = np.nan
    scorer = PatchwiseScorer(Counting()).fit(X)
    expected = scorer.score_patches(new)
    monkeypatch.setattr(_patchwise, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(Counting, "scored", [])
    np.testing.assert_array_equal(scorer.score_patches(new), expected)
    assert max(Counting.scored) == 7 and sum(Counting.scored) == 9 * 20 - 5
    np.testing.assert_array_equal(expected[0, 0], 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_name_the_image(value):
    class Faulty(DecisionAlone):
        def decision_function(self, X):
            return np.where(X[:, 0] > 90, value, super().decision_function(X))

    X = tokens(8, 0)
    scorer = PatchwiseScorer(Faulty()).fit(X)
    new = tokens(5, 1)
    new[3, 2, 2, 0] = 99
    for method in ("score_samples", "score_patches", "predict"):
        with pytest.raises(ValueError, match="PatchwiseScorer gave image 3 the score nan"):
            getattr(scorer, method)(new)
    X[6, 0, 0, 0] = 99
    with pytest.raises(ValueError, match="PatchwiseScorer gave image 6 the score nan"):
        scorer.fit(X)


def test_scores_of_another_shape():
    class Columns(DecisionAlone):
        def decision_function(self, X):
            return super().decision_function(X)[:, None]

    with pytest.raises(ValueError, match=r"Columns made scores of shape \(\d+, 1\) of \d+ patches"):
        PatchwiseScorer(Columns()).fit(tokens(8, 0))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LocalOutlierFactor(), "LocalOutlierFactor scores other patches .* only with novelty=True"),
        (make_pipeline(StandardScaler(), LocalOutlierFactor()), "only with novelty=True"),
        (KMeans(2), "KMeans has neither score_samples nor decision_function"),
        (OneClassSVM, "estimator"),
        ("ocsvm", "estimator"),
        (None, "estimator"),
    ],
)
def test_estimators_that_score_no_patches(estimator, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PatchwiseScorer(estimator).fit(tokens(8, 0))


def test_groups_views_one_image_and_mixed_grids():
    forest = IsolationForest(n_estimators=5, random_state=0)
    views = np.stack([tokens(8, seed) for seed in range(3)], axis=1)
    scorer = PatchwiseScorer(forest).fit(views, groups=np.arange(8) // 2)
    assert scorer.train_scores_.shape == (8,)
    with pytest.warns(UserWarning, match="single image"):
        PatchwiseScorer(forest).fit(tokens(1, 0))
    mixed = np.empty(2, dtype=object)
    mixed[:] = [tokens(1, 5)[0], tokens(1, 6, grid=(3, 9))[0]]
    found = scorer.score_patches(mixed)
    for one, grid in zip(mixed, found, strict=True):
        np.testing.assert_array_equal(scorer.score_patches(one[None])[0], grid)
    union = ScoreUnion(
        [("forest", PatchwiseScorer(forest)), ("svm", PatchwiseScorer(OneClassSVM()))]
    )
    assert union.fit(tokens(8, 0)).predict(tokens(1, 0) + 30) == [-1]


def test_in_a_pipeline_with_maps_and_a_search():
    made = make_surfaces(10, 4, surface="fabric", image_size=64, random_state=0)
    scorer = PatchwiseScorer(OneClassSVM(), n_patches=200, random_state=0)
    pipe = Pipeline([("emb", FilterBankPatches(image_size=64)), ("patchwise", scorer)])
    grid = {"patchwise__estimator__nu": [0.1, 0.5], "patchwise__n_patches": [100]}
    search = GridSearchCV(pipe, grid, scoring=_mean_score, cv=OneClassSplit(2))
    search.fit(made.images, made.y)
    best = search.best_estimator_["patchwise"]
    assert (
        best.estimator.nu == best.estimator_.nu == search.best_params_["patchwise__estimator__nu"]
    )
    assert [heat.shape for heat in anomaly_maps(search, made.images[:2])] == [(64, 64)] * 2
    with pytest.raises(ValueError, match="estimator__nu"):
        search.best_estimator_.set_params(patchwise__estimator__nu=0.3).predict(made.images[:1])


def _mean_score(estimator, X, y=None):
    return float(np.mean(estimator.score_samples(X)))


def test_in_a_model_file_what_is_inside_has_to_be_trusted(tmp_path):
    forest = IsolationForest(n_estimators=5, random_state=0)
    scorer = PatchwiseScorer(forest).fit(tokens(8, 0))
    with pytest.warns(UserWarning, match="IsolationForest"):
        save_model(scorer, tmp_path / "model.skan")
    with pytest.raises(TypeError, match=r"not trusted: .*IsolationForest"):
        load_model(tmp_path / "model.skan")


def test_in_the_registry():
    model = create_model("filterbank", scorer="patchwise", contamination=0.05)
    assert model["patchwise"].contamination == 0.05
    assert create_model("filterbank", scorer="patchwise", nu=0.2)[-1].estimator[-1].nu == 0.2
    model = create_model(
        "filterbank", scorer="patchwise", estimator=IsolationForest(n_estimators=7)
    )
    assert model["patchwise"].estimator.n_estimators == 7
