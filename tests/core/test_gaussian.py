"""Gaussian models of patches against plain float64 loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skanomaly.core.gaussian import (
    choose_components,
    fit_gaussians,
    fit_shared_gaussian,
    mahalanobis,
    reduce_components,
)
from skanomaly.core.products import exact_product, rounded_for_products


def make(n=12, grid=(3, 4), dim=5, seed=0):
    """Correlated tokens whose mean and spread depend on the position."""
    rng = np.random.default_rng(seed)
    n_positions = grid[0] * grid[1]
    x = rng.standard_normal((n, n_positions, dim)) @ rng.standard_normal((dim, dim))
    x *= rng.uniform(0.5, 2, (n_positions, 1)) * rng.uniform(0.1, 10, dim)
    return x + rng.standard_normal((n_positions, dim)) + 3


def covariance(rows):
    total = np.zeros((rows.shape[1],) * 2)
    for row in rows - rows.mean(axis=0):
        total += np.outer(row, row)
    return total / len(rows)


def oracle(train, valid, grid, shrinkage, regularization, neighborhood, test):
    """Distances of `test`, one position and one token at a time."""
    n, n_positions, dim = train.shape
    rows = np.array([train[i, p] for p in range(n_positions) for i in range(n) if valid[i, p]])
    centre, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-6 * scale.max(), scale, scale.mean())
    z = (train - centre) / scale
    pooled, count = np.zeros((dim, dim)), 0
    for p in range(n_positions):
        own = z[valid[:, p], p]
        if len(own):
            pooled += len(own) * covariance(own)
            count += len(own)
    pooled /= count
    out = np.empty(test.shape[:2])
    for p in range(n_positions):
        y, x = divmod(p, grid[1])
        window = [
            z[i, v * grid[1] + u]
            for v in range(grid[0])
            for u in range(grid[1])
            if abs(v - y) <= neighborhood // 2 and abs(u - x) <= neighborhood // 2
            for i in range(n)
            if valid[i, v * grid[1] + u]
        ]
        window = np.array(window) if window else (rows - centre) / scale
        matrix = (1 - shrinkage) * covariance(window) + shrinkage * pooled
        inverse = np.linalg.inv(matrix + regularization * np.eye(dim))
        for i in range(len(test)):
            d = (test[i, p] - centre) / scale - window.mean(axis=0)
            out[i, p] = np.sqrt(d @ inverse @ d)
    return out


def everything_valid(tokens):
    return np.ones(tokens.shape[:-1], dtype=bool)


@pytest.mark.parametrize(
    "masked, regularization, dtype", [(True, 0.01, np.float32), (False, 0.5, np.float64)]
)
@pytest.mark.parametrize("shrinkage", [0, 0.3, 1])
@pytest.mark.parametrize("neighborhood, grid", [(1, (3, 4)), (3, (3, 4)), (5, (2, 6)), (3, (1, 1))])
def test_equals_plain_loops(masked, neighborhood, grid, shrinkage, regularization, dtype):
    train, test = make(grid=grid).astype(dtype), make(n=4, grid=grid, seed=1).astype(dtype)
    valid = everything_valid(train)
    if masked:
        valid = np.random.default_rng(2).random(valid.shape) < 0.7
        train[~valid] = np.nan
    gaussian = fit_gaussians(train, valid, grid, shrinkage, regularization, neighborhood)
    assert gaussian.whitening.dtype == np.float32
    filled = np.where(np.isnan(train), 0, train).astype(np.float64)
    expected = oracle(
        filled, valid, grid, shrinkage, regularization, neighborhood, test.astype(np.float64)
    )
    distances = mahalanobis(gaussian, test)
    assert distances.dtype == np.float64
    np.testing.assert_allclose(distances, expected, rtol=2e-4)


@pytest.mark.parametrize("neighborhood", [1, 3])
def test_position_that_is_never_valid(neighborhood):
    """It has the Gaussian of all tokens, or that of its neighbours where they count."""
    train, test = make(), make(n=3, seed=1)
    valid = everything_valid(train)
    valid[:, 6] = False
    train[:, 6] = np.nan
    gaussian = fit_gaussians(train, valid, (3, 4), 0.2, 0.01, neighborhood)
    filled = np.where(np.isnan(train), 0, train)
    expected = oracle(filled, valid, (3, 4), 0.2, 0.01, neighborhood, test)
    np.testing.assert_allclose(mahalanobis(gaussian, test), expected, rtol=2e-4)


def test_position_that_is_never_valid_of_one_component():
    train = make(dim=1)
    valid = everything_valid(train)
    valid[:, 0] = False
    gaussian = fit_gaussians(train, valid, (3, 4), 0.2, 0.01)
    expected = oracle(train, valid, (3, 4), 0.2, 0.01, 1, train)
    np.testing.assert_allclose(mahalanobis(gaussian, train), expected, rtol=2e-4, atol=1e-5)


def test_one_image():
    """Without any variance of its own a position has the ridge only."""
    train, test = make(n=1), make(n=2, seed=1)
    valid = everything_valid(train)
    gaussian = fit_gaussians(train, valid, (3, 4), 0.5, 0.01)
    expected = oracle(train, valid, (3, 4), 0.5, 0.01, 1, test)
    np.testing.assert_allclose(mahalanobis(gaussian, test), expected, rtol=1e-3)
    np.testing.assert_allclose(mahalanobis(gaussian, train), 0, atol=1e-4)


def test_pooled_only_is_one_covariance_for_all():
    train = make(n=30)
    gaussian = fit_gaussians(train, everything_valid(train), (3, 4), 1, 0.01)
    np.testing.assert_array_equal(
        gaussian.whitening, np.broadcast_to(gaussian.whitening[0], gaussian.whitening.shape)
    )


@pytest.mark.parametrize("regularization", [0.001, 0.1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shared_gaussian_equals_scikit_learn(dtype, regularization):
    train = make(n=40).reshape(-1, 5).astype(dtype)
    test = make(n=6, seed=1).astype(dtype)
    scaler = StandardScaler().fit(train.astype(np.float64))
    matrix = EmpiricalCovariance().fit(scaler.transform(train.astype(np.float64))).covariance_
    inverse = np.linalg.inv(matrix + regularization * np.eye(5))
    z = scaler.transform(test.reshape(-1, 5).astype(np.float64))
    expected = np.sqrt(np.einsum("ij,jk,ik->i", z, inverse, z)).reshape(6, 12)
    gaussian = fit_shared_gaussian(train, everything_valid(train), regularization)
    assert gaussian.mean.shape == (1, 5)
    assert gaussian.whitening.shape == (1, 5, 5)
    np.testing.assert_allclose(mahalanobis(gaussian, test), expected, rtol=2e-4)


def fitted(train, shared):
    if shared:
        rows = train.reshape(-1, train.shape[-1])
        return fit_shared_gaussian(rows, everything_valid(rows), 0.01)
    return fit_gaussians(train, everything_valid(train), (3, 4), 0.3, 0.01, 3)


def masked_rows():
    """Rows of which some are masked, runs of whole blocks too, and those that are not."""
    rows = make(n=4000, dim=8).reshape(-1, 8).astype(np.float32)  # two blocks
    valid = np.random.default_rng(2).random(len(rows)) < 0.7
    valid[:40000] = False
    rows[~valid] = np.nan
    return rows, valid, rows[valid]


def test_shared_gaussian_of_masked_rows_is_that_of_the_others():
    rows, valid, kept = masked_rows()
    expected = fit_shared_gaussian(kept, everything_valid(kept), 0.1)
    test = make(n=4, dim=8, seed=1)
    distances = mahalanobis(fit_shared_gaussian(rows, valid, 0.1), test)
    np.testing.assert_allclose(distances, mahalanobis(expected, test), rtol=1e-5)


@pytest.mark.parametrize("method", ["random", "pca"])
def test_components_of_masked_rows_are_those_of_the_others(method):
    rows, valid, kept = masked_rows()
    everything = everything_valid(kept)
    components = choose_components(rows, valid, 3, method, np.random.RandomState(0))
    expected = choose_components(kept, everything, 3, method, np.random.RandomState(0))
    np.testing.assert_allclose(components, expected, atol=1e-6)
    reduced = reduce_components(rows, valid, components)
    np.testing.assert_array_equal(reduced[valid], reduce_components(kept, everything, components))
    assert not reduced[~valid].any()


@pytest.mark.parametrize("shared", [False, True])
def test_scale_and_offset_of_a_component_change_nothing(shared):
    train, test = make(), make(n=4, seed=1)
    scale = np.array([1e-3, 1, 1e3, -5, 0.1])
    offset = np.array([0, 1, -2000, 5, 0.3])
    expected = mahalanobis(fitted(train, shared), test)
    changed = mahalanobis(fitted(train * scale + offset, shared), test * scale + offset)
    np.testing.assert_allclose(changed, expected, rtol=1e-3)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_constant_component(shared, value):
    """It neither divides by zero nor hides a departure from the constant."""
    train, test = make(), make(n=4, seed=1)
    others = train.reshape(-1, 5).std(axis=0)
    train[..., 2] = test[..., 2] = value
    others = np.delete(others, 2)
    gaussian = fitted(train, shared)
    distances = mahalanobis(gaussian, test)
    assert np.isfinite(distances).all()
    departed = test.copy()
    departed[..., 2] += 0.7
    expected = np.sqrt(distances**2 + (0.7 / others.mean()) ** 2 / 0.01)
    np.testing.assert_allclose(mahalanobis(gaussian, departed), expected, rtol=1e-3)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e6])
def test_tokens_that_do_not_vary(shared, value):
    with pytest.raises(ValueError, match="do not vary"):
        fitted(np.full((4, 12, 3), value, dtype=np.float32), shared)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dim", [3, 17, 102, 128])
@pytest.mark.parametrize("shared", [False, True])
def test_blocks_and_batches_change_no_bit(shared, dim, threads):
    train, test = make(n=40, dim=dim), make(n=33, dim=dim, seed=1).astype(np.float32)
    gaussian = fitted(train, shared)
    with threadpool_limits(threads):
        whole = mahalanobis(gaussian, test)
        np.testing.assert_array_equal(mahalanobis(gaussian, test, block_bytes=1), whole)
        for n in (1, 2, 3, 7):
            parts = [mahalanobis(gaussian, test[i : i + n]) for i in range(0, 33, n)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(mahalanobis(gaussian, test[::-1])[::-1], whole)


@given(st.integers(1, 40), st.integers(1, 300), st.integers(-60, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_exact_product_adds_in_any_order(n, dim, exponent, seed):
    """Backwards, by einsum and row by row it is the same to the bit; and it is the product."""
    rng = np.random.default_rng(seed)
    left = (rng.standard_normal((n, dim)) * 2.0**exponent).astype(np.float32)
    given_right = rng.standard_normal((dim, 5))
    right = rounded_for_products(given_right, dim, axis=0)
    found = exact_product(left, right)
    np.testing.assert_array_equal(exact_product(left[:, ::-1], right[::-1]), found)
    np.testing.assert_array_equal([exact_product(row[None], right)[0] for row in left], found)
    rounded = rounded_for_products(left, dim, axis=1)
    np.testing.assert_array_equal(np.einsum("ij,jk->ik", rounded, right), found)
    largest = abs(left).max(axis=1)[:, None] * abs(given_right).max(axis=0)
    error = abs(found - left.astype(np.float64) @ given_right)
    assert (error <= dim * 2.0**-20 * largest).all()


def test_the_mean_is_at_distance_zero():
    train = make()
    gaussian = fit_gaussians(train, everything_valid(train), (3, 4), 0.1, 0.01)
    np.testing.assert_allclose(gaussian.mean, train.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mahalanobis(gaussian, gaussian.mean[None]), np.zeros((1, 12)))


def test_inputs_are_left_as_they_are():
    train = make()
    valid = everything_valid(train)
    valid[0, 0] = False
    before, valid_before = train.copy(), valid.copy()
    mahalanobis(fit_gaussians(train, valid, (3, 4), 0.1, 0.01, 3), train)
    np.testing.assert_array_equal(train, before)
    np.testing.assert_array_equal(valid, valid_before)


@pytest.mark.parametrize("n_components", [1, 4, 9])
def test_random_picks_distinct_components(n_components):
    tokens = make(dim=10).reshape(-1, 10)
    everything = everything_valid(tokens)
    rng = np.random.RandomState(0)
    picked = choose_components(tokens, everything, n_components, "random", rng)
    assert len(set(picked)) == n_components and list(picked) == sorted(picked)
    np.testing.assert_array_equal(reduce_components(tokens, everything, picked), tokens[:, picked])
    again = choose_components(tokens, everything, n_components, "random", np.random.RandomState(0))
    np.testing.assert_array_equal(again, picked)


def test_random_picks_every_component_sometimes():
    rng, tokens = np.random.RandomState(0), np.ones((2, 6))
    picked = [
        choose_components(tokens, everything_valid(tokens), 2, "random", rng) for _ in range(60)
    ]
    share = np.bincount(np.concatenate(picked), minlength=6) / 60
    # 20 of 60 expected of each, with a standard deviation of 3.7.
    assert (abs(share - 1 / 3) < 4 * 3.7 / 60).all()


@pytest.mark.parametrize("n_components", [1, 3, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pca_is_scikit_learns_subspace(dtype, n_components):
    tokens = make(n=40, dim=8).reshape(-1, 8).astype(dtype)
    everything = everything_valid(tokens)
    basis = choose_components(tokens, everything, n_components, "pca", None)
    assert basis.shape == (8, n_components)
    reduced = reduce_components(tokens, everything, basis)
    assert reduced.dtype == dtype
    np.testing.assert_allclose(reduced, tokens @ basis, rtol=1e-4, atol=1e-4)
    axes = PCA(n_components).fit(tokens.astype(np.float64)).components_
    np.testing.assert_allclose(abs(axes @ basis), np.eye(n_components), atol=1e-5)
    # The sign does not depend on the library: the largest entry of an axis is positive.
    assert (basis[abs(basis).argmax(axis=0), np.arange(n_components)] > 0).all()
    shifted = choose_components(
        tokens + np.arange(8, dtype=dtype), everything, n_components, "pca", None
    )
    np.testing.assert_allclose(shifted, basis, atol=1e-4)
