"""The exported file, against the trained network and against plain loops in float64."""

import hashlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402

from training.export import difference, export, fold, load_network, run_file  # noqa: E402
from training.network import TinyNetwork, as_input  # noqa: E402

TOY = {"stem": ((5, 4), (3, 6), (3, 8)), "inner": 4, "dilations": (1, 2), "n_components": 5}
CONFIG = {"network": TOY, "steps": 7, "seed": 3, "pictures": 512, "data": {"seed": 4}}


def trained(settings=None):
    """A network whose batch norms are as after a training: nothing is 0 or 1."""
    torch.manual_seed(0)
    network = TinyNetwork(**(settings or {}))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 2)
    return network.eval()


def checkpoint(folder, network):
    file = folder / "checkpoint.pt"
    torch.save({"network": network.state_dict(), "config": CONFIG}, file)
    return file


def convolve(x, weight, bias, stride=1, dilation=1):
    """x (height, width, in), weight (k, k, in, out), zeros around; float64, in loops."""
    k = weight.shape[0]
    pad = dilation * (k - 1) // 2
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    height, width = -(-x.shape[0] // stride), -(-x.shape[1] // stride)
    y = np.zeros((height, width, weight.shape[3])) + bias
    for i, j, a, b in np.ndindex(height, width, k, k):
        y[i, j] += padded[stride * i + dilation * a, stride * j + dilation * b] @ weight[a, b]
    return y


def plain_forward(tensors, dilations, picture):
    tensors = {name: tensor.double().numpy() for name, tensor in tensors.items()}

    def layer(x, name, **how):
        return convolve(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], **how)

    x = (picture / 255 - 0.5) * 4
    for i in range(3):
        x = np.maximum(layer(x, f"stem.{i}", stride=2), 0)
    for i, dilation in enumerate(dilations):
        y = np.maximum(layer(x, f"body.{i}.reduce"), 0)
        y = np.maximum(layer(y, f"body.{i}.spatial", dilation=dilation), 0)
        x = np.maximum(x + layer(y, f"body.{i}.expand"), 0)
    height, width, channels = x.shape
    x = x.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))
    return x @ tensors["head.weight"] + tensors["head.bias"]


def test_the_file_says_what_the_network_says():
    network = trained(TOY)
    tensors = fold(network)
    picture = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    with torch.inference_mode():
        expected = network(as_input(picture))["mobilenet"][0].permute(1, 2, 0).numpy()
    plain = plain_forward(tensors, TOY["dilations"], picture[0])
    # float16 has 11 bits, and a dozen roundings add up.
    np.testing.assert_allclose(plain, expected, atol=5e-3 * expected.std())
    found = run_file(tensors, TOY["dilations"], as_input(picture))[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, plain, atol=1e-5)
    assert 0 < difference(network, tensors) < 5e-3


def test_the_tensors_are_those_of_the_layout():
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in fold(trained()).items()}
    half = torch.float16
    assert len(shapes) == 2 * (3 + 3 * 8 + 1)
    assert shapes["stem.0.weight"] == (half, (5, 5, 3, 24))
    assert shapes["stem.2.bias"] == (half, (128,))
    assert shapes["body.7.reduce.weight"] == (half, (1, 1, 128, 64))
    assert shapes["body.0.spatial.weight"] == (half, (3, 3, 64, 64))
    assert shapes["body.0.expand.weight"] == (half, (1, 1, 64, 128))
    assert shapes["head.weight"] == (half, (128, 128))


def test_the_file_bears_its_digest_and_what_made_it(tmp_path):
    out = tmp_path / "tiny.safetensors"
    digest, error = export(checkpoint(tmp_path, trained(TOY)), out)
    assert 0 < error < 0.01
    expected = hashlib.sha256()
    with safe_open(out, "np") as file:
        metadata = file.metadata()
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            expected.update(f"{name}{tensor.shape}".encode() + tensor.tobytes())
    assert metadata == {
        "version": "1",
        "dilations": "1,2",
        "licence": "BSD-3-Clause",
        "trained_by": (
            "python -m training.train --steps 7 --seed 3 --pictures 512, on pictures of --seed 4"
        ),
        "digest": expected.hexdigest(),
    }
    assert digest == expected.hexdigest()
    assert not list(tmp_path.glob("*.part"))
    for _ in range(5):  # the order of the metadata is not left to chance
        export(tmp_path / "checkpoint.pt", tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()


def test_a_checkpoint_is_read_as_it_was(tmp_path):
    network = trained(TOY)
    again, config = load_network(checkpoint(tmp_path, network))
    assert config == CONFIG and not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_weights_beyond_float16_are_refused(tmp_path):
    network = trained(TOY)
    with torch.no_grad():
        network.head.bias[0] = 1e6
    with pytest.raises(ValueError, match="float16 cannot hold"):
        export(checkpoint(tmp_path, network), tmp_path / "tiny.safetensors")
    assert not (tmp_path / "tiny.safetensors").exists()
