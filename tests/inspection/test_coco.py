"""Regions as files of labelling tools: COCO, and masks."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from skanomaly.inspection import find_regions, regions_to_coco, save_region_masks, write_coco

SIZE = (40, 60)  # height, width


def heat_map(seed, size=SIZE):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), 1.5)


def image(size=SIZE):
    return np.zeros((*size, 3), dtype=np.uint8)


@pytest.fixture
def parts(tmp_path):
    """Images in folders, two of one name, one of a strange one."""
    paths = [tmp_path / "parts" / name for name in ("a/1.png", "b/1.png", "b/ä b#\n2.png")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image()).save(path)
    return paths


def rasterised(polygon, size):
    """The mask that a polygon encloses, drawn by Pillow so large that its rims do not matter."""
    zoom = 8
    canvas = Image.new("1", (size[1] * zoom, size[0] * zoom))
    ImageDraw.Draw(canvas).polygon([value * zoom - 0.5 for value in polygon], fill=1)
    return np.array(canvas)[zoom // 2 :: zoom, zoom // 2 :: zoom]


@pytest.mark.parametrize("seed", range(5))
def test_annotations_hold_the_regions(seed):
    regions = find_regions(heat_map(seed), 0.02)
    coco = regions_to_coco([image()], [regions])
    assert len(coco["annotations"]) == len(regions) > 3
    n_holes = sum(ndimage.label(~np.pad(r.mask, 1))[1] - 1 for r in regions)
    assert n_holes or seed  # some have holes
    found = np.zeros(SIZE, dtype=int)
    for annotation, region in zip(coco["annotations"], regions, strict=True):
        (polygon,) = annotation["segmentation"]
        mask = rasterised(polygon, SIZE)
        x, y, width, height = annotation["bbox"]
        assert np.array_equal(mask[y : y + height, x : x + width], region.mask)
        assert annotation["area"] == mask.sum() == region.area
        assert annotation["score"] == region.peak and annotation["iscrowd"] == 0
        found += mask
    assert np.array_equal(found, heat_map(seed) > 0.02)
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(regions) + 1))


def test_files_and_images_without_regions(parts, tmp_path):
    regions = [find_regions(heat_map(0), 0.2), [], find_regions(heat_map(1), 0.2)]
    write_coco(tmp_path / "out" / "regions.json", parts, regions)
    coco = json.loads((tmp_path / "out" / "regions.json").read_text("ascii"))
    assert coco == regions_to_coco(parts, regions)
    assert [i["file_name"] for i in coco["images"]] == ["a/1.png", "b/1.png", "b/ä b#\n2.png"]
    assert {(i["width"], i["height"]) for i in coco["images"]} == {(60, 40)}
    assert {a["image_id"] for a in coco["annotations"]} == {1, 3}
    assert coco["categories"][0]["name"] == "anomaly"
    root = regions_to_coco(parts[:1], regions[:1], root=tmp_path)
    assert root["images"][0]["file_name"] == "parts/a/1.png"
    assert regions_to_coco(parts[1:2], [[]])["images"][0]["file_name"] == "1.png"
    with pytest.raises(ValueError, match="does not lie in root"):
        regions_to_coco(parts, regions, root=parts[0].parent)


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"part \xe9.png")
    try:
        Image.fromarray(image()).save(tmp_path / name, "PNG")
    except OSError:
        pytest.skip("this file system takes no such name")
    write_coco(tmp_path / "regions.json", [str(tmp_path / name)], [[]])
    coco = json.loads((tmp_path / "regions.json").read_text("ascii"))
    assert os.fsencode(coco["images"][0]["file_name"]) == b"part \xe9.png"


def test_what_is_of_others_stays(parts, tmp_path):
    target = tmp_path / "regions.json"
    write_coco(target, parts, [[], [], []])
    write_coco(target, parts, [[], [], find_regions(heat_map(1), 0.2)])  # of ours: replaced
    assert json.loads(target.read_text())["annotations"]
    for other in ('{"images": []}', ""):
        target.write_text(other)
        with pytest.raises(FileExistsError, match="did not write"):
            write_coco(target, parts, [[], [], []])
        assert target.read_text() == other
    write_coco(target, parts, [[], [], []], overwrite=True)
    with pytest.raises(FileExistsError, match="input"):
        write_coco(parts[0], parts, [[], [], []], overwrite=True)
    with pytest.raises(ValueError, match="3 images, and regions of 1"):
        write_coco(tmp_path / "new.json", parts, [[]])
    assert not (tmp_path / "new.json").exists()


def test_masks(parts, tmp_path):
    folder = tmp_path / "masks"
    maps = [heat_map(seed) for seed in range(4)]
    mixed = [*parts, image()]
    regions = [find_regions(heat, 0.1, min_area=3) for heat in maps]
    written = save_region_masks(folder, mixed, regions)
    assert len(set(written)) == 4 and [p.name for p in written[:2]] == ["a-1.png", "b-1.png"]
    assert written[3].name == "000003.png"
    for path, of_image in zip(written, regions, strict=True):
        with Image.open(path) as mask:
            assert mask.mode == "L" and mask.size == (60, 40)
            pixels = np.array(mask)
        assert set(np.unique(pixels)) == {0, 255}
        assert np.count_nonzero(pixels) == sum(r.area for r in of_image)
    assert save_region_masks(folder, mixed, regions) == written
    with Image.open(written[0]) as mask:
        again = find_regions(np.array(mask), 0)
    assert sorted(r.box for r in again) == sorted(r.box for r in regions[0])


def test_masks_never_lie_among_images(parts, tmp_path):
    nothing = [[], [], []]
    with pytest.raises(FileExistsError, match="holds images"):
        save_region_masks(tmp_path / "parts" / "b", [image(), image(), image()], nothing)
    with pytest.raises(FileExistsError, match="holds images"):
        save_region_masks(parts[2].parent, parts[2:], [[]])  # of a name that is no safe one
    with pytest.raises(FileExistsError, match="would be replaced by its output"):
        save_region_masks(parts[0].parent, parts[:1], [[]], overwrite=True)
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "1.png").write_bytes(Path(parts[0]).read_bytes())
    with pytest.raises(FileExistsError, match="did not write"):
        save_region_masks(tmp_path / "masks", parts[:1], [[]])
    save_region_masks(tmp_path / "masks", parts[:1], [[]], overwrite=True)


def test_regions_of_another_image():
    regions = find_regions(heat_map(0), 0.1)
    with pytest.raises(ValueError, match="regions of these images"):
        regions_to_coco([image((10, 10))], [regions])


def test_numbers_stand_for_images_beside_files_of_that_name(tmp_path):
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    path = tmp_path / "000001.png"
    Image.fromarray(image).save(path)
    coco = regions_to_coco([path, image, image], [[], [], []])
    names = [entry["file_name"] for entry in coco["images"]]
    assert names == ["000001.png", "000001-2.png", "000002.png"]
