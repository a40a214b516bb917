"""The door to anomalib: all that is used of it and is private, or changes with its versions.

The rest of this package takes no attribute of anomalib by itself. ``_offline.py`` is the second
half of this door: it builds anomalib's models without a network.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from skanomaly._optional import import_optional

USER = "AnomalibDetector"
SEEN_IN = "2.7.0"  # the version of anomalib in which all of the names below were seen
# A model is built, and a checkpoint read, by one thread at a time.
BUILDING = threading.RLock()

# Every name that is taken of anomalib's modules, here and in _offline.py.
NAMES: Mapping[str, tuple[str, ...]] = {
    "anomalib.data": ("InferenceBatch",),
    "anomalib.models": ("AnomalibModule",),
    "anomalib.models.components.base.buffer_list": ("BufferListDescriptor",),
    "anomalib.models.components.feature_extractors.timm": (
        "_disable_pos_embed_antialiasing",
        "timm",
    ),
    "anomalib.models.image": ("__all__",),
    "anomalib.models.image.anomalyvfm.lightning_model": ("AnomalyVFMModel",),
    "anomalib.models.image.anomalyvfm.torch_model": ("hf_hub_download", "load_file"),
    "anomalib.models.image.cfa.torch_model": ("torchvision",),
    "anomalib.models.image.csflow.torch_model": ("EfficientNet_B5_Weights",),
    "anomalib.models.image.foundad.components.encoder_loader": (
        "_disable_pos_embed_antialiasing",
        "timm",
    ),
    "anomalib.models.image.super_add.torch_model": ("timm",),
    "anomalib.models.image.uflow.feature_extraction": ("timm",),
    "anomalib.models.image.uninet.torch_model": ("torchvision",),
    "anomalib.models.image.winclip.torch_model": ("open_clip",),
    "anomalib.post_processing": ("PostProcessor",),
    "anomalib.pre_processing": ("PreProcessor",),
    "anomalib.pre_processing.utils.spec": ("spec_to_transform",),
    "anomalib.utils.serialization": ("anomalib_safe_globals",),
}
# Settings of anomalib's own post-processor that thresholds are computed from.
POST_PROCESSOR = (
    "image_threshold",
    "image_sensitivity",
    "image_min",
    "image_max",
    "enable_thresholding",
    "enable_normalization",
)
# What WinCLIP's model keeps elsewhere than in its parameters.
WINCLIP = ("_text_embeddings", "_patch_embeddings", "k_shot", "scales")
_WINCLIP_LISTS = ("masks", "_visual_embeddings")
# torch notes in an exported ONNX graph which class made each node: that of the model is among them.
MODEL_NOTE = rb"anomalib\.models\.image\.\w+\.lightning_model\.(\w+)"
# Parts of a model that are no settings of it.
COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")


def import_anomalib() -> Any:
    """``anomalib.models``; the import takes seconds, and libraries warn of each other in it."""
    with BUILDING, quiet():
        return import_optional("anomalib.models", "anomalib", USER)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what libraries warn of while a model is built or read; nothing is computed then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def attribute(module: str, name: str) -> Any:
    """A name of one of anomalib's modules.

    Parameters
    ----------
    module : str
        One of :data:`NAMES`.
    name : str
        One of its names there.

    Returns
    -------
    object

    Raises
    ------
    ImportError
        When anomalib is missing, or has no such module or name in the installed version; the
        message says what is missing, and where it was seen last.
    """
    import_anomalib()
    try:
        with quiet():
            return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as exc:
        raise missing(f"{module}.{name}", exc) from exc


def member(owner: Any, name: str) -> Any:
    """An attribute of a class or an object of anomalib; :func:`attribute` says what it raises."""
    try:
        return getattr(owner, name)
    except AttributeError as exc:
        kind = owner if isinstance(owner, type) else type(owner)
        raise missing(f"{kind.__module__}.{kind.__qualname__}.{name}", exc) from exc


def missing(path: str, exc: Exception) -> ImportError:
    """What to raise where anomalib lacks something."""
    return ImportError(
        f"{USER} needs {path}, which {installed()} does not have as anomalib {SEEN_IN} did "
        f'({exc}). Install that one with: pip install "anomalib=={SEEN_IN}"'
    )


def installed() -> str:
    """Name and version of the anomalib that is imported here."""
    return f"anomalib {importlib.metadata.version('anomalib')}"


# ----------------------------------------------------------------------------------- model classes
def image_models() -> dict[str, Any]:
    """Classes of all image models of the installed anomalib, by name."""
    models = import_anomalib()
    return {name: member(models, name) for name in attribute("anomalib.models.image", "__all__")}


def setting_names(model: Any) -> set[str]:
    """Names of the settings that a checkpoint of a model class holds."""
    return set(inspect.signature(model.__init__).parameters) - {"self", *COMPONENTS}


def is_anomalib_module(value: object) -> bool:
    """Whether an object is a model of anomalib, with its processing before and after."""
    return isinstance(value, attribute("anomalib.models", "AnomalibModule"))


# ------------------------------------------------------------------------------------- checkpoints
def safe_globals() -> AbstractContextManager[None]:
    """While it lasts, ``torch.load(weights_only=True)`` accepts what anomalib's checkpoints hold.

    torch keeps the list of accepted types for the whole process: hold :data:`BUILDING` meanwhile.
    """
    accept = attribute("anomalib.utils.serialization", "anomalib_safe_globals")
    models = image_models().values()
    extra = [found for model in models for found in member(model, "checkpoint_safe_globals")()]
    return accept(extra=extra)


def saved_pre_processor(content: Mapping[str, Any]) -> Any:
    """The pre-processor that a checkpoint describes.

    Parameters
    ----------
    content : mapping of str to object
        The checkpoint.

    Returns
    -------
    anomalib.pre_processing.PreProcessor, False or None
        False for a model without one; None where the checkpoint does not say.
    """
    enabled = content.get("anomalib_components_enabled") or {}
    config = content.get("anomalib_pre_processor_config")
    if not enabled.get("pre_processor", True):
        return False
    if config is None:
        return None
    transform = attribute("anomalib.pre_processing.utils.spec", "spec_to_transform")
    return attribute("anomalib.pre_processing", "PreProcessor")(transform(config["transform"]))


def restore_components(module: Any, content: Mapping[str, Any]) -> None:
    """Configure the processing before and after a model as a checkpoint says."""
    member(module, "on_load_checkpoint")(content)


def unknown_parts(module: Any, content: Mapping[str, Any]) -> list[str]:
    """What a checkpoint says of the parts of its model, and the installed anomalib would not.

    Parameters
    ----------
    module : anomalib.models.AnomalibModule
        Made from the checkpoint.
    content : mapping of str to object
        The checkpoint.

    Returns
    -------
    list of str
        Names, such as ``anomalib_post_processor_config.tile_size``.
    """
    again: dict[str, Any] = {"hyper_parameters": {}}
    member(module, "on_save_checkpoint")(again)
    enabled = content.get("anomalib_components_enabled")
    parts = enabled if isinstance(enabled, dict) else {}
    # A part that is switched off is not made, whatever is still said of it.
    off = {f"anomalib_{part}_config" for part, is_on in parts.items() if not is_on}
    unknown = []
    for key, value in content.items():
        if key in off:
            continue
        if key.startswith("anomalib_") and key not in again:
            unknown.append(key)
        elif key.startswith("anomalib_") and isinstance(value, dict):
            known = again[key] or {}
            unknown += [f"{key}.{name}" for name in value if name not in known]
    return sorted(unknown)


def restore_winclip(module: Any, source: object) -> None:
    """What WinCLIP keeps elsewhere than in its weights.

    Parameters
    ----------
    module : anomalib.models.WinClip
        With its weights. Changed in place.
    source : object
        The file it is from, for the error message.

    Raises
    ------
    ValueError
        When its text embeddings are missing.
    """
    descriptor = attribute("anomalib.models.components.base.buffer_list", "BufferListDescriptor")
    model = module.model
    texts, patches, _, scales = (member(model, name) for name in WINCLIP)
    if not texts.numel():
        raise ValueError(
            f"{source} was saved before WinCLIP knew the name of the object; run engine.validate "
            "or engine.predict with class_name=, and save it again"
        )
    # It counts its reference images only when they are given to it.
    model.k_shot = len(patches)
    # anomalib keeps these lists on a class that all models share: the latest one sets the length.
    own = {name: descriptor(name, len(scales)) for name in _WINCLIP_LISTS}
    model.__class__ = type(type(model).__name__, (type(model),), own)


# ----------------------------------------------------------------------------------------- outputs
def inference_batch(output: Any) -> Any:
    """What a model returned, as anomalib's batch of scores and maps; some return a plain pair."""
    if hasattr(output, "pred_score"):
        return output
    batch = attribute("anomalib.data", "InferenceBatch")
    return batch(pred_score=output[0], anomaly_map=output[1])


def post_processor_settings(post_processor: Any) -> dict[str, float] | None:
    """The settings of anomalib's post-processor as numbers, by name.

    Parameters
    ----------
    post_processor : object or None
        Of a loaded model.

    Returns
    -------
    dict of str to float, or None
        None for a post-processor that is not anomalib's.
    """
    if not isinstance(post_processor, attribute("anomalib.post_processing", "PostProcessor")):
        return None
    return {name: float(member(post_processor, name)) for name in POST_PROCESSOR}
