"""Which images are seen again."""

import numpy as np
import pytest

from skanomaly._tokens import check_tokens
from skanomaly.core.fingerprints import ImageFingerprints

BOTH = pytest.mark.parametrize("ordered", [True, False])


def make(n_images=6, grid=(32, 32), dim=48, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_images, *grid, dim)).astype(dtype)


def match(known, seen, ordered):
    return ImageFingerprints(check_tokens(known), ordered).match(check_tokens(seen)).tolist()


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_images_in_another_order(ordered, dtype):
    known = make(dtype=dtype)
    order = [3, 0, 5, 5, 1]
    assert match(known, known[order], ordered) == order


@BOTH
def test_other_images_are_unknown(ordered):
    assert match(make(), make(seed=1), ordered) == [-1] * 6


@BOTH
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_float_noise_is_no_difference(ordered, scale, offset):
    known = (scale * (offset + make(n_images=4))).astype(np.float32)
    noise = 1 + 1e-7 * np.random.default_rng(1).standard_normal(known.shape)
    seen = (known * noise).astype(np.float32)
    assert (seen != known).any()
    assert match(known, seen, ordered) == [0, 1, 2, 3]


@BOTH
@pytest.mark.parametrize("dim", [3, 64, 384, 768])
def test_one_patch_that_changed_a_thousandth(ordered, dim):
    known = make(n_images=1, dim=dim)
    prints = ImageFingerprints(check_tokens(known), ordered)
    rng = np.random.default_rng(2)
    seen = np.repeat(known, 30, axis=0)
    for image in seen:
        patch = image[tuple(rng.integers(0, 32, 2))]
        change = rng.standard_normal(dim)
        patch += 1e-3 * np.linalg.norm(patch) * change / np.linalg.norm(change)
    assert prints.match(check_tokens(seen)).tolist() == [-1] * 30


@BOTH
def test_in_another_form(ordered):
    known = make(n_images=3, grid=(4, 5))
    flat = known.reshape(3, 20, -1)
    mixed = np.empty(3, dtype=object)
    mixed[:] = list(known)
    for one in (known, flat, mixed):
        for other in (known, flat, mixed):
            assert match(one, other, ordered) == [0, 1, 2]


@BOTH
def test_images_of_one_patch(ordered):
    known = make(n_images=5, grid=())
    assert match(known, known[::-1], ordered) == [4, 3, 2, 1, 0]
    assert match(known, known[:, None, None], ordered) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ordered, expected", [(True, [-1, -1, -1]), (False, [0, 1, 2])])
def test_permuted_patches(ordered, expected):
    known = make(n_images=3, grid=(50,))
    order = np.random.default_rng(3).permutation(50)
    assert match(known, known[:, order], ordered) == expected


@BOTH
def test_of_several_the_lowest(ordered):
    known = make(n_images=5, grid=(3, 3))
    known[4] = known[2]
    known[3] = known[2]
    assert match(known, known, ordered) == [0, 1, 2, 2, 2]


@BOTH
@pytest.mark.parametrize("noise", [3e-7, -3e-7])
def test_of_several_within_noise_the_lowest(noise, ordered):
    """Whichever has the lowest mean."""
    known = np.repeat(make(n_images=1, grid=(3, 3)), 3, axis=0)
    known[0] *= 1 + noise
    known[1] *= 1 - noise
    assert match(known, known[2:], ordered) == [0]


@BOTH
def test_masked_patches_are_ignored(ordered):
    known = make(n_images=3, grid=(3, 4))
    known[0, 1, 2] = known[2, 0, 0] = np.nan
    assert match(known, known, ordered) == [0, 1, 2]
    less = known.copy()
    less[1, 2, 2] = np.nan  # one patch fewer than the known image
    assert match(known, less, ordered) == [0, -1, 2]
    # What is masked leaves no trace: a list of the other patches is the same image.
    left = known[0].reshape(12, -1)
    assert match(known, left[~np.isnan(left[:, 0])][None], ordered) == [0]


@BOTH
def test_another_number_of_patches(ordered):
    known = np.ones((1, 4, 4, 3), dtype=np.float32)  # so that only the number differs
    assert match(known, np.ones((1, 4, 5, 3), dtype=np.float32), ordered) == [-1]
    assert match(known, np.ones((1, 4, 4, 3), dtype=np.float32), ordered) == [0]


@BOTH
def test_known_images_of_different_grids(ordered):
    rng = np.random.default_rng(0)
    known = np.empty(3, dtype=object)
    known[:] = [rng.standard_normal(shape) for shape in [(2, 3, 4), (5, 5, 4), (1, 1, 4)]]
    assert match(known, known[[1, 2, 0]], ordered) == [1, 2, 0]


@BOTH
def test_zero_tokens(ordered):
    known = np.zeros((2, 3, 4))
    assert match(known, known[:1], ordered) == [0]
    assert match(known, np.full((1, 3, 4), 1e-30), ordered) == [-1]


def test_order_is_the_same_for_every_permutation():
    known = make(n_images=2, grid=(30,))
    known[1, 4] = np.nan
    prints = ImageFingerprints(check_tokens(known), ordered=False)
    expected = []
    for image in range(2):
        values = known[image][~np.isnan(known[image, :, 0])]
        order = prints.order(check_tokens(known), image)
        assert sorted(order) == list(range(len(values)))
        expected.append(values[order])
    for seed in range(5):
        seen = known[:, np.random.default_rng(seed).permutation(30)]
        for image in range(2):
            values = seen[image][~np.isnan(seen[image, :, 0])]
            order = prints.order(check_tokens(seen), image)
            np.testing.assert_array_equal(values[order], expected[image])


def test_order_where_the_position_matters():
    known = make(n_images=1, grid=(7,))
    known[0, 2] = np.nan
    prints = ImageFingerprints(check_tokens(known), ordered=True)
    np.testing.assert_array_equal(prints.order(check_tokens(known), 0), np.arange(6))


def halves(values):
    return values.astype(np.float16).astype(np.float32)


@BOTH
def test_another_rounding_of_half_precision_is_no_difference(ordered):
    """As bfloat16 leaves on another processor: 0.1% of the norm, with a patch that is worse."""
    known = halves(3 + make(n_images=5))
    rng = np.random.default_rng(1)
    noise = 2e-3 * np.linalg.norm(known, axis=-1, keepdims=True) / np.sqrt(known.shape[-1])
    noise = noise * rng.standard_normal(known.shape)
    noise[:, 7, 5] *= 5
    seen = halves(known + noise)
    assert match(known, seen, ordered) == [0, 1, 2, 3, 4]
    # In single precision that is a difference.
    assert match(known + np.float32(1e-5), seen, ordered) == [-1] * 5


@BOTH
def test_one_patch_that_changed_in_half_precision(ordered):
    known = halves(make(n_images=1))
    prints = ImageFingerprints(check_tokens(known), ordered)
    seen = np.repeat(known, 20, axis=0)
    rng = np.random.default_rng(2)
    for image in seen:
        image[tuple(rng.integers(0, 32, 2))] += halves(0.05 * rng.standard_normal(48))
    assert prints.match(check_tokens(halves(seen))).tolist() == [-1] * 20


def rounded_otherwise(known, spread):
    """As another way to the attention leaves tokens: a difference of 0.13 of their spread."""
    rng = np.random.default_rng(3)
    # Projections of independent components spread, by their median, by 0.67 of these.
    noise = 0.13 * 0.67 * spread * rng.standard_normal(known.shape)
    noise[:, 7, 5] *= 2
    return halves(known + noise.astype(np.float32))


@BOTH
def test_another_way_to_the_same_half_precision_is_no_difference(ordered):
    known = halves(make(n_images=5))
    seen = rounded_otherwise(known, known.std())
    assert match(known, seen, ordered) == [0, 1, 2, 3, 4]
    # Beside it a patch that changed by more than images do among each other shows.
    seen[:, 9, 9] += halves(2.5 * known.std() * np.random.default_rng(4).standard_normal(48))
    assert match(known, seen, ordered) == [-1] * 5


@BOTH
def test_other_images_in_half_precision_are_unknown(ordered):
    assert match(halves(make()), halves(make(seed=1)), ordered) == [-1] * 6
    # Rows of a table, as numbers that happen to be halves.
    rows = np.arange(20.0)[:, None] * np.ones(3)
    assert match(rows, rows + 0.25, ordered) == [-1] * 20
