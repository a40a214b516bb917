"""Position embeddings of timm's vision transformers at other sizes than they were trained with.

anomalib replaces the function by which timm's module of vision transformers resamples them, in the
whole process, by one without antialiasing. The networks that are built here keep timm's own rule,
whether or not anomalib was imported: they never look the function up in that module.

Seen in timm 1.0.20 to 1.0.31; `tests/_networks/test_doors.py` says which private name is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from types import MethodType
from typing import TYPE_CHECKING, Any

from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch

_USER = "a vision transformer"
# Names that a position embedding has in files of timm, open_clip and OpenAI.
_NAMES = {
    prefix + name
    for prefix in ("", "module.")
    for name in ("pos_embed", "visual.trunk.pos_embed", "visual.positional_embedding")
}


def bind_positions(module: Any, resample: Callable[..., torch.Tensor] | None = None) -> None:
    """Give the vision transformers in a model a rule of their own.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place: each of timm's vision transformers that takes inputs of any size.
    resample : callable or None, default=None
        Takes the place of ``timm.layers.resample_abs_pos_embed``; None for that function itself.
    """
    vit = import_optional("timm.models.vision_transformer", "torch", _USER)
    layers = import_optional("timm.layers", "torch", _USER)
    rule = resample or layers.resample_abs_pos_embed

    def add_positions(self: Any, x: torch.Tensor) -> torch.Tensor:
        return _add_positions(self, x, rule)

    for part in module.modules():
        if isinstance(part, vit.VisionTransformer) and part.dynamic_img_size:
            # The private method by which the transformer's own forward passes call it.
            part._pos_embed = MethodType(add_positions, part)


def _add_positions(vit: Any, x: torch.Tensor, resample: Callable[..., torch.Tensor]) -> Any:
    """What enters the first block: (B, grid_h, grid_w, dim) patches to (B, n_tokens, dim)."""
    torch = import_optional("torch", "torch", _USER)
    n_images, *grid, dim = x.shape
    # A distilled transformer has a token more than the others, and no registers.
    names = ("cls_token", "dist_token", "reg_token")
    prefix = [getattr(vit, name, None) for name in names]
    prefix = [token.expand(n_images, -1, -1) for token in prefix if token is not None]
    x = x.view(n_images, -1, dim)
    if vit.pos_embed is None:
        return torch.cat([*prefix, x], dim=1)
    positions = resample(
        vit.pos_embed,
        new_size=tuple(grid),
        old_size=vit.patch_embed.grid_size,
        num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
    )
    if vit.no_embed_class:  # only patches have a position
        x = x + positions
    if prefix:
        x = torch.cat([*prefix, x], dim=1)
    if not vit.no_embed_class:
        x = x + positions
    return vit.pos_drop(x)


def resize_positions(vit: Any, resized: Any) -> None:
    """Resample the position embedding of a vision transformer that timm brought to another size.

    Parameters
    ----------
    vit : torch.nn.Module
        As it was trained.
    resized : torch.nn.Module
        A copy of it after timm's ``set_input_size``; changed in place. Left alone unless it is one
        of timm's vision transformers.
    """
    module = import_optional("timm.models.vision_transformer", "torch", _USER)
    layers = import_optional("timm.layers", "torch", _USER)
    torch = import_optional("torch", "torch", _USER)
    if not isinstance(vit, module.VisionTransformer) or vit.pos_embed is None:
        return
    positions = layers.resample_abs_pos_embed(
        vit.pos_embed,
        new_size=resized.patch_embed.grid_size,
        old_size=vit.patch_embed.grid_size,
        num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
    )
    resized.pos_embed = torch.nn.Parameter(positions, requires_grad=False)


def resample_weights(state: dict[str, torch.Tensor], vit: Any) -> dict[str, torch.Tensor]:
    """Bring the position embedding among weights to the grid of a vision transformer.

    Parameters
    ----------
    state : dict of str to torch.Tensor
        Weights by name, as read from a file.
    vit : torch.nn.Module
        What they are for; one without weights will do.

    Returns
    -------
    dict of str to torch.Tensor
        The same where `vit` is none of timm's vision transformers, or the grid is its own.
    """
    module = import_optional("timm.models.vision_transformer", "torch", _USER)
    layers = import_optional("timm.layers", "torch", _USER)
    if not isinstance(vit, module.VisionTransformer) or vit.pos_embed is None:
        return state
    new = tuple(vit.patch_embed.grid_size)
    resampled = dict(state)
    for name in _NAMES & set(state):
        positions = state[name]
        rows = positions if positions.ndim == 3 else positions[None]
        # Some files have a position for the class token where the model has none.
        counts = [vit.num_prefix_tokens, 1, 0]
        if vit.no_embed_class:
            counts = [0, 1]
        sides = ((n, isqrt(max(0, rows.shape[1] - n))) for n in counts)
        fits = [(n, (s, s)) for n, s in sides if s > 0 and n + s * s == rows.shape[1]]
        if rows.ndim == 3 and fits and fits[0][1] != new:
            n_prefix, old = fits[0]
            rows = layers.resample_abs_pos_embed(rows, new, old, n_prefix)
            resampled[name] = rows if positions.ndim == 3 else rows[0]
    return resampled
