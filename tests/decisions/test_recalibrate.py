"""A threshold that is moved is that of another fit, and nothing else changes."""

import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from _adapters import told
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PromptScorer,
    ScoreUnion,
    decide,
    p_values,
    recalibrate,
)
from skanomaly._pipelines import contamination_of, split_pipeline
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc_scorer
from skanomaly.model_selection import OneClassSplit

DIM = 6
TEXTS = {
    "text_features_normal": np.eye(DIM)[0],
    "text_features_anomaly": np.eye(DIM)[1],
    "logit_scale": 1,  # at the usual scale many of these tokens score 1
}
SCORERS = [
    PatchKNNScorer(),
    PatchKNNScorer(coreset=0.3, metric="euclidean", aggregation="max"),
    PatchGaussianScorer("shared"),
    PatchGaussianScorer(),
    ScoreUnion([("knn", PatchKNNScorer()), ("text", PromptScorer(**TEXTS))]),
    ScoreUnion([("a", PatchKNNScorer()), ("b", PatchKNNScorer(3))], aggregation="members"),
    PromptScorer(**TEXTS, contamination=0.1),
    PromptScorer(**TEXTS, mode="ratio", contamination=0.2),
]
each_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: repr(s)[:60])
SHARES = (0.1, 0.137, 0.3, 0.5)
SURFACES = make_surfaces(26, 6, image_size=64, random_state=0)
GOOD, LATER, BAD = (list(SURFACES.images[a:b]) for a, b in ((0, 12), (12, 26), (26, 32)))


def tokens(n=20, seed=0, shift=1.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 4, 5, DIM)) + shift).astype(np.float32)


def pipeline(**options):
    return make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(**options))


class Darkness:
    def __init__(self, maps=True):
        self.maps = maps

    def predict(self, image):
        dark = 1 - image.mean(axis=2) / 255
        return {"pred_score": dark.mean(), "anomaly_map": dark if self.maps else None}


def assert_same_calibration(actual, expected):
    assert actual.offset_ == expected.offset_
    np.testing.assert_array_equal(actual.train_scores_, expected.train_scores_)
    assert actual.calibration_ == expected.calibration_
    assert actual.patch_limits_ == expected.patch_limits_
    assert contamination_of(actual) == contamination_of(expected)


# A new share


@each_scorer
@pytest.mark.parametrize("groups", [None, np.arange(20) // 2])
@pytest.mark.parametrize("share", SHARES)
def test_a_new_share_is_that_of_another_fit_to_the_bit(scorer, groups, share):
    X, new = tokens(), tokens(8, seed=1)
    fitted = clone(scorer).fit(X, groups=groups)
    before = fitted.offset_
    moved = recalibrate(fitted, contamination=share)
    refitted = clone(scorer).set_params(contamination=share).fit(X, groups=groups)
    assert_same_calibration(moved, refitted)
    assert refitted.calibration_ == {
        "kind": "contamination",
        "contamination": share,
        "n_images": 20,
        "n_groups": None if groups is None else 10,
        "n_resting_on": 0,
    }
    for name in ("predict", "decision_function", "score_samples", "p_values", "score_patches"):
        for data in (X, new):
            np.testing.assert_array_equal(
                getattr(moved, name)(data), getattr(refitted, name)(data), err_msg=name
            )
    assert (fitted.offset_, fitted.contamination) == (before, scorer.contamination)
    np.testing.assert_array_equal(fitted.predict(X), np.where(fitted.train_scores_ < before, -1, 1))
    assert clone(moved).contamination == share


@pytest.mark.parametrize("share", [0.1, 0.137, 0.5])
def test_of_a_detector(share):
    detector = AnomalibDetector(inferencer=Darkness(), contamination=0.3).fit(GOOD)
    moved = recalibrate(detector, contamination=share)
    assert_same_calibration(moved, clone(detector).set_params(contamination=share).fit(GOOD))
    assert moved.inferencer is detector.inferencer
    np.testing.assert_array_equal(
        moved.predict(LATER), np.where(detector.score_samples(LATER) < moved.offset_, -1, 1)
    )


def test_of_a_pipeline():
    pipe = pipeline(contamination=0.4).fit(GOOD)
    moved = recalibrate(pipe, contamination=0.2)
    assert moved[0] is not pipe[0] and moved[1] is not pipe[1]
    assert moved[1].bank_ is pipe[1].bank_
    assert_same_calibration(moved[1], pipeline(contamination=0.2).fit(GOOD)[1])
    assert (pipe[1].contamination, moved[1].contamination) == (0.4, 0.2)
    np.testing.assert_array_equal(moved.score_samples(BAD), pipe.score_samples(BAD))
    assert clone(moved)[1].contamination == 0.2
    assert pipe.fit_predict(GOOD).tolist().count(-1) == 5


class Counted(BaseEstimator):
    """A step, with a step in it, that are fitted in place; images pass through."""

    def __init__(self, inner=None):
        self.inner = inner

    def fit(self, X, y=None):
        self.n_ = len(X)
        if self.inner is not None:
            self.inner.fit(X)
        return self

    def transform(self, X):
        return X


def fitted_steps(estimator):
    if isinstance(estimator, str):
        return
    yield estimator
    if hasattr(estimator, "best_estimator_"):
        yield from fitted_steps(estimator.best_estimator_)
        return
    steps = getattr(estimator, "steps", None) or getattr(estimator, "transformer_list", ())
    for _, step in steps:
        yield from fitted_steps(step)
    if getattr(estimator, "inner", None) is not None:
        yield estimator.inner


def of_searched():
    grid = {"patchknnscorer__n_neighbors": [1]}
    cv = [(range(12), range(12, 18))]
    return GridSearchCV(pipeline(), grid, scoring=image_auroc_scorer, cv=cv)


@pytest.mark.parametrize("by", [{"threshold": -0.5}, {"contamination": 0.2}, {"images": LATER[3:]}])
@pytest.mark.parametrize("first", ["original", "copy"])
@pytest.mark.parametrize("kind", ["plain", "nested", "step", "search"])
def test_neither_is_changed_by_a_fit_of_the_other(kind, first, by):
    knn = PatchKNNScorer()
    made = {
        "plain": pipeline,
        "nested": lambda: make_pipeline(
            make_pipeline(FilterBankPatches(image_size=64)), make_pipeline("passthrough", knn)
        ),
        "step": lambda: make_pipeline(Counted(Counted()), FilterBankPatches(image_size=64), knn),
        "search": of_searched,
    }[kind]()
    y = None if kind != "search" else [1] * 15 + [-1] * 3
    images = GOOD if y is None else [*GOOD, *LATER[:3], *BAD[:3]]
    made.fit(images, y)
    moved = recalibrate(made, **by)
    fitted, kept = (moved, made) if first == "copy" else (made, moved)
    old = set(map(id, fitted_steps(made)))
    assert not any(id(step) in old for step in fitted_steps(moved))
    steps = list(fitted_steps(kept))
    before = [dict(vars(step)) for step in steps]
    expected = kept.score_samples(BAD), kept.predict(BAD)
    fitted.fit([GOOD[0], *LATER[3:], *images[12:]], y)
    for step, state in zip(steps, before, strict=True):
        assert vars(step).keys() == state.keys()
        assert all(vars(step)[name] is state[name] for name in state)
    np.testing.assert_array_equal(kept.score_samples(BAD), expected[0])
    np.testing.assert_array_equal(kept.predict(BAD), expected[1])


def test_the_members_of_a_union_are_their_own():
    union = ScoreUnion([("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer())])
    union.fit(tokens())
    moved = recalibrate(union, contamination=0.3)
    expected = union.predict(tokens(seed=1))
    moved.set_params(knn__n_neighbors=3)
    np.testing.assert_array_equal(union.predict(tokens(seed=1)), expected)
    with pytest.raises(NotFittedError, match="knn__n_neighbors"):
        moved.predict(tokens(seed=1))
    union.set_params(gaussian__topk=3)
    with pytest.raises(NotFittedError, match="gaussian__topk"):
        recalibrate(union, contamination=0.3)


class Uncopied(Counted):
    def __copy__(self):
        raise TypeError("it holds a device")


def test_a_step_that_cannot_be_copied_is_named():
    pipe = make_pipeline(Uncopied(), FilterBankPatches(image_size=64), PatchKNNScorer()).fit(GOOD)
    with pytest.raises(TypeError, match=r"Uncopied cannot be copied \(it holds a device\)"):
        recalibrate(pipe, threshold=-1)


def test_a_scorer_from_before_there_was_a_calibration():
    scorer = PatchKNNScorer().fit(tokens())
    expected = recalibrate(scorer, images=tokens(seed=1))
    del scorer.calibration_
    assert_same_calibration(recalibrate(scorer, images=tokens(seed=1)), expected)


def test_steps_that_pass_through_and_pipelines_within():
    inner = make_pipeline("passthrough", PatchKNNScorer())
    pipe = make_pipeline(FilterBankPatches(image_size=64), "passthrough", inner)
    pipe.fit(GOOD)
    moved = recalibrate(pipe, contamination=0.3)
    scorer = split_pipeline(moved).scorer
    assert scorer.contamination == 0.3 and split_pipeline(pipe).scorer.contamination == 0.1
    assert [name for name, _ in moved.steps] == [name for name, _ in pipe.steps]
    np.testing.assert_array_equal(
        [d.is_anomalous for d in decide(moved, GOOD)], scorer.train_scores_ < scorer.offset_
    )


@pytest.mark.parametrize("within", [False, True])
def test_of_a_search(within):
    grid = {"patchknnscorer__n_neighbors": [1, 2]}
    search = GridSearchCV(pipeline(), grid, scoring=image_auroc_scorer, cv=OneClassSplit(2))
    images, y = SURFACES.images[12:], SURFACES.y[12:]
    search.fit(images, y)
    if within:
        search = make_pipeline(search)
    best = split_pipeline(search).scorer
    moved = recalibrate(search, contamination=0.3)
    scorer = split_pipeline(moved).scorer
    assert scorer.offset_ == np.quantile(best.train_scores_, 0.3, method="weibull")
    np.testing.assert_array_equal(
        moved.predict(BAD), np.where(search.score_samples(BAD) < scorer.offset_, -1, 1)
    )
    assert (best.contamination, scorer.contamination) == (0.1, 0.3)
    again = clone(moved)
    assert split_pipeline(again).scorer.contamination == 0.3
    assert split_pipeline(clone(search)).scorer.contamination == 0.1
    again.fit(images, y)
    assert split_pipeline(again).scorer.offset_ == scorer.offset_


@pytest.mark.parametrize(
    "change", [{"contamination": 0.3}, {"threshold": -0.1}, {"images": LATER}], ids="".join
)
def test_pickles_and_copies_of_copies(change):
    pipe = pipeline().fit(GOOD)
    moved = recalibrate(pipe, **change)
    loaded = pickle.loads(pickle.dumps(moved))
    np.testing.assert_array_equal(loaded.decision_function(BAD), moved.decision_function(BAD))
    np.testing.assert_array_equal(p_values(loaded, BAD), p_values(moved, BAD))
    assert loaded[-1].calibration_ == moved[-1].calibration_
    again = recalibrate(recalibrate(loaded, threshold=-5), contamination=0.25)
    assert again[-1].offset_ == recalibrate(moved, contamination=0.25)[-1].offset_


def test_a_share_that_was_changed_after_fit_names_the_function():
    pipe = pipeline().fit(GOOD)
    pipe.set_params(patchknnscorer__contamination=0.2)
    for method in (pipe.predict, pipe.decision_function, pipe.score_samples):
        with pytest.raises(NotFittedError) as caught:
            method(BAD)
        assert re.search(r"call skanomaly.recalibrate\(estimator, cont.*2", told(caught))
    moved = recalibrate(pipe, contamination=0.2)
    assert_same_calibration(moved[-1], pipeline(contamination=0.2).fit(GOOD)[-1])
    pipe.set_params(patchknnscorer__topk=0.5)
    with pytest.raises(NotFittedError) as caught:
        pipe.predict(BAD)
    assert re.search("contamination, topk of this .*; call fit again", told(caught))
    with pytest.raises(NotFittedError, match="topk of this PatchKNNScorer changed since fit"):
        recalibrate(pipe, contamination=0.2)


def test_a_moved_scorer_still_notices_changes():
    moved = recalibrate(PatchKNNScorer().fit(tokens()), contamination=0.3)
    for name, value in {"contamination": 0.1, "n_neighbors": 2}.items():
        changed = recalibrate(moved, contamination=0.3).set_params(**{name: value})
        with pytest.raises(NotFittedError, match=f"{name} of this .* changed since fit"):
            changed.predict(tokens())


def test_fit_takes_no_notice_of_what_was_moved():
    scorer = PatchKNNScorer()
    moved = recalibrate(scorer.fit(tokens()), threshold=-0.1)
    assert_same_calibration(moved.fit(tokens()), scorer)
    moved = recalibrate(scorer, images=tokens(30, seed=3), contamination=0.2)
    moved.set_params(contamination=0.1).fit(tokens())
    assert_same_calibration(moved, scorer)


def test_while_others_score():
    pipe = pipeline().fit(GOOD)
    expected = {s: pipeline(contamination=s).fit(GOOD).predict(LATER) for s in SHARES}

    def judge(share):
        return share, recalibrate(pipe, contamination=share).predict(LATER)

    with ThreadPoolExecutor(8) as pool:
        for share, found in pool.map(judge, list(expected) * 6):
            np.testing.assert_array_equal(found, expected[share])
    np.testing.assert_array_equal(pipe.predict(LATER), expected[0.1])


# A number


@each_scorer
def test_a_number_is_the_threshold(scorer):
    fitted = clone(scorer).fit(tokens())
    new = tokens(10, seed=2)
    middle = float(np.median(fitted.score_samples(new)))
    moved = recalibrate(fitted, threshold=middle)
    assert moved.offset_ == middle
    assert (moved.predict(new) == -1).sum() == 5
    np.testing.assert_array_equal(moved.decision_function(new), fitted.score_samples(new) - middle)
    np.testing.assert_array_equal(moved.p_values(new), fitted.p_values(new))
    assert moved.calibration_ == {
        "kind": "threshold",
        "contamination": None,
        "n_images": 20,
        "n_groups": None,
        "n_resting_on": 0,
    }
    assert contamination_of(moved) is None and contamination_of(fitted) is not None
    back = recalibrate(moved, contamination=0.2)
    assert_same_calibration(back, recalibrate(fitted, contamination=0.2))


def test_a_number_for_texts_without_fit_belongs_to_its_class():
    for mode in ("softmax", "diff"):
        moved = recalibrate(PromptScorer(**TEXTS, mode=mode), threshold=-0.3)
        scores = moved.score_samples(tokens())
        np.testing.assert_array_equal(moved.predict(tokens()), np.where(scores < -0.3, -1, 1))
        moved.set_class_name("bottle")
        assert len(moved.score_samples(tokens())) == 20
        with pytest.raises(NotFittedError, match="class_name of this PromptScorer changed"):
            moved.predict(tokens())


def test_a_number_for_texts_takes_the_place_of_the_probability():
    fitted = PromptScorer(**TEXTS).fit(tokens())
    assert (fitted.offset_, fitted.calibration_["kind"]) == (-0.5, "auto")
    assert contamination_of(fitted) is None
    moved = recalibrate(fitted, threshold=-0.9)
    np.testing.assert_array_equal(
        moved.decision_function(tokens()), fitted.score_samples(tokens()) + 0.9
    )
    share = recalibrate(fitted, contamination=0.2)
    assert_same_calibration(share, PromptScorer(**TEXTS, contamination=0.2).fit(tokens()))
    back = recalibrate(share, contamination="auto")
    assert_same_calibration(back, fitted)
    with pytest.raises(ValueError, match="'auto' is no threshold of this PromptScorer"):
        other = PromptScorer(**TEXTS, mode="ratio", contamination=0.1).fit(tokens())
        recalibrate(other, contamination="auto")


def test_a_number_for_a_detector_without_fit():
    detector = AnomalibDetector(inferencer=Darkness())
    scores = detector.score_samples(LATER)
    moved = recalibrate(detector, threshold=np.float32(np.median(scores)))
    np.testing.assert_array_equal(moved.predict(LATER), np.where(scores < moved.offset_, -1, 1))
    assert type(moved.offset_) is float and moved.calibration_["n_images"] == 0
    with pytest.raises(NotFittedError):
        detector.predict(LATER)
    with pytest.raises(NotFittedError):
        moved.p_values(LATER)


# Other images


@each_scorer
@pytest.mark.parametrize("groups", [None, np.arange(30) // 3])
def test_other_images_take_the_place_of_the_held_out_scores(scorer, groups):
    scorer = clone(scorer).set_params(contamination=0.2)
    fitted, later, new = scorer.fit(tokens()), tokens(30, seed=4, shift=1.2), tokens(8, seed=5)
    moved = recalibrate(fitted, images=later, groups=groups)
    scores = fitted.score_samples(later)
    np.testing.assert_array_equal(moved.train_scores_, scores)
    assert moved.offset_ == np.quantile(scores, 0.2, method="weibull")
    assert (moved.predict(later) == -1).sum() == 6
    weights = np.ones(30) if groups is None else np.full(30, 1 / 3)
    n = weights.sum()
    counted = [(1 + weights[scores <= s].sum()) / (n + 1) for s in fitted.score_samples(new)]
    np.testing.assert_allclose(moved.p_values(new), counted)
    grids = fitted.score_patches(later)
    assert len(moved.held_out_patches_) == 30
    for kept, grid in zip(moved.held_out_patches_, grids, strict=True):
        np.testing.assert_array_equal(kept, grid)
    assert moved.patch_limits_[0] == pytest.approx(np.quantile(grids, 0.95), rel=1e-6)
    assert moved.calibration_["kind"] == "images" and moved.calibration_["contamination"] == 0.2
    assert moved.calibration_["n_groups"] == (None if groups is None else 10)
    assert recalibrate(fitted, images=later, contamination=0.3).offset_ == np.quantile(
        scores, 0.3, method="weibull"
    )
    again = recalibrate(moved, contamination=0.5)
    assert again.calibration_["kind"] == "images" and again.offset_ == pytest.approx(
        np.median(scores)
    )


def test_training_images_keep_their_held_out_scores():
    fitted = PatchKNNScorer().fit(tokens())
    moved = recalibrate(fitted, images=tokens())
    np.testing.assert_array_equal(moved.train_scores_, fitted.train_scores_)
    assert moved.offset_ == fitted.offset_


def test_masked_patches_of_other_images_stay_out():
    later = tokens(20, seed=6)
    later[:, 0] = np.nan
    moved = recalibrate(PatchKNNScorer().fit(tokens()), images=later)
    assert all(np.isnan(grid[0]).all() and (grid[1:] > 0).all() for grid in moved.held_out_patches_)
    assert np.isfinite(moved.patch_limits_).all()


def test_images_of_a_pipeline_are_read_and_known_again():
    pipe = pipeline(contamination=0.25).fit(GOOD)
    moved = recalibrate(pipe, images=LATER)
    np.testing.assert_array_equal(moved[-1].train_scores_, pipe.score_samples(LATER))
    assert len(set(moved[-1].calibration_["image_digests"])) == len(LATER)
    assert moved[0]._train_images is pipe[0]._train_images


@pytest.mark.parametrize("maps", [True, False])
def test_images_of_a_detector(maps):
    detector = AnomalibDetector(inferencer=Darkness(maps), contamination=0.25).fit(GOOD)
    moved = recalibrate(detector, images=LATER, groups=[i // 2 for i in range(14)])
    refitted = clone(detector).fit(LATER)
    np.testing.assert_array_equal(moved.train_scores_, refitted.train_scores_)
    assert moved.offset_ == refitted.offset_
    assert getattr(moved, "patch_limits_", None) == getattr(refitted, "patch_limits_", None)
    assert moved.p_values(BAD).min() >= 1 / 8


# What is promised holds


@pytest.mark.parametrize("kind", ["fit", "images"])
def test_the_share_of_new_images_is_flagged(kind):
    n_seeds, n_new, share, flagged = 120, 10, 0.2, 0
    for seed in range(n_seeds):
        scorer = PatchKNNScorer(contamination=0.5).fit(tokens(12, seed=3 * seed))
        if kind == "fit":
            moved = recalibrate(scorer, contamination=share)
        else:
            moved = recalibrate(scorer, images=tokens(12, seed=3 * seed + 1), contamination=share)
        flagged += (moved.predict(tokens(n_new, seed=3 * seed + 2)) == -1).sum()
    # A threshold of 12 scores adds a variance of about 10 / 12 of that of the 10 new images.
    low, high = binom.interval(0.999, n_seeds * n_new // 2, share)
    assert low <= flagged / 2 <= high


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.01, 0.5), min_size=2, max_size=2), st.integers(0, 50))
def test_a_larger_share_flags_no_less(shares, seed):
    low, high = sorted(shares)
    fitted = PatchKNNScorer().fit(tokens(101, seed=seed)[:, :1, :1])
    assert (
        recalibrate(fitted, contamination=low).offset_
        <= recalibrate(fitted, contamination=high).offset_
    )


@pytest.mark.parametrize(
    "n, burst, share, message",
    [
        (9, 1, 0.05, "9 images hold no threshold of contamination=0.05: it is the lowest .* flags "
         "0.1 of new good images on average. Give at least 19, or .* of at least 0.1"),
        (20, 5, 0.1, "4 groups of images hold .* flags 0.2 of new .* at least 9, or .* 0.2"),
    ],
)  # fmt: skip
def test_too_few_images_for_the_share(n, burst, share, message):
    groups = None if burst == 1 else np.arange(n) // burst
    fitted = PatchKNNScorer(contamination=0.5).fit(tokens(n), groups=groups)
    with pytest.warns(UserWarning, match=message):
        moved = recalibrate(fitted, contamination=share)
    if groups is None:
        assert moved.offset_ == fitted.train_scores_.min()
    with pytest.warns(UserWarning, match=message):
        recalibrate(
            PatchKNNScorer(contamination=share).fit(tokens()),
            images=tokens(n, seed=1),
            groups=groups,
        )


@pytest.mark.parametrize("n", [9, 19, 99])
def test_just_enough_images(n):
    recalibrate(PatchKNNScorer().fit(tokens(n)[:, :2, :2]), contamination=1 / (n + 1))


# What is refused


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "give contamination, threshold or images"),
        ({"threshold": -1, "contamination": 0.1}, "give threshold by itself"),
        ({"threshold": -1, "images": GOOD}, "give threshold by itself"),
        ({"contamination": 0.1, "groups": [1]}, "groups are those of images"),
        ({"threshold": np.nan}, "threshold must be a finite number .*, got nan"),
        ({"threshold": -np.inf}, "threshold must be a finite number"),
        ({"threshold": True}, "threshold must be a finite number"),
        ({"threshold": 10**400}, "threshold must be a finite number"),
        ({"threshold": "-1"}, "threshold must be a finite number"),
        ({"contamination": 0.0}, "'contamination' parameter of PatchKNNScorer must be a float"),
        ({"contamination": 0.6}, "'contamination' parameter"),
        ({"contamination": True}, "'contamination' parameter"),
        ({"contamination": "auto"}, "'contamination' parameter"),
        ({"images": GOOD, "contamination": 2}, "'contamination' parameter"),
        ({"images": GOOD, "groups": [1]}, "groups has 1 labels for 12 images"),
        ({"images": []}, "0 sample"),
    ],
)
def test_what_is_asked_wrongly(options, message):
    pipe = pipeline().fit(GOOD)
    with pytest.raises(ValueError, match=message):
        recalibrate(pipe, **options)


def test_a_number_holds_no_share_that_images_could_keep():
    moved = recalibrate(pipeline().fit(GOOD), threshold=-1)
    with pytest.raises(ValueError, match="give contamination too, such as the 0.1 of fit"):
        recalibrate(moved, images=LATER)
    assert recalibrate(moved, images=LATER, contamination=0.2)[-1].contamination == 0.2


@pytest.mark.parametrize(
    "change", [{"contamination": 0.2}, {"threshold": -1}, {"images": LATER}], ids="".join
)
def test_what_is_not_fitted(change):
    with pytest.raises(NotFittedError):
        recalibrate(pipeline(), **change)
    detector = AnomalibDetector(inferencer=Darkness())
    if "threshold" not in change:
        with pytest.raises(NotFittedError):
            recalibrate(detector, **change)


class Foreign(OutlierMixin, BaseEstimator):
    """A scorer that is made of nothing of ours."""

    def __init__(self, contamination=0.1, keeps_scores=True):
        self.contamination = contamination
        self.keeps_scores = keeps_scores

    def fit(self, X, y=None):
        scores = self.score_samples(X)
        if self.keeps_scores:
            self.train_scores_ = scores
        self.offset_ = float(np.quantile(scores, self.contamination, method="weibull"))
        return self

    def score_patches(self, X, return_scores=False):
        patches = np.abs(np.asarray(X)).mean(axis=-1)
        scores = -patches.max(axis=(1, 2)).astype(np.float64)
        return (patches, scores) if return_scores else patches

    def score_samples(self, X):
        return self.score_patches(X, return_scores=True)[1]

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) < 0, -1, 1)


def test_scorers_of_others():
    fitted = Foreign().fit(tokens())
    moved = recalibrate(fitted, contamination=0.3)
    refitted = Foreign(0.3).fit(tokens())
    assert (moved.offset_, moved.contamination) == (refitted.offset_, 0.3)
    assert (fitted.contamination, recalibrate(fitted, threshold=-9).offset_) == (0.1, -9)
    with pytest.raises(TypeError, match="cannot be calibrated on other images"):
        recalibrate(fitted, images=tokens())
    with pytest.raises(ValueError, match="contamination must be a number in"):
        recalibrate(fitted, contamination=1)
    with pytest.raises(TypeError, match="Foreign has no train_scores_"):
        recalibrate(Foreign(keeps_scores=False).fit(tokens()), contamination=0.2)


def test_a_scorer_whose_offset_decides_nothing_is_refused():
    # libsvm keeps a threshold of its own beside offset_.
    fitted = OneClassSVM().fit(np.random.default_rng(0).normal(size=(20, 3)))
    with pytest.raises(TypeError, match="OneClassSVM has no score_patches"):
        recalibrate(fitted, threshold=-1)


def test_a_threshold_that_rests_on_one_image_is_said_to():
    """One image of noise among good ones: the threshold lies in the gap above it."""
    images = make_surfaces(30, image_size=64, random_state=0).images
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(images[:15])
    today = images[15:].copy()
    recalibrate(pipe, images=today)
    today[4] = np.random.default_rng(0).integers(0, 256, today[4].shape)
    with pytest.warns(UserWarning, match=r"rests on 1 image \(number 4 in") as said:
        moved = recalibrate(pipe, images=today, contamination=0.1)
    assert len(said) == 1
    scores = sorted(pipe.score_samples(today))
    assert scores[0] < moved[-1].offset_ < scores[1]
    assert moved[-1].calibration_["n_resting_on"] == 1
    more = recalibrate(moved, contamination=0.3)
    assert more[-1].calibration_["n_resting_on"] == 0
    assert recalibrate(moved, threshold=-3.0)[-1].calibration_["n_resting_on"] == 0
    # So too of a fit, whose threshold is not warned of.
    assert clone(pipe).fit(today)[-1].calibration_["n_resting_on"] == 1
