"""Tests of embedders in a graph: the embedders are the oracle."""

import numpy as np
import pytest
from _graphs import function_of
from sklearn.preprocessing import FunctionTransformer

from skanomaly import (
    DinoV2Patches,
    FilterBankPatches,
    FunctionPatches,
    OpenClipPatches,
    PCAForeground,
    RegionOfInterest,
    Tiled,
    TimmPatches,
    TinyPatches,
)
from skanomaly._images import load_image
from skanomaly.datasets import make_surfaces
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._images import tokens_graph, transformed_graph

NUMPY = [
    FilterBankPatches(image_size=64),
    FilterBankPatches(image_size=64, resize="shortest_edge"),
    TinyPatches(image_size=64),
    TinyPatches(image_size=64, grid=16, resize="shortest_edge"),
    TinyPatches(image_size=64, weights="random"),
]


def pictures(height, width):
    """A made surface, the same darker, and one cut from the middle of another."""
    side = max(32, height, width)
    surfaces = make_surfaces(3, image_size=side, random_state=height).images
    images = np.stack(surfaces)[:, :height, :width]
    images[1] //= 3
    return np.ascontiguousarray(images)


def graph_of(embedder, size):
    sides = ["height", "width"] if size is None else size
    return function_of(
        lambda graph, image: tokens_graph(graph, embedder, image, size),
        ("image", np.uint8, ["batch", *sides, 3]),
    )


def assert_same_tokens(found, embedder, images, tolerance=1e-5):
    expected = np.asarray(embedder.transform(list(images)))
    assert found.dtype == np.float32 and found.shape == expected.shape
    lengths = np.linalg.norm(expected, axis=-1)
    away = np.linalg.norm(found - expected, axis=-1)
    assert (away <= tolerance * lengths).all(), (away / lengths).max()


def check(embedder, size, tolerance=1e-5):
    images = pictures(*size)
    found = graph_of(embedder, size)
    assert_same_tokens(found(images), embedder, images, tolerance)
    assert_same_tokens(found(images[1:2]), embedder, images[1:2], tolerance)


@pytest.mark.parametrize("embedder", NUMPY, ids=str)
@pytest.mark.parametrize("size", [(97, 130), (200, 151), (64, 64), (1, 1), (3, 70)], ids=str)
def test_tokens_without_torch(embedder, size):
    # Where an image is flat, roots of what rounding leaves of differences are a part of the tokens.
    flat = min(size) < 5 and isinstance(embedder, FilterBankPatches)
    check(embedder, size, 1e-3 if flat else 1e-5)


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("kind", [FilterBankPatches, TinyPatches])
def test_tokens_of_one_grey(kind, level):
    embedder = kind(image_size=32)
    images = np.full((2, 40, 50, 3), level, dtype=np.uint8)
    assert_same_tokens(graph_of(embedder, (40, 50))(images), embedder, images)


@pytest.mark.parametrize("embedder", NUMPY[::2], ids=str)
def test_tokens_of_images_of_any_size(embedder):
    found = graph_of(embedder, None)
    for size in ((97, 130), (64, 64), (30, 200)):
        images = pictures(*size)
        assert_same_tokens(found(images), embedder, images)


def small(kind, *args, **params):
    return kind(*args, weights="random", dtype="float32", **params)


TORCH = {"resnet18": lambda: small(TimmPatches, "resnet18", image_size=64)}
SLOW = {
    "three stages": lambda: small(
        TimmPatches, "resnet18", image_size=64, layers=(0, 1, 2), resize="shortest_edge"
    ),
    "vit": lambda: small(
        TimmPatches,
        "vit_tiny_patch16_224",
        image_size=64,
        layers=(1, 4),
        fusion="mean",
        resize="shortest_edge",
    ),
    "class token": lambda: small(
        TimmPatches, "vit_tiny_patch16_224", image_size=64, class_token=True
    ),
    "dinov2": lambda: small(DinoV2Patches, image_size=56, layers=(0, 3)),
    "convnext": lambda: small(TimmPatches, "convnext_atto", image_size=64),
    "swin": lambda: small(TimmPatches, "swin_tiny_patch4_window7_224"),
    "registers": lambda: small(DinoV2Patches, "dinov2_vits14_reg", image_size=56),
    "dinov3": lambda: small(DinoV2Patches, "dinov3_vits16", image_size=64),
    "clip resnet": lambda: small(OpenClipPatches, "RN50", image_size=64),
}


@pytest.mark.parametrize("name", TORCH)
def test_tokens_of_networks(name):
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript")
    check(TORCH[name](), (97, 130))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_tokens_of_more_networks(name):
    pytest.importorskip("open_clip")
    pytest.importorskip("onnxscript")
    check(SLOW[name](), (97, 130))


def test_tokens_of_clip(tiny_clip):
    pytest.importorskip("onnxscript")
    embedder = OpenClipPatches(tiny_clip, weights="random", image_size=40, project=True)
    check(embedder, (97, 130))


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"project": True, "class_token": True},
        {"project": True, "value_attention": 2},
        {"project": True, "windows": (2, 3)},
        {"layers": (0, 1), "resize": "shortest_edge"},
    ],
    ids=str,
)
def test_tokens_of_clip_with_more(tiny_clip, params):
    pytest.importorskip("onnxscript")
    check(OpenClipPatches(tiny_clip, weights="random", image_size=40, **params), (97, 130))


@pytest.mark.slow
def test_tokens_of_a_network_for_images_of_any_size():
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript")
    embedder = TORCH["resnet18"]()
    found = graph_of(embedder, None)
    for size in ((97, 130), (150, 300)):
        images = pictures(*size)
        assert_same_tokens(found(images), embedder, images)


@pytest.mark.parametrize("item", ["bottle", "cookies", "screw", "toothbrush"])
def test_tokens_of_photographs(shared, item):
    files = sorted((shared / "data" / item).rglob("*.png"))
    files += sorted((shared / "data" / item).rglob("*.jp*g"))
    images = [load_image(path) for path in files[:: max(1, len(files) // 3)][:3]]
    for embedder in (FilterBankPatches(), TinyPatches()):
        for image in images:
            found = graph_of(embedder, image.shape[:2])(image[None])
            assert_same_tokens(found, embedder, [image])


@pytest.mark.slow
def test_tokens_of_trained_weights(shared):
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript")
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    if not weights.is_file():
        pytest.skip(f"{weights} is not there")
    check(TimmPatches("vit_tiny_patch16_224", weights=weights, dtype="float32"), (97, 130), 3e-5)


def test_a_region_masks_the_same_patches():
    region = RegionOfInterest([(0.1, 0.1), (0.9, 0.2), (0.5, 0.8)])
    tokens = np.random.default_rng(0).normal(size=(3, 6, 9, 4)).astype(np.float32)
    region.fit(tokens)
    found = function_of(
        lambda graph, name: transformed_graph(graph, region, name, (6, 9)),
        ("tokens", np.float32, ["batch", 6, 9, 4]),
    )(tokens)
    np.testing.assert_array_equal(found, region.transform(tokens))
    assert np.isnan(found).any() and not np.isnan(found).all()


def refusal(embedder, size=(40, 40)):
    pytest.importorskip("onnx")
    graph = Graph()
    sides = ["height", "width"] if size is None else size
    image = graph.input("image", np.uint8, ["batch", *sides, 3])
    with pytest.raises(ValueError) as caught:
        tokens_graph(graph, embedder, image, size)
    return str(caught.value)


def test_what_a_graph_cannot_hold_is_refused_by_name():
    assert refusal(FunctionPatches(np.asarray)).startswith("FunctionPatches has no form")
    assert refusal(Tiled(FilterBankPatches())).startswith("Tiled has no form")
    assert "value_range=1023 of FilterBankPatches" in refusal(FilterBankPatches(value_range=1023))
    edge = FilterBankPatches(resize="shortest_edge")
    assert "export for a fixed size" in refusal(edge, None)
    assert "lower image_size" in refusal(FilterBankPatches(resize="shortest_edge"), (1, 90))

    class Derived(FilterBankPatches):
        pass

    assert refusal(Derived()).startswith("Derived has no form")


def test_reduced_precision_is_refused():
    pytest.importorskip("timm")
    embedder = TimmPatches(
        "vit_tiny_patch16_224", weights="random", image_size=64, dtype="bfloat16"
    )
    assert "computes in bfloat16" in refusal(embedder) and "dtype='float32'" in refusal(embedder)


@pytest.mark.parametrize("transformer", [PCAForeground(), FunctionTransformer()], ids=str)
def test_other_transformers_are_refused_by_name(transformer):
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match=f"stands a {type(transformer).__name__}, .*leave it out"):
        transformed_graph(Graph(), transformer, "tokens", (4, 4))
