"""Tests of resizing in a graph: what the embedders call is the oracle, to the bit."""

import numpy as np
import pytest
from _graphs import function_of
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly._images import resize_image
from skanomaly.deployment import _resizing
from skanomaly.deployment._resizing import passes, resized
from skanomaly.deployment._resizing_any import resized_of_any_size

FILTERS = ("bilinear", "bicubic", "lanczos")
SIDES = st.integers(1, 100)


def by_pillow(interpolation):
    return lambda image, size: resize_image(image, size, interpolation)


def by_torch(interpolation):
    pytest.importorskip("torch")
    from skanomaly.embedders._resize import fast_resize

    return lambda image, size: fast_resize(image.copy(), size, interpolation, "a test")


def noise(seed, size, n_images=1):
    """Of every level, and of the extremes alone, which overshoot most."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n_images, *size, 3), dtype=np.uint8)
    images[::2] = np.where(images[::2] > 127, 255, 0)
    return images


def graph_for(size, new_size, interpolation, resize):
    def write(graph, image):
        return resized(graph, image, size, new_size, interpolation, resize)

    return function_of(write, ("image", np.uint8, ["batch", *size, 3]))


def assert_equal(found, images, new_size, resize):
    expected = np.stack([resize(image, new_size) for image in images])
    np.testing.assert_array_equal(found, expected.transpose(0, 3, 1, 2))


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(FILTERS), st.integers(0, 2**32))
def test_pixels_are_pillows_to_the_bit(height, width, new_height, new_width, name, seed):
    size, new_size, resize = (height, width), (new_height, new_width), by_pillow(name)
    images = noise(seed, size, 3)
    assert_equal(graph_for(size, new_size, name, resize)(images), images, new_size, resize)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "size, new_size",
    [((64, 64), (32, 32)), ((97, 130), (28, 42)), ((300, 900), (14, 14)), ((200, 60), (32, 32))],
)
def test_pixels_are_those_of_the_networks_of_torch(name, size, new_size):
    resize = by_torch(name)
    images = noise(0, size, 4)
    assert_equal(graph_for(size, new_size, name, resize)(images), images, new_size, resize)


@pytest.mark.parametrize("size", [(1, 1), (1, 57), (57, 1), (700, 900), (256, 256)])
@pytest.mark.parametrize("n_images", [1, 3])
def test_sizes_at_the_edge(size, n_images):
    resize = by_pillow("bicubic")
    images = np.concatenate([noise(1, size, n_images), np.zeros((1, *size, 3), dtype=np.uint8)])
    images[0, :, : size[1] // 2] = 255
    found = graph_for(size, (256, 256), "bicubic", resize)(images)
    assert_equal(found, images, (256, 256), resize)


def test_weights_are_split_so_that_no_sum_is_rounded():
    one = passes((1, 9000), (1, 40), "lanczos", by_pillow("lanczos"))[0]
    high = np.round(one.weights / 2**_resizing.LOW_BITS)
    low = one.weights - high * 2**_resizing.LOW_BITS
    assert 255 * np.abs(high).sum(axis=1).max() < 2**24
    assert 255 * np.abs(low).sum(axis=1).max() < 2**24


def test_more_than_a_graph_can_sum_is_refused():
    with pytest.raises(ValueError, match="resized to 1, by more than .* raise image_size"):
        graph_for((1, 9000), (1, 1), "lanczos", by_pillow("lanczos"))


def test_another_way_to_resize_is_refused():
    def nearest(image, size):
        return image[: size[0], : size[1]]

    with pytest.raises(ValueError, match="neither Pillow's nor torch's"):
        passes((30, 40), (8, 8), "bicubic", nearest)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("new_size", [(64, 64), (15, 40)])
def test_any_size_that_is_no_higher_than_wide_is_equal_to_the_bit(name, new_size):
    for torchs, resize in ((False, by_pillow(name)), (True, by_torch(name))):
        found = function_of(
            lambda graph, image, torchs=torchs: resized_of_any_size(
                graph, image, new_size, name, torchs
            ),
            ("image", np.uint8, ["batch", "height", "width", 3]),
        )
        random = np.random.default_rng(0)
        sizes = [sorted(random.integers(1, 300, 2).tolist()) for _ in range(20)]
        for size in [*sizes, (1, 1), new_size, (1, 400), (400, 401)]:
            images = noise(sum(size), size, 2)
            assert_equal(found(images), images, new_size, resize)


def test_a_filter_that_any_size_does_not_have_is_refused():
    with pytest.raises(ValueError, match="'lanczos'.*fixed size"):
        function_of(
            lambda graph, image: resized_of_any_size(graph, image, (8, 8), "lanczos", False),
            ("image", np.uint8, ["batch", "height", "width", 3]),
        )
