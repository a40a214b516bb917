"""Training pictures: the same for a seed and an index, whatever is made before them."""

import numpy as np
import pytest
from PIL import Image

from training import textures
from training.marks import add_marks
from training.pictures import (
    LARGE,
    SMALL,
    Photographs,
    PictureMaker,
    change_light,
    object_mask,
    view,
)


@pytest.fixture(scope="module")
def photographs():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((90, 120), (130, 80))]


def test_a_picture_depends_on_seed_and_index_alone(photographs):
    make = PictureMaker(photographs, 0)
    forwards = [make(index) for index in range(6)]
    for index in (5, 2, 0):
        for picture, again in zip(
            forwards[index], PictureMaker(photographs, 0)(index), strict=True
        ):
            np.testing.assert_array_equal(again, picture)
    others = [PictureMaker(photographs, 1)(0)[1], forwards[1][1]]
    assert all((other != forwards[0][1]).any() for other in others)


def test_pictures_have_two_sizes_of_one_content(photographs):
    large, small = PictureMaker(photographs, 0)(3)
    assert large.shape == (LARGE, LARGE, 3) and small.shape == (SMALL, SMALL, 3)
    assert large.dtype == small.dtype == np.uint8
    halved = large.reshape(SMALL, 2, SMALL, 2, 3).mean((1, 3))
    assert np.abs(halved - small).mean() < 3


@pytest.mark.parametrize("kind", textures.KINDS)
def test_textures_are_standardised_and_seeded(kind):
    for seed in range(3):
        field = kind(np.random.default_rng(seed), 96)
        assert field.shape == (96, 96) and field.dtype == np.float32
        assert abs(field.mean()) < 1e-3 and abs(field.std() - 1) < 1e-2
        np.testing.assert_array_equal(field, kind(np.random.default_rng(seed), 96))


def test_a_constant_field_becomes_zero():
    assert (textures.standardise(np.full((4, 4), 3, np.float32)) == 0).all()


def test_smooth_noise_is_smooth():
    field = textures.smooth_noise(np.random.default_rng(0), 200, 4)
    assert field.std() > 0.2
    assert np.abs(np.diff(field, axis=0)).max() < 0.2 * np.ptp(field)


def test_views_show_nothing_but_the_image():
    """Also where they reach beyond it: no black border."""
    pixels = np.full((60, 90, 3), 77, np.uint8)
    for seed in range(20):
        seen = np.asarray(view(np.random.default_rng(seed), pixels, 0.5, 1.5, 64))
        assert seen.shape == (64, 64, 3) and (seen == 77).all()


def test_grey_pictures_have_equal_channels():
    colours = np.random.default_rng(0).integers(0, 256, (LARGE, LARGE, 3), np.uint8)
    # The first number decides: a fifth of the pictures is grey.
    grey = [seed for seed in range(20) if np.random.default_rng(seed).random() < 0.2]
    assert grey
    for seed in grey:
        found = np.asarray(change_light(np.random.default_rng(seed), Image.fromarray(colours)))
        assert (found == found[..., :1]).all() and np.ptp(found) > 50


def test_marks_are_small():
    plain = Image.new("RGB", (LARGE, LARGE), (120, 120, 120))
    shares = []
    for seed in range(20):
        marked = np.asarray(add_marks(np.random.default_rng(seed), plain))
        shares.append((marked != 120).any(-1).mean())
    assert min(shares) > 0 and max(shares) < 0.4 and np.median(shares) < 0.05


def test_objects_leave_ground_and_hide_some():
    shares = [
        np.asarray(object_mask(np.random.default_rng(seed))).mean() / 255 for seed in range(20)
    ]
    assert min(shares) > 0.0005 and max(shares) < 0.9


def test_photographs_are_decoded_once(tmp_path):
    (tmp_path / "b").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("b/x.jpg", (20, 30, 3)), ("a.jpg", (16, 12, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / name)
    read = Photographs(tmp_path, tmp_path / "out" / "pixels.u8")
    assert len(read) == 2
    for index, name in enumerate(("a.jpg", "b/x.jpg")):
        with Image.open(tmp_path / name) as image:
            np.testing.assert_array_equal(read[index], np.asarray(image))
    for name in ("a.jpg", "b/x.jpg"):
        (tmp_path / name).unlink()
    again = Photographs(tmp_path, tmp_path / "out" / "pixels.u8")
    assert again.digest == read.digest
    np.testing.assert_array_equal(again[1], read[1])


def test_missing_photographs_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no photographs \(\*.jpg\) under .*nowhere"):
        Photographs(tmp_path / "nowhere", tmp_path / "pixels.u8")
