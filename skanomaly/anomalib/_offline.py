"""The second half of the door to anomalib: models without trained weights, and without a network.

A checkpoint holds all weights, and they are loaded strictly once its model is built. Yet anomalib's
constructors would first download the weights that training started from. Most families have a
setting against it, ``pre_trained=False``. The others, in :data:`HARD_CODED`, have none: while a
model of one of them is built, a name in one of *anomalib's* modules stands for something else, for
the building thread alone. timm, torch, torchvision and open_clip stay as they are.
"""

from __future__ import annotations

import inspect
import random
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

from skanomaly._networks.positions import bind_positions
from skanomaly._optional import import_optional
from skanomaly.anomalib._families import Family
from skanomaly.anomalib._opening import BUILDING, USER, attribute, quiet

_EXTRACTOR = "anomalib.models.components.feature_extractors.timm"
_IMAGE = "anomalib.models.image"
_FOUNDAD = f"{_IMAGE}.foundad.components.encoder_loader"

# anomalib switches antialiasing off in timm, for the whole process, where it builds on a vision
# transformer: keep_positions does it for the one network instead.
_ALWAYS = (
    (_EXTRACTOR, "_disable_pos_embed_antialiasing"),
    (_FOUNDAD, "_disable_pos_embed_antialiasing"),
)
# Families whose constructor asks for trained weights, whatever its settings say, and the names
# through which it does. The feature extractor is one class for most of them.
HARD_CODED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "anomaly_dino": ((_EXTRACTOR, "timm"),),
    "anomalyvfm": (
        (f"{_IMAGE}.anomalyvfm.torch_model", "hf_hub_download"),
        (f"{_IMAGE}.anomalyvfm.torch_model", "load_file"),
        (f"{_IMAGE}.anomalyvfm.lightning_model", "AnomalyVFMModel"),
    ),
    "cfa": ((f"{_IMAGE}.cfa.torch_model", "torchvision"),),
    "csflow": ((f"{_IMAGE}.csflow.torch_model", "EfficientNet_B5_Weights"),),
    "dinomaly": ((_EXTRACTOR, "timm"),),
    "foundad": ((_FOUNDAD, "timm"),),
    "inp_former": ((_EXTRACTOR, "timm"),),
    "l2bt": ((_EXTRACTOR, "timm"),),
    "stfpm": ((_EXTRACTOR, "timm"),),
    "super_add": ((f"{_IMAGE}.super_add.torch_model", "timm"),),
    "supersimplenet": ((_EXTRACTOR, "timm"),),
    "uflow": ((_EXTRACTOR, "timm"), (f"{_IMAGE}.uflow.feature_extraction", "timm")),
    "uninet": ((f"{_IMAGE}.uninet.torch_model", "torchvision"),),
    "winclip": ((f"{_IMAGE}.winclip.torch_model", "open_clip"),),
}
# How timm's names of networks begin that are descriptions and weights of other places.
_ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")


def build_untrained(family: Family, model: Any, settings: Mapping[str, Any]) -> Any:
    """Build a model of anomalib with random weights; nothing is downloaded.

    Parameters
    ----------
    family : Family
        Of the model.
    model : type
        Its class in anomalib.
    settings : mapping of str to object
        Arguments of its constructor; those that it does not know are left out.

    Returns
    -------
    anomalib.models.AnomalibModule

    Raises
    ------
    ImportError
        When anomalib lacks a name that is used here; see ``_opening.py``.
    ValueError
        When a network is named that would have to be downloaded.
    Exception
        What the constructor raises, of whatever kind.
    """
    for value in settings.values():
        if isinstance(value, str) and value.startswith(_ELSEWHERE):
            raise ValueError(f"its network {value!r} would have to be downloaded")
    known = inspect.signature(model.__init__).parameters
    arguments = {name: value for name, value in settings.items() if name in known}
    if "pre_trained" in known:
        arguments["pre_trained"] = False
    with BUILDING, same_random_state(), quiet(), ExitStack() as stack:
        for module, name in (*_ALWAYS, *HARD_CODED.get(family.name, ())):
            stack.enter_context(_untrained_name(module, name))
        if family.data_folder is not None:  # the constructor insists on one
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="skanomaly_"))
            arguments[family.data_folder] = folder
        return model(**arguments)


def keep_positions(module: Any) -> None:
    """Give the vision transformers in a model anomalib's rule for position embeddings.

    anomalib interpolates them without antialiasing, which ONNX cannot express. Only these networks
    follow its rule; timm stays as it is.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    """
    layers = import_optional("timm.layers", "anomalib", USER)
    bind_positions(module, partial(layers.resample_abs_pos_embed, antialias=False))


@contextmanager
def same_random_state() -> Iterator[None]:
    """Leave the random numbers of torch, NumPy and Python as they were."""
    torch = import_optional("torch", "anomalib", USER)
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


# ---------------------------------------------------------------- names that mean something else
class _OtherMembers:
    """A module or a class with some other members, for the thread that made this."""

    def __init__(self, original: Any, **members: Any) -> None:
        self._original, self._members = original, members
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if name in self._members and threading.get_ident() == self._thread:
            return self._members[name]
        return getattr(self._original, name)


def _other_function(original: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """A function that is another one for the calling thread."""
    thread = threading.get_ident()

    def choose(*args: Any, **kwargs: Any) -> Any:
        chosen = function if threading.get_ident() == thread else original
        return chosen(*args, **kwargs)

    return choose


@contextmanager
def _untrained_name(module: str, name: str) -> Iterator[None]:
    """Let a name in a module of anomalib stand for what brings no trained weights."""
    original = attribute(module, name)
    owner = import_module(module)
    setattr(owner, name, _UNTRAINED[name](original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _untrained_timm(timm: Any) -> Any:
    def create_model(name: str, pretrained: bool = True, **kwargs: Any) -> Any:
        return timm.create_model(name, pretrained=False, **kwargs)

    return _OtherMembers(timm, create_model=create_model)


def _untrained_torchvision(torchvision: Any) -> Any:
    def no_weights(name: str) -> SimpleNamespace:
        return SimpleNamespace(DEFAULT=None)

    models = _OtherMembers(torchvision.models, get_model_weights=no_weights)
    return _OtherMembers(torchvision, models=models)


def _untrained_open_clip(open_clip: Any) -> Any:
    def create_model_and_transforms(name: str, **kwargs: Any) -> tuple[Any, Any, Any]:
        # open_clip's own function would say on the root logger that the weights are random.
        open_clip = import_optional("open_clip", "clip", USER)
        clip = open_clip.CLIP(**open_clip.get_model_config(name))
        size = clip.visual.image_size
        train, infer = (open_clip.image_transform(size, is_train=flag) for flag in (True, False))
        return clip, train, infer

    # Where open_clip is missing, it is None in anomalib's module.
    return _OtherMembers(open_clip, create_model_and_transforms=create_model_and_transforms)


def _untrained_anomaly_vfm(original: Any) -> Any:
    thread = threading.get_ident()

    kind: Any = type(original)

    class ForThisThread(kind):
        """Other threads get the original, by whatever they do with the name."""

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            return make() if threading.get_ident() == thread else original(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original)

    class Untrained(original):
        def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
            # The constructor loads what load_file gives: None, see _UNTRAINED.
            if state_dict is not None:
                return super().load_state_dict(state_dict, *args, **kwargs)

    def make() -> Any:
        model = Untrained()
        model.__class__ = original
        return model

    return ForThisThread(original.__name__, (original,), {})


def _returns_none(original: Callable[..., Any]) -> Any:
    return _other_function(original, lambda *args, **kwargs: None)


_UNTRAINED: Mapping[str, Callable[[Any], Any]] = {
    "AnomalyVFMModel": _untrained_anomaly_vfm,
    "EfficientNet_B5_Weights": partial(_OtherMembers, IMAGENET1K_V1=None),
    "_disable_pos_embed_antialiasing": _returns_none,
    "hf_hub_download": _returns_none,
    "load_file": _returns_none,
    "open_clip": _untrained_open_clip,
    "timm": _untrained_timm,
    "torchvision": _untrained_torchvision,
}
