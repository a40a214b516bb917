"""Inside open_clip's image towers: their layers, their sizes, what is plain among them.

Seen in open_clip 3.0 to 3.3; `tests/_networks/test_doors.py` says which private name is gone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from skanomaly._networks import timm_vit
from skanomaly._networks.fast_vit import PlainBlock, PlainVit
from skanomaly._networks.positions import resize_positions
from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch


def is_kind(module: Any, name: str) -> bool:
    """Whether a module is of the class of that name, or of one derived from it.

    By the name, for towers of open_clip and of timm: neither need be imported for the other.
    """
    return any(cls.__name__ == name for cls in type(module).__mro__)


def reductions(visual: Any) -> tuple[int, ...]:
    """Pixels of the image per cell of the grid, of each layer of a tower."""
    if is_kind(visual, "VisionTransformer"):
        return (int(visual.patch_size[0]),) * len(visual.transformer.resblocks)
    if is_kind(visual, "ModifiedResNet"):
        return 4, 4, 8, 16, 32
    info = visual.trunk.feature_info
    return tuple(int(layer["reduction"]) for layer in getattr(info, "info", info))


def transformer(visual: Any) -> Any:
    """The tower itself, or the network of timm in it."""
    return getattr(visual, "trunk", visual)


def plain_tower(visual: Any) -> PlainVit | None:
    """Parts of a plain vision transformer, of open_clip or of timm, for its fast form.

    Parameters
    ----------
    visual : torch.nn.Module
        Image tower.

    Returns
    -------
    PlainVit or None
        None for any other tower.
    """
    if not _is_open_clip_vit(visual):
        return timm_vit.plain_vit(transformer(visual))
    attention = import_optional("torch", "torch", "an image tower").nn.MultiheadAttention
    blocks = visual.transformer.resblocks
    if all(is_residual_block(b) and type(b.attn) is attention for b in blocks):
        return PlainVit(tuple(_parts(block) for block in blocks), n_prefix=1)
    return None


def _is_open_clip_vit(visual: Any) -> bool:
    # By its name: timm has a class of the same name.
    place = type(visual).__module__, type(visual).__name__
    return place == ("open_clip.transformer", "VisionTransformer")


def is_residual_block(block: Any) -> bool:
    """Whether it is open_clip's standard block, and none derived from it."""
    return type(block).__name__ == "ResidualAttentionBlock"


def _parts(block: Any) -> PlainBlock:
    fc1, act, fc2 = block.mlp
    return PlainBlock(
        n_heads=block.attn.num_heads,
        norm1=block.ln_1,
        qkv=(block.attn.in_proj_weight, block.attn.in_proj_bias),
        proj=block.attn.out_proj,
        scale1=getattr(block.ls_1, "gamma", None),
        norm2=block.ln_2,
        fc1=fc1,
        act=act,
        fc2=fc2,
        scale2=getattr(block.ls_2, "gamma", None),
    )


def embed_patches(visual: Any, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """What enters the first block of a plain tower, and the grid of its patches.

    Parameters
    ----------
    visual : torch.nn.Module
        For which :func:`plain_tower` gives parts, for inputs of this size.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images.

    Returns
    -------
    tokens : torch.Tensor of shape (B, n_tokens, dim)
    grid : tuple of int
    """
    if _is_open_clip_vit(visual):
        return embed_own(visual, x), visual.grid_size
    return timm_vit.embed_patches(transformer(visual), x)


def embed_own(visual: Any, x: torch.Tensor) -> torch.Tensor:
    """What enters the first block of open_clip's own transformer; `_embeds` is private there."""
    return visual._embeds(x)


def final_normalisation(visual: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """What brings tokens of a block of a transformer to the scale of the last.

    Parameters
    ----------
    visual : torch.nn.Module
        Image tower that is a vision transformer, of open_clip or of timm.

    Returns
    -------
    callable
        Its final normalisation. That of CoCa comes after its pooling, and is not for patches.
    """
    if not is_kind(visual, "VisionTransformer"):
        return visual.trunk.norm
    return visual.ln_post if visual.attn_pool is None else lambda tokens: tokens


def intermediates(
    visual: Any, x: torch.Tensor, layers: Sequence[int], normalise: bool, pooled: bool = False
) -> tuple[list[torch.Tensor], Any]:
    """Maps of layers of a tower, and the embedding of the image.

    Parameters
    ----------
    visual : torch.nn.Module
        Image tower for inputs of this size.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images.
    layers : sequence of int
        In ascending order.
    normalise : bool
        Whether the blocks of a transformer pass through its final normalisation, where it has one
        for patches: that of CoCa comes after the pooling.
    pooled : bool, default=False
        Whether to embed the image too, for which the tower runs to its end.

    Returns
    -------
    maps : list of torch.Tensor of shape (B, grid_h, grid_w, dim)
    image : torch.Tensor of shape (B, joint_dim), or None without `pooled`
    """
    output = visual.forward_intermediates(
        x,
        indices=list(layers),
        intermediates_only=not pooled,
        normalize_intermediates=normalise and getattr(visual, "attn_pool", None) is None,
        # In a ResNet of open_clip the flag means its opposite.
        stop_early=not (pooled or is_kind(visual, "ModifiedResNet")),
        output_fmt="NCHW",
    )
    maps = [m.permute(0, 2, 3, 1) for m in output["image_intermediates"]]
    return maps, output.get("image_features")


def for_size(visual: Any, height: int, width: int) -> Any:
    """A tower for inputs of another size, which shares all weights but the position embedding.

    That is interpolated as by open_clip's ``force_image_size``. A convolutional tower takes every
    size as it is.
    """
    torch = import_optional("torch", "clip", "another image size")
    trunk = getattr(visual, "trunk", None)
    resizable = is_kind(visual, "VisionTransformer") or hasattr(trunk, "set_input_size")
    if not resizable:
        if not any(getattr(module, "strict_img_size", False) for module in visual.modules()):
            return visual
        raise ValueError(
            f"the tower {type(trunk).__name__} takes images of {visual.image_size} pixels only; "
            "leave image_size=None and resize='squash'"
        )
    sized = copy.deepcopy(visual, {id(weight): weight for weight in visual.parameters()})
    if trunk is not None:
        sized.set_input_size((height, width))
        resize_positions(trunk, sized.trunk)
        return sized.requires_grad_(False)
    resize = import_optional("open_clip.model", "clip", "another image size").resize_pos_embed
    sized.image_size = (height, width)
    sized.grid_size = (height // sized.patch_size[0], width // sized.patch_size[1])
    embedding = visual.positional_embedding
    state = {"visual.positional_embedding": embedding.float()}
    resize(state, SimpleNamespace(visual=sized))
    resized = state["visual.positional_embedding"].to(embedding.dtype)
    sized.positional_embedding = torch.nn.Parameter(resized, requires_grad=False)
    return sized
