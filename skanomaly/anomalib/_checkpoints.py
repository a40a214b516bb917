"""Loading of what anomalib's training and its PyTorch export write: .ckpt and .pt files."""

import inspect
import warnings
import zipfile
from pathlib import Path

from skanomaly._networks.loading import resolve_device
from skanomaly._optional import import_optional
from skanomaly.anomalib._families import FAMILIES, UNSUPPORTED, family_of_class
from skanomaly.anomalib._modules import ModuleBackend, seen
from skanomaly.anomalib._offline import (
    BUILDING,
    empty_folder,
    import_anomalib,
    quiet,
    same_random_state,
    timm_unchanged,
    without_downloads,
)

_USER = "AnomalibDetector"
_COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")


def load_checkpoint(path, *, family=None, trust=False, device="auto"):
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
    device = resolve_device(device)
    models = import_anomalib()
    content = _read(path, models, trust)
    settings = _settings(path, content)
    family = _family(path, settings, models, family)
    module = _build(path, content, settings, getattr(models, family.class_name), family)
    _fill(path, content, module)
    return _ready(module, device, path)


def load_exported_module(path, *, trust=False, device="auto"):
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
    device = resolve_device(device)
    models = import_anomalib()
    torch = import_optional("torch", "anomalib", _USER)
    try:
        with timm_unchanged(), same_random_state(), quiet():
            content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as exc:
        raise ValueError(_damaged(path, exc)) from exc
    module = content.get("model") if isinstance(content, dict) else None
    if not isinstance(module, models.AnomalibModule):
        raise ValueError(
            f"{path} does not hold a model as anomalib exports it; export it again with "
            "engine.export(model, 'torch')"
        )
    if family_of_class(type(module).__name__) is None:
        raise ValueError(_refused(path, type(module).__name__))
    return _ready(module, device, path)


def _existing(path):
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint_path={str(path)!r} is not an existing file")
    return path


def image_models(models):
    """Classes of all image models of the installed anomalib, by name."""
    return {name: getattr(models, name) for name in models.image.__all__}


def setting_names(model):
    """Names of the settings that a checkpoint of a model class holds."""
    parameters = inspect.signature(model.__init__).parameters
    return set(parameters) - {"self", *_COMPONENTS}


def _read(path, models, trust):
    """Content of the checkpoint; plain data and tensors only, unless it needs trust and has it."""
    torch = import_optional("torch", "anomalib", _USER)
    serialization = import_optional("anomalib.utils.serialization", "anomalib", _USER)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # PyTorch reads them all the same
    except Exception as exc:
        raise ValueError(_damaged(path, exc)) from exc
    if broken is not None:
        raise ValueError(f"{path} is damaged: the checksum of {broken} in it is wrong")
    extra = [g for model in image_models(models).values() for g in model.checkpoint_safe_globals()]
    # Registered for this load only.
    with BUILDING, serialization.anomalib_safe_globals(extra=extra), quiet():
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


def _damaged(path, exc):
    reason = " ".join(str(exc).split())[:200]
    return f"{path} could not be read; it is damaged or incomplete ({type(exc).__name__}: {reason})"


def _settings(path, content):
    """Arguments that the model was made with."""
    names = ("hyper_parameters", "state_dict")
    parts = [content.get(name) for name in names] if isinstance(content, dict) else [None]
    if not all(isinstance(part, dict) and all(isinstance(k, str) for k in part) for part in parts):
        raise ValueError(
            f"{path} is not a checkpoint of anomalib's training: it lacks the settings of the "
            "model (hyper_parameters) or its weights (state_dict)"
        )
    # Those with an underscore are notes of the tools that trained it.
    return {name: value for name, value in parts[0].items() if not name.startswith("_")}


def _family(path, settings, models, wanted):
    """The family whose settings these are."""
    keys = set(settings) - set(_COMPONENTS)
    names = {name: setting_names(model) for name, model in image_models(models).items()}
    fitting = [name for name, known in names.items() if known == keys]
    # Settings that came later are missing in checkpoints of older versions.
    fitting = fitting or [name for name, known in names.items() if keys < known]
    listed = ", ".join(sorted(keys)) or "none"
    if wanted is not None:
        wanted = FAMILIES[wanted]
        if wanted.class_name in fitting:
            return wanted
        if len(fitting) == 1:
            found = family_of_class(fitting[0])
            found = fitting[0] if found is None else found.name
            raise ValueError(f"{path} is a checkpoint of {found!r}, not of {wanted.name!r}")
        raise ValueError(f"{path} is not a checkpoint of {wanted.name!r}; its settings: {listed}")
    if len(fitting) != 1:
        candidates = [f.name for f in FAMILIES.values() if f.class_name in fitting]
        hint = f"; pass family=, one of: {', '.join(candidates)}" if candidates else ""
        raise ValueError(
            f"{path} holds settings of no known image model of anomalib ({listed}){hint}"
        )
    family = family_of_class(fitting[0])
    if family is None:
        raise ValueError(_refused(path, fitting[0]))
    return family


def _refused(path, class_name):
    reason = UNSUPPORTED.get(class_name, "it is none of anomalib's image models")
    return f"{path} is a {class_name}, which cannot be used to score images: {reason}"


def _build(path, content, settings, model, family):
    """The model with its own settings and pre-processor, and random weights."""
    pre = import_optional("anomalib.pre_processing", "anomalib", _USER)
    spec = import_optional("anomalib.pre_processing.utils.spec", "anomalib", _USER)
    arguments = {**settings, "evaluator": False, "visualizer": False}
    enabled = content.get("anomalib_components_enabled") or {}
    config = content.get("anomalib_pre_processor_config")
    try:
        # Before the model is built: several constructors ask it for the size of the input.
        if not enabled.get("pre_processor", True):
            arguments["pre_processor"] = False
        elif config is not None:
            arguments["pre_processor"] = pre.PreProcessor(
                spec.spec_to_transform(config["transform"])
            )
        known = inspect.signature(model.__init__).parameters
        arguments = {name: value for name, value in arguments.items() if name in known}
        with timm_unchanged(), without_downloads(), same_random_state(), quiet():
            with empty_folder() as folder:
                if family.data_folder is not None:
                    arguments[family.data_folder] = folder
                module = model(**arguments)
            module.on_load_checkpoint(content)
    except ImportError:
        raise
    except Exception as exc:
        reason = " ".join(str(exc).split())[:300]
        raise ValueError(
            f"{path}: {family.title} could not be built from the settings in the checkpoint "
            f"({type(exc).__name__}: {reason})"
        ) from exc
    return module


def _fill(path, content, module):
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
            f"{path} lacks weights, which would have been random: {_some(missing)}. It was not "
            "written by anomalib's training, or by a version that saved less"
        )
    if surplus:
        raise ValueError(
            f"{path} holds weights that its settings have no place for: {_some(surplus)}. It was "
            "written by another version of anomalib"
        )


def _some(names):
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _restore_winclip(module, path):
    """What WinCLIP keeps elsewhere than in its weights."""
    buffers = import_optional("anomalib.models.components.base.buffer_list", "anomalib", _USER)
    model = module.model
    if not model._text_embeddings.numel():
        raise ValueError(
            f"{path} was saved before WinCLIP knew the name of the object; run engine.validate or "
            "engine.predict with class_name=, and save it again"
        )
    # It counts its reference images only when they are given to it.
    model.k_shot = len(model._patch_embeddings)
    # anomalib keeps these lists on a class that all models share: the latest one sets the length.
    lists = ("masks", "_visual_embeddings")
    own = {name: buffers.BufferListDescriptor(name, len(model.scales)) for name in lists}
    model.__class__ = type(type(model).__name__, (type(model),), own)


def _ready(module, device, path):
    """A loaded model for inference; says so when it does not look at whole images."""
    if type(module).__name__ == "WinClip":
        _restore_winclip(module, path)
    backend = ModuleBackend(module, device, str(path))
    height, width = seen(backend.transform, (1000, 1000))
    if min(height, width) < 1:
        warnings.warn(
            f"the pre-processor in {path} crops: this model sees only the middle {height:.0%} of "
            f"the height and {width:.0%} of the width of an image. Defects outside are not found; "
            "their place in the maps has the lowest value of the map",
            UserWarning,
            stacklevel=3,
        )
    return backend
