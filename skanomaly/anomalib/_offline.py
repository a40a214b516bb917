"""Building anomalib's models without a network, and without changing timm for everybody else."""

import logging
import random
import tempfile
import threading
import warnings
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np

from skanomaly._networks.positions import bind_positions
from skanomaly._optional import import_optional

_USER = "AnomalibDetector"
# One model is built at a time: the replacements below are seen by the whole process.
BUILDING = threading.RLock()


@contextmanager
def _replaced(owner, name, value):
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


class _NoWeights(dict):
    """What a weight source returns while a model is built: a state that leaves it as it is."""


@contextmanager
def without_downloads():
    """Let anomalib's constructors build their networks with random weights.

    The weights are in the checkpoint, and loaded strictly afterwards. Only the calling thread is
    affected: other threads that load models meanwhile get what they ask for.
    """
    torch = import_optional("torch", "anomalib", _USER)
    timm = import_optional("timm", "anomalib", _USER)
    api = import_optional("torchvision.models._api", "anomalib", _USER)
    owner = threading.get_ident()

    def here(replacement, original):
        def dispatch(*args, **kwargs):
            chosen = replacement if threading.get_ident() == owner else original
            return chosen(*args, **kwargs)

        return dispatch

    create_model, load_state = timm.create_model, torch.nn.Module.load_state_dict

    def create_random(model_name, *args, **kwargs):
        if ":" in str(model_name):
            raise ValueError(f"its network {model_name!r} would have to be downloaded")
        return create_model(model_name, *args, **{**kwargs, "pretrained": False})

    def load_something(module, state_dict, *args, **kwargs):
        if isinstance(state_dict, _NoWeights):
            return None
        return load_state(module, state_dict, *args, **kwargs)

    def no_weights(*args, **kwargs):
        return _NoWeights()

    with BUILDING, ExitStack() as stack:

        def replace(place, name, replacement):
            dispatch = here(replacement, getattr(place, name))
            stack.enter_context(_replaced(place, name, dispatch))

        replace(timm, "create_model", create_random)
        replace(torch.nn.Module, "load_state_dict", load_something)
        replace(api.WeightsEnum, "get_state_dict", no_weights)
        vfm = import_optional("anomalib.models.image.anomalyvfm.torch_model", "anomalib", _USER)
        if hasattr(vfm, "hf_hub_download"):
            replace(vfm, "hf_hub_download", lambda *args, **kwargs: None)
            replace(vfm, "load_file", no_weights)
        winclip = import_optional("anomalib.models.image.winclip.torch_model", "anomalib", _USER)
        if winclip.open_clip is not None:
            create_clip = winclip.open_clip.create_model_and_transforms

            def create_random_clip(*args, **kwargs):
                with _quiet_root(owner):
                    return create_clip(*args, **{**kwargs, "pretrained": None})

            replace(winclip.open_clip, "create_model_and_transforms", create_random_clip)
        yield


@contextmanager
def _quiet_root(thread):
    """Drop what this thread logs on the root logger: that a network has random weights."""
    root, handler = logging.getLogger(), logging.NullHandler()

    def others(record):
        return record.thread != thread

    # With no handler at all, the first message would configure logging for the whole process.
    root.addHandler(handler)
    root.addFilter(others)
    try:
        yield
    finally:
        root.removeFilter(others)
        root.removeHandler(handler)


@contextmanager
def timm_unchanged():
    """Undo what anomalib does to timm: see :func:`keep_positions`."""
    vit = import_optional("timm.models.vision_transformer", "anomalib", _USER)
    with BUILDING, _replaced(vit, "resample_abs_pos_embed", vit.resample_abs_pos_embed):
        yield


def keep_positions(module):
    """Give the vision transformers in a model of anomalib its own rule for position embeddings.

    When anomalib builds a model on a timm transformer of any input size, it replaces timm's
    ``resample_abs_pos_embed`` in the whole process by one without antialiasing. Here timm stays as
    it is, and only these networks follow anomalib's rule.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place.
    """
    layers = import_optional("timm.layers", "anomalib", _USER)
    bind_positions(module, partial(layers.resample_abs_pos_embed, antialias=False))


@contextmanager
def same_random_state():
    """Leave the random numbers of torch, NumPy and Python as they were."""
    torch = import_optional("torch", "anomalib", _USER)
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


@contextmanager
def empty_folder():
    """A folder for constructors that insist on one."""
    with tempfile.TemporaryDirectory(prefix="skanomaly_") as folder:
        yield folder


@contextmanager
def quiet():
    """Silence what libraries warn of while a model is built or read; nothing is computed then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def import_anomalib():
    """``anomalib.models``; the import takes seconds, and libraries warn of each other in it."""
    with BUILDING, quiet():
        return import_optional("anomalib.models", "anomalib", _USER)
