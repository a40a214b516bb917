"""`skanomaly calibrate`: a threshold that is moved in a file."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from skanomaly import (
    FilterBankPatches,
    PatchKNNScorer,
    TimmPatches,
    load_model,
    model_manifest,
    recalibrate,
    save_model,
)
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces
from skanomaly.decisions import warn_if_tuned_on

SURFACES = make_surfaces(28, 6, image_size=64, random_state=0)


def run(*args, stdin=None):
    return CliRunner().invoke(app, ["calibrate", *map(str, args)], input=stdin)


def write(folder, images):
    folder.mkdir(parents=True)
    paths = [folder / f"{i:02d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture(scope="module")
def fitted():
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(contamination=0.2))
    return pipe.fit(SURFACES.images[:14])


@pytest.fixture
def here(tmp_path, fitted, monkeypatch):
    """A folder with a model, good images and defects."""
    monkeypatch.chdir(tmp_path)
    save_model(fitted, "parts.skan")
    write(tmp_path / "today", SURFACES.images[14:28])
    write(tmp_path / "a defect", SURFACES.images[28:])
    return tmp_path


def test_a_share(here, fitted):
    result = run("parts.skan", "--contamination", 0.4, "-o", "out.skan")
    assert result.exit_code == 0, result.output
    moved = load_model("out.skan")
    assert moved[-1].offset_ == recalibrate(fitted, contamination=0.4)[-1].offset_
    assert load_model("parts.skan")[-1].offset_ == fitted[-1].offset_
    assert "for 40.0% of good images; it was" in result.stdout
    assert "flagged    5 of the 14 good images that are calibrated on; 2 before" in result.stdout
    assert "promise    40.0% of new good images" in result.stdout


@pytest.mark.filterwarnings("default:this threshold flags none")
def test_a_number(here):
    result = run("parts.skan", "--threshold=-1.5", "-o", "out.skan")
    assert "warning: this threshold flags" in result.stderr
    assert result.exit_code == 0, result.output
    assert load_model("out.skan")[-1].offset_ == -1.5
    assert "promise" not in result.stdout


def test_good_images_of_today_in_place_and_as_json(here, fitted):
    result = run("parts.skan", "today", "--in-place", "--json", "-")
    assert result.exit_code == 0, result.output
    expected = recalibrate(fitted, images=list(SURFACES.images[14:28]))
    moved = load_model("parts.skan")
    assert moved[-1].offset_ == expected[-1].offset_
    told = json.loads(result.stdout)
    scores = fitted.score_samples(SURFACES.images[14:28])
    before = int((scores < fitted[-1].offset_).sum())
    assert told["before"] == {"threshold": fitted[-1].offset_, **fitted[-1].calibration_}
    assert told["after"]["threshold"] == told["threshold"] == moved[-1].offset_
    assert "image_digests" not in told["after"]
    assert (told["n_images"], told["flagged_before"], told["flagged_after"]) == (14, before, 2)
    low, high = told["flagged_before_interval"]
    assert low <= before / 14 <= high
    assert (told["model"], told["file"], told["tuned"]) == ("parts.skan", "parts.skan", None)
    assert told["expected_share"] == pytest.approx(0.2)


@pytest.mark.parametrize("n_odd", [1, 2])
def test_images_that_the_threshold_rests_on_are_named(here, fitted, n_odd):
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for i in range(n_odd):
        Image.fromarray(noise[i]).save(here / "today" / f"{10 + i}.png")
    share = ("--contamination", 0.1 if n_odd == 1 else 0.15)
    result = run("parts.skan", "today", *share, "-o", "out.skan", "--json", "told.json")
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr  # the result says it
    rest = json.loads((here / "told.json").read_text())["rests_on"]
    names = [os.path.basename(name) for name in rest["images"]]
    assert sorted(names) == ["10.png", "11.png"][:n_odd]
    scores = np.sort(fitted.score_samples(sorted((here / "today").iterdir())))
    np.testing.assert_allclose([*rest["scores"], rest["next_score"]], scores[: n_odd + 1])
    assert f"note       {rest['images'][0]} scores {scores[0]:.6g}, " in result.stdout
    assert f"leave {'it' if n_odd == 1 else 'them'} out, and calibrate again" in result.stdout
    result = run("parts.skan", "today", "--contamination", 0.3, "-o", "more.skan", "--json", "-")
    assert json.loads(result.stdout)["rests_on"] is None


def test_a_list_on_standard_input(here):
    listed = "\n".join(str(path) for path in sorted((here / "today").iterdir()))
    result = run("parts.skan", "-", "-o", "out.skan", stdin=listed)
    assert result.exit_code == 0, result.output
    assert load_model("out.skan")[-1].calibration_["n_images"] == 14


@pytest.mark.filterwarnings("default:prevalence is not given")
def test_known_defects(here, fitted):
    costs = ("--prevalence", 0.02, "--cost-miss", 40)
    args = ("parts.skan", "today", "--anomalous", "a defect", *costs)
    result = run(*args, "-o", "out.skan", "--json", "told.json")
    assert result.exit_code == 0, result.output
    told = json.loads((here / "told.json").read_text())["tuned"]
    assert (told["n_normal"], told["n_anomalous"], told["prevalence"]) == (14, 6, 0.02)
    moved = load_model("out.skan")
    assert moved[-1].offset_ == told["threshold"]
    assert moved[-1].calibration_["kind"] == "cost"
    assert "anomalous images missed: " in result.stdout and "of 6" in result.stdout
    with pytest.warns(UserWarning, match="6 of 6 images"):
        warn_if_tuned_on(moved, sorted((here / "a defect").iterdir()))
    result = run("parts.skan", "today", "--anomalous", "a defect/0*.png", "-o", "other.skan")
    assert result.exit_code == 0 and "warning: prevalence is not given" in result.stderr


@pytest.mark.parametrize(
    "args, message",
    [
        (["-o", "out.skan"], "give good images, --contamination or --threshold"),
        (["--contamination", "0.2"], "give --output FILE .* or --in-place to replace parts.skan"),
        (["--contamination", "0.2", "-o", "out.skan", "--in-place"], "not both"),
        (["today", "--threshold", "-1", "-o", "out.skan"], "--threshold is the number itself"),
        (["--anomalous", "a defect", "-o", "out.skan"], "--anomalous takes good images too"),
        (
            ["today", "--anomalous", "a defect", "--contamination", "0.1", "-o", "out.skan"],
            "give one of them",
        ),
        (["today", "--cost-miss", "2", "-o", "out.skan"], "--cost-miss is for a threshold by cost"),
        (["today", "--anomalous", "today", "-o", "out.skan"], "14 images are among IMAGES and"),
        (["nowhere", "-o", "out.skan"], "nowhere is no file and"),
        (
            ["--contamination", "0.7", "-o", "out.skan"],
            "0.7 is no share above 0, and",
        ),
        (["--contamination", "0.2", "-o", "parts.skan"], "which --in-place replaces"),
        (["today", "-o", "today/00.png"], "is no model"),
        (["--contamination", "0.2", "-o", "mine.txt", "--overwrite"], "is no model"),
        (["today", "-o", "out.skan", "--json", "mine.txt"], "did not write"),
    ],
)
def test_what_is_asked_wrongly_changes_nothing(here, args, message):
    (here / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    result = run("parts.skan", *args)
    of_files = ("is no file and", "images are among", "did not write", "is no model")
    assert result.exit_code == (1 if any(words in message for words in of_files) else 2)
    flat = " ".join(result.stderr.replace("│", " ").split())
    assert re.search(message, flat), flat
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_an_image_that_cannot_be_read_leaves_the_model_as_it_is(here):
    (here / "today" / "05.png").write_bytes(b"no image")
    before = (here / "parts.skan").read_bytes()
    result = run("parts.skan", "today", "--in-place")
    assert result.exit_code == 1 and "05.png" in result.stderr
    assert (here / "parts.skan").read_bytes() == before
    assert sorted(os.listdir(here)) == ["a defect", "parts.skan", "today"]


def test_a_file_of_others_is_replaced_where_it_is_asked_for(here):
    run("parts.skan", "--contamination", 0.3, "-o", "out.skan")
    result = run("parts.skan", "--contamination", 0.4, "-o", "out.skan")
    assert result.exit_code == 1 and "--overwrite" in result.stderr
    result = run("parts.skan", "--contamination", 0.4, "-o", "out.skan", "--overwrite")
    assert result.exit_code == 0, result.output
    assert np.isclose(load_model("out.skan")[-1].contamination, 0.4)


def test_weights_that_came_with_a_model_go_on_with_it(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
    embedder = TimmPatches("test_vit", weights=weights, image_size=32, device="cpu")
    pipe = make_pipeline(embedder, PatchKNNScorer()).fit(SURFACES.images[:10])
    for brought in (True, False):
        save_model(pipe, tmp_path / "parts.skan", include_weights=brought)
        result = run(tmp_path / "parts.skan", "--contamination", 0.3, "--in-place")
        assert result.exit_code == 0, result.output
        (entry,) = model_manifest(tmp_path / "parts.skan")["weights"]
        assert entry["included"] == brought
