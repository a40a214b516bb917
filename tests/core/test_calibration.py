"""Thresholds and p-values from held-out scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.core.calibration import (
    calibration_folds,
    conformal_p_values,
    contamination_offset,
    resting_on,
)

quick = settings(max_examples=50, deadline=None, derandomize=True)
finite = st.floats(-1e6, 1e6)


@given(train=st.lists(finite, min_size=1, max_size=40), contamination=st.floats(0.001, 0.5))
@quick
def test_offset_places_the_ith_score_at_i_in_n_plus_one(train, contamination):
    ordered, n = sorted(train), len(train)
    position = min(max(contamination * (n + 1), 1.0), float(n))  # counted from one
    below = int(position)
    above = min(below + 1, n)
    expected = ordered[below - 1] + (position - below) * (ordered[above - 1] - ordered[below - 1])
    result = contamination_offset(train, contamination)
    assert isinstance(result, float)
    assert result == pytest.approx(expected, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("n_train", [9, 19, 39, 99])
@pytest.mark.parametrize("contamination", [0.1, 0.2, 0.5])
def test_offset_flags_a_new_normal_image_as_often_as_it_says(n_train, contamination):
    rng = np.random.default_rng(0)
    n_trials = 4000
    scores = rng.standard_normal((n_trials, n_train + 1))
    flagged = [row[-1] < contamination_offset(row[:-1], contamination) for row in scores]
    deviation = np.sqrt(contamination * (1 - contamination) / n_trials)
    # Interpolation between two scores is not unbiased for a curved distribution: 0.5 points.
    assert abs(np.mean(flagged) - contamination) < 4 * deviation + 0.005


def test_few_scores_give_the_lowest():
    assert contamination_offset([-1.0, -5.0, -2.0], 0.1) == -5.0
    assert contamination_offset([-1.0], 0.5) == -1.0


@given(
    train=st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    scores=st.lists(st.integers(-6, 6), min_size=1, max_size=10),
)
@quick
def test_p_values_count_the_scores_at_least_as_anomalous(train, scores):
    expected = []
    for score in scores:
        as_anomalous = sum(1 for other in train if other <= score)
        expected.append((1 + as_anomalous) / (len(train) + 1))
    result = conformal_p_values(train, scores)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, expected)
    assert result.min() >= 1 / (len(train) + 1)
    assert result.max() <= 1


@given(
    train=st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=30),
    scores=st.lists(st.integers(-6, 6), min_size=1, max_size=10),
)
@quick
def test_p_values_count_each_group_once(train, scores):
    held_out, groups = [score for score, _ in train], [group for _, group in train]
    expected = []
    for score in scores:
        counted = 0.0
        for group in set(groups):
            members = [s for s, its in train if its == group]
            counted += sum(1 for s in members if s <= score) / len(members)
        expected.append((1 + counted) / (len(set(groups)) + 1))
    result = conformal_p_values(held_out, scores, groups)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert result.max() <= 1


@given(train=st.lists(finite, min_size=1, max_size=30), scores=st.lists(finite, min_size=2))
@quick
def test_a_more_anomalous_image_has_no_higher_p_value(train, scores):
    p_values = conformal_p_values(train, np.sort(scores))
    assert (np.diff(p_values) >= 0).all()


@pytest.mark.parametrize("n_train", [1, 9, 19, 50])
@pytest.mark.parametrize("tied", [False, True])
def test_p_values_are_super_uniform(n_train, tied):
    """P(p <= a) <= a for exchangeable scores, and no smaller than it must be without ties."""
    rng = np.random.default_rng(0)
    n_trials = 4000
    scores = rng.standard_normal((n_trials, n_train + 1))
    if tied:
        scores = np.round(scores)
    p_values = np.array([conformal_p_values(row[:-1], row[-1:])[0] for row in scores])
    for a in (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.0):
        share = np.mean(p_values <= a)
        deviation = np.sqrt(a * (1 - a) / n_trials)
        assert share <= a + 4 * deviation
        if not tied:
            attainable = np.floor(a * (n_train + 1) + 1e-9) / (n_train + 1)
            assert share >= attainable - 4 * deviation


@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0])  # within a group, in units of that between
def test_p_values_of_groups_are_super_uniform(spread):
    """For an image of a new group, which those of images alone are not."""
    rng = np.random.default_rng(0)
    n_trials, sizes = 4000, [10, 10, 1, 4, 6]
    groups = np.repeat(np.arange(5), sizes)
    grouped, alone = [], []
    for _ in range(n_trials):
        parts = rng.standard_normal(6)
        train = parts[groups] + spread * rng.standard_normal(len(groups))
        new = parts[5:] + spread * rng.standard_normal(1)
        grouped.append(conformal_p_values(train, new, groups)[0])
        alone.append(conformal_p_values(train, new)[0])
    for a in (0.05, 0.17, 0.2, 0.35, 0.5, 0.8):
        assert np.mean(np.array(grouped) <= a) <= a + 4 * np.sqrt(a * (1 - a) / n_trials)
    if spread < 1:
        assert np.mean(np.array(alone) <= 0.05) > 0.1


@given(n_images=st.integers(2, 200), n_folds=st.integers(2, 20))
@quick
def test_folds_are_balanced(n_images, n_folds):
    folds = calibration_folds(range(n_images), n_folds)
    assert folds.shape == (n_images,)
    sizes = np.bincount(folds)
    assert len(sizes) == min(n_images, n_folds)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(folds) >= 0).all()  # neighbours, often nearly the same image, together


@given(groups=st.lists(st.integers(0, 20), min_size=2, max_size=100), n_folds=st.integers(2, 20))
@quick
def test_folds_hold_whole_groups(groups, n_folds):
    n_groups = len(set(groups))
    folds = calibration_folds(groups, n_folds)
    held = [set(np.array(groups)[folds == fold]) for fold in range(max(folds) + 1)]
    assert len(held) == min(n_groups, n_folds)
    assert sum(map(len, held)) == n_groups
    assert max(map(len, held)) - min(map(len, held)) <= 1


def quantile_by_hand(ordered, share):
    """Of sorted numbers, interpolated as NumPy does it."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def resting_by_hand(scores, threshold):
    scores, n = sorted(scores), len(scores)
    low = sum(score <= threshold for score in scores)
    if n < 10 or not low:
        return 0
    for below in range(low, n):
        if below > n / 5:
            return 0
        others = scores[below:]
        quartiles = quantile_by_hand(others, 0.75) - quantile_by_hand(others, 0.25)
        spread = max(quartiles, quantile_by_hand(others, 0.5) - others[0])
        gap = others[0] - max(threshold, scores[below - 1])
        if spread > 0 and gap > 2.5 * (1 + 10 / n) * spread:
            return below
    return 0


@given(
    usual=st.lists(st.integers(-8, 0), min_size=1, max_size=40),
    low=st.lists(st.integers(-900, -20), max_size=4),
    contamination=st.sampled_from([0.02, 0.05, 0.1, 0.2]),
)
@quick
def test_thresholds_that_rest_on_few_scores(usual, low, contamination):
    scores = [*usual, *low]
    threshold = contamination_offset(scores, contamination)
    assert resting_on(scores, threshold) == resting_by_hand(scores, threshold)


# Held-out scores of real photographs, each with one unusual part, and their share.
ONE_FAR = [
    ([-2.79, *[-0.88] * 2, -0.86, -0.85, -0.83, -0.8, *[-0.77] * 3, *[-0.7] * 6, -0.68, -0.67]
     + [*[-0.64] * 3, -0.63, *[-0.62] * 4, -0.6, -0.59, -0.17, -0.11], 0.05),
    ([-4.18, -1.89, -1.75, -1.74, -1.72, -1.72, -1.67, -1.66, -1.65, -1.6], 0.1),
]  # fmt: skip


@pytest.mark.parametrize("scores, contamination", ONE_FAR)
def test_a_threshold_in_a_gap_rests_on_the_image_below(scores, contamination):
    assert resting_on(scores, contamination_offset(scores, contamination)) == 1
    assert resting_on(scores[1:], contamination_offset(scores[1:], contamination)) == 0
    # Where more may be flagged, the threshold lies among the others.
    assert resting_on(scores, contamination_offset(scores, 0.3)) == 0


def test_a_threshold_between_two_outliers_rests_on_both():
    usual = -np.linspace(0.6, 1.5, 29)
    for second in (-3.8, -4.19):
        scores = [-4.2, second, *usual]
        for contamination in (0.02, 0.05):
            assert resting_on(scores, contamination_offset(scores, contamination)) == 2
    assert resting_on([-np.inf, *usual], -5.0) == 0


def test_equal_scores_tell_nothing_of_what_is_far():
    assert resting_on([-5.0] + [0.0] * 20, -5.0) == 0
    assert resting_on([-5.0] * 20, -5.0) == 0


@pytest.mark.parametrize("n", [10, 20, 31, 50, 100])
@pytest.mark.parametrize("contamination", [0.05, 0.1])
def test_samples_without_an_outlier_are_hardly_ever_said_to_have_one(n, contamination):
    """Long tails too: there the lowest score is far from the others by nature."""
    rng = np.random.default_rng(0)
    n_trials = 400
    samples = {
        "normal": (rng.standard_normal((n_trials, n)), 0.01),
        "Laplace": (rng.laplace(size=(n_trials, n)), 0.03),
        "exponential": (-rng.exponential(size=(n_trials, n)), 0.05),
        "log-normal": (-rng.lognormal(sigma=0.5, size=(n_trials, n)), 0.04),
        "long log-normal": (-rng.lognormal(sigma=1, size=(n_trials, n)), 0.1),
    }
    for name, (trials, most) in samples.items():
        thresholds = [contamination_offset(scores, contamination) for scores in trials]
        found = [resting_on(*pair) > 0 for pair in zip(trials, thresholds, strict=True)]
        assert np.mean(found) <= most, name
