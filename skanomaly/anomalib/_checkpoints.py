"""Loading of what anomalib's training and its PyTorch export write: .ckpt and .pt files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skanomaly._networks.loading import resolve_device
from skanomaly._optional import import_optional
from skanomaly._warn import warn_user
from skanomaly.anomalib._families import FAMILIES, UNSUPPORTED, Family, family_of_class
from skanomaly.anomalib._modules import ModuleBackend, visible_share
from skanomaly.anomalib._offline import build_untrained, same_random_state
from skanomaly.anomalib._opening import (
    BUILDING,
    COMPONENTS,
    USER,
    image_models,
    import_anomalib,
    installed,
    is_anomalib_module,
    quiet,
    restore_components,
    restore_winclip,
    safe_globals,
    saved_pre_processor,
    setting_names,
    unknown_parts,
)

if TYPE_CHECKING:
    from skanomaly._typing import PathLike


_NEWER = "Of a newer version give an .onnx or OpenVINO export, or train the model with anomalib 2.7"


def load_checkpoint(
    path: PathLike, *, family: str | None = None, trust: bool = False, device: str = "auto"
) -> ModuleBackend:
    """Load a ``.ckpt`` that anomalib's training wrote.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    family : str or None, default=None
        Key of the table of families that it must be of; None to read it from the checkpoint.
    trust : bool, default=False
        Allow code in the file to run. Checkpoints of anomalib 2.3 to 2.5 need it, those of 2.7
        never use it.
    device : str, default="auto"
        Where the model shall run.

    Returns
    -------
    ModuleBackend

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it is damaged, no checkpoint of an image model of anomalib, of another family, in need
        of `trust`, or without some of the weights.
    """
    path = _existing(path)
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family={family!r} is unknown; known: {', '.join(FAMILIES)}")
    target = resolve_device(device)
    import_anomalib()
    content = _read(path, trust)
    settings = _settings(path, content)
    found = find_family(path, settings, family)
    module = _build(path, content, settings, found)
    _fill(path, content, module)
    return _ready(module, target, path)


def load_exported_module(
    path: PathLike, *, trust: bool = False, device: str = "auto"
) -> ModuleBackend:
    """Load a ``.pt`` that anomalib's PyTorch export wrote: a pickle of the whole model.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    trust : bool, default=False
        Must be True: reading such a file runs the code in it.
    device : str, default="auto"
        Where the model shall run.

    Returns
    -------
    ModuleBackend

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When `trust` is False, or the file is damaged or not such an export.
    """
    path = _existing(path)
    if not trust:
        raise ValueError(
            f"{path} is a pickle of a whole PyTorch model: reading it runs any code that is in it. "
            "Pass trust=True if you made it yourself or know who did; better give the .ckpt that "
            "training wrote, or an .onnx or OpenVINO export, which run no code"
        )
    target = resolve_device(device)
    import_anomalib()
    torch = import_optional("torch", "anomalib", USER)
    try:
        with same_random_state(), quiet():
            content = torch.load(path, map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as exc:  # a class that is not here, or has moved
        raise ValueError(_other_version(path, exc)) from exc
    except Exception as exc:
        raise ValueError(_damaged(path, exc)) from exc
    module = content.get("model") if isinstance(content, dict) else None
    if not is_anomalib_module(module):
        raise ValueError(
            f"{path} does not hold a model as anomalib exports it; export it again with "
            "engine.export(model, 'torch')"
        )
    if family_of_class(type(module).__name__) is None:
        raise ValueError(_refused(path, type(module).__name__))
    backend = _ready(module, target, path)
    try:
        backend.predict([np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)])
    except Exception as exc:
        # Its class has changed since. Other errors, as of a model of images of one size, say
        # nothing of it: it may be sound.
        if isinstance(exc, (AttributeError, TypeError)):
            raise ValueError(_other_version(path, exc)) from exc
    return backend


def _existing(path: PathLike) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint_path={str(path)!r} is not an existing file")
    return path


def _read(path: Path, trust: bool) -> Any:
    """Content of the checkpoint; plain data and tensors only, unless it needs trust and has it."""
    torch = import_optional("torch", "anomalib", USER)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # PyTorch reads them all the same
    except Exception as exc:
        raise ValueError(_damaged(path, exc)) from exc
    if broken is not None:
        raise ValueError(f"{path} is damaged: the checksum of {broken} in it is wrong")
    with BUILDING, safe_globals(), quiet():
        try:
            unsafe = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception as exc:
            raise ValueError(_damaged(path, exc)) from exc
        if unsafe and not trust:
            names = ", ".join(unsafe[:3]) + (", ..." if len(unsafe) > 3 else "")
            raise ValueError(
                f"{path} holds more than data ({names}): reading it in full could run any code. "
                "Checkpoints of anomalib 2.3 to 2.5 do. If you know where it is from, pass "
                "trust=True; or train or export it with anomalib 2.7"
            )
        try:
            return torch.load(path, map_location="cpu", weights_only=not unsafe)
        except Exception as exc:
            raise ValueError(_damaged(path, exc)) from exc


def _other_version(path: Path, exc: Exception) -> str:
    return (
        f"{path} does not fit {installed()}, which is installed here ({exc}): a .pt holds objects, "
        "and needs the anomalib that exported it, with whatever else was used there. Give the "
        ".ckpt that training wrote, or an .onnx or OpenVINO export"
    )


def _damaged(path: Path, exc: Exception) -> str:
    reason = " ".join(str(exc).split())[:200]
    return f"{path} could not be read; it is damaged or incomplete ({type(exc).__name__}: {reason})"


def _settings(path: Path, content: Any) -> dict[str, Any]:
    """Arguments that the model was made with."""
    names = ("hyper_parameters", "state_dict")
    parts: list[Any] = [None]
    if isinstance(content, dict):
        parts = [content.get(name) for name in names]
    if not all(isinstance(part, dict) and all(isinstance(k, str) for k in part) for part in parts):
        raise ValueError(
            f"{path} is not a checkpoint of anomalib's training: it lacks the settings of the "
            "model (hyper_parameters) or its weights (state_dict)"
        )
    # Those with an underscore are notes of the tools that trained it.
    return {name: value for name, value in parts[0].items() if not name.startswith("_")}


def find_family(path: PathLike, settings: Mapping[str, Any], name: str | None = None) -> Family:
    """The family whose settings these are.

    Parameters
    ----------
    path : str or os.PathLike
        The checkpoint, for error messages.
    settings : mapping of str to object
        Arguments that its model was made with.
    name : str or None, default=None
        The family that it must be of, a key of the table of families.

    Returns
    -------
    Family

    Raises
    ------
    ValueError
        When it is of another family, of one that gives no scores of images, of none, or when
        several have the same settings.
    """
    keys = set(settings) - set(COMPONENTS)
    known = {title: setting_names(model) for title, model in image_models().items()}
    fitting = [title for title, names in known.items() if names == keys]
    # Settings that came later are missing in checkpoints of older versions.
    fitting = fitting or [title for title, names in known.items() if keys < names]
    listed = ", ".join(sorted(keys)) or "none"
    if name is not None:
        wanted = FAMILIES[name]
        if wanted.class_name in fitting:
            return wanted
        if len(fitting) == 1:
            found = family_of_class(fitting[0])
            other = fitting[0] if found is None else found.name
            raise ValueError(f"{path} is a checkpoint of {other!r}, not of {wanted.name!r}")
        raise ValueError(f"{path} is not a checkpoint of {wanted.name!r}; its settings: {listed}")
    if len(fitting) != 1:
        candidates = [f.name for f in FAMILIES.values() if f.class_name in fitting]
        hint = f"; pass family=, one of: {', '.join(candidates)}" if candidates else ""
        raise ValueError(
            f"{path} holds settings of no image model of {installed()} ({listed}): it is of a "
            f"model of your own, or of another version{hint}. {_NEWER}"
        )
    family = family_of_class(fitting[0])
    if family is None:
        raise ValueError(_refused(path, fitting[0]))
    return family


def _refused(path: PathLike, class_name: str) -> str:
    reason = UNSUPPORTED.get(class_name, "it is none of anomalib's image models")
    return f"{path} is a {class_name}, which cannot be used to score images: {reason}"


def _build(
    path: Path, content: Mapping[str, Any], settings: Mapping[str, Any], family: Family
) -> Any:
    """The model with its own settings and pre-processor, and random weights."""
    arguments = {**settings, "evaluator": False, "visualizer": False}
    try:
        # Before the model is built: several constructors ask it for the size of the input.
        pre_processor = saved_pre_processor(content)
        if pre_processor is not None:
            arguments["pre_processor"] = pre_processor
        module = build_untrained(family, image_models()[family.class_name], arguments)
        with BUILDING, same_random_state(), quiet():
            restore_components(module, content)
    except ImportError:
        raise
    except Exception as exc:
        reason = " ".join(str(exc).split())[:300]
        raise ValueError(
            f"{path}: {family.title} could not be built from the settings in the checkpoint "
            f"({type(exc).__name__}: {reason})"
        ) from exc
    unknown = unknown_parts(module, content)
    if unknown:
        raise ValueError(
            f"{path} says what {installed()}, which is installed, does not know: {_some(unknown)}. "
            f"{_NEWER}"
        )
    return module


def _fill(path: Path, content: Mapping[str, Any], module: Any) -> None:
    """Load the weights, all of them."""
    state = {
        name: value
        for name, value in content["state_dict"].items()
        if not name.startswith(("evaluator.", "visualizer."))
    }
    try:
        missing, surplus = module.load_state_dict(state, strict=False)
    except Exception as exc:
        reason = " ".join(str(exc).split())[:500]
        raise ValueError(f"the weights in {path} do not fit its settings: {reason}") from exc
    if missing:
        raise ValueError(
            f"{path} lacks weights, which would have been random: {_some(missing)}. It was written "
            f"by another version than {installed()}, which is installed, or changed since. {_NEWER}"
        )
    if surplus:
        raise ValueError(
            f"{path} holds weights that its settings have no place for: {_some(surplus)}. It was "
            f"written by another version than {installed()}, which is installed, or changed since. "
            f"{_NEWER}"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _ready(module: Any, device: Any, path: Path) -> ModuleBackend:
    """A loaded model for inference; warns when it does not look at whole images."""
    if type(module).__name__ == "WinClip":
        restore_winclip(module, path)
    backend = ModuleBackend(module, device, str(path))
    height, width = visible_share(backend.transform, (1000, 1000))
    if min(height, width) < 1:
        warn_user(
            f"the pre-processor in {path} crops: this model sees only the middle {height:.0%} of "
            f"the height and {width:.0%} of the width of an image. Defects outside are not found; "
            "their place in the maps has the lowest value of the map"
        )
    return backend
