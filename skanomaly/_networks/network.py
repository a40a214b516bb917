"""A pretrained network as a value: what runs it and what converts it need nothing else."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from skanomaly._optional import import_optional
from skanomaly._parameters import is_integer

if TYPE_CHECKING:
    import torch

    from skanomaly._networks.fast_vit import FastVit, PlainVit

MAX_DERIVED = 4  # forms of one model: other precisions, compiled for other sizes
_lock = threading.RLock()


@dataclass(frozen=True)
class Preprocessing:
    """What an image goes through before a network sees it.

    Attributes
    ----------
    mean, std : tuple of float
        Of RGB values in [0, 1].
    interpolation : str
        Resampling filter.
    image_size : int
        Side of the square that the network was trained on, in pixels.
    cell : int
        Sides of an input must be multiples of this, in pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    image_size: int
    cell: int

    def normalise(self, images: np.ndarray, device: torch.device) -> torch.Tensor:
        """The input of a network.

        Parameters
        ----------
        images : ndarray of shape (B, height, width, 3), uint8 or float32 in [0, 1]
            Images of one size.
        device : torch.device
            Where the network is.

        Returns
        -------
        torch.Tensor of shape (B, 3, height, width), float32
            On the device.
        """
        torch = import_optional("torch", "torch", "this embedder")

        def moved(tensor: Any) -> Any:
            if device.type == "cuda":  # from pinned memory, a copy to the GPU is not waited for
                tensor = tensor.pin_memory()
            return tensor.to(device, non_blocking=True)

        # Row by row, whose numbers lie side by side: faster than colour by colour.
        width = images.shape[2]
        x = moved(torch.from_numpy(images)).flatten(2)
        x = x.float().div_(255) if images.dtype == np.uint8 else x.float()
        mean, std = (moved(torch.tensor(values).repeat(width)) for values in (self.mean, self.std))
        return (x - mean).div_(std).unflatten(2, (width, 3)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class LoadedModel:
    """A model with its weights. Networks of other layers or options share one.

    Attributes
    ----------
    module : torch.nn.Module
        On its device, in its dtype, in evaluation mode.
    preprocessing : Preprocessing
        As it was trained.
    reductions : tuple of int
        Pixels of the image per cell of the grid, of each layer.
    plain_vit : PlainVit or None
        Parts of its fast form; None unless it is a plain vision transformer.
    positions : torch.Tensor or None
        The position embedding as it was before it was brought to another grid; None where it was
        not.
    """

    module: Any
    preprocessing: Preprocessing
    reductions: tuple[int, ...]
    plain_vit: PlainVit | None = None
    positions: torch.Tensor | None = None

    @property
    def hierarchical(self) -> bool:
        """Whether its layers have grids of different sizes (convolutional networks, Swin)."""
        return len(set(self.reductions)) > 1

    @property
    def has_class_token(self) -> bool:
        """Whether it is a transformer of timm, or of DINOv2's own code, with a class token."""
        return not self.hierarchical and getattr(self.module, "cls_token", None) is not None

    def sized(self, height: int, width: int) -> Any:
        """The module for inputs of that size in pixels."""
        return self.module

    @cached_property
    def digest(self) -> str:
        """sha256 of the weights.

        Of positions that were brought to another grid those before: to interpolate gives other
        last bits on another kind of processor, and the size stands beside the digest.
        """
        torch = import_optional("torch", "torch", "a pretrained model")
        digest, state = sha256(), self.module.state_dict()
        if self.positions is not None:
            state["pos_embed"] = self.positions
        for name, tensor in sorted(state.items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def derived(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """What is made of the model for one way of running it, built at first use.

        It lives as long as the model; of more than `MAX_DERIVED` the least recently used go.

        Parameters
        ----------
        key : hashable
            Tells it from the others.
        build : callable
            Builds it, under a lock.
        """
        with _lock:
            if key not in self._derived:
                self._derived[key] = build()
            self._derived.move_to_end(key)
            while len(self._derived) > MAX_DERIVED:
                self._derived.popitem(last=False)
            return self._derived[key]

    def made(self, key: Hashable) -> Any:
        """What `derived` built under that key, None where it has not."""
        with _lock:
            return self._derived.get(key)

    @cached_property
    def _derived(self) -> OrderedDict[Hashable, Any]:
        return OrderedDict()


@dataclass(frozen=True)
class Network:
    """A model, and which tokens it is to give.

    An embedder builds one from its parameters. Runtimes and conversions take it, and never ask
    the embedder again.

    Attributes
    ----------
    name : str
        For messages.
    model : LoadedModel
        In float32.
    layers : tuple of int
        Layers that are wanted, in ascending order.
    forward : callable
        ``forward(model, x)`` takes the model, or a copy of it in another precision, and a
        (B, 3, height, width) tensor in that precision. It gives a list of (B, dim, grid_h, grid_w)
        maps: one for each layer, and what else `fuse` needs.
    fuse : callable
        From the float32 maps to one (B, dim, grid_h, grid_w) map.
    fast_forward : callable or None
        ``fast_forward(model, fast, x)`` gives the maps of `forward` in float32 by a
        :class:`~skanomaly._networks.fast_vit.FastVit`; None where there is no such form.
    options : mapping
        What the maps depend on besides weights and layers: plain values by name.
    libraries : tuple of str
        Modules whose versions a conversion depends on.
    """

    name: str
    model: LoadedModel
    layers: tuple[int, ...]
    forward: Callable[[LoadedModel, torch.Tensor], list[torch.Tensor]]
    fuse: Callable[[list[torch.Tensor]], torch.Tensor]
    fast_forward: Callable[[LoadedModel, FastVit, torch.Tensor], list[torch.Tensor]] | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    libraries: tuple[str, ...] = ("torch", "timm")

    @property
    def preprocessing(self) -> Preprocessing:
        """That of the model."""
        return self.model.preprocessing

    def fingerprint(self) -> dict[str, object]:
        """What the maps depend on, but for their precision: plain values by name."""
        return {"weights": self.model.digest, "layers": list(self.layers), **self.options}

    def versions(self) -> dict[str, str]:
        """Version of each library that a conversion depends on."""
        return {
            name: import_optional(name, "torch", "a conversion").__version__
            for name in self.libraries
        }


def layer_numbers(
    layers: int | Sequence[int] | None, count: int, default: Sequence[int], name: str
) -> tuple[int, ...]:
    """Layers as ascending, unique, non-negative numbers.

    Parameters
    ----------
    layers : int, sequence of int or None
        As given to an embedder; negative numbers count from the last.
    count : int
        How many layers the model has.
    default : sequence of int
        What None stands for.
    name : str
        Of the model, for the message.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        When there is no layer of that number, or none at all is wanted.
    """
    if layers is None:
        return tuple(default)
    numbers: list[Any] = list(layers) if isinstance(layers, Iterable) else [layers]
    if not numbers or not all(is_integer(i) and -count <= i < count for i in numbers):
        raise ValueError(f"layers={layers!r}: {name} has layers 0 to {count - 1}")
    return tuple(sorted({int(i) % count for i in numbers}))


def patchcore_stages(reductions: Sequence[int]) -> list[int]:
    """Numbers of the layers at 1/8 and 1/16 of the image, as in PatchCore."""
    return [number for number, step in enumerate(reductions) if step in (8, 16)]
