"""Generated inspection images: determinism, exact masks, visible defects, validation."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from skanomaly import create_model
from skanomaly.datasets import _surfaces, make_surfaces

SURFACES = ["brushed_metal", "disc", "fabric", "tile", "wood"]
DEFECTS = ["dent", "missing_piece", "scratch", "spot", "stain"]
NOISE = 2.5  # grey levels, standard deviation of the sensor noise at the brightest


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("image_size", [32, (48, 33), (40, 96)])
def test_shapes_dtypes_and_labels(surface, image_size):
    data = make_surfaces(3, 5, surface=surface, image_size=image_size, random_state=0)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    assert data.images.shape == (8, height, width, 3) and data.images.dtype == np.uint8
    assert data.masks.shape == (8, height, width) and data.masks.dtype == bool
    assert data.y.tolist() == [1] * 3 + [-1] * 5 and data.y.dtype.kind == "i"
    assert data.defect_types == ["good"] * 3 + DEFECTS
    assert data.masks.any(axis=(1, 2)).tolist() == [False] * 3 + [True] * 5


@pytest.mark.parametrize("surface", SURFACES)
def test_normal_images_differ_but_show_the_same_product(surface):
    images = make_surfaces(6, surface=surface, image_size=96, random_state=0).images
    flat = images.reshape(6, -1).astype(float)
    for i in range(5):
        assert np.abs(flat[i] - flat[i + 1]).mean() > 2
    assert np.ptp(flat.mean(axis=1)) < 50  # the exposure varies, but not the kind of picture
    assert (flat.std(axis=1) > 8).all()  # texture, not a flat grey
    assert ((images > 0) & (images < 255)).mean() > 0.97  # neither under- nor overexposed


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("kind", DEFECTS)
def test_masks_are_exact_and_defects_visible(surface, kind):
    size = (128, 128)
    for i in range(4):
        normal, defective, mask = _surfaces._render_pair([3, 1, i], surface, kind, size)
        change = np.abs(defective.astype(int) - normal).max(axis=2)
        assert np.array_equal(mask, change >= 5)
        assert change[mask].mean() > 3 * NOISE
        assert 8 <= mask.sum() < 0.25 * mask.size
        # what is outside of the mask is the normal twin, apart from the faintest rim
        assert np.mean(change[~mask] == 0) > 0.8


@pytest.mark.parametrize("kind", DEFECTS)
def test_defects_lie_inside_the_disc(kind):
    for i in range(6):
        key = [4, 1, i]
        _, scene, _ = _surfaces._render_normal(key, "disc", (128, 128))
        _, _, mask = _surfaces._render_pair(key, "disc", kind, (128, 128))
        assert (scene.part[mask] > 0).all()


def test_make_surfaces_returns_what_the_pair_renders():
    data = make_surfaces(1, 2, surface="tile", image_size=64, random_state=11)
    seed = np.random.RandomState(11).randint(2**31 - 1)
    for i in range(2):
        key = [seed, 1, i, *b"tile"]
        normal, defective, mask = _surfaces._render_pair(key, "tile", DEFECTS[i], (64, 64))
        assert np.array_equal(data.images[1 + i], defective)
        assert np.array_equal(data.masks[1 + i], mask)
        assert not np.array_equal(data.images[0], normal)


def test_same_seed_same_images_for_any_counts():
    few = make_surfaces(2, 1, image_size=48, random_state=5)
    many = make_surfaces(4, 3, image_size=48, random_state=5)
    assert np.array_equal(few.images[:2], many.images[:2])
    assert np.array_equal(few.images[2], many.images[4])
    assert np.array_equal(few.masks[2], many.masks[4])


def test_random_state_kinds():
    def images(random_state):
        return make_surfaces(1, 1, image_size=32, random_state=random_state).images

    assert np.array_equal(images(1), images(1))
    assert np.array_equal(images(1), images(np.random.RandomState(1)))
    assert not np.array_equal(images(1), images(2))
    assert not np.array_equal(images(None), images(None))
    shared = np.random.RandomState(1)
    assert not np.array_equal(images(shared), images(shared))


def test_global_random_state_is_left_alone_with_a_seed():
    before = np.random.get_state()[1].copy()
    make_surfaces(1, 1, image_size=32, random_state=0)
    assert np.array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize(
    ("defects", "expected"),
    [
        ("all", [*DEFECTS, "dent"]),
        (["spot"], ["spot"] * 6),
        (("stain", "dent"), ["stain", "dent"] * 3),
        ("scratch", ["scratch"] * 6),
    ],
)
def test_defects_are_taken_in_turn(defects, expected):
    data = make_surfaces(0, 6, defects=defects, image_size=32, random_state=0)
    assert data.defect_types == expected


def test_normal_images_have_empty_masks():
    data = make_surfaces(4, 0, image_size=32, random_state=0)
    assert not data.masks.any() and data.defect_types == ["good"] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"surface": "velvet"}, r"unknown surface 'velvet'.*brushed_metal.*wood"),
        ({"surface": ["wood"]}, "unknown surface"),
        ({"defects": ["spot", "hole"]}, r"missing_piece.*'hole'"),
        ({"defects": "hole"}, r"missing_piece.*'hole'"),
        ({"defects": []}, "defects must be"),
        ({"defects": None}, "defects must be"),
        ({"n_normal": -1}, "n_normal must be an integer of at least 0, got -1"),
        ({"n_anomalous": -2}, "n_anomalous must be"),
        ({"n_normal": 1.5}, "n_normal must be"),
        ({"n_normal": 0}, "at least 1"),
        ({"image_size": 31}, "at least 32, got 31"),
        ({"image_size": (64, 16)}, "at least 32"),
        ({"image_size": (64, 64, 3)}, "at least 32"),
        ({"image_size": 64.0}, "image_size must be"),
        ({"random_state": "seed"}, "seed"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_surfaces(**{"n_normal": 1, "image_size": 32, **arguments})


@pytest.mark.parametrize(
    "options",
    [
        {"n_normal": True},
        {"n_normal": np.True_},
        {"n_anomalous": True},
        {"image_size": True},
        {"image_size": (True, 64)},
        {"image_size": (64, True)},
        {"random_state": True},
    ],
    ids=str,
)
def test_bools_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must .*True"):
        make_surfaces(**options)


@pytest.mark.slow
@pytest.mark.parametrize("surface", SURFACES)
def test_the_default_model_finds_defects_and_keeps_its_promise(surface):
    """What `skanomaly demo` shows: defects are found, and one good part in ten is flagged."""
    data = make_surfaces(150, 50, surface=surface, image_size=384, random_state=0)
    pipe = create_model("filterbank").fit(data.images[:100])
    scores, y = pipe.score_samples(data.images[100:]), data.y[100:]
    assert roc_auc_score(y == -1, -scores) >= 0.97
    flagged = scores < pipe[-1].offset_
    low, high = binom.interval(0.95, 50, 0.1)
    assert low <= np.count_nonzero(flagged[y == 1]) <= high
    assert np.mean(flagged[y == -1]) >= 0.94
