"""DINOv2 and DINOv3: their names, their rule for position embeddings, the official code."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from skanomaly._networks.fast_vit import FastVit
from skanomaly._networks.loading import load_once
from skanomaly._networks.network import LoadedModel, Preprocessing
from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch

# The code that torch.hub runs is that of this commit, whatever its branch becomes.
HUB_REPOSITORY = "facebookresearch/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"

_USER = "DinoV2Patches"
_OFFICIAL_PREPROCESSING = Preprocessing(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    interpolation="bicubic",
    image_size=518,
    cell=14,
)
_SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
_SIZES_V3 = {
    "s": "small",
    "splus": "small_plus",
    "b": "base",
    "l": "large",
    "hplus": "huge_plus",
    "7b": "7b",
}


def timm_name(model_name: str) -> str:
    """Name that timm has for a model.

    Parameters
    ----------
    model_name : str
        As its authors call it.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        When it is none of DINOv2 or DINOv3.
    """
    match = re.fullmatch(r"dinov2_vit([sblg])14(_reg)?", model_name)
    if match:
        registers = "_reg4" if match[2] else ""
        return f"vit_{_SIZES[match[1]]}_patch14{registers}_dinov2"
    match = re.fullmatch(r"dinov3_vit(s|splus|b|l|hplus|7b)16", model_name)
    if match:
        return f"vit_{_SIZES_V3[match[1]]}_patch16_dinov3"
    raise ValueError(
        f"model_name={model_name!r} is not one of dinov2_vit{{s,b,l,g}}14, "
        "dinov2_vit{s,b,l,g}14_reg, dinov3_vit{s,splus,b,l,hplus,7b}16"
    )


def has_official_rule(model_name: str) -> bool:
    """Whether the position embedding of a model is not interpolated as by timm."""
    return re.fullmatch(r"dinov2_vit[sblg]14", model_name) is not None


# timm's model by the official rule


def forward(
    model: LoadedModel, x: torch.Tensor, layers: Sequence[int], class_token: bool = False
) -> list[torch.Tensor]:
    """Maps of blocks of timm's model, by the official rule for the position embedding.

    Parameters
    ----------
    model : LoadedModel
        DINOv2 without registers, by timm.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images, in the precision of the model.
    layers : sequence of int
        In ascending order.
    class_token : bool, default=False
        Whether the class token of the last block is wanted too.

    Returns
    -------
    list of torch.Tensor of shape (B, dim, grid_h, grid_w)
        After the final normalisation. The class token comes last, as a map of one cell.
    """
    module = model.module
    tokens, grid = embed_patches(module, x)
    maps = []
    for number, block in enumerate(module.blocks[: None if class_token else max(layers) + 1]):
        tokens = block(tokens)
        if number in layers:
            patches = module.norm(tokens)[:, 1:]
            maps.append(patches.transpose(1, 2).unflatten(2, grid))
    if class_token:
        maps.append(module.norm(tokens)[:, 0, :, None, None])
    return maps


def fast_forward(
    model: LoadedModel,
    fast: FastVit,
    x: torch.Tensor,
    layers: Sequence[int],
    class_token: bool = False,
) -> list[torch.Tensor]:
    """The same by its fast form."""

    def interpolated(embedding: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        return fast.once(grid, lambda: interpolate_position_embedding(embedding, grid))

    tokens, grid = embed_patches(model.module, x, interpolated)
    return fast(tokens, grid, layers, model.module.norm, class_token)


def embed_patches(
    module: Any, x: torch.Tensor, interpolate: Callable[..., torch.Tensor] | None = None
) -> tuple[torch.Tensor, tuple[int, int]]:
    """What enters the first block by the official rule, and the grid.

    Parameters
    ----------
    module : torch.nn.Module
        DINOv2 without registers, by timm.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images.
    interpolate : callable or None
        In place of :func:`interpolate_position_embedding`.

    Returns
    -------
    tokens : torch.Tensor of shape (B, n_tokens, dim)
    grid : tuple of int
    """
    torch = import_optional("torch", "torch", _USER)
    tokens = module.patch_embed(x)  # (B, grid_h, grid_w, dim)
    grid = tokens.shape[1:3]
    tokens = torch.cat([module.cls_token.expand(x.shape[0], -1, -1), tokens.flatten(1, 2)], dim=1)
    interpolate = interpolate or interpolate_position_embedding
    return module.norm_pre(tokens + interpolate(module.pos_embed, grid)), grid


def interpolate_position_embedding(embedding: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Position embedding of DINOv2 without registers for another grid.

    Parameters
    ----------
    embedding : torch.Tensor of shape (1, 1 + side * side, dim)
        Of the class token and of the square grid the model was trained with.
    grid : sequence of int
        ``(grid_h, grid_w)``.

    Returns
    -------
    torch.Tensor of shape (1, 1 + grid_h * grid_w, dim)
        Bicubic, not antialiased, by a scale factor of ``(grid + 0.1) / side``.
    """
    torch = import_optional("torch", "torch", _USER)
    # int: while a model is converted, its shapes are no numbers.
    side, grid = round((int(embedding.shape[1]) - 1) ** 0.5), tuple(map(int, grid))
    if grid == (side, side):
        return embedding
    patches = embedding[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    factor = tuple(float(length + 0.1) / side for length in grid)
    patches = torch.nn.functional.interpolate(patches, scale_factor=factor, mode="bicubic")
    patches = patches.flatten(2).transpose(1, 2)
    return torch.cat([embedding[:, :1], patches.to(embedding.dtype)], dim=1)


# The official code


def load_official(model_name: str, device: str) -> LoadedModel:
    """DINOv2 by the official code, which torch.hub downloads; loaded once and then shared.

    Parameters
    ----------
    model_name : str
        Of DINOv2.
    device : str
        Where it lies.

    Returns
    -------
    LoadedModel

    Raises
    ------
    OSError
        When it cannot be downloaded.
    """
    torch = import_optional("torch", "torch", _USER)

    def build() -> LoadedModel:
        try:
            # A commit is neither a branch nor a tag, among which the validation would look for it.
            module = torch.hub.load(
                HUB_REPOSITORY, model_name, trust_repo=True, skip_validation=True
            )
        except OSError as exc:
            raise OSError(
                f"{model_name} could not be downloaded through torch.hub ({exc}). Connect once to "
                "download it into TORCH_HOME, or use source='timm'"
            ) from exc
        module = module.eval().requires_grad_(False).to(device)
        return LoadedModel(module, _OFFICIAL_PREPROCESSING, (14,) * module.n_blocks)

    return load_once(("hub", model_name, device), build)


def forward_official(
    model: LoadedModel, x: torch.Tensor, layers: Sequence[int], class_token: bool = False
) -> list[torch.Tensor]:
    """Maps of blocks by the official code.

    Parameters
    ----------
    model : LoadedModel
        From :func:`load_official`.
    x, layers, class_token
        As for :func:`forward`.

    Returns
    -------
    list of torch.Tensor of shape (B, dim, grid_h, grid_w)
    """
    maps = list(model.module.get_intermediate_layers(x, n=list(layers), reshape=True, norm=True))
    return [*maps, model.module(x)[:, :, None, None]] if class_token else maps
