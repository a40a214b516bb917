"""Backbones by name: the embedder of one, and the file of its weights."""

from __future__ import annotations

from typing import Any

from skanomaly._networks.hub import WeightFile, open_clip_file, timm_file
from skanomaly._optional import import_optional, require_optional
from skanomaly.registry._plugins import import_installed_plugins
from skanomaly.registry._table import EMBEDDERS, known_names, similar


def backbone(name: str) -> Any:
    """The embedder of a name.

    Parameters
    ----------
    name : str
        A registered name such as ``"filterbank"``, a name of :class:`~skanomaly.DinoV2Patches`,
        ``"MODEL/TAG"`` of open_clip such as ``"ViT-B-16/openai"``, or a name of timm.

    Returns
    -------
    object
        A transformer, or what a registered factory returns.

    Raises
    ------
    ValueError
        When the name is none of these; the message names similar ones.
    ImportError
        When the extra that it needs is not installed.
    """
    if not isinstance(name, str):
        raise _unknown(name, None, None)
    if name in EMBEDDERS:
        return EMBEDDERS[name]()
    from skanomaly.embedders import DinoV2Patches, OpenClipPatches, TimmPatches

    if name.startswith(("dinov2_", "dinov3_")):
        require_optional("timm", "torch", f"the backbone {name!r}")
        step = DinoV2Patches(name)
        step._timm_name()  # raises for an unknown name
        return step
    if "/" in name:
        from skanomaly._networks.openclip_weights import check_names

        model, _, tag = name.partition("/")
        check_names(model, tag, f"the backbone {name!r}")  # raises for an unknown name
        return OpenClipPatches(model, weights=tag)
    timm, without_timm = None, None
    if not name.startswith("vision_"):  # names of ours: not looked for in a library that is slow
        try:
            timm = import_optional("timm", "torch", f"the backbone {name!r}")
        except ImportError as exc:
            without_timm = exc
    if timm is not None and timm.is_model(name):
        return TimmPatches(name)
    import_installed_plugins()
    if name in EMBEDDERS:
        return EMBEDDERS[name]()
    raise _unknown(name, timm, without_timm) from without_timm


def _unknown(name, timm, without_timm):
    hint = similar(name, known_names())
    if timm is None:
        if without_timm is not None and hint == ".":
            return without_timm  # perhaps a name of timm
        return ValueError(f"there is no model named {name!r}{hint} See list_models()")
    known = [*known_names(), *(f"dinov2_vit{size}14" for size in "sblg"), *timm.list_models()]
    return ValueError(
        f"there is no model and no backbone named {name!r}{similar(name, known)} See "
        "list_models() and timm.list_models(); those of open_clip are MODEL/TAG, such as "
        "ViT-B-16/openai"
    )


def weight_file(embedder: Any) -> WeightFile | None:
    """The file of pretrained weights that an embedder asks for.

    Parameters
    ----------
    embedder : transformer
        Of one of the classes of :func:`backbone`.

    Returns
    -------
    WeightFile or None
        None for an embedder without weights.
    """
    from skanomaly.embedders import OpenClipPatches, TimmPatches

    if isinstance(embedder, OpenClipPatches):
        from skanomaly._networks.openclip_weights import check_names

        _, kind, tag = check_names(embedder.model_name, embedder.weights, "its weights")
        return open_clip_file(embedder.model_name, str(tag)) if kind == "tag" else None
    if isinstance(embedder, TimmPatches):
        from skanomaly._networks.timm import resolve_weights

        name, source = resolve_weights(embedder._timm_name(), embedder.weights, "its weights")
        return timm_file(name) if source == "pretrained" else None
    return None
