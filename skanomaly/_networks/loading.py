"""Loading of models: a bounded cache of them, weight files, devices."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path

from skanomaly._networks.fast_vit import is_plain_vit
from skanomaly._optional import import_optional

# Models kept in memory by the process. They are keyed by what was asked for and live here rather
# than on the estimators, which stay small to pickle and cheap to clone.
MAX_MODELS = 3
MAX_DERIVED = 4  # forms of one model: other precisions, compiled for other sizes
_models = OrderedDict()
_lock = threading.RLock()


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for inference and the preprocessing it was trained with.

    Attributes
    ----------
    module : torch.nn.Module
        On its device, in its dtype, in evaluation mode.
    mean, std : tuple of float
        Of RGB values in [0, 1].
    interpolation : str
        Resampling filter.
    image_size : int
        Side of the square it was trained on, in pixels.
    cell : int
        Sides of an input must be multiples of this.
    hierarchical : bool
        Whether its layers have grids of different sizes (convolutional networks, Swin).
    """

    module: object
    mean: tuple
    std: tuple
    interpolation: str
    image_size: int
    cell: int
    hierarchical: bool

    @cached_property
    def digest(self):
        """sha256 of the weights, as they are used."""
        torch = import_optional("torch", "torch", "a pretrained model")
        digest = sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def derived(self, key, build):
        """What is made of the model for one way of running it, built at first use.

        It lives as long as the model; of more than `MAX_DERIVED` the least recently used go.

        Parameters
        ----------
        key : tuple
            Tells it from the others.
        build : callable
            Builds it, under a lock.
        """
        with _lock:
            if key not in self._derived:
                self._derived[key] = build()
            self._derived.move_to_end(key)
            while len(self._derived) > MAX_DERIVED:
                self._derived.popitem(last=False)
            return self._derived[key]

    @property
    def transformer(self):
        """The module that may be a plain vision transformer."""
        return self.module

    @cached_property
    def plain(self):
        """Whether it is a plain vision transformer, of which there is a fast form."""
        return is_plain_vit(self.transformer)

    @cached_property
    def _derived(self):
        return OrderedDict()


def load_once(key, build):
    """The model of that key, built at first use; the least recently used make room.

    Parameters
    ----------
    key : tuple
        Everything the model depends on.
    build : callable
        Builds it. Called under a lock: threads that ask for one model wait for one load.
    """
    with _lock:
        if key not in _models:
            _models[key] = build()
        _models.move_to_end(key)
        while len(_models) > MAX_MODELS:
            _models.popitem(last=False)
        return _models[key]


def weights_key(weights):
    """What identifies `weights`: the word, or the file with its size and time of change."""
    if weights in ("pretrained", "random"):
        return weights
    path = _existing(weights)
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def read_weights(weights, user):
    """Read the tensors of a local weight file without running any code from it.

    Parameters
    ----------
    weights : str or os.PathLike
        A ``.safetensors`` file, or a ``.pth``/``.pt``/``.bin`` file, which is read with
        ``weights_only=True``.
    user : str
        What reads it, for error messages.

    Returns
    -------
    dict of str to torch.Tensor

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it is not a weight file, or needs code to be run.
    """
    torch = import_optional("torch", "torch", user)
    path = _existing(weights)
    if path.suffix == ".safetensors":
        safetensors = import_optional("safetensors.torch", "torch", user)
        try:
            state = safetensors.load_file(path)
        except Exception as exc:
            raise ValueError(f"{path} is not a readable safetensors file: {exc}") from exc
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as exc:
            raise ValueError(
                f"{path} could not be read as plain tensors ({type(exc).__name__}); it is damaged, "
                "or a pickle that runs code, which is refused. Save the state_dict as .safetensors"
            ) from exc
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    # An empty one counts as none to timm, which then downloads what it would have replaced.
    tensors = list(state.values()) if isinstance(state, dict) else []
    if not tensors or not all(torch.is_tensor(value) for value in tensors):
        raise ValueError(f"{path} does not hold a state_dict: a dictionary of tensors by name")
    return state


def resolve_device(device):
    """A ``torch.device``; ``"auto"`` is CUDA, then Apple's MPS, then the CPU."""
    torch = import_optional("torch", "torch", "this embedder")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        _probe(str(chosen))
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        reason = str(exc).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used here: {reason}") from exc
    return chosen


@lru_cache(maxsize=16)
def _probe(device):
    """Raise what torch raises where the device cannot be used; asked once, not for each image."""
    import_optional("torch", "torch", "this embedder").empty(1, device=device).cpu()


def _existing(weights):
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={str(weights)!r} is neither 'pretrained' nor 'random' nor an existing file"
        )
    return path
