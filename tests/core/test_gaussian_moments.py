"""Moments by position: those of the parts are those of the whole, and give the same Gaussians."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.core.gaussian import fit_gaussians, fit_shared_gaussian
from skanomaly.core.gaussian_moments import GaussianMoments, join_moments

quick = settings(max_examples=40, deadline=None, derandomize=True)


def make(n, n_positions, dim, seed=0, masked=0.1, offset=0.0):
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((n, n_positions, dim)) * rng.uniform(0.1, 10, dim) + offset
    tokens += rng.standard_normal((n_positions, dim))
    valid = rng.uniform(size=(n, n_positions)) >= masked
    tokens[~valid] = np.nan
    return tokens.astype(np.float32), valid


def moments_of(tokens, valid):
    out = GaussianMoments(*tokens.shape[1:])
    out.add(tokens, valid)
    return out


def check_moments(found, tokens, valid):
    """Against plain loops in float64."""
    for p in range(tokens.shape[1]):
        x = tokens[valid[:, p], p].astype(np.float64)
        assert found.count[p] == len(x)
        if not len(x):
            assert not found.scatter[p].any() and not found.mean[p].any()
            continue
        mean = x.mean(axis=0)
        scatter = sum(np.outer(row - mean, row - mean) for row in x)
        scale = np.abs(scatter).max() + 1e-9 * np.square(x).max()
        np.testing.assert_allclose(found.mean[p], mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.scatter[p], scatter, rtol=0, atol=1e-9 * scale)


@quick
@given(
    st.integers(1, 8),
    st.integers(1, 5),
    st.integers(1, 5),
    st.lists(st.integers(0, 8), max_size=3),
    st.sampled_from([0.0, 0.5, 0.95]),
    st.sampled_from([0.0, 100.0]),
)
def test_moments_of_parts_are_those_of_the_whole(n, n_positions, dim, cuts, masked, offset):
    tokens, valid = make(n, n_positions, dim, masked=masked, offset=offset)
    parts = zip(np.split(tokens, np.sort(cuts)), np.split(valid, np.sort(cuts)), strict=True)
    parts = [moments_of(*part) for part in parts]
    check_moments(join_moments(parts), tokens, valid)
    check_moments(join_moments(parts[::-1]), tokens, valid)
    one_by_one = GaussianMoments(n_positions, dim)
    for image, of_image in zip(tokens, valid, strict=True):
        one_by_one.add(image[None], of_image[None])
    check_moments(one_by_one, tokens, valid)


def test_joining_leaves_the_parts_as_they_are():
    one, two = (moments_of(*make(5, 3, 4, seed)) for seed in (1, 2))
    before = one.scatter.copy(), two.scatter.copy()
    join_moments([one, two])
    np.testing.assert_array_equal(one.scatter, before[0])
    np.testing.assert_array_equal(two.scatter, before[1])


def whitened(gaussian, tokens):
    x = (tokens.astype(np.float64) - gaussian.mean) / gaussian.scale
    return np.einsum("npd,pde->npe", x, gaussian.whitening.astype(np.float64))


def check_gaussians(found, expected, tokens):
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.scale, expected.scale, rtol=1e-6)
    one, two = (np.square(whitened(g, tokens)).sum(axis=2) for g in (found, expected))
    np.testing.assert_allclose(one, two, rtol=2e-6)


@pytest.mark.parametrize("neighborhood", [1, 3])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_gaussians_are_those_of_the_tokens(neighborhood, shrinkage, offset):
    tokens, valid = make(30, 12, 6, masked=0.2, offset=offset)
    valid[:, 5] = False  # a position that is masked in all images
    args = (3, 4), shrinkage, 0.1, neighborhood
    expected = fit_gaussians(np.where(valid[..., None], tokens, 0), valid, *args)
    check_gaussians(moments_of(tokens, valid).gaussians(*args), expected, np.nan_to_num(tokens))


def test_the_shared_gaussian_is_that_of_the_tokens():
    tokens, valid = make(300, 1, 6, masked=0.2, offset=3.0)
    expected = fit_shared_gaussian(np.nan_to_num(tokens[:, 0]), valid[:, 0], 0.1)
    found = moments_of(tokens, valid).shared_gaussian(0.1)
    check_gaussians(found, expected, np.nan_to_num(tokens))


def test_tokens_that_do_not_vary_are_refused():
    moments = moments_of(np.ones((4, 2, 3), dtype=np.float32), np.ones((4, 2), dtype=bool))
    with pytest.raises(ValueError, match="do not vary"):
        moments.gaussians((1, 2), 0.0, 0.1)
