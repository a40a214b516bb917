"""The first principal component, and AnomalyDINO's rule of what is foreground."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.decomposition import PCA

from skanomaly.core.foreground import first_component, foreground_of


@pytest.mark.parametrize("shape", [(40, 6), (9, 30), (5, 5), (3, 1)])
@pytest.mark.parametrize("scale", [1e-20, 1, 1e30])
def test_the_component_is_that_of_scikit_learn(shape, scale):
    for seed in range(5):
        tokens = np.random.default_rng(seed).normal(size=shape) * scale + 3 * scale
        expected = PCA(1, svd_solver="full").fit_transform(tokens / scale)[:, 0]
        found = first_component(tokens)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found / scale, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("value", [0, 1.5, 3e38, -1e308])
def test_equal_tokens_have_no_component(value):
    found = first_component(np.full((6, 4), value))
    np.testing.assert_allclose(found / max(abs(value), 1), 0, atol=1e-12)


def test_nothing_overflows():
    tokens = np.full((6, 4), 3e38, dtype=np.float32)
    tokens[0] *= -1
    assert np.isfinite(first_component(tokens)).all()
    assert np.isfinite(first_component(tokens.astype(np.float64) * 1e268)).all()


def neighbourhood(grid, row, column):
    """Values of the 3 x 3 places around one, without those beyond the grid."""
    height, width = grid.shape
    return [
        grid[i, j]
        for i in range(max(row - 1, 0), min(row + 2, height))
        for j in range(max(column - 1, 0), min(column + 2, width))
    ]


def everywhere(function, grid):
    """OpenCV's dilation and erosion: beyond the grid there is nothing."""
    height, width = grid.shape
    return np.array(
        [[function(neighbourhood(grid, i, j)) for j in range(width)] for i in range(height)]
    )


def published(component, threshold, border):
    """The rule in loops: sign by the centre, dilation, closing."""
    height, width = component.shape
    inside = [
        component[i, j] > threshold
        for i in range(int(height * border), int(height * (1 - border)))
        for j in range(int(width * border), int(width * (1 - border)))
    ]
    sign = -1 if sum(inside) <= len(inside) * 0.35 else 1
    found = sign * component > threshold
    return everywhere(all, everywhere(any, everywhere(any, found)))


grids = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 9), st.integers(2, 9)),
    elements=st.sampled_from([-20.0, -10.0, 0.0, 10.0, 20.0]),
)


@settings(deadline=None)  # loops in Python
@given(grids, st.sampled_from([0.0, 5.0, 10.0]), st.sampled_from([0.0, 0.2, 0.3]))
def test_the_rule_is_the_published_one(component, threshold, border):
    found = foreground_of(component, np.ones(component.shape, dtype=bool), threshold, border)
    np.testing.assert_array_equal(found, published(component, threshold, border))


@settings(deadline=None)  # loops in Python
@given(grids, st.integers(0, 1000))
def test_masked_patches_are_no_foreground_and_do_not_count(component, seed):
    valid = np.random.default_rng(seed).uniform(size=component.shape) < 0.7
    found = foreground_of(component, valid, 5, 0.2)
    assert not (found & ~valid).any()
    again = foreground_of(np.where(valid, component, 1e9), valid, 5, 0.2)
    np.testing.assert_array_equal(found, again)


def test_a_narrow_grid_has_a_centre():
    component = np.array([[20.0, 20, 20, -20]])
    for grid in (component, component.T):
        found = foreground_of(grid, np.ones(grid.shape, dtype=bool), 10, 0.2)
        assert found.sum() == 4  # 3, and what dilation adds
