"""The threshold of least expected cost, and what is said of how little is known of it."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import beta, norm
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    PatchKNNScorer,
    ScoreUnion,
    recalibrate,
    tune_threshold,
)
from skanomaly._pipelines import contamination_of
from skanomaly.datasets import make_surfaces
from skanomaly.decisions import warn_if_tuned_on
from skanomaly.metrics._intervals import binomial_interval

SURFACES = make_surfaces(30, 8, image_size=64, random_state=0)
GOOD, LATER, BAD = (list(SURFACES.images[a:b]) for a, b in ((0, 14), (14, 30), (30, 38)))
IMAGES, Y = [*LATER, *BAD], [1] * 16 + [-1] * 8
COSTS = {"cost_miss": 20.0, "cost_false_alarm": 2.0, "prevalence": 0.05}


class Itself(OutlierMixin, BaseEstimator):
    """The score of a row is the number in it: a scorer of tokens by itself."""

    def fit(self, X, y=None):
        self.offset_ = -1.0
        return self

    def score_patches(self, X, return_scores=False):
        scores = np.asarray(X, dtype=np.float64).ravel()
        patches = -scores.reshape(-1, 1, 1).astype(np.float32)
        return (patches, scores) if return_scores else patches

    def score_samples(self, X):
        return self.score_patches(X, return_scores=True)[1]

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) < 0, -1, 1)


def tune(scores, y, **options):
    options = {"prevalence": 0.1, **options}
    X = np.asarray(scores, dtype=float)[:, None]
    return tune_threshold(Itself().fit(X), X, y, **options)


@pytest.fixture(scope="module")
def pipe():
    return make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(GOOD)


@pytest.fixture(scope="module")
def tuned(pipe):
    return tune_threshold(pipe, IMAGES, Y, **COSTS)


def cost_of(scores, y, threshold, cost_miss, cost_false_alarm, prevalence):
    bad = [s for s, label in zip(scores, y, strict=True) if label == -1]
    good = [s for s, label in zip(scores, y, strict=True) if label == 1]
    missed = sum(not s < threshold for s in bad) / len(bad)
    flagged = sum(s < threshold for s in good) / len(good)
    return prevalence * cost_miss * missed + (1 - prevalence) * cost_false_alarm * flagged


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=10).filter(
        lambda pairs: len({bad for _, bad in pairs}) == 2
    ),
    st.floats(0.5, 50),
    st.floats(0.01, 0.9),
)
@pytest.mark.filterwarnings("ignore:at these costs")
def test_no_other_threshold_is_cheaper_and_of_the_cheapest_it_misses_fewest(pairs, ratio, share):
    scores, y = [s for s, _ in pairs], [-1 if bad else 1 for _, bad in pairs]
    costs = {"cost_miss": ratio, "cost_false_alarm": 1.0, "prevalence": share}
    found = tune(scores, y, **costs)
    everywhere = np.arange(-10, 11) / 2
    of_all = np.array([cost_of(scores, y, t, **costs) for t in everywhere])
    assert found.expected_cost == pytest.approx(cost_of(scores, y, found.threshold, **costs))
    assert found.expected_cost == pytest.approx(of_all.min())
    flagged = np.array(scores) < found.threshold
    for threshold, cost in zip(everywhere, of_all, strict=True):
        if threshold > found.threshold and (np.array(scores) < threshold).sum() > flagged.sum():
            assert cost > found.expected_cost


def test_the_threshold_lies_midway_between_scores():
    found = tune([-1, -2, -6, -8], [1, 1, -1, -1])
    assert (found.threshold, found.expected_cost) == (-4, 0)
    assert (found.miss_rate, found.false_alarm_rate) == (0, 0)
    assert (found.present_threshold, found.present_cost) == (-1, pytest.approx(0.45))


def test_equal_scores_are_flagged_together():
    found = tune([-1, -2, -2, -8], [1, 1, -1, -1], cost_miss=1000)
    assert found.threshold == -1.5 and (found.n_missed, found.n_false_alarms) == (0, 1)


@pytest.mark.parametrize(
    "costs, message, threshold",
    [
        ({"cost_miss": 0}, "cheapest to flag none of these images", -8),
        ({"cost_false_alarm": 0, "prevalence": 0.9}, "cheapest to flag every image", None),
    ],
)
def test_extremes_are_told(costs, message, threshold):
    scores, y = [-8, -2, -2.5, -1], [1, 1, -1, -1]
    with pytest.warns(UserWarning, match=message):
        found = tune(scores, y, **costs)
    assert found.threshold == (np.nextafter(-1, 0) if threshold is None else threshold)
    assert np.isfinite(found.threshold)


def test_without_the_share_of_the_line_it_warns():
    with pytest.warns(UserWarning, match="prevalence is not given: .* 0.5, stands in"):
        found = tune([-1, -2, -6, -8], [1, 1, -1, -1], prevalence=None)
    assert found.prevalence == 0.5 and found.prevalence_is_of_images
    assert "as among these images" in repr(found)


# How little is known


@pytest.mark.parametrize("k, n", [(0, 10), (1, 10), (10, 10), (3, 57), (0, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_are_quantiles_of_the_beta_distribution(k, n, level):
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else beta.ppf(tail, k, n - k + 1)
    high = 1.0 if k == n else beta.ppf(1 - tail, k + 1, n - k)
    np.testing.assert_allclose(binomial_interval(k, n, level), (low, high), atol=1e-9)


def test_rates_cost_and_their_intervals(pipe, tuned):
    scores = pipe.score_samples(IMAGES)
    bad = np.array(Y) == -1
    assert tuned.n_missed == (scores[bad] >= tuned.threshold).sum()
    assert tuned.n_false_alarms == (scores[~bad] < tuned.threshold).sum()
    assert (tuned.n_anomalous, tuned.n_normal) == (8, 16)
    assert tuned.miss_rate_interval == binomial_interval(tuned.n_missed, 8, 0.95)
    assert tuned.false_alarm_rate_interval == binomial_interval(tuned.n_false_alarms, 16, 0.95)
    assert tuned.present_threshold == pipe[-1].offset_
    assert tuned.present_cost == pytest.approx(cost_of(scores, Y, pipe[-1].offset_, **COSTS))
    assert tuned.present_cost >= tuned.expected_cost
    low, high = tuned.cost_interval
    assert low <= tuned.expected_cost <= high
    missed, flagged = (
        binomial_interval(k, n, 0.975) for k, n in ((tuned.n_missed, 8), (tuned.n_false_alarms, 16))
    )
    assert high == pytest.approx(0.05 * 20 * missed[1] + 0.95 * 2 * flagged[1])
    assert low == pytest.approx(0.05 * 20 * missed[0] + 0.95 * 2 * flagged[0])


def test_images_left_out_are_judged_by_thresholds_that_did_not_see_them():
    rng = np.random.default_rng(3)
    scores, y = np.r_[rng.normal(size=9), rng.normal(size=6) - 1.5], [1] * 9 + [-1] * 6
    found = tune(scores, y, cost_miss=8, random_state=5)
    # Once more, image by image.
    random = np.random.RandomState(5)
    classes = [np.arange(9, 15), np.arange(9)]
    wrong, judged, thresholds = [0.0] * 15, [0] * 15, []
    for _ in range(1000):
        drawn = np.concatenate([random.choice(images, images.size) for images in classes])
        levels = sorted({scores[i] for i in drawn})
        middles = [(a + b) / 2 for a, b in zip(levels[:-1], levels[1:], strict=True)]
        candidates = [levels[0], *middles, np.nextafter(levels[-1], np.inf)]
        costs = [cost_of(scores[drawn], [y[i] for i in drawn], t, 8, 1, 0.1) for t in candidates]
        best = max(i for i, cost in enumerate(costs) if cost <= min(costs) + 1e-12)
        thresholds.append(candidates[best])
        for i in set(range(15)) - set(drawn.tolist()):
            judged[i] += 1
            wrong[i] += (scores[i] < thresholds[-1]) != (y[i] == -1)
    rates = np.array(wrong) / judged
    assert found.out_of_bag_miss_rate == pytest.approx(rates[9:].mean())
    assert found.out_of_bag_false_alarm_rate == pytest.approx(rates[:9].mean())
    assert found.out_of_bag_cost == pytest.approx(0.8 * rates[9:].mean() + 0.9 * rates[:9].mean())
    assert found.threshold_interval == pytest.approx(np.quantile(thresholds, [0.025, 0.975]))
    assert found.out_of_bag_cost > found.expected_cost


@pytest.mark.slow
def test_the_estimate_of_images_left_out_is_nearer_to_the_truth():
    """Scores of two normal distributions, of which the true cost of a threshold is known."""
    rng = np.random.default_rng(0)
    costs = {"cost_miss": 20, "prevalence": 0.05}
    seen, left_out, true = [], [], []
    for seed in range(60):
        scores = np.r_[rng.normal(size=50), rng.normal(size=10) - 2.5]
        found = tune(scores, [1] * 50 + [-1] * 10, random_state=seed, **costs)
        seen.append(found.expected_cost)
        left_out.append(found.out_of_bag_cost)
        t = found.threshold
        true.append(0.05 * 20 * norm.sf(t + 2.5) + 0.95 * norm.cdf(t))
    assert np.mean(seen) < 0.7 * np.mean(true)
    assert 0.95 < np.mean(left_out) / np.mean(true) < 1.25


def test_one_image_of_a_class_cannot_be_left_out():
    found = tune([-1, -2, -6], [1, 1, -1])
    assert found.out_of_bag_cost is found.out_of_bag_miss_rate is None
    assert "not known of a single image" in repr(found)
    assert found.miss_rate_interval == pytest.approx((0, 0.975))


def test_the_same_seed_gives_the_same(pipe, tuned):
    again = tune_threshold(pipe, IMAGES, Y, **COSTS)
    assert again.to_dict() == tuned.to_dict()


# What is made of it


def test_apply(pipe, tuned):
    moved = tuned.apply(pipe)
    scores = pipe.score_samples(IMAGES)
    np.testing.assert_array_equal(moved.predict(IMAGES), np.where(scores < tuned.threshold, -1, 1))
    assert pipe[-1].calibration_["kind"] == "contamination"
    assert contamination_of(moved[-1]) is None
    kept = moved[-1].calibration_
    assert (kept["kind"], kept["n_anomalous"], kept["cost_miss"]) == ("cost", 8, 20.0)
    assert kept["n_images"] == len(GOOD) and kept["expected_cost"] == tuned.expected_cost
    assert len(set(kept["image_digests"])) == len(IMAGES)
    json.dumps(kept)
    pickle.loads(pickle.dumps(moved))
    assert recalibrate(moved, contamination=0.1)[-1].offset_ == pipe[-1].offset_


def test_as_text_as_a_table_and_as_plain_values(tuned):
    values = json.loads(json.dumps(tuned.to_dict()))
    assert values["threshold"] == tuned.threshold and len(values["miss_rate_interval"]) == 2
    assert "image_digests" not in values and "costs" not in values
    text = repr(tuned)
    assert f"{tuned.n_missed} of 8" in text and "95% interval" in text
    assert "images missed" in tuned._repr_html_() and tuned._repr_html_().startswith("<table>")


def test_of_a_detector_without_a_threshold(tmp_path):
    class Darkness:
        def predict(self, image):
            return {"pred_score": 1 - image.mean() / 255, "anomaly_map": None}

    detector = AnomalibDetector(inferencer=Darkness())
    found = tune_threshold(detector, IMAGES, Y, prevalence=0.3, cost_miss=5)
    assert found.present_threshold is found.present_cost is None
    assert "threshold before" not in repr(found)
    moved = found.apply(detector)
    assert (moved.predict(IMAGES)[16:] == 1).sum() == found.n_missed


def test_of_a_union_of_tokens():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(30, 3, 3, 4)) + 2
    union = ScoreUnion([("a", PatchKNNScorer()), ("b", PatchKNNScorer(2))]).fit(tokens[:15])
    X = np.concatenate([tokens[15:], rng.normal(size=(5, 3, 3, 4)) - 1])
    found = tune_threshold(union, X, [1] * 15 + [-1] * 5, prevalence=0.1)
    assert found.image_digests == () and found.n_missed == 0
    assert "image_digests" not in found.apply(union).calibration_


# Never the training images, and never silently the test set


def test_training_images_are_told(pipe, tmp_path):
    with pytest.warns(UserWarning, match=r"2 of the images \(numbers 0, 1\) are training images"):
        tune_threshold(pipe, [*GOOD[:2], *BAD], [1, 1] + [-1] * 8, prevalence=0.1)
    with pytest.raises(ValueError, match=r"1 anomalous images \(number 1\) entered the model"):
        tune_threshold(pipe, [LATER[0], GOOD[3], BAD[0]], [1, -1, -1], prevalence=0.1)
    # Also from files, and not those that y left out of the model.
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path, image in zip(paths, [*GOOD[:8], *BAD[:4]], strict=True):
        Image.fromarray(image).save(path)
    fitted = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    fitted.fit(paths, [1] * 8 + [-1] * 4)
    tune_threshold(fitted, [*LATER, *paths[8:]], [1] * 16 + [-1] * 4, prevalence=0.1)
    with pytest.warns(UserWarning, match=r"numbers 0, 1, 2, 3, 4, \.\.\."):
        tune_threshold(fitted, paths, [1] * 8 + [-1] * 4, prevalence=0.1)


def test_images_that_it_was_tuned_on_are_known_again(pipe, tuned, tmp_path, recwarn):
    moved = tuned.apply(pipe)
    warn_if_tuned_on(pipe, IMAGES)
    warn_if_tuned_on(moved, GOOD)
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"3 of 5 images \(numbers 2, 3, 4\) are images that the"):
        warn_if_tuned_on(pickle.loads(pickle.dumps(moved)), [*GOOD[:2], *BAD[:3]])
    on_images = recalibrate(pipe, images=LATER)
    with pytest.warns(UserWarning, match=r"1 of 2 images \(number 1\)"):
        warn_if_tuned_on(on_images, [GOOD[0], LATER[0]])
    with pytest.warns(UserWarning, match="16 of 24"):  # still those behind its p-values
        warn_if_tuned_on(recalibrate(on_images, threshold=-1), IMAGES)


# What is refused


@pytest.mark.parametrize(
    "y, message",
    [
        ([1] * 24, r"24 normal \(\+1\) and 0 anomalous .* recalibrate\(estimator, images=images\)"),
        ([-1] * 24, "0 normal"),
        ([0] * 16 + [1] * 8, r"y must hold \+1 \(normal\) and -1"),
        ([True] * 24, "got bools"),
        (["good"] * 24, "got text"),
        ([1, -1], "2 labels, but there are 24 images"),
        (None, "y is None"),
    ],
)
def test_labels_that_are_none(pipe, y, message):
    with pytest.raises(ValueError, match=message):
        tune_threshold(pipe, IMAGES, y, prevalence=0.1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cost_miss": np.nan}, "cost_miss must be a finite number"),
        ({"cost_miss": 10**400}, "cost_miss must be a finite number"),
        ({"prevalence": 1}, "prevalence must be"),
        ({"confidence_level": 95}, r"confidence_level must lie in \(0, 1\), got 95"),
        ({"confidence_level": True}, "confidence_level must lie in"),
    ],
)
def test_numbers_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        tune_threshold(None, ["missing.png"], [1], **options)


def test_what_is_not_fitted():
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    with pytest.raises(NotFittedError):
        tune_threshold(pipe, IMAGES, Y, prevalence=0.1)


def test_the_level_of_an_interval_is_shown_as_it_is():
    X = np.random.default_rng(0).normal(size=(12, 2, 2, 4)) + 3
    scorer = PatchKNNScorer().fit(X)
    y = [1] * 8 + [-1] * 4
    for level, shown in ((0.95, " 95% "), (0.999, "99.9% "), (0.57, "57% ")):
        tuned = tune_threshold(scorer, X + 1, y, prevalence=0.1, confidence_level=level)
        assert shown in tuned.rows()[0][1].replace("(", " ")
