"""Export a checkpoint to the file of weights that the package holds.

    python -m training.export CHECKPOINT OUT.safetensors

Batch norms are folded into the convolutions before them, the head of ViT-Tiny is dropped, and all
is rounded to float16. The file says in its metadata what trained it and under which licence it
stands, and bears a digest of its tensors. Printed is how far its tokens are from those of the
checkpoint.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save

from skanomaly._networks.tiny import digest_of
from training.network import TinyNetwork, as_input
from training.textures import texture

_TOLERANCE = 0.02  # of the deviation of the tokens: float16 weights give 0.002 to 0.005


def load_network(checkpoint):
    """The trained network of a checkpoint, for inference, and the settings of its run."""
    content = torch.load(checkpoint, weights_only=True, map_location="cpu")
    network = TinyNetwork(**content["config"]["network"])
    network.load_state_dict(content["network"])
    return network.eval(), content["config"]


def _folded(convolution, norm=None):
    """Weight (k, k, in, out) and bias (out,) of a convolution and its batch norm, float64."""
    weight = convolution.weight.detach().double()
    if norm is None:
        bias = convolution.bias.detach().double()
    else:
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        weight = weight * scale[:, None, None, None]
        bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.permute(2, 3, 1, 0).detach(), bias.detach()


def fold(network):
    """The tensors of the file, by name, float16.

    Convolutions are `stem.0` ..., `body.0.reduce`, `body.0.spatial`, `body.0.expand` ... and
    `head`, each with a `.weight` of shape (k, k, in, out), (in, out) for the head, and a `.bias`.
    """
    layers = {f"stem.{i}": _folded(*layer) for i, layer in enumerate(network.stem)}
    for i, block in enumerate(network.body):
        layers[f"body.{i}.reduce"] = _folded(block.reduce)
        layers[f"body.{i}.spatial"] = _folded(*block.spatial)
        layers[f"body.{i}.expand"] = _folded(block.expand)
    weight, bias = _folded(network.head)
    layers["head"] = weight[0, 0], bias
    tensors = {}
    for name, (weight, bias) in layers.items():
        tensors[f"{name}.weight"] = weight.to(torch.float16).contiguous()
        tensors[f"{name}.bias"] = bias.to(torch.float16).contiguous()
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("weights that float16 cannot hold")
    return tensors


def run_file(tensors, dilations, x):
    """Tokens (n, 128, height / 16, width / 16) by the tensors of a file, in float32.

    Parameters
    ----------
    tensors : dict of torch.Tensor
    dilations : sequence of int
    x : torch.Tensor of shape (n, 3, height, width)
        RGB in [0, 1].
    """

    def convolve(x, name, stride=1, dilation=1):
        weight = tensors[f"{name}.weight"].float().permute(3, 2, 0, 1)
        bias = tensors[f"{name}.bias"].float()
        padding = dilation * (weight.shape[-1] - 1) // 2
        return F.conv2d(x, weight, bias, stride, padding, dilation)

    x = (x - 0.5) * 4
    n_stem = sum(name.startswith("stem.") for name in tensors) // 2
    for i in range(n_stem):
        x = convolve(x, f"stem.{i}", stride=2).relu()
    for i, dilation in enumerate(dilations):
        y = convolve(x, f"body.{i}.reduce").relu()
        y = convolve(y, f"body.{i}.spatial", dilation=dilation).relu()
        x = (x + convolve(y, f"body.{i}.expand")).relu()
    x = F.avg_pool2d(x, 2).permute(0, 2, 3, 1)
    x = x @ tensors["head.weight"].float() + tensors["head.bias"].float()
    return x.permute(0, 3, 1, 2)


@torch.inference_mode()
def difference(network, tensors):
    """The root mean square error of the file's tokens, over their deviation."""
    rng = np.random.default_rng(0)
    x = as_input(np.stack([texture(rng, 256) for _ in range(4)]))
    expected = network(x)["mobilenet"]
    found = run_file(tensors, network.settings["dilations"], x)
    return float((found - expected).square().mean().sqrt() / expected.std())


def _in_order(content):
    """The bytes of a safetensors file with its metadata sorted, which else have a random order."""
    n = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + n])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    return content[:8] + text.ljust(n) + content[8 + n :]


def export(checkpoint, out):
    """Write the file of weights of a checkpoint; its digest and the difference that it makes.

    Raises
    ------
    ValueError
        When tokens of the file are others than those of the checkpoint; nothing is written then.
    """
    network, config = load_network(checkpoint)
    tensors = fold(network)
    error = difference(network, tensors)
    if not error < _TOLERANCE:
        raise ValueError(f"the tokens of the file differ by {error:.3f} deviations")
    metadata = {
        "version": "1",
        "dilations": ",".join(map(str, network.settings["dilations"])),
        "licence": "BSD-3-Clause",
        "trained_by": (
            f"python -m training.train --steps {config['steps']} --seed {config['seed']} "
            f"--pictures {config['pictures']}, on pictures of --seed {config['data']['seed']}"
        ),
        "digest": digest_of({name: tensor.numpy() for name, tensor in tensors.items()}),
    }
    part = Path(f"{out}.part")
    part.write_bytes(_in_order(save(tensors, metadata)))
    os.replace(part, out)
    return metadata["digest"], error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    digest, error = export(options.checkpoint, options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes, digest {digest}")
    print(f"tokens differ from the checkpoint's by {error:.4f} deviations")


if __name__ == "__main__":
    main()
