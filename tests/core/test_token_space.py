"""Tokens with appended places: half their squared distance is the cosine one and the price."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly._faults import is_of_an_image
from skanomaly.core.token_space import TokenSpace, places_in_grids

quick = settings(max_examples=40, deadline=None, derandomize=True)


@given(
    seed=st.integers(0, 1000),
    weight=st.sampled_from([0.0, 0.1, 3.0]),
    metric=st.sampled_from(["cosine", "euclidean"]),
    zero=st.booleans(),
)
@quick
def test_distances(seed, weight, metric, zero):
    rng = np.random.default_rng(seed)
    values, places = rng.normal(size=(6, 9)), rng.uniform(size=(6, 2))
    values[:2] *= not zero
    space = TokenSpace(2, 7, metric, weight)
    prepared = space.prepare(values, places=places)
    assert prepared.flags["C_CONTIGUOUS"] and prepared.dtype == values.dtype
    part = values[:, 2:7]
    for i, j in np.ndindex(6, 6):
        far = np.sum((weight * (places[i] - places[j])) ** 2)
        one, other = part[i], part[j]
        if metric == "euclidean":
            expected = np.sqrt(np.sum((one - other) ** 2) + far)
        elif one.any() and other.any():
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            expected = 1 - cosine + far / 2
        else:
            expected = float(one.any() or other.any()) + far / 2
        gap = np.linalg.norm(prepared[i] - prepared[j])
        if weight:
            assert space.search_metric == "euclidean"
            assert space.distances(gap) == pytest.approx(expected, abs=1e-12)
        elif metric == "euclidean" or (one.any() and other.any()):
            assert space.search_metric == metric
            found = gap if metric == "euclidean" else gap**2 / 2
            assert found == pytest.approx(expected, abs=1e-12)


def test_rows_and_lazy_rows():
    rng = np.random.default_rng(0)
    values, places = rng.normal(size=(8, 6)).astype(np.float32), rng.uniform(size=(8, 2))
    rows = np.array([5, 1, 7])
    for weight in (0.0, 2.0):
        space = TokenSpace(0, 4, "cosine", weight)
        expected = space.prepare(values, places=places)[rows]
        np.testing.assert_array_equal(space.prepare(values, rows, places), expected)
        np.testing.assert_array_equal(space.lazy(values, rows, places)[:], expected)


def test_places_of_views_and_of_patches_without_a_grid():
    one = places_in_grids([(2, 2)])
    np.testing.assert_array_equal(one, [[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(places_in_grids([(2, 2), ()], 2)[:8], np.tile(one, (2, 1)))
    np.testing.assert_array_equal(places_in_grids([(4,)], flat_grid=(2, 2)), one)
    with pytest.raises(ValueError, match="image 1 has 3 patches without a grid"):
        places_in_grids([(2, 2), (3,)], flat_grid=(2, 2))
    with pytest.raises(ValueError, match="image 6 has 3 patches without a grid") as raised:
        places_in_grids([(2, 2), (3,)], first=5)
    assert is_of_an_image(raised.value)
