"""Plain vision transformers in reduced precision, faster than by their own forward pass."""

from skanomaly._optional import import_optional

# Rows of the score matrix are computed so many elements at a time, which bounds the memory.
_SCORES = 2**23


def is_plain_vit(module):
    """Whether :class:`FastVit` computes what the module does.

    Parameters
    ----------
    module : torch.nn.Module
        Any.

    Returns
    -------
    bool
        True for the ``VisionTransformer`` of timm and of open_clip, of standard blocks: softmax
        attention without normalised queries and keys, an MLP of two linear maps, with or without
        class token, registers and layer scale.
    """
    nn = import_optional("torch", "torch", "this embedder").nn
    if _is_open_clip(module):
        return all(
            type(block).__name__ == "ResidualAttentionBlock"
            and type(block.attn) is nn.MultiheadAttention
            for block in module.transformer.resblocks
        )
    vit = import_optional("timm.models.vision_transformer", "torch", "this embedder")
    layers = import_optional("timm.layers", "torch", "this embedder")
    idle = (nn.Identity, nn.Dropout, layers.DropPath)

    def only(part, *names):
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


def _is_open_clip(module):
    # By its name: with other models open_clip need not be installed.
    return (type(module).__module__, type(module).__name__) == (
        "open_clip.transformer",
        "VisionTransformer",
    )


def embed_patches(module, x):
    """What enters the first block of a plain transformer, and the grid of its patches.

    Parameters
    ----------
    module : torch.nn.Module
        For which :func:`is_plain_vit` holds, and which takes inputs of this size.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images.

    Returns
    -------
    tokens : torch.Tensor of shape (B, n_tokens, dim)
    grid : tuple of int
    """
    if _is_open_clip(module):
        return module._embeds(x), module.grid_size
    tokens = module.norm_pre(module._pos_embed(module.patch_embed(x)))
    return tokens, module.patch_embed.dynamic_feat_size(x.shape[-2:])


class FastVit:
    """The blocks of a plain vision transformer in reduced precision.

    The residual stream and the normalisations stay in float32; the matrix products take the
    reduced precision. The scale of the attention and the layer scales are folded into the
    weights. On a CPU the attention runs head by head in one buffer that stays in the processor's
    cache: torch's own attention takes twice as long there.

    Parameters
    ----------
    module : torch.nn.Module
        For which :func:`is_plain_vit` holds, in float32, on its device. Its weights are copied.
    dtype : torch.dtype
        ``torch.bfloat16`` or ``torch.float16``.
    """

    def __init__(self, module, dtype):
        self.dtype = dtype
        if _is_open_clip(module):
            self.n_prefix, parts = 1, map(_parts_of_open_clip, module.transformer.resblocks)
        else:
            self.n_prefix, parts = module.num_prefix_tokens, map(_parts_of_timm, module.blocks)
        self.blocks = [_Block(*part, dtype) for part in parts]

    def __call__(self, tokens, grid, layers, finish):
        """Feature maps of some layers.

        Parameters
        ----------
        tokens : torch.Tensor of shape (B, n_tokens, dim), float32
            What enters the first block.
        grid : tuple of int
            ``(grid_h, grid_w)`` of the patches among them, which come last.
        layers : list of int
            Numbers of blocks, in ascending order.
        finish : callable
            What the patches of a layer pass through at last, such as the final normalisation: from
            (B, n_tokens, dim) to the same, or to another `dim`.

        Returns
        -------
        list of torch.Tensor of shape (B, dim, grid_h, grid_w), float32
            One for each layer.
        """
        maps = []
        for number, block in enumerate(self.blocks[: layers[-1] + 1]):
            tokens = block(tokens, self.dtype)
            if number in layers:
                patches = finish(tokens)[:, self.n_prefix :]
                maps.append(patches.transpose(1, 2).unflatten(2, grid))
        return maps


def _parts_of_timm(block):
    qkv, mlp = (block.attn.qkv.weight, block.attn.qkv.bias), block.mlp
    attention = (block.attn.num_heads, block.norm1, qkv, block.attn.proj, block.ls1)
    return *attention, block.norm2, mlp.fc1, mlp.act, mlp.fc2, block.ls2


def _parts_of_open_clip(block):
    qkv = block.attn.in_proj_weight, block.attn.in_proj_bias
    attention = (block.attn.num_heads, block.ln_1, qkv, block.attn.out_proj, block.ls_1)
    return *attention, block.ln_2, *block.mlp, block.ls_2


class _Block:
    def __init__(self, n_heads, norm1, qkv, proj, ls1, norm2, fc1, act, fc2, ls2, dtype):
        torch = import_optional("torch", "torch", "this embedder")
        # The product of queries and keys is scaled by scaling the queries' third of the rows.
        weight = qkv[0]
        scale = torch.ones(len(weight), device=weight.device)
        scale[: len(scale) // 3] = (len(scale) // 3 // n_heads) ** -0.5
        self.n_heads, self.act, self.norm1, self.norm2 = n_heads, act, norm1, norm2
        self.qkv = _scaled(*qkv, scale, dtype)
        self.proj = _scaled(proj.weight, proj.bias, getattr(ls1, "gamma", None), dtype)
        self.fc1 = _scaled(fc1.weight, fc1.bias, None, dtype)
        self.fc2 = _scaled(fc2.weight, fc2.bias, getattr(ls2, "gamma", None), dtype)

    def __call__(self, tokens, dtype):
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
