"""What is asked of an image tower of open_clip, its forward passes, and the fusion of its maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from skanomaly._networks.fast_vit import FastVit
from skanomaly._networks.fusion import fuse_maps
from skanomaly._networks.network import Network, layer_numbers, patchcore_stages
from skanomaly._networks.openclip import OpenClipModel
from skanomaly._networks.openclip_joint import (
    family,
    has_value_attention,
    project,
    value_tokens,
    window_embeddings,
)
from skanomaly._networks.openclip_towers import embed_patches, final_normalisation, intermediates
from skanomaly._parameters import is_integer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TowerOptions:
    """What is asked of an image tower.

    Attributes
    ----------
    layers : tuple of int
        In ascending order.
    project : bool
        Whether tokens are brought into the joint space of images and texts.
    value_attention : int
        The last so many blocks attend by the likeness of values.
    windows : tuple of int
        Sides of the windows of WinCLIP, in patches.
    class_token : bool
        Whether the embedding of the image is asked for, which comes with windows anyway.
    """

    layers: tuple[int, ...]
    project: bool
    value_attention: int
    windows: tuple[int, ...]
    class_token: bool


def clip_network(
    name: str,
    model: OpenClipModel,
    *,
    layers: int | Sequence[int] | None,
    fusion: str,
    project: bool,
    value_attention: int,
    windows: Sequence[int] | None,
    class_token: bool,
) -> Network:
    """The network of an embedder's parameters.

    Parameters
    ----------
    name : str
        Of the model, for messages.
    model : OpenClipModel
        From :func:`skanomaly._networks.openclip.load_model`.
    layers, fusion, project, value_attention, windows, class_token
        As of :class:`skanomaly.OpenClipPatches`.

    Returns
    -------
    Network

    Raises
    ------
    ValueError
        When the options do not fit the model, or each other.
    """
    options = TowerOptions(
        layers=_check_layers(name, model, layers, project, int(value_attention)),
        project=bool(project),
        value_attention=int(value_attention),
        windows=(),
        class_token=bool(class_token),
    )
    if class_token and windows is not None:
        raise ValueError("windows have the embedding of the image: leave class_token=False")
    if windows is not None:
        sides = _check_windows(name, model, options, fusion, windows)
        options = replace(options, windows=sides)
    fast = model.plain_vit is not None and not (
        options.value_attention or options.windows or options.class_token
    )
    return Network(
        name=name,
        model=model,
        layers=options.layers,
        forward=partial(forward, options=options),
        fuse=partial(
            fuse_maps,
            n_layers=len(options.layers),
            fusion=fusion,
            staged=model.hierarchical and not options.project,
        ),
        fast_forward=partial(fast_forward, options=options) if fast else None,
        options={
            "model": model.config,
            "project": options.project,
            "value_attention": options.value_attention,
            "windows": list(options.windows),
            **({"class_token": True} if class_token else {}),
        },
        libraries=("torch", "timm", "open_clip"),
    )


def _check_layers(
    name: str,
    model: OpenClipModel,
    layers: int | Sequence[int] | None,
    project: bool,
    value_attention: int,
) -> tuple[int, ...]:
    """Layers as numbers; those that the other options allow."""
    count = len(model.reductions)
    if project and family(model.module) is None:
        raise ValueError(
            f"project=True does not serve the tower of {name} ({_kind(model)}); choose another "
            "model, or project=False"
        )
    if value_attention and not has_value_attention(model.module):
        raise ValueError(
            "value_attention needs a vision transformer of open_clip itself, which "
            f"{name} ({_kind(model)}) is not"
        )
    default = [count - 1]
    if model.hierarchical and not project:
        default = patchcore_stages(model.reductions)
    numbers = layer_numbers(layers, count, default, name)
    if numbers != (count - 1,):
        if project and model.hierarchical:
            raise ValueError(f"project=True needs the last stage, not layers={layers!r}")
        if value_attention:
            raise ValueError(f"value_attention needs the last block, not layers={layers!r}")
    if value_attention > count:
        raise ValueError(f"value_attention={value_attention}: {name} has {count} blocks")
    return numbers


def _check_windows(
    name: str, model: OpenClipModel, options: TowerOptions, fusion: str, windows: Sequence[int]
) -> tuple[int, ...]:
    sides = list(windows)
    good = [side for side in sides if is_integer(side) and side >= 1]
    if not sides or len(set(good)) < len(sides):
        raise ValueError(f"windows={windows!r} must be different sides in patches, such as (2, 3)")
    if not options.project:
        raise ValueError("windows needs project=True: its embeddings are in the joint space")
    if family(model.module) != "vit":
        raise ValueError(
            "windows needs a plain vision transformer of open_clip itself, which "
            f"{name} ({_kind(model)}) is not"
        )
    if fusion == "concat" and len(options.layers) > 1:
        raise ValueError("windows with several layers needs fusion='mean'")
    return tuple(int(side) for side in sides)


def _kind(model: OpenClipModel) -> str:
    return type(model.transformer).__name__


def forward(model: OpenClipModel, x: torch.Tensor, options: TowerOptions) -> list[torch.Tensor]:
    """Maps of the layers, and of windows and of the image where they are asked for.

    Parameters
    ----------
    model : OpenClipModel
        From :func:`skanomaly._networks.openclip.load_model`.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images, in the precision of the model.
    options : TowerOptions
        Checked by :func:`clip_network`.

    Returns
    -------
    list of torch.Tensor of shape (B, dim, grid_h, grid_w)
        That of the image has one cell.
    """
    visual = _tower(model, x)
    windows: tuple[int, ...] = options.windows
    pooled = bool(windows) or options.class_token
    image: Any = None
    if options.value_attention:
        maps = [value_tokens(visual, x, options.value_attention)]
        if not options.project:
            maps = [final_normalisation(visual)(m) for m in maps]
        if pooled:
            image = intermediates(visual, x, options.layers, False, pooled=True)[1]
    else:
        maps, image = intermediates(visual, x, options.layers, not options.project, pooled)
    if options.project:
        maps = [project(visual, m) for m in maps]
    if windows:
        maps += window_embeddings(visual, x, windows)
    if pooled:
        maps.append(image[:, None, None])
    return [m.permute(0, 3, 1, 2) for m in maps]


def fast_forward(
    model: OpenClipModel, fast: FastVit, x: torch.Tensor, options: TowerOptions
) -> list[torch.Tensor]:
    """The same of a plain transformer, without windows and image, by its fast form."""
    visual = _tower(model, x)
    finish = partial(project, visual) if options.project else final_normalisation(visual)
    return fast(*embed_patches(visual, x), options.layers, finish)


def _tower(model: OpenClipModel, x: torch.Tensor) -> Any:
    return model.sized(*map(int, x.shape[-2:]))  # int: in a conversion they are no numbers
