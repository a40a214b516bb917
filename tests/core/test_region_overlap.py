"""Shares of cells that masks and polygons cover, against areas in plain loops."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skanomaly.core.region_overlap import Region, overlap_with_cells

GRIDS = [(1, 1), (2, 3), (7, 4), (9, 5)]


def area_of_mask(mask, grid):
    """Areas of pixels cut by cells, one by one."""
    (height, width), (rows, columns) = mask.shape, grid
    out = np.zeros(grid)
    for i in range(rows):
        for j in range(columns):
            top, bottom = i * height / rows, (i + 1) * height / rows
            left, right = j * width / columns, (j + 1) * width / columns
            for y, x in zip(*np.nonzero(mask), strict=True):
                high = max(0.0, min(bottom, y + 1) - max(top, y))
                wide = max(0.0, min(right, x + 1) - max(left, x))
                out[i, j] += high * wide
    return out * rows * columns / (height * width)


@settings(deadline=None, max_examples=40)  # loops in Python
@given(
    hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))),
    st.sampled_from(GRIDS),
)
def test_masks_by_area(mask, grid):
    found = overlap_with_cells(Region.of_mask(mask), grid)
    np.testing.assert_allclose(found, area_of_mask(mask, grid), atol=1e-9)


def clipped_area(polygon, box):
    """Area of a convex polygon within a box, by Sutherland and Hodgman's clipping."""
    left, top, right, bottom = box
    for axis, sign, limit in ((0, 1, left), (0, -1, right), (1, 1, top), (1, -1, bottom)):
        out = []
        for a, b in zip(polygon, [*polygon[1:], *polygon[:1]], strict=True):
            inside = [sign * (p[axis] - limit) >= 0 for p in (a, b)]
            if inside[0]:
                out.append(a)
            if inside[0] != inside[1]:
                t = (limit - a[axis]) / (b[axis] - a[axis])
                out.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
        polygon = out
        if not polygon:
            return 0.0
    pairs = zip(polygon, [*polygon[1:], *polygon[:1]], strict=True)
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2


@settings(deadline=None, max_examples=40)  # loops in Python
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=3),
    st.sampled_from(GRIDS),
)
def test_triangles_by_clipping(triangle, grid):
    found = overlap_with_cells(Region(polygons=(np.array(triangle),)), grid)
    rows, columns = grid
    expected = [
        [
            clipped_area(triangle, (j / columns, i / rows, (j + 1) / columns, (i + 1) / rows))
            * rows
            * columns
            for j in range(columns)
        ]
        for i in range(rows)
    ]
    # Three edges, each of which is half a point off at most along 32 rows.
    np.testing.assert_allclose(found, expected, atol=3 / 32)


def test_polygons_together_and_across_themselves():
    square = np.array([[0, 0], [0.5, 0], [0.5, 0.5], [0, 0.5]])
    both = Region(polygons=(square, square + [0.25, 0.0]))
    np.testing.assert_array_equal(overlap_with_cells(both, (2, 4)), [[1, 1, 1, 0], [0, 0, 0, 0]])
    bow = np.array([[0, 0], [1, 1], [1, 0], [0, 1]])
    assert overlap_with_cells(Region(polygons=(bow,)), (1, 1))[0, 0] == pytest.approx(0.5, abs=0.04)
    whole = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    for vertices in (whole, whole[::-1], np.roll(whole, 1, axis=0)):
        assert (overlap_with_cells(Region(polygons=(vertices,)), (5, 3)) == 1).all()


def test_digests_tell_regions_apart():
    mask = np.eye(3, dtype=bool)
    corner = np.array([[0.0, 0], [1, 0], [0, 1]])
    regions = [
        Region.of_mask(mask),
        Region.of_mask(np.pad(mask, ((0, 0), (0, 1)))),
        Region.of_mask(~mask),
        Region(polygons=(corner,)),
        Region(polygons=(corner, corner)),
    ]
    assert len({region.digest() for region in regions}) == len(regions)
    assert Region.of_mask(mask).digest() == regions[0].digest()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_the_same(copied):
    region = Region.of_mask(np.tri(5, 9, dtype=bool))
    expected = overlap_with_cells(region, (3, 3))
    made = copied(region)
    assert made.digest() == region.digest()
    np.testing.assert_array_equal(overlap_with_cells(made, (3, 3)), expected)
