"""Tests of reduced precision and of the runtimes other than torch."""

import os
import threading
from collections import OrderedDict
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from _adapters import (
    assert_close,
    assert_same,
    deviation,
    random_images,
    skip_without_openvino_bfloat16,
)
from _transformers import transformer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from skanomaly import DinoV2Patches, PatchKNNScorer, TimmPatches
from skanomaly._networks import conversion, loading, openvino, runtimes
from skanomaly._networks.fast_vit import FastVit
from skanomaly._networks.network import LoadedModel, Network, Preprocessing
from skanomaly._networks.runtimes import native_bfloat16, round_to_half
from skanomaly._networks.timm import fast_forward, forward
from skanomaly._networks.timm_vit import plain_vit
from skanomaly.datasets import make_surfaces, read_dataset

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

X = random_images((32, 32), (40, 30), (32, 32), seed=5)


def make(model_name="test_vit", **parameters):
    parameters = {"image_size": 32, "weights": "random", "device": "cpu", **parameters}
    return TimmPatches(model_name, **parameters)


@pytest.fixture
def fresh(monkeypatch):
    """An empty cache of models."""
    models = OrderedDict()
    monkeypatch.setattr(loading, "_models", models)
    return models


def plan_of(embedder):
    return embedder._plan(embedder._network())


@pytest.fixture
def native(monkeypatch):
    """Function that says whether the processor has bfloat16."""
    native_bfloat16.cache_clear()
    monkeypatch.setattr(runtimes.platform, "machine", lambda: "x86_64")

    def set_native(value):
        capabilities = {"avx512_bf16": value, "avx2": True}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)

    yield set_native
    native_bfloat16.cache_clear()


# What "auto" is


@pytest.mark.parametrize("value, dtype", [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_processor_has_it(native, value, dtype):
    native(value)
    assert plan_of(make()).dtype == dtype
    assert_same(make().transform(X), make(dtype=dtype).transform(X))
    assert plan_of(make("test_resnet")).dtype == "float32"  # is no plain transformer


def test_auto_runtime_is_torch():
    assert plan_of(make()).runtime == "torch"


def test_processors_without_bfloat16(native, monkeypatch):
    native(True)
    monkeypatch.setattr(runtimes.platform, "machine", lambda: "arm64")
    assert not native_bfloat16("cpu")
    assert not native_bfloat16("mps")


@pytest.mark.parametrize("flags, value", [("fpu avx512_bf16", True), ("fpu avx512f", False)])
def test_an_older_torch_asks_the_system(native, monkeypatch, tmp_path, flags, value):
    native(True)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(runtimes, "Path", lambda path: tmp_path / path.replace("/", ""))
    assert not native_bfloat16("cpu")  # there is no such file
    native_bfloat16.cache_clear()
    (tmp_path / "proccpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert native_bfloat16("cpu") == value


@pytest.mark.parametrize("capability, value", [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_with_bfloat16(native, monkeypatch, capability, value):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert native_bfloat16("cuda:0") == value


@pytest.mark.parametrize(
    "runtime, dtype",
    [
        ("torch", "int8"),
        ("auto", "int8"),
        ("openvino", "int8"),
        ("openvino", "float16"),
        ("onnx", "bfloat16"),
        ("onnx", "float16"),
    ],
)
def test_precisions_that_a_runtime_does_not_have(runtime, dtype):
    with pytest.raises(ValueError, match=f"dtype='{dtype}' is not for runtime='(torch|{runtime})'"):
        make(runtime=runtime, dtype=dtype).transform(X)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_runtimes_of_the_cpu_refuse_other_devices(monkeypatch, runtime):
    monkeypatch.setattr(runtimes, "resolve_device", lambda name: torch.device("cuda"))
    with pytest.raises(ValueError, match=f"runtime='{runtime}' runs on the CPU; use device='cpu'"):
        make(runtime=runtime, device="cuda").transform(X)


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
@pytest.mark.slow
def test_dinov2_in_bfloat16(name):
    images = make_surfaces(2, image_size=112, random_state=0).images
    embedder = DinoV2Patches(name, image_size=112, weights="random", device="cpu")
    full = embedder.set_params(dtype="float32").transform(images)
    assert 0 < deviation(embedder.set_params(dtype="bfloat16").transform(images), full) < 2e-5
    layers = {"layers": (3, 11), "fusion": "mean"}
    full = embedder.set_params(dtype="float32", **layers).transform(images)
    assert 0 < deviation(embedder.set_params(dtype="bfloat16").transform(images), full) < 2e-5


# One image, one result


@pytest.fixture
def threads():
    """Function that sets torch's number of threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_gives_the_same_bits_in_any_batch(threads, name, dtype):
    images = random_images(*[(32, 32)] * 5)
    threads(1)
    tokens = make(name, dtype=dtype).transform(images)
    for n_threads in (1, 2):
        threads(n_threads)
        for batch_size in (1, 2, 5):
            embedder = make(name, dtype=dtype, batch_size=batch_size)
            assert_same(embedder.transform(images[::-1])[::-1].copy(), tokens)
            assert_same(embedder.transform(images[3:4])[0], tokens[3])


def test_a_gpu_is_given_batches_of_one_size(monkeypatch):
    """So that its matrix products are rounded alike."""
    sizes = []

    class Recorded(FastVit):
        def __call__(self, tokens, *args):
            sizes.append(len(tokens))
            return super().__call__(tokens, *args)

    monkeypatch.setattr(runtimes, "FastVit", Recorded)
    module = transformer()
    preprocessing = Preprocessing((0,) * 3, (1,) * 3, "bicubic", 48, 8)
    network = Network(
        name="a transformer",
        model=LoadedModel(module, preprocessing, (8,) * 3, plain_vit(module)),
        layers=(2,),
        forward=partial(forward, layers=(2,)),
        fuse=lambda maps: maps[0],
        fast_forward=partial(fast_forward, layers=(2,)),
    )
    plan = runtimes.Plan("torch", "bfloat16", torch.device("cuda"))
    x = torch.randn(3, 3, 48, 48)
    with torch.inference_mode():
        (maps,) = runtimes.run(network, plan, x, batch_size=4)
        (alone,) = runtimes.run(network, plan, x[1:2], batch_size=4)
    assert sizes == [4, 4]
    assert maps.shape == (3, 64, 6, 6)
    assert_close(alone[0], maps[1])


def test_training_images_are_recognised_in_other_batches():
    images = random_images(*[(32, 32)] * 9)
    pipe = make_pipeline(make(dtype="bfloat16", batch_size=4), PatchKNNScorer(contamination=0.3))
    held_out = pipe.fit(images)[-1].train_scores_
    pipe[0].batch_size = 1
    np.testing.assert_allclose(pipe.score_samples(images[::-1])[::-1], held_out)


# Half the space


def test_reduced_precision_is_that_of_float16(tmp_path):
    images = random_images((32, 32))
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        folder = tmp_path / dtype
        embedder = make(dtype=dtype, cache_dir=folder)
        fresh_tokens = make(dtype=dtype).transform(images)
        assert fresh_tokens.dtype == np.float32
        half = fresh_tokens.astype(np.float16).astype(np.float32)
        assert np.array_equal(half, fresh_tokens) == (dtype == "bfloat16")
        assert_same(embedder.transform(images), fresh_tokens)
        assert_same(embedder.transform(images), fresh_tokens)
        (file,) = folder.rglob("*.safetensors")
        sizes[dtype] = file.stat().st_size
    assert sizes["float32"] - sizes["bfloat16"] == 2 * fresh_tokens.size


def test_what_float16_cannot_hold_is_not_rounded():
    tokens = np.array([[1 / 3, 7e4], [1e-3, 2.0]], dtype=np.float32)
    assert_same(round_to_half(tokens), tokens)
    tokens[0, 1] = 65504
    assert_same(round_to_half(tokens), tokens.astype(np.float16).astype(np.float32))
    tokens[0, 0] = np.nan  # an error later, and not here
    assert np.isnan(round_to_half(tokens)[0, 0])


def test_rounding_is_that_of_ieee_754():
    """All numbers of float16, what lies half-way between two of them, and what is next to that."""
    half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    half = np.sort(half[np.isfinite(half)].astype(np.float32))
    middle = (half[1:] + half[:-1]) / 2
    tokens = np.concatenate([half, middle, *(np.nextafter(middle, s) for s in (-9e9, 9e9))])
    tokens = np.append(tokens, np.float32([1e-45, -1e-45, -0.0])).astype(np.float32)
    expected = tokens.astype(np.float16).astype(np.float32)
    assert round_to_half(tokens).tobytes() == expected.tobytes()


@pytest.mark.slow
def test_precision_does_not_move_the_image_auroc(shared):
    """On real images, with real weights; all of it: python -m benchmarks.embedding --data."""
    train, test = (getattr(read_dataset(shared / "data" / "cookies"), k) for k in ("train", "test"))
    scores = {}
    for dtype in ("float32", "bfloat16"):
        embedder = TimmPatches(
            "vit_tiny_patch16_224",
            layers=5,
            image_size=112,
            weights=shared / "weights" / "vit_tiny_patch16_224.safetensors",
            device="cpu",
            dtype=dtype,
        )
        pipe = make_pipeline(embedder, PatchKNNScorer()).fit(list(train.images)[:10])
        scores[dtype] = pipe.score_samples(list(test.images))
    full, low = (roc_auc_score(test.y, scores[dtype]) for dtype in ("float32", "bfloat16"))
    assert abs(full - low) <= 0.0025  # one pair of 14 x 32
    assert np.abs(scores["bfloat16"] - scores["float32"]).max() < 0.05 * np.ptp(scores["float32"])


# Other runtimes


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Folder that holds the converted models of this module's tests."""
    folder = tmp_path_factory.mktemp("exports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "skanomaly" / "exports"


RUNTIMES = {"openvino": "openvino", "onnx": "onnxruntime"}


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request, exports):
    pytest.importorskip(RUNTIMES[request.param])
    if request.param == "onnx":
        pytest.importorskip("onnxscript")
    return request.param


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_a_converted_model_is_the_model(runtime, name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    expected = make(name, dtype="float32").transform(X)
    embedder = make(name, runtime=runtime, dtype="float32")
    tokens = embedder.transform(X)
    assert_close(tokens, expected, 1e-4)
    assert tokens.flags.c_contiguous
    # One image, one result, whatever the batch.
    for batch_size in (1, 2):
        embedder.set_params(batch_size=batch_size)
        assert_same(embedder.transform(X[::-1])[::-1].copy(), tokens)
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == environment
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_several_layers_of_a_converted_model(runtime):
    layers = {"layers": (1, 4), "fusion": "mean"}
    tokens = make(runtime=runtime, dtype="float32", **layers).transform(X)
    assert_close(tokens, make(dtype="float32", **layers).transform(X), 1e-4)


def test_tokens_of_runtimes_are_cached_apart(runtime, tmp_path):
    for kind in ("torch", runtime):
        make(runtime=kind, dtype="float32", cache_dir=tmp_path).transform(X[:1])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


@pytest.mark.slow
def test_threads_may_share_a_converted_model(fresh, runtime):
    """Among them the first inference, which OpenVINO must not be asked for by two at once."""
    expected = make(dtype="float32").transform(X)
    barrier, results = threading.Barrier(3), [None] * 3

    def work(i):
        barrier.wait(60)
        results[i] = make(runtime=runtime, dtype="float32").transform(X)

    workers = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    for tokens in results:
        assert_close(tokens, expected, 1e-4)


def test_a_conversion_is_kept_and_replaced_when_damaged(fresh, exports, monkeypatch):
    pytest.importorskip("openvino")
    made, convert = [], openvino.converting

    def counted(*args):
        made.append(args)
        return convert(*args)

    monkeypatch.setattr(openvino, "converting", counted)
    embedder = make(runtime="openvino", dtype="float32", layers=0)
    before = set(exports.iterdir()) if exports.is_dir() else set()
    tokens = embedder.transform(X)
    (folder,) = set(exports.iterdir()) - before
    fresh.clear()  # as in another process
    assert_same(embedder.transform(X), tokens)
    assert len(made) == 1
    for number, name in enumerate(("model.bin", "model.xml"), 2):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-100])
        for _ in ("made again", "kept"):
            fresh.clear()
            assert_same(embedder.transform(X), tokens)
            assert len(made) == number


def test_a_conversion_that_deviates_is_refused(fresh, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    convert = openvino.converting

    def wrong(network, *args):
        return convert(replace(network, forward=partial(forward, layers=(0,))), *args)

    monkeypatch.setattr(openvino, "converting", wrong)
    with pytest.raises(RuntimeError, match="test_vit, converted .* deviates from torch at layer 3"):
        make(runtime="openvino", layers=3, dtype="float32").transform(X)


def test_openvino_without_bfloat16_says_so(fresh, exports, monkeypatch):
    """By itself it would take float32 silently, and a model fitted in bfloat16 get other tokens."""
    pytest.importorskip("openvino")

    class Core:
        def get_property(self, device, name):
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino, "_core", Core)
    with pytest.raises(RuntimeError, match="no bfloat16 on this processor, in which test_vit is"):
        make(runtime="openvino", dtype="bfloat16").transform(X)


def test_openvino_in_reduced_precision(exports):
    skip_without_openvino_bfloat16()
    full = make(dtype="float32").transform(X)
    low = make(runtime="openvino", dtype="bfloat16").transform(X)
    assert deviation(low, full) < 1e-3
    if native_bfloat16("cpu"):
        assert deviation(low, full) > 0
        assert_same(make(runtime="openvino").transform(X), low)
    assert_same(low, low.astype(np.float16).astype(np.float32))


@pytest.mark.slow
def test_onnx_in_int8(exports, shared):
    """Closer to float32 than the ranges of other images leave it."""
    pytest.importorskip("onnxscript")
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    options = {"layers": 5, "weights": weights, "image_size": 112}
    images = list(read_dataset(shared / "data" / "bottle").test.images)[:3]
    full = make("vit_tiny_patch16_224", dtype="float32", **options).transform(images)
    embedder = make("vit_tiny_patch16_224", runtime="onnx", dtype="int8", **options)
    low = embedder.transform(images)
    assert 1e-5 < deviation(low, full) < 0.01
    for batch_size in (1, 2):
        embedder.set_params(batch_size=batch_size)
        assert_same(embedder.transform(images[::-1])[::-1].copy(), low)


def test_onnx_in_int8_is_near_float32(exports):
    pytest.importorskip("onnxscript")
    full = make(dtype="float32").transform(X[:1])
    assert 1e-6 < deviation(make(runtime="onnx", dtype="int8").transform(X[:1]), full) < 0.05


def test_onnx_in_int8_is_for_transformers(exports):
    pytest.importorskip("onnxscript")
    with pytest.raises(ValueError, match="products of matrices, of which test_resnet has none"):
        make("test_resnet", runtime="onnx", dtype="int8").transform(X)


@pytest.mark.parametrize("runtime, module", RUNTIMES.items())
def test_a_missing_runtime_is_named(monkeypatch, fresh, runtime, module):
    import importlib

    import_module = importlib.import_module

    def import_others(name, *args):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return import_module(name, *args)

    monkeypatch.setattr(importlib, "import_module", import_others)
    with pytest.raises(ImportError, match=rf"'{module}'.* pip install .skanomaly\[{runtime}\]"):
        make(runtime=runtime, dtype="float32").transform(X)


# The folder of converted models


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="converted model could not be kept in .*file"):
        assert conversion.load_or_convert({"a": 1}, lambda: 7, None, None) == 7


def test_the_least_recently_used_conversions_go(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(conversion, "MAX_KEPT", 2)
    made = []

    def ask(number):
        def build():
            made.append(number)
            return number

        value = conversion.load_or_convert(
            {"n": number},
            build,
            lambda value, folder: (folder / "value").write_text(str(value)),
            lambda folder: int((folder / "value").read_text()),
        )
        for folder in conversion.conversions_folder().iterdir():  # whatever the file system's clock
            stat = folder.stat()
            os.utime(folder, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**9))
        return value

    for number in (1, 2, 1, 3, 1, 2):
        assert ask(number) == number
    assert made == [1, 2, 3, 2]
    assert len(list(conversion.conversions_folder().iterdir())) == 2


def test_the_folder_is_in_that_of_the_platform_for_caches(monkeypatch, tmp_path):
    platformdirs = pytest.importorskip("platformdirs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = conversion.conversions_folder()
    assert folder == platformdirs.user_cache_path("skanomaly", appauthor=False) / "exports"
    assert not folder.exists()  # asked for, not made


# No telemetry, no change of the process


def test_openvino_is_not_asked_to_report(fresh, tmp_path, monkeypatch):
    """Its ``convert_model`` tells its makers of each conversion."""
    openvino_module = pytest.importorskip("openvino")

    def report(*args, **options):
        pytest.fail("converted by what reports it")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(openvino_module, "convert_model", report)
    expected = make(dtype="float32").transform(X[:1])
    assert_close(make(runtime="openvino", dtype="float32").transform(X[:1]), expected, 1e-4)
