"""From a grid of patch scores to a heat map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from skanomaly.core.maps import upsample_map

quick = settings(max_examples=30, deadline=None, derandomize=True)
side = st.integers(1, 9)
pixels = st.integers(1, 40)
sigmas = st.sampled_from([0, 0.3, 1.0, 4.0, 11.5])

CASES = [
    ((1, 1), (1, 1)),
    ((1, 1), (7, 4)),
    ((1, 6), (5, 31)),
    ((6, 1), (31, 5)),
    ((3, 5), (48, 80)),
    ((7, 7), (7, 7)),
    ((16, 16), (224, 224)),
    ((5, 9), (33, 20)),
    ((20, 30), (7, 11)),  # smaller than the grid
    ((9, 4), (1, 50)),
    ((2, 3), (61, 47)),
]


def random_grid(shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def bilinear(grid, size):
    """Bilinear interpolation pixel by pixel, float64: ``align_corners=False``, no antialias."""
    grid = np.asarray(grid, dtype=np.float64)
    rows, columns = grid.shape
    out = np.empty(size)
    for i in range(size[0]):
        y = min(max((i + 0.5) * rows / size[0] - 0.5, 0.0), rows - 1.0)
        top = int(y)
        bottom, down = min(top + 1, rows - 1), y - top
        for j in range(size[1]):
            x = min(max((j + 0.5) * columns / size[1] - 0.5, 0.0), columns - 1.0)
            left = int(x)
            right, across = min(left + 1, columns - 1), x - left
            upper = (1 - across) * grid[top, left] + across * grid[top, right]
            lower = (1 - across) * grid[bottom, left] + across * grid[bottom, right]
            out[i, j] = (1 - down) * upper + down * lower
    return out


@pytest.mark.parametrize("sigma", [0, 1, 20.0])
@pytest.mark.parametrize("shape, size", CASES)
def test_equals_interpolation_and_scipy(shape, size, sigma):
    grid = random_grid(shape)
    expected = bilinear(grid, size)
    if sigma:
        expected = gaussian_filter(expected, sigma, mode="reflect", truncate=4.0)
    result = upsample_map(grid, size, sigma=sigma)
    assert result.shape == size
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape, size", CASES)
def test_equals_torch(shape, size):
    torch = pytest.importorskip("torch")
    grid = random_grid(shape, seed=1)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(grid)[None, None].double(), size=size, mode="bilinear", align_corners=False
    )
    result = upsample_map(grid, size, sigma=0)
    np.testing.assert_allclose(result, expected[0, 0].numpy(), rtol=1e-5, atol=1e-6)


def test_blurs_four_pixels_by_default():
    grid = random_grid((4, 4))
    np.testing.assert_array_equal(
        upsample_map(grid, (64, 64)), upsample_map(grid, (64, 64), sigma=4.0)
    )


@given(rows=side, columns=side, height=pixels, width=pixels, sigma=sigmas, value=st.floats(0, 1e6))
@quick
def test_a_constant_stays_that_constant(rows, columns, height, width, sigma, value):
    result = upsample_map(np.full((rows, columns), value), (height, width), sigma=sigma)
    np.testing.assert_array_equal(result, np.full((height, width), np.float32(value)))


@given(
    rows=side, columns=side, height=pixels, width=pixels, sigma=sigmas, seed=st.integers(0, 1000)
)
@quick
def test_within_the_range_of_the_grid(rows, columns, height, width, sigma, seed):
    grid = random_grid((rows, columns), seed)
    result = upsample_map(grid, (height, width), sigma=sigma)
    assert result.shape == (height, width)
    assert grid.min() <= result.min()
    assert result.max() <= grid.max()


@given(
    rows=side, columns=side, height=pixels, width=pixels, sigma=sigmas, seed=st.integers(0, 1000)
)
@quick
def test_linear(rows, columns, height, width, sigma, seed):
    a, b = random_grid((rows, columns), seed), random_grid((rows, columns), seed + 1)
    size = (height, width)
    expected = 2 * upsample_map(a, size, sigma) - 0.5 * upsample_map(b, size, sigma)
    np.testing.assert_allclose(upsample_map(2 * a - 0.5 * b, size, sigma), expected, atol=1e-5)


@given(
    rows=side, columns=side, height=pixels, width=pixels, sigma=sigmas, seed=st.integers(0, 1000)
)
@quick
def test_flips_and_transposes_with_the_grid(rows, columns, height, width, sigma, seed):
    grid = random_grid((rows, columns), seed)
    result = upsample_map(grid, (height, width), sigma)
    for axis in (0, 1):
        flipped = upsample_map(np.flip(grid, axis), (height, width), sigma)
        np.testing.assert_allclose(flipped, np.flip(result, axis), atol=1e-6)
    np.testing.assert_allclose(upsample_map(grid.T, (width, height), sigma), result.T, atol=1e-6)


def test_a_peak_stays_where_its_patch_is():
    grid = np.zeros((8, 6))
    grid[5, 1] = 1
    result = upsample_map(grid, (80, 60), sigma=3)
    peak = np.argwhere(result == result.max())
    assert (abs(peak - [54.5, 14.5]) <= 0.5).all()  # the centre of the patch's cell


@pytest.mark.parametrize("grid", [[1.0, 2.0], np.zeros((2, 2, 2)), np.zeros((0, 3)), 3.0])
def test_not_a_grid(grid):
    with pytest.raises(ValueError, match="non-empty 2-D grid"):
        upsample_map(grid, (4, 4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        upsample_map([[0.0, bad]], (4, 4))


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4)])
def test_no_pixel(size):
    with pytest.raises(ValueError, match="at least one pixel"):
        upsample_map([[0.0, 1.0]], size)


@pytest.mark.parametrize("sigma", [-1, np.nan])
def test_invalid_sigma(sigma):
    with pytest.raises(ValueError, match="sigma must be >= 0"):
        upsample_map([[0.0, 1.0]], (4, 4), sigma=sigma)
