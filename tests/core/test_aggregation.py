"""From patch scores to the image score."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.core.aggregation import aggregate_patch_scores

quick = settings(max_examples=50, deadline=None, derandomize=True)
scores_of_an_image = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)
ways = st.one_of(
    st.tuples(st.sampled_from(["max", "mean"]), st.just(0.01)),
    st.tuples(st.just("topk_mean"), st.one_of(st.floats(0.001, 1), st.just(1))),
    st.tuples(st.floats(0, 1), st.just(0.01)),
)


@pytest.mark.parametrize("n_patches", [1, 3, 99, 100, 101])
@pytest.mark.parametrize("topk", [0.001, 0.01, 0.29, 1.0, 1])
def test_topk_mean(n_patches, topk):
    scores = np.random.default_rng(n_patches).random(n_patches)
    count = topk if isinstance(topk, int) else max(1, int(topk * n_patches))
    expected = math.fsum(sorted(scores.tolist(), reverse=True)[:count]) / count
    assert aggregate_patch_scores(scores, topk=topk) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("topk", [1, 2, 7, 10, np.int64(3)])
def test_topk_mean_of_a_count(topk):
    scores = [3.0, 9.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0]
    expected = sum(sorted(scores)[len(scores) - topk :]) / topk
    assert aggregate_patch_scores(scores, topk=topk) == pytest.approx(expected, rel=1e-12)


def test_one_is_a_count_and_one_point_nought_a_share():
    assert aggregate_patch_scores([1.0, 2.0, 6.0], topk=1) == 6
    assert aggregate_patch_scores([1.0, 2.0, 6.0], topk=1.0) == 3


def test_the_default_is_the_top_percent():
    scores = np.arange(300.0)
    assert aggregate_patch_scores(scores) == 298


@given(scores=scores_of_an_image, quantile=st.floats(0, 1))
@quick
def test_quantile(scores, quantile):
    result = aggregate_patch_scores(scores, aggregation=quantile)
    assert result == pytest.approx(np.quantile(scores, quantile), rel=1e-12)


@pytest.mark.parametrize("aggregation, expected", [(0, 1.0), (1, 8.0), (0.5, 3.0)])
def test_quantiles_at_the_ends_and_the_median(aggregation, expected):
    assert aggregate_patch_scores([8.0, 1.0, 3.0], aggregation=aggregation) == expected


def test_max_and_mean():
    scores = np.array([0.5, 4.0, 1.5], dtype=np.float32)
    assert aggregate_patch_scores(scores, aggregation="max") == 4
    assert aggregate_patch_scores(scores, aggregation="mean") == 2


@given(scores=scores_of_an_image, way=ways, random=st.randoms(use_true_random=False))
@quick
def test_order_of_the_patches_changes_nothing(scores, way, random):
    aggregation, topk = way
    shuffled = list(scores)
    random.shuffle(shuffled)
    # Not even in the last bit: the scores of an image must not depend on its form.
    expected = aggregate_patch_scores(scores, aggregation, topk)
    assert aggregate_patch_scores(shuffled, aggregation, topk) == expected


@given(scores=scores_of_an_image, way=ways)
@quick
def test_between_the_lowest_and_the_highest_score(scores, way):
    result = aggregate_patch_scores(scores, *way)
    assert isinstance(result, float)
    # Half a unit in the last place for each addition of the mean.
    assert min(scores) * (1 - 1e-14) <= result <= max(scores) * (1 + 1e-14)


@given(scores=scores_of_an_image, way=ways, raised=st.integers(0, 59), by=st.floats(0, 1e6))
@quick
def test_a_higher_patch_score_never_lowers_the_image_score(scores, way, raised, by):
    higher = list(scores)
    higher[raised % len(scores)] += by
    before = aggregate_patch_scores(scores, *way)
    assert aggregate_patch_scores(higher, *way) >= before * (1 - 1e-14)


def test_the_scores_are_left_as_they_are():
    scores = np.array([3.0, 1.0, 2.0])
    aggregate_patch_scores(scores)
    np.testing.assert_array_equal(scores, [3.0, 1.0, 2.0])


@pytest.mark.parametrize("aggregation", ["topk_mean", "max", "mean", 0.5])
def test_no_score(aggregation):
    with pytest.raises(ValueError, match="every patch is masked"):
        aggregate_patch_scores([], aggregation=aggregation)


def test_more_than_there_are():
    with pytest.raises(ValueError, match="topk=4 is more than the 3 patches"):
        aggregate_patch_scores([1.0, 2.0, 3.0], topk=4)


@pytest.mark.parametrize("aggregation", ["median", "topk", None])
def test_unknown_aggregation(aggregation):
    with pytest.raises(ValueError, match=f"aggregation must be .* got {aggregation!r}"):
        aggregate_patch_scores([1.0], aggregation=aggregation)


@pytest.mark.parametrize("aggregation", [-0.1, 1.1])
def test_quantile_out_of_range(aggregation):
    with pytest.raises(ValueError):
        aggregate_patch_scores([1.0, 2.0], aggregation=aggregation)
