"""Tests of TimmPatches and of the loading of its models."""

import importlib
import os
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict

import numpy as np
import pytest
from _adapters import assert_close, assert_same, random_image, random_images
from PIL import Image
from sklearn.base import clone

from skanomaly import TimmPatches
from skanomaly._images import resize_image
from skanomaly._networks import loading
from skanomaly._networks.hub import WeightFile

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
huggingface_hub = pytest.importorskip("huggingface_hub")
safetensors_torch = pytest.importorskip("safetensors.torch")

functional = torch.nn.functional
X = random_images((32, 32), (32, 32), seed=5)


def make(model_name="test_vit", **parameters):
    parameters = {
        "image_size": 32,
        "weights": "random",
        "device": "cpu",
        "dtype": "float32",
        **parameters,
    }
    return TimmPatches(model_name, **parameters)


def plain_model(name, **options):
    """The model that ``weights="random"`` stands for, built without the package."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(name, **options).eval()


def plain_maps(module, images, indices, **options):
    """Feature maps of images that already have the model's size."""
    cfg = module.pretrained_cfg
    pixels = np.stack(images).astype(np.float64) / 255
    x = torch.from_numpy((pixels - cfg["mean"]) / cfg["std"]).float().permute(0, 3, 1, 2)
    with torch.inference_mode():
        return module.forward_intermediates(x, indices=indices, intermediates_only=True, **options)


def channels_last(maps):
    return maps.permute(0, 2, 3, 1).numpy()


@pytest.fixture
def fresh(monkeypatch):
    """An empty cache of models."""
    models = OrderedDict()
    monkeypatch.setattr(loading, "_models", models)
    return models


@pytest.fixture
def builds(fresh, monkeypatch):
    """Names of the models that are built, with an empty cache to begin with."""
    names = []
    original = timm.create_model

    def build(name, **options):
        if torch.get_default_device().type != "meta":  # built for its shapes alone
            names.append(name)
        return original(name, **options)

    monkeypatch.setattr(timm, "create_model", build)
    return names


@pytest.fixture(scope="module")
def state():
    """Weights of a tiny transformer."""
    return plain_model("test_vit").state_dict()


# Layers


@pytest.mark.parametrize("layers", [0, 3, 5, -1, -6])
def test_one_block_is_normalised_and_without_prefix_tokens(layers):
    module = plain_model("test_vit", img_size=32)
    (expected,) = plain_maps(module, X, [layers % 6], norm=True)
    assert_close(make(layers=layers).transform(X), channels_last(expected))


def test_one_block_by_a_plain_forward_pass():
    module = plain_model("test_vit", img_size=32)
    cfg = module.pretrained_cfg
    pixels = (np.stack(X) / 255 - cfg["mean"]) / cfg["std"]
    with torch.inference_mode():
        tokens = module.forward_features(torch.from_numpy(pixels).float().permute(0, 3, 1, 2))
    expected = tokens[:, module.num_prefix_tokens :].numpy().reshape(2, 2, 2, -1)
    assert_close(make(layers=-1).transform(X), expected)
    np.testing.assert_array_equal(make().transform(X), make(layers=1).transform(X))  # of six


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fusion", ["concat", "mean"])
def test_the_class_token_is_the_last_part(dtype, fusion):
    options = {"layers": (1, 2), "fusion": fusion, "dtype": dtype}
    found = make("vit_tiny_patch16_224", class_token=True, **options).transform(X)
    model = plain_model("vit_tiny_patch16_224", img_size=32)
    cfg = model.pretrained_cfg
    pixels = (np.stack(X) / 255 - np.array(cfg["mean"])) / np.array(cfg["std"])
    with torch.inference_mode():
        last = model.forward_features(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
    expected = functional.normalize(last[:, 0], dim=1).numpy()
    tolerance = 1e-5 if dtype == "float32" else 0.02
    assert found.shape == (2, 2, 2, 192 * (3 if fusion == "concat" else 2))
    for cell in np.ndindex(2, 2):
        np.testing.assert_allclose(found[:, cell[0], cell[1], -192:], expected, atol=tolerance)
    patches = make("vit_tiny_patch16_224", **options).transform(X)
    patches /= np.linalg.norm(patches, axis=-1, keepdims=True)
    np.testing.assert_allclose(found[..., :-192], patches, atol=tolerance)
    with pytest.raises(ValueError, match="resnet18 has no class token"):
        make("resnet18", class_token=True).transform(X)


@pytest.mark.parametrize("layers", [(1, 4), [4, 1], np.array([-5, -2]), (1, -2, 4)], ids=str)
def test_several_blocks(layers):
    module = plain_model("test_vit", img_size=32)
    maps = [channels_last(m).astype(float) for m in plain_maps(module, X, [1, 4], norm=True)]
    unit = [m / np.linalg.norm(m, axis=-1, keepdims=True) for m in maps]
    assert_close(make(layers=layers).transform(X), np.concatenate(unit, axis=-1))
    assert_close(make(layers=layers, fusion="mean").transform(X), (unit[0] + unit[1]) / 2)


def plain_stages(module, images, indices, fuse):
    """Stages as in PatchCore: averaged over 3x3 cells, brought to the finest grid."""
    maps = plain_maps(module, images, indices)
    finest = max(maps, key=lambda m: m.shape[2] * m.shape[3]).shape[2:]
    maps = [functional.avg_pool2d(m, kernel_size=3, stride=1, padding=1) for m in maps]
    maps = [functional.interpolate(m, size=tuple(finest), mode="bilinear") for m in maps]
    return channels_last(fuse(maps))


@pytest.mark.parametrize(
    "layers, indices, dim",
    [(None, [2, 3], 128 + 256), ([1], [1], 64), (-1, [4], 512), ((4, 0, -4), [0, 1, 4], 640)],
    ids=str,
)
def test_stages_of_a_network(layers, indices, dim):
    images = random_images((64, 64), (64, 64))
    module = plain_model("resnet18")
    expected = plain_stages(module, images, indices, lambda maps: torch.cat(maps, dim=1))
    tokens = make("resnet18", layers=layers, image_size=64).transform(images)
    assert tokens.shape[-1] == dim
    assert_close(tokens, expected)


def test_stages_of_one_dimension_may_be_averaged():
    images = random_images((64, 64))  # the stem and the first stage have 64 channels each
    expected = plain_stages(plain_model("resnet18"), images, [0, 1], lambda m: sum(m) / 2)
    embedder = make("resnet18", layers=(0, 1), fusion="mean", image_size=64)
    assert_close(embedder.transform(images), expected)


def test_the_mean_of_different_dimensions_is_refused():
    with pytest.raises(ValueError, match="fusion='mean' needs layers of one dimension"):
        make("test_resnet", fusion="mean").transform(X)


@pytest.mark.parametrize("name, last", [("test_vit", 5), ("test_resnet", 4)])
@pytest.mark.parametrize("layers", [6, -7, [0, 99], [], [1.0], [[1]], [None], [True]], ids=str)
def test_layers_out_of_range(name, last, layers):
    with pytest.raises(ValueError, match=rf"layers=.*: {name} has layers 0 to {last}"):
        make(name, layers=layers).transform(X)


# Preprocessing


MODELS = ["test_vit", "test_resnet", "test_efficientnet", "resnet18", "resnet18.tv_in1k"]


@pytest.mark.parametrize("name", MODELS)
def test_preprocessing_is_that_of_timm(name):
    config = timm.data.resolve_data_config(model=plain_model(name))
    side = config["input_size"][-1]
    image = random_image(side, side)
    # Without its crop, which would hide the border; at the model's size nothing is resized.
    transform = timm.data.create_transform(**{**config, "crop_pct": 1.0})
    embedder = make(name, image_size=None)
    assert embedder._input_size(100, 200) == (side, side)
    x = embedder._model().preprocessing.normalise(image[None], torch.device("cpu"))
    np.testing.assert_allclose(x[0], transform(Image.fromarray(image)), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_interpolation_is_that_of_the_model(name):
    image = random_image(50, 60)
    side = 64
    wanted = timm.get_pretrained_cfg(name).interpolation
    embedder = make(name, image_size=side)
    tokens = embedder.transform([image])
    for interpolation in ("bilinear", "bicubic"):
        resized = resize_image(image, (side, side), interpolation)
        same = np.allclose(embedder.transform([resized]), tokens, rtol=1e-5, atol=1e-6)
        assert same == (interpolation == wanted)


@pytest.mark.parametrize(
    "name, grid", [("test_vit", 10), ("test_resnet", 20), ("tf_efficientnet_b1", 32)]
)
def test_the_models_own_size(name, grid):
    """240 pixels, no multiple of a stride of 32, are rounded to 256."""
    assert make(name, image_size=None).transform(X).shape[1:3] == (grid, grid)


def test_a_model_of_one_size_says_so():
    for change in ({"resize": "shortest_edge", "image_size": None}, {"resize": "shortest_edge"}):
        with pytest.raises(ValueError, match="mixer_s32_224 takes images of 224 pixels only"):
            make("mixer_s32_224", **change).transform(X)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_low_precision_is_close(name, dtype):
    full, low = make(name).transform(X), make(name, dtype=dtype).transform(X)
    assert low.dtype == np.float32
    error = np.linalg.norm(low - full) / np.linalg.norm(full)
    assert 0 < error < 0.05


@pytest.mark.parametrize("device", ["", "gpu", "cuda:x", "cpu:one"])
def test_a_device_that_torch_does_not_know(device):
    with pytest.raises(ValueError, match=f"device='{device}' cannot be used here"):
        make(device=device).transform(X)


def test_auto_device():
    assert_close(make(device="auto").transform(X), make().transform(X), 1e-3)


def test_random_weights_do_not_depend_on_the_generators_and_leave_them_alone(fresh):
    torch.manual_seed(1)
    first = make().transform(X)
    after = torch.rand(3)
    fresh.clear()
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    assert_same(make().transform(X), first)


def test_a_model_that_fails_numerically_is_no_masked_patch(tmp_path, state):
    """NaN in all components means a masked patch, which would pass as normal."""
    path = tmp_path / "overflow.pth"
    torch.save({**state, "norm.weight": state["norm.weight"] * torch.nan}, path)
    with pytest.raises(ValueError, match="the embedding of image 0 is not finite"):
        make(weights=path).transform(X)


# Names


@pytest.mark.parametrize(
    "name, hint",
    [
        ("vit_tiny_patch16_225", "vit_tiny_patch16_224"),
        ("wide_resnet50", "wide_resnet50_2"),
        ("resnet18_.tv_in1k", "resnet18"),
    ],
)
def test_an_unknown_model_brings_its_near_misses(name, hint):
    with pytest.raises(ValueError, match=rf"{name}.*did you mean .*\b{hint}\b"):
        make(name).transform(X)


def test_an_unknown_model_like_no_other():
    with pytest.raises(ValueError, match=r"named '@@@@'\. See timm\.list_models\(\)"):
        make("@@@@").transform(X)


@pytest.mark.parametrize("weights", ["random", "pretrained", "file"])
def test_an_unknown_tag_brings_the_known_ones(weights, tmp_path, state):
    if weights == "file":
        weights = tmp_path / "weights.pth"
        torch.save(state, weights)
    with pytest.raises(ValueError, match=r"'test_vit.in99k' .*known: .*test_vit\.r160_in1k"):
        make("test_vit.in99k", weights=weights).transform(X)


# Weight files


@pytest.mark.parametrize(
    "image_size", [112, pytest.param(None, marks=pytest.mark.slow)], ids=["resampled", "own size"]
)
def test_real_weights_load_as_in_timm(shared, image_size):
    path = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    side = image_size or 224
    module = timm.create_model(
        "vit_tiny_patch16_224",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path)},
        img_size=side,
    ).eval()
    images = random_images((side, side))
    for layers, index in ((None, 3), (-1, 11)):
        (expected,) = plain_maps(module, images, [index], norm=True)
        embedder = TimmPatches(
            "vit_tiny_patch16_224",
            layers=layers,
            image_size=image_size,
            weights=path,
            device="cpu",
            dtype="float32",
        )
        # Two sums of up to 768 products, in each of 12 blocks, were their errors all to add up.
        rounding = 2 * 12 * 768**0.5 * 2.0**-24
        assert_close(embedder.transform(images), channels_last(expected), rounding)


@pytest.mark.slow
def test_real_weights_take_other_aspects(shared):
    path = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    embedder = make("vit_tiny_patch16_224", weights=path, image_size=64, resize="shortest_edge")
    assert embedder.transform(random_images((60, 130))).shape == (1, 4, 9, 192)


WRAPPERS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state},
    "without head": lambda state: {k: v for k, v in state.items() if not k.startswith("head.")},
    "other head": lambda state: {
        **state,
        "head.weight": torch.zeros(7, 64),
        "head.bias": torch.zeros(7),
    },
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_state_dict_loads(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "weights.pth")
    safetensors_torch.save_file(state, tmp_path / "weights.safetensors")
    tokens = [
        make(weights=path).transform(X)
        for path in (tmp_path / "weights.pth", str(tmp_path / "weights.safetensors"))
    ]
    assert_same(*tokens)
    module = timm.create_model(
        "test_vit",
        img_size=32,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "weights.safetensors")},
    ).eval()
    (expected,) = plain_maps(module, X, [1], norm=True)
    assert_close(tokens[0], channels_last(expected))


MISFITS = {
    "missing": lambda state: {k: v for k, v in state.items() if k != "blocks.3.attn.proj.bias"},
    "unexpected": lambda state: {**state, "extra": torch.zeros(2)},
    "shape": lambda state: {**state, "norm.weight": torch.zeros(3)},
    "another model": lambda state: plain_model("test_resnet").state_dict(),
    "one tensor": lambda state: {"weight": torch.zeros(3)},
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS)
def test_weights_of_another_model(tmp_path, state, misfit):
    path = tmp_path / "other.pth"
    torch.save(misfit(state), path)
    with pytest.raises(ValueError, match=r"other\.pth does not hold the weights of test_vit"):
        make(weights=path).transform(X)


@pytest.fixture
def offline(monkeypatch):
    """Any attempt to download is a failure of the test."""

    def refuse(*args, **kwargs):
        pytest.fail("tried to download weights")

    for name in ("load_state_dict_from_hf", "load_state_dict_from_url"):
        monkeypatch.setattr(timm.models._builder, name, refuse)


@pytest.mark.parametrize("content", [{}, {"model": {}}, [1, 2], {"a": 1}, torch.zeros(3)], ids=str)
def test_a_file_without_a_state_dict(tmp_path, offline, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match="weights.pth does not hold a state_dict"):
        make(weights=path).transform(X)


def test_an_empty_safetensors_file(tmp_path, offline):
    path = tmp_path / "weights.safetensors"
    safetensors_torch.save_file({}, path)
    with pytest.raises(ValueError, match="weights.safetensors does not hold a state_dict"):
        make(weights=path).transform(X)


@pytest.mark.parametrize("weights", ["no such file.pth", "Pretrained", ".", ""])
def test_missing_weights(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="neither a tag of test_vit nor an existing file"):
        make(weights=weights).transform(X)


# Tags


@pytest.fixture
def asked(fresh, monkeypatch):
    """Names and options that timm is asked for; it builds them with random weights."""
    calls, create = [], timm.create_model

    def record(name, **options):
        calls.append((name, options["pretrained"]))
        return create(name, **{**options, "pretrained": False})

    monkeypatch.setattr(WeightFile, "check_available", lambda self: None)
    monkeypatch.setattr(timm, "create_model", record)
    return calls


@pytest.mark.parametrize(
    "name, weights, expected",
    [
        ("resnet18", "a1_in1k", "resnet18.a1_in1k"),
        ("resnet18", "tv_in1k", "resnet18.tv_in1k"),
        ("resnet18.tv_in1k", "tv_in1k", "resnet18.tv_in1k"),
        ("resnet18.tv_in1k", "pretrained", "resnet18.tv_in1k"),
        ("resnet18", "pretrained", "resnet18"),
    ],
)
def test_weights_may_be_a_tag_of_timm(asked, name, weights, expected):
    make(name, weights=weights).transform(X)
    assert asked == [(expected, True)]


def test_preprocessing_is_that_of_the_tag(asked):
    """These two weights of one architecture were trained with different filters."""
    for tag in ("a1_in1k", "tv_in1k"):
        wanted = timm.get_pretrained_cfg(f"resnet18.{tag}").interpolation
        assert make("resnet18", weights=tag)._model().preprocessing.interpolation == wanted


def test_an_unknown_tag_names_near_ones():
    message = (
        "weights='a1_in2k' is neither .* tag of resnet18 .*did you mean a1_in1k.* Tags: a1_in1k"
    )
    with pytest.raises(ValueError, match=message):
        make("resnet18", weights="a1_in2k").transform(X)


def test_a_tag_against_that_of_the_name_is_refused():
    with pytest.raises(ValueError, match="names a tag, and weights='a1_in1k' another"):
        make("resnet18.tv_in1k", weights="a1_in1k").transform(X)


def test_a_tag_goes_before_a_file_of_its_name(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a1_in1k").write_bytes(b"no weights")
    make("resnet18", weights="a1_in1k").transform(X)
    assert asked == [("resnet18.a1_in1k", True)]


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"\x80\x04N."])
@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
def test_garbage_weights(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"weights\{suffix} "):
        make(weights=path).transform(X)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_pickle_with_code_is_not_run(tmp_path, state, save):
    path, trace = tmp_path / "weights.pth", tmp_path / "trace"
    content = {**state, "payload": Payload(trace)}
    if save == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="runs code, which is refused"):
        make(weights=path).transform(X)
    assert not trace.exists()
    torch.load(path, weights_only=False) if save == "torch" else pickle.loads(path.read_bytes())
    assert trace.exists()  # the payload was live


def test_a_file_that_changes_is_loaded_again(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    first = make(weights=path).transform(X)
    torch.save({name: tensor * 1.5 for name, tensor in state.items()}, path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # whatever the file system's clock
    assert np.abs(make(weights=path).transform(X) - first).max() > 1e-3


# Downloads and missing extras


FAILURES = {
    "offline": huggingface_hub.errors.LocalEntryNotFoundError("cannot find it\nsecond line"),
    "timm": RuntimeError("Invalid something"),
    "network": ConnectionError("no route to host"),
    "disk": OSError(28, "No space left on device"),
    "silent": RuntimeError(),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failed_download_is_one_clear_error(fresh, monkeypatch, failure):
    def fail(*args, **kwargs):
        raise failure

    embedder = make(weights="pretrained", image_size=None)
    monkeypatch.setattr(WeightFile, "check_available", lambda self: None)
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(OSError, match="weights of test_vit could not be downloaded") as caught:
        embedder.transform(X)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (type(failure).__name__, "HF_HOME", "weights="))
    assert caught.value.__cause__ is failure
    monkeypatch.undo()
    make().transform(X)  # the failure leaves nothing behind


def test_a_model_without_pretrained_weights():
    name = next(name for name in timm.list_models("res*") if not timm.is_model_pretrained(name))
    with pytest.raises(OSError, match=f"weights of {name} could not be downloaded .*No pretrained"):
        make(name, weights="pretrained").transform(X)


def test_the_environment_forbids_downloads(tmp_path):
    code = (
        "import numpy as np\n"
        "from skanomaly import TimmPatches\n"
        "try: TimmPatches('test_vit', device='cpu').transform(np.zeros((1, 8, 8, 3), np.uint8))\n"
        "except OSError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "weights of test_vit could not be downloaded" in run.stdout


@pytest.mark.parametrize("missing", ["torch", "timm"])
@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
def test_a_missing_extra_is_named_at_first_use(fresh, monkeypatch, missing, method):
    import_module = importlib.import_module

    def import_others(name, *args):
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return import_module(name, *args)

    embedder = make()
    monkeypatch.setattr(importlib, "import_module", import_others)
    with pytest.raises(ImportError, match=f"needs '{missing}', which could not be") as caught:
        getattr(embedder, method)(X)
    assert 'pip install "skanomaly[torch]"' in str(caught.value)


# The cache of models


def test_equal_requests_share_one_model(builds):
    make().transform(X)
    make(layers=2, fusion="mean", batch_size=1).transform(X)
    clone(make()).fit(X).fit_transform(X)
    make(dtype="bfloat16").transform(X)  # made of the same weights
    assert builds == ["test_vit"]


@pytest.mark.parametrize(
    "change", [{"image_size": 48}, {"weights": "file"}, {"resize": "shortest_edge"}], ids=str
)
def test_other_requests_have_their_own(builds, change, tmp_path, state):
    if "weights" in change:
        change = {"weights": tmp_path / "weights.pth"}
        torch.save(state, change["weights"])
    make().transform(X)
    make(**change).transform(X)
    make().transform(X)
    assert builds == ["test_vit"] * 2


def test_one_network_takes_every_aspect(builds):
    embedder = make(resize="shortest_edge")
    for size in (16, 32, 48):
        embedder.set_params(image_size=size).transform(random_images((20, 30), (30, 30)))
    assert builds == ["test_vit"]


def test_the_least_recently_used_make_room(fresh, builds):
    sizes = [16 * (i + 1) for i in range(loading.MAX_MODELS + 1)]
    for size in sizes[:-1]:
        make(image_size=size).transform(X)
    make(image_size=sizes[0]).transform(X)  # now the second is the oldest
    make(image_size=sizes[-1]).transform(X)
    assert len(fresh) == loading.MAX_MODELS
    del builds[:]
    for size in sizes[:1] + sizes[2:]:
        make(image_size=size).transform(X)
    assert builds == []
    make(image_size=sizes[1]).transform(X)
    assert builds == ["test_vit"]
    assert len(fresh) == loading.MAX_MODELS


def test_threads_that_ask_for_one_model_wait_for_one_build(builds, monkeypatch):
    n_threads, build = 4, timm.create_model
    barrier, entered = threading.Barrier(n_threads), threading.Event()

    def slow(*args, **options):
        entered.wait(0.2)  # nobody sets it: time for the others to come in
        return build(*args, **options)

    monkeypatch.setattr(timm, "create_model", slow)
    results = [None] * n_threads

    def work(i):
        barrier.wait()
        results[i] = make().transform(X)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert builds == ["test_vit"]
    for tokens in results:
        assert_close(tokens, results[0])


def test_models_are_for_inference_only(fresh):
    make("test_resnet").transform(X)
    (model,) = fresh.values()
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_an_image_too_long_for_memory_is_named():
    embedder = TimmPatches(
        "vit_tiny_patch16_224", image_size=64, resize="shortest_edge", weights="random"
    )
    images = random_images((40, 40), (2, 4000))
    with pytest.raises(ValueError, match=r"image 1 of \(2, 4000\) pixels .* 16384 is the most"):
        embedder.transform(images)


@pytest.fixture
def replace_rule(monkeypatch):
    """Replaces timm's rule for position embeddings, as anomalib does in the whole process."""
    vit = pytest.importorskip("timm.models.vision_transformer")
    original = vit.resample_abs_pos_embed

    def replacement(*args, **kwargs):
        return original(*args, **{**kwargs, "antialias": False})

    def replace():
        monkeypatch.setattr(vit, "resample_abs_pos_embed", replacement)

    yield replace
    assert vit.resample_abs_pos_embed in (original, replacement)


def positioned_state():
    """Weights of a transformer whose position embedding matters."""
    torch.manual_seed(0)
    state = timm.create_model("test_vit", pretrained=False).state_dict()
    state["pos_embed"] = torch.randn_like(state["pos_embed"])
    return state


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_the_rule_for_positions_is_timms_own_whatever_replaces_it(
    fresh, tmp_path, replace_rule, resize
):
    safetensors_torch.save_file(positioned_state(), tmp_path / "vit.safetensors")
    images = random_images((100, 80))
    embedder = make(image_size=96, weights=tmp_path / "vit.safetensors", resize=resize)
    before = embedder.transform(images)
    replace_rule()
    for _ in ("loaded before", "loaded after"):
        assert_same(embedder.transform(images), before)
        fresh.clear()


def test_downloaded_weights_of_another_size_are_resampled_by_timms_own_rule(
    fresh, tmp_path, monkeypatch, replace_rule
):
    safetensors_torch.save_file(positioned_state(), tmp_path / "vit.safetensors")
    images = random_images((100, 80))
    expected = make(image_size=96, weights=tmp_path / "vit.safetensors").transform(images)
    asked = []

    def load(repository, **options):
        asked.append(repository)
        return positioned_state()

    monkeypatch.setattr(WeightFile, "check_available", lambda self: None)
    monkeypatch.setattr(timm.models, "load_state_dict_from_hf", load)
    for replace in (lambda: None, replace_rule):
        replace()
        assert_same(make(image_size=96, weights="pretrained").transform(images), expected)
        fresh.clear()
    assert asked == ["timm/test_vit.r160_in1k"] * 2
