"""Tests of the loading of open_clip's models, and of their text side."""

import importlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from _adapters import assert_close, assert_same, random_images

from skanomaly import OpenClipPatches
from skanomaly._networks import loading, openclip
from skanomaly._networks.hub import WeightFile
from skanomaly._networks.openclip import (
    fetch_weights,
    load_model,
    logit_scale,
    text_features,
)

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
models = pytest.importorskip("_openclip_models")

X = random_images((64, 64), (64, 64), seed=5)
TEXTS = ["a photo of a good bottle", "a photo of a broken bottle", ""]
VIT = "skanomaly-vit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("open_clip")
    models.register(folder)
    return folder


@pytest.fixture(scope="module")
def vit(folder):
    return models.create("vit")


@pytest.fixture(scope="module")
def file(folder, vit):
    return models.save(vit, folder / "vit.safetensors")


@pytest.fixture
def builds(monkeypatch):
    """Names of the models that are built, with an empty cache to begin with."""
    monkeypatch.setattr(loading, "_models", OrderedDict())
    names, build = [], openclip.build_open_clip

    def counting(name, *args):
        names.append(name)
        return build(name, *args)

    monkeypatch.setattr(openclip, "build_open_clip", counting)
    return names


@pytest.fixture
def tag(monkeypatch, file, builds):
    """A tag of the small model, as if its weights had been downloaded."""
    cfg = {
        "url": "",
        "hf_hub": "nobody/nothing/",
        "mean": (0.2, 0.3, 0.4),
        "std": (0.5, 0.6, 0.7),
        "interpolation": "bilinear",
        "quick_gelu": True,
        "file": str(file),
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, VIT, {"first_tag": cfg})
    monkeypatch.setattr(WeightFile, "check_available", lambda self: None)
    return "first_tag"


def make(weights, **parameters):
    return OpenClipPatches(VIT, weights=weights, device="cpu", **parameters)


def encode(clip, texts, name=VIT):
    with torch.no_grad():
        return clip.encode_text(open_clip.get_tokenizer(name)(texts), normalize=False).numpy()


# Names


@pytest.mark.parametrize(
    "name, hint", [("ViT-B/16", "ViT-B-16"), ("vit-b-16", "ViT-B-16"), ("convnext_basew", "base_w")]
)
def test_an_unknown_model_brings_its_near_misses(name, hint):
    with pytest.raises(ValueError, match=rf"named '{name}'; did you mean .*{hint}"):
        OpenClipPatches(name).transform(X)


@pytest.mark.parametrize("name", ["@@@@", "hf-hub:nobody/nothing", "local-dir:/tmp", ""])
def test_an_unknown_model_like_no_other(name):
    with pytest.raises(ValueError, match=rf"named '{name}'. See open_clip\.list_models\(\)"):
        OpenClipPatches(name).transform(X)


@pytest.mark.parametrize("weights", ["open-ai", "openal", Path("opeanai")])
def test_an_unknown_tag_brings_its_near_misses(weights):
    with pytest.raises(
        ValueError, match="nor an existing file; did you mean openai.* Tags: openai"
    ):
        OpenClipPatches("ViT-B-16", weights=weights).transform(X)


def test_a_model_without_weights(folder):
    with pytest.raises(ValueError, match=f"neither a tag of {VIT} .*open_clip has no weights"):
        make("openai").transform(X)


# Random weights


def test_random_weights_are_always_the_same_and_leave_the_generators_alone(builds, folder, caplog):
    torch.manual_seed(1)
    first = make("random").transform(X)
    after = torch.rand(3)
    loading._models.clear()
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    assert_same(make("random").transform(X), first)
    assert builds == [VIT] * 2
    assert not caplog.records
    logging.warning("others are heard")
    assert caplog.messages == ["others are heard"]


# Files


WRAPPERS = {
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "distributed": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}},
    "vector": lambda state: {**state, "logit_scale": state["logit_scale"][None]},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_file_in_any_wrapper(tmp_path, file, vit, wrap):
    torch.save(wrap(vit.state_dict()), tmp_path / "weights.pt")
    assert_same(make(tmp_path / "weights.pt").transform(X), make(str(file)).transform(X))
    assert logit_scale(VIT, tmp_path / "weights.pt", device="cpu") == logit_scale(VIT, file)


def test_a_file_of_a_model_saved_before_its_text_tower_had_a_name(tmp_path, folder):
    clip = models.create("eva02")
    state = {k.removeprefix("text."): v for k, v in clip.state_dict().items()}
    torch.save(state, tmp_path / "weights.pt")
    features = text_features("skanomaly-eva02", tmp_path / "weights.pt", TEXTS, device="cpu")
    assert_close(features, encode(clip, TEXTS))


MISFITS = {
    "missing": lambda state: {k: v for k, v in state.items() if k != "visual.proj"},
    "unexpected": lambda state: {**state, "extra": torch.zeros(2)},
    "shape": lambda state: {**state, "visual.proj": torch.zeros(3)},
    "another grid": lambda state: {**state, "visual.positional_embedding": torch.zeros(26, 32)},
    "image tower": lambda state: {k: v for k, v in state.items() if k.startswith("visual.")},
    "scale": lambda state: {**state, "logit_scale": torch.zeros(7)},
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
def test_weights_of_another_model(tmp_path, vit, folder, misfit):
    torch.save(misfit(vit.state_dict()), tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match=f"other.pt does not hold the weights of {VIT}: "
    ) as caught:
        make(tmp_path / "other.pt").transform(X)
    assert "\n" not in str(caught.value)


def test_a_pickle_with_code_is_not_run(tmp_path, folder):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trace"),)

    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="runs code, which is refused"):
        make(tmp_path / "weights.pt").transform(X)
    assert not (tmp_path / "trace").exists()


def test_a_file_that_changes_is_loaded_again(tmp_path, vit, folder):
    path = tmp_path / "weights.pt"
    torch.save(vit.state_dict(), path)
    first = make(path).transform(X)
    torch.save({name: tensor * 1.5 for name, tensor in vit.state_dict().items()}, path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert np.abs(make(path).transform(X) - first).max() > 1e-3


# Tags


def quick(clip):
    return any(isinstance(m, open_clip.transformer.QuickGELU) for m in clip.modules())


def test_a_tag_brings_its_activation_and_preprocessing(tag, file, vit):
    model = load_model(VIT, tag, device="cpu")
    of_images = model.preprocessing
    assert (of_images.mean, of_images.std) == ((0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
    assert of_images.interpolation == "bilinear"
    assert quick(model.clip)
    expected = open_clip.create_model(VIT, pretrained=str(file), quick_gelu=True).eval()
    with torch.no_grad():
        x = models.pixels(X, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7))
        tokens = expected.visual.forward_intermediates(
            x, indices=[-1], normalize_intermediates=True, output_fmt="NLC"
        )["image_intermediates"][0]
    assert_close(make(tag).transform(X), tokens.reshape(2, 4, 4, -1))
    assert make("First-Tag").transform(X).tobytes() == make(tag).transform(X).tobytes()


def test_a_tag_without_quick_gelu_overrules_the_name(tag, tmp_path, monkeypatch):
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED[VIT][tag], "quick_gelu", False)
    config = open_clip.factory._MODEL_CONFIGS[VIT]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, VIT, {**config, "quick_gelu": True})
    assert not quick(load_model(VIT, tag, device="cpu").clip)
    assert quick(load_model(VIT, "random", device="cpu").clip)


def test_a_file_takes_the_preprocessing_of_the_first_tag_and_the_activation_of_the_name(tag, file):
    model = load_model(VIT, file, device="cpu")
    assert model.preprocessing.mean == (0.2, 0.3, 0.4)
    assert not quick(model.clip)
    with_tag = make(tag, cache_dir=None)._fingerprint()
    assert make(file)._fingerprint() != with_tag  # though the weights are the same
    assert make(file)._fingerprint()["weights"] == with_tag["weights"]


def test_a_model_without_tags_is_preprocessed_as_clip(file):
    of_images = load_model(VIT, file, device="cpu").preprocessing
    assert of_images.mean == open_clip.OPENAI_DATASET_MEAN
    assert of_images.std == open_clip.OPENAI_DATASET_STD
    assert of_images.interpolation == "bicubic"


@pytest.mark.parametrize("call", ["transform", "text", "fetch"])
def test_a_failed_download_is_one_clear_error(tag, monkeypatch, call):
    failure = FileNotFoundError("Failed to download\nsecond line")

    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(
        OSError, match=f"weights of {VIT}/first_tag could not be downloaded"
    ) as caught:
        if call == "transform":
            make(tag).transform(X)
        elif call == "text":
            text_features(VIT, tag, TEXTS)
        else:
            fetch_weights(VIT, tag)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is failure


def test_a_damaged_download_is_named(tag, monkeypatch, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"garbage" * 100)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda cfg: str(tmp_path / "weights.bin"))
    with pytest.raises(OSError, match="weights.bin could not be loaded .* remove the file"):
        make(tag).transform(X)


def test_the_environment_forbids_downloads(tmp_path):
    code = (
        "import numpy as np\n"
        "from skanomaly import OpenClipPatches\n"
        "try: OpenClipPatches(device='cpu').transform(np.zeros((1, 8, 8, 3), np.uint8))\n"
        "except OSError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "weights of ViT-B-16/openai could not be downloaded" in run.stdout


def test_weights_are_fetched_ahead(tag, file):
    assert fetch_weights(VIT, tag) == file
    for weights in ("random", file):
        with pytest.raises(ValueError, match="is no tag: there is nothing to download"):
            fetch_weights(VIT, weights)
    with pytest.raises(ValueError, match="did you mean first_tag"):
        fetch_weights(VIT, "frist_tag")


@pytest.mark.parametrize("missing", ["torch", "open_clip"])
def test_a_missing_extra_is_named_at_first_use(builds, monkeypatch, missing):
    import_module = importlib.import_module

    def import_others(name, *args):
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return import_module(name, *args)

    embedder = make("random").fit(X)
    monkeypatch.setattr(importlib, "import_module", import_others)
    for call in (
        lambda: embedder.transform(X),
        lambda: text_features(VIT, "random", TEXTS),
        lambda: logit_scale(VIT, None),
    ):
        with pytest.raises(ImportError, match=f"needs '{missing}', which could not be") as caught:
            call()
        assert 'pip install "skanomaly[clip]"' in str(caught.value)


# Texts


@pytest.mark.parametrize("family", ["vit", "coca", "siglip"])
def test_text_features_are_those_of_open_clip(folder, tmp_path, monkeypatch, family):
    clip, name = models.create(family), f"skanomaly-{family}"
    path = models.save(clip, tmp_path / "weights.safetensors")
    if family == "siglip":  # by its name, this takes a tokenizer that has to be downloaded
        tokenizer = open_clip.SimpleTokenizer(context_length=16)
        monkeypatch.setattr(open_clip, "get_tokenizer", lambda model_name: tokenizer)
    expected = encode(clip, TEXTS, name)
    monkeypatch.setattr(openclip, "TEXT_BATCH", 2)
    features = text_features(name, path, iter(TEXTS), device="cpu")
    assert features.dtype == np.float32
    assert_close(features, expected)
    assert np.abs(np.linalg.norm(features, axis=1) - 1).min() > 1e-3  # not normalised
    assert logit_scale(name, path, device="cpu") == pytest.approx(clip.logit_scale.exp().item())


def test_a_tokenizer_of_the_model(tmp_path, folder, builds):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {w: i for i, w in enumerate("<pad> <unk> <eos> a photo of broken".split())}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    ).save_pretrained(tmp_path / "tokenizer")
    name = "skanomaly-own-tokenizer"
    text = {**models.TEXT, "context_length": 5, "hf_tokenizer_name": str(tmp_path / "tokenizer")}
    models.write(tmp_path, name, {**models.CONFIGS["eva02"], "text_cfg": text})
    model = load_model(name, "random", device="cpu")
    with torch.no_grad():
        tokens = torch.tensor([[3, 4, 5, 3, 2], [3, 6, 1, 2, 0]])
        expected = model.clip.encode_text(tokens)
    assert_close(text_features(name, "random", ["a photo of a", "a broken pipe"]), expected)
    with pytest.raises(ValueError, match="text 1 is longer than the 5 tokens"):
        text_features(name, "random", ["a", "a photo of a a"])


def test_a_tokenizer_that_cannot_be_had(folder, monkeypatch):
    def fail(name):
        raise OSError("no route\nto host")

    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(OSError, match=f"the tokenizer of {VIT} could not be loaded .*HF_HOME"):
        text_features(VIT, "random", TEXTS)


def test_a_text_that_would_be_cut_is_refused(folder):
    fits = " ".join(["a"] * 14)  # with its start and its end
    assert text_features(VIT, "random", [fits]).shape == (1, models.DIM)
    with pytest.raises(ValueError, match="text 1 is longer than the 16 tokens that skanomaly-vit"):
        text_features(VIT, "random", ["a", fits + " a"])


@pytest.mark.parametrize("texts, error", [("one", TypeError), ([1], TypeError), ([], ValueError)])
def test_what_is_no_list_of_texts(folder, texts, error):
    with pytest.raises(error, match="text"):
        text_features(VIT, "random", texts)


# The cache of models


def test_one_model_serves_images_of_every_size_and_texts(builds, file):
    for size in (64, 96, 128):
        make(file, image_size=size).transform(X)
    make(file, resize="shortest_edge", project=True).transform(random_images((50, 90)))
    text_features(VIT, file, TEXTS, device="cpu")
    logit_scale(VIT, file, device="cpu")
    make(file, dtype="bfloat16").transform(X)
    assert builds == [VIT]


def test_towers_of_other_sizes_share_the_weights_and_are_bounded(builds, file, monkeypatch):
    model = load_model(VIT, file, device="cpu")
    tower = model.sized(96, 64)
    assert tower is model.sized(96, 64)
    assert model.sized(64, 64) is model.module
    other = {id(p) for p in tower.parameters()} - {id(p) for p in model.module.parameters()}
    assert other == {id(tower.positional_embedding)}
    assert model.module.positional_embedding.shape == (17, 32)
    monkeypatch.setattr(openclip, "MAX_SIZES", 3)
    for side in (16, 32, 48, 80):
        model.sized(side, side)
    assert list(model._sized) == [(32, 32), (48, 48), (80, 80)]


def test_models_are_for_inference_only(builds, folder):
    for family in ("vit", "eva02"):
        model = load_model(f"skanomaly-{family}", "random", device="cpu")
        for module in (model.clip, model.sized(96, 96)):
            assert not module.training
            assert not any(parameter.requires_grad for parameter in module.parameters())


def test_threads_share_one_model(builds, file):
    results, barrier = [None] * 4, threading.Barrier(4)

    def work(i):
        barrier.wait()
        results[i] = make(file, image_size=96).transform(X)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds == [VIT]
    for tokens in results:
        assert_close(tokens, results[0])
