"""The nearest patch near a place, and without an image: against the same in plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.core.local_bank import fit_local_bank
from skanomaly.core.local_held_out import held_out_distances
from skanomaly.core.local_places import nearest_places, reference_grid, window
from skanomaly.core.local_search import local_distances

OPTIONS = {
    "radius": 1,
    "whitening": "local",
    "shrinkage": 0.1,
    "ridge": 0.1,
}


def bank_of(images, **options):
    """A bank of the tokens of images of one grid; NaN are masked."""
    n, *grid, dim = images.shape
    n_places = grid[0] * grid[1]
    values = images.reshape(-1, dim)
    valid = ~np.isnan(values).any(axis=1)
    rows = np.arange(n * n_places).reshape(n, n_places)
    return fit_local_bank(values, valid, rows, tuple(grid), **{**OPTIONS, **options})


def distances(bank, images):
    n, *grid, dim = images.shape
    places = np.tile(np.arange(grid[0] * grid[1]), n)
    return local_distances(bank, images.reshape(-1, dim), places).reshape(n, *grid)


def in_loops(train, new, radius, whitening, shrinkage, ridge):
    """Distances as the algorithm has them, place by place and patch by patch, in float64."""
    train, new = train.astype(np.float64), new.astype(np.float64)
    n, height, width, dim = train.shape
    known = train[~np.isnan(train).any(axis=3)]
    centre, spread = known.mean(axis=0), known.std(axis=0)
    train, new = (train - centre) / spread, (new - centre) / spread
    covariances, pooled, count = {}, np.zeros((dim, dim)), 0
    for i in range(height):
        for j in range(width):
            x = np.array([image[i, j] for image in train if not np.isnan(image[i, j]).any()])
            scatter = sum(np.outer(r, r) for r in x - x.mean(axis=0))
            covariances[i, j] = scatter / len(x)
            pooled, count = pooled + scatter, count + len(x)
    pooled /= count
    out = np.empty(new.shape[:3])
    for i in range(height):
        for j in range(width):
            if whitening == "local":
                covariance = (
                    (1 - shrinkage) * covariances[i, j] + shrinkage * pooled + ridge * np.eye(dim)
                )
            elif whitening == "shared":
                covariance = pooled + ridge * np.eye(dim)
            else:
                covariance = np.eye(dim)
            inverse = np.linalg.inv(covariance)
            near = [
                image[k, m]
                for image in train
                for k in range(max(0, i - radius), min(height, i + radius + 1))
                for m in range(max(0, j - radius), min(width, j + radius + 1))
                if not np.isnan(image[k, m]).any()
            ]
            for q, image in enumerate(new):
                out[q, i, j] = min(
                    np.sqrt((image[i, j] - b) @ inverse @ (image[i, j] - b)) for b in near
                )
    return out


def images(n, grid=(3, 4), dim=5, seed=0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(dim, dim))
    places = np.random.default_rng(8).normal(size=(*grid, dim))
    return (rng.normal(size=(n, *grid, dim)) @ mixing + 2 * places).astype(np.float32)


@pytest.mark.parametrize("radius", [0, 1, 3])
@pytest.mark.parametrize("whitening", ["local", "shared", None])
def test_distances_are_those_of_plain_loops(whitening, radius):
    train, new = images(13), images(3, seed=1)
    train[2, 1, 1] = train[5, 0, 0] = np.nan
    options = {**OPTIONS, "whitening": whitening, "radius": radius}
    found = distances(bank_of(train, **options), new)
    np.testing.assert_allclose(found, in_loops(train, new, **options), rtol=1e-5)


@pytest.mark.parametrize("whitening", ["local", "shared", None])
def test_held_out_distances_are_those_of_a_refit(whitening):
    train = images(16, seed=2)
    options = {**OPTIONS, "whitening": whitening}
    found = held_out_distances(bank_of(train, **options), np.arange(16), np.arange(16))
    refit = [in_loops(np.delete(train, i, 0), train[i : i + 1], **options) for i in range(16)]
    error = np.abs(found / np.reshape(refit, found.shape) - 1)
    # What all places share is left out to first order: here one image of 16, of 12 patches each.
    assert np.median(error) < 1e-3 and error.max() < 0.03, (np.median(error), error.max())


def test_held_out_distances_leave_out_whole_groups():
    train, groups = images(18, seed=3), np.arange(18) // 3
    train[4, 1, 2] = np.nan
    found = held_out_distances(bank_of(train), np.array([1, 3, 4, 12]), groups)
    assert np.isnan(found[2]).sum() == 1
    for row, image in zip(found, (1, 3, 4, 12), strict=True):
        others = train[groups != groups[image]]
        expected = in_loops(others, train[image : image + 1], **OPTIONS).ravel()
        known = ~np.isnan(row)
        assert np.median(np.abs(row / expected - 1)[known]) < 2e-3


def test_the_own_covariance_loses_an_image_exactly():
    """With a share of 0 for what is pooled, and one scale of all components, nothing is left."""
    train = images(14, seed=4)
    train = np.concatenate([train, -train])  # its mean is 0 without any pair of images, too
    train /= train.reshape(-1, 5).std(axis=0)
    options = {**OPTIONS, "shrinkage": 0.0, "ridge": 1e-7}
    groups = np.tile(np.arange(14), 2)
    found = held_out_distances(bank_of(train, **options), np.arange(14), groups)
    for i in range(14):
        expected = in_loops(train[groups != i], train[i : i + 1], **options).ravel()
        np.testing.assert_allclose(found[i], expected, rtol=2e-4)


def test_held_out_distances_do_not_depend_on_what_else_is_asked():
    bank, groups = bank_of(images(12, seed=5)), np.arange(12)
    whole = held_out_distances(bank, groups, groups)
    for part in ([3], [11, 0], [5, 6, 7]):
        np.testing.assert_array_equal(held_out_distances(bank, np.array(part), groups), whole[part])


def test_a_place_without_patches_is_compared_with_the_nearest_that_has_some():
    train, new = images(6, grid=(1, 9), seed=6), images(1, grid=(1, 9), seed=7)
    train[:, 0, :5] = np.nan  # within radius 1 of columns 0 to 3 there is none
    found = distances(bank_of(train), new)[0, 0]
    assert np.isfinite(found).all() and (found > 0).all()
    wider = distances(bank_of(train, radius=7), new)[0, 0]
    # Columns 0 and 1: of radii 1, 3 and 7 the last is the first that reaches column 5.
    np.testing.assert_array_equal(found[:2], wider[:2])


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e18, 1e30])
def test_numbers_of_any_size_have_a_finite_distance(scale):
    train = images(12)
    found = distances(bank_of(train), train[:2] * np.float32(scale))
    assert np.isfinite(found).all()
    assert np.isfinite(distances(bank_of(np.zeros_like(train)), train[:2])).all()


def test_constant_components_are_harmless_until_they_change():
    train, new = images(12), images(2, seed=1)
    train[..., 3] = new[..., 3] = 7
    bank = bank_of(train)
    found = distances(bank, new)
    assert np.isfinite(found).all()
    new[0, 1, 1, 3] = 15
    changed = distances(bank, new)
    assert changed[0, 1, 1] > 1.5 * found[0, 1, 1]
    np.testing.assert_array_equal(changed[1], found[1])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(2, 14),
    radius=st.integers(0, 3),
    whitening=st.sampled_from(["local", "shared", None]),
    gain=st.floats(0.01, 100),
    shift=st.floats(-10, 10),
)
def test_invariants(seed, n, radius, whitening, gain, shift):
    train, new = images(n, seed=seed), images(2, seed=seed + 1)
    options = {"radius": radius, "whitening": whitening}
    bank = bank_of(train, **options)
    found = distances(bank, new)
    assert (found >= 0).all()
    # A patch that is in the bank has distance 0.
    assert (distances(bank, train[:1]) <= 1e-5).all()
    # Another unit of a component changes nothing but what is rounded.
    gains = np.array([gain, 1, 1, 1 / gain, 1], dtype=np.float32)
    other = bank_of(train * gains + np.float32(shift), **options)
    scaled = distances(other, new * gains + np.float32(shift))
    np.testing.assert_allclose(scaled, found, rtol=0.02, atol=1e-3)
    # More patches to compare with are never further away, in one metric.
    if whitening is None:
        wider = bank_of(train, radius=radius + 1, whitening=None)
        assert (distances(wider, new) <= found).all()


def test_places_of_other_grids():
    assert reference_grid([(4, 5), (3, 6)]) == (4, 6)
    np.testing.assert_array_equal(nearest_places((2, 2), (2, 2)), np.arange(4))
    np.testing.assert_array_equal(nearest_places((1, 4), (1, 2)), [0, 0, 1, 1])
    np.testing.assert_array_equal(nearest_places((1, 2), (1, 4)), [1, 3])
    for grid, reference in [((3, 5), (4, 9)), ((7, 7), (9, 8))]:
        # There and back again: a patch of a smaller grid is the one at its own place.
        there = nearest_places(grid, reference)
        back = nearest_places(reference, grid)
        np.testing.assert_array_equal(back[there], np.arange(grid[0] * grid[1]))
    assert window((4, 5), 7, 0) == [slice(7, 8)]
