"""The door to timm: its names and tags, models with their weights, their forward passes.

`timm_vit.py` and `positions.py`, which know the inside of its vision transformers, stand behind it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skanomaly._networks.fast_vit import FastVit
from skanomaly._networks.hub import download_error, timm_file
from skanomaly._networks.loading import (
    check_plain,
    load_once,
    read_weights,
    tag_and_file,
    unknown_weights,
    weights_key,
)
from skanomaly._networks.network import LoadedModel, Preprocessing
from skanomaly._networks.positions import bind_positions, resample_weights
from skanomaly._networks.timm_vit import embed_patches, plain_vit
from skanomaly._optional import import_optional
from skanomaly._typing import PathLike

if TYPE_CHECKING:
    import torch

# Modules that build timm's class VisionTransformer; seen in timm 1.0.31.
_VISION_TRANSFORMERS = ("timm.models.vision_transformer", "timm.models.deit")


def resolve_weights(name: str, weights: PathLike, user: str) -> tuple[str, PathLike]:
    """Say which model of timm is meant, and where its weights come from.

    Parameters
    ----------
    name : str
        A name timm knows, with or without the tag of its weights.
    weights : str or os.PathLike
        In this order: ``"random"``, ``"pretrained"``, a tag that timm has for this model, a file.
    user : str
        What asks, for error messages.

    Returns
    -------
    name : str
        With the tag, where one is asked for.
    weights : str or os.PathLike
        ``"random"``, ``"pretrained"`` or a file.

    Raises
    ------
    ValueError
        For a name that timm does not have, or weights of which nothing is known; the message
        names near ones.
    """
    timm = import_optional("timm", "torch", user)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(name):
        close = get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(close)}?" if close else "."
        raise ValueError(f"timm has no model named {name!r}{hint} See timm.list_models()")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags and not _has_tag(timm, name):
        known = ", ".join(f"{architecture}.{one}" for one in tags)
        raise ValueError(f"{name!r} ends in a tag that timm does not have; known: {known}")
    text = os.fspath(weights)
    if text in ("random", "pretrained"):
        return name, text
    if text in tags:
        if tag not in ("", text):
            raise ValueError(f"model_name={name!r} names a tag, and weights={text!r} another")
        return f"{architecture}.{text}", "pretrained"
    if Path(text).expanduser().is_file():
        return name, weights
    raise unknown_weights(text, name, tags, "timm")


def weight_files(
    name: str, weights: PathLike, fetch: bool, user: str
) -> tuple[str | None, list[Path]] | None:
    """The files of the weights of a model, such as a model file takes in.

    Parameters
    ----------
    name, weights, user
        As for :func:`resolve_weights`.
    fetch : bool
        Download what is missing.

    Returns
    -------
    tag : str or None
        As it was asked for: what a file of its own goes behind in ``"TAG@FILE"``.
    files : list of pathlib.Path
        One, or none where it is not there.
    None in place of both where there are no weights: random ones, or those of a model without.
    """
    tag, kept = tag_and_file(weights)
    if kept is not None:
        return os.fspath(tag), [kept]
    full, source = resolve_weights(name, weights, user)
    if source != "pretrained":
        return None if source == "random" else (None, [Path(weights).expanduser()])
    file = timm_file(full)
    if file is None:
        return None
    if fetch and file.cached() is None:
        build_timm(name, weights, None, False, user)
    path = file.cached()
    return os.fspath(weights), [] if path is None else [path]


def _has_tag(timm: Any, name: str) -> bool:
    try:
        return timm.get_pretrained_cfg(name) is not None
    except RuntimeError:
        return False


def build_timm(name: str, weights: PathLike, square: int | None, any_size: bool, user: str) -> Any:
    """Build a timm model with its weights.

    Parameters
    ----------
    name : str
        A name timm knows.
    weights : str or os.PathLike
        As for :func:`resolve_weights`.
    square : int or None
        Side of the square input; None for the model's own.
    any_size : bool
        Whether inputs of other sizes, and other than squares, will come.
    user : str
        What needs it, for error messages.

    Returns
    -------
    torch.nn.Module
        Its `positions_before` are the position embedding before it was brought to another grid, or
        None where it was not.

    Raises
    ------
    ValueError
        For a name or weights that timm does not have, a size the model cannot take, or a file
        that is not exactly this model's weights.
    OSError
        When the weights cannot be downloaded.
    """
    timm = import_optional("timm", "torch", user)
    torch = import_optional("torch", "torch", user)
    weights, kept = tag_and_file(weights)
    name, weights = resolve_weights(name, weights, user)
    cfg = timm.get_pretrained_cfg(name)
    size = _size_options(cfg, square, any_size)
    if weights == "pretrained" and kept is None:
        file = timm_file(name)
        if file is not None:  # else timm says that there are none
            file.check_available()
    state = None if weights in ("random", "pretrained") else read_weights(weights, user)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            options, positions = _weight_options(name, weights, state, size, cfg, kept)
            torch.manual_seed(0)  # whatever the options took of the random numbers
            module = timm.create_model(name, **size, **options)
    except TypeError as exc:
        raise ValueError(
            f"{name} takes images of {cfg.input_size[-1]} pixels only, squashed ({exc}); leave "
            "image_size=None and resize='squash'"
        ) from exc
    except (RuntimeError, KeyError) as exc:
        if state is None:
            raise download_error(name, exc) from exc
        reason = " ".join(str(exc).split())[:300]
        raise ValueError(f"{weights!s} does not hold the weights of {name}: {reason}") from exc
    except OSError as exc:
        raise download_error(name, exc) from exc
    bind_positions(module)
    module.positions_before = positions
    return module


def _size_options(cfg: Any, square: int | None, any_size: bool) -> dict[str, Any]:
    """Options of timm for the size of inputs, where the model is built for one."""
    if cfg is None or not cfg.fixed_input_size:
        return {}
    if any_size:
        return {"dynamic_img_size": True}
    return {} if square in (None, cfg.input_size[-1]) else {"img_size": square}


def _weight_options(
    name: str,
    weights: PathLike,
    state: dict | None,
    size: dict[str, Any],
    cfg: Any,
    kept: Path | None,
) -> tuple[dict[str, Any], torch.Tensor | None]:
    """Options of timm for the weights, of which `state` are those of a file.

    `kept` is a file with what timm would download.

    Where their position embedding has another grid than the model, it is resampled here: timm
    would do so by a function that anomalib replaces. The one before is returned too.
    """
    timm = import_optional("timm", "torch", "a pretrained model")
    torch = import_optional("torch", "torch", "a pretrained model")
    overlay: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if weights == "random":
        return {"pretrained": False}, None
    if state is None and "img_size" in size:
        state = _downloaded_state(cfg) if kept is None else read_weights(kept, "timm")
    elif state is not None:
        classifier = cfg.classifier[0] if isinstance(cfg.classifier, tuple) else cfg.classifier
        head = state.get(f"{classifier}.weight")
        n_classes = 0 if head is None else len(head)
        # The number of classes is the file's own, so that timm demands every tensor.
        overlay, options = {"num_classes": n_classes}, {"num_classes": n_classes}
    if state is None and kept is not None:
        if cfg is None or not cfg.custom_load:
            check_plain(kept, "timm")
        return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(kept)}}, None
    if state is None:
        return {"pretrained": True}, None
    positions = None
    # By the module of its builder: of one of these models only its shapes are needed.
    if timm.model_entrypoint(name).__module__.startswith(_VISION_TRANSFORMERS):
        with torch.device("meta"):  # takes no memory
            shapes = timm.create_model(name, pretrained=False, **size)
        resampled = resample_weights(state, shapes)
        moved = [name for name in resampled if resampled[name] is not state[name]]
        positions, state = (state[moved[0]] if moved else None), resampled
    overlay["state_dict"] = state
    return {"pretrained": True, "pretrained_cfg_overlay": overlay, **options}, positions


def _downloaded_state(cfg: Any) -> dict | None:
    """The weights that timm would load, or None where a model has its own way to load them."""
    models = import_optional("timm.models", "torch", "a pretrained model")
    hub = import_optional("torch.hub", "torch", "a pretrained model")
    if cfg.hf_hub_id and cfg.custom_load != "hf":
        name = {"filename": cfg.hf_hub_filename} if cfg.hf_hub_filename else {}
        return models.load_state_dict_from_hf(cfg.hf_hub_id, weights_only=True, **name)
    if cfg.url and not cfg.hf_hub_id and not cfg.custom_load:
        return hub.load_state_dict_from_url(cfg.url, map_location="cpu", weights_only=True)
    return None


def load_timm(
    name: str, weights: PathLike, *, square: int | None, any_size: bool, device: str, user: str
) -> LoadedModel:
    """A timm model in float32, loaded at first use and then shared.

    Parameters
    ----------
    name, weights, square, any_size, user
        As for :func:`build_timm`.
    device : str
        Where it lies.

    Returns
    -------
    LoadedModel

    Raises
    ------
    ValueError, OSError
        As from :func:`build_timm`.
    """
    import_optional("torch", "torch", user)

    def build() -> LoadedModel:
        module = build_timm(name, weights, square, any_size, user)
        module = module.eval().requires_grad_(False).to(device)
        reductions = tuple(int(layer["reduction"]) for layer in feature_info(module))
        cfg, cell = module.pretrained_cfg, max(reductions)
        # Some networks were trained at sizes that their strides do not divide, such as 299.
        cells = max(1, round(cfg["input_size"][-1] / cell))
        preprocessing = Preprocessing(
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
            interpolation=cfg["interpolation"] or "bicubic",
            image_size=cells * cell,
            cell=cell,
        )
        positions = module.positions_before
        return LoadedModel(module, preprocessing, reductions, plain_vit(module), positions)

    return load_once(("timm", name, weights_key(weights), square, any_size, device), build)


def feature_info(module: Any) -> list[dict[str, Any]]:
    """What timm says of each layer: a list of dicts with ``reduction`` and ``num_chs``."""
    info = module.feature_info
    return info if isinstance(info, list) else info.info


def forward(
    model: LoadedModel, x: torch.Tensor, layers: Sequence[int], class_token: bool = False
) -> list[torch.Tensor]:
    """Maps of layers by timm's own forward pass.

    Parameters
    ----------
    model : LoadedModel
        Of timm.
    x : torch.Tensor of shape (B, 3, height, width)
        Normalised images, in the precision of the model.
    layers : sequence of int
        In ascending order.
    class_token : bool, default=False
        Whether the class token of the last block is wanted too.

    Returns
    -------
    list of torch.Tensor of shape (B, dim, grid_h, grid_w)
        Blocks pass through the final normalisation. Last is the class token, a map of one cell.
    """
    norm = {} if model.hierarchical else {"norm": True}
    layers_alone = {"intermediates_only": not class_token, "stop_early": not class_token}
    found = model.module.forward_intermediates(
        x, indices=list(layers), output_fmt="NCHW", **layers_alone, **norm
    )
    return [*found[1], found[0][:, 0, :, None, None]] if class_token else found


def fast_forward(
    model: LoadedModel,
    fast: FastVit,
    x: torch.Tensor,
    layers: Sequence[int],
    class_token: bool = False,
) -> list[torch.Tensor]:
    """The same of a plain vision transformer, by its fast form."""
    return fast(*embed_patches(model.module, x), layers, model.module.norm, class_token)
