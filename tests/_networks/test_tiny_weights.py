"""The file of our own network: what it says of itself, what is refused; and its form for torch."""

import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from skanomaly._networks import tiny
from skanomaly._networks.tiny import (
    WEIGHTS,
    digest_of,
    load_tiny,
    random_tensors,
    torch_network,
    weight_file,
)
from skanomaly.core.tiny_network import GRIDS, tiny_tokens


def content(path=WEIGHTS):
    """Tensors and metadata of a file."""
    with safe_open(path, framework="np") as file:
        return load_file(path), dict(file.metadata())


def written(path, tensors, metadata):
    save_file(tensors, path, metadata)
    return path


@pytest.fixture
def other(tmp_path):
    """A file of other weights, of half the width and with fewer blocks."""
    rng = np.random.RandomState(3)
    shapes = {
        "stem.0.weight": (5, 5, 3, 12),
        "stem.1.weight": (3, 3, 12, 32),
        "stem.2.weight": (3, 3, 32, 64),
        "head.weight": (64, 48),
    }
    for number in range(2):
        shapes[f"body.{number}.reduce.weight"] = (1, 1, 64, 16)
        shapes[f"body.{number}.spatial.weight"] = (3, 3, 16, 16)
        shapes[f"body.{number}.expand.weight"] = (1, 1, 16, 64)
    tensors = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        tensors[name] = (scale * rng.normal(size=shape)).astype(np.float16)
        tensors[name.replace("weight", "bias")] = rng.normal(size=shape[-1]).astype(np.float16)
    metadata = {"dilations": "1,3", "digest": digest_of(tensors)}
    return written(tmp_path / "other.safetensors", tensors, metadata)


def test_the_file_of_the_package_says_what_it_is():
    tensors, metadata = content()
    assert WEIGHTS.stat().st_size <= 1_500_000
    assert set(metadata) == {"version", "dilations", "licence", "trained_by", "digest"}
    assert metadata["licence"] == "BSD-3-Clause"
    assert metadata["digest"] == digest_of(tensors) == load_tiny("pretrained").digest
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}


def test_weights_are_read_once(monkeypatch):
    first = load_tiny("pretrained")
    monkeypatch.setattr("skanomaly._networks.tiny.safe_open", None)
    assert load_tiny("pretrained") is first


def test_random_weights_are_the_same_everywhere():
    first, second = random_tensors(0), random_tensors(0)
    assert digest_of(first) == digest_of(second) == load_tiny("random").digest
    assert digest_of(random_tensors(1)) != load_tiny("random").digest
    shapes = {name: tensor.shape for name, tensor in first.items()}
    dim = load_tiny("random").network.head.n_outputs
    assert dim == 128 and shapes["head.weight"] == (128, 128)


def test_activations_of_random_weights_neither_vanish_nor_grow():
    image = np.random.RandomState(0).randint(0, 256, (128, 128, 3)).astype(np.uint8)
    tokens = tiny_tokens(image, load_tiny("random").network)
    assert 0.1 < tokens.std() < 10


def test_a_file_of_another_width_is_taken_as_it_is(other):
    network = load_tiny(other).network
    assert [layer.n_outputs for layer in network.stem] == [12, 32, 64]
    assert [block[1].dilation for block in network.body] == [1, 3]
    assert tiny_tokens(np.zeros((64, 80, 3), np.uint8), network).shape == (8, 10, 48)
    assert load_tiny(other).digest == load_tiny(str(other)).digest != load_tiny("random").digest


def test_a_file_that_was_replaced_is_read_again(other):
    before = load_tiny(other).digest
    tensors, metadata = content(other)
    tensors["head.bias"] = tensors["head.bias"] + np.float16(1)
    written(other, tensors, {**metadata, "digest": digest_of(tensors)})
    assert load_tiny(other).digest == digest_of(tensors) != before


def test_which_file_is_meant(other, tmp_path):
    assert weight_file("random") is None
    assert weight_file("pretrained") == WEIGHTS
    assert weight_file(other) == weight_file(str(other)) == other
    assert weight_file(f"pretrained@{other}") == other
    assert load_tiny(f"pretrained@{other}").digest == load_tiny(other).digest
    with pytest.raises(
        FileNotFoundError, match="weights 'pretrained' in a file, and there is none"
    ):
        weight_file(f"pretrained@{tmp_path / 'gone.safetensors'}")
    for unknown in (f"random@{other}", "pretraind", tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(ValueError, match="neither 'pretrained' nor 'random', nor an existing"):
            weight_file(unknown)


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (flipped, "damaged: the sha256 of its tensors is"),
        (cut, "no readable safetensors file"),
        (emptied, "no readable safetensors file"),
    ],
)
def test_a_damaged_file_is_refused(spoil, message, other, monkeypatch, tmp_path):
    spoil(other)
    with pytest.raises(ValueError, match=message) as caught:
        load_tiny(other)
    assert str(other) in str(caught.value) and "install" not in str(caught.value)
    # The same of the file of the package, and what to do.
    own = tmp_path / "tiny.safetensors"
    shutil.copy(other, own)
    monkeypatch.setattr(tiny, "WEIGHTS", own)
    tiny._load.cache_clear()
    with pytest.raises(ValueError, match=f"{message}.*install skanomaly again"):
        load_tiny("pretrained")
    tiny._load.cache_clear()


def test_a_package_without_its_file_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(tiny, "WEIGHTS", tmp_path / "tiny.safetensors")
    tiny._load.cache_clear()
    with pytest.raises(FileNotFoundError, match="is missing: .* install skanomaly again"):
        load_tiny("pretrained")
    tiny._load.cache_clear()


def test_a_file_of_something_else_is_refused(other):
    tensors, metadata = content(other)
    for missing in ("dilations", "digest"):
        written(other, tensors, {k: v for k, v in metadata.items() if k != missing})
        with pytest.raises(ValueError, match="does not say"):
            load_tiny(other)
    for dilations in ("1,3,1", "1", "1,x", ""):
        written(other, tensors, {**metadata, "dilations": dilations})
        with pytest.raises(ValueError, match="does not hold weights of this network"):
            load_tiny(other)


def test_a_stem_of_another_depth_is_refused(other):
    # Its cells would not be of 8 pixels, as the grid of the embedder takes them to be.
    tensors, metadata = content(other)
    tensors["stem.3.weight"] = np.zeros((3, 3, 64, 64), np.float16)
    tensors["stem.3.bias"] = np.zeros(64, np.float16)
    written(other, tensors, {**metadata, "digest": digest_of(tensors)})
    with pytest.raises(ValueError, match="its stem has 4 layers in place of 3"):
        load_tiny(other)


@pytest.mark.parametrize("metadata", [{}, {"dilations": "1", "digest": "0"}])
def test_a_file_of_numbers_that_numpy_lacks_is_refused(metadata, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch_file

    path = tmp_path / "bfloat16.safetensors"
    save_torch_file({"head.bias": torch.zeros(3, dtype=torch.bfloat16)}, path, metadata)
    with pytest.raises(ValueError, match="of the kinds BF16" if metadata else "does not say"):
        load_tiny(path)


def test_digests_tell_names_shapes_and_numbers_apart():
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(2)}
    digests = {
        digest_of(changed)
        for changed in (
            tensors,
            {**tensors, "a": tensors["a"].reshape(3, 2)},
            {"a": tensors["a"], "c": tensors["b"]},
            {**tensors, "b": np.array([1, 2.0])},
        )
    }
    assert len(digests) == 4
    # Neither the order of the tensors nor that of their memory counts.
    turned = {"b": tensors["b"], "a": np.asfortranarray(tensors["a"])}
    assert digest_of(turned) == digest_of(tensors)


# torch


@pytest.mark.parametrize("weights", ["pretrained", "random", "other"])
@pytest.mark.parametrize("grid", GRIDS)
def test_torch_gives_the_tokens_of_numpy(weights, grid, other):
    torch = pytest.importorskip("torch")
    weights = other if weights == "other" else weights
    network = torch_network(weights, grid, "cpu")
    images = np.random.RandomState(0).randint(0, 256, (2, 128, 224, 3)).astype(np.uint8)
    x = network.preprocessing.normalise(images, torch.device("cpu"))
    with torch.inference_mode():
        tokens = network.fuse(network.forward(network.model, x)).permute(0, 2, 3, 1).numpy()
    for image, found in zip(images, tokens, strict=True):
        expected = tiny_tokens(image, load_tiny(weights).network, grid)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_grids_share_one_module_and_other_weights_do_not(other):
    pytest.importorskip("torch")
    first, second = (torch_network(other, grid, "cpu") for grid in GRIDS)
    assert first.model is second.model
    assert first.fingerprint() != second.fingerprint()
    assert torch_network("random", 16, "cpu").model is not first.model
    # Nor do other dilations, which no tensor tells.
    tensors, metadata = content(other)
    written(other, tensors, {**metadata, "dilations": "1,2"})
    changed = torch_network(other, 16, "cpu")
    assert changed.model is not first.model and changed.fingerprint() != first.fingerprint()
