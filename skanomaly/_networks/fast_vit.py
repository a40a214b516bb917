"""Plain vision transformers in reduced precision, faster than by their own forward pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skanomaly._networks.kernels import ATTENTIONS, LinearMap, choose_attention, choose_packed
from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Ways:
    """How the blocks are computed on a CPU; None for the way that is measured to be fastest.

    Attributes
    ----------
    attention : str or None
        A name of :data:`~skanomaly._networks.kernels.ATTENTIONS`.
    packed : bool or None
        Whether the weights of linear maps are packed.
    """

    attention: str | None = None
    packed: bool | None = None


@dataclass(frozen=True)
class PlainBlock:
    """Parts of one block of a plain vision transformer, as its library built them.

    Attributes
    ----------
    n_heads : int
        Of the attention.
    norm1, norm2 : torch.nn.LayerNorm
        Before the attention, and before the MLP.
    qkv : tuple of (torch.Tensor, torch.Tensor or None)
        Weight and bias of queries, keys and values, in this order along the rows.
    proj, fc1, fc2 : torch.nn.Linear
        After the attention, and of the MLP.
    act : torch.nn.Module
        Activation of the MLP.
    scale1, scale2 : torch.Tensor or None
        Layer scales of the attention and of the MLP.
    """

    n_heads: int
    norm1: Any
    qkv: tuple[Any, Any]
    proj: Any
    scale1: Any
    norm2: Any
    fc1: Any
    act: Any
    fc2: Any
    scale2: Any


@dataclass(frozen=True)
class PlainVit:
    """A plain vision transformer: softmax attention, and an MLP of two linear maps.

    Attributes
    ----------
    blocks : tuple of PlainBlock
        In their order.
    n_prefix : int
        Tokens before those of the patches: the class token and registers.
    """

    blocks: tuple[PlainBlock, ...]
    n_prefix: int


_MEASURED = Ways()
_SIZES = 16  # of images, for which FastVit.once keeps what it made


class FastVit:
    """The blocks of a plain vision transformer in reduced precision.

    The residual stream and the normalisations stay in float32; the matrix products take the
    reduced precision. The scale of the attention and the layer scales are folded into the
    weights. On a CPU there are several ways to the attention and the linear maps, of which no one
    is the fastest on each processor: they are timed at first use.

    Parameters
    ----------
    vit : PlainVit
        In float32, on its device. Its weights are copied.
    dtype : torch.dtype
        ``torch.bfloat16`` or ``torch.float16``.
    ways : Ways
        On a CPU.

    Notes
    -----
    Packing changes no bit. The ways to the attention round differently: tokens differ by less than
    those of reduced precision differ from those in float32. One process stays with its choice, and
    all that share a `cache_dir` make the same.
    """

    def __init__(self, vit: PlainVit, dtype: torch.dtype, ways: Ways = _MEASURED) -> None:
        self.dtype = dtype
        self.n_prefix = vit.n_prefix
        self.attention = ways.attention
        weight = vit.blocks[0].fc1.weight
        self.on_cpu = weight.device.type == "cpu"
        packed = ways.packed
        if packed is None:
            packed = self.on_cpu and choose_packed(weight.detach().to(dtype), None)
        self.packed = packed
        self.blocks = [_FastBlock(block, dtype, packed) for block in vit.blocks]
        self._kept: dict[Hashable, torch.Tensor] = {}
        self.manner = ""  # how the last images were computed, for a person

    def __call__(
        self,
        tokens: torch.Tensor,
        grid: tuple[int, int],
        layers: Sequence[int],
        finish: Callable[[torch.Tensor], torch.Tensor],
        class_token: bool = False,
    ) -> list[torch.Tensor]:
        """Feature maps of some layers.

        Parameters
        ----------
        tokens : torch.Tensor of shape (B, n_tokens, dim), float32
            What enters the first block.
        grid : tuple of int
            ``(grid_h, grid_w)`` of the patches among them, which come last.
        layers : sequence of int
            Numbers of blocks, in ascending order.
        finish : callable
            What the patches of a layer pass through at last, such as the final normalisation: from
            (B, n_tokens, dim) to the same, or to another `dim`.
        class_token : bool, default=False
            Whether the first token of the last block is wanted too.

        Returns
        -------
        list of torch.Tensor of shape (B, dim, grid_h, grid_w), float32
            One for each layer; at last, of one cell, that of the class token.
        """
        maps, attention = [], self._attention(tokens.shape[1])
        for number, block in enumerate(self.blocks[: None if class_token else layers[-1] + 1]):
            tokens = block(tokens, self.dtype, attention)
            if number in layers:
                patches = finish(tokens)[:, self.n_prefix :]
                maps.append(patches.transpose(1, 2).unflatten(2, grid))
        if class_token:
            maps.append(finish(tokens)[:, 0, :, None, None])
        return maps

    def once(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What depends on the size of images alone, made at its first use and kept for some sizes.

        Parameters
        ----------
        key : hashable
            The size.
        make : callable
            Makes it.
        """
        kept = self._kept.get(key)
        if kept is None:
            kept = make()
            if len(self._kept) >= _SIZES:
                self._kept.clear()
            self._kept[key] = kept
        return kept

    def _attention(self, n_tokens):
        """The function from queries, keys and values to attended values."""
        name = "fused"
        if self.on_cpu:
            block = self.blocks[0]
            name = self.attention or choose_attention(
                n_tokens, block.n_heads, block.head_dim, self.dtype
            )
            self.manner = f"attention {name}, {'packed' if self.packed else 'plain'} maps"
        return ATTENTIONS[name]


class _FastBlock:
    def __init__(self, block: PlainBlock, dtype: torch.dtype, packed: bool) -> None:
        torch = import_optional("torch", "torch", "this embedder")
        # The product of queries and keys is scaled by scaling the queries' third of the rows.
        weight = block.qkv[0]
        scale = torch.ones(len(weight), device=weight.device)
        self.n_heads, self.act = block.n_heads, block.act
        self.head_dim = len(weight) // 3 // block.n_heads
        scale[: len(weight) // 3] = self.head_dim**-0.5
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.qkv = _scaled(*block.qkv, scale, dtype, packed)
        self.proj = _scaled(block.proj.weight, block.proj.bias, block.scale1, dtype, packed)
        self.fc1 = _scaled(block.fc1.weight, block.fc1.bias, None, dtype, packed)
        self.fc2 = _scaled(block.fc2.weight, block.fc2.bias, block.scale2, dtype, packed)

    def __call__(
        self,
        tokens: torch.Tensor,
        dtype: torch.dtype,
        attention: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        qkv = self.qkv(self.norm1(tokens).to(dtype))
        qkv = qkv.unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        tokens = tokens + self.proj(attention(qkv).flatten(2))
        hidden = self.act(self.fc1(self.norm2(tokens).to(dtype)))
        return tokens.add_(self.fc2(hidden))


def _scaled(weight, bias, factors, dtype, packed):
    """A linear map whose outputs are scaled, in the reduced precision."""
    weight = weight.detach()
    if factors is not None:
        weight = weight * factors.detach()[:, None]
        bias = None if bias is None else bias * factors
    bias = None if bias is None else bias.detach().to(dtype)
    return LinearMap(weight.to(dtype), bias, packed)
