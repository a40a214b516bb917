"""Where tiles lie, and how their tokens become one grid."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skanomaly.core.tiling import join_tiles, tile_starts, tile_weights


@st.composite
def layouts(draw):
    tile = draw(st.integers(1, 12))
    return draw(st.integers(1, 60)), tile, draw(st.integers(0, tile - 1))


@given(layouts())
def test_tiles_cover_a_side_and_overlap_as_asked(layout):
    length, tile, overlap = layout
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] == max(0, length - tile)
    steps = [after - before for before, after in pairwise(starts)]
    assert all(0 < step <= tile - overlap for step in steps)
    assert max(steps, default=1) - min(steps, default=1) <= 1  # spread evenly
    assert len(steps) == -(-max(0, length - tile) // (tile - overlap))  # and no more than needed


@given(layouts(), st.sampled_from([0, 0.5, 1.0]))
def test_weights_of_a_place_sum_to_one(layout, fade):
    length, tile, overlap = layout
    starts = tile_starts(length, tile, overlap)
    total = np.zeros(max(length, tile))
    for start, (first, weights) in zip(starts, tile_weights(starts, tile, fade), strict=True):
        assert (weights > 0).all() and weights.dtype == np.float32
        assert first >= 0 and first + len(weights) <= tile
        total[start + first : start + first + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_weights_are_those_of_a_ramp_in_the_middle_of_the_overlap():
    (_, left), (first, right) = tile_weights([0, 8], 12, 0.5)  # 4 common places, 2 of them fade
    np.testing.assert_allclose(left, [*[1] * 9, 0.75, 0.25])
    assert first == 1
    np.testing.assert_allclose(right, [0.25, 0.75, *[1] * 9])


@pytest.mark.parametrize("fade", [0, 0.5, 1])
@pytest.mark.parametrize("size", [(5, 5), (5, 9), (13, 21), (6, 40)])
def test_tiles_of_one_grid_give_that_grid_back(size, fade):
    grid = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)
    starts = tuple(tile_starts(n, 5, 2) for n in size)
    tiles = (grid[y : y + 5, x : x + 5] for y in starts[0] for x in starts[1])
    np.testing.assert_allclose(join_tiles(tiles, starts, fade), grid, rtol=1e-6, atol=1e-6)


def test_a_place_that_one_tile_gives_is_that_of_the_tile_to_the_bit():
    rng = np.random.default_rng(0)
    tiles = [rng.normal(size=(8, 8, 3)).astype(np.float32) for _ in range(4)]
    joined = join_tiles(iter(tiles), ([0, 4], [0, 4]))
    np.testing.assert_array_equal(joined[:5, :5], tiles[0][:5, :5])
    np.testing.assert_array_equal(joined[7:, :5], tiles[2][3:, :5])


def test_masked_places_are_those_that_count():
    tiles = np.ones((2, 6, 6, 2), dtype=np.float32)
    tiles[0, 0, 5] = np.nan  # at the border of its tile, where the other tile alone counts
    tiles[0, 1, 3] = np.nan  # where both count
    joined = join_tiles(tiles, ([0], [0, 2]))
    assert np.argwhere(np.isnan(joined).all(-1)).tolist() == [[1, 3]]
    assert np.isfinite(np.delete(joined.reshape(-1, 2), 1 * 8 + 3, axis=0)).all()


def test_tiles_of_other_shapes_are_refused():
    tiles = [np.ones((4, 4, 2)), np.ones((4, 4, 3))]
    with pytest.raises(ValueError, match=r"shapes \(4, 4, 2\) and \(4, 4, 3\)"):
        join_tiles(tiles, ([0], [0, 3]))
