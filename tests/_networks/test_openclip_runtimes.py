"""Tests of OpenClipPatches in reduced precision and on other runtimes than torch."""

import pickle

import numpy as np
import pytest
from _adapters import (
    assert_close,
    assert_same,
    deviation,
    deviation_of_bfloat16,
    random_images,
    skip_without_openvino_bfloat16,
)
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline

from skanomaly import OpenClipPatches, PatchKNNScorer
from skanomaly._cache import cache_key
from skanomaly._networks import conversion, runtimes
from skanomaly._networks.fast_vit import FastVit
from skanomaly._networks.openclip_towers import plain_tower

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")
models = pytest.importorskip("_openclip_models")

X = random_images((64, 64), (50, 70), (64, 64), seed=5)
PLAIN = ["vit", "vit_avg", "clipa", "coca", "cascade", "siglip", "gap"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Function of a family: an embedder of random weights that all count."""
    folder = tmp_path_factory.mktemp("open_clip")
    names, files = models.register(folder), {}

    def get(family, **parameters):
        if family not in files:
            files[family] = models.save(models.create(family), folder / f"{family}.safetensors")
        options = {"weights": files[family], "device": "cpu", **parameters}
        return OpenClipPatches(names[family], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield get


@pytest.fixture(params=["openvino", "onnx"])
def runtime(request):
    for module in {"openvino": ["openvino"], "onnx": ["onnxruntime", "onnxscript"]}[request.param]:
        pytest.importorskip(module)
    return request.param


# Precision


def test_auto_is_float32_by_torch(zoo, monkeypatch):
    monkeypatch.setattr(runtimes, "native_bfloat16", lambda device: True)
    for runtime in ("torch", "openvino"):
        embedder = zoo("vit", runtime=runtime)
        plan = embedder._plan(embedder._network())
        assert (plan.runtime, plan.dtype) == (runtime, "float32")
    assert_same(zoo("vit").transform(X), zoo("vit", dtype="float32").transform(X))


@pytest.mark.parametrize("family", models.CONFIGS)
def test_families_that_have_a_fast_form(zoo, family):
    assert (zoo(family)._network().fast_forward is not None) == (family in PLAIN)


@pytest.mark.parametrize(
    "options", [{"value_attention": 1}, {"project": True, "windows": (2,)}], ids=str
)
def test_options_that_have_no_fast_form(zoo, options):
    assert zoo("vit", **options)._network().fast_forward is None


def test_other_blocks_have_no_fast_form():
    options = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "heads": 2}
    tower = open_clip.transformer.VisionTransformer
    assert plain_tower(tower(**options, mlp_ratio=4)) is not None
    assert plain_tower(tower(**options, mlp_ratio=4, qk_norm=True)) is None


@pytest.mark.parametrize(
    "family, options",
    [(family, {"layers": (0, 1)}) for family in PLAIN]
    + [(family, {"project": True}) for family in PLAIN if family != "cascade"],
    ids=str,
)
def test_the_fast_form_is_the_tower(zoo, family, options):
    network = zoo(family, **options)._network()
    model, x = network.model, torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = network.forward(model, x)
        # Each of the four products of a block rounds both of its factors, by 2**-9 in bfloat16, in
        # each of two blocks, were they all to add up.
        low = 2 * 4 * 2 * 2.0**-9
        for dtype, limit in ((torch.float32, 1e-12), (torch.bfloat16, deviation_of_bfloat16(2))):
            maps = network.fast_forward(model, FastVit(model.plain_vit, dtype), x)
            assert len(maps) == len(network.layers)
            for one, other in zip(maps, expected, strict=True):
                assert one.dtype == torch.float32
                assert deviation(*(m.permute(0, 2, 3, 1) for m in (one, other))) < limit
                assert_close(one, other, 1e-5 if dtype == torch.float32 else low)


@pytest.mark.slow
def test_quick_gelu_in_bfloat16():
    options = {"weights": "random", "image_size": 64, "device": "cpu", "dtype": "bfloat16"}
    embedder = OpenClipPatches("ViT-B-32-quickgelu", **options)
    low = embedder.transform(X)
    full = embedder.set_params(dtype="float32").transform(X)
    assert 0 < deviation(low, full) < deviation_of_bfloat16(12)


@pytest.mark.parametrize(
    "family, options",
    [
        ("vit", {}),
        ("vit", {"project": True, "windows": (2, 3), "value_attention": True}),
        ("siglip", {"project": True}),
        ("resnet", {}),
    ],
)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_gives_the_same_bits_in_any_batch(zoo, family, options, dtype):
    tokens = zoo(family, dtype=dtype, **options).transform(X)
    assert_same(tokens, tokens.astype(np.float16).astype(np.float32))
    for batch_size in (1, 2):
        embedder = zoo(family, dtype=dtype, batch_size=batch_size, **options)
        assert_same(embedder.transform(X[::-1])[::-1].copy(), tokens)
    assert deviation(tokens, zoo(family, **options).transform(X)) < 1e-3


def test_a_size_that_inference_comes_upon_serves_later(zoo):
    embedder = zoo("vit", image_size=80)
    embedder.transform(X)
    tower = embedder._model().sized(80, 80)
    assert not tower.positional_embedding.is_inference()


# Other runtimes

CASES = {
    "layers": ("vit", {"layers": (0, 2), "fusion": "mean", "image_size": 96}),
    "windows": ("vit", {"project": True, "windows": (2, 3), "value_attention": 2}),
    "coca": ("coca", {"project": True, "image_size": 96}),
    "siglip": ("siglip", {"project": True, "resize": "shortest_edge"}),
    "resnet": ("resnet", {"image_size": 96}),
    "mobileclip": ("mobileclip_b", {"project": True, "image_size": 96}),
    "eva02": ("eva02", {}),
}


@pytest.mark.parametrize(
    "family, options",
    [
        pytest.param(*case, marks=[] if name in ("layers", "siglip") else pytest.mark.slow, id=name)
        for name, case in CASES.items()
    ],
)
def test_a_converted_tower_is_the_tower(zoo, runtime, family, options):
    images = X[:1] if "resize" in options else X
    expected = zoo(family, **options).transform(images)
    embedder = zoo(family, runtime=runtime, dtype="float32", **options)
    tokens = embedder.transform(images)
    assert_close(tokens, expected, 1e-4)
    assert tokens.flags.c_contiguous
    embedder.set_params(batch_size=1)
    assert_same(embedder.transform(images[::-1])[::-1].copy(), tokens)


@pytest.mark.slow
def test_conversions_know_what_they_depend_on(zoo):
    """One model in memory and one folder on disk serve them all."""
    pytest.importorskip("openvino")
    changes = ({}, {"project": True}, {"value_attention": 1}, {"value_attention": 2}, {})
    for options in changes:
        tokens = zoo("clipa", runtime="openvino", **options).transform(X[:1])
        assert_close(tokens, zoo("clipa", **options).transform(X[:1]), 1e-4)


@pytest.mark.slow
def test_openvino_in_bfloat16(zoo):
    skip_without_openvino_bfloat16()
    family, options = CASES["windows"]  # converted above
    low = zoo(family, runtime="openvino", dtype="bfloat16", **options).transform(X)
    assert deviation(low, zoo(family, **options).transform(X)) < 1e-3


def test_int8(zoo):
    pytest.importorskip("onnxscript")
    full = zoo("vit", layers=(0, 2), fusion="mean", image_size=96).transform(X)
    embedder = zoo("vit", layers=(0, 2), fusion="mean", image_size=96, runtime="onnx", dtype="int8")
    low = embedder.transform(X)
    assert 1e-6 < deviation(low, full) < 0.01
    embedder.set_params(batch_size=1)
    assert_same(embedder.transform(X[::-1])[::-1].copy(), low)


def test_fingerprints(zoo):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    kinds = [("torch", d) for d in ("float32", "bfloat16", "float16")]
    kinds += [("openvino", d) for d in ("float32", "bfloat16")]
    kinds += [("onnx", d) for d in ("float32", "int8")]
    keys = {cache_key(**zoo("vit", runtime=r, dtype=d)._fingerprint()) for r, d in kinds}
    assert len(keys) == len(kinds)
    assert cache_key(**zoo("vit")._fingerprint()) in keys


@pytest.mark.parametrize(
    "kind, dtype",
    [("torch", "int8"), ("openvino", "int8"), ("openvino", "float16"), ("onnx", "bfloat16")],
)
def test_precisions_that_a_runtime_does_not_have(zoo, kind, dtype):
    with pytest.raises(ValueError, match=f"dtype='{dtype}' is not for runtime='(torch|{kind})'"):
        zoo("vit", runtime=kind, dtype=dtype).transform(X)


def test_runtimes_of_the_cpu_refuse_other_devices(zoo, monkeypatch, runtime):
    monkeypatch.setattr(runtimes, "resolve_device", lambda name: torch.device("cuda"))
    with pytest.raises(ValueError, match=f"runtime='{runtime}' runs on the CPU; use device='cpu'"):
        zoo("vit", runtime=runtime, device="cuda").transform(X)


def test_what_cannot_be_converted(zoo, monkeypatch, runtime):
    def fail(*args, **kwargs):
        raise NotImplementedError("no such\noperation")

    if runtime == "onnx":
        monkeypatch.setattr(torch.onnx, "export", fail)
    else:
        decoders = pytest.importorskip("openvino.frontend.pytorch.ts_decoder")
        monkeypatch.setattr(decoders, "TorchScriptPythonDecoder", fail)
    message = (
        f"skanomaly-vit could not be converted for runtime='{runtime}' "
        r"\(NotImplementedError: no such operation\); use runtime='torch'"
    )
    with pytest.raises(RuntimeError, match=message):
        zoo("vit", layers=1, runtime=runtime).transform(X)


def test_errors_of_the_model_are_its_own(zoo, runtime):
    with pytest.raises(ValueError, match="a window of 5x5 patches does not fit into a grid of 4x4"):
        zoo("vit", project=True, windows=(5,), runtime=runtime).transform(X)
    with pytest.raises(ValueError, match=r"MlpMixer takes images of \(64, 64\) pixels only"):
        zoo("mixer", image_size=32, runtime=runtime).transform(X)


def test_a_conversion_of_windows_that_deviates_is_refused(zoo):
    network = zoo("vit", project=True, windows=(2,))._network()

    def wrong(x):
        maps = network.forward(network.model, x)
        return [maps[0], -maps[1], maps[2]]

    with pytest.raises(
        RuntimeError, match="skanomaly-vit, .* deviates from torch at its image or windows"
    ):
        conversion.check_conversion(wrong, network, (1, 3, 64, 64), "onnx", "float32")


# As an estimator


@pytest.mark.slow
def test_clone_pickle_and_search(zoo):
    skip_without_openvino_bfloat16()
    embedder = zoo("vit", image_size=96, layers=(0, 2), fusion="mean", runtime="openvino")
    tokens = embedder.transform(X)
    assert_same(clone(embedder).transform(X), tokens)
    small = pickle.dumps(embedder)
    assert len(small) < 5000
    assert_same(pickle.loads(small).transform(X), tokens)
    search = GridSearchCV(
        Pipeline([("emb", embedder), ("knn", PatchKNNScorer(contamination=0.3))]),
        [{"emb__runtime": ["torch", "openvino"]}, {"emb__dtype": ["bfloat16"]}],
        scoring=lambda pipe, images, y=None: pipe.score_samples(images).mean(),
        cv=KFold(2),
        error_score="raise",
    ).fit(random_images(*[(40, 50)] * 6))
    scores = search.cv_results_["mean_test_score"]
    np.testing.assert_allclose(scores, scores[0], rtol=0.02)
