"""Patches in the joint space of images and texts, by open_clip's image towers; WinCLIP's windows.

Seen in open_clip 3.0 to 3.3; `tests/_networks/test_doors.py` says which private name is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skanomaly._networks.openclip_towers import embed_own, is_kind
from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch

# Tokens that go through a transformer at once where windows are embedded.
_WINDOW_TOKENS = 16384


def family(visual: Any) -> str | None:
    """Name of the family of a tower, of those whose patches can be projected; else None."""
    if is_kind(visual, "VisionTransformer"):
        if visual.attn_pool is None:
            return "vit"
        return "coca" if visual.attn_pool_contrastive is None else None
    if is_kind(visual, "ModifiedResNet"):
        return "resnet"
    trunk = getattr(visual, "trunk", None)
    if trunk is None or hasattr(visual.head, "pool"):  # attention over a convolutional map
        return None
    if is_kind(trunk, "VisionTransformer") or is_kind(trunk, "Eva"):
        pool = trunk.attn_pool
        latent = is_kind(pool, "AttentionPoolLatent") and pool.pos_embed is None
        return "timm_vit" if pool is None or (latent and pool.latent_len == 1) else None
    if is_kind(trunk, "ConvNeXt"):
        return "convnext" if is_kind(trunk.head, "NormMlpClassifierHead") else None
    return "fastvit" if is_kind(trunk, "FastVit") else None


def project(visual: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Bring patch tokens into the joint space of images and texts.

    Parameters
    ----------
    visual : torch.nn.Module
        Image tower of a known family.
    tokens : torch.Tensor of shape (B, grid_h, grid_w, dim)
        Of a block of a transformer, or of the last stage; not normalised.

    Returns
    -------
    torch.Tensor of shape (B, grid_h, grid_w, joint_dim)
        What the tower makes of its pooled feature, applied to each patch. Where the tower pools by
        attention, each patch is pooled as if it were the only one.
    """
    return _PROJECTIONS[family(visual) or ""](visual, tokens)


def _project_vit(visual, tokens):
    return visual.ln_post(tokens) @ visual.proj


def _project_coca(visual, tokens):
    # Of one token alone every query makes the same: the softmax over one key is 1.
    pool = visual.attn_pool
    attn, functional = pool.attn, import_optional("torch", "clip", "a projection").nn.functional
    weight, dim = attn.v_proj_weight, attn.embed_dim
    if weight is None:
        weight = attn.in_proj_weight[2 * dim :]
    values = functional.linear(pool.ln_k(tokens), weight, attn.in_proj_bias[2 * dim :])
    return visual.ln_post(attn.out_proj(values)) @ visual.proj


def _project_resnet(visual, tokens):
    return visual.attnpool.c_proj(visual.attnpool.v_proj(tokens))


def _project_timm_vit(visual, tokens):
    trunk = visual.trunk
    tokens = trunk.norm(tokens)
    if trunk.attn_pool is not None:
        pool = trunk.attn_pool
        values = pool.kv(tokens)[..., tokens.shape[-1] :]  # the softmax over one key is 1
        tokens = pool.proj(values)
        if pool.mlp is not None:
            tokens = tokens + pool.mlp(pool.norm(tokens))
    return visual.head(trunk.head(trunk.fc_norm(tokens)))


def _project_convnext(visual, tokens):
    trunk = visual.trunk
    normed = trunk.head.norm(trunk.norm_pre(tokens.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    return visual.head(trunk.head.fc(trunk.head.pre_logits(normed)))


def _project_fastvit(visual, tokens):
    trunk = visual.trunk
    final = trunk.final_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return visual.head(trunk.head.fc(final))


_PROJECTIONS = {
    "vit": _project_vit,
    "coca": _project_coca,
    "resnet": _project_resnet,
    "timm_vit": _project_timm_vit,
    "convnext": _project_convnext,
    "fastvit": _project_fastvit,
}


def value_tokens(visual: Any, x: torch.Tensor, n_blocks: int) -> torch.Tensor:
    """Patch tokens whose last blocks attend by the likeness of values, as in CLIP Surgery.

    Parameters
    ----------
    visual : torch.nn.Module
        Vision transformer of open_clip, for inputs of this size.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images.
    n_blocks : int
        The last so many blocks.

    Returns
    -------
    torch.Tensor of shape (B, grid_h, grid_w, dim)
        Not normalised. Each of these blocks adds its attention with values in place of queries
        and keys, and no feed-forward network, to tokens that pass through them so; what they
        attend to are the tokens of the ordinary network.
    """
    blocks = visual.transformer.resblocks
    tokens = embed_own(visual, x)
    for block in blocks[:-n_blocks]:
        tokens = block(tokens)
    dense = tokens
    for number, block in enumerate(blocks[-n_blocks:], 1):
        dense = dense + block.ls_1(_value_attention(block.attn, block.ln_1(tokens)))
        if number < n_blocks:
            tokens = block(tokens)
    return dense[:, 1:].unflatten(1, visual.grid_size)


def _value_attention(attn, tokens):
    functional = import_optional("torch", "clip", "value attention").nn.functional
    dim, heads = attn.embed_dim, (attn.num_heads, attn.head_dim)
    values = functional.linear(tokens, attn.in_proj_weight[2 * dim :], attn.in_proj_bias[2 * dim :])
    values = values.unflatten(-1, heads).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(values, values, values)
    return attn.out_proj(mixed.transpose(1, 2).flatten(2))


def has_value_attention(visual: Any) -> bool:
    """Whether :func:`value_tokens` serves this tower."""
    return is_kind(visual, "VisionTransformer") and all(
        is_kind(block, "ResidualAttentionBlock") for block in visual.transformer.resblocks
    )


def window_embeddings(visual: Any, x: torch.Tensor, sizes: Sequence[int]) -> list[torch.Tensor]:
    """Embeddings of windows of patches in the joint space.

    Parameters
    ----------
    visual : torch.nn.Module
        Plain vision transformer of open_clip, for inputs of this size.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images.
    sizes : sequence of int
        Sides of the square windows, in patches.

    Returns
    -------
    list of torch.Tensor of shape (B, grid_h, grid_w, joint_dim)
        One for each size. A window goes through the transformer on its own: the class token and
        its patches, with their position embeddings. It stands at its top-left patch; patches at
        which none starts have the nearest one.
    """
    torch = import_optional("torch", "clip", "windows")
    rows, columns = visual.grid_size
    tokens = embed_own(visual, x)
    numbers = torch.arange(rows * columns, device=x.device).view(rows, columns)
    result = []
    for size in sizes:
        if size > min(rows, columns):
            raise ValueError(
                f"a window of {size}x{size} patches does not fit into a grid of {rows}x{columns}; "
                "raise image_size, or leave it out of windows"
            )
        # (windows, size * size) numbers of patches; the class token is number 0 of the tokens.
        patches = numbers.unfold(0, size, 1).unfold(1, size, 1).flatten(2).flatten(0, 1) + 1
        members = torch.cat([torch.zeros_like(patches[:, :1]), patches], dim=1)
        pooled = _encode_windows(visual, tokens, members)
        windows = pooled.unflatten(1, (rows - size + 1, columns - size + 1))
        at_row = torch.arange(rows, device=x.device).clamp(max=rows - size)
        at_column = torch.arange(columns, device=x.device).clamp(max=columns - size)
        result.append(windows[:, at_row][:, :, at_column])
    return result


def _encode_windows(visual, tokens, members):
    """(B, windows, joint_dim) pooled features of subsets of the tokens."""
    torch = import_optional("torch", "clip", "windows")
    if torch.compiler.is_compiling():  # for batches of any length: all of them at once
        per_pass = len(members)
    else:
        per_pass = max(1, _WINDOW_TOKENS // (len(tokens) * int(members.shape[1])))
    pooled = []
    for part in members.split(per_pass):
        chosen = tokens[:, part].flatten(0, 1)  # (B * windows, 1 + size * size, dim)
        # `_pool` is private: the final normalisation, and the pooled token.
        feature = visual._pool(visual.transformer(chosen))[0] @ visual.proj
        pooled.append(feature.unflatten(0, (-1, len(part))))
    return torch.cat(pooled, dim=1)
