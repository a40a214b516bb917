"""Several scorers as one: common scale, held-out calibration, nested parameters."""

import warnings

import joblib
import numpy as np
import pytest
from _prompts import AxisPrompts
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    ScoreUnion,
    anomaly_maps,
)
from skanomaly.core.aggregation import aggregate_patch_scores
from skanomaly.datasets import make_surfaces

KNN, GAUSSIAN = PatchKNNScorer(), PatchGaussianScorer("shared")
PROMPT = AxisPrompts(logit_scale=3)
UNIONS = [
    ScoreUnion([("knn", KNN), ("gaussian", GAUSSIAN)]),
    ScoreUnion([("knn", KNN), ("gaussian", GAUSSIAN)], combination="max"),
    ScoreUnion([("prompt", PROMPT), ("knn", KNN)], scorer_weights=[1, 3]),
    ScoreUnion([("prompt", PROMPT), ("knn", PatchKNNScorer(coreset=0.5))], aggregation="members"),
    ScoreUnion([("knn", KNN), ("position", PatchGaussianScorer())], normalization=None, topk=3),
    ScoreUnion([("one", KNN), ("two", ScoreUnion([("a", PROMPT), ("b", GAUSSIAN)]))]),
]
each_union = pytest.mark.parametrize("union", UNIONS, ids=range(len(UNIONS)))


def _tokens(n=12, grid=(4, 5), dim=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, *grid, dim)) + 1).astype(np.float32)


def _scaled(scorer, good, X):
    """Patch scores on the documented scale, from the scorer's own held-out ones."""
    fitted = clone(scorer).fit(good)
    median, top = np.quantile(fitted.score_patches(good).astype(float), [0.5, 0.99])
    return (fitted.score_patches(X).astype(float) - median) / (top - median)


@pytest.mark.parametrize("combination", ["mean", "max"])
@pytest.mark.parametrize("aggregation", ["topk_mean", "members"])
def test_held_out_scores_are_those_of_a_union_without_the_image(combination, aggregation):
    """But for the scale, into which the image's own held-out patch scores enter too."""
    good = _tokens(20, grid=(8, 8))
    union = ScoreUnion(
        [("near", KNN), ("far", PatchKNNScorer(3, metric="euclidean"))],
        combination=combination,
        aggregation=aggregation,
    )
    fitted = clone(union).fit(good)
    usual = fitted.train_scores_.std()
    for i in range(20):
        refit = clone(union).fit(np.delete(good, i, axis=0))
        (without,) = refit.score_samples(good[i : i + 1])
        assert abs(fitted.train_scores_[i] - without) < 0.3 * usual
        for name, scorer in refit.scorers_.items():  # each scorer's own is the same
            (score,) = scorer.score_samples(good[i : i + 1])
            assert score == pytest.approx(fitted.scorers_[name].train_scores_[i], rel=1e-6)
    # Patches that have seen their image would be at no distance, which is far more than that.
    seen = -(0 - fitted.location_) / fitted.scale_
    assert seen.min() - fitted.train_scores_.max() > usual


@pytest.mark.parametrize("combination", ["mean", "max"])
def test_combination_on_a_common_scale(combination):
    good = _tokens(30)
    X = np.concatenate([_tokens(4, seed=1), good[:3]])  # training images, held out, among them
    a, b = _scaled(KNN, good, X), _scaled(GAUSSIAN, good, X)
    expected = np.maximum(a, b)
    weights = None
    if combination == "mean":
        weights, expected = [3, 1], 0.75 * a + 0.25 * b
    union = ScoreUnion(
        [("knn", KNN), ("gaussian", GAUSSIAN)],
        combination=combination,
        scorer_weights=weights,
        topk=0.2,
    ).fit(good)
    patches, scores = union.score_patches(X, return_scores=True)
    assert patches.dtype == np.float32 and patches.shape == (7, 4, 5)
    np.testing.assert_allclose(patches, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(scores, union.score_samples(X))
    means = [-np.sort(image.ravel())[-4:].mean() for image in expected]
    np.testing.assert_allclose(scores, means, rtol=1e-6)
    np.testing.assert_array_equal(scores[4:], union.train_scores_[:3])


def test_the_scale_of_a_scorer_does_not_matter():
    good, X = _tokens(30), _tokens(5, seed=1)
    union = ScoreUnion([("scaled", Rescaled()), ("knn", KNN)]).fit(good)
    expected = ScoreUnion([("knn", KNN)]).fit(good)
    np.testing.assert_allclose(union.score_samples(X), expected.score_samples(X), rtol=1e-4)
    np.testing.assert_allclose(union.train_scores_, expected.train_scores_, rtol=1e-4)
    np.testing.assert_allclose(union.location_[0], 1000 * union.location_[1] - 7, rtol=1e-5)
    np.testing.assert_allclose(union.scale_[0], 1000 * union.scale_[1], rtol=1e-5)
    raw = ScoreUnion([("scaled", Rescaled()), ("knn", KNN)], normalization=None).fit(good)
    plain = clone(KNN).fit(good)
    np.testing.assert_allclose(
        raw.score_samples(X), 500.5 * plain.score_samples(X) + 3.5, rtol=1e-5
    )
    np.testing.assert_array_equal(raw.location_, [0, 0])


class OwnScorer(OutlierMixin, BaseEstimator):
    """What a scorer that is no class of ours has besides `fit` and `score_patches`."""

    offset_ = 0.0

    def score_samples(self, X):
        return self.score_patches(X, return_scores=True)[1]

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) < 0, -1, 1)


class Rescaled(OwnScorer):
    """Far from the scale of others; `broken` says how."""

    def __init__(self, broken=None):
        self.broken = broken

    def fit(self, X, y=None):
        self.knn_ = PatchKNNScorer().fit(X)
        return self

    def score_patches(self, X, return_scores=False):
        patches, scores = self.knn_.score_patches(X, return_scores=True)
        patches = 1000 * patches - 7
        if self.broken == "shape":
            patches = patches[:, :-1]
        elif self.broken == "nan":
            patches[0, 0, 0] = np.nan
        elif self.broken == "nan image":
            scores[0] = np.nan
        return (patches, 1000 * scores + 7) if return_scores else patches


class Constant(OwnScorer):
    """The same score for every patch that is not `odd`."""

    def __init__(self, value=0.5, odd=None):
        self.value = value
        self.odd = odd

    def fit(self, X, y=None):
        return self

    def score_patches(self, X, return_scores=False):
        patches = np.full(X.shape[:-1], self.value, dtype=np.float32)
        if self.odd is not None:
            patches[X[..., 0] > self.odd] += 2
        return (patches, -patches.reshape(len(X), -1).max(axis=1)) if return_scores else patches


def test_a_constant_scorer_adds_nothing():
    good, X = _tokens(30), _tokens(5, seed=1)
    expected = ScoreUnion([("knn", KNN)]).fit(good)
    for value in (0, 0.5, 1e6):
        union = ScoreUnion([("constant", Constant(value)), ("knn", KNN)]).fit(good)
        np.testing.assert_allclose(union.score_samples(X), expected.score_samples(X) / 2, rtol=1e-9)
        assert union.scale_[0] == 1
    # Where 99% of the patches are alike, the highest is 1; the shift of a new kind is kept.
    good[0, 0, 0, 0] = X[0, 1, 1, 0] = 50
    union = ScoreUnion([("constant", Constant(odd=40))]).fit(good)
    assert union.scale_ == 2 and union.score_patches(X).max() == 1
    assert ScoreUnion([("constant", Constant(odd=99))]).fit(good).score_patches(X).max() == 0
    assert ScoreUnion([("constant", Constant(odd=40))]).fit(good[1:]).score_patches(X).max() == 2


def test_members_own_image_scores():
    good, X = _tokens(30), _tokens(5, seed=1)
    scorers = [("knn", PatchKNNScorer(aggregation="mean")), ("gaussian", GAUSSIAN)]
    union = ScoreUnion(scorers, aggregation="members", scorer_weights=(1, 3)).fit(good)
    expected = np.zeros(5)
    for i, (_, scorer) in enumerate(scorers):
        scores = clone(scorer).fit(good).score_samples(X)
        expected += (0.25, 0.75)[i] * (scores + union.location_[i]) / union.scale_[i]
    np.testing.assert_allclose(union.score_samples(X), expected, rtol=1e-6)
    np.testing.assert_array_equal(union.score_samples(good), union.train_scores_)
    union.set_params(knn__aggregation="max").fit(good)
    assert np.abs(union.score_samples(X) - expected).min() > 1e-3


@pytest.mark.parametrize("union", [UNIONS[0], UNIONS[3], UNIONS[5]], ids=[0, 3, 5])
def test_calibration_is_held_out(union):
    good = _tokens(30)
    union = clone(union).set_params(contamination=0.2).fit(good)
    assert union.train_scores_.shape == (30,) and union.train_scores_.dtype == np.float64
    np.testing.assert_array_equal(union.score_samples(good), union.train_scores_)
    np.testing.assert_array_equal(
        [union.score_samples(image[None])[0] for image in good], union.train_scores_
    )
    assert (union.predict(good) == -1).sum() == 6
    np.testing.assert_array_equal(clone(union).fit_predict(good), union.predict(good))
    assert union.offset_ == np.quantile(union.train_scores_, 0.2, method="weibull")
    new = np.concatenate([_tokens(5, seed=1), 3 - 6 * _tokens(5, seed=2)])
    scores = union.score_samples(new)
    np.testing.assert_array_equal(union.decision_function(new), scores - union.offset_)
    np.testing.assert_array_equal(union.predict(new), np.where(scores < union.offset_, -1, 1))
    p = [(1 + (union.train_scores_ <= score).sum()) / 31 for score in scores]
    np.testing.assert_allclose(union.p_values(new), p)
    assert scores[:5].min() > scores[5:].max()


def test_no_leak_from_in_sample_scores():
    # In-sample distances to the nearest patch are 0: held-out ones are those of new images.
    good, new = _tokens(40), _tokens(400, seed=1)
    union = ScoreUnion([("knn", KNN), ("two", PatchKNNScorer(n_neighbors=2))]).fit(good)
    assert (union.location_ > 0).all()
    flagged = (union.predict(new) == -1).mean()
    assert 0.02 < flagged < 0.22  # 10% nominal, of 40 images


def test_cost_of_calibration_is_bounded(monkeypatch):
    from skanomaly.scorers import _training_images

    good = _tokens(20)
    everything = ScoreUnion([("knn", KNN)], normalization=None).fit(good)
    monkeypatch.setattr(_training_images, "MAX_CALIBRATION_PATCHES", 100)
    union = ScoreUnion([("knn", KNN)], normalization=None).fit(good)
    np.testing.assert_array_equal(union.train_scores_, everything.train_scores_[::4])
    np.testing.assert_allclose(union.score_samples(good), everything.train_scores_, rtol=1e-9)


@pytest.mark.parametrize("combination", ["mean", "max"])
def test_masked_patches_are_never_the_highest(combination):
    good = _tokens(20)
    union = ScoreUnion([("knn", KNN), ("gaussian", GAUSSIAN)], combination=combination).fit(good)
    new = _tokens(30, seed=1)
    patches = union.score_patches(new)
    keep = patches < -0.2  # more usual than the median
    usual = keep.any(axis=(1, 2))
    assert usual.any()
    found = union.score_patches(np.where(keep[..., None], new, np.nan)[usual])
    for one, all_patches, kept in zip(found, patches[usual], keep[usual], strict=True):
        np.testing.assert_allclose(one[kept], all_patches[kept], rtol=1e-5)
        assert one[kept].max() < 0
        np.testing.assert_array_equal(one[~kept], one[kept].min())


def test_mixed_grids():
    X = np.empty(9, dtype=object)
    X[:] = [_tokens(1, grid=(3 + i % 3, 4), seed=i)[0] for i in range(9)]
    union = clone(UNIONS[0]).fit(X)
    np.testing.assert_array_equal(union.score_samples(X), union.train_scores_)
    assert [p.shape for p in union.score_patches(X)] == [image.shape[:2] for image in X]


@each_union
def test_persistence_clone_and_nested_parameters(union, tmp_path):
    good, new = _tokens(), _tokens(4, seed=1)
    fitted = clone(union).fit(good)
    joblib.dump(fitted, tmp_path / "union.joblib")
    loaded = joblib.load(tmp_path / "union.joblib")
    for X in (new, good):
        np.testing.assert_array_equal(loaded.predict(X), fitted.predict(X))
    with pytest.raises(NotFittedError):
        clone(fitted).predict(new)
    name, scorer = fitted.scorers[0]
    assert fitted.get_params()[name] is scorer
    assert fitted.get_params()[f"{name}__topk"] == 0.01
    # The scorers passed in are not fitted, and their changes are noticed.
    assert not hasattr(scorer, "train_scores_") and list(fitted.scorers_) == [
        name for name, _ in fitted.scorers
    ]
    fitted.set_params(**{f"{name}__topk": 0.5})
    assert scorer.topk == 0.5
    with pytest.raises(NotFittedError, match=f"{name}__topk of this ScoreUnion changed since fit"):
        fitted.predict(new)
    fitted.set_params(**{f"{name}__topk": 0.01}).predict(new)
    fitted.set_params(**{name: PatchKNNScorer(n_neighbors=2)})
    with pytest.raises(NotFittedError, match=f"{name}.* changed since fit"):
        fitted.score_patches(new)
    fitted.fit(good).predict(new)


def test_a_class_changed_since_fit():
    union = ScoreUnion([("prompt", AxisPrompts(logit_scale=3)), ("knn", KNN)]).fit(_tokens())
    union.set_params(prompt__class_name="nut")
    with pytest.raises(NotFittedError, match="prompt__class_name of this ScoreUnion changed"):
        union.predict(_tokens(2, seed=1))


@pytest.mark.parametrize("mode", ["diff", "ratio"])
@pytest.mark.parametrize("aggregation", ["topk_mean", "members"])
def test_a_scorer_without_a_threshold_of_its_own(mode, aggregation):
    good, new = _tokens(), _tokens(4, seed=1)
    scores = [
        ScoreUnion(
            [("prompt", AxisPrompts(mode=mode, **options)), ("knn", KNN)], aggregation=aggregation
        )
        .fit(good)
        .score_samples(new)
        for options in ({}, {"contamination": 0.3})
    ]
    np.testing.assert_array_equal(*scores)


def test_scorers_and_prompts_changed_in_place():
    prompts = {"normal": ["a {}"], "anomaly": ["a cut {}"]}
    inner = ScoreUnion([("prompt", AxisPrompts(logit_scale=3, prompts=prompts))])
    union = ScoreUnion([("inner", inner), ("knn", KNN)]).fit(_tokens())
    new = _tokens(2, seed=1)
    for change, undo, name in [
        (lambda: union.scorers.append(("more", KNN)), union.scorers.pop, "scorers"),
        (lambda: inner.scorers.append(("more", KNN)), inner.scorers.pop, "inner__scorers"),
        (lambda: prompts["normal"].append("{}"), prompts["normal"].pop, "inner__prompt__prompts"),
    ]:
        change()
        with pytest.raises(NotFittedError, match=f"{name} of this ScoreUnion changed since fit"):
            union.predict(new)
        undo()
        union.predict(new)


def test_a_single_image():
    with pytest.warns(UserWarning, match="calibrated on a single image") as caught:
        union = clone(UNIONS[0]).fit(_tokens(1))
    assert len(caught) == 1 and caught[0].filename == __file__
    assert union.predict(_tokens(1)) == 1
    assert union.train_scores_.shape == (1,)
    with pytest.raises(ValueError, match="n_samples = 1 image of one patch"):
        clone(UNIONS[0]).fit(_tokens(1, grid=(1, 1)))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"scorers": []}, ValueError, "scorers is empty"),
        ({"scorers": [KNN]}, TypeError, "scorers\\[0\\] must be a tuple \\(name, scorer\\)"),
        ({"scorers": [("knn", "drop")]}, TypeError, "scorer 'knn' must be a scorer of patch"),
        ({"scorers": [("knn", PatchKNNScorer)]}, TypeError, "scorer 'knn' must be an instance"),
        (
            {"scorers": [("emb", FilterBankPatches())]},
            TypeError,
            "has no score_samples.* score_patches",
        ),
        ({"scorers": [("a", KNN), ("a", KNN)]}, ValueError, "not unique"),
        ({"scorers": [("topk", KNN)]}, ValueError, "conflict with constructor arguments"),
        ({"scorers": [("a__b", KNN)]}, ValueError, "must not contain __"),
        (
            {"scorer_weights": [1]},
            ValueError,
            "scorer_weights must be 2 numbers, one for each scorer",
        ),
        ({"scorer_weights": [0, 0]}, ValueError, "at least 0 and not all 0"),
        ({"scorer_weights": [-1, 2]}, ValueError, "at least 0 and not all 0"),
        ({"scorer_weights": [np.nan, 2]}, ValueError, "at least 0 and not all 0"),
        (
            {"scorer_weights": [1, 2], "combination": "max"},
            ValueError,
            "only for combination='mean'",
        ),
        ({"normalization": "minmax"}, ValueError, "The 'normalization' parameter of ScoreUnion"),
        ({"topk": 21}, ValueError, "image 0: topk=21 is more than the 20 patches"),
        ({"scorers": [("x", Rescaled("nan"))]}, ValueError, "of scorer 'x' must give a finite"),
        ({"scorers": [("x", Rescaled("shape"))]}, ValueError, "of scorer 'x' must give a finite"),
        ({"scorer_weights": ["a", "b"]}, ValueError, "scorer_weights must be 2 numbers"),
        ({"scorer_weights": [True, True]}, ValueError, "scorer_weights must be 2 numbers"),
        ({"topk": True}, ValueError, "The 'topk' parameter of ScoreUnion must not be a bool"),
        (
            {"scorers": [("x", Rescaled("nan image"))], "aggregation": "members"},
            ValueError,
            "of scorer 'x' must give a finite score for each image",
        ),
    ],
)
def test_errors(params, error, message):
    union = clone(UNIONS[0])
    for name, value in params.items():
        setattr(union, name, value)
    with pytest.raises(error, match=message):
        union.fit(_tokens())


def test_few_shot_winclip():
    # What the documentation says of the paper's scores, on tokens of patch, windows and image.
    rng, dim = np.random.default_rng(0), 5
    good, new = (np.repeat(rng.normal(size=(n, 1, 1, 4 * dim)), 16, 1) for n in (4, 3))
    good, new = (X.reshape(-1, 4, 4, 4 * dim) for X in (good, new))
    for X in (good, new):
        X[..., : 3 * dim] += 0.1 * rng.normal(size=(*X.shape[:3], 3 * dim))
        for side, start in ((2, dim), (3, 2 * dim)):  # clamped, as the embedder stores windows
            block = X[..., start : start + dim]
            edge = np.minimum(np.arange(4), 4 - side)
            block[:] = block[:, edge][:, :, edge].copy()
    prompt = AxisPrompts(windows=(2, 3), aggregation="class_token", logit_scale=3)
    knn = PatchKNNScorer(aggregation="max")
    union = ScoreUnion(
        [("prompt", prompt), ("knn", knn)],
        scorer_weights=(2, 1),
        normalization=None,
        aggregation="members",
    ).fit(good)
    by_text = clone(prompt).score_patches(new).astype(float)
    by_image = clone(knn).fit(good).score_patches(new).astype(float) / 2
    np.testing.assert_allclose(union.score_patches(new) * 1.5, by_text + by_image, rtol=1e-5)
    expected = -clone(prompt).score_samples(new) + by_image.reshape(3, -1).max(axis=1)
    np.testing.assert_allclose(union.score_samples(new) * 1.5, -expected, rtol=1e-6)


def test_in_a_pipeline():
    surfaces = make_surfaces(12, 6, surface="wood", image_size=64, random_state=0)
    scorers = [("gaussian", PatchGaussianScorer("shared")), ("knn", PatchKNNScorer())]
    pipe = Pipeline([("emb", FilterBankPatches(image_size=64)), ("union", ScoreUnion(scorers))])
    grid = {
        "union__knn__n_neighbors": [1, 3],
        "union__aggregation": ["topk_mean", "members"],
    }
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(pipe, grid, scoring="roc_auc", cv=cv, error_score="raise")
    search.fit(surfaces.images, surfaces.y)
    assert search.best_score_ > 0.7
    assert len(search.best_estimator_[-1].train_scores_) == 12
    maps = anomaly_maps(search, surfaces.images)
    assert maps.shape == (18, 64, 64) and np.isfinite(maps).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "ScoreUnion" in pipe._repr_html_()


def test_image_score_is_the_aggregate():
    good, X = _tokens(), _tokens(3, seed=1)
    for aggregation in ("max", "mean", 0.75):
        union = clone(UNIONS[0]).set_params(aggregation=aggregation).fit(good)
        expected = [
            -aggregate_patch_scores(patches.ravel(), aggregation)
            for patches in union.score_patches(X)
        ]
        np.testing.assert_allclose(union.score_samples(X), expected, rtol=1e-5)
