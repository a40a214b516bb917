"""The code in the documentation runs, on generated images and small random models."""

import json
import math
import re
import shutil
import sys
import threading
import urllib.error
import urllib.request
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pytest
from PIL import ExifTags, Image
from sklearn.pipeline import Pipeline, make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, create_model, export_model, save_model
from skanomaly._images import load_image
from skanomaly.datasets import make_surfaces
from skanomaly.datasets._surfaces import write_surfaces

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)


def small(code, tiny):
    """The code with a model of random weights wherever it would download one."""
    options = f'model_name="{tiny}", weights="random", device="cpu"'
    named = r'create_model\((?="vision_(?:openclip|winclip)(?!.*embedder))'
    code = re.sub(named, f"create_model({options}, name=", code)
    code = code.replace("OpenClipPatches(", f"OpenClipPatches({options}, ")
    return code.replace('PromptScorer("bottle"', f'PromptScorer("bottle", {options}')


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the documentation takes for granted: `good`, `new`, `images` and `y`."""
    made = make_surfaces(14, 4, surface="fabric", image_size=64, random_state=0)
    folder = tmp_path_factory.mktemp("parts")
    paths = []
    for i, image in enumerate(made.images):
        paths.append(folder / f"{i:02d}.png")
        Image.fromarray(image).save(paths[-1])
    return {"good": paths[:10], "new": paths[10:], "images": paths[10:], "y": made.y[10:]}


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory):
    """A folder that holds the data set `mvtec`, of two categories."""
    root = tmp_path_factory.mktemp("data")
    for category, surface in (("bottle", "disc"), ("metal_nut", "fabric")):
        write_surfaces(root / "mvtec" / category, surface, 5, 64, 0)
    return root


@pytest.mark.parametrize("number", range(len(blocks("clip.md"))))
def test_clip(number, names, mvtec, tiny_clip, monkeypatch, capsys):
    code = small(blocks("clip.md")[number], tiny_clip)
    monkeypatch.chdir(mvtec)
    scope = dict(names)
    exec(code, scope)
    model = next((scope[n] for n in ("model", "both", "pipe", "search") if n in scope), None)
    model = scope["winclip"] if model is None else model
    scores = model.score_samples(names["new"])
    assert np.isfinite(scores).all() and len(set(scores)) > 4
    if "mvtec" in code:
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
            "bottle",
            "metal_nut",
        ]
    if "glass_bottles" in scope:
        assert not np.array_equal(scope["bottles"], scope["glass_bottles"])


def test_caching(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = dict(names)
    for code in blocks("caching.md"):
        exec(code, scope)
    refusal = scope["refusal"]  # a Pipeline of scikit-learn 1.6 has words of its own for it
    assert "changed since fit; call fit again" in f"{refusal} {refusal.__cause__}"
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2 * len(names["good"]) + len(names["new"])


@pytest.mark.filterwarnings("ignore::skanomaly.persistence.ModelTrustWarning")
def test_models(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = ModuleType("docs_models")  # whose functions have a place to be found at
    monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(names)
    for code in blocks("models.md"):
        exec(code, vars(module))
    scope = vars(module)
    np.testing.assert_array_equal(scope["verdicts"], scope["pipe"].predict(names["new"]))
    assert scope["manifest"]["training_images"]["paths"] == [str(path) for path in names["good"]]
    assert "not trusted: docs_models.cells" in str(scope["refusal"])
    expected = scope["own"].score_samples(names["new"])
    np.testing.assert_array_equal(scope["again"].score_samples(names["new"]), expected)


def test_streaming_fit(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = dict(names)
    for code in blocks("streaming-fit.md"):
        exec(code, scope)
    pipe = scope["pipe"]
    np.testing.assert_array_equal(scope["verdicts"], pipe.predict(names["new"]))
    expected = Pipeline(pipe.steps).fit(names["good"])[-1].offset_
    assert pipe[-1].offset_ == expected


def test_combining(names, capsys):
    pytest.importorskip("timm")
    scope = dict(names)
    with warnings.catch_warnings():
        # The data sets of these pages are too small for what they show.
        warnings.filterwarnings("ignore", "regions are calibrated")
        for code in blocks("combining.md"):
            exec(code, scope)
    assert len(scope["heat_maps"]) == len(scope["verdicts"]) == len(names["new"])
    assert set(scope["shares"]) == {"fine", "coarse"}
    assert "from the members of the union: " in capsys.readouterr().out
    image_sizes = [member["emb"].image_size for _, member in scope["two"].detectors]
    assert image_sizes == [256, 448]


@pytest.mark.filterwarnings("ignore::skanomaly.persistence.ModelTrustWarning")
def test_patch_models(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = dict(names)
    for code in blocks("patch-models.md"):
        exec(code, scope)
    assert "of the squared distance" in capsys.readouterr().out
    assert (tmp_path / "part.skan").is_file() and len(scope["maps"]) == len(names["new"])
    assert hasattr(scope["search"].best_estimator_["patchwise"], "estimator_")


def test_growing(names):
    scope = dict(names)
    for code in blocks("growing.md"):
        exec(code, scope)
    expected = scope["pipe"].fit(names["good"]).score_samples(names["new"])
    for name in ("grown", "merged"):
        np.testing.assert_allclose(scope[name].score_samples(names["new"]), expected)
    assert len(scope["left"][-1].train_scores_) == len(names["good"]) - 1


def test_thresholds(names, capsys):
    scope = dict(names)
    for code in blocks("thresholds.md"):
        with warnings.catch_warnings():
            # The data sets of these pages are too small for what they show.
            warnings.filterwarnings("ignore", "4 images hold no threshold")
            exec(code, scope)
    told = capsys.readouterr().out
    assert "Decision(0, " in told and f"of {(np.asarray(names['y']) == -1).sum()}: " in told
    assert scope["strict"][-1].offset_ > scope["pipe"][-1].offset_
    assert scope["today"][-1].calibration_["kind"] == "images"
    assert scope["detector"][-1].calibration_["kind"] == "cost"


def test_deployment(names, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    scope = dict(names)
    for code in blocks("deployment.md"):
        exec(code, scope)
    np.testing.assert_array_equal(scope["verdicts"], scope["pipe"].predict(names["new"]))
    assert len(scope["maps"]) == len(scope["decisions"]) == len(scope["shares"]) == 8


def test_running_what_was_exported(names, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(names["good"])
    export_model(pipe, "parts.onnx", images=names["good"])
    bad = next(path for path in names["new"] if pipe.predict([path])[0] == -1)
    load_image(bad).tofile("frame.rgb")
    save_model(pipe, "parts.skan")
    Path("compare").mkdir()
    for path in names["new"]:
        shutil.copy(path, "compare")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.open(bad).save("part.jpg", exif=turned)
    scope = {}
    for code in blocks("deployment-running.md"):
        exec(code, scope)
    np.testing.assert_allclose(scope["verdict"]["score"], pipe.score_samples([bad]), rtol=1e-4)
    np.testing.assert_array_equal(np.asarray(Image.open("frame.ppm")), load_image("part.jpg"))
    told = capsys.readouterr().out
    assert told.startswith("score -") and "most unusual at row" in told and "64 64 {" in told
    from_file = float(re.search("part.jpg: score ([^,]+),", told)[1])
    np.testing.assert_allclose(from_file, pipe.score_samples(["part.jpg"]), rtol=1e-4)
    compared = [line for line in told.splitlines() if "apart, " in line]
    assert len(compared) == 8 and all(line.endswith("same decision") for line in compared)
    assert all(float(re.search("([^ ]+) apart", line)[1]) < 1e-4 for line in compared)


def test_files_are_read_as_the_package_does(tmp_path):
    """By the function of the page about exported models, which works without the package."""
    code = next(code for code in blocks("deployment-running.md") if "def read(" in code)
    scope = {"np": np}
    exec(code.partition("\nscore, ")[0], scope)
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    colours[0, 0, 3], colours[0, 1, 3] = 0, 255
    seen = Image.fromarray(colours[:, :, :3])
    for orientation in range(1, 9):
        turned = Image.Exif()
        turned[ExifTags.Base.Orientation] = orientation
        seen.save(tmp_path / f"turned-{orientation}.jpg", exif=turned)
        Image.fromarray(colours).save(tmp_path / f"both-{orientation}.png", exif=turned)
    seen.convert("L").save(tmp_path / "grey.png")
    seen.convert("1").save(tmp_path / "bits.png")
    seen.convert("P").save(tmp_path / "palette.gif", transparency=3)
    seen.save(tmp_path / "key.png", transparency=tuple(map(int, colours[2, 2, :3])))
    Image.fromarray(colours).convert("LA").save(tmp_path / "grey-and-alpha.png")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 21
    for file in files:
        np.testing.assert_array_equal(scope["read"](file), load_image(file), file.name)
    assert (scope["read"](tmp_path / "both-1.png")[0, 0] == 255).all()
    Image.fromarray(np.zeros((5, 7), dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        scope["read"](tmp_path / "deep.png")


def test_errors_of_the_runtime_are_as_the_pages_say(names, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(names["good"])
    export_model(pipe, tmp_path / "parts.onnx", images=names["good"])
    session = onnxruntime.InferenceSession(
        tmp_path / "parts.onnx", providers=["CPUExecutionProvider"]
    )
    pages = ["deployment-running.md", "troubleshooting.md"]
    text = [(DOCS / page).read_text(encoding="utf-8") for page in pages]
    image = load_image(names["new"][0])[None]
    for given, beginning, end in (
        (image[:, :50], "Got invalid dimensions for input: image", "index: 1 Got: 50 Expected: 64"),
        (image[0], "Invalid rank for input: image", ""),
        (
            image / np.float32(255),
            "Unexpected input data type. Actual: (tensor(float)) , expected: (tensor(uint8))",
            "",
        ),
    ):
        with pytest.raises(Exception, match=re.escape(beginning)) as caught:
            session.run(None, {"image": given})
        assert end in str(caught.value)
        assert f'"{beginning}' in text[0] and (f'"{beginning}' in text[1] or "rank" in beginning)


def test_extras_are_listed():
    page = (DOCS / "installing.md").read_text(encoding="utf-8")
    project = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    named = re.findall(r"^([a-z]+) = \[", extras, re.MULTILINE)
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(named)
    first, *_, last = re.findall(r"Python :: (3\.\d+)", project)
    assert f"Python\n{first} to {last}" in page


def test_local(names):
    scope = dict(names)
    for code in blocks("local.md"):
        exec(code, scope)
    assert len(scope["model"][-1].train_scores_) == len(names["good"])


def test_no_example_would_download(tiny_clip):
    """Each block was made small, but for the one that brings its own embedder."""
    for code in blocks("clip.md"):
        made = small(code, tiny_clip)
        assert made.count(tiny_clip) >= 1 or "embedder=" in code


@pytest.fixture(scope="module")
def anomalib_scope(anomalib_checkpoints, tmp_path_factory):
    """Names of anomalib.md, in a folder with `model.ckpt` and the same in place of `model.onnx`."""
    from _anomalib_tiny import textures

    good, bad = textures(24, seed=3), textures(0, 6, seed=4)
    return {
        "checkpoint": str(anomalib_checkpoints.get("padim").path),
        "good": good[:20],
        "bad": bad,
        "images": [*good[20:], *bad],
        "new": [*good[20:], *bad],
        "good_images": good[:20],
        "heat": np.ones((4, 4), dtype=np.float32),
    }


@pytest.mark.slow
def test_anomalib(anomalib_scope, tmp_path, monkeypatch):
    """All but training, whose weights would have to be downloaded, and what anomalib 1.x runs."""
    monkeypatch.chdir(tmp_path)
    ran = 0
    for code in blocks("anomalib.md"):
        if "engine.export" not in code and "InferenceModel" not in code:
            for name in ("model.onnx", "model.ckpt"):
                code = code.replace(f'"{name}"', repr(anomalib_scope["checkpoint"]))
            exec(code.replace("        ...\n", ""), anomalib_scope)
            ran += 1
    assert ran >= 4
    kept = tmp_path / "detector.joblib"
    maps = joblib.load(kept).held_out_patches_
    assert kept.stat().st_size < 10_000 + sum(heat.nbytes for heat in maps)
    assert anomalib_scope["search"].best_params_["contamination"] in (0.01, 0.05, 0.1)
    assert anomalib_scope["detector"].score_samples(anomalib_scope["new"]).tolist() == [-0.3] * 10


def test_calibration(names):
    good = names["good"]
    pipe = Pipeline([("emb", FilterBankPatches(image_size=64)), ("scorer", PatchKNNScorer())])
    scope = {
        "np": np,
        "pipe": pipe,
        "scorer": PatchKNNScorer(),
        "tokens": pipe[0].transform(good),
        "part_numbers": [i // 2 for i in range(len(good))],
        "images": good,
        "is_defect": np.arange(len(good)) == 0,
    }
    for code in blocks("calibration.md"):
        exec(code, scope)
    assert len(scope["scorer"].train_scores_) == len(good)
    assert len(pipe["scorer"].train_scores_) == len(good) - 1  # the defect is left out


def test_explaining(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = dict(names)
    for code in blocks("explaining.md"):
        exec(code, scope)
    assert "nearest patch of the training images" in capsys.readouterr().out
    assert len(scope["masks"]) == len(names["new"]) and (tmp_path / "regions.json").is_file()
    assert sum(map(bool, scope["regions"])) >= 3  # of four images with defects, and four without


def test_anomalydino(names):
    scope = dict(names)
    for code in blocks("anomalydino.md"):
        exec(code, scope)
    assert scope["model"][-1].bank_.shape[0] == len(names["good"]) * 12 * 64


def test_foreground(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = dict(names)
    for code in blocks("foreground.md"):
        exec(code, scope)
    share = float(capsys.readouterr().out.split()[0])
    assert 0 < share < 1 and scope["left"][1].area_ == 0.5


def test_displays(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    made = make_surfaces(40, 4, surface="fabric", image_size=64, random_state=0)
    paths = []
    for i, image in enumerate(made.images):
        paths.append(tmp_path / f"{i:02d}.png")
        Image.fromarray(image).save(paths[-1])
    monkeypatch.chdir(tmp_path)
    pipe = create_model("filterbank", scorer="knn", image_size=64).fit(paths[:24])
    names = {"images": paths[24:], "y": made.y[24:], "masks": made.masks[24:], "pipe": pipe}
    for code in blocks("displays.md"):
        exec(code, names)
    assert (tmp_path / "maps.png").exists()
    names["plt"].close("all")


def test_report(mvtec, monkeypatch):
    monkeypatch.chdir(mvtec)
    images = make_surfaces(8, surface="fabric", image_size=64, random_state=0).images
    for i, image in enumerate(images):
        path = mvtec / ("parts/good" if i < 5 else "incoming") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    scope = {}
    for code in blocks("report.md"):
        exec(code, scope)
    assert "bottle" in (mvtec / "report.html").read_text(encoding="utf-8")
    assert len(scope["scores"]) == 3
    assert (mvtec / "new.html").exists() and (mvtec / "labelled.html").exists()


def test_mean_colours(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = make_surfaces(4, surface="tile", image_size=64, random_state=0).images
    folders = [Path("path/to/training/images"), Path("path/to/good/of/today")]
    for folder, some in zip(folders, (images[:2], images[2:] // 2), strict=True):
        folder.mkdir(parents=True)
        for i, image in enumerate(some):
            Image.fromarray(image).save(folder / f"{i}.png")
    (code,) = blocks("troubleshooting.md")
    exec(code, {})
    expected = [images[:2].mean(axis=(0, 1, 2)), (images[2:] // 2).mean(axis=(0, 1, 2))]
    told = [
        f"{f} red, green, blue: {mean.round(1)}" for f, mean in zip(folders, expected, strict=True)
    ]
    assert capsys.readouterr().out.splitlines() == told


def test_knn(names):
    (code,) = blocks("knn.md")
    exec(code, dict(names))


def test_training_images(names):
    scope = dict(names)
    for code in blocks("training-images.md"):
        exec(code, scope)
    assert len(scope["ranking"]) == len(names["images"]) and len(scope["suspicious"]) == 5
    # The images labelled -1 are left out.
    expected = len(names["good"]) + (np.asarray(names["y"]) == 1).sum()
    assert len(scope["model"][-1].train_scores_) == expected


def test_on_the_line(names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(names["good"])
    save_model(pipe, "parts.skan")
    scope = dict(names)
    for code in blocks("on-the-line.md"):
        exec(code.replace("8000", "0"), scope)  # any port that is free
    share, differ = capsys.readouterr().out.split()
    tail = sum(math.comb(500, k) * 0.1**k * 0.9 ** (500 - k) for k in range(90, 501))
    assert share == f"{tail:.1e}" == "3.7e-08" and 0 <= float(differ) <= 1
    with scope["server"] as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        for path, verdict in zip(names["new"], pipe.predict(names["new"]), strict=True):
            told = json.load(urllib.request.urlopen(address, path.read_bytes()))
            assert told["decision"] == ("normal" if verdict == 1 else "anomalous")
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            urllib.request.urlopen(address, b"no image")
        assert "not an image" in json.load(refused.value)["error"]
        refused.value.close()
        server.shutdown()
        thread.join()


def test_searching(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = dict(names)
    for code in blocks("searching.md"):
        exec(code, scope)
    assert len(scope["search"].cv_results_["params"]) == 3
    assert set(scope["verdicts"]) <= {-1, 1}
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(names["good"] + names["images"])


def test_rules_of_thumb(names, capsys):
    (code,) = blocks("rules-of-thumb.md")
    exec(code, dict(names))
    assert capsys.readouterr().out == "(1, 32, 32, 102)\n"


def test_coming_from():
    scope = {}
    (code,) = blocks("coming-from.md")
    exec(code, scope)
    named = create_model("vision_patchcore", coreset=0.1, reweighting=None, random_state=0)
    assert str(scope["patchcore"][0]) == str(named[0])  # which says what differs from the defaults
    assert str(scope["patchcore"][1]) == str(named[1])


def test_images():
    names = {"FilterBankPatches": FilterBankPatches, "create_model": create_model}
    (code,) = blocks("images.md")
    exec(code, names)


def test_tiling(names):
    scope = dict(names)
    for code in blocks("tiling.md"):
        exec(code, scope)
    assert scope["maps"].shape == (2, 240, 640) and scope["search"].best_params_
    assert scope["found"]


def test_unlabelled(names):
    scope = {**names, "images": [*names["good"], *names["new"]]}
    (code,) = blocks("unlabelled.md")
    exec(code, scope)
    assert set(scope["labels"]) == {-1, 1} and len(scope["maps"]) == len(scope["scores"]) == 18


def test_tiny_network(names):
    scope = dict(names)
    (code,) = blocks("models/tiny.md")
    exec(code, scope)
    assert set(scope["verdicts"]) <= {-1, 1} and len(scope["verdicts"]) == len(names["new"])
    assert [name for name, _ in scope["finer"].detectors] == ["filterbank", "tiny"]


def test_first_page(names):
    scope = dict(names)
    (code,) = blocks("index.md")
    exec(code, scope)
    assert len(scope["verdicts"]) == len(scope["maps"]) == len(names["new"])


def test_each_page_with_code_is_run():
    """Here, or for the pages of developers, the tutorial and the README in tests of their own."""
    elsewhere = {
        "development/extending.md",
        "development/metrics.md",
        "development/search.md",
        "many-machines.md",
        "tutorial.md",
    }
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    with_code = {page for page in pages if blocks(page)}
    here = {
        "anomalib.md",
        "anomalydino.md",
        "caching.md",
        "calibration.md",
        "clip.md",
        "combining.md",
        "coming-from.md",
        "deployment-running.md",
        "deployment.md",
        "displays.md",
        "explaining.md",
        "foreground.md",
        "growing.md",
        "images.md",
        "index.md",
        "models.md",
        "models/tiny.md",
        "on-the-line.md",
        "patch-models.md",
        "report.md",
        "rules-of-thumb.md",
        "searching.md",
        "streaming-fit.md",
        "thresholds.md",
        "tiling.md",
        "training-images.md",
        "troubleshooting.md",
        "unlabelled.md",
        "knn.md",
        "local.md",
    }
    assert with_code == here | elsewhere


def test_commands_exist():
    from typer.testing import CliRunner

    from skanomaly.cli import app

    runner, n_commands = CliRunner(), 0
    pages = [DOCS.parent / "README.md", DOCS.parent / "benchmarks" / "README.md"]
    for page in [*pages, *DOCS.rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        shell = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        lines = [line.partition("#")[0] for line in shell.splitlines()]
        lines += re.findall(r"`(skanomaly [^`]+)`", text)
        for line in lines:
            words = re.findall(r'"[^"]*"|\S+', line)
            if not words or words[0] != "skanomaly" or "..." in words:
                continue
            n_commands += 1
            command = words[1:3] if words[1] == "weights" else words[1:2]
            shown = runner.invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
            assert shown.exit_code == 0, line
            for option in (word for word in words if word.startswith("--")):
                assert option in shown.output, line
            if "--model" in words and find_spec("timm"):  # which knows the backbones
                model = words[words.index("--model") + 1]
                assert runner.invoke(app, ["models", model]).exit_code == 0, line
    assert n_commands > 20
