"""The network of our own: its weights, which are in the package, and itself as a module of torch.

On NumPy it is run by `skanomaly.core.tiny_network`.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from skanomaly._networks.loading import load_once, tag_and_file, weights_key
from skanomaly._networks.network import LoadedModel, Network, Preprocessing
from skanomaly._optional import import_optional
from skanomaly._typing import PathLike
from skanomaly.core.tiny_network import Convolution, TinyNetwork, network_of

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).with_name("tiny.safetensors")
IMAGE_SIZE = 256  # side of the images that it was made for, in pixels
INTERPOLATION = "bicubic"

# Of the network as it is trained; that of a file is as its shapes say.
_STEM = ((5, 24), (3, 64), (3, 128))  # side of the kernel and channels of each layer
_INNER = 64  # channels within a block
_DIM = 128  # components of a token
_DILATIONS = (1, 2, 1, 4, 1, 2, 4, 1)
# What NumPy reads; bfloat16 it knows only where other packages teach it.
_KINDS = {"F16", "F32", "F64"}


@dataclass(frozen=True)
class TinyModel:
    """The network with its weights.

    Attributes
    ----------
    network : TinyNetwork
        For :func:`skanomaly.core.tiny_network.tiny_tokens`.
    digest : str
        sha256 of the weights, from :func:`digest_of`.
    metadata : mapping of str to str
        What the file says of itself: version, licence, and how it was trained.
    """

    network: TinyNetwork
    digest: str
    metadata: Mapping[str, str]


def load_tiny(weights: PathLike) -> TinyModel:
    """The network with its weights, read once by a process.

    Parameters
    ----------
    weights : str or os.PathLike
        ``"pretrained"``: the file in the package. ``"random"``: as before the training, from a
        fixed seed. A path: a ``.safetensors`` file of the same layout.

    Returns
    -------
    TinyModel

    Raises
    ------
    FileNotFoundError
        When the file of the package is missing.
    ValueError
        When the weights are unknown, or the file is damaged or holds another network.

    Examples
    --------
    >>> from skanomaly._networks.tiny import load_tiny
    >>> load_tiny("pretrained").metadata["licence"]
    'BSD-3-Clause'
    """
    return _load(weights_key(weights), os.fspath(weights))


@lru_cache(maxsize=4)
def _load(key: Hashable, weights: str) -> TinyModel:
    path = weight_file(weights)
    if path is not None:
        return _read(path)
    tensors = random_tensors(0)
    return TinyModel(network_of(tensors, _DILATIONS), digest_of(tensors), {})


def weight_file(weights: PathLike) -> Path | None:
    """The file that `weights` stands for; None for random ones.

    Parameters
    ----------
    weights : str or os.PathLike
        As for :func:`load_tiny`; or ``"pretrained@FILE"``, which a model file makes of the first
        where it brings its weights.

    Returns
    -------
    pathlib.Path or None
        That of the package may be missing.

    Raises
    ------
    ValueError
        When `weights` is nothing that is known, and no file.
    """
    tag, file = tag_and_file(weights)
    if tag == "random" and file is None:
        return None
    if tag == "pretrained":
        return WEIGHTS if file is None else file
    if not Path(weights).expanduser().is_file():
        raise ValueError(
            f"weights={os.fspath(weights)!r} is neither 'pretrained' nor 'random', nor an existing "
            "file"
        )
    return Path(weights).expanduser()


def _read(path: Path) -> TinyModel:
    """The network of a file, if its digest is right."""
    own = path == WEIGHTS
    advice = ": the package is damaged; install skanomaly again" if own else ""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing{advice}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if not {"dilations", "digest"} <= set(metadata):
                raise ValueError(
                    f"{path} does not say, as weights of this network do, what it holds"
                )
            names = list(file.keys())
            kinds = {file.get_slice(name).get_dtype() for name in names}
            if not kinds <= _KINDS:
                raise ValueError(
                    f"{path} does not hold weights of this network: its numbers are of the kinds "
                    f"{', '.join(sorted(kinds))}, in place of one of {', '.join(sorted(_KINDS))}"
                )
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as exc:
        raise ValueError(f"{path} is no readable safetensors file ({exc}){advice}") from exc
    digest = digest_of(tensors)
    if digest != metadata["digest"]:
        raise ValueError(
            f"{path} is damaged: the sha256 of its tensors is {digest[:12]}..., and it names "
            f"{metadata['digest'][:12]}...{advice}"
        )
    try:
        network = network_of(tensors, [int(d) for d in metadata["dilations"].split(",") if d])
        if len(network.stem) != len(_STEM):  # the grid is in proportion to these halvings
            raise ValueError(f"its stem has {len(network.stem)} layers in place of {len(_STEM)}")
    except ValueError as exc:
        raise ValueError(f"{path} does not hold weights of this network: {exc}") from exc
    return TinyModel(network, digest, metadata)


def digest_of(tensors: Mapping[str, np.ndarray]) -> str:
    """sha256 of tensors, whatever the file that they are in and its metadata.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Of one precision.

    Returns
    -------
    str
        In hexadecimal digits: of the name, the shape and the bytes of each, in the order of names.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._networks.tiny import digest_of
    >>> digest_of({"a": np.zeros(2), "b": np.ones(1)})[:12]
    '4838d19f4d2a'
    """
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(map(int, tensor.shape))}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def random_tensors(seed: int) -> dict[str, np.ndarray]:
    """Weights as before the training: of a scale that keeps the sizes of activations.

    Parameters
    ----------
    seed : int
        Of the random numbers.

    Returns
    -------
    dict of str to ndarray, float16
        As :func:`skanomaly.core.tiny_network.network_of` takes them.
    """
    random = np.random.RandomState(seed)  # whose numbers no version of NumPy changes
    tensors: dict[str, np.ndarray] = {}

    def add(name: str, side: int, n_inputs: int, n_outputs: int, gain: float = 1.0) -> int:
        scale = gain * np.sqrt(2 / (side * side * n_inputs))  # He et al., for rectified inputs
        weight = scale * random.standard_normal((side, side, n_inputs, n_outputs))
        tensors[f"{name}.weight"] = weight.astype(np.float16)
        tensors[f"{name}.bias"] = np.zeros(n_outputs, dtype=np.float16)
        return n_outputs

    width = 3
    for number, (side, channels) in enumerate(_STEM):
        width = add(f"stem.{number}", side, width, channels)
    for number in range(len(_DILATIONS)):
        add(f"body.{number}.reduce", 1, width, _INNER)
        add(f"body.{number}.spatial", 3, _INNER, _INNER)
        add(f"body.{number}.expand", 1, _INNER, width, gain=0.3)  # a small part of the sum
    add("head", 1, width, _DIM)
    tensors["head.weight"] = tensors["head.weight"][0, 0]
    return tensors


def torch_network(weights: PathLike, grid: int, device: str) -> Network:
    """The network for torch, and for the runtimes that are converted from there.

    Parameters
    ----------
    weights : str or os.PathLike
        As for :func:`load_tiny`.
    grid : {16, 32}
        As for :func:`skanomaly.core.tiny_network.tiny_tokens`.
    device : str
        Where it lies.

    Returns
    -------
    Network
        Its map has the tokens of `tiny_tokens`, up to the rounding of float32, for images whose
        sides are multiples of a patch.

    Raises
    ------
    ImportError
        When torch is not installed.
    FileNotFoundError, ValueError
        As from :func:`load_tiny`.
    """
    import_optional("torch", "torch", "this runtime of TinyPatches")
    tiny = load_tiny(weights)
    dilations = tiny.network.dilations  # no part of the digest

    def build() -> LoadedModel:
        module = _module(tiny.network).eval().requires_grad_(False).to(device)
        # Of values in [0, 1]: what the network sees is in [-2, 2].
        seen = Preprocessing((0.5,) * 3, (0.25,) * 3, INTERPOLATION, IMAGE_SIZE, cell=8)
        return LoadedModel(module, seen, reductions=(8,))

    return Network(
        name="the network of TinyPatches",
        model=load_once(("tiny", tiny.digest, *dilations, device), build),
        layers=(0,),
        forward=partial(_forward, grid=grid),
        fuse=_only,
        options={"model_name": "tiny", "grid": grid, "dilations": dilations},
        libraries=("torch",),
    )


def _module(network: TinyNetwork) -> Any:
    """Its layers as modules of torch, by the names of the tensors."""
    nn = import_optional("torch.nn", "torch", "this runtime of TinyPatches")
    layers = nn.Module()
    layers.stem = nn.ModuleList(map(_convolution, network.stem))
    layers.body = nn.ModuleList(nn.ModuleList(map(_convolution, block)) for block in network.body)
    layers.head = _convolution(network.head)
    return layers


def _convolution(layer: Convolution) -> Any:
    torch = import_optional("torch", "torch", "this runtime of TinyPatches")
    made = torch.nn.Conv2d(
        layer.n_inputs,
        layer.n_outputs,
        layer.side,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
    )
    weight = layer.weight.reshape(layer.side, layer.side, layer.n_inputs, layer.n_outputs)
    made.weight.data = torch.tensor(weight).permute(3, 2, 0, 1).contiguous()
    made.bias.data = torch.tensor(layer.bias)
    return made


def _forward(model: LoadedModel, x: torch.Tensor, grid: int) -> list[torch.Tensor]:
    """The one map of normalised images."""
    functional = import_optional("torch.nn.functional", "torch", "this runtime of TinyPatches")
    layers = model.module
    for layer in layers.stem:
        x = layer(x).relu()
    for reduce, spatial, expand in layers.body:
        x = (x + expand(spatial(reduce(x).relu()).relu())).relu()
    if grid == 16:
        x = functional.avg_pool2d(x, 2)
    else:
        x = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return [layers.head(x)]


def _only(maps: list[torch.Tensor]) -> torch.Tensor:
    return maps[0]
