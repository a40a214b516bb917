import math

import numpy as np
import pytest
from _views import rotated
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skanomaly.core.views import (
    MOST_PIXELS,
    VIEWS,
    View,
    place_before,
    rotate_image,
    shrunk_size,
    views_of,
)


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("angle", [0, 45, 90, 135, 180, 225, 270, 315, 30, -12.5, 400])
@pytest.mark.parametrize("size", [(12, 17), (16, 16), (1, 9), (9, 1), (1, 1), (2, 30)])
def test_rotations_are_the_published_ones(size, angle):
    image = random_image(*size)
    expected = rotated(image.astype(float), angle)
    found = rotate_image(image, angle)
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.floor(expected + 0.5))
    deep = rotate_image((image / 255).astype(np.float32), angle)
    assert deep.dtype == np.float32
    np.testing.assert_allclose(deep, expected / 255, atol=1e-6)


def test_rotations_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    image = np.asarray(Image.fromarray(random_image(9, 12)).resize((90, 70)))
    for angle in range(0, 360, 45):
        matrix = cv2.getRotationMatrix2D((45, 35), angle, 1.0)
        expected = cv2.warpAffine(
            image, matrix, (90, 70), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_DEFAULT
        )
        # Versions differ in how places between pixels are rounded.
        difference = np.abs(rotate_image(image, angle).astype(int) - expected)
        assert difference.max() <= (0 if angle % 90 == 0 else 4)
        assert difference.mean() < 0.3


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    angle=st.floats(-720, 720),
    level=st.integers(0, 255),
)
@settings(deadline=None, max_examples=50)
def test_a_constant_stays_and_nothing_leaves_the_range(size, angle, level):
    constant = np.full((*size, 3), level, dtype=np.uint8)
    np.testing.assert_array_equal(rotate_image(constant, angle), constant)
    deep = np.full((*size, 3), level / 255, dtype=np.float32)
    np.testing.assert_allclose(rotate_image(deep, angle), deep, atol=1e-6)
    image = random_image(*size, seed=level)
    found = rotate_image(image, angle)
    assert found.shape == image.shape
    assert image.min() <= found.min() and found.max() <= image.max()


def test_rows_are_computed_some_at_a_time_without_a_seam():
    image = random_image(200, 21)
    np.testing.assert_array_equal(
        rotate_image(image, 33), np.floor(rotated(image.astype(float), 33) + 0.5)
    )


def test_views_by_name():
    assert views_of(None) == [View()]
    assert [view.angle for view in views_of("rotate45")] == [45 * k for k in range(8)]
    assert [view.quarters for view in views_of("rotate90")] == [0, 1, 2, 3]
    assert len(views_of("dihedral")) == 8 and views_of("dihedral")[:4] == views_of("rotate90")
    assert [v.brightness for v in views_of("brightness")] == [1, 0.8, 0.9, 1.1, 1.2]
    for name in VIEWS:
        views = views_of(name)
        assert views[0] == View() and views[0].name is None
        assert len(set(views)) == len(views) == len({view.name for view in views})


def test_a_list_is_the_union_of_its_views():
    assert views_of((0, 45, 405, -315, 360.0)) == [View(), View(angle=45.0)]
    assert views_of([5, -5]) == [View(), View(angle=5.0), View(angle=355.0)]
    assert views_of(["rotate45"]) == views_of("rotate45")
    both = views_of(["brightness", "rotate45", 90, 10])
    assert both == [*views_of("brightness"), *views_of("rotate45")[1:], View(angle=10.0)]
    assert views_of([np.float64(30), np.int64(30)]) == [View(), View(angle=30.0)]


@pytest.mark.parametrize(
    "augmentation",
    [
        "flip",
        45,
        [],
        (),
        [None],
        ["flip"],
        [True],
        [float("nan")],
        [math.inf],
        [[45]],
        {45},
        ["45"],
    ],
)
def test_what_names_no_view(augmentation):
    with pytest.raises(ValueError, match="a list of these and of angles in degrees. Got"):
        views_of(augmentation)


def test_brightness():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    for factor in (0.8, 0.9, 1.1, 1.2):
        view = View(brightness=factor)
        found = view.after(image)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, np.minimum(np.rint(image * factor), 255))
        deep = view.after((image / 255).astype(np.float32))
        assert deep.dtype == np.float32 and deep.max() <= 1
        np.testing.assert_allclose(deep, np.minimum(image / 255 * factor, 1), atol=1e-6)


def test_quarters():
    image = random_image(5, 5)
    for k in range(4):
        np.testing.assert_array_equal(View(quarters=k).after(image), np.rot90(image, k))
        mirrored = View(quarters=k, mirrored=True).after(image)
        np.testing.assert_array_equal(mirrored, np.rot90(image[:, ::-1], k))


@pytest.mark.parametrize("view", [*VIEWS["dihedral"], *VIEWS["brightness"]], ids=lambda v: v.name)
def test_places_of_quarters_are_turned_back(view):
    numbers = np.arange(36).reshape(6, 6)
    turned = View(quarters=view.quarters, mirrored=view.mirrored).after(numbers)
    for row in range(6):
        for column in range(6):
            assert numbers[place_before(view, row, column, (6, 6))] == turned[row, column]


@pytest.mark.parametrize("angle", [45, 90, 135, 180, 225, 270, 315, 20, 341])
@pytest.mark.parametrize(
    "size, grid", [((96, 96), (6, 6)), ((96, 144), (4, 9)), ((80, 48), (5, 3))]
)
def test_places_of_any_angle_are_turned_back(size, grid, angle):
    """The pixel at the centre of a place comes from within the patch that is named."""
    rows, columns = np.indices(size)
    image = np.stack([rows, columns, rows * 0], axis=2).astype(np.uint8)
    turned = rotate_image(image, angle)
    for row in range(grid[0]):
        for column in range(grid[1]):
            y = (2 * row + 1) * size[0] // (2 * grid[0])
            x = (2 * column + 1) * size[1] // (2 * grid[1])
            before = place_before(View(angle=float(angle)), row, column, grid, size)
            source = turned[y, x, :2] + 0.5
            for place, at, cells, pixels in zip(before, source, grid, size, strict=True):
                assert 0 <= place < cells
                # Half a pixel lies between the centre and that pixel, and rounding.
                assert place * pixels / cells - 2 <= at <= (place + 1) * pixels / cells + 2


def test_places_without_a_size_are_those_of_square_patches():
    view = View(angle=45.0)
    for row in range(4):
        for column in range(9):
            of_pixels = place_before(view, row, column, (4, 9), (64, 144))
            assert place_before(view, row, column, (4, 9)) == of_pixels


@given(height=st.integers(1, 30_000), width=st.integers(1, 30_000), side=st.integers(1, 4000))
@settings(deadline=None)
def test_what_is_turned_is_bounded(height, width, side):
    found = shrunk_size((height, width), (side, side))
    most = max(MOST_PIXELS, 4 * side * side)
    assert found == (height, width) or height * width > most
    assert found[0] * found[1] <= max(most, height, width)
    assert 1 <= found[0] <= height and 1 <= found[1] <= width
