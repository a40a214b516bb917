"""Attention and linear maps of a transformer, each in the ways of which one is fastest.

The door to torch's private operations: where a version lacks them, the ways that need them raise
AttributeError or RuntimeError and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from skanomaly._optional import import_optional
from skanomaly.core.choosing import choose

if TYPE_CHECKING:
    import torch

# Elements of scores that are computed at a time, which bounds the memory.
_SCORES = 2**23
# Tokens by which the ways are timed: that of these sizes which is nearest to the real one.
_FEWEST, _MOST = 2**4, 2**12
_ROWS = 2**10  # of the input by which linear maps are timed


def attention_by_head(qkv: torch.Tensor) -> torch.Tensor:
    """softmax(q @ k.T) @ v, one image and head after the other in one buffer.

    Parameters
    ----------
    qkv : torch.Tensor of shape (3, B, n_heads, n_tokens, head_dim)
        Queries, which are scaled, keys and values.

    Returns
    -------
    torch.Tensor of shape (B, n_tokens, n_heads, head_dim)
        In the precision of `qkv`, to which the weights are rounded too.
    """
    torch = _torch()
    qkv = qkv.contiguous()
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


def attention_fused(qkv: torch.Tensor) -> torch.Tensor:
    """The same by torch's `scaled_dot_product_attention`, which never writes the scores down."""
    functional = _torch().nn.functional
    return functional.scaled_dot_product_attention(*qkv, scale=1.0).transpose(1, 2)


def attention_batched(qkv: torch.Tensor) -> torch.Tensor:
    """The same by two products of all images and heads at once; takes memory for all scores."""
    torch = _torch()
    queries, keys, values = qkv.contiguous().flatten(1, 2)
    weights = torch.softmax(torch.bmm(queries, keys.transpose(1, 2)), -1)
    return torch.bmm(weights, values).unflatten(0, qkv.shape[1:3]).transpose(1, 2)


# In order of preference, see choosing.choose.
ATTENTIONS: Mapping[str, Callable[[Any], Any]] = {
    "by head": attention_by_head,
    "fused": attention_fused,
    "batched": attention_batched,
}


def choose_attention(n_tokens: int, n_heads: int, head_dim: int, dtype: torch.dtype) -> str:
    """The fastest attention on the CPU for one image.

    Parameters
    ----------
    n_tokens, n_heads, head_dim : int
        Of the image and the network. The time is that of a size near `n_tokens`, which does not
        depend on the images that came first, and of fewer heads where these take long.
    dtype : torch.dtype
        Of queries, keys and values.

    Returns
    -------
    str
        A name of `ATTENTIONS`.
    """
    torch = _torch()
    n = min(max(2 ** round(math.log2(n_tokens)), _FEWEST), _MOST)
    heads = min(n_heads, max(1, _SCORES // n**2))
    # As FastVit hands them over. No random numbers: those of the user would go on elsewhere.
    qkv = torch.full((1, n, 3, heads, head_dim), 0.1, dtype=dtype).permute(2, 0, 3, 1, 4)
    ways = dict(ATTENTIONS)
    if n_heads * n**2 > _SCORES:
        del ways["batched"]
    question = f"attention of {n} tokens, {n_heads} heads of {head_dim}, {_name(dtype)}"
    return choose(question, {name: partial(way, qkv) for name, way in ways.items()})


class LinearMap:
    """A linear map, its weights as they are, or packed for the processor once and for all.

    Both give the same bits.

    Parameters
    ----------
    weight : torch.Tensor of shape (n_out, n_in)
    bias : torch.Tensor of shape (n_out,) or None
    packed : bool
        By oneDNN: on a CPU alone.

    Raises
    ------
    RuntimeError, AttributeError
        When this torch, or this processor, cannot pack in that precision.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, packed: bool) -> None:
        self.weight, self.bias, self.packed = weight, bias, packed
        if packed:
            private = _torch().ops.mkldnn
            self.weight = private._reorder_linear_weight(weight, _ROWS)
            self._product = private._linear_pointwise

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(..., n_in) to (..., n_out), in the precision of the weights."""
        if self.packed:
            return self._product(x, self.weight, self.bias, "none", [], "")
        return _torch().nn.functional.linear(x, self.weight, self.bias)


def choose_packed(weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether maps of that size and precision are faster on the CPU with packed weights.

    Parameters
    ----------
    weight, bias
        Of a map of the network.

    Returns
    -------
    bool
    """
    torch = _torch()
    n_out, n_in = weight.shape
    x = torch.full((_ROWS, n_in), 0.1, dtype=weight.dtype)
    maps: dict[bool, LinearMap] = {}

    def run(packed: bool) -> None:
        if packed not in maps:
            maps[packed] = LinearMap(weight, bias, packed)
        maps[packed](x)

    question = f"linear maps of {n_in} to {n_out}, {_name(weight.dtype)}"
    # Packed weights save the work of bringing them into that form at each call.
    ways = {"packed": lambda: run(True), "plain": lambda: run(False)}
    return choose(question, ways) == "packed"


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def _torch():
    return import_optional("torch", "torch", "this embedder")
