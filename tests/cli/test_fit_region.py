"""``skanomaly fit --roi``: a region that is kept in the model file, and what follows from it."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from skanomaly import AnomalibDetector, anomaly_maps, load_model
from skanomaly.cli import app
from skanomaly.cli._settings import with_region
from skanomaly.datasets import make_surfaces


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    made = make_surfaces(10, surface="fabric", image_size=96, random_state=0).images
    (folder / "good").mkdir()
    for i, image in enumerate(made[:9]):
        Image.fromarray(image).save(folder / "good" / f"{i}.png")
    for name, left in (("inside", 8), ("outside", 72)):
        image = made[9].copy()
        image[30:50, left : left + 16] = (255, 0, 0)
        Image.fromarray(image).save(folder / f"{name}.png")
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[:, :24] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    square = [[0, 0], [0.4, 0], [0.4, 1], [0, 1]]
    (folder / "region.json").write_text(json.dumps([square]))
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("region", ["mask.png", "region.json"])
def test_the_working_day_with_a_region(folder, region, tmp_path):
    model = tmp_path / "model.skan"
    settings = [
        "--model",
        "filterbank",
        "--set",
        "image_size=96",
        "--scorer",
        "knn",
        "--set",
        "metric=euclidean",
    ]
    run("fit", folder / "good", *settings, "--roi", folder / region, "-o", model)
    bad = [folder / "inside.png", folder / "outside.png"]
    shown = run("info", model).stdout
    assert "40.0% of the image" in shown and region in shown
    lines = [json.loads(line) for line in run("score", model, *bad).stdout.splitlines()]
    # Tokens see some pixels beyond their own, so that a defect outside is not unseen.
    assert lines[0]["decision"] == "anomalous" and lines[0]["score"] < 2 * lines[1]["score"]
    heat_map = anomaly_maps(load_model(model), bad[1:])[0]
    assert heat_map[:, 64:].max() == 0
    assert "anomalous" in run("explain", model, bad[0]).stdout
    run("report", model, *bad, "-o", tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_region_of_a_union_is_that_of_each_member(folder, tmp_path):
    plugin = tmp_path / "small_banks.py"
    plugin.write_text(
        "from skanomaly import FilterBankPatches, registry\n"
        "def small():\n    return FilterBankPatches(image_size=48)\n"
        "registry.register_embedder('bank_of_region', small, overwrite=True)\n"
    )
    model = tmp_path / "model.skan"
    options = ["--model", "filterbank+bank_of_region", "--plugin", plugin]
    options += ["--set", "filterbank__image_size=96", "--roi", folder / "mask.png"]
    run("fit", folder / "good", *options, "-o", model)
    assert run("info", model).stdout.count("40.0% of the image") == 1
    bad = [folder / "inside.png", folder / "outside.png"]
    lines = [json.loads(line) for line in run("score", model, *bad).stdout.splitlines()]
    assert lines[0]["decision"] == "anomalous" and lines[0]["score"] < 2 * lines[1]["score"]
    union = load_model(model)
    for member in union.detectors_.values():
        assert member.named_steps["roi"].area_ == pytest.approx(0.4)
        heat_map = anomaly_maps(member, bad[1:])[0]
        assert heat_map[:, 64:].max() == 0
    assert "anomalous" in run("explain", model, bad[0]).stdout
    turned = ["--set", "bank_of_region__augmentation=rotate90"]
    result = run("fit", folder / "good", *options, *turned, "-o", tmp_path / "no.skan", code=1)
    assert "bank_of_region learns from other views" in result.stderr


def test_what_is_refused_before_any_image_is_read(folder, tmp_path):
    model = tmp_path / "model.skan"
    (tmp_path / "bad.json").write_text("[[0, 0], [1, 0]]")
    turned = ["--set", "augmentation=rotate90"]
    for more, message in (
        (["--roi", tmp_path / "none.png"], "path not found"),
        (["--roi", tmp_path / "bad.json"], "at least three"),
        ([*turned, "--roi", folder / "mask.png"], "augmentation=None"),
    ):
        result = run("fit", folder / "good", *more, "-o", model, code=1)
        assert message in result.stderr and not model.exists()


def test_the_region_is_an_input(folder):
    run("fit", folder / "good", "--roi", folder / "mask.png", "--overwrite", "-o",
        folder / "mask.png", code=1)  # fmt: skip
    with Image.open(folder / "mask.png") as kept:
        assert kept.size == (60, 40)


def test_detectors_of_whole_images_have_no_region(folder):
    with pytest.raises(ValueError, match="--roi: anomalib scores images as a whole"):
        with_region(AnomalibDetector("model.onnx"), "anomalib", folder / "mask.png")
