"""Reader of the MVTec AD layout, and the records which readers return."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from _image_files import png16
from PIL import Image

from skanomaly.datasets import (
    DatasetSplit,
    ImageSet,
    find_problems,
    make_surfaces,
    read_mvtec,
)
from skanomaly.datasets._records import LayoutError

VALID = (
    "train/good/000.png",
    "train/good/001.png",
    "test/good/000.png",
    "test/crack/000.png",
    "test/crack/001.png",
    "test/bent/000.png",
    "ground_truth/crack/000_mask.png",
    "ground_truth/crack/001_mask.png",
    "ground_truth/bent/000_mask.png",
)


def write_mask(path, size=(8, 8)):
    mask = np.zeros(size, dtype=np.uint8)
    mask[2:4, 3:5] = 255
    Image.fromarray(mask).save(path)


def add(root, *names):
    """Write files (tiny images where the name says so) and folders (a name ending with /)."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".txt", ".db", ".ini", ".json", ""):
            path.write_text("no image")
        elif name.startswith("ground_truth"):
            write_mask(path)
        else:
            Image.new("RGB", (8, 8), (90, 120, 150)).save(path)
    return root


@pytest.fixture
def root(tmp_path):
    return add(tmp_path / "nut", *VALID)


def offenders(root):
    with pytest.raises(LayoutError) as caught:
        read_mvtec(root)
    assert isinstance(caught.value, ValueError)
    return {path.relative_to(root).as_posix(): reason for path, reason in caught.value.offenders}


# ---- trees that are read ----


def test_reads_a_valid_tree(root):
    split = read_mvtec(root)
    assert isinstance(split, DatasetSplit) and split.name == "nut"
    train, test = split.train, split.test
    assert train.name == "nut/train" and test.name == "nut/test"
    assert train.images == (root / VALID[0], root / VALID[1])
    assert train.y.tolist() == [1, 1] and train.masks == (None, None)
    assert test.defect_types == ("good", "bent", "crack", "crack")
    assert test.y.tolist() == [1, -1, -1, -1] and len(test) == 4
    assert test.masks == (
        None,
        root / "ground_truth/bent/000_mask.png",
        root / "ground_truth/crack/000_mask.png",
        root / "ground_truth/crack/001_mask.png",
    )
    assert all(path.is_absolute() for path in test.images)


def test_good_comes_first_even_where_a_class_sorts_before_it(root):
    add(root, "test/Zebra/b.png", "test/Zebra/a.JPG", "test/Zebra/B.png")
    test = read_mvtec(root).test
    assert test.defect_types == ("good", *["Zebra"] * 3, "bent", "crack", "crack")
    assert [path.name for path in test.images[1:4]] == ["B.png", "a.JPG", "b.png"]


@pytest.mark.parametrize("suffix", ".PNG .jpg .JPEG .bmp .tif .TIFF .webp .pgm .ppm".split())
def test_image_suffixes_in_any_case(root, suffix):
    name = f"test/bent/x y.v2{suffix}"
    Image.new("L" if suffix == ".pgm" else "RGB", (8, 8)).save(root / name)
    write_mask(root / "ground_truth/bent/x y.v2.png")
    test = read_mvtec(root).test
    i = test.images.index(root / name)
    assert test.masks[i] == root / "ground_truth/bent/x y.v2.png"


def test_masks_are_paired_by_name_not_by_position(root):
    # In sorted order the masks of 10 and 9 would swap places.
    add(root, "test/cut/10.jpg", "test/cut/9.jpg", "test/cut/a_mask.jpg")
    add(root, "ground_truth/cut/10.png", "ground_truth/cut/9_mask.bmp")
    add(root, "ground_truth/cut/a_mask_mask.png")
    test = read_mvtec(root).test
    pairs = {
        image.stem: mask.name
        for image, mask, kind in zip(test.images, test.masks, test.defect_types, strict=True)
        if kind == "cut"
    }
    assert pairs == {"10": "10.png", "9": "9_mask.bmp", "a_mask": "a_mask_mask.png"}


def test_masks_are_unknown_without_a_folder(root):
    add(root, "test/cut/0.png")
    test = read_mvtec(root).test
    i = test.defect_types.index("cut")
    assert test.masks[i] is None and test.load_mask(i) is None
    assert not test.load_mask(0).any()


@pytest.mark.parametrize("empty", [False, True])
def test_no_ground_truth_at_all(tmp_path, empty):
    root = add(tmp_path, *(name for name in VALID if not name.startswith("ground_truth")))
    if empty:
        add(root, "ground_truth/")
    assert read_mvtec(root).test.masks == (None,) * 4


def test_leftovers_of_desktops_and_tools_are_skipped(root):
    before = read_mvtec(root).test.images
    add(
        root,
        "license.txt",
        "notes/readme.txt",
        ".git/config.txt",
        "train/.DS_Store",
        "train/good/._000.png",
        "train/good/Thumbs.db",
        "test/.ipynb_checkpoints/000.png",
        "test/crack/desktop.ini",
        "test/crack/.hidden.txt",
        "ground_truth/.cache/0.png",
        "ground_truth/crack/THUMBS.DB",
    )
    (root / "train/good/._001.png").write_bytes(b"resource fork")
    split = read_mvtec(root)
    assert split.test.images == before and len(split.train) == 2


def test_root_as_str_relative_or_link(root, monkeypatch):
    monkeypatch.chdir(root.parent)
    assert read_mvtec("nut").train.images == read_mvtec(str(root)).train.images
    monkeypatch.chdir(root)
    assert read_mvtec(".").name == "nut"
    os.symlink(root, root.parent / "alias")
    assert read_mvtec(root.parent / "alias").name == "alias"


def test_links_inside_of_the_root_are_followed(root):
    os.symlink(root / "train/good/000.png", root / "train/good/002.png")
    os.symlink("bent", root / "test/dull")
    split = read_mvtec(root)
    assert split.train.images[2] == root / "train/good/002.png"
    assert root / "test/dull/000.png" in split.test.images


# ---- trees that are refused ----


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train/good/notes.txt"], {"train/good/notes.txt": "not an image suffix"}),
        (["test/bent/README"], {"test/bent/README": "not an image suffix"}),
        (["ground_truth/bent/a.json"], {"ground_truth/bent/a.json": "not an image suffix"}),
        (
            ["train/good/000.JPG"],
            {"train/good/000.JPG": "one of 2 images", "train/good/000.png": "one of 2 images"},
        ),
        (
            ["test/bent/000.jpg"],
            {"test/bent/000.jpg": "one of 2 images", "test/bent/000.png": "one of 2 images"},
        ),
        (["ground_truth/bent/7_mask.png"], {"ground_truth/bent/7_mask.png": "there is no image"}),
        (["ground_truth/cut/0_mask.png"], {"ground_truth/cut/0_mask.png": "there is no image"}),
        (
            ["ground_truth/bent/000.png"],
            {
                "ground_truth/bent/000.png": "one of 2 masks",
                "ground_truth/bent/000_mask.png": "one of 2 masks",
            },
        ),
        (
            ["ground_truth/bent/000_mask.bmp"],
            {
                "ground_truth/bent/000_mask.bmp": "one of 2 masks",
                "ground_truth/bent/000_mask.png": "one of 2 masks",
            },
        ),
        (["test/bent/001.png"], {"test/bent/001.png": "no mask in ground_truth/bent"}),
        (["ground_truth/good/000_mask.png"], {"ground_truth/good/000_mask.png": "good images"}),
        (["test/dull/"], {"test/dull": "empty class folder"}),
        (["ground_truth/dull/"], {"ground_truth/dull": "empty class folder"}),
        (["train/bad/000.png"], {"train/bad": "train holds only good parts"}),
        (["test/000.png"], {"test/000.png": "outside of the class folders"}),
        (["ground_truth/000.png"], {"ground_truth/000.png": "outside of the class folders"}),
        (["test/bent/more/000.png"], {"test/bent/more": "a folder within a class folder"}),
    ],
)
def test_offenders(root, names, expected):
    found = offenders(add(root, *names))
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in found[name]


def test_a_mask_that_fits_two_images(root):
    add(root, "test/cut/a.png", "test/cut/a_mask.png", "ground_truth/cut/a_mask.png")
    found = offenders(root)
    assert found == {"ground_truth/cut/a_mask.png": "a mask of either image: a, a_mask"}


@pytest.mark.parametrize("name", ["train", "test", "ground_truth"])
def test_file_in_place_of_a_folder(root, name):
    moved = root / name
    moved.rename(root / "elsewhere")
    moved.write_text("no folder")
    if name == "train":
        assert "looked for" in offenders(root)["train/good"]
    else:
        assert offenders(root)[name] == "is not a folder"


def test_missing_or_empty_test_folder(tmp_path):
    root = add(tmp_path, "train/good/0.png")
    assert offenders(root) == {"test": "this folder is missing"}
    add(root, "test/")
    assert offenders(root) == {"test": "holds no class folder"}


def test_empty_train_folder(tmp_path):
    root = add(tmp_path, "train/good/", "test/good/0.png")
    reason = offenders(root)["train/good"]
    assert "looked for image files" in reason and "the root contains: test/, train/" in reason


def test_missing_train_folder_says_what_is_there(tmp_path):
    root = add(tmp_path, "images/0.png", "readme.txt")
    with pytest.raises(ValueError, match=r"train/good: looked for.*contains: images/, readme.txt"):
        read_mvtec(root)
    assert "contains: nothing" in offenders(add(tmp_path, "empty/") / "empty")["train/good"]


def test_parent_of_categories(root):
    add(root.parent / "bolt", *VALID)
    with pytest.raises(ValueError, match="parent of categories, pass one of them: bolt/, nut/"):
        read_mvtec(root.parent)


def test_root_must_be_a_folder(root):
    with pytest.raises(FileNotFoundError, match="nothing_here"):
        read_mvtec(root / "nothing_here")
    with pytest.raises(NotADirectoryError, match=r"000\.png"):
        read_mvtec(root / "test/good/000.png")
    with pytest.raises(TypeError):
        read_mvtec(3)


def test_links_out_of_the_root_and_broken_links(root):
    outside = add(root.parent, "outside/0.png")
    os.symlink(outside / "outside/0.png", root / "train/good/out.png")
    os.symlink(outside / "outside", root / "test/out")
    os.symlink("nowhere.png", root / "test/good/broken.png")
    os.symlink("loop.png", root / "test/good/loop.png")
    found = offenders(root)
    assert found.keys() == {
        "train/good/out.png",
        "test/out",
        "test/good/broken.png",
        "test/good/loop.png",
    }
    assert "outside of the root" in found["train/good/out.png"]
    assert "outside of the root" in found["test/out"]
    assert "broken" in found["test/good/broken.png"] and "broken" in found["test/good/loop.png"]


def test_one_error_lists_everything(root):
    add(root, *(f"train/good/note{i:02}.txt" for i in range(30)), "test/dull/")
    with pytest.raises(LayoutError) as caught:
        read_mvtec(root)
    error = caught.value
    assert len(error.offenders) == 31 and error.root == root
    message = str(error)
    assert "31 paths do not fit" in message and message.endswith("and 11 more")
    assert message.count("not an image suffix") == 20
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == message and copy.offenders == error.offenders


# ---- masks ----


def image_set(folder, mask, size=(8, 8)):
    Image.new("RGB", size[::-1]).save(folder / "image.png")
    mask.save(folder / "mask.png")
    return ImageSet([folder / "image.png"], [-1], [folder / "mask.png"], ["crack"], "one")


MARKED = np.zeros((8, 8), dtype=bool)
MARKED[1:3, 2:7] = True


def as_palette(colours):
    image = Image.new("P", (8, 8))
    image.putdata(MARKED.ravel().astype(int).tolist())
    image.putpalette(colours)
    return image


def with_alpha(rgb, alpha):
    return Image.fromarray(np.dstack([rgb, alpha]).astype(np.uint8))


WHITE, BLACK = np.full((8, 8, 3), 255), np.zeros((8, 8, 3))
OPAQUE = np.full((8, 8), 255)


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(MARKED),
        Image.fromarray(MARKED * np.uint8(255)),
        Image.fromarray(MARKED * np.uint8(1)),
        Image.fromarray(MARKED * np.uint16(1)),
        Image.fromarray(MARKED[..., None] * np.uint8([0, 0, 3])),
        as_palette([0, 0, 0, 128, 0, 0]),
        with_alpha(MARKED[..., None] * WHITE, OPAQUE),
        with_alpha(MARKED[..., None] * np.array([0, 9, 0]), OPAQUE),
        with_alpha(WHITE, MARKED * 255),
        with_alpha(MARKED[..., None] * WHITE, MARKED * 40),
        Image.fromarray(np.dstack([MARKED * 255, MARKED * 255]).astype(np.uint8)),
    ],
    ids="bit grey one 16bit blue palette rgba green_alpha cut_out half_alpha grey_alpha".split(),
)
def test_load_mask_of_any_kind_of_file(tmp_path, mask):
    loaded = image_set(tmp_path, mask).load_mask(0)
    assert loaded.dtype == bool and np.array_equal(loaded, MARKED)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_load_mask_with_a_transparent_key(tmp_path, dtype):
    images = image_set(tmp_path, Image.fromarray(MARKED * dtype(200)))
    with Image.open(images.masks[0]) as mask:
        mask.load()
    mask.save(images.masks[0], transparency=0)
    assert np.array_equal(images.load_mask(0), MARKED)


def test_load_mask_of_16_bit_colour(tmp_path):
    """Which is read at its precision: one of 65536 steps is a level."""
    images = image_set(tmp_path, Image.fromarray(MARKED))
    marked = MARKED[..., None] * np.array([0, 1, 0], dtype=np.uint16)
    images.masks[0].write_bytes(png16(marked))
    assert np.array_equal(images.load_mask(0), MARKED)
    marked[1, 2] = 7
    images.masks[0].write_bytes(png16(marked))
    with pytest.raises(ValueError, match=r"3 levels \(#000000000000, #000000010000, #0007000"):
        images.load_mask(0)


def test_load_mask_of_a_palette_with_transparency(tmp_path):
    images = image_set(tmp_path, as_palette([255, 255, 255, 128, 0, 0]))
    as_palette([255, 255, 255, 128, 0, 0]).save(images.masks[0], transparency=0)
    assert np.array_equal(images.load_mask(0), MARKED)


def compressed(mask, path, **options):
    """What is left of a mask after a trip through JPEG."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, "JPEG", **options)
    with Image.open(path) as image:
        return np.asarray(image)


SMOOTH = Image.fromarray(np.kron(MARKED, np.ones((4, 4))).astype(np.uint8) * 255).resize((8, 8))
GREY = np.where(MARKED, 255, 0)
GREY[1, 2] = 90


@pytest.mark.parametrize(
    ("mask", "levels"),
    [
        (SMOOTH.resize((5, 5)).resize((8, 8)), r"levels \(0, "),
        (Image.fromarray(GREY.astype(np.uint8)), r"3 levels \(0, 90, 255\)"),
        (Image.fromarray(np.where(MARKED, 255, 128).astype(np.uint8)), r"2 levels \(128, 255\)"),
        (Image.fromarray(GREY.astype(np.uint16) * 256), "3 levels"),
        (with_alpha(np.dstack([GREY] * 3), OPAQUE), r"3 levels \(0, 90, 255\)"),
        (with_alpha(WHITE, GREY), r"the transparency of mask .* 3 levels \(0, 90, 255\)"),
        (
            Image.fromarray(np.dstack([GREY, MARKED * 255, MARKED * 0]).astype(np.uint8)),
            "3 levels .#000000, #5aff00, #ffff00.",
        ),
        (as_palette([255, 255, 255, 128, 0, 0]), r"2 levels \(#800000, #ffffff\)"),
    ],
    ids="smooth three no_black 16bit rgba alpha colours white_palette".split(),
)
def test_a_mask_of_other_levels_is_refused_with_them(tmp_path, mask, levels):
    images = image_set(tmp_path, mask)
    with pytest.raises(ValueError, match=r"mask .*mask.png holds \d+ levels .* save masks as PNG"):
        images.load_mask(0)
    with pytest.raises(ValueError, match=levels):
        images.load_mask(0)
    ((path, reason),) = find_problems(DatasetSplit("parts", images, images))[:1]
    assert path == images.images[0] and "but a mask has two, 0 and one other" in reason


def test_a_mask_that_went_through_jpeg(tmp_path):
    read = compressed(MARKED, tmp_path / "mask.jpg", quality=90)
    assert len(np.unique(read)) > 2  # noise, which once counted as defective
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    images = ImageSet([tmp_path / "image.png"], [-1], [tmp_path / "mask.jpg"], ["cut"], "parts")
    with pytest.raises(ValueError, match=r"mask.jpg holds \d+ levels .*JPEG and smooth resizing"):
        images.load_mask(0)
    # One that has two levels all the same, whatever its suffix.
    left = np.zeros((8, 8), bool)
    read = compressed(left | True, tmp_path / "mask.jpg", quality=100)
    assert np.unique(read).tolist() == [255]
    assert images.load_mask(0).all()
    Image.fromarray(MARKED).save(tmp_path / "mask.jpg", "PNG")
    assert np.array_equal(images.load_mask(0), MARKED)


def test_ids_of_defects_are_for_layouts_that_have_them(tmp_path):
    ids = np.where(MARKED, np.arange(1, 9), 0).astype(np.uint8)
    plain = image_set(tmp_path, Image.fromarray(ids))
    with pytest.raises(ValueError, match="ids of defects, pass or save `mask != 0`"):
        plain.load_mask(0)
    fields = (plain.images, plain.y, plain.masks, plain.defect_types, "parts")
    with_ids = ImageSet(*fields, class_ids=True)
    assert np.array_equal(with_ids.load_mask(0), MARKED)
    Image.fromarray(ids).save(plain.masks[0], "JPEG")
    with pytest.raises(ValueError, match="is a JPEG, whose compression changes the ids"):
        with_ids.load_mask(0)


def test_normal_mask_has_the_size_of_its_own_image(tmp_path):
    Image.new("L", (5, 9)).save(tmp_path / "a.png")
    Image.new("L", (7, 3)).save(tmp_path / "b.png")
    images = ImageSet(
        [tmp_path / "a.png", tmp_path / "b.png"], [1, 1], [None] * 2, ["good"] * 2, ""
    )
    assert [images.load_mask(i).shape for i in range(2)] == [(9, 5), (3, 7)]
    assert images.load_mask(0).dtype == bool and not images.load_mask(0).any()


def test_mask_of_another_size_names_both_files(tmp_path):
    images = image_set(tmp_path, Image.fromarray(MARKED), size=(8, 9))
    with pytest.raises(ValueError, match=r"mask.png \(8, 8\), image .*image.png \(8, 9\)"):
        images.load_mask(0)


@pytest.mark.parametrize(
    "mask", [Image.new("L", (8, 8)), with_alpha(BLACK, MARKED * 255), with_alpha(WHITE, 0 * OPAQUE)]
)
def test_mask_without_a_marked_pixel(tmp_path, mask):
    with pytest.raises(ValueError, match=r"mask.png marks no pixel"):
        image_set(tmp_path, mask).load_mask(0)


def test_unreadable_mask(tmp_path):
    images = image_set(tmp_path, Image.fromarray(MARKED))
    images.masks[0].write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"mask\.png"):
        images.load_mask(0)


# ---- records ----


def test_image_set_is_frozen_and_keeps_a_copy_of_y():
    y = np.array([1, -1])
    images = ImageSet(["a.png", "b.png"], y, [None, "m.png"], ["good", "cut"], "x")
    y[0] = -1
    assert images.y.tolist() == [1, -1] and images.y.dtype == np.int64
    assert images.images == (Path("a.png"), Path("b.png"))
    assert images.masks == (None, Path("m.png"))
    with pytest.raises(ValueError, match="read-only"):
        images.y[0] = 1
    with pytest.raises(AttributeError):
        images.name = "y"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [1, 1], [None], ["good"]), "lengths differ"),
        ((["a", "b"], [1], [None], ["good"]), "lengths differ"),
        ((["a"], [1], [], ["good"]), "lengths differ"),
        ((["a"], [1], [None], []), "lengths differ"),
        ((["a"], [0], [None], ["good"]), "only, got 0: pass"),
        ((["a"], [-1.5], [None], ["cut"]), "only, got -1.5: pass"),
        ((["a"], [[1, 1]], [None], ["good"]), r"y has shape \(1, 2\)"),
        ((["a"], [1], [None], ["cut"]), "a: y is \\+1 but the defect type is 'cut'"),
        ((["a"], [-1], [None], ["good"]), "a: y is -1 but the defect type is 'good'"),
        ((["a"], [1], ["m"], ["good"]), "a normal image with a mask"),
    ],
)
def test_image_set_validation(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(*arguments, "x")


def test_repr_is_short():
    n = 5000
    kinds = ["good"] * n + [f"kind{i % 12}" for i in range(n)]
    images = ImageSet(["a.png"] * 2 * n, np.repeat([1, -1], n), [None] * 2 * n, kinds, "x/test")
    assert "10000 images, 5000 normal, 5000 anomalous (kind0," in repr(images)
    assert repr(images).endswith("kind7, ...), 0 masks)") and len(repr(images)) < 200
    assert len(repr(DatasetSplit("x", images, images))) < 400
    assert "0 anomalous, 0 masks" in repr(ImageSet([], [], [], [], "none"))


# ---- real and generated data ----


@pytest.mark.parametrize(
    ("category", "n_train", "n_good", "n_defective", "size"),
    [("cookies", 31, 14, 32, (512, 384)), ("bottle", 209, 20, 63, (256, 256))],
)
def test_shared_data(shared, category, n_train, n_good, n_defective, size):
    root = shared / "data" / category
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    split = read_mvtec(root)
    assert len(split.train) == n_train and (split.train.y == 1).all()
    assert split.test.y.tolist() == [1] * n_good + [-1] * n_defective
    assert all(mask is not None for mask in split.test.masks[n_good:])
    for i in (0, n_good, n_good + n_defective - 1):
        mask = split.test.load_mask(i)
        assert mask.shape == size and mask.any() == (i >= n_good)


def test_generated_surfaces_survive_the_round_trip(tmp_path):
    data = make_surfaces(2, 5, image_size=32, random_state=0)
    for i, (image, mask, kind) in enumerate(
        zip(data.images, data.masks, data.defect_types, strict=True)
    ):
        folder = "train/good" if i == 0 else f"test/{kind}"
        for part in (folder, f"ground_truth/{kind}") if kind != "good" else (folder,):
            (tmp_path / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / folder / f"{i}.png")
        if kind != "good":
            Image.fromarray(mask).save(tmp_path / f"ground_truth/{kind}/{i}_mask.png")
    test = read_mvtec(tmp_path).test
    assert test.y.tolist() == [1] + [-1] * 5
    for i in range(6):
        k = int(test.images[i].stem)
        assert np.array_equal(test.load_mask(i), data.masks[k])


def test_good_in_another_case_is_refused(tmp_path):
    for name in ("train/good/0.png", "test/Good/0.png", "test/crack/0.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        Image.new("L", (8, 6)).save(path)
    with pytest.raises(ValueError, match="Good: the folder of good images is spelled 'good'"):
        read_mvtec(tmp_path)
