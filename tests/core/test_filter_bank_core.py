"""Descriptor of the filter bank: geometry, symmetries, degenerate images and a slow oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from skanomaly.core import filter_bank
from skanomaly.core.filter_bank import (
    filter_bank_features,
    filter_bank_names,
    pooling_matrix,
)

DIM = 102
MEANS = slice(0, 9)
LUMA_EDGES = slice(18, 26)  # of the finest level
LEVEL = 28  # channels per level


def textured(height, width, seed=0):
    """Smooth random colours plus noise, uint8."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (3, 3, 0))
    image = 0.5 + smooth + 0.05 * rng.normal(size=(height, width, 3))
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def uncalibrated(channels, name):
    centre, scale = filter_bank.CALIBRATION[name]
    return channels.astype(float) * scale + centre


@pytest.mark.parametrize("stride", [1, 8, 100])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (8, 8), (61, 47)])
def test_shape_dtype_and_finite(size, stride):
    tokens = filter_bank_features(textured(*size), stride=stride)
    assert tokens.shape == (-(-size[0] // stride), -(-size[1] // stride), DIM)
    assert tokens.dtype == np.float32
    assert tokens.flags.c_contiguous
    assert np.isfinite(tokens).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.float32, np.float64]),
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)),
        elements=st.sampled_from([0, 1]),
        fill=st.just(0),
    ),
    st.integers(1, 9),
)
def test_degenerate_images_have_finite_tokens_that_are_not_zero(image, stride):
    scaled = image * 255 if image.dtype == np.uint8 else image * 0.7
    tokens = filter_bank_features(scaled.astype(image.dtype), stride=stride)
    assert np.isfinite(tokens).all()
    assert np.linalg.norm(tokens, axis=-1).min() > 1


def test_deterministic_and_input_untouched():
    image = textured(64, 48)
    before = image.copy()
    first = filter_bank_features(image)
    np.testing.assert_array_equal(filter_bank_features(image), first)
    np.testing.assert_array_equal(image, before)


def test_uint8_and_float_agree_whatever_the_memory_layout():
    image = textured(64, 48)
    expected = filter_bank_features(image)
    for same in (image / 255, (image / 255).astype(np.float32), np.asfortranarray(image)):
        np.testing.assert_allclose(filter_bank_features(same), expected, atol=2e-3)


@pytest.mark.parametrize("colour", [(0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 30, 60)])
@pytest.mark.parametrize("size", [(64, 64), (50, 31), (3, 9)])
def test_constant_image_gives_constant_grid_without_energy(colour, size):
    tokens = filter_bank_features(np.full((*size, 3), colour, dtype=np.uint8))
    np.testing.assert_allclose(tokens, np.broadcast_to(tokens[0, 0], tokens.shape), atol=1e-2)
    edges = uncalibrated(tokens[..., LUMA_EDGES], "luma edges")
    np.testing.assert_allclose(edges, 0, atol=1e-3)
    red, green, blue = np.array(colour) / 255
    np.testing.assert_allclose(
        uncalibrated(tokens[..., 0], "luma"), (red + green + blue) / 3, atol=1e-5
    )
    np.testing.assert_allclose(uncalibrated(tokens[..., 1], "chroma"), red - green, atol=1e-5)


@pytest.mark.parametrize("grey", [1, 37, 200, 255])
def test_flat_part_of_an_image_has_no_contrast(grey):
    """None at all: a fourth root would make a tenth of the scale of what rounding leaves."""
    image = np.random.default_rng(grey).integers(0, 256, (64, 512, 3), dtype=np.uint8)
    image[:, 96:] = grey
    tokens = filter_bank_features(image)
    flat = tokens[:, (96 + 12 * 12) // 8 :]  # twelve standard deviations of the widest window
    names = filter_bank_names()
    assert len(flat[0]) > 8
    for name, tail in (("luma contrast", "luma"), ("chroma contrast", "red-green")):
        centre, scale = filter_bank.CALIBRATION[name]
        nothing = np.float32(-np.float32(centre) / np.float32(scale))
        channels = [i for i, n in enumerate(names) if n.startswith(f"contrast of {tail}")]
        assert len(channels) == 3
        assert (flat[..., channels] == nothing).all()


def test_constant_colours_differ():
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255), (90, 90, 90)]
    tokens = [filter_bank_features(np.full((16, 16, 3), c, np.uint8))[0, 0] for c in colours]
    unit = np.array([token / np.linalg.norm(token) for token in tokens])
    cosine = unit @ unit.T - np.eye(len(colours))
    assert cosine.max() < 0.999


@pytest.mark.parametrize("corner", [(0, 0), (0, 63), (63, 0), (63, 63), (0, 30), (30, 63)])
def test_defect_at_the_border_changes_the_cell_at_the_border(corner):
    image = textured(64, 64)
    changed = image.copy()
    row, column = (slice(max(i - 1, 0), i + 2) for i in corner)
    changed[row, column] = np.where(image[row, column] < 128, 255, 0)
    difference = np.abs(filter_bank_features(changed) - filter_bank_features(image)).max(-1)
    assert np.unravel_index(difference.argmax(), (8, 8)) == (corner[0] // 8, corner[1] // 8)
    assert difference.max() > 1


def test_borders_are_not_anomalous():
    rng = np.random.default_rng(0)
    noise = np.stack(
        [filter_bank_features(rng.uniform(size=(64, 64, 3)).astype(np.float32)) for _ in range(8)]
    )
    mean, std = noise.mean((0, 1, 2)), noise.std((0, 1, 2))
    distance = (((noise - mean) / std) ** 2).mean(-1)
    border = np.ones((8, 8), dtype=bool)
    border[1:-1, 1:-1] = False
    # Half of a window at the border is a reflection: more spread, but no systematic response.
    assert distance[:, border].mean() < 3 * distance[:, ~border].mean()


def test_cells_are_where_they_should_be():
    # 60 rows in 8 cells of 7.5 pixels, 100 columns in 13.
    image = np.zeros((60, 100, 3), dtype=np.float32)
    for i, j in [(2, 3), (6, 11)]:
        spot = image.copy()
        spot[int((i + 0.5) * 60 / 8), int((j + 0.5) * 100 / 13)] = 1
        tokens = filter_bank_features(spot)
        # One direction alone answers beside the spot; their sum is centred on it.
        sums = [tokens[..., MEANS], tokens[..., 9:18]]
        sums += [tokens[..., 18 + LEVEL * level :][..., :LEVEL] for level in range(3)]
        for channels in sums:
            total = channels.sum(-1)
            assert np.unravel_index(total.argmax(), total.shape) == (i, j)


def test_shift_by_one_stride_shifts_the_interior():
    image = textured(200, 200)
    tokens = filter_bank_features(image)
    shifted = filter_bank_features(image[8:, 8:])
    # Five cells at the border: the widest window reaches 36 pixels.
    np.testing.assert_allclose(tokens[6:-5, 6:-5], shifted[5:-5, 5:-5], atol=5e-3)


def test_rotation_by_180_degrees_swaps_opposite_edges():
    image = textured(64, 96)
    tokens = filter_bank_features(image)
    rotated = filter_bank_features(image[::-1, ::-1])[::-1, ::-1]
    order = np.arange(DIM)
    for level in range(3):
        luma = 18 + LEVEL * level
        order[luma : luma + 8] = luma + (np.arange(8) + 4) % 8
        for chroma in (luma + 8, luma + 12):
            order[chroma : chroma + 4] = chroma + (np.arange(4) + 2) % 4
    np.testing.assert_allclose(rotated, tokens[..., order], atol=5e-3)


def test_transposition_mirrors_the_directions():
    image = textured(64, 96)
    tokens = filter_bank_features(image)[..., LUMA_EDGES]
    transposed = filter_bank_features(image.transpose(1, 0, 2))[..., LUMA_EDGES]
    order = (2 - np.arange(8)) % 8
    np.testing.assert_allclose(transposed.transpose(1, 0, 2), tokens[..., order], atol=5e-3)


@pytest.mark.parametrize("direction", range(8))
def test_edges_answer_to_their_direction(direction):
    angle = np.pi / 4 * direction
    y, x = np.mgrid[-31.5:32, -31.5:32]
    step = 1 / (1 + np.exp(-(x * np.cos(angle) + y * np.sin(angle))))
    tokens = filter_bank_features(np.repeat(step[..., None], 3, axis=2))
    edges = tokens[3:5, 3:5, LUMA_EDGES]
    assert (edges.argmax(-1) == direction).all()


def slow_pooling(square, n_rows, n_columns, sigma):
    """Gaussian means of a (h, w) map around cell centres, one cell at a time, in float64."""
    height, width = square.shape
    reach = 40
    padded = np.pad(square, reach, mode="symmetric")
    y = np.arange(-reach, height + reach)
    x = np.arange(-reach, width + reach)
    out = np.empty((n_rows, n_columns))
    for i in range(n_rows):
        for j in range(n_columns):
            wy = np.exp(-((y - ((i + 0.5) * height / n_rows - 0.5)) ** 2) / (2 * sigma**2))
            wx = np.exp(-((x - ((j + 0.5) * width / n_columns - 0.5)) ** 2) / (2 * sigma**2))
            out[i, j] = wy @ padded @ wx / (wy.sum() * wx.sum())
    return out


@pytest.mark.parametrize("size", [(64, 48), (45, 70)])
def test_finest_level_against_dense_filters_in_float64(size):
    image = textured(*size)
    tokens = filter_bank_features(image)
    red, green, blue = np.moveaxis(image / 255, 2, 0)
    luma, chroma = (red + green + blue) / 3, (red + green) / 2 - blue
    smooth = np.array([1, 4, 6, 4, 1]) / 16
    first = np.array([-1, -2, 0, 2, 1]) / 8
    second = np.array([1, 0, -2, 0, 1]) / 4
    sigma = filter_bank.ENERGY_WINDOWS[0]

    def filtered(plane, kernel_y, kernel_x):
        return ndimage.correlate(plane, np.outer(kernel_y, kernel_x), mode="reflect")

    def channel(response):
        square = slow_pooling(np.maximum(response, 0) ** 2, *tokens.shape[:2], sigma)
        return square**0.25

    def assert_channel(index, name, response):
        actual = uncalibrated(tokens[..., index], name)
        np.testing.assert_allclose(actual, channel(response), rtol=5e-3, atol=1e-4)

    d_x, d_y = filtered(luma, smooth, first), filtered(luma, first, smooth)
    for k in range(8):
        angle = 2 * np.pi * k / 8
        assert_channel(18 + k, "luma edges", np.cos(angle) * d_x + np.sin(angle) * d_y)
    assert_channel(30, "chroma edges", filtered(chroma, smooth, first))
    d_xx, d_yy = filtered(luma, smooth, second), filtered(luma, second, smooth)
    d_xy = filtered(luma, first, first)
    assert_channel(34, "luma lines", d_xx)
    assert_channel(35, "luma lines", d_xx / 2 + d_xy + d_yy / 2)
    assert_channel(40, "luma lines", -d_yy)
    laplacian = filtered(chroma, smooth, second) + filtered(chroma, second, smooth)
    assert_channel(43, "chroma blobs", laplacian)
    assert_channel(45, "chroma blobs", -laplacian)
    mean = slow_pooling(luma, *tokens.shape[:2], 3.0)
    np.testing.assert_allclose(uncalibrated(tokens[..., 0], "luma"), mean, rtol=2e-3)
    deviation = np.sqrt(slow_pooling(luma**2, *tokens.shape[:2], 3.0) - mean**2)
    actual = uncalibrated(tokens[..., 9], "luma contrast")
    np.testing.assert_allclose(actual, np.sqrt(deviation), rtol=1e-2)


def test_derivatives_approximate_those_of_a_gaussian():
    image = textured(96, 96)
    luma = image.mean(axis=2) / 255
    response = ndimage.gaussian_filter(luma, 1.0, order=(0, 1))
    square = slow_pooling(np.maximum(response, 0) ** 2, 12, 12, filter_bank.ENERGY_WINDOWS[0])
    actual = uncalibrated(filter_bank_features(image)[..., 18], "luma edges")
    np.testing.assert_allclose(actual, square**0.25, rtol=0.1)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8)),
        np.zeros((8, 8, 4)),
        np.zeros((0, 8, 3)),
        np.zeros((8, 8, 3), dtype=np.int64),
    ],
)
def test_rejects_what_is_not_an_image(image):
    with pytest.raises(ValueError, match="image must"):
        filter_bank_features(image)


@pytest.mark.parametrize("window, level", [(5.0, 0), (6.0, 1), (8.0, 2), (3.0, 0), (12.0, 0)])
def test_windows_have_no_tails_that_processors_are_slow_at(window, level):
    """Products with weights near the end of float32 made an image take six times as long."""
    weights = pooling_matrix(256 >> level, 256, 32, window, level)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    smallest = np.float32(1e-3) ** 2  # the square of a faint response
    assert weights[weights > 0].min() * smallest > np.finfo(np.float32).tiny


def test_rejects_stride_below_one():
    with pytest.raises(ValueError, match="stride"):
        filter_bank_features(np.zeros((8, 8, 3)), stride=0)


def _named_channels(image):
    """The channels in the middle of an image, without their calibration's offsets."""
    flat = np.full_like(image, image.mean())
    features = filter_bank_features(image) - filter_bank_features(flat)
    return dict(zip(filter_bank_names(), features[8, 8].tolist(), strict=True))


def _highest(channels, words):
    """Of the names with some words, the one whose channel is highest."""
    return max((name for name in channels if words in name), key=channels.get)


def test_names_say_what_channels_are():
    names = filter_bank_names()
    assert len(names) == len(set(names)) == 102
    y, x = np.mgrid[-64:64, -64:64] + 0.5
    grey = np.full((128, 128, 3), 0.5)
    directions = {
        "to the right": (1, 0),
        "to the lower right": (1, 1),
        "downwards": (0, 1),
        "to the lower left": (-1, 1),
        "to the left": (-1, 0),
        "to the upper left": (-1, -1),
        "upwards": (0, -1),
        "to the upper right": (1, -1),
    }
    planes = {"luma": (1, 1, 1), "red-green": (1, -1, 0), "yellow-blue": (0.5, 0.5, -1)}
    for plane, colour in planes.items():
        for way, (right, down) in directions.items():
            if plane != "luma" and right and down:
                continue  # these have four directions
            ramp = np.tanh((right * x + down * y) / np.hypot(right, down) / 2)
            channels = _named_channels(grey + 0.2 * ramp[..., None] * np.array(colour))
            for scale in ("1 px", "2 px"):
                found = _highest(channels, f"{plane} edge of {scale}")
                assert found.endswith(way), (plane, way, found)
    ways = {"vertical": (1, 0), "rising": (1, 1), "horizontal": (0, 1), "falling": (1, -1)}
    for way, (right, down) in ways.items():
        line = np.exp(-(((right * x + down * y) / np.hypot(right, down) / 2) ** 2))
        for tone, sign in {"dark": -1, "bright": 1}.items():
            channels = _named_channels(grey + 0.3 * sign * line[..., None])
            assert _highest(channels, "line of 2 px") == f"{tone} line of 2 px, {way}"
    spot = np.exp(-(x**2 + y**2) / 8)[..., None]
    tints = {"redder": (1, -1, 0), "greener": (-1, 1, 0), "yellower": (1, 1, -2)}
    for tone, colour in {**tints, "bluer": (-1, -1, 2)}.items():
        channels = _named_channels(grey + 0.2 * spot * np.array(colour))
        assert _highest(channels, "spot of 2 px") == f"{tone} spot of 2 px"
