"""The expected cost of thresholds, by counting at every threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.metrics import expected_cost_curve
from skanomaly.metrics._costs import cheapest, thresholds_of
from skanomaly.metrics._validation import threshold_between

few_scores = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=12).filter(
    lambda pairs: len({bad for _, bad in pairs}) == 2
)


def counted(y, scores, threshold, cost_miss, cost_false_alarm, prevalence):
    """Cost and rates at one threshold, image by image."""
    missed = flagged = bad = good = 0
    for label, score in zip(y, scores, strict=True):
        if label == -1:
            bad += 1
            missed += not score < threshold
        else:
            good += 1
            flagged += score < threshold
    share = bad / len(y) if prevalence is None else prevalence
    cost = share * cost_miss * missed / bad + (1 - share) * cost_false_alarm * flagged / good
    return cost, missed / bad, flagged / good


@settings(deadline=None)
@given(
    few_scores,
    st.floats(0.1, 100),
    st.floats(0.1, 100),
    st.one_of(st.none(), st.floats(0.001, 0.999)),
)
def test_cost_and_rates_are_those_counted(pairs, cost_miss, cost_false_alarm, prevalence):
    y = [-1 if bad else 1 for _, bad in pairs]
    scores = [score / 2 for score, _ in pairs]
    options = {"cost_miss": cost_miss, "cost_false_alarm": cost_false_alarm}
    curve = expected_cost_curve(y, scores, **options, prevalence=prevalence)
    for threshold, *found in zip(*curve, strict=True):
        expected = counted(y, scores, threshold, cost_miss, cost_false_alarm, prevalence)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    # No threshold at all, of any value, is cheaper.
    everywhere = np.linspace(-2, 2, 33)
    costs = [counted(y, scores, t, cost_miss, cost_false_alarm, prevalence)[0] for t in everywhere]
    assert curve[1].min() <= min(costs) + 1e-12
    assert (np.diff(curve[0]) > 0).all()
    assert (curve[2][0], curve[3][0], curve[2][-1], curve[3][-1]) == (1, 0, 0, 1)
    assert (np.diff(curve[2]) <= 0).all() and (np.diff(curve[3]) >= 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_thresholds_part_scores_in_their_own_precision(dtype):
    levels = np.array([1, 1 + np.finfo(dtype).eps, 2, 3], dtype=dtype)
    thresholds = thresholds_of(levels.astype(np.float64), dtype)
    pairs = zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True)
    assert thresholds[1:-1].tolist() == [threshold_between(*pair, dtype) for pair in pairs]
    for i, threshold in enumerate(thresholds):
        assert (levels < dtype(threshold)).sum() == i


def test_rates_are_those_of_the_roc_curve_of_scikit_learn():
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(0)
    y = rng.choice([-1, 1], 200)
    scores = np.round(rng.normal(size=200) + y, 1)
    _, _, missed, false_alarms = expected_cost_curve(y, scores)
    expected, recall, _ = roc_curve(y == -1, -scores, drop_intermediate=False)
    np.testing.assert_allclose(false_alarms, expected)
    np.testing.assert_allclose(1 - missed, recall)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cost_miss": np.nan}, "cost_miss must be a finite number of at least 0, got nan"),
        ({"cost_miss": -1}, "cost_miss must be"),
        ({"cost_false_alarm": np.inf}, "cost_false_alarm must be"),
        ({"cost_false_alarm": True}, "cost_false_alarm must be"),
        ({"cost_miss": "1"}, "cost_miss must be"),
        ({"cost_miss": 0, "cost_false_alarm": 0}, "are both 0"),
        ({"prevalence": 0}, r"prevalence must be the share .* in \(0, 1\), got 0"),
        ({"prevalence": 1.0}, "prevalence must be"),
        ({"prevalence": 5}, "prevalence must be"),
        ({"prevalence": np.nan}, "prevalence must be"),
        ({"prevalence": True}, "prevalence must be"),
    ],
)
def test_costs_and_shares_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        expected_cost_curve([1, -1], [0.0, -1.0], **options)


@pytest.mark.parametrize(
    "y, scores, message",
    [
        ([1, 1], [0, 1], "only normal ones"),
        ([-1, -1], [0, 1], "only anomalous ones"),
        ([0, 1], [0, 1], r"\+1 \(normal\) and -1"),
        ([1, -1], [0, np.nan], "NaN or infinity"),
        ([1, -1], [0, 1, 2], "inconsistent numbers of samples"),
    ],
)
def test_images_without_a_cost_are_refused(y, scores, message):
    with pytest.raises(ValueError, match=message):
        expected_cost_curve(y, np.asarray(scores, dtype=float))


@pytest.mark.parametrize("cost_miss", [1.0, 1e6, 1e12, 1e15])
def test_the_cheapest_is_so_at_any_ratio_of_costs(cost_miss):
    """Half of the good images need not be flagged for a defect that costs ever so much."""
    y, scores = [1] * 5 + [-1] * 5, np.arange(10.0)[::-1]
    _, cost, miss_rate, false_alarm_rate = expected_cost_curve(
        y, scores, cost_miss=cost_miss, prevalence=0.5
    )
    best = cheapest(cost)
    assert (cost[best], miss_rate[best], false_alarm_rate[best]) == (0, 0, 0)
    y, scores = [*y, -1], [*scores, 9.5]  # one that no threshold tells from good images
    _, cost, miss_rate, false_alarm_rate = expected_cost_curve(
        y, scores, cost_miss=1, cost_false_alarm=cost_miss, prevalence=0.5
    )
    assert false_alarm_rate[cheapest(cost)] == 0 and cost[cheapest(cost)] == cost.min()
