"""Which images are copies of others."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import make_swiss_roll

from skanomaly import FilterBankPatches
from skanomaly._tokens import check_tokens
from skanomaly.core.copies import copies_among, find_copies
from skanomaly.datasets import make_surfaces

SURFACES = ["brushed_metal", "disc", "fabric", "tile", "wood"]
FEW = [2, 3, 5, 12, 19]


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def surfaces(surface, n=24, seed=0):
    return make_surfaces(n, surface=surface, image_size=64, random_state=seed).images


def thumbnails(images, side=32):
    small = [Image.fromarray(image).resize((side, side), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, dtype=np.float32).ravel() for image in small])


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def test_each_copy_is_named_with_the_earliest():
    images = noise((12, 200))
    images[[4, 9]] = images[2]
    images[7] = images[5] + 1e-3 * noise(200, seed=1)
    assert find_copies(images) == [(2, 4), (5, 7), (2, 9)]


@pytest.mark.parametrize("n", [1, *FEW, 60])
def test_different_images_are_none(n):
    assert find_copies(noise((n, 200))) == []


@pytest.mark.parametrize("n", [2, 3, 4, 5, 30])
def test_equal_images_are_copies_however_many(n):
    assert find_copies(np.tile(noise(200), (n, 1))) == [(0, j) for j in range(1, n)]
    assert find_copies(np.zeros((n, 200))) == [(0, j) for j in range(1, n)]


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_scale_and_offset_do_not_matter(scale, offset):
    images = noise((20, 200))
    images[13] = images[3] + 1e-2 * noise(200, seed=1)
    assert find_copies(scale * (images + offset)) == [(3, 13)]
    assert find_copies(scale * (images[:2] + offset)) == []


def test_of_two_images_only_equal_ones_are_found():
    first = noise((1, 200))
    assert find_copies(np.concatenate([first, first * (1 + 1e-7 * noise(200, 1))])) == [(0, 1)]
    assert find_copies(np.concatenate([first, first + 1e-3])) == []


@pytest.mark.parametrize("n_parts, n_photographs", [(2, 2), (2, 4), (4, 4), (20, 4), (5, 10)])
def test_bursts(n_parts, n_photographs):
    """The photographs of a part differ by a tenth of what parts differ by, or less."""
    parts = np.repeat(noise((n_parts, 300)), n_photographs, axis=0)
    images = parts + 0.03 * noise(parts.shape, seed=1)
    first = np.arange(len(images)) // n_photographs * n_photographs
    assert find_copies(images) == [(i, j) for j, i in enumerate(first) if i < j]


@pytest.mark.parametrize("ratio", [5, 30])
@pytest.mark.parametrize("n_of_a_kind", [12, 40])
def test_two_kinds_of_images_are_no_copies(ratio, n_of_a_kind):
    """Such as two lights: within a kind distances are small beside those between both."""
    kinds = np.repeat(ratio * noise((2, 200), seed=1), n_of_a_kind, axis=0)
    assert find_copies(kinds + noise(kinds.shape)) == []


@pytest.mark.parametrize("n_of_the_few", [2, 5, 9])
@pytest.mark.parametrize("n_of_the_many", [20, 60])
def test_a_few_images_of_another_kind_are_no_copies(n_of_the_few, n_of_the_many):
    """Such as a second lot: the tenth neighbour of the few is one of the many."""
    few = noise((n_of_the_few, 200), seed=2) + 3 * noise((1, 200), seed=1)
    images = np.concatenate([noise((n_of_the_many, 200)), few])
    assert find_copies(images) == []
    images[-1] = images[-2] + 1e-2 * noise(200, seed=3)
    assert find_copies(images) == [(len(images) - 2, len(images) - 1)]


@pytest.mark.parametrize("seed", range(5))
def test_images_that_differ_in_two_ways_alone(seed):
    """Points on a surface are close by chance: only then may nearness say little."""
    roll = make_swiss_roll(200, random_state=seed)[0] @ noise((3, 100))
    found = find_copies(roll + 0.2 * noise(roll.shape, seed=seed))
    assert found == []


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("features", ["tokens", "thumbnails"])
def test_generated_surfaces_hold_no_copies(surface, features):
    images = surfaces(surface, 40)
    if features == "tokens":
        tokens = FilterBankPatches(image_size=64).transform(images)
        subsets = [tokens[:n] for n in (*FEW, 40)]
        assert [copies_among(check_tokens(subset)) for subset in subsets] == [[]] * len(subsets)
    else:
        small = thumbnails(images)
        assert [find_copies(small[:n]) for n in (*FEW, 40)] == [[]] * (len(FEW) + 1)


# Surfaces whose parts differ by so little that only equal images are sure to be told from others.
ALIKE = {"disc", "tile"}
CHANGES = {
    "nothing": lambda image: image,
    "jpeg 95": lambda image: jpeg(image, 95),
    "jpeg 75": lambda image: jpeg(image, 75),
    "noise of a camera": lambda image: np.clip(image + 2 * noise(image.shape), 0, 255),
}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("change", CHANGES)
def test_files_that_were_written_again_are_found_among_thumbnails(surface, change):
    images = make_surfaces(30, surface=surface, random_state=0).images
    again = [CHANGES[change](image).astype(np.uint8) for image in images[:6]]
    found = find_copies(thumbnails([*images, *again]))
    expected = [(i, 30 + i) for i in range(6)]
    assert set(found) <= set(expected)
    if change == "nothing" or surface not in ALIKE:
        assert found == expected


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("change", ["nothing", "exposure"])
def test_copies_are_found_among_tokens(surface, change):
    images = surfaces(surface, 30)
    gain = 1.0 if change == "nothing" else 1.01
    again = np.clip(images[:5] * gain, 0, 255).astype(np.uint8)
    tokens = FilterBankPatches(image_size=64).transform(np.concatenate([images, again]))
    found, expected = copies_among(check_tokens(tokens)), [(i, 30 + i) for i in range(5)]
    assert set(found) <= set(expected)
    if change == "nothing" or surface not in ALIKE:
        assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("category", ["bottle", "cookies", "screw", "toothbrush"])
def test_real_images(shared, category):
    """Of all pairs only those that show one part twice, by eye, may be named."""
    files = sorted((shared / "data" / category / "train" / "good").iterdir())[:80]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    same_part = {"cookies": [(0, 1)], "bottle": [(69, 70)]}.get(category, [])
    small = thumbnails(images)
    tokens = FilterBankPatches().transform(images)
    for n in (2, 3, 5, 12, 19, len(images)):
        rest = slice(2, n + 2)  # without the cookie that was photographed twice
        assert find_copies(small[rest]) == []
        assert copies_among(check_tokens(tokens[rest])) == []
    assert set(find_copies(small)) <= set(same_part)
    assert set(copies_among(check_tokens(tokens))) <= set(same_part)
    again = thumbnails([jpeg(image, 95) for image in images[2:8]])
    # The brushes lie in two ways that differ more than any two that lie alike.
    if category != "toothbrush":
        found = set(find_copies(np.concatenate([small, again])))
        assert {(2 + i, len(small) + i) for i in range(6)} <= found


def test_tokens_in_any_form():
    images = noise((9, 5, 6, 7)).astype(np.float32)
    images[6] = images[2]
    mixed = np.empty(11, dtype=object)
    mixed[:9] = list(images)
    mixed[9] = mixed[10] = noise((4, 6, 7)).astype(np.float32)
    assert copies_among(check_tokens(images)) == [(2, 6)]
    assert copies_among(check_tokens(images.reshape(9, 30, 7))) == [(2, 6)]
    assert copies_among(check_tokens(mixed)) == [(2, 6), (9, 10)]


def test_masked_patches():
    images = noise((9, 5, 6, 7)).astype(np.float32)
    images[:, 1, 2:4] = np.nan
    images[3, 0] = np.nan
    images[7] = images[3]
    assert copies_among(check_tokens(images)) == [(3, 7)]


def test_tokens_that_tell_too_little():
    """Rows of a table may be equal by chance, and near each other even more so."""
    rows = np.random.default_rng(0).integers(0, 3, (100, 3)).astype(float)
    assert copies_among(check_tokens(rows)) == []
    embeddings = noise((30, 384))
    embeddings[20] = embeddings[4]
    assert copies_among(check_tokens(embeddings)) == [(4, 20)]


def test_one_copy_among_thousands_of_images():
    images = noise((3000, 264))
    images[2000] = images[7]
    assert find_copies(images) == [(7, 2000)]
