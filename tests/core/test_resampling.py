"""Tests of the arithmetic of resizing: Pillow and torch are the oracles, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skanomaly.core.resampling import (
    PILLOW_BITS,
    resample,
    resampling_weights,
    torch_bits,
    whole_weights,
)

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SIDES = st.integers(1, 90)


def noise(seed, n, extreme):
    random = np.random.default_rng(seed)
    levels = random.integers(0, 256, (3, n), dtype=np.uint8)
    return np.where(levels > 127, 255, 0).astype(np.uint8) if extreme else levels


@settings(deadline=None, max_examples=200)
@given(SIDES, SIDES, st.sampled_from(sorted(FILTERS)), st.integers(0, 2**32), st.booleans())
def test_lines_are_pillows_to_the_bit(n_in, n_out, interpolation, seed, extreme):
    lines = noise(seed, n_in, extreme)
    weights = whole_weights(resampling_weights(n_in, n_out, interpolation), PILLOW_BITS)
    expected = Image.fromarray(lines).resize((n_out, 3), FILTERS[interpolation])
    np.testing.assert_array_equal(resample(lines, weights, PILLOW_BITS, 1), np.array(expected))
    np.testing.assert_array_equal(resample(lines.T, weights, PILLOW_BITS, 0), np.array(expected).T)


@settings(deadline=None, max_examples=100)
@given(SIDES, SIDES, st.sampled_from(["bilinear", "bicubic"]), st.integers(0, 2**32))
def test_lines_are_torchs_to_the_bit(n_in, n_out, interpolation, seed):
    torch = pytest.importorskip("torch")
    lines = np.repeat(noise(seed, n_in, True)[:, None], 4, axis=1)  # as in columns of an image
    weights = resampling_weights(n_in, n_out, interpolation)
    bits = torch_bits(weights)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(lines)[None], size=(4, n_out), mode=interpolation, antialias=True
    )
    found = resample(lines, whole_weights(weights, bits), bits, 2)
    np.testing.assert_array_equal(found, expected[0].numpy())


def test_weights_sum_to_one_and_reach_no_further_than_the_filter():
    for n_in, n_out in ((1, 1), (7, 3), (3, 7), (100, 9)):
        for interpolation, support in (("bilinear", 1), ("bicubic", 2), ("lanczos", 3)):
            weights = resampling_weights(n_in, n_out, interpolation)
            np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
            most = 2 * support * max(1, n_in / n_out) + 1
            assert (weights != 0).sum(axis=1).max() <= most


def test_an_unknown_filter_is_named():
    with pytest.raises(ValueError, match="'area', not one of"):
        resampling_weights(4, 2, "area")
