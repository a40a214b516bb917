"""Maps of several layers as one: pure functions on tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch


def fuse_blocks(maps: list[torch.Tensor], fusion: str) -> torch.Tensor:
    """Fuse blocks of a transformer, of which each token is brought to unit length before.

    Parameters
    ----------
    maps : list of torch.Tensor of shape (B, dim, grid_h, grid_w)
        One alone is left as it is.
    fusion : {"concat", "mean"}
        How they become one.

    Returns
    -------
    torch.Tensor of shape (B, fused_dim, grid_h, grid_w)
    """
    torch = import_optional("torch", "torch", "this embedder")
    if len(maps) == 1:
        return maps[0]
    maps = [_unit_length(m) for m in maps]
    return torch.cat(maps, 1) if fusion == "concat" else torch.stack(maps).mean(0)


def fuse_stages(maps: list[torch.Tensor], fusion: str) -> torch.Tensor:
    """Fuse stages of a network as in PatchCore: averaged over 3x3 cells, at the finest grid.

    Parameters
    ----------
    maps : list of torch.Tensor of shape (B, dim, grid_h, grid_w)
        Of grids and dimensions of their own.
    fusion : {"concat", "mean"}
        How they become one; the mean needs equal dimensions.

    Returns
    -------
    torch.Tensor of shape (B, fused_dim, grid_h, grid_w)

    Raises
    ------
    ValueError
        When the mean of different dimensions is asked for.
    """
    torch = import_optional("torch", "torch", "this embedder")
    functional = torch.nn.functional
    if fusion == "mean" and len({m.shape[1] for m in maps}) > 1:
        raise ValueError("fusion='mean' needs layers of one dimension; use fusion='concat'")
    grid = max(m.shape[-2:] for m in maps)
    maps = [functional.avg_pool2d(m, 3, stride=1, padding=1) for m in maps]
    maps = [
        functional.interpolate(m, size=grid, mode="bilinear", align_corners=False) for m in maps
    ]
    return torch.cat(maps, 1) if fusion == "concat" else torch.stack(maps).mean(0)


def fuse_maps(maps: list[torch.Tensor], n_layers: int, fusion: str, staged: bool) -> torch.Tensor:
    """One map of those that a network gives.

    Parameters
    ----------
    maps : list of torch.Tensor of shape (B, dim, grid_h, grid_w)
        The first `n_layers` are those of layers, the others of windows and of the image.
    n_layers : int
        How many layers there are.
    fusion : {"concat", "mean"}
        How several layers become one.
    staged : bool
        Whether they are stages of a network, with grids of their own.

    Returns
    -------
    torch.Tensor of shape (B, dim, grid_h, grid_w)
    """
    patches = (fuse_stages if staged else fuse_blocks)(maps[:n_layers], fusion)
    return patches if len(maps) == n_layers else join_unit_parts([patches, *maps[n_layers:]])


def join_unit_parts(parts: list[torch.Tensor]) -> torch.Tensor:
    """One token of several parts, each of unit length, at each place of the first part's grid.

    Parameters
    ----------
    parts : list of torch.Tensor of shape (B, dim, grid_h, grid_w)
        All of the grid of the first, or of one cell that stands for all places.

    Returns
    -------
    torch.Tensor of shape (B, sum of dims, grid_h, grid_w)
    """
    torch = import_optional("torch", "torch", "this embedder")
    grid = parts[0].shape[2:]
    parts = [_unit_length(part) for part in parts]
    return torch.cat([part.expand(-1, -1, *grid) for part in parts], dim=1)


def _unit_length(maps: torch.Tensor) -> torch.Tensor:
    """Each token by its length; in one layout, which decides how sums are rounded.

    Those of one image are a view of its tokens, those of several an array of maps.
    """
    torch = import_optional("torch", "torch", "this embedder")
    return torch.nn.functional.normalize(maps.contiguous(), dim=1)
