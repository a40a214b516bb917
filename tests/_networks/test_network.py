"""Tests of networks as values: what identifies them, their layers, what is made of them."""

import numpy as np
import pytest
from _adapters import assert_close, random_images

from skanomaly import DinoV2Patches, TimmPatches
from skanomaly._cache import cache_key
from skanomaly._networks.network import Preprocessing, layer_numbers, patchcore_stages
from skanomaly._networks.runtimes import Plan, embed

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    "layers, expected",
    [(None, (3,)), (0, (0,)), (-1, (3,)), ((2, 0, -2), (0, 2)), (np.array([1, 3]), (1, 3))],
    ids=str,
)
def test_layers_are_ascending_and_unique(layers, expected):
    numbers = layer_numbers(layers, 4, [3], "net")
    assert numbers == expected
    assert all(type(number) is int for number in numbers)


@pytest.mark.parametrize(
    "layers", [4, -5, (), [True], (False, 1), np.array([True]), True, 1.0, [None]], ids=str
)
def test_what_is_no_layer_is_refused(layers):
    with pytest.raises(ValueError, match="net has layers 0 to 3"):
        layer_numbers(layers, 4, [3], "net")


def test_default_stages_are_those_of_patchcore():
    assert patchcore_stages([2, 4, 8, 16, 32]) == [2, 3]


def embedder(**parameters):
    options = {"image_size": 32, "weights": "random", "device": "cpu", **parameters}
    return TimmPatches("test_vit", **options)


def test_a_network_needs_its_embedder_no_more():
    X = np.stack(random_images((32, 32), (32, 32)))
    source = embedder(layers=(1, 4), dtype="float32")
    expected, network = source.transform(X), source._network()
    source.set_params(layers=0, fusion="mean", batch_size=1)  # the network is a value by now
    tokens = embed(network, Plan("torch", "float32", torch.device("cpu")), X, batch_size=2)
    assert_close(tokens, expected)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (3, 5, 7, 3), (2, 40, 33, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_normalised_colour_by_colour(shape, dtype):
    """To the bit, and laid out as the image was."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if dtype == np.float32:
        images = np.random.default_rng(0).random(shape, dtype=np.float32)
    kept = images.copy()
    found = Preprocessing(mean, std, "bicubic", 224, 1).normalise(images, torch.device("cpu"))
    scaled = images / np.float32(255) if dtype == np.uint8 else images
    expected = (scaled - np.float32(mean)) / np.float32(std)
    assert found.permute(0, 2, 3, 1).is_contiguous()
    assert found.permute(0, 2, 3, 1).numpy().tobytes() == expected.tobytes()
    assert (images == kept).all()


def test_fingerprints_tell_networks_apart():
    networks = [
        embedder()._network(),
        embedder(layers=2)._network(),
        embedder(image_size=48)._network(),
        DinoV2Patches(weights="random", device="cpu")._network(),
    ]
    keys = [cache_key(**network.fingerprint()) for network in networks]  # of plain values
    assert len(set(keys)) == len(keys)
    assert keys[0] == cache_key(**embedder(layers=1, fusion="mean")._network().fingerprint())
    assert networks[0].versions() == {"torch": torch.__version__, "timm": timm.__version__}
