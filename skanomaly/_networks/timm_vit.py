"""Inside timm's vision transformers: what is plain, what enters the first block.

Seen in timm 1.0.20 to 1.0.31; `tests/_networks/test_doors.py` says which private name is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skanomaly._networks.fast_vit import PlainBlock, PlainVit
from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch

_USER = "a vision transformer"


def plain_vit(module: Any) -> PlainVit | None:
    """Parts of a plain vision transformer, from which its fast form is made.

    Parameters
    ----------
    module : torch.nn.Module
        Any.

    Returns
    -------
    PlainVit or None
        None unless it is timm's ``VisionTransformer`` of standard blocks: softmax attention
        without normalised queries and keys, an MLP of two linear maps, with or without class
        token, registers and layer scale.
    """
    if not _is_plain(module):
        return None
    return PlainVit(tuple(_parts(block) for block in module.blocks), module.num_prefix_tokens)


def _is_plain(module: Any) -> bool:
    nn = import_optional("torch", "torch", _USER).nn
    vit = import_optional("timm.models.vision_transformer", "torch", _USER)
    layers = import_optional("timm.layers", "torch", _USER)
    idle = (nn.Identity, nn.Dropout, layers.DropPath)

    def only(part: Any, *names: str) -> bool:
        """Whether nothing but these children of a module does anything in inference."""
        return all(name in names or type(m) in idle for name, m in part.named_children())

    return (
        type(module) is vit.VisionTransformer
        and type(module.patch_embed) is layers.PatchEmbed
        and type(module.patch_drop) is nn.Identity
        and all(
            type(block) is vit.Block
            and only(block, "norm1", "attn", "ls1", "norm2", "mlp", "ls2")
            and isinstance(block.norm1, nn.LayerNorm)
            and isinstance(block.norm2, nn.LayerNorm)
            and type(block.attn) is layers.Attention
            and only(block.attn, "qkv", "proj")
            and type(block.mlp) is layers.Mlp
            and only(block.mlp, "fc1", "act", "fc2")
            and not isinstance(block.mlp.fc1, nn.Conv2d)
            and all(type(ls) in (nn.Identity, vit.LayerScale) for ls in (block.ls1, block.ls2))
            for block in module.blocks
        )
    )


def _parts(block: Any) -> PlainBlock:
    return PlainBlock(
        n_heads=block.attn.num_heads,
        norm1=block.norm1,
        qkv=(block.attn.qkv.weight, block.attn.qkv.bias),
        proj=block.attn.proj,
        scale1=getattr(block.ls1, "gamma", None),
        norm2=block.norm2,
        fc1=block.mlp.fc1,
        act=block.mlp.act,
        fc2=block.mlp.fc2,
        scale2=getattr(block.ls2, "gamma", None),
    )


def embed_patches(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """What enters the first block of a plain transformer, and the grid of its patches.

    Parameters
    ----------
    module : torch.nn.Module
        For which :func:`plain_vit` gives parts, and which takes inputs of this size.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images.

    Returns
    -------
    tokens : torch.Tensor of shape (B, n_tokens, dim)
    grid : tuple of int
    """
    # `_pos_embed` is private: it adds the position embedding, class token and registers.
    tokens = module.norm_pre(module._pos_embed(module.patch_embed(x)))
    return tokens, module.patch_embed.dynamic_feat_size(x.shape[-2:])
