"""Plain vision transformers in reduced precision, faster than by their own forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch

# Rows of the score matrix are computed so many elements at a time, which bounds the memory.
_SCORES = 2**23


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


class FastVit:
    """The blocks of a plain vision transformer in reduced precision.

    The residual stream and the normalisations stay in float32; the matrix products take the
    reduced precision. The scale of the attention and the layer scales are folded into the
    weights. On a CPU the attention runs head by head in one buffer that stays in the processor's
    cache: torch's own attention takes twice as long there.

    Parameters
    ----------
    vit : PlainVit
        In float32, on its device. Its weights are copied.
    dtype : torch.dtype
        ``torch.bfloat16`` or ``torch.float16``.
    """

    def __init__(self, vit: PlainVit, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.n_prefix = vit.n_prefix
        self.blocks = [_FastBlock(block, dtype) for block in vit.blocks]

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
        maps = []
        for number, block in enumerate(self.blocks[: None if class_token else layers[-1] + 1]):
            tokens = block(tokens, self.dtype)
            if number in layers:
                patches = finish(tokens)[:, self.n_prefix :]
                maps.append(patches.transpose(1, 2).unflatten(2, grid))
        if class_token:
            maps.append(finish(tokens)[:, 0, :, None, None])
        return maps


class _FastBlock:
    def __init__(self, block: PlainBlock, dtype: torch.dtype) -> None:
        torch = import_optional("torch", "torch", "this embedder")
        # The product of queries and keys is scaled by scaling the queries' third of the rows.
        weight = block.qkv[0]
        scale = torch.ones(len(weight), device=weight.device)
        scale[: len(scale) // 3] = (len(scale) // 3 // block.n_heads) ** -0.5
        self.n_heads, self.act = block.n_heads, block.act
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.qkv = _scaled(*block.qkv, scale, dtype)
        self.proj = _scaled(block.proj.weight, block.proj.bias, block.scale1, dtype)
        self.fc1 = _scaled(block.fc1.weight, block.fc1.bias, None, dtype)
        self.fc2 = _scaled(block.fc2.weight, block.fc2.bias, block.scale2, dtype)

    def __call__(self, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        functional = import_optional("torch", "torch", "this embedder").nn.functional
        qkv = functional.linear(self.norm1(tokens).to(dtype), *self.qkv)
        qkv = qkv.unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if qkv.device.type == "cpu":
            attended = _attention_by_head(qkv.contiguous())
        else:
            attended = functional.scaled_dot_product_attention(*qkv, scale=1.0).transpose(1, 2)
        tokens = tokens + functional.linear(attended.flatten(2), *self.proj)
        hidden = self.act(functional.linear(self.norm2(tokens).to(dtype), *self.fc1))
        return tokens.add_(functional.linear(hidden, *self.fc2))


def _scaled(weight, bias, factors, dtype):
    """Weight and bias of a linear map whose outputs are scaled, in the reduced precision."""
    weight = weight.detach()
    if factors is not None:
        weight = weight * factors.detach()[:, None]
        bias = None if bias is None else bias * factors
    return weight.to(dtype), None if bias is None else bias.detach().to(dtype)


def _attention_by_head(qkv):
    """softmax(q @ k.T) @ v of each image and head: (B, n_tokens, n_heads, head_dim)."""
    torch = import_optional("torch", "torch", "this embedder")
    _, n_images, n_heads, n_tokens, head_dim = qkv.shape
    out = qkv.new_empty(n_images, n_tokens, n_heads, head_dim)
    step = max(1, min(n_tokens, _SCORES // n_tokens))
    buffer = qkv.new_empty(step, n_tokens)
    for image in range(n_images):
        for head in range(n_heads):
            queries, keys, values = qkv[:, image, head]
            for start in range(0, n_tokens, step):
                rows = slice(start, start + step)
                scores = buffer[: len(queries[rows])]
                torch.mm(queries[rows], keys.T, out=scores)
                torch.softmax(scores, -1, out=scores)
                out[image, rows, head] = torch.mm(scores, values)
    return out
