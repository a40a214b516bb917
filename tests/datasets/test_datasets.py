"""Every layout of a data set: faithful trees that are read, bad trees that are refused."""

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skanomaly import datasets
from skanomaly.datasets import (
    DatasetSplit,
    DefectType,
    ImageSet,
    LayoutError,
    find_problems,
    list_categories,
    read_dataset,
    read_folder,
    read_loco,
    read_manifest,
    read_mvtec,
    read_realiad,
    read_visa,
    sniff_layout,
)
from skanomaly.datasets._rows import parse_json

SIZE = (8, 6)  # width, height


def draw(path, size=SIZE, value=255, box=(2, 1, 4, 3)):
    """Write a mask with one rectangle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], dtype=np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = value
    Image.fromarray(mask).save(path)


def put(root, *names):
    """Write images, masks (a folder of masks in the path), folders (ending in /) and texts."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.startswith("._") or path.suffix == ".txt":
            path.write_bytes(b"no image")
        elif "ground_truth/" in name or "Masks/" in name or "_mask." in name:
            draw(path)
        else:
            # No two images are alike, or they would be copies.
            seed = zlib.crc32(path.relative_to(root).as_posix().encode())
            pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
            Image.fromarray(pixels).save(path)
    return root


def put_csv(path, columns, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


# ---- faithful trees: each returns (root, keywords of read_dataset) ----


def make_mvtec(top):
    names = ["train/good/000.png", "train/good/001.png", "test/good/000.png"]
    names += ["test/crack/000.png", "ground_truth/crack/000_mask.png"]
    return put(top / "nut", *names, "license.txt"), {}


def make_visa_converted(top):
    names = ["train/good/0000.JPG", "train/good/0001.JPG", "test/good/0002.JPG"]
    names += ["test/bad/000.JPG", "ground_truth/bad/000.png"]
    return put(top / "candle", *names), {}


def make_mvtec2(top):
    names = ["train/good/000_regular.png", "train/good/001_regular.png"]
    names += ["validation/good/002_regular.png", "test_public/good/003_overexposed.png"]
    names += ["test_public/bad/000_regular.png"]
    names += ["test_public/ground_truth/bad/000_regular_mask.png"]
    names += ["test_private/000.png", "test_private/001.png", "test_private_mixed/000.png"]
    return put(top / "vial", *names), {}


def defect(name, value, threshold, relative=False):
    return {
        "defect_name": name,
        "pixel_value": value,
        "saturation_threshold": threshold,
        "relative_saturation": relative,
    }


LOCO_CONFIG = [defect("missing_pin", 255, 3), defect("broken", 254, 1.0, True)]


def make_loco(top):
    names = ["train/good/000.png", "train/good/001.png", "validation/good/000.png"]
    names += ["test/good/000.png", "test/logical_anomalies/000.png"]
    root = put(top / "pins", *names)
    draw(root / "ground_truth/logical_anomalies/000/000.png", value=255, box=(0, 0, 2, 2))
    draw(root / "ground_truth/logical_anomalies/000/001.png", value=254, box=(1, 1, 4, 3))
    (root / "defects_config.json").write_text(json.dumps(LOCO_CONFIG))
    return root, {}


def make_btad(top):
    names = ["train/ok/0000.bmp", "train/ok/0001.bmp", "test/ok/0000.bmp", "test/ko/0000.bmp"]
    return put(top / "01", *names, "ground_truth/ko/0000.png"), {}


VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def visa_rows(category):
    normal, bad = f"{category}/Data/Images/Normal/", f"{category}/Data/Images/Anomaly/"
    masks = f"{category}/Data/Masks/Anomaly/"
    return [
        [category, "test", "anomaly", bad + "000.JPG", masks + "000.png"],
        [category, "train", "normal", normal + "0000.JPG", ""],
        [category, "train", "normal", normal + "0001.JPG", ""],
        [category, "test", "normal", normal + "0002.JPG", ""],
    ]


def make_visa(top):
    root = top / "VisA_20220922"
    rows = visa_rows("candle") + visa_rows("pcb1")
    put(root, *(row[3] for row in rows))
    for row in rows:
        if row[4]:
            # the ids of two kinds of defects, neither of them 255
            draw(root / row[4], value=np.array([[1, 2], [2, 1]]))
    put_csv(root / "split_csv/1cls.csv", VISA_COLUMNS, rows)
    few = [[row[0], "train", *row[2:]] if row[2] == "anomaly" else row for row in rows]
    put_csv(root / "split_csv/2cls_fewshot.csv", VISA_COLUMNS, few)
    put_csv(root / "candle/image_anno.csv", ("image", "label", "mask"), [])
    return root, {"category": "candle"}


def realiad_entry(kind, image, mask=None):
    return {"category": "toy", "anomaly_class": kind, "image_path": image, "mask_path": mask}


def realiad_lists():
    return {
        "meta": {"prefix": "toy/", "normal_class": "OK", "pre_transform": None},
        "train": [realiad_entry("OK", f"OK/S000{i}/toy_000{i}_OK_C1.jpg") for i in (1, 2)],
        "test": [
            realiad_entry("BX", "NG/BX/S0003/toy_C1.jpg", "NG/BX/S0003/toy_C1_mask.png"),
            realiad_entry("OK", "NG/BX/S0003/toy_C2.jpg"),
        ],
    }


def make_realiad(top, lists=None):
    root = top / "Real-IAD"
    lists = realiad_lists() if lists is None else lists
    for entry in lists["train"] + lists["test"]:
        names = [entry["image_path"], entry["mask_path"]]
        put(root / "realiad_256/toy", *(name for name in names if name))
    path = root / "realiad_jsons/realiad_jsons/toy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lists))
    return root, {"category": "toy"}


def make_folder(top):
    names = [f"good/{i}.png" for i in range(3)] + ["bad/7.png", "ground_truth/bad/7.png"]
    return put(top / "line", *names, "readme.txt"), {"test_size": 1}


MANIFEST_COLUMNS = ("image", "y", "mask", "split", "defect_type", "group", "camera")
MANIFEST_ROWS = [
    ["images/a.png", "1", "", "train", "", "p1", "left"],
    ["images/b.png", "1", "", "train", "good", "p2", "left"],
    ["images/c.png", "1", "", "test", "", "p3", "left"],
    ["images/d.png", "-1", "truth/d_mask.png", "test", "scratch", "p3", "right"],
]


def make_csv(top, rows=MANIFEST_ROWS, columns=MANIFEST_COLUMNS):
    root = put(top / "shop", "images/a.png", "images/b.png", "images/c.png", "images/d.png")
    put(root, "truth/d_mask.png")
    put_csv(root / "manifest.csv", columns, rows)
    return root, {}


def make_jsonl(top):
    root, _ = make_csv(top)
    (root / "manifest.csv").unlink()
    rows = [dict(zip(MANIFEST_COLUMNS, row, strict=True)) for row in MANIFEST_ROWS]
    rows = [{**row, "y": int(row["y"]), "mask": row["mask"] or None} for row in rows]
    text = "\ufeff" + "\n\n".join(json.dumps(row) for row in rows)
    (root / "manifest.jsonl").write_text(text, encoding="utf-8")
    return root, {}


# layout, maker, type of the defect, index of the defective image's mask files
LAYOUTS = {
    "mvtec": (make_mvtec, "mvtec", "crack", "000_mask.png"),
    "visa_converted": (make_visa_converted, "mvtec", "bad", "000.png"),
    "mvtec2": (make_mvtec2, "mvtec2", "bad", "000_regular_mask.png"),
    "loco": (make_loco, "loco", "logical_anomalies", None),
    "btad": (make_btad, "btad", "ko", "0000.png"),
    "visa": (make_visa, "visa", "anomaly", "000.png"),
    "realiad": (make_realiad, "realiad", "BX", "toy_C1_mask.png"),
    "folder": (make_folder, "folder", "bad", "7.png"),
    "csv": (make_csv, "manifest", "scratch", "d_mask.png"),
    "jsonl": (make_jsonl, "manifest", "scratch", "d_mask.png"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognised_and_read(tmp_path, name):
    make, layout, kind, mask = LAYOUTS[name]
    root, options = make(tmp_path)
    assert sniff_layout(root) == layout
    split = read_dataset(root, **options)
    forced = read_dataset(str(root), layout, **options)
    assert split.test.images == forced.test.images and isinstance(split, DatasetSplit)
    assert split.name == options.get("category", root.name)
    assert split.train.y.tolist() == [1, 1] and split.test.y.tolist() == [1, -1]
    assert split.test.defect_types == ("good", kind)
    assert split.train.masks == (None, None) and split.test.masks[0] is None
    assert all(path.is_absolute() for path in split.train.images + split.test.images)
    if mask is not None:
        assert split.test.masks[1].name == mask
        assert np.argwhere(split.test.load_mask(1)).tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert not split.test.load_mask(0).any() and split.test.load_mask(0).shape == SIZE[::-1]
    assert find_problems(split) == []
    assert pickle.loads(pickle.dumps(split)).test.masks == split.test.masks
    assert split.name in repr(split)


# ---- what each layout has of its own ----


def test_mvtec2_validation_and_private_images(tmp_path):
    root, _ = make_mvtec2(tmp_path)
    split = read_dataset(root)
    assert split.validation.images == (root / "validation/good/002_regular.png",)
    assert split.validation.y.tolist() == [1] and split.validation.name == "vial/validation"
    assert split.unlabelled == {
        "test_private": (root / "test_private/000.png", root / "test_private/001.png"),
        "test_private_mixed": (root / "test_private_mixed/000.png",),
    }
    (root / "test_private/000.png").write_bytes(b"not an image")
    assert [path for path, _ in find_problems(split)] == [root / "test_private/000.png"]
    for name in ("test_private", "test_private_mixed", "validation"):
        shutil.rmtree(root / name)
    split = read_dataset(root)
    assert split.validation is None and split.unlabelled is None


def test_loco_regions_and_saturation(tmp_path):
    root, _ = make_loco(tmp_path)
    split = read_loco(root)
    test = split.test
    folder = root / "ground_truth/logical_anomalies/000"
    assert test.masks == (None, (folder / "000.png", folder / "001.png"))
    assert split.validation.images == (root / "validation/good/000.png",)
    assert test.load_mask(1).sum() == 9  # 4 and 6 pixels, of which they share one
    regions, saturation = test.load_regions(1)
    assert regions.dtype == bool and regions.sum(axis=(1, 2)).tolist() == [4, 6]
    assert saturation.tolist() == [3, 6]
    assert np.array_equal(regions.any(axis=0), test.load_mask(1))
    regions, saturation = test.load_regions(0)
    assert regions.shape == (0, 6, 8) and saturation.shape == (0,)
    assert test.defects == (
        DefectType("missing_pin", 255, 3, False),
        DefectType("broken", 254, 1.0, True),
    )
    draw(folder / "001.png", value=7)
    with pytest.raises(ValueError, match=r"001.png holds the pixel value 7, .*\[254, 255\]"):
        test.load_regions(1)
    assert [path.name for path, _ in find_problems(split)] == ["000.png"]
    draw(folder / "001.png", value=np.array([[255, 254], [254, 255]]))
    for load in (test.load_regions, test.load_mask):
        with pytest.raises(ValueError, match=r"001.png holds 3 levels \(0, 254, 255\)"):
            load(1)


def test_loco_without_config_or_masks(tmp_path):
    root, _ = make_loco(tmp_path)
    (root / "defects_config.json").unlink()
    test = read_dataset(root).test
    assert test.defects is None and test.load_mask(1).sum() == 9
    with pytest.raises(ValueError, match="no defects with saturation"):
        test.load_regions(1)
    (root / "defects_config.json").write_text(json.dumps(LOCO_CONFIG))
    shutil.rmtree(root / "ground_truth")
    test = read_dataset(root).test
    assert test.masks == (None, None)
    assert test.load_mask(1) is None and test.load_regions(1) is None


@pytest.mark.parametrize(
    ("arguments", "area", "expected"),
    [((20, False), 8, 8), ((20, False), 80, 20), ((0.5, True), 9, 4), ((0.5, True), 1, 1)],
)
def test_saturation_area(arguments, area, expected):
    assert DefectType("x", 255, *arguments).saturation_area(area) == expected


def test_visa_splits_and_categories(tmp_path):
    root, _ = make_visa(tmp_path)
    assert list_categories(root) == ("candle", "pcb1")
    with pytest.raises(LayoutError, match="several categories, pass one of them; .* candle, pcb1"):
        read_visa(root)
    with pytest.raises(LayoutError, match="no 'apple'; it lists: candle, pcb1"):
        read_visa(root, "apple")
    with pytest.raises(LayoutError, match="2cls.csv: looked for .* found 1cls, 2cls_fewshot"):
        read_visa(root, "candle", split="2cls")
    rows = [["candle", "train", "normal", *row[3:]] for row in visa_rows("candle")[1:2]]
    put_csv(root / "split_csv/own.csv", VISA_COLUMNS, rows)
    with pytest.raises(LayoutError, match="lists no test image of candle"):
        read_visa(root, split="own")
    with pytest.raises(LayoutError, match=r"one category of VisA.*category='candle'"):
        read_dataset(root / "candle")


def test_visa_two_class_split_has_anomalies_in_train(tmp_path):
    root, _ = make_visa(tmp_path)
    put(root, "candle/Data/Images/Anomaly/001.JPG", "candle/Data/Masks/Anomaly/001.png")
    rows = visa_rows("candle")
    extra = [cell.replace("000.", "001.") for cell in rows[0]]
    put_csv(
        root / "split_csv/2cls_highshot.csv", VISA_COLUMNS, [*rows, [extra[0], "train", *extra[2:]]]
    )
    split = read_dataset(root, category="candle", split="2cls_highshot")
    assert split.train.y.tolist() == [1, 1, -1] and split.train.masks[2].name == "001.png"


def test_realiad_groups_and_nullable_masks(tmp_path):
    lists = realiad_lists()
    lists["test"][0]["mask_path"] = None
    lists["train"].append(realiad_entry("HS", "NG/HS/S0009/toy_C4.jpg"))
    root, _ = make_realiad(tmp_path, lists)
    split = read_realiad(root)
    assert split.train.groups == ("OK/S0001", "OK/S0002", "NG/HS/S0009")
    assert split.train.y.tolist() == [1, 1, -1]
    assert split.test.groups == ("NG/BX/S0003",) * 2
    assert split.test.masks == (None, None) and split.test.load_mask(1) is None


def test_realiad_resolutions_and_lists(tmp_path):
    root, _ = make_realiad(tmp_path)
    shutil.copytree(root / "realiad_256", root / "realiad_1024")
    with pytest.raises(LayoutError, match="several resolutions, pass one of them: 1024, 256"):
        read_realiad(root)
    split = read_realiad(root, resolution=1024)
    assert split.test.images[0].is_relative_to(root / "realiad_1024")
    with pytest.raises(LayoutError, match="realiad_512/toy: looked for"):
        read_realiad(root, resolution="512")
    single = root / "realiad_jsons/realiad_jsons_sv"
    shutil.copytree(root / "realiad_jsons/realiad_jsons", single)
    shutil.copy(single / "toy.json", single / "usb.json")
    options = {"annotations": "realiad_jsons/realiad_jsons_sv", "resolution": 256}
    assert len(read_realiad(root, "toy", **options).test) == 2
    with pytest.raises(LayoutError, match="several categories, pass one of them: toy, usb"):
        read_realiad(root, **options)
    with pytest.raises(LayoutError, match="no 'zip'; the categories are: toy"):
        read_realiad(root, "zip", resolution=256)
    with pytest.raises(LayoutError, match="<category>.json here; the root contains: realiad_1024/"):
        read_realiad(root, annotations="none")
    assert list_categories(root) == ("toy",)


def test_folder_with_other_names(tmp_path):
    root = put(tmp_path / "line", "ok/0.png", "ok/1.png", "ok_new/2.png", "dent/3.png", "cut/4.png")
    put(root, "marks/dent/3_mask.png")
    split = read_dataset(root, "folder", normal="ok", normal_test="ok_new", masks="marks")
    assert [path.name for path in split.train.images] == ["0.png", "1.png"]
    assert split.test.defect_types == ("good", "cut", "dent")
    assert split.test.masks == (None, None, root / "marks/dent/3_mask.png")
    split = read_folder(root, "ok", anomalous="cut", test_size=0.5)
    assert len(split.train) == 1 and split.test.defect_types == ("good", "cut")
    assert split.train.images == read_folder(root, "ok", "cut", test_size=0.5).train.images
    with pytest.raises(ValueError, match="two purposes"):
        read_folder(root, "ok", anomalous=["ok"])


@pytest.mark.parametrize("name", ["OK", "normal", "masks", "gt"])
def test_folders_of_masks_and_of_good_images_are_no_defects(tmp_path, name):
    what = "normal images" if name in ("OK", "normal") else "masks"
    root, options = make_mvtec(tmp_path / "a")
    put(root, f"test/{name}/7.png")
    ((path, reason),) = refused(root, options)
    place = "test/good" if what == "normal images" else "ground_truth"
    assert (path, reason) == (f"test/{name}", f"{what} are in {place} here")
    root = put(tmp_path / "b", *(f"good/{i}.png" for i in range(5)), "bad/8.png", f"{name}/8.png")
    ((path, reason),) = refused(root, {})
    assert path == name and reason.startswith(f"looks like {what}: rename it, or pass")
    assert read_folder(root, anomalous="bad").test.defect_types == ("good", "bad")
    assert read_folder(root, anomalous=["bad", name]).test.defect_types[1:] == tuple(
        sorted(["bad", name])
    )


def test_manifest_file_labels_and_validation(tmp_path):
    rows = [["images/a.png", "OK", "train"], ["images/b.png", "normal", "VAL"]]
    rows += [["images/c.png", "good", "test"], ["images/d.png", "NG", "test"]]
    root, _ = make_csv(tmp_path, rows, ("image", "label", "split"))
    split = read_manifest(root / "manifest.csv")
    assert split.validation.images == (root / "images/b.png",)
    assert split.test.defect_types == ("good", "ng") and split.test.groups is None
    other = tmp_path / "lists" / "x.csv"
    other.parent.mkdir()
    shutil.move(root / "manifest.csv", other)
    assert sniff_layout(other) == "manifest" and sniff_layout(root) is None
    assert read_manifest(other, root).test.images == split.test.images
    with pytest.raises(ValueError, match="which has no category"):
        read_dataset(other, category="x")


def test_manifest_with_several_masks_and_defect_types_only(tmp_path):
    root, _ = make_csv(tmp_path)
    draw(root / "truth/e_mask.png", box=(5, 3, 7, 5))
    lines = [
        {"image": "images/a.png", "split": "train", "defect_type": "Good"},
        {"image": "images/b.png", "split": "test", "defect_type": "good"},
        {
            "image": "images/d.png",
            "split": "test",
            "defect_type": "cut",
            "mask": ["truth/d_mask.png", "truth/e_mask.png"],
        },
    ]
    path = root / "two.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_manifest(path).train.y.tolist() == [1]
    test = read_manifest(path).test
    assert test.load_mask(1).sum() == 8 and len(test.masks[1]) == 2
    assert find_problems(read_manifest(path)) == []


# ---- bad trees ----


def refused(root, options):
    with pytest.raises(LayoutError) as caught:
        read_dataset(root, **options)
    base = caught.value.root
    assert str(caught.value).startswith(f"{base}: ")
    return [
        (path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path), reason)
        for path, reason in caught.value.offenders
    ]


# Of every layout of folders: of a defect's images, of their masks (a pattern), of normal images.
PLACES = {
    "mvtec": ("test/crack/{}", "ground_truth/crack/{}_mask.png", "train/good"),
    "visa_converted": ("test/bad/{}", "ground_truth/bad/{}.png", "train/good"),
    "mvtec2": ("test_public/bad/{}", "test_public/ground_truth/bad/{}_mask.png", "train/good"),
    "loco": (
        "test/logical_anomalies/{}",
        "ground_truth/logical_anomalies/{}/000.png",
        "train/good",
    ),
    "btad": ("test/ko/{}", "ground_truth/ko/{}.bmp", "train/ok"),
    "visa": ("candle/Data/Images/Anomaly/{}", "candle/Data/Masks/Anomaly/{}.png", None),
    "folder": ("bad/{}", "ground_truth/bad/{}_mask.png", "good"),
}
FOLDERS = [name for name in PLACES if name != "visa"]


def place(name, tmp_path):
    make, *_ = LAYOUTS[name]
    return (*make(tmp_path), *PLACES[name])


def bad_missing_mask(root, images, masks, normal):
    put(root, images.format("9.png"))
    return [(images.format("9.png"), "no mask in")]


def bad_stray_mask(root, images, masks, normal):
    put(root, masks.format("9"))
    stray = masks.format("9").removesuffix("/000.png")
    return [(stray, "for which there is no image")]


def bad_two_suffixes(root, images, masks, normal):
    stem = next((root / images).parent.iterdir()).stem
    suffix = ".jpg" if not (root / images.format(stem + ".jpg")).exists() else ".png"
    put(root, images.format(stem + suffix))
    paths = [path for path in (root / images).parent.iterdir() if path.stem == stem]
    assert len(paths) == 2
    return [(path.relative_to(root).as_posix(), "one of 2 images of stem") for path in paths]


def bad_empty_class(root, images, masks, normal):
    shutil.rmtree(root / normal)
    put(root, normal + "/")
    return [(normal, "empty class folder")]


def bad_no_image(root, images, masks, normal):
    put(root, normal + "/notes.txt")
    return [(normal + "/notes.txt", "not an image suffix")]


def bad_link_out(root, images, masks, normal):
    outside = put(root.parent, "secret/0.png") / "secret"
    os.symlink(outside / "0.png", root / normal / "out.png")
    os.symlink(outside, (root / images).parent.parent / "out")
    out = (root / images).parent.parent.relative_to(root) / "out"
    expected = [(normal + "/out.png", "outside of the root")]
    # in a plain folder it is a class like any other, elsewhere too
    return [*expected, (out.as_posix(), "outside of the root")]


BAD = [bad_missing_mask, bad_stray_mask, bad_two_suffixes, bad_empty_class, bad_no_image]
BAD += [bad_link_out]


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("name", FOLDERS)
def test_bad_folders(tmp_path, name, spoil):
    root, options, *places = place(name, tmp_path)
    expected = sorted(spoil(root, *places))
    found = sorted(refused(root, options))
    assert [path for path, _ in found] == [path for path, _ in expected]
    for (_, reason), (_, part) in zip(found, expected, strict=True):
        assert part in reason


@pytest.mark.parametrize("spoil", [bad_stray_mask, bad_two_suffixes], ids=lambda f: f.__name__)
def test_bad_folders_of_visa(tmp_path, spoil):
    root, options, *places = place("visa", tmp_path)
    expected = sorted(spoil(root, *places))
    found = sorted(refused(root, options))
    assert [path for path, _ in found] == [path for path, _ in expected]
    assert all(part in reason for (_, reason), (_, part) in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", FOLDERS)
def test_every_offender_of_a_tree_is_in_one_error(tmp_path, name):
    root, options, *places = place(name, tmp_path)
    expected = [*bad_missing_mask(root, *places), *bad_no_image(root, *places)]
    found = dict(refused(root, options))
    assert set(found) == {path for path, _ in expected}


@pytest.mark.parametrize("name", PLACES)
def test_harmless_leftovers_and_uppercase_suffixes(tmp_path, name):
    root, options, images, masks, _ = place(name, tmp_path)
    before = read_dataset(root, **options)
    put(root, images.format("._000.png"), masks.format("._000"))
    (root / images).parent.joinpath("Thumbs.db").write_bytes(b"")
    after = read_dataset(root, **options)
    assert after.test.images == before.test.images and after.test.masks == before.test.masks
    if name != "visa":
        put(root, images.format("9.PNG"))
        mask = masks.format("9")
        draw(root / mask)
        (root / mask).rename((root / mask).with_suffix(".PNG"))
        test = read_dataset(root, **options).test
        i = test.images.index(root / images.format("9.PNG"))
        assert test.load_mask(i).sum() == 4


@pytest.mark.parametrize("name", LAYOUTS)
def test_masks_of_another_size_and_without_a_mark(tmp_path, name):
    make, *_ = LAYOUTS[name]
    root, options = make(tmp_path)
    split = read_dataset(root, **options)
    mask = split.test.masks[1]
    mask = mask[1] if isinstance(mask, tuple) else mask
    draw(mask, size=(8, 7))
    with pytest.raises(ValueError, match=r"sizes \(height, width\) differ: mask .*\(7, 8\)"):
        split.test.load_mask(1)
    ((path, reason),) = find_problems(split)
    assert path == split.test.images[1] and "sizes (height, width) differ" in reason
    draw(mask, value=0)
    with pytest.raises(ValueError, match="marks no pixel"):
        split.test.load_mask(1)
    mask.write_bytes(b"not an image")
    split.train.images[0].write_bytes(b"not an image")
    assert [path for path, _ in find_problems(split)] == [
        split.train.images[0],
        split.test.images[1],
    ]


# ---- bad lists: the same claims in VisA's CSV, Real-IAD's JSON and a manifest ----


def spoiled_visa(top, image=None, mask=None, row=None):
    root, options = make_visa(top)
    rows = visa_rows("candle")
    if image is not None:
        rows[3][3] = image
    if mask is not None:
        rows[0][4] = mask
    if row is not None:
        rows.append(row)
    put_csv(root / "split_csv/1cls.csv", VISA_COLUMNS, rows)
    return root, options


def spoiled_realiad(top, image=None, mask=None, row=None):
    root, options = make_realiad(top)
    lists = realiad_lists()
    if image is not None:
        lists["test"][1]["image_path"] = image
    if mask is not None:
        lists["test"][0]["mask_path"] = mask
    if row is not None:
        lists["test"].append(row)
    (root / "realiad_jsons/realiad_jsons/toy.json").write_text(json.dumps(lists))
    return root, options


def spoiled_csv(top, image=None, mask=None, row=None):
    rows = [list(cells) for cells in MANIFEST_ROWS]
    if image is not None:
        rows[2][0] = image
    if mask is not None:
        rows[3][2] = mask
    if row is not None:
        rows.append(row)
    return make_csv(top, rows)


LISTED = {"visa": spoiled_visa, "realiad": spoiled_realiad, "csv": spoiled_csv}


@pytest.mark.parametrize("what", ["image", "mask"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("../secret.png", "'..'"),
        ("a/../../secret.png", "'..'"),
        ("..\\secret.png", "'..'"),
        ("/etc/secret.png", "absolute path"),
        ("C:\\secret.png", "absolute path"),
        ("\\\\host\\share\\secret.png", "absolute path"),
        ("link/0.png", "outside of the root"),
        ("nothing.png", "this file is missing"),
        ("x" * 5000 + ".png", "this file is missing"),
    ],
)
@pytest.mark.parametrize("name", LISTED)
def test_hostile_and_missing_paths_in_lists(tmp_path, name, text, reason, what):
    root, options = LISTED[name](tmp_path, **{what: text})
    secret = put(tmp_path, "secret/0.png", "secret.png") / "secret"
    os.symlink(secret, root / "link")
    if name == "realiad":
        os.symlink(secret, root / "realiad_256/toy/link")
    ((path, found),) = refused(root, options)
    assert reason in found and str(secret) not in path


def test_null_bytes_in_lists(tmp_path):
    root, options = spoiled_realiad(tmp_path, image="a\0b.png", mask=7)
    found = [reason for _, reason in refused(root, options)]
    assert len(found) == 2
    assert "outside of the root" in found[1] and "is no path" in found[0]


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("visa", ["candle", "dev", "odd", "x.png", ""], "split is 'dev'"),
        ("visa", visa_rows("candle")[3], "1cls.csv lists it 2 times: test line 5, test line 6"),
        ("visa", [*visa_rows("candle")[1][:4], "x.png"], "a normal image with a mask"),
        ("visa", [*visa_rows("candle")[0][:4], " "], "an anomalous image without a mask"),
        ("visa", ["../x", *visa_rows("candle")[1][1:]], "expected the name of a folder"),
        ("visa", ["candle", "train"], "line 6: 2 cells, the header has 5"),
        (
            "visa",
            ["candle", "test", "normal", "candle/Data/Images/Anomaly/009.JPG", ""],
            "label is 'normal', but the image lies in Anomaly",
        ),
        (
            "visa",
            ["candle", "train", "anomaly", "candle/Data/Images/Normal/0009.JPG", "m/0009.png"],
            "label is 'anomaly', but the image lies in Normal",
        ),
        (
            "visa",
            ["candle", "test", "anomaly", "candle/Data/Images/Anomaly/009.JPG", "m/0009.png"],
            "the mask 0009.png is not that of 009.JPG",
        ),
        (
            "visa",
            ["candle", "test", "normal", "m/0009.png", ""],
            "an image of m, listed for candle",
        ),
        ("visa", ["candle", "train", "normal", "split_csv/1cls.csv", ""], "not an image suffix"),
        ("realiad", 7, "test[2]: expected an object, got 7"),
        ("realiad", {"image_path": "OK/S0001/toy_0001_OK_C1.jpg"}, "anomaly_class is None"),
        (
            "realiad",
            realiad_entry("OK", "OK/S0001/toy_0001_OK_C1.jpg"),
            "toy.json lists it 2 times",
        ),
        ("realiad", realiad_entry("OK", "loose.jpg"), "in no folder of a sample"),
        (
            "realiad",
            realiad_entry("BX", "OK/S0009/toy.jpg"),
            "anomaly_class is 'BX', but the image lies in OK: toy.jpg",
        ),
        ("realiad", realiad_entry("OK", "OK/S0001/toy_0001_OK_C1.jpg", "m.png"), "with a mask"),
        ("csv", ["images/d.png", "0", "", "test", "", "g", ""], "y is '0', expected 1 (normal)"),
        ("csv", ["images/d.png", "1", "", "test", "cut", "g", ""], "contradict each other"),
        ("csv", ["images/d.png", "", "", "test", "", "g", ""], "are all missing"),
        ("csv", ["images/d.png", "-1", "", "", "", "g", ""], "split is ''"),
        ("csv", ["images/d.png", "-1", "", "train", "", "g", ""], "lists it 2 times: test line 5"),
        ("csv", ["images/e.png", "-1", "truth/d_mask.png", "test", "", "", ""], "lists it 2 times"),
        ("csv", ["images/e.png", "-1", "", "test", "", "", ""], "no group, though other rows"),
        ("csv", ["images/e.png", "1", "x.png", "test", "", "g", ""], "a normal image with a mask"),
        ("csv", ["", "1", "", "test", "", "g", ""], "is no path"),
        # What tables write for good images must not make a type of defect of them.
        ("csv", ["images/e.png", "", "", "test", "NaN", "g", ""], "are all missing"),
        ("csv", ["images/e.png", "", "", "test", "None", "g", ""], "are all missing"),
        ("csv", ["images/e.png", "", "", "test", "0", "g", ""], "says nothing of good or bad"),
        ("csv", ["images/e.png", "1", "", "test", "", "nan", ""], "no group, though other rows"),
    ],
)
def test_bad_rows(tmp_path, name, row, reason):
    root, options = LISTED[name](tmp_path, row=row)
    if name == "csv":
        put(root, "images/e.png")
    elif name == "realiad":
        put(root / "realiad_256/toy", "loose.jpg", "OK/S0009/toy.jpg")
    elif name == "visa":
        put(root / "candle/Data/Images", "Anomaly/009.JPG", "Normal/0009.JPG")
        put(root, "m/0009.png")
    found = refused(root, options)
    assert any(reason in text for _, text in found), found


def test_every_offender_of_a_list_is_in_one_error(tmp_path):
    rows = [["images/a.png", "2", "", "train", "", "", ""], ["../x.png", "1", "", "no", "", "", ""]]
    root, _ = make_csv(tmp_path, MANIFEST_ROWS + rows)
    found = [reason for _, reason in refused(root, {})]
    assert len(found) == 3
    assert [reason[:7] for reason in found] == ["line 6:", "line 7:", "line 7:"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("image,label\na,ok\n", "lacks the columns split; it has image, label"),
        ("image,split,split\n", "columns twice: split"),
        ('image,split\n"a,train\n', "unexpected end of data"),
        ("image,split,label\nimages/a.png,train,1\n", "label is '1', expected one of"),
        ("image,split,label\nimages/a.png,train,ok\n", "lists no test image"),
        (
            "image,split,y,masks\nimages/a.png,train,1,\n",
            "column 'masks' is not read; did you mean 'mask'?",
        ),
        (
            "image,split,y,Groups\nimages/a.png,train,1,\n",
            "column 'Groups' is not read; did you mean 'group'?",
        ),
        (
            "image,split,y,Defect Type\nimages/a.png,train,1,\n",
            "'Defect Type' is not read; did you mean 'defect_type'?",
        ),
        (b"image,split\n\xff\xfe,train\n", "cannot be read"),
    ],
)
def test_bad_csv(tmp_path, text, reason):
    root, _ = make_csv(tmp_path)
    put(root, "a.png")
    content = text if isinstance(text, bytes) else text.encode()
    (root / "manifest.csv").write_bytes(content)
    ((path, found),) = refused(root, {})
    assert path == "manifest.csv" and reason in found


def test_what_is_not_known_in_jsonl(tmp_path):
    """NaN, as pandas writes it, is no group, no mask and no type of defect."""
    root, _ = make_jsonl(tmp_path)
    rows = [
        {"image": f"images/{name}.png", "split": part, "y": y, "group": float("nan")}
        for name, part, y in (("a", "train", 1), ("c", "test", 1), ("d", "test", -1))
    ]
    rows[1].update(defect_type=float("nan"), mask=None)
    rows[2].update(mask=float("nan"))
    (root / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    test = read_dataset(root).test
    assert test.groups is None and test.masks == (None, None)
    assert test.defect_types == ("good", "anomaly")
    (root / "manifest.jsonl").write_text('{"image": "images/a.png", "y": -1, "y": 1}')
    ((_, reason),) = refused(root, {})
    assert reason == "line 1: is not JSON: an object has 'y' twice"


def test_an_object_of_many_keys_takes_no_square_of_their_time():
    text = json.dumps(dict.fromkeys(map(str, range(20_000))))
    start = time.process_time()
    assert len(parse_json(text)) == 20_000
    assert time.process_time() - start < 1  # of each with each: several seconds


def test_names_that_no_file_of_this_system_can_have(tmp_path):
    root, _ = make_jsonl(tmp_path)
    row = {"image": "\ud800.png", "split": "train", "y": 1}  # half of a pair, as JSON can hold it
    (root / "manifest.jsonl").write_text(json.dumps(row), encoding="ascii")
    with pytest.raises(LayoutError, match="is no file name in utf-8, the encoding in use here"):
        read_manifest(root / "manifest.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode whatever the locale")
def test_an_encoding_without_the_letters_of_a_list(tmp_path):
    (tmp_path / "größe.png").write_bytes(b"")
    lines = "image,split,y\ngröße.png,train,1\n"
    (tmp_path / "manifest.csv").write_text(lines, encoding="utf-8")
    code = "import sys; from skanomaly.datasets import read_dataset; read_dataset(sys.argv[1])"
    root = str(Path(datasets.__file__).parents[2])
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, **plain},
        capture_output=True,
    )
    assert b"LayoutError" in done.stderr
    assert b"is no file name in ascii, the encoding in use here" in done.stderr


def test_bad_jsonl(tmp_path):
    root, _ = make_jsonl(tmp_path)
    (root / "manifest.jsonl").write_text('{"image": 3\n[1]\n{"image": 3, "split": "test", "y": 1}')
    found = [reason for _, reason in refused(root, {})]
    assert "line 1: is not JSON" in found[0] and "line 2: expected an object" in found[1]
    assert "line 3: 3 is no path" in found[2] and len(found) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "expected an object with the lists"),
        ('{"train": [], "test": 3}', "expected a list of images, 'train'"),
        ('{"meta": {"normal_class": 3}, "train": 1, "test": 3}', "normal_class is 3"),
    ],
)
def test_bad_realiad_json(tmp_path, content, reason):
    root, options = make_realiad(tmp_path)
    (root / "realiad_jsons/realiad_jsons/toy.json").write_text(content)
    assert reason in refused(root, options)[0][1]


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("{", ["is not JSON"]),
        ("[]", ["expected a list of defects"]),
        (json.dumps([7, {"pixel_value": 1}]), ["entry 0: expected an object", "entry 1: expected"]),
        (json.dumps([defect("a", 0, 1)]), ["pixel_value must be an integer from 1 to 255, got 0"]),
        (json.dumps([defect("a", True, 1)]), ["pixel_value must be"]),
        (json.dumps([defect("a", 1, 0)]), ["saturation_threshold must be a positive number"]),
        (json.dumps([defect("a", 1, 2, True)]), ["a relative saturation_threshold is at most 1"]),
        (json.dumps([defect("a", 1, 2, 0)]), ["relative_saturation must be a bool"]),
        (json.dumps([defect("a", 1, 0.5)]), ["a saturation_threshold in pixels is at least 1"]),
        ('[{"pixel_value": 1, "pixel_value": 2}]', ["an object has 'pixel_value' twice"]),
        (json.dumps([defect("a", 1, 2), defect("b", 1, 2)]), ["a second defect of pixel_value 1"]),
    ],
)
def test_bad_defects_config(tmp_path, content, reasons):
    root, _ = make_loco(tmp_path)
    (root / "defects_config.json").write_text(content)
    found = refused(root, {})
    assert [path for path, _ in found] == ["defects_config.json"] * len(reasons)
    assert all(part in text for (_, text), part in zip(found, reasons, strict=True))


def test_linked_lists_out_of_the_root(tmp_path):
    root, options = make_visa(tmp_path)
    source = root / "split_csv/1cls.csv"
    shutil.move(source, tmp_path / "outside.csv")
    os.symlink(tmp_path / "outside.csv", source)
    ((path, reason),) = refused(root, options)
    assert path == "split_csv/1cls.csv" and "outside of the root" in reason
    root, _ = make_loco(tmp_path)
    shutil.move(root / "defects_config.json", tmp_path / "outside.json")
    os.symlink(tmp_path / "outside.json", root / "defects_config.json")
    assert refused(root, {}) == [("defects_config.json", reason)]


def test_loco_bad_mask_folders(tmp_path):
    root, _ = make_loco(tmp_path)
    put(root, "ground_truth/logical_anomalies/000_mask.png", "ground_truth/good/000/000.png")
    put(root, "ground_truth/logical_anomalies/000/001.bmp")
    found = dict(refused(root, {}))
    assert "a file outside of" in found["ground_truth/logical_anomalies/000_mask.png"]
    assert "masks for good images" in found["ground_truth/good"]
    assert "one of 2 images" in found["ground_truth/logical_anomalies/000/001.bmp"]
    assert len(found) == 4


def test_names_that_would_turn_bad_images_good(tmp_path):
    root = put(make_btad(tmp_path)[0], "test/good/0.bmp")
    assert refused(root, {}) == [("test/good", "normal images are in test/ok here")]
    root = put(tmp_path / "line", "ok/0.png", "ok/1.png", "good/2.png")
    ((path, reason),) = refused(root, {"layout": "folder", "normal": "ok"})
    assert path == "good" and "are in ok here" in reason


def test_folder_without_anomalous_images(tmp_path):
    root = put(tmp_path / "line", "good/0.png", "good/1.png")
    ((path, reason),) = refused(root, {"layout": "folder"})
    assert "no folder of anomalous images" in reason
    found = refused(root, {"layout": "folder", "anomalous": ["bad", "worse"]})
    assert found == [("bad", "this folder is missing"), ("worse", "this folder is missing")]


# ---- recognition ----


def test_unknown_layout_says_what_was_looked_for_and_found(tmp_path):
    root = put(tmp_path / "heap", "images/0.png", "readme.txt")
    assert sniff_layout(root) is None and list_categories(root) == ()
    ((path, reason),) = refused(root, {})
    assert "train/good (mvtec)" in reason and "found: images/, readme.txt" in reason
    for name in datasets._sniff._LAYOUTS:
        assert f"({name})" in reason
    with pytest.raises(ValueError, match="layout is 'mvtech', expected one of visa, realiad"):
        read_dataset(root, "mvtech")
    with pytest.raises(FileNotFoundError):
        read_dataset(root / "nothing")
    with pytest.raises(NotADirectoryError):
        read_dataset(root / "readme.txt")


@pytest.mark.parametrize("layout", datasets._sniff._LAYOUTS)
def test_a_forced_layout_that_does_not_fit(tmp_path, layout):
    root = put(tmp_path / "heap", "images/0.png")
    with pytest.raises((LayoutError, FileNotFoundError), match="heap"):
        read_dataset(root, layout)


def test_parent_of_categories(tmp_path):
    make_mvtec(tmp_path)
    make_btad(tmp_path)
    make_loco(tmp_path)
    put(tmp_path, "notes/readme.txt", "old/good/0.png", "old/good/1.png", "old/bad/0.png")
    assert list_categories(tmp_path) == ("01", "nut", "pins")
    ((_, reason),) = refused(tmp_path, {})
    assert reason == "several categories, pass one of them as category=: 01, nut, pins"
    assert read_dataset(tmp_path, category="nut").name == "nut"
    assert read_dataset(tmp_path, "btad", category="01").name == "01"
    assert read_dataset(tmp_path, category="old", test_size=1).test.y.tolist() == [1, -1]
    assert list_categories(tmp_path / "nut") == ()


def test_hostile_categories(tmp_path):
    top = tmp_path / "top"
    make_mvtec(top)
    make_btad(tmp_path)
    os.symlink(tmp_path / "01", top / "link")
    assert list_categories(top) == ("nut",)
    for category in ("../01", str(tmp_path / "01"), "..", ".", "", "nut/../nut"):
        with pytest.raises(LayoutError, match="no category .* the root contains: link/, nut/"):
            read_dataset(top, category=category)
    with pytest.raises(LayoutError, match="link: symbolic link to a place outside"):
        read_dataset(top, category="link")


def test_mvtec_reader_takes_converted_visa(tmp_path):
    root, _ = make_visa_converted(tmp_path)
    assert read_mvtec(root).test.masks[1] == root / "ground_truth/bad/000.png"


# ---- records ----


def test_records_of_groups_masks_and_defects():
    images = ImageSet(
        ["a.png", "b.png"], [1, -1], [None, ["m.png", "n.png"]], ["good", "cut"], "x", ["p", 7]
    )
    assert images.groups == ("p", "7") and len(images.masks[1]) == 2
    assert "1 mask)" in repr(images)
    with pytest.raises(ValueError, match="lengths differ"):
        ImageSet(["a.png"], [1], [None], ["good"], "x", groups=[])
    with pytest.raises(ValueError, match="an empty sequence of masks"):
        ImageSet(["a.png"], [-1], [[]], ["cut"], "x")
    defects = [DefectType("a", 1, 1, False), DefectType("b", 1, 1, False)]
    with pytest.raises(ValueError, match="share a pixel value"):
        ImageSet(["a.png"], [1], [None], ["good"], "x", defects=defects)


@pytest.mark.parametrize("groups", [{"p", "q"}, {"p": 1, "q": 2}, "pq"])
def test_what_has_no_order_is_no_column_of_a_set(groups):
    columns = [["a.png", "b.png"], [1, 1], [None, None], ["good", "good"], "x"]
    with pytest.raises(TypeError, match="groups of 'x' must be a sequence"):
        ImageSet(*columns, groups=groups)
    with pytest.raises(TypeError, match="images of 'x' must be a sequence"):
        ImageSet({"a.png", "b.png"}, *columns[1:])


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), "3", None, True])
def test_defect_types_are_checked(threshold):
    with pytest.raises(ValueError, match="saturation_threshold must be a positive number"):
        DefectType("a", 1, threshold, False)
