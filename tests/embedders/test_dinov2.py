"""Tests of DinoV2Patches, against numbers of the official implementation."""

import re
from collections import OrderedDict

import numpy as np
import pytest
from _adapters import assert_close, assert_same, random_images
from sklearn.utils._param_validation import InvalidParameterError

from skanomaly import DinoV2Patches
from skanomaly._networks import loading
from skanomaly._networks.dinov2 import interpolate_position_embedding

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

DIM, DEPTH = 384, 12
# Computed by the official code (facebookresearch/dinov2, float32 on a CPU) from the weights and
# images below: the tokens' entries at WHERE, indexed by row, column and channel, and the mean, the
# standard deviation and the Euclidean norm of all entries.
LAST, MEAN_OF_TWO = {}, {"layers": [5, 11], "fusion": "mean"}
WHERE = {
    (448, 448): [
        (0, 0, 0),
        (0, 0, 383),
        (0, 31, 7),
        (31, 0, 100),
        (31, 31, 200),
        (16, 16, 50),
        (10, 8, 300),
        (1, 2, 3),
    ],
    (224, 336): [
        (0, 0, 0),
        (0, 0, 383),
        (0, 23, 7),
        (15, 0, 100),
        (15, 23, 200),
        (8, 12, 50),
        (5, 6, 300),
        (1, 2, 3),
    ],
}
EXPECTED = [
    (
        "dinov2_vits14",
        (448, 448),
        LAST,
        [
            2.5782423,
            0.35203582,
            0.183934584,
            -0.0338001549,
            -0.673985898,
            0.0804931223,
            -0.255943954,
            0.59474808,
        ],
        [0.000669303088, 1.00366353, 629.366805],
    ),
    (
        "dinov2_vits14",
        (448, 448),
        MEAN_OF_TWO,
        [
            0.11769627,
            0.0113833677,
            -0.0235064756,
            -0.0104110716,
            -0.0325848609,
            0.0272200033,
            -0.00490944972,
            0.0441387482,
        ],
        [2.84592789e-05, 0.0467438172, 29.3116217],
    ),
    (
        "dinov2_vits14",
        (224, 336),
        LAST,
        [
            1.8497746,
            -0.716291308,
            0.678600371,
            1.15007985,
            -0.278191745,
            -1.3700304,
            -0.0965475067,
            1.56428409,
        ],
        [0.00243844336, 1.00119002, 384.458107],
    ),
    (
        "dinov2_vits14",
        (224, 336),
        MEAN_OF_TWO,
        [
            0.08345256,
            -0.0675385594,
            -0.00155912898,
            0.0540826023,
            0.0122452574,
            -0.069714427,
            0.0110248756,
            0.075285092,
        ],
        [9.2100527e-05, 0.0466760263, 17.923629],
    ),
    (
        "dinov2_vits14_reg",
        (448, 448),
        LAST,
        [
            2.61530876,
            0.350088835,
            0.16475673,
            -0.0545060225,
            -0.702077746,
            0.0714093223,
            -0.260475904,
            0.638396978,
        ],
        [0.000702696631, 1.00358411, 629.317017],
    ),
    (
        "dinov2_vits14_reg",
        (448, 448),
        MEAN_OF_TWO,
        [
            0.119754121,
            0.0114240367,
            -0.0244114734,
            -0.0114400052,
            -0.0349071175,
            0.0264215637,
            -0.00473722909,
            0.0463072136,
        ],
        [2.99108451e-05, 0.0467145956, 29.2932982],
    ),
    (
        "dinov2_vits14_reg",
        (224, 336),
        LAST,
        [
            1.77157152,
            -0.74532938,
            0.641555846,
            0.987821579,
            -0.376188993,
            -1.3634634,
            -0.0582153238,
            1.51462746,
        ],
        [0.00244200458, 1.00088018, 384.339131],
    ),
    (
        "dinov2_vits14_reg",
        (224, 336),
        MEAN_OF_TWO,
        [
            0.0784474909,
            -0.0661774576,
            -0.00327035971,
            0.0449541844,
            0.00623574853,
            -0.0718433112,
            0.0165803153,
            0.073108539,
        ],
        [9.28463578e-05, 0.0465996454, 17.8942993],
    ),
]


def official_shapes(n_registers):
    """Names and shapes of the official ViT-S/14's parameters."""
    shapes = {
        "cls_token": (1, 1, DIM),
        "pos_embed": (1, 1 + 37 * 37, DIM),
        "mask_token": (1, DIM),
        "patch_embed.proj.weight": (DIM, 3, 14, 14),
        "patch_embed.proj.bias": (DIM,),
        "norm.weight": (DIM,),
        "norm.bias": (DIM,),
    }
    if n_registers:
        shapes["register_tokens"] = (1, n_registers, DIM)
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for i in range(DEPTH):
        for name, (out_dims, in_dims) in linear.items():
            shapes[f"blocks.{i}.{name}.weight"] = (out_dims * DIM, in_dims * DIM)
            shapes[f"blocks.{i}.{name}.bias"] = (out_dims * DIM,)
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{i}.{name}"] = (DIM,)
        for name in ("ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (DIM,)
    return shapes


def fill(shapes):
    """Weights of everyday sizes, the same everywhere: in order of the names."""
    rng = np.random.RandomState(0)
    state = {}
    for name in sorted(shapes):
        values = rng.standard_normal(shapes[name]).astype("f4")
        if name.endswith("gamma") or ("norm" in name and name.endswith("weight")):
            values = 1 + 0.1 * values
        elif name.endswith("bias"):
            values = 0.1 * values
        elif "pos_embed" in name or "token" in name:
            values = 0.5 * values
        else:
            values = values / np.sqrt(np.prod(shapes[name][1:]))
        state[name] = torch.from_numpy(values.astype("f4"))
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of official weights, by model."""
    folder = tmp_path_factory.mktemp("dinov2")
    paths = {}
    for name, n_registers in (("dinov2_vits14", 0), ("dinov2_vits14_reg", 4)):
        paths[name] = folder / f"{name}.pth"
        torch.save(fill(official_shapes(n_registers)), paths[name])
    yield paths
    for path in paths.values():  # 90 MB each
        path.unlink()


def noise(size):
    return np.random.RandomState(1).randint(0, 256, (*size, 3)).astype(np.uint8)


def make(model_name="dinov2_vits14", **parameters):
    parameters = {
        "image_size": 56,
        "weights": "random",
        "device": "cpu",
        "dtype": "float32",
        **parameters,
    }
    return DinoV2Patches(model_name, **parameters)


@pytest.fixture
def fresh(monkeypatch):
    """An empty cache of models."""
    models = OrderedDict()
    monkeypatch.setattr(loading, "_models", models)
    return models


# The official numbers


@pytest.mark.parametrize(
    "name, size, options, entries, statistics",
    [
        pytest.param(*case, marks=[] if case[2] == LAST else pytest.mark.slow, id=f"{number}")
        for number, case in enumerate(EXPECTED)
    ],
)
def test_tokens_are_the_official_ones(files, name, size, options, entries, statistics):
    resize = "squash" if size[0] == size[1] else "shortest_edge"
    embedder = make(name, image_size=min(size), resize=resize, weights=files[name], **options)
    (tokens,) = embedder.transform([noise(size)])
    assert tokens.shape == (size[0] // 14, size[1] // 14, DIM)
    scale = statistics[1]
    actual = [tokens[index] for index in WHERE[size]]
    np.testing.assert_allclose(actual, entries, rtol=2e-4, atol=1e-5 * scale)
    tokens = tokens.astype(np.float64)
    actual = [tokens.mean(), tokens.std(), np.linalg.norm(tokens)]
    np.testing.assert_allclose(actual, statistics, rtol=2e-4, atol=1e-6 * scale)


@pytest.mark.slow
def test_timms_own_rule_is_not_the_official_one(files):
    """Hence the tolerances above tell the two apart."""
    name, size, _, entries, _ = EXPECTED[0]
    assert (name, size) == ("dinov2_vits14", (448, 448))
    module = timm.create_model(
        "vit_small_patch14_dinov2",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(files[name])},
        dynamic_img_size=True,
    ).eval()
    cfg = module.pretrained_cfg
    pixels = (noise(size) / 255 - cfg["mean"]) / cfg["std"]
    with torch.inference_mode():
        tokens = module.forward_features(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])
    tokens = tokens[0, 1:].reshape(32, 32, DIM).numpy()
    actual = np.array([tokens[index] for index in WHERE[size]])
    assert np.linalg.norm(actual - entries) > 1e-3 * np.linalg.norm(entries)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(actual, entries, rtol=2e-4, atol=1e-5)


def test_the_files_of_both_models_are_told_apart(files):
    for name, other in zip(files, reversed(files), strict=True):
        with pytest.raises(ValueError, match="does not hold the weights of vit_small_patch14"):
            make(name, weights=files[other]).transform(random_images((56, 56)))


def test_timms_rule_is_not_asked_without_registers(monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("timm's interpolation")

    X = random_images((56, 70))
    plain = make()
    expected = plain.transform(X)
    monkeypatch.setattr(loading, "_models", OrderedDict())
    monkeypatch.setattr(timm.layers, "resample_abs_pos_embed", refuse)
    assert_same(plain.transform(X), expected)
    with pytest.raises(NotImplementedError, match="timm's interpolation"):
        make("dinov2_vits14_reg").transform(X)  # these are timm's own, and equal


def test_at_the_native_size_both_rules_are_one():
    X = random_images((518, 518))
    embedder = make(image_size=518, layers=0)
    module = embedder._model().module
    cfg = module.pretrained_cfg
    pixels = torch.from_numpy((X[0] / 255 - cfg["mean"]) / cfg["std"]).float()
    with torch.inference_mode():
        (expected,) = module.forward_intermediates(
            pixels.permute(2, 0, 1)[None], indices=[0], norm=True, intermediates_only=True
        )
    assert_close(embedder.transform(X)[0], expected[0].permute(1, 2, 0).numpy())


# The position embedding


@pytest.fixture(scope="module")
def embedding():
    return torch.from_numpy(np.random.RandomState(0).standard_normal((1, 1 + 49, 6)))


@pytest.mark.parametrize("grid", [(5, 5), (3, 9), (14, 7), (1, 1), (8, 20)])
def test_position_embedding_of_another_grid(embedding, grid):
    embedding = embedding.float()
    result = interpolate_position_embedding(embedding, torch.Size(grid))
    square = embedding[0, 1:].T.reshape(1, 6, 7, 7)
    expected = torch.nn.functional.interpolate(
        square,
        scale_factor=((grid[0] + 0.1) / 7, (grid[1] + 0.1) / 7),
        mode="bicubic",
        antialias=False,
        recompute_scale_factor=False,
    )
    assert expected.shape[2:] == grid
    assert torch.equal(result[:, :1], embedding[:, :1])
    torch.testing.assert_close(result[0, 1:], expected[0].reshape(6, -1).T)
    # Neither of the rules that scale by the grids alone.
    for antialias in (False, True):
        other = torch.nn.functional.interpolate(
            square, size=grid, mode="bicubic", antialias=antialias
        )
        assert (result[0, 1:] - other[0].reshape(6, -1).T).abs().max() > 1e-3


@pytest.mark.parametrize("grid", [(7, 7), torch.Size([7, 7]), [7, 7]])
def test_position_embedding_of_its_own_grid_is_itself(embedding, grid):
    assert interpolate_position_embedding(embedding, grid) is embedding


def test_an_oblong_grid_of_as_many_patches_is_interpolated(embedding):
    assert interpolate_position_embedding(embedding, (1, 49)).shape == embedding.shape
    assert not torch.equal(interpolate_position_embedding(embedding, (1, 49)), embedding)


@pytest.mark.parametrize("grid", [(5, 6), (7, 7)])
def test_position_embedding_keeps_its_dtype(embedding, grid):
    result = interpolate_position_embedding(embedding.bfloat16(), grid)
    assert result.dtype == torch.bfloat16
    expected = interpolate_position_embedding(embedding.bfloat16().float(), grid).bfloat16()
    assert torch.equal(result, expected)


@pytest.mark.slow
def test_every_size_of_dinov2_has_a_grid():
    """The scale factor's 0.1 is there because rounding may otherwise lose a row."""
    embedding = torch.zeros(1, 1 + 37 * 37, 1)
    for side in range(1, 150):
        assert interpolate_position_embedding(embedding, (side, 2)).shape[1] == 1 + 2 * side


# Names and layers


NAMES = {
    "dinov2_vits14": "vit_small_patch14_dinov2",
    "dinov2_vitb14": "vit_base_patch14_dinov2",
    "dinov2_vitl14": "vit_large_patch14_dinov2",
    "dinov2_vitg14": "vit_giant_patch14_dinov2",
    "dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2",
    "dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2",
    "dinov2_vitl14_reg": "vit_large_patch14_reg4_dinov2",
    "dinov2_vitg14_reg": "vit_giant_patch14_reg4_dinov2",
    "dinov3_vits16": "vit_small_patch16_dinov3",
    "dinov3_vitsplus16": "vit_small_plus_patch16_dinov3",
    "dinov3_vitb16": "vit_base_patch16_dinov3",
    "dinov3_vitl16": "vit_large_patch16_dinov3",
    "dinov3_vithplus16": "vit_huge_plus_patch16_dinov3",
    "dinov3_vit7b16": "vit_7b_patch16_dinov3",
}


@pytest.mark.parametrize("name, timm_name", NAMES.items())
def test_names(name, timm_name):
    assert DinoV2Patches(name)._timm_name() == timm_name
    assert timm.is_model_pretrained(timm_name)


@pytest.mark.parametrize(
    "name",
    ["dinov2_vitt14", "dinov2_vits16", "dinov3_vits16_reg", "dinov2_vits14 ", "", "vit_tiny"],
)
def test_unknown_names(name):
    with pytest.raises(ValueError, match=rf"'{name}' is not one of dinov2_vit\{{s,b,l,g\}}14"):
        make(name).transform(random_images((56, 56)))


def test_unknown_names_are_not_asked_of_the_hub(hub):
    with pytest.raises(ValueError, match="'dinov2_vitt14' is not one of"):
        make("dinov2_vitt14", source="hub", weights="pretrained").transform(random_images((56, 56)))
    assert hub[0] == []


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg", "dinov3_vits16"])
def test_layers_are_normalised_and_fused(name):
    side = 64 if "v3" in name else 56
    X = random_images((side, side))
    embedder = make(name, image_size=side)
    assert_same(embedder.transform(X), make(name, image_size=side, layers=-1).transform(X))
    one, two = (
        make(name, image_size=side, layers=layer).transform(X).astype(np.float64)
        for layer in (3, 11)
    )
    one, two = (m / np.linalg.norm(m, axis=-1, keepdims=True) for m in (one, two))
    both = make(name, image_size=side, layers=(-1, 3))
    assert_close(both.transform(X), np.concatenate([one, two], axis=-1))
    assert_close(both.set_params(fusion="mean").transform(X), (one + two) / 2)
    with pytest.raises(ValueError, match="layers 0 to 11"):
        both.set_params(layers=12).transform(X)


def test_dinov3():
    tokens = make("dinov3_vits16", image_size=64).transform(random_images((70, 50)))
    assert tokens.shape == (1, 4, 4, 384)
    module = make("dinov3_vits16", image_size=64)._model().module
    assert module.num_prefix_tokens == 5  # none of which is a patch


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov3_vits16"])
def test_preprocessing_is_that_of_imagenet(name):
    preprocessing = make(name, image_size=112)._model().preprocessing
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.std == (0.229, 0.224, 0.225)
    assert preprocessing.interpolation == "bicubic"


def test_one_model_serves_every_size(fresh):
    for size in (28, 42, 56):
        for resize in ("squash", "shortest_edge"):
            make(image_size=size, resize=resize).transform(random_images((40, 60)))
    assert len(fresh) == 1


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vits14_reg"])
def test_low_precision_keeps_directions_and_lengths(name):
    X = random_images((56, 56))
    full, low = make(name).transform(X), make(name, dtype="bfloat16").transform(X)
    assert low.dtype == np.float32
    # Two rounds of bfloat16, of 2**-9 each, in every one of 12 blocks, were they all to add up.
    assert 0 < np.linalg.norm(low - full) < 24 * 2**-9 * np.linalg.norm(full)


def test_default_size_is_448():
    assert make(image_size=DinoV2Patches().image_size)._input_size(10, 99) == (448, 448)
    assert make(image_size=None)._input_size(10, 99) == (518, 518)


# The official hub


class FakeOfficial(torch.nn.Module):
    """The part of the official model's interface that is used."""

    n_blocks = 12

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.arange(3.0))
        self.calls = []

    def get_intermediate_layers(self, x, n, reshape, norm):
        assert reshape and norm
        self.calls.append((tuple(x.shape), x.dtype, list(n)))
        pooled = torch.nn.functional.avg_pool2d(x, 14)
        return tuple((pooled + layer) * self.scale.view(1, 3, 1, 1) for layer in n)


@pytest.fixture
def hub(fresh, monkeypatch):
    """Calls of torch.hub.load and the model that it gave."""
    calls, module = [], FakeOfficial()

    def load(*args, **kwargs):
        calls.append((args, kwargs))
        return module

    monkeypatch.setattr(torch.hub, "load", load)
    return calls, module


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov2_vitg14_reg"])
def test_hub_is_asked_for_a_fixed_commit(hub, name):
    calls, module = hub
    embedder = make(name, source="hub", weights="pretrained", image_size=28)
    embedder.transform(random_images((28, 28)))
    embedder.transform(random_images((40, 40)))
    ((arguments, options),) = calls  # once
    assert re.fullmatch(r"facebookresearch/dinov2:[0-9a-f]{40}", arguments[0])
    assert arguments[1:] == (name,)
    assert options == {"trust_repo": True, "skip_validation": True}
    assert not module.training
    assert not module.scale.requires_grad


def test_hub_tokens(hub):
    _, module = hub
    X = random_images((28, 56), (28, 56))
    embedder = make(source="hub", weights="pretrained", image_size=28, resize="shortest_edge")
    tokens = embedder.transform(X)
    assert tokens.shape == (2, 2, 4, 3)
    pixels = (np.stack(X) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    cells = pixels.reshape(2, 2, 14, 4, 14, 3).mean(axis=(2, 4))
    assert_close(tokens, (cells + 11) * np.arange(3))
    assert module.calls == 2 * [((1, 3, 28, 56), torch.float32, [11])]
    embedder.set_params(layers=(0, -2)).transform(X)
    assert module.calls[-1][2] == [0, 10]
    with pytest.raises(ValueError, match="layers 0 to 11"):
        embedder.set_params(layers=12).transform(X)
    with pytest.raises(ValueError, match="image_size=30 .* 14 pixels; the nearest is 28"):
        embedder.set_params(image_size=30, layers=None).transform(X)


def test_hub_tokens_are_cached(hub, tmp_path):
    _, module = hub
    X = random_images((28, 28))
    embedder = make(source="hub", weights="pretrained", image_size=28, cache_dir=tmp_path)
    assert_same(embedder.transform(X), embedder.transform(X))
    assert len(module.calls) == 1


@pytest.mark.parametrize(
    "name, weights",
    [
        ("dinov2_vits14", "random"),
        ("dinov2_vits14", "weights.pth"),
        ("dinov3_vits16", "pretrained"),
        ("dinov3_vits16", "random"),
    ],
)
def test_hub_is_for_pretrained_dinov2_only(hub, name, weights):
    with pytest.raises(ValueError, match="serves DINOv2 with weights='pretrained' only"):
        make(name, source="hub", weights=weights).transform(random_images((64, 64)))
    assert hub[0] == []


def test_hub_without_a_connection(fresh, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(torch.hub, "load", fail)
    embedder = make(source="hub", weights="pretrained")
    with pytest.raises(OSError, match=r"dinov2_vits14 .*no route to host.*source='timm'"):
        embedder.transform(random_images((56, 56)))


def test_hub_is_not_the_default(hub):
    make().transform(random_images((56, 56)))
    assert hub[0] == []
    with pytest.raises(InvalidParameterError, match="source"):
        make(source="github").fit(random_images((56, 56)))
