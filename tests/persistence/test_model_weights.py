"""Weights that a model file refers to, or brings with it."""

import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skanomaly import (
    AnomalibDetector,
    DinoV2Patches,
    OpenClipPatches,
    PatchKNNScorer,
    PromptScorer,
    ScoreUnion,
    TimmPatches,
    load_model,
    model_manifest,
    save_model,
)
from skanomaly.datasets import make_surfaces

SMALL = {"image_size": 32, "device": "cpu"}


@pytest.fixture(scope="module")
def images():
    return make_surfaces(8, 3, surface="fabric", image_size=64, random_state=0).images


@pytest.fixture
def weights(tmp_path):
    """A file with weights of a small network of timm."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "weights.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)
    return path


def fitted(images, weights, **params):
    embedder = TimmPatches("test_vit", weights=weights, **{**SMALL, **params})
    return make_pipeline(embedder, PatchKNNScorer()).fit(images[:8])


@pytest.mark.parametrize("kind", [str, os.fspath, lambda path: path], ids=["str", "text", "Path"])
def test_weights_by_a_path_are_referred_to(kind, weights, images, tmp_path):
    model, path = fitted(images, kind(weights)), tmp_path / "model.skan"
    save_model(model, path)
    (entry,) = model_manifest(path)["weights"]
    assert entry["value"] == str(weights) and not entry["included"] and entry["tag"] is None
    assert path.stat().st_size < weights.stat().st_size + 300_000
    loaded = load_model(path)
    assert loaded[0].weights == kind(weights) and type(loaded[0].weights) is type(kind(weights))
    np.testing.assert_array_equal(loaded.score_samples(images), model.score_samples(images))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"other weights than there are here.*include_weights"):
        load_model(path)
    weights.unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"TimmPatches was fitted with weights=.*not here|"
        r"weights that are not here",
    ):
        load_model(path)


def test_weights_by_a_path_are_brought(weights, images, tmp_path):
    model, path, folder = fitted(images, weights), tmp_path / "model.skan", tmp_path / "put"
    save_model(model, path, include_weights=True)
    expected = model.score_samples(images)
    shutil.rmtree(weights.parent)
    loaded = load_model(path, weights_dir=folder)
    np.testing.assert_array_equal(loaded.score_samples(images), expected)
    assert folder in type(folder)(loaded[0].weights).parents
    assert loaded[0]._changed_params() == []
    (place,) = folder.glob("*/*")
    assert place.name == "model.safetensors"
    # What lies there is used again where it is right, and put back where it is not.
    stamp = place.stat().st_mtime_ns
    load_model(path, weights_dir=folder)
    assert place.stat().st_mtime_ns == stamp
    place.write_bytes(b"other")
    again = load_model(path, weights_dir=folder)
    np.testing.assert_array_equal(again.score_samples(images), expected)
    # And it can be saved, pickled and cloned from there.
    save_model(again, path, include_weights=True)
    shutil.rmtree(folder)
    third = load_model(path, weights_dir=folder)
    np.testing.assert_array_equal(third.score_samples(images), expected)
    copies = pickle.loads(pickle.dumps(third)), clone(third).fit(images[:8])
    for copy in copies:
        np.testing.assert_array_equal(copy.score_samples(images), expected)


@pytest.fixture
def hub(tmp_path, monkeypatch, weights):
    """A stand-in for the hub: what timm would download for `test_vit` lies in its cache."""
    import timm

    cfg = timm.get_pretrained_cfg("test_vit")
    repo = tmp_path / "hub" / f"models--{cfg.hf_hub_id.replace('/', '--')}"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    shutil.copy(weights, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


OFFLINE = """
import sys
import numpy as np
from skanomaly import load_model
model = load_model(sys.argv[1])
images, expected = np.load(sys.argv[2]), np.load(sys.argv[3])
np.testing.assert_array_equal(model.score_samples(images), expected)
print(model[0].weights)
"""


@pytest.mark.parametrize("image_size", [160, 32])
@pytest.mark.slow
def test_weights_of_the_hub_are_brought_to_a_computer_without_network(
    image_size, hub, images, tmp_path
):
    model = fitted(images, "pretrained", image_size=image_size)
    expected = model.score_samples(images)
    path = tmp_path / "model.skan"
    save_model(model, path)
    assert model_manifest(path)["weights"][0]["tag"] == "pretrained"
    save_model(model, path, include_weights=True)
    shutil.rmtree(hub)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "scores.npy", expected)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "empty"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    files = [path, tmp_path / "images.npy", tmp_path / "scores.npy"]
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *map(str, files)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    tag, _, place = done.stdout.strip().partition("@")
    assert tag == "pretrained" and place.startswith(str(tmp_path / "cache" / "skanomaly"))


def test_weights_that_are_missing_are_an_error_when_they_are_to_be_put_in(
    images, tmp_path, weights
):
    model = fitted(images, weights)
    weights.unlink()
    with pytest.raises((ValueError, OSError), match=r"weights\.safetensors"):
        save_model(model, tmp_path / "model.skan", include_weights=True)
    assert not (tmp_path / "model.skan").exists()


def test_both_towers_of_clip_are_one_file(tiny_clip, images, tmp_path):
    import open_clip
    from safetensors.torch import save_file

    path, weights = tmp_path / "model.skan", tmp_path / "there.safetensors"
    clip = open_clip.create_model(tiny_clip)
    save_file({name: t.contiguous() for name, t in clip.state_dict().items()}, weights)
    params = {"model_name": tiny_clip, "weights": str(weights), "device": "cpu"}
    prompt = PromptScorer(prompts="clip_ac", **params)
    union = ScoreUnion([("prompt", prompt), ("knn", PatchKNNScorer())])
    for scorer in (prompt, union):
        model = make_pipeline(OpenClipPatches(project=True, **params), scorer)
        model.fit(images[:8])
        expected = model.score_samples(images)
        save_model(model, path, include_weights=True)
        assert {e["class"].rpartition(".")[2] for e in model_manifest(path)["weights"]} == {
            "OpenClipPatches",
            "PromptScorer",
        }
        assert path.stat().st_size < 1.5 * weights.stat().st_size
        kept = weights.rename(tmp_path / "moved")
        loaded = load_model(path, weights_dir=tmp_path / "put")
        np.testing.assert_array_equal(loaded.score_samples(images), expected)
        kept.rename(weights)
    zero_shot = make_pipeline(OpenClipPatches(project=True, **params), prompt)
    expected = clone(zero_shot).score_samples(images)
    save_model(clone(zero_shot), path, include_weights=True)
    weights.unlink()
    loaded = load_model(path, weights_dir=tmp_path / "put")
    np.testing.assert_array_equal(loaded.score_samples(images), expected)


def test_a_checkpoint_of_anomalib_is_brought(tiny_onnx, images, tmp_path):
    pytest.importorskip("onnxruntime")
    there, path = tmp_path / "there.onnx", tmp_path / "model.skan"
    shutil.copy(tiny_onnx, there)
    detector = AnomalibDetector(there, device="cpu").fit(images[:8])
    expected = detector.score_samples(images)
    save_model(detector, path)
    there.rename(tmp_path / "moved.onnx")
    with pytest.raises(FileNotFoundError, match=r"AnomalibDetector was fitted with checkpoint"):
        load_model(path)
    (tmp_path / "moved.onnx").rename(there)
    save_model(detector, path, include_weights=True)
    there.unlink()
    loaded = load_model(path, weights_dir=tmp_path / "put")
    np.testing.assert_array_equal(loaded.score_samples(images), expected)
    np.testing.assert_array_equal(
        loaded.predict(images), np.where(expected < loaded.offset_, -1, 1)
    )
    assert loaded._changed_params() == []


def test_official_code_cannot_be_put_in(tmp_path):
    pytest.importorskip("timm")
    model = make_pipeline(DinoV2Patches(source="hub"), PatchKNNScorer())
    with pytest.raises(ValueError, match="source='hub' runs code that is downloaded"):
        save_model(model, tmp_path / "model.skan", include_weights=True)


def test_a_tag_whose_file_is_gone(tmp_path, images):
    pytest.importorskip("timm")
    embedder = TimmPatches("test_vit", weights=f"pretrained@{tmp_path}/gone.safetensors", **SMALL)
    with pytest.raises(FileNotFoundError, match="load it again: that puts them back"):
        embedder.transform(images)


def test_tokenizers_that_are_downloaded_cannot_be_put_in(tmp_path):
    pytest.importorskip("open_clip")
    path, weights = tmp_path / "model.skan", tmp_path / "there.safetensors"
    weights.write_bytes(b"")
    params = {"model_name": "ViT-B-16-SigLIP", "weights": str(weights), "device": "cpu"}
    with pytest.raises(
        ValueError, match=r"transformers, which is downloaded.*Fit the PromptScorer"
    ):
        save_model(PromptScorer(**params), path, include_weights=True)
    save_model(OpenClipPatches(**params), path, include_weights=True)
    params["model_name"] = "roberta-ViT-B-32"
    with pytest.raises(ValueError, match=r"reads texts by roberta-base of transformers"):
        save_model(OpenClipPatches(**params), path, include_weights=True)


class Ran:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("timm", ".pth"), ("timm", ".npz"), ("open_clip", ".pth"), ("open_clip", ".bin")],
)
def test_weights_that_would_run_code_do_not(kind, suffix, tmp_path, monkeypatch):
    """Not either in versions of timm and open_clip that read them as any pickle."""
    torch = pytest.importorskip("torch")
    marker, file = tmp_path / "ran", tmp_path / f"model{suffix}"
    torch.save({"weight": Ran(marker)}, file)
    if kind == "timm":
        embedder = TimmPatches("resnet18", weights=f"pretrained@{file}", device="cpu")
    else:
        pytest.importorskip("open_clip")
        embedder = OpenClipPatches("ViT-B-32", weights=f"laion2b_e16@{file}", device="cpu")
    load, plainly = torch.load, []

    def load_as_others_do(*args, weights_only=False, **options):
        plainly.append(weights_only)
        return load(*args, weights_only=weights_only, **options)

    monkeypatch.setattr(torch, "load", load_as_others_do)
    with pytest.raises((ValueError, OSError)):
        embedder.fit_transform(np.zeros((1, 64, 64, 3), np.uint8))
    assert not marker.exists() and all(plainly) and plainly
