"""Image towers of open_clip: their layers, their patches in the joint space, WinCLIP's windows."""

import copy
from types import SimpleNamespace

from skanomaly._optional import import_optional

# Tokens that go through a transformer at once where windows are embedded.
_WINDOW_TOKENS = 16384


def is_kind(module, name):
    """Whether a module is of the class of that name, or of one derived from it."""
    return any(cls.__name__ == name for cls in type(module).__mro__)


def reductions(visual):
    """Pixels of the image per cell of the grid, of each layer of a tower."""
    if is_kind(visual, "VisionTransformer"):
        return (int(visual.patch_size[0]),) * len(visual.transformer.resblocks)
    if is_kind(visual, "ModifiedResNet"):
        return 4, 4, 8, 16, 32
    info = visual.trunk.feature_info
    return tuple(int(layer["reduction"]) for layer in getattr(info, "info", info))


def family(visual):
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


def project(visual, tokens):
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
    return _PROJECTIONS[family(visual)](visual, tokens)


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


def final_normalisation(visual):
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


def intermediates(visual, x, layers, normalise, pooled=False):
    """Maps of layers of a tower, and the embedding of the image.

    Parameters
    ----------
    visual : torch.nn.Module
        Image tower for inputs of this size.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images.
    layers : list of int
        Layers, in ascending order.
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
        indices=layers,
        intermediates_only=not pooled,
        normalize_intermediates=normalise and getattr(visual, "attn_pool", None) is None,
        # In a ResNet of open_clip the flag means its opposite.
        stop_early=not (pooled or is_kind(visual, "ModifiedResNet")),
        output_fmt="NCHW",
    )
    maps = [m.permute(0, 2, 3, 1) for m in output["image_intermediates"]]
    return maps, output.get("image_features")


def value_tokens(visual, x, n_blocks):
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
    tokens = visual._embeds(x)
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


def has_value_attention(visual):
    """Whether :func:`value_tokens` serves this tower."""
    return is_kind(visual, "VisionTransformer") and all(
        is_kind(block, "ResidualAttentionBlock") for block in visual.transformer.resblocks
    )


def window_embeddings(visual, x, sizes):
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
    tokens = visual._embeds(x)
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
    per_pass = max(1, _WINDOW_TOKENS // (len(tokens) * int(members.shape[1])))
    pooled = []
    for part in members.split(per_pass):
        chosen = tokens[:, part].flatten(0, 1)  # (B * windows, 1 + size * size, dim)
        feature = visual._pool(visual.transformer(chosen))[0] @ visual.proj
        pooled.append(feature.unflatten(0, (len(tokens), len(part))))
    return torch.cat(pooled, dim=1)


def for_size(visual, height, width):
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
