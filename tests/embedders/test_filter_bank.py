"""Tests of FilterBankPatches; tests/core/test_filter_bank_core.py has those of the features."""

import numpy as np
import pytest
from _adapters import assert_same, random_image, random_images

from skanomaly import FilterBankPatches
from skanomaly._images import resize_image
from skanomaly.core.filter_bank import filter_bank_features


@pytest.mark.parametrize("image_size, grid", [(8, 1), (16, 2), (40, 5), (256, 32), (None, 32)])
def test_shape(image_size, grid):
    tokens = FilterBankPatches(image_size=image_size).transform(random_images((70, 90)))
    assert (tokens.dtype, tokens.shape) == (np.float32, (1, grid, grid, 102))


def test_the_default_size_is_that_of_none():
    X = random_images((70, 90))
    default = FilterBankPatches().transform(X)
    assert_same(default, FilterBankPatches(image_size=None).transform(X))


@pytest.mark.parametrize(
    "resize, size, expected",
    [
        ("squash", (50, 130), (32, 32)),
        ("shortest_edge", (50, 130), (32, 80)),
        ("shortest_edge", (130, 50), (80, 32)),
        ("shortest_edge", (50, 55), (32, 32)),
        ("shortest_edge", (32, 48), (32, 48)),
    ],
)
def test_tokens_are_the_features_of_the_resized_image(resize, size, expected):
    image = random_image(*size)
    tokens = FilterBankPatches(image_size=32, resize=resize).transform([image])
    assert_same(tokens[0], filter_bank_features(resize_image(image, expected), 8))


def test_deterministic():
    X = random_images((64, 64), (64, 64), (64, 64))
    first = FilterBankPatches(image_size=64).transform(X)
    for parameters in ({}, {"n_jobs": 2}, {"batch_size": 1}, {"batch_size": 2, "n_jobs": -1}):
        assert_same(FilterBankPatches(image_size=64, **parameters).transform(X), first)


@pytest.mark.parametrize("row, column", [(0, 0), (0, 7), (3, 5), (6, 2), (7, 7)])
def test_a_scratch_changes_the_tokens_near_it_most(row, column):
    image = random_image(64, 64)
    scratched = image.copy()
    scratched[8 * row + 3 : 8 * row + 5, 8 * column : 8 * column + 8] = 255
    before, after = FilterBankPatches(image_size=64).transform([image, scratched])
    change = np.linalg.norm(after - before, axis=-1)
    assert np.unravel_index(change.argmax(), change.shape) == (row, column)
    rows, columns = np.indices(change.shape)
    far = np.maximum(abs(rows - row), abs(columns - column)) > 4
    assert change[far].max() < 0.1 * change.max()


@pytest.mark.parametrize("augmentation", ["rotate90", "dihedral"])
def test_colour_and_contrast_turn_with_the_view(augmentation):
    """The first 18 channels have no direction: those of a view are those of the image, turned."""
    embedder = FilterBankPatches(image_size=64, augmentation=augmentation)
    views = embedder.fit_transform(random_images((64, 64)))[0, ..., :18]
    for k in range(4):
        np.testing.assert_allclose(views[k], np.rot90(views[0], k), atol=1e-3)


def test_an_image_too_long_is_refused():
    images = [np.zeros((40, 40, 3), np.uint8), np.zeros((1, 2000, 3), np.uint8)]
    embedder = FilterBankPatches(image_size=64, resize="shortest_edge")
    with pytest.raises(ValueError, match=r"image 1 of \(1, 2000\) pixels .* 8192 is the most"):
        embedder.transform(images)
