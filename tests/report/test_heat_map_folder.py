"""Heat maps on disk: the maps of the evaluation, written as they are had."""

import csv

import numpy as np
import pytest
from PIL import Image

from skanomaly import anomaly_maps, create_model, evaluate_split
from skanomaly._output import Guard
from skanomaly.datasets import make_surfaces, read_mvtec
from skanomaly.inspection import color_limits, overlay_map
from skanomaly.report._folder import HeatMapFolder


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A data set with masks, whose images are not square."""
    root = tmp_path_factory.mktemp("parts")
    made = make_surfaces(9, 3, surface="fabric", image_size=48, random_state=0)
    for i, (image, mask, kind) in enumerate(
        zip(made.images, made.masks, made.defect_types, strict=True)
    ):
        folder = root / ("train" if i < 6 else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:40]).save(folder / f"{i}.png")
        if mask[:40].any():
            folder = root / "ground_truth" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask[:40]).save(folder / f"{i}_mask.png")
    return read_mvtec(root)


@pytest.fixture(scope="module")
def pipe():
    return create_model("filterbank", scorer="knn", image_size=48)


def folder_of(split, folder):
    return HeatMapFolder(split.test, folder, Guard(split.test.images))


def _pictures(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


def test_pictures_show_the_maps_that_were_measured(split, pipe, tmp_path):
    with folder_of(split, tmp_path) as write:
        result = evaluate_split(pipe, split, sigma=1, on_map=write)
    images = list(split.test.images)
    maps = anomaly_maps(result.estimator, images, sigma=1)
    limits = color_limits(result.estimator)
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(path) for path in images]
    assert {row["heat_map"] for row in rows} == _pictures(tmp_path)
    for i, row in enumerate(rows):
        assert float(row["score"]) == result.scores[i]
        assert float(row["threshold"]) == result.threshold
        assert row["verdict"] == {1: "normal", -1: "anomalous"}[result.predictions[i]]
        assert row["defect_type"] == split.test.defect_types[i]
        # Images of 48 x 40 pixels are shown four times as large.
        with Image.open(tmp_path / row["heat_map"]) as picture:
            plain, painted = np.split(np.asarray(picture)[:160:4, : 2 * 192 : 4], 2, axis=1)
        with Image.open(images[i]) as image:
            np.testing.assert_array_equal(plain, np.asarray(image.convert("RGB")))
        expected = overlay_map(images[i], maps[i], limits, split.test.load_mask(i))
        np.testing.assert_array_equal(painted, expected)


def test_what_was_written_stays_after_an_error(split, pipe, tmp_path):
    class StopError(Exception):
        pass

    with (
        pytest.raises(StopError),
        folder_of(split, tmp_path) as write,
    ):

        def stop_at_the_third(index, *args):
            if index == 2:
                raise StopError
            write(index, *args)

        evaluate_split(pipe, split, on_map=stop_at_the_third)
    assert len(_pictures(tmp_path)) == 2
    with open(tmp_path / "scores.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2


def test_an_earlier_run_is_replaced_once_there_is_a_new_one(split, pipe, tmp_path):
    with folder_of(split, tmp_path) as write:
        evaluate_split(pipe, split, on_map=write)
    written = _pictures(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"kept")
    with folder_of(split, tmp_path):
        pass  # nothing was had: the earlier run stays
    assert _pictures(tmp_path) == written | {"mine.png"}
    with folder_of(split, tmp_path) as write:
        write(0, np.zeros((40, 48)), 0.0, 1.0, (0.0, 1.0))
    assert len(_pictures(tmp_path)) == 2 and (tmp_path / "mine.png").read_bytes() == b"kept"
