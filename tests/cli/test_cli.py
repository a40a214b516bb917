"""The command line, as a person runs it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import skanomaly
from skanomaly.cli import app
from skanomaly.cli._options import DEFAULT_MODEL
from skanomaly.datasets._surfaces import write_surfaces

SMALL = ("--set", "image_size=64")


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def unboxed(text):
    """What stands in a box that the terminal shows, in one line."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo")
    result = run("demo", "--output", output, "--images", 12, "--size", 128, "--json", output / "r")
    assert result.exit_code == 0, result.output
    return output, result


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve good images to train on; ten good and fifteen defective ones to test on."""
    folder = tmp_path_factory.mktemp("data") / "discs"
    write_surfaces(folder, "disc", 12, 128, 0)
    return folder


@pytest.mark.slow
def test_demo(demo):
    output, result = demo
    assert "image auroc" in result.output and "aupro 0.3" in result.output
    numbers = json.loads((output / "r").read_text())
    assert numbers["n_train"] == 12 and numbers["n_normal"] == 50 and numbers["n_anomalous"] == 50
    assert numbers["metrics"]["image_auroc"] > 0.9
    assert "skanomaly evaluate path/to/your/parts" in result.stderr  # what to do next
    assert 'content="skanomaly report"' in (output / "report.html").read_text(encoding="utf-8")
    heat_maps = sorted((output / "heatmaps").rglob("*.png"))
    assert len(heat_maps) == 100
    with Image.open(heat_maps[0]) as picture:
        # The image, and beside it the map over it, twice as large as 128 pixels; below, a caption.
        assert picture.width == 512 and picture.height > 256
    with open(output / "heatmaps" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100
    for row in rows:
        verdict = "anomalous" if float(row["score"]) < float(row["threshold"]) else "normal"
        assert row["verdict"] == verdict
        assert (output / "heatmaps" / row["heat_map"]).is_file()


@pytest.mark.slow
def test_heat_is_where_the_defect_is(demo):
    output, _ = demo
    data = output / "disc-128px-12-seed0"
    hits = 0
    for mask_path in (data / "ground_truth" / "missing_piece").iterdir():
        stem = mask_path.stem.removesuffix("_mask")
        with Image.open(mask_path) as im:
            mask = np.asarray(im) > 0
        with Image.open(output / "heatmaps" / "missing_piece" / f"{stem}.png") as im:
            plain, painted = np.split(np.asarray(im).astype(int)[:256:2, ::2], 2, axis=1)
        change = np.abs(painted - plain).sum(axis=-1)
        hits += change[mask].mean() > 3 * change[~mask].mean()
    assert hits == 10


def test_evaluate(data, tmp_path):
    args = ("evaluate", data, *SMALL, "--model", "vision_tiny", "--scorer", "knn")
    args += ("--set", "topk=0.05")
    result = run(*args, "--set", "coreset=0.5", "--contamination", 0.2, "--json", "-")
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert numbers["contamination"] == 0.2 and numbers["n_train"] == 12
    assert (numbers["parameters"]["knn__topk"], numbers["parameters"]["knn__coreset"]) == (
        "0.05",
        "0.5",
    )
    result = run(*args, "--output", tmp_path / "maps", "--set", f"cache_dir={tmp_path / 'cache'}")
    assert result.exit_code == 0 and "12 / 10 / 15" in result.stdout
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 25
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 37


@pytest.mark.slow
def test_evaluate_with_weights(data, shared):
    pytest.importorskip("timm")
    result = run(
        *("evaluate", data, "--model", "vit_tiny_patch16_224"),
        *("--weights", shared / "weights" / "vit_tiny_patch16_224.safetensors"),
        *("--set", "layers=5,7", "--set", "image_size=96", "--json", "-"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["metrics"]["image_auroc"] > 0.6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "no-such-folder"], "no-such-folder"),
        (["evaluate", "DATA", "--scorer", "svm"], "no scorer named 'svm'"),
        (["evaluate", "DATA", "--model", "vit_tinny_patch16_224"], "did you mean 'vit_tiny"),
        (["evaluate", "DATA", "--set", "layers=3"], f"--set layers: {DEFAULT_MODEL} has no"),
        (["evaluate", "DATA", "--set", "image-size=64"], f"--set image-size: {DEFAULT_MODEL}"),
        (["evaluate", "DATA", "--set", "image-size=64"], "did you mean 'image_size'"),
        (
            ["evaluate", "DATA", "--set", "emb__image_sice=64"],
            "did you mean 'tiny__emb__image_size'",
        ),
        (["evaluate", "DATA", "--weights", "x.pth"], "x.pth"),
        (
            ["evaluate", "DATA", "--weights", "x.pth", "--model", "filterbank"],
            "--weights: filterbank has no",
        ),
        (["evaluate", "DATA", "--set", "layers=x", "--model", "resnet18"], "layers"),
        (["evaluate", "DATA", "--set", "image_size=100"], "not a multiple"),
        (["evaluate", "DATA", "--set", "topk=x"], "'topk' parameter of LocalKNNScorer"),
        (["evaluate", "DATA", "--json", "TMP/no/x.json"], "x.json"),
        (["evaluate", "DATA", "--model", "resnet18", "--set", "device=cuda:99"], "cuda:99"),
        (["demo", "--surface", "cheese", "--output", "TMP"], "cheese"),
    ],
)
def test_one_line_errors(data, tmp_path, args, message):
    places = {"DATA": str(data), "TMP": str(tmp_path)}
    if "--model" in args:
        pytest.importorskip("timm")
    result = run(*(str.replace(places.get(arg, arg), "TMP", str(tmp_path)) for arg in args))
    assert result.exit_code == 1
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


def test_a_second_run_replaces_the_maps_of_the_first(data, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "mine.png").write_bytes(b"kept")
    arguments = ("evaluate", data, *SMALL, "--output", tmp_path / "maps")
    for _ in range(2):
        assert run(*arguments, "--scorer", "knn", "--set", "topk=3").exit_code == 0
    stale = data / "test" / "good" / "012.png"
    moved = stale.rename(data / "test" / "good" / "renamed.png")
    try:
        assert run(*arguments).exit_code == 0
    finally:
        moved.rename(stale)
    names = {path.name for path in (tmp_path / "maps").rglob("*.png")}
    assert len(names) == 26 and {"renamed.png", "mine.png"} <= names and "012.png" not in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--coreset", "0.1"), "There is no option --coreset; a parameter of the model is given"),
        (("--overwrit",), "There is no option --overwrit; did you mean --overwrite?"),
        (("--coreset=0.1", "--shots", "2"), "is given as --set coreset=0.1"),
    ],
)
def test_options_that_there_are_not_before_the_data_set(data, options, message):
    result = run("evaluate", *options, data)
    assert result.exit_code == 2 and message in unboxed(result.stderr)


def test_a_data_set_whose_name_looks_like_an_option(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("-parts").symlink_to(data)
    result = run("evaluate", *SMALL, "--", "-parts")
    assert result.exit_code == 0, result.output


def test_few_shots(data, tmp_path):
    table = tmp_path / "runs.jsonl"
    arguments = ("evaluate", data, *SMALL, "--scorer", "knn", "--json", table)
    arguments += ("--shots", 2, 3, "--seeds", 2)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert [(row["shots"], row["seed"], row["n_train"]) for row in rows] == [
        (2, 0, 2),
        (2, 1, 2),
        (3, 0, 3),
        (3, 1, 3),
    ]
    before = table.read_text()
    assert run(*arguments).exit_code == 0 and table.read_text() == before
    # The numbers end where the path begins.
    assert run(*arguments[:1], *arguments[2:], data).exit_code == 0 and table.read_text() == before
    assert "unexpected extra argument" in unboxed(run("evaluate", data, "5").stderr)
    assert "leave out --shots" in run(*arguments, "--output", tmp_path).stderr
    assert "--seeds is for --shots" in run("evaluate", data, "--seeds", 2).stderr
    table.write_text('{"name": "another"}\n')
    assert "the output would replace what skanomaly did not write" in run(*arguments).stderr
    assert table.read_text() == '{"name": "another"}\n'


def test_datasets(data, tmp_path):
    root = tmp_path / "all"
    for name in ("a", "b"):
        shutil.copytree(data, root / name)
    result = run("datasets", root)
    assert result.exit_code == 0 and "scratch" in result.stdout
    assert result.stdout.count("train") == 2
    mask = next((root / "b" / "ground_truth" / "spot").iterdir())
    Image.new("L", (5, 5), 255).save(mask)
    result = run("datasets", root)
    assert result.exit_code == 1 and "1 problems found" in result.stderr
    assert "sizes (height, width) differ" in result.stdout
    result = run("evaluate", root, "--category", "a", *SMALL, "--json", "-")
    assert result.exit_code == 0 and json.loads(result.stdout)["n_train"] == 12
    mask.unlink()
    assert "does not fit the layout" in run("datasets", root).stderr


def test_datasets_deep(data, tmp_path):
    root = tmp_path / "a"
    shutil.copytree(data, root)
    train = sorted((root / "train" / "good").iterdir())
    encoded = train[1].read_bytes()
    train[1].write_bytes(encoded[: len(encoded) * 2 // 3])
    assert run("datasets", root).exit_code == 0
    result = run("datasets", root, "--deep")
    assert result.exit_code == 1 and "1 problems found" in result.stderr
    assert f"{train[1]}: " in result.stdout and "truncated" in result.stdout
    train[1].write_bytes(train[0].read_bytes())
    result = run("datasets", root)
    assert result.exit_code == 1
    assert f"{train[1]}: the same image as {train[0]}: training images" in result.stdout


def test_version():
    assert run("--version").output.strip() == skanomaly.__version__


def test_runs_are_repeatable(data):
    arguments = ("evaluate", data, *SMALL, "--json", "-")
    first, second = (json.loads(run(*arguments).stdout) for _ in range(2))
    assert first.pop("seconds") != second.pop("seconds")
    assert first == second


def test_installed_command():
    help_text = subprocess.run(
        [sys.executable, "-m", "skanomaly.cli", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert help_text.returncode == 0 and "evaluate" in help_text.stdout


# Models by name


def test_models():
    result = run("models")
    assert result.exit_code == 0
    for name in skanomaly.list_models():
        assert name in result.stdout
    assert "gaussian" in result.stdout and "knn" in result.stdout
    result = run("models", "--tag", "zero-shot", "--tag", "clip")
    assert "vision_winclip" in result.stdout and "vision_padim" not in result.stdout
    assert "did you mean 'zero-shot'" in run("models", "--tag", "zeroshot").stderr


def test_what_a_model_takes():
    shown = run("models", "vision_patchcore").stdout
    assert "Total Recall" in shown and "emb__layers" in shown and "(2, 3)" in shown
    assert "did you mean 'vision_patchcore'" in run("models", "vision_patchcor").stderr
    pytest.importorskip("timm")
    shown = run("models", "dinov2_vits14").stdout
    assert "emb__image_size" in shown and "knn__topk" in shown


def test_evaluate_a_model_by_name(data):
    pytest.importorskip("timm")
    result = run("evaluate", data, "--model", "vision_padin")
    assert result.exit_code == 1 and "did you mean 'vision_padim" in result.stderr
    result = run("evaluate", data, "--model", "vision_padim", "--set", "class_name=nut")
    assert result.exit_code == 1 and "vision_padim has no parameter 'class_name'" in result.stderr


def test_evaluate_zero_shot(data, tmp_path, tiny_clip):
    """Weights come from a file; the texts are those of the class."""
    open_clip = pytest.importorskip("open_clip")
    torch = pytest.importorskip("torch")
    weights = tmp_path / "clip.pt"
    torch.save(open_clip.create_model(tiny_clip).state_dict(), weights)
    result = run(
        *("evaluate", data, "--model", "vision_openclip_promptscore"),
        *("--set", "class_name=disc", "--weights", weights, "--json", "-", "--set", "device=cpu"),
    )
    assert result.exit_code == 1 and "weights of ViT-B-16" in result.stderr
    result = run(
        *("evaluate", data, "--model", f"{tiny_clip}/{weights}"),
        *("--json", "-", "--set", "device=cpu", "--set", "topk=0.1"),
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["parameters"]["emb__model_name"] == repr(tiny_clip)


def test_evaluate_a_checkpoint(data, tiny_onnx, tmp_path):
    pytest.importorskip("onnxruntime")
    arguments = ("evaluate", data, "--model")
    name = "vision_anomalib_checkpoint"
    options = ("--json", "-", "--set", "device=cpu")
    result = run(*arguments, name, "--weights", tiny_onnx, *options)
    assert result.exit_code == 0, result.output
    numbers = json.loads(result.stdout)
    assert numbers["n_train"] == 12 and numbers["contamination"] == 0.1
    assert 0 <= numbers["metrics"]["image_auroc"] <= 1
    result = run(*arguments, name, "--weights", tiny_onnx, "--output", tmp_path / "maps")
    assert result.exit_code == 0 and len(list((tmp_path / "maps").rglob("*.png"))) == 25
    for options, message in (
        ((name,), f"{name} needs --weights FILE"),
        ((name, "--weights", "no-such.ckpt"), "no-such.ckpt"),
        ((name, "--weights", tiny_onnx, "--scorer", "knn"), "neither embedder nor scorer"),
        ((name, "--weights", tiny_onnx, "--set", "topk=3"), "no parameter 'topk'"),
        ((name, "--weights", __file__), "test_cli.py is not a file that can be used"),
    ):
        result = run(*arguments, *options)
        (line,) = result.stderr.strip().splitlines()
        assert result.exit_code == 1 and message in line


# Weights


REFUSES = "http://127.0.0.1:9"


def _weights(*args, **environment):
    return subprocess.run(
        [sys.executable, "-m", "skanomaly.cli", "weights", *args],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment},
    )


@pytest.mark.slow
def test_fetch_without_a_connection(tmp_path):
    """One line, and none of the attempts in which a download ends."""
    pytest.importorskip("timm")
    done = _weights("fetch", "vision_padim", HF_HOME=str(tmp_path), HF_ENDPOINT=REFUSES)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(
        "error: the pretrained weights of resnet18.tv_in1k could not be downloaded"
    )
    assert "Connect" in line and str(tmp_path / "hub") in line and "HF_HOME" in line


@pytest.mark.parametrize(
    ("name", "weights", "extra"),
    [
        ("vision_anomalydino", "vit_small_patch14_dinov2", "timm"),
        ("dinov2_vitb14_reg", "vit_base_patch14_reg4_dinov2", "timm"),
        ("wide_resnet50_2", "wide_resnet50_2", "timm"),
        ("vision_winclip_fewshot", "ViT-B-16-plus-240/laion400m_e32", "open_clip"),
        ("ViT-B-32/openai", "ViT-B-32/openai", "open_clip"),
    ],
)
def test_fetch_asks_for_the_weights_of_the_model(tmp_path, monkeypatch, name, weights, extra):
    pytest.importorskip(extra)
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    result = run("weights", "fetch", name)
    assert result.exit_code == 1
    assert f"the pretrained weights of {weights} could not be downloaded" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "HF_HUB_OFFLINE is set" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("filterbank", "has no weights to download"),
        ("tiny", "has no weights to download"),
        ("vision_padim_anomalib", "a checkpoint of your own"),
        ("vision_padin", "did you mean 'vision_padim"),
    ],
)
def test_nothing_to_fetch(name, message):
    result = run("weights", "fetch", name)
    assert result.exit_code == 1 and message in result.stderr


@pytest.mark.slow
def test_list_of_weights(tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("open_clip")
    repository = tmp_path / "hub" / "models--timm--resnet18.tv_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True)
    (repository / "blobs" / "b10b").write_bytes(bytes(3_000_000))
    (repository / "refs" / "main").write_text("0" * 40)
    (snapshot / "model.safetensors").symlink_to(repository / "blobs" / "b10b")
    torch_home = tmp_path / "torch" / "hub" / "checkpoints"
    torch_home.mkdir(parents=True)
    (torch_home / "old.pth").write_bytes(bytes(2_000_000_000 // 1000))
    done = _weights("list", HF_HOME=str(tmp_path), TORCH_HOME=str(tmp_path / "torch"))
    assert done.returncode == 0, done.stderr
    rows = {line.split()[1]: line for line in done.stdout.splitlines() if "vision_" in line}
    assert (
        "there (3 MB)" in rows["vision_padim"] and "timm/resnet18.tv_in1k" in rows["vision_padim"]
    )
    assert "not there" in rows["vision_patchcore"] and "not there" in rows["vision_winclip"]
    assert "filterbank" not in rows and "vision_padim_anomalib" not in rows
    assert str(tmp_path / "hub") in done.stdout and "3 MB  timm/resnet18.tv_in1k" in done.stdout
    assert str(torch_home) in done.stdout and "2 MB  old.pth" in done.stdout


def test_list_of_weights_without_extras():
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'timm', 'open_clip', 'huggingface_hub'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from skanomaly.cli import app\napp(['weights', 'list'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    assert 'pip install "skanomaly[torch]"' in done.stdout
    assert 'pip install "skanomaly[clip]"' in done.stdout
