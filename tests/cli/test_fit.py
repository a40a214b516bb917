"""``skanomaly fit``: what it trains on, what it refuses before the work, and what it says."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import beta
from typer.testing import CliRunner

import skanomaly
from skanomaly._output import save_picture
from skanomaly.base import BasePatchEmbedder
from skanomaly.cli import app
from skanomaly.datasets import make_surfaces

SMALL = ("--model", "vision_tiny", "--scorer", "knn", "--set", "image_size=32")


def run(*args, stdin=None):
    return CliRunner().invoke(app, [str(arg) for arg in args], input=stdin)


def start(*args, **options):
    """The command as a process of its own."""
    command = [sys.executable, "-m", "skanomaly.cli", *map(os.fspath, args)]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options
    )


@pytest.fixture(scope="session")
def images():
    return make_surfaces(10, 2, surface="fabric", image_size=32, random_state=0).images


def write(folder, images, names=None, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i if names is None else names[i]}{suffix}")
    return folder


@pytest.fixture
def good(tmp_path, images):
    return write(tmp_path / "good", images[:8])


@pytest.fixture
def no_work(monkeypatch):
    """No image may be embedded."""

    def fail(*args, **kwargs):
        raise AssertionError("this is work")

    monkeypatch.setattr(BasePatchEmbedder, "fit_transform", fail)


def trained_on(model):
    """Paths of the images that a kept model was trained on."""
    return [Path(path) for path in skanomaly.load_model(model)[0]._train_images.paths]


def test_a_kept_model_judges_as_one_in_memory(good, images, tmp_path):
    model = tmp_path / "parts.skan"
    result = run("fit", good, *SMALL, "--contamination", 0.2, "-o", model, "--json", "-")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert set(summary) == {
        *("command", "skanomaly", "model", "file", "bytes", "n_images", "n_groups", "threshold"),
        *("contamination", "expected_share", "expected_share_interval", "rests_on", "seconds"),
    }
    assert summary["rests_on"] is None
    assert summary["n_images"] == 8 and summary["n_groups"] is None
    assert summary["bytes"] == model.stat().st_size and summary["file"] == str(model)
    direct = skanomaly.create_model("vision_tiny", scorer="knn", image_size=32, contamination=0.2)
    direct.fit(sorted(good.iterdir()))
    assert summary["threshold"] == direct[-1].offset_
    kept = skanomaly.load_model(model)
    np.testing.assert_array_equal(kept.score_samples(images), direct.score_samples(images))
    assert f"skanomaly score {model}" in result.stderr


def test_what_the_threshold_promises(good, tmp_path):
    """The share below the i-th of n scores is distributed as Beta(i, n + 1 - i)."""
    arguments = ("fit", good, *SMALL, "--json", tmp_path / "summary", "--overwrite", "-o")
    for nominal, share in ((0.25, 0.25), (0.01, 1 / 9)):
        result = run(*arguments, tmp_path / "parts.skan", "--contamination", nominal)
        assert result.exit_code == 0, result.output
        summary = json.loads((tmp_path / "summary").read_text())
        assert summary["expected_share"] == pytest.approx(share)
        draws = beta(share * 9, 9 - share * 9).rvs(100_000, random_state=0)
        expected = np.quantile(draws, [0.05, 0.95])
        np.testing.assert_allclose(summary["expected_share_interval"], expected, rtol=0.1)
        assert f"{share:.1%} of new good images" in result.stdout
        assert ("no threshold flags less" in result.stdout) == (nominal < share)


def test_an_image_that_the_threshold_rests_on_is_named(good, images, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, images[0].shape, dtype=np.uint8)
    write(good, [images[8], noise, images[9]], names=["a", "noise", "z"])
    model = tmp_path / "parts.skan"
    result = run("fit", good, *SMALL, "-o", model, "--json", tmp_path / "summary")
    assert result.exit_code == 0, result.output
    rest = json.loads((tmp_path / "summary").read_text())["rests_on"]
    assert rest["images"] == [str(good / "noise.png")]
    scores = sorted(skanomaly.load_model(model)[-1].train_scores_)
    assert (rest["scores"], rest["next_score"]) == ([scores[0]], scores[1])
    assert (
        f"note       {good / 'noise.png'} scores {scores[0]:.6g}, all other images" in result.stdout
    )
    assert "leave it out, and train again." in result.stdout
    # Later commands know the image by the model, unless it was to forget paths.
    args = ("calibrate", model, "--contamination", 0.09, "--in-place", "--json", "-")
    told = json.loads(run(*args).stdout)
    assert told["rests_on"] == rest and told["after"]["n_resting_on"] == 1
    more = write(tmp_path / "more", [255 - images[0]])
    result = run("fit", "--update", model, more, "-o", tmp_path / "new.skan")
    assert result.exit_code == 0, result.output
    nameless = ("--no-image-paths", "-o", tmp_path / "nameless.skan")
    run("fit", good, *SMALL, *nameless)
    result = run("calibrate", nameless[-1], "--contamination", 0.09, "--in-place")
    assert "note       an image scores" in result.stdout


@pytest.mark.parametrize(
    "typed, augmentation",
    [("rotate45", "rotate45"), ("15,-15", (15, -15)), ("'rotate45',10", ("rotate45", 10))],
)
def test_views_of_training_images(tmp_path, good, typed, augmentation):
    file = tmp_path / "x.skan"
    done = run("fit", good, *SMALL, "--set", f"emb__augmentation={typed}", "-o", file)
    assert done.exit_code == 0, done.stderr
    assert skanomaly.load_model(file)[0].augmentation == augmentation
    done = run("score", file, good / "0.png")
    assert done.exit_code == 0, done.stderr


def test_views_that_there_are_not(tmp_path, good, no_work):
    done = run("fit", good, *SMALL, "--set", "augmentation=turn", "-o", tmp_path / "x.skan")
    assert done.exit_code == 1 and "'rotate45'" in done.stderr and "'turn'" in done.stderr


def test_a_folder_of_a_data_set_stands_for_its_training_images(tmp_path, images):
    root = tmp_path / "nut"
    train = write(root / "train" / "good", images[:6])
    write(root / "test" / "good", images[6:8])
    write(root / "test" / "scratch", images[10:])
    result = run("fit", root, *SMALL, "-o", tmp_path / "nut.skan")
    assert result.exit_code == 0, result.output
    assert "data set, of the layout mvtec: training on its 6 good" in result.stderr
    assert trained_on(tmp_path / "nut.skan") == sorted(train.iterdir())
    # Together with other images, none of them twice.
    more = write(tmp_path / "more", images[8:10])
    result = run("fit", root, more, train, *SMALL, "-o", tmp_path / "more.skan")
    assert result.exit_code == 0, result.output
    assert sorted(trained_on(tmp_path / "more.skan")) == sorted([*train.iterdir(), *more.iterdir()])
    result = run("fit", tmp_path, *SMALL, "-o", tmp_path / "all.skan")
    assert result.exit_code == 1 and "name its folder, one of nut" in result.stderr


def test_groups_of_a_manifest_are_held_out_together(tmp_path, images):
    write(tmp_path / "images", images[:10])
    rows = [f"images/{i}.png,train,good,part{i // 2}" for i in range(8)]
    rows += ["images/8.png,test,good,part8", "images/9.png,test,scratch,part9"]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["image,split,defect_type,group", *rows]))
    result = run("fit", manifest, *SMALL, "-o", tmp_path / "parts.skan", "--json", "-")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["n_images"], summary["n_groups"]) == (8, 4)


def test_groups_by_folder(tmp_path, images):
    for part in range(4):
        write(tmp_path / "parts" / f"part{part}", images[2 * part : 2 * part + 2])
    options = ("--groups-by-folder", "-o", tmp_path / "parts.skan", "--json", "-")
    result = run("fit", tmp_path / "parts", *SMALL, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_groups"] == 4
    kept = skanomaly.load_model(tmp_path / "parts.skan")
    direct = skanomaly.create_model("vision_tiny", scorer="knn", image_size=32)
    groups = np.repeat(range(4), 2)
    direct.fit(list(images[:8]), knn__groups=groups)
    np.testing.assert_allclose(kept[-1].train_scores_, direct[-1].train_scores_, rtol=1e-5)


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("nok", "defective parts, by its name"),
        ("Defects", "defective parts, by its name"),
        ("ground_truth", "masks, by its name"),
        ("deep/er/bad", "defective parts, by its name"),
    ],
)
def test_folders_that_hold_no_good_parts(tmp_path, good, images, no_work, folder, reason):
    odd = write(good / folder, images[8:])
    result = run("fit", good, *SMALL, "-o", tmp_path / "x.skan")
    assert result.exit_code == 1 and f"{odd}: {reason}" in result.stderr
    assert not (tmp_path / "x.skan").exists()


def test_folders_beside_that_of_good_parts(tmp_path, images, no_work):
    write(tmp_path / "parts" / "ok", images[:8])
    odd = write(tmp_path / "parts" / "lot 7", images[8:])
    result = run("fit", tmp_path / "parts", *SMALL, "-o", tmp_path / "x.skan")
    assert result.exit_code == 1 and f"{odd}: it is beside ok" in result.stderr
    write(tmp_path / "flat" / "train", images[:8])
    odd = write(tmp_path / "flat" / "test", images[8:])
    result = run("fit", tmp_path / "flat", *SMALL, "-o", tmp_path / "x.skan")
    assert result.exit_code == 1 and f"{odd}: test images, by its name" in result.stderr


def test_what_is_named_itself_is_taken_at_its_word(tmp_path, images):
    odd = write(tmp_path / "nok", images[:8])
    assert run("fit", odd, *SMALL, "-o", tmp_path / "x.skan").exit_code == 0


def test_pictures_of_ours_are_no_photographs(tmp_path, good, images, no_work):
    for i in range(3):
        save_picture(Image.fromarray(images[i]), good / f"map{i}.png")
    result = run("fit", *good.glob("*.png"), *SMALL, "-o", tmp_path / "x.skan")
    assert result.exit_code == 1 and f"{good}: 3" in result.stderr
    assert "no photographs" in result.stderr


def test_all_damaged_images_are_named(tmp_path, good, no_work):
    whole = (good / "0.png").read_bytes()
    (good / "1.png").write_bytes(whole[: len(whole) // 2])
    (good / "2.png").write_bytes(b"")
    (good / "3.png").write_text("no image")
    result = run("fit", good, *SMALL, "-o", tmp_path / "x.skan")
    assert result.exit_code == 1 and "3 of 8 images cannot be used" in result.stderr
    for name in ("1.png", "2.png", "3.png"):
        assert result.stderr.count(str(good / name)) == 1
    result = run("fit", good / "0.png", *SMALL, "-o", tmp_path / "x.skan", "--max-pixels", 100)
    assert result.exit_code == 1 and "1024 pixels" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-o", "TMP"), "is a folder"),
        (("-o", "TMP/no/x.skan"), "there is no folder for --output"),
        (("-o", "TMP/text.skan"), "is no model file, and is never replaced"),
        (("-o", "TMP/text.skan", "--overwrite"), "is no model file, and is never replaced"),
        (("-o", "TMP/good/0.png", "--overwrite"), "is no model file, and is never replaced"),
        (("-o", "TMP/x.skan", "--json", "TMP/x.skan"), "is the file of --output"),
        (("-o", "TMP/x.skan", "--json", "TMP/no/x.json"), "there is no folder for --json"),
        (("-o", "TMP/x.skan", "--json", "TMP/text.skan"), "what skanomaly did not write"),
        (("-o", "TMP/x.skan", "--json", "TMP/good/0.png", "--overwrite"), "an input of this run"),
        (("-o", "TMP/x.skan", "--set", "topk=x"), "topk"),
        (("-o", "TMP/x.skan", "--model", "nothing_such"), "nothing_such"),
        (("-o", "TMP/x.skan", "--contamination", "0.9"), "contamination"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(tmp_path, good, no_work, options, message):
    (tmp_path / "text.skan").write_text("mine")
    options = [option.replace("TMP", str(tmp_path)) for option in options]
    result = run("fit", good, "--set", "image_size=32", *options)
    assert result.exit_code == (2 if "0.9" in options else 1), result.output
    assert message in result.stderr
    assert not (tmp_path / "x.skan").exists()
    assert (tmp_path / "text.skan").read_text() == "mine"


def test_too_few_images(tmp_path, good, no_work):
    options = ("--model", "vision_tiny", "--scorer", "gaussian", "--set", "image_size=32")
    result = run("fit", good / "0.png", *options, "-o", tmp_path / "x.skan")
    assert result.exit_code == 1
    assert "PatchGaussianScorer needs at least 3 good images to train on, not 1" in result.stderr
    assert run("fit", "-", "-o", tmp_path / "x.skan", stdin="").exit_code == 1


def test_a_model_that_is_there_stays(tmp_path, good):
    arguments = ("fit", good, *SMALL, "-o", tmp_path / "x.skan")
    assert run(*arguments).exit_code == 0
    before = (tmp_path / "x.skan").read_bytes()
    result = run(*arguments, "--contamination", 0.3)
    assert result.exit_code == 1 and "--overwrite" in result.stderr
    assert (tmp_path / "x.skan").read_bytes() == before
    assert run(*arguments, "--contamination", 0.3, "--overwrite").exit_code == 0
    assert (tmp_path / "x.skan").read_bytes() != before


def test_paths_are_left_out_where_asked_for(tmp_path, good):
    result = run("fit", good, *SMALL, "--no-image-paths", "-o", tmp_path / "x.skan")
    assert result.exit_code == 0, result.output
    assert str(good).encode() not in (tmp_path / "x.skan").read_bytes()
    assert skanomaly.load_model(tmp_path / "x.skan")[0]._train_images.paths == (None,) * 8


def test_names_of_every_kind(tmp_path, images):
    """As arguments, in a folder, and as a list; results stand alone on standard output."""
    odd = [b"a b.png", b"# 1.png", b"new\nline.png", b"not utf-8 \xff.png", b"-x.png", b"[1].png"]
    folder = tmp_path / "good"
    folder.mkdir()
    paths = [folder / os.fsdecode(name) for name in odd]
    try:
        for path, image in zip(paths, images, strict=False):
            with open(path, "xb") as file:
                Image.fromarray(image).save(file, "PNG")
    except OSError:
        pytest.skip("this file system takes no such names")
    listed = b"\0".join(map(os.fsencode, paths)) + b"\0"
    for i, (arguments, stdin) in enumerate(
        ((paths, b""), ([folder], b""), (["-", "--null"], listed))
    ):
        model = tmp_path / os.fsdecode(b"model # %d \xfe.skan" % i)
        process = start(
            "fit", *arguments, *SMALL, "-o", model, "--json", "-", stdin=subprocess.PIPE
        )
        out, error = process.communicate(stdin, timeout=120)
        assert process.returncode == 0, error
        summary = json.loads(out)
        assert summary["file"] == str(model) and summary["n_images"] == len(paths)
        assert sorted(trained_on(model)) == sorted(paths)
        assert error.count(b"\n") <= 2 and b"Traceback" not in error


@pytest.mark.filterwarnings("default:training images .* copies or nearly so")
@pytest.mark.parametrize("stream", ["--no-stream", "--stream"])
def test_copies_are_named_by_their_files(tmp_path, good, images, stream):
    write(good, [images[3]], ["again\nand again"])
    result = run("fit", good, *SMALL, stream, "-o", tmp_path / "a.skan")
    assert result.exit_code == 0, result.output
    files = f"{good / '3.png'} and {good}{os.sep}again\\nand again.png"
    assert f"training images {files} are copies or nearly so" in result.stderr


@pytest.mark.filterwarnings("default:training images .* copies or nearly so")
def test_copies_of_what_a_model_knows_are_named_by_their_files(tmp_path, good, images):
    model, more = tmp_path / "a.skan", write(tmp_path / "more", [images[3]], ["again"])
    assert run("fit", good, *SMALL, "-o", model).exit_code == 0
    result = run("fit", more, "--update", model, "-o", tmp_path / "b.skan")
    assert result.exit_code == 0, result.output
    files = f"{good / '3.png'} and {more / 'again.png'}"
    assert f"training images {files} are copies or nearly so" in result.stderr
    assert run("fit", good, *SMALL, "-o", model, "--no-image-paths", "--overwrite").exit_code == 0
    result = run("fit", more, "--update", model, "-o", tmp_path / "c.skan")
    assert f"training images 3 of the model and {more / 'again.png'} are copies" in result.stderr


def test_a_reader_that_goes_away(tmp_path, good):
    with start("fit", good, *SMALL, "-o", tmp_path / "x.skan") as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 1 and b"Traceback" not in error
    skanomaly.load_model(tmp_path / "x.skan")  # what was had is kept


def test_interrupted(tmp_path, good):
    """While the plug-in waits; no model is written, and nothing half written."""
    plugin = tmp_path / "plugin_waits.py"
    plugin.write_text(
        "import pathlib, time\nfrom skanomaly import PatchKNNScorer\n"
        "from skanomaly.registry import register_scorer\n"
        "class Waits(PatchKNNScorer):\n"
        "    def fit(self, X, y=None):\n"
        f"        pathlib.Path({str(tmp_path / 'started')!r}).touch()\n"
        "        time.sleep(60)\n"
        'register_scorer("waits", Waits)\n'
    )
    # In a process of its own group: what runs in the background may ignore the signal.
    with start(
        *("fit", good, "--set", "image_size=32", "-o", tmp_path / "x.skan"),
        *("--plugin", plugin, "--scorer", "waits"),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        while not (tmp_path / "started").exists():
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
    assert process.returncode == 130 and error.startswith(b"interrupted")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "plugin_waits.py",
        "started",
    ]


def test_a_missing_extra(tmp_path, good):
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'timm', 'open_clip', 'huggingface_hub'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from skanomaly.cli import app\napp(sys.argv[1:])\n"
    )
    command = ("fit", good, "--model", "vision_padim", "-o", tmp_path / "x.skan")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and done.stdout == ""
    assert 'pip install "skanomaly[torch]"' in done.stderr and "Traceback" not in done.stderr


def test_the_help_of_scorers_names_where_all_of_them_are_listed():
    """Not some of them."""
    shown = " ".join(run("fit", "--help").output.replace("│", " ").split())
    assert "one that `skanomaly models` lists, or auto" in shown
    listed = run("models").output
    assert all(name in listed for name in skanomaly.registry.list_scorers())
