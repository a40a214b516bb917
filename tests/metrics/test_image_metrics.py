"""Image metrics against plain loops; their scorers and their confidence interval."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.svm import OneClassSVM

from skanomaly.metrics import (
    IMAGE_SCORERS,
    bootstrap_interval,
    image_auroc,
    image_average_precision,
    image_average_precision_scorer,
    image_f1_max,
    image_f1_max_threshold,
    image_fpr_at_recall,
    image_recall_at_zero_fpr,
)

METRICS = [
    image_auroc,
    image_average_precision,
    image_f1_max,
    image_f1_max_threshold,
    image_recall_at_zero_fpr,
    image_fpr_at_recall,
]
cases = st.lists(
    st.tuples(st.sampled_from([-1, 1]), st.integers(-4, 4)), min_size=2, max_size=15
).filter(lambda pairs: len({y for y, _ in pairs}) == 2)


def _curve(y, scores):
    """(threshold, precision, recall) for every distinct score as a threshold, by counting."""
    for t in sorted(set(scores)):
        called = [label for label, s in zip(y, scores, strict=True) if s <= t]
        hits = sum(label == -1 for label in called)
        yield t, hits / len(called), hits / sum(label == -1 for label in y)


@settings(deadline=None)
@given(cases)
def test_against_loops(pairs):
    y, scores = zip(*pairs, strict=True)
    normal = [s for label, s in pairs if label == 1]
    anomalous = [s for label, s in pairs if label == -1]
    wins = sum((a < b) + 0.5 * (a == b) for a in anomalous for b in normal)
    assert image_auroc(y, scores) == pytest.approx(wins / len(normal) / len(anomalous), abs=1e-12)
    expected, before = 0.0, 0.0
    for _, precision, recall in _curve(y, scores):
        expected, before = expected + (recall - before) * precision, recall
    assert image_average_precision(y, scores) == pytest.approx(expected, abs=1e-12)
    f1 = image_f1_max(y, scores)
    by_threshold = {t: 2 * p * r / (p + r) if p + r else 0 for t, p, r in _curve(y, scores)}
    assert f1 == pytest.approx(max(by_threshold.values()), abs=1e-12)
    highest = max(t for t, value in by_threshold.items() if value == pytest.approx(f1, abs=1e-12))
    above = [s for s in scores if s > highest]
    expected = (highest + min(above)) / 2 if above else np.nextafter(highest, np.inf)
    assert image_f1_max_threshold(y, scores) == expected


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_f1_threshold_serves_as_offset(dtype):
    """`predict` is -1 where ``score < offset_``, also between neighbouring floats."""
    rng = np.random.default_rng(0)
    for step in range(40):
        y = rng.choice([-1, 1], 12)
        y[:2] = 1, -1
        scores = rng.standard_normal(12).astype(dtype)
        if step % 2:  # scores that lie as close as floats can
            scores = np.float64(1).astype(dtype) + rng.integers(0, 6, 12) * np.finfo(dtype).eps
            scores = scores.astype(dtype)
        predicted = np.where(scores < image_f1_max_threshold(y, scores), -1, 1)
        assert f1_score(y, predicted, pos_label=-1) == pytest.approx(image_f1_max(y, scores))
    scores = np.array([2.0, 1.0], dtype=dtype)  # only all are best
    assert (scores < image_f1_max_threshold([-1, 1], scores)).all()


@settings(deadline=None)
@given(cases, st.sampled_from([0.01, 0.25, 1 / 3, 0.5, 2 / 3, 0.95, 1.0]))
def test_operating_points_against_loops(pairs, recall):
    y, scores = zip(*pairs, strict=True)
    normal = [s for label, s in pairs if label == 1]
    anomalous = [s for label, s in pairs if label == -1]
    rates = [  # (false-positive rate, recall) at every threshold, none flagged included
        (sum(s <= t for s in normal) / len(normal), sum(s <= t for s in anomalous) / len(anomalous))
        for t in (min(scores) - 1, *scores)
    ]
    assert image_recall_at_zero_fpr(y, scores) == max(r for fpr, r in rates if fpr == 0)
    assert image_fpr_at_recall(y, scores, recall) == min(fpr for fpr, r in rates if r >= recall)


def test_recall_is_not_rounded_up():
    # 0.07 * 100 is just above 7: the seventh of 100 anomalous images still is the one.
    y, scores = [-1] * 100 + [1], [*range(100), 6.5]
    assert image_fpr_at_recall(y, scores, recall=0.07) == 0
    assert image_fpr_at_recall(y, scores, recall=0.08) == 1
    for recall in (0, 1.01, np.nan, True):
        with pytest.raises(ValueError, match="recall must lie in"):
            image_fpr_at_recall(y, scores, recall)


@pytest.fixture
def points():
    """Normal points around the origin, anomalous ones far off, and a split of both in two."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2))
    y = np.where(np.arange(60) < 40, 1, -1)
    X[y == -1] += 3
    return X, y, PredefinedSplit(np.arange(60) % 2)


@pytest.mark.parametrize("name", IMAGE_SCORERS)
def test_scorer_prefers_the_better_detector(name, points):
    X, y, _ = points
    good, bad = OneClassSVM(gamma=0.1).fit(X[y == 1]), OneClassSVM(gamma=0.1).fit(X[y == -1])
    scorer = IMAGE_SCORERS[name]
    assert scorer(good, X, y) > scorer(bad, X, y)
    assert scorer(good, X, y) == scorer.sign * scorer.metric(y, good.score_samples(X))
    assert pickle.loads(pickle.dumps(scorer))(good, X, y) == scorer(good, X, y)
    assert scorer.metric.__name__ in repr(scorer)


def test_the_obvious_scorer_is_wrong(points):
    X, y, _ = points
    detector = OneClassSVM(gamma=0.1).fit(X[y == 1])
    obvious = make_scorer(
        average_precision_score, response_method="decision_function", pos_label=-1
    )
    assert image_average_precision_scorer(detector, X, y) > 0.9
    assert obvious(detector, X, y) < 0.3


def test_scorers_in_a_grid_search(points):
    X, y, split = points

    class OneClass(OneClassSVM):
        """Trained on the normal points alone."""

        def fit(self, X, y):
            return super().fit(X[y == 1])

    grid = {"gamma": [0.1, 1e4]}  # the latter knows no point but its own
    search = GridSearchCV(OneClass(), grid, scoring=IMAGE_SCORERS, refit="image_auroc", cv=split)
    search.fit(X, y)
    assert search.best_params_ == {"gamma": 0.1}
    for name in IMAGE_SCORERS:
        scores = search.cv_results_[f"mean_test_{name}"]
        assert scores[0] > scores[1]
    search = GridSearchCV(OneClass(), grid, scoring=IMAGE_SCORERS["image_auroc"], cv=split)
    assert search.fit(X, y).best_params_ == {"gamma": 0.1}


def test_bootstrap_interval():
    rng = np.random.default_rng(0)
    y = np.where(np.arange(40) < 25, 1, -1)
    scores = rng.standard_normal(40) + y / 2
    value = image_auroc(y, scores)
    low, high = bootstrap_interval(image_auroc, y, scores, n_resamples=200)
    assert 0 < low < value < high < 1
    assert (low, high) == bootstrap_interval(image_auroc, y, scores, n_resamples=200)
    other = bootstrap_interval(image_auroc, y, scores, n_resamples=200, random_state=1)
    assert other != (low, high)
    narrow = bootstrap_interval(image_auroc, y, scores, confidence=0.5, n_resamples=200)
    assert low < narrow[0] < value < narrow[1] < high


def test_bootstrap_draws_within_the_classes():
    def shares(y_true, scores):
        assert sorted(y_true) == [-1, 1, 1, 1]
        assert (np.sign(scores) == y_true).all()
        return 0.5

    y, scores = [1, -1, 1, 1], [1, -1, 2, 3]
    assert bootstrap_interval(shares, y, scores, n_resamples=20) == (0.5, 0.5)
    for wrong in ({"confidence": 1}, {"n_resamples": 0}, {"n_resamples": True}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            bootstrap_interval(shares, y, scores, **wrong)
    with pytest.raises(ValueError, match="undefined"):
        bootstrap_interval(shares, [1, 1], [1, 2])


@pytest.mark.parametrize("metric", METRICS)
def test_undefined_is_an_error(metric):
    for y in ([1, 1], [-1, -1]):
        with pytest.raises(ValueError, match="undefined: y_true needs normal"):
            metric(y, [0.1, 0.2])
    with pytest.raises(ValueError, match="NaN or infinity"):
        metric([1, -1], [0.1, np.nan])
    with pytest.raises(ValueError, match=r"\+1 \(normal\) and -1"):
        metric([0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="inconsistent"):
        metric([1, -1], [0.1, 0.2, 0.3])
