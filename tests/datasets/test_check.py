"""What is found by looking into the files of a data set: damage, copies, odd masks and groups."""

import shutil

import numpy as np
import pytest
from PIL import Image

from skanomaly.datasets import DatasetSplit, ImageSet, find_problems, make_surfaces, read_mvtec
from skanomaly.datasets._check import doubtful_images, unusable_files
from skanomaly.datasets._surfaces import write_surfaces


@pytest.fixture
def category(tmp_path):
    write_surfaces(tmp_path / "nut", "fabric", 14, 64, 0)
    assert find_problems(read_mvtec(tmp_path / "nut"), deep=True) == []
    return tmp_path / "nut"


def found(root, **options):
    """Problems as {path relative to the root: reason}."""
    problems = find_problems(read_mvtec(root), **options)
    assert len({path for path, _ in problems}) == len(problems)
    return {path.relative_to(root).as_posix(): reason for path, reason in problems}


def test_a_truncated_file_is_found_by_decoding_it(category):
    split = read_mvtec(category)
    for path in (split.train.images[2], split.test.images[-1]):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    names = [path.relative_to(category).as_posix() for path in (split.train.images[2], path)]
    assert found(category) == {}
    reasons = found(category, deep=True)
    assert list(reasons) == names
    assert all("the image is truncated, damaged" in reason for reason in reasons.values())
    split.train.images[2].write_bytes(b"no image")  # said once, not by the header and the pixels
    assert list(found(category, deep=True)) == names


def test_secret_test_images_are_decoded_too(category):
    path = category / "secret.png"
    data = read_mvtec(category).test.images[0].read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    split = read_mvtec(category)
    split = DatasetSplit("nut", split.train, split.test, unlabelled={"private": [path]})
    assert find_problems(split) == []
    assert [name for name, _ in find_problems(split, deep=True)] == [path]


def test_pixels_beyond_the_limit_are_found_by_the_header(category, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    reasons = found(category)
    split = read_mvtec(category)
    assert len(reasons) == len(split.train) + len(split.test)
    assert all("limit of 4095" in reason for reason in reasons.values())


def test_copies_of_training_images_are_named(category):
    split = read_mvtec(category)
    shutil.copy(split.train.images[3], category / "train/good/again.png")
    shutil.copy(split.train.images[5], category / "test/good/leak.png")
    defective = split.test.images[-1].parent
    shutil.copy(split.train.images[6], defective / "zz.png")
    shutil.rmtree(category / "ground_truth")
    shutil.copy(split.test.images[0], category / "test/good/twice.png")
    for deep in (False, True):
        reasons = found(category, deep=deep)
        assert set(reasons) == {
            "train/good/again.png",
            "test/good/leak.png",
            "test/good/twice.png",
            f"test/{defective.name}/zz.png",
        }
        first = split.train.images
        assert reasons["train/good/again.png"].startswith(
            f"the same image as {first[3]}: training images that are copies vouch for each other"
        )
        assert reasons["test/good/leak.png"] == (
            f"the same image as the training image {first[5]}: it tests nothing"
        )
        assert reasons[f"test/{defective.name}/zz.png"] == (
            f"the same image as the training image {first[6]}: it tests nothing; that one is "
            "labelled normal, this one anomalous"
        )
        assert reasons["test/good/twice.png"] == (
            f"the same image as {split.test.images[0]}: it counts twice"
        )
    again = read_mvtec(category)
    assert unusable_files([again.train, again.test]) == [] and len(doubtful_images(again)) == 4


def test_near_copies_are_found_by_decoding(category):
    split = read_mvtec(category)
    rng = np.random.default_rng(0)

    def shot_again(path, target):
        with Image.open(path) as image:
            pixels = np.asarray(image).astype(int)
        noisy = np.clip(pixels + rng.integers(-3, 4, pixels.shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(target)

    shot_again(split.train.images[3], category / "train/good/burst.png")
    shot_again(split.train.images[5], category / "test/good/burst.png")
    assert found(category) == {}
    reasons = found(category, deep=True)
    assert set(reasons) == {"train/good/burst.png", "test/good/burst.png"}
    near = f"nearly the same image as {split.train.images[3]}: training images that are copies"
    assert reasons["train/good/burst.png"].startswith(near)
    assert reasons["test/good/burst.png"].startswith(
        f"nearly the same image as the training image {split.train.images[5]}"
    )
    # A burst that is declared as such is no fault; one part on both sides is.
    train, test = read_mvtec(category).train, read_mvtec(category).test
    parts = [
        "p3" if path.name in (split.train.images[3].name, "burst.png") else path.name
        for path in train.images
    ]
    fields = [(s.images, s.y, s.masks, s.defect_types, s.name) for s in (train, test)]
    with_groups = DatasetSplit("nut", ImageSet(*fields[0], groups=parts), test)
    assert [path for path, _ in find_problems(with_groups, deep=True)] == [
        category / "test/good/burst.png"
    ]


def test_a_set_that_is_nearly_black(category):
    """12 bits in files of 16, as cameras write them."""
    for path in category.rglob("*.png"):
        if "ground_truth" not in path.parts:
            with Image.open(path) as image:
                values = np.asarray(image.convert("L")).astype(np.uint16) * 16
            Image.fromarray(values).save(path)
    assert find_problems(read_mvtec(category)) == []
    ((path, reason),) = found(category, deep=True).items()
    assert path.startswith("train/") and "Pass value_range=4095" in reason


def test_a_path_listed_twice(category):
    split = read_mvtec(category)
    train = split.train
    doubled = ImageSet(
        [*train.images, train.images[0]],
        [*train.y, 1],
        [*train.masks, None],
        [*train.defect_types, "good"],
        train.name,
    )
    problems = find_problems(DatasetSplit("nut", doubled, split.test))
    assert problems == [(train.images[0], "is listed twice")]


def test_a_group_on_both_sides(category):
    split = read_mvtec(category)
    train, test = (
        ImageSet(s.images, s.y, s.masks, s.defect_types, s.name, groups=groups)
        for s, groups in (
            (split.train, [f"a{i // 2}" for i in range(len(split.train))]),
            (split.test, ["a3", "a3", *(f"b{i}" for i in range(2, len(split.test)))]),
        )
    )
    problems = find_problems(DatasetSplit("nut", train, test))
    assert problems == [(test.images[0], f"its group, 'a3', is trained on too: {train.images[6]}")]


def test_inverted_masks(category):
    split = read_mvtec(category)
    for mask in filter(None, split.test.masks):
        with Image.open(mask) as image:
            inverted = 255 - np.asarray(image.convert("L"))
        Image.fromarray(inverted).save(mask)
    ((path, reason),) = find_problems(split)
    assert path == split.test.images[list(split.test.y).index(-1)]
    assert "as all others of nut/test, marks more than half of the image" in reason
    Image.new("L", (64, 64), 255).save(mask)  # one that marks a whole image is meant so
    assert find_problems(split) == []


def test_thumbnails_are_means_of_fields():
    from skanomaly.datasets._copies import thumbnail

    image = make_surfaces(1, 0, image_size=64, random_state=0).images[0]
    fields = image.astype(float).mean(axis=2).reshape(32, 2, 32, 2).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(thumbnail(image), fields.ravel(), atol=1e-6)
    np.testing.assert_allclose(
        thumbnail((image / 255).astype(np.float32)), fields.ravel(), atol=1e-6
    )
