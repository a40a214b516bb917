"""PatchCore's weights are what the formula says."""

import numpy as np
import pytest

from skanomaly.core.reweighting import highest_row, softmax_factor


def test_factor():
    query, neighbors = np.array([2.0, 1.0]), np.array([[5.0, 5.0], [8.0, 9.0], [2.0, 3.0]])
    expected = 1 - np.exp(5) / (np.exp(5) + np.exp(10) + np.exp(2))
    assert softmax_factor(query, neighbors) == pytest.approx(expected)
    assert softmax_factor(query, neighbors[:1]) == 1
    assert softmax_factor(1e30 * query, neighbors) == pytest.approx(2 / 3)  # no overflow


def test_of_equal_scores_the_first_component_that_differs_decides():
    values = np.array([[1.0, 0.0, 5.0], [0.0, 9.0, 7.0], [0.0, 9.0, 6.0]])
    assert highest_row(np.ones(3), values) == 2
    assert highest_row(np.ones(3), values[:, ::-1]) == 0


def test_of_equal_scores_the_order_of_patches_does_not_matter():
    rng = np.random.default_rng(0)
    scores, values = np.array([1.0, 3.0, 3.0, 2.0, 3.0]), rng.integers(0, 2, size=(5, 3)) * 1.0
    chosen = values[highest_row(scores, values)]
    for _ in range(10):
        order = rng.permutation(5)
        found = highest_row(scores[order], values[order])
        np.testing.assert_array_equal(values[order][found], chosen)
