"""Outlines of regions as polygons: what they enclose is the region, by every rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from skanomaly.core.outlines import outline_polygon

quick = settings(max_examples=300, deadline=None, derandomize=True)


def crossings(polygon, x, y):
    """How often a ray to the right crosses a polygon: number, and winding."""
    number = winding = 0
    for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (y0 > y) != (y1 > y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) > x:
            number += 1
            winding += 1 if y1 > y0 else -1
    return number, winding


def filled(polygon, shape):
    """The pixels whose centres a polygon encloses, by the even-odd and by the nonzero rule."""
    found = np.zeros((2, *shape), dtype=bool)
    for row, column in np.ndindex(shape):
        number, winding = crossings(polygon, column + 0.5, row + 0.5)
        found[:, row, column] = number % 2 == 1, winding != 0
    return found


def connected(rows):
    """The largest 8-connected region of a mask."""
    labels, n = ndimage.label(np.array(rows), structure=np.ones((3, 3)))
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]) if n else labels > 0


masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.lists(
        st.lists(st.sampled_from([True, True, False]), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)


@quick
@given(masks)
def test_a_polygon_encloses_its_region(rows):
    mask = connected(rows)
    if not mask.any():
        return
    polygon = outline_polygon(mask)
    for found in filled(polygon, mask.shape):
        assert np.array_equal(found, mask)
    closed = [*polygon, polygon[0]]
    for before, point in zip(closed, closed[1:], strict=False):
        assert (before[0] == point[0]) != (before[1] == point[1])  # along edges of pixels, and on


@pytest.mark.parametrize(
    "rows",
    [
        ["#"],
        ["###", "#.#", "###"],  # a hole
        ["#.", ".#"],  # a corner
        [".#.", "#.#", ".#."],  # corners around a hole
        ["#####", "#.#.#", "#####", "#.#.#", "#####"],
        ["####", "#.##", "##.#", "####"],  # two holes that touch
        ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#..#..#", "#######"],
        ["..##", "##..", "..##"],
    ],
)
def test_holes_and_corners(rows):
    mask = np.array([[c == "#" for c in row] for row in rows])
    for found in filled(outline_polygon(mask), mask.shape):
        assert np.array_equal(found, mask)


def test_large_regions():
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(400, 500)), 3) > -0.02
    mask = connected(mask)
    polygon = np.array(outline_polygon(mask), dtype=np.float64)
    x, y = polygon.T
    area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
    assert area == np.count_nonzero(mask)


def test_what_is_no_region():
    with pytest.raises(ValueError, match="with a region"):
        outline_polygon(np.zeros((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="several regions"):
        outline_polygon(np.array([[True, False, True]]))
