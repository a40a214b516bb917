"""Loading of models: a bounded cache of them, weight files, devices."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skanomaly._optional import import_optional
from skanomaly._stamps import file_stamp
from skanomaly._typing import PathLike

if TYPE_CHECKING:
    import torch

# Models kept in memory by the process. They are keyed by what was asked for and live here rather
# than on the estimators, which stay small to pickle and cheap to clone.
MAX_MODELS = 3
_models: OrderedDict[Hashable, Any] = OrderedDict()
_TAG = re.compile(r"[\w.-]+")
_lock = threading.RLock()


def load_once(key: Hashable, build: Callable[[], Any]) -> Any:
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


def weights_key(weights: PathLike) -> Hashable:
    """Key of `weights` in the cache: the word, or the file with what tells that it changed."""
    tag, file = tag_and_file(weights)
    if file is not None:
        return os.fspath(tag), file_stamp(file)
    if weights in ("pretrained", "random") or not Path(weights).expanduser().is_file():
        return os.fspath(weights)
    return file_stamp(weights)


def tag_and_file(weights: PathLike) -> tuple[PathLike, Path | None]:
    """Take ``"TAG@FILE"`` apart: the weights of a tag, in a file that need not be downloaded.

    What goes with the tag besides, such as mean and standard deviation, is the library's. Model
    files that hold their weights say it so.

    Parameters
    ----------
    weights : str or os.PathLike
        As given to an embedder.

    Returns
    -------
    weights : str or os.PathLike
        The tag or ``"pretrained"``; or what was given.
    file : pathlib.Path or None
        None where no file goes with a tag.

    Raises
    ------
    FileNotFoundError
        When there is no such file.

    Examples
    --------
    >>> from skanomaly._networks.loading import tag_and_file
    >>> tag_and_file("openai")
    ('openai', None)
    """
    if not isinstance(weights, (str, os.PathLike)):  # for its user to refuse
        return weights, None
    text = os.fspath(weights)
    tag, sign, name = text.partition("@")
    if not sign or not _TAG.fullmatch(tag) or Path(text).expanduser().is_file():
        return weights, None
    file = Path(name).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"weights={text!r} is for the weights {tag!r} in a file, and there is none at {file}. "
            "Where a model file brought them, load it again: that puts them back"
        )
    return tag, file


def check_plain(path: Path, user: str) -> None:
    """Raise where another library might run code from a file of weights to read it.

    Some versions of timm and open_clip read what is no ``.safetensors`` file as a pickle.

    Parameters
    ----------
    path : pathlib.Path
        Of the file.
    user : str
        What reads it, for error messages.

    Raises
    ------
    ValueError
        When it does not hold plain tensors.
    """
    if path.suffix != ".safetensors":
        _plain(path, import_optional("torch", "torch", user))


def _plain(path: Path, torch: Any) -> Any:
    """Content of a file of torch; no code from it is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:
        raise ValueError(
            f"{path} could not be read as plain tensors ({type(exc).__name__}); it is damaged, "
            "or a pickle that runs code, which is refused. Save the state_dict as .safetensors"
        ) from exc


def read_weights(weights: PathLike, user: str) -> dict[str, torch.Tensor]:
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
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"weights={os.fspath(weights)!r} is not an existing file")
    if path.suffix == ".safetensors":
        safetensors = import_optional("safetensors.torch", "torch", user)
        try:
            state = safetensors.load_file(path)
        except Exception as exc:
            raise ValueError(f"{path} is not a readable safetensors file: {exc}") from exc
    else:
        state = _plain(path, torch)
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    # An empty one counts as none to timm, which then downloads what it would have replaced.
    tensors = list(state.values()) if isinstance(state, dict) else []
    if not tensors or not all(torch.is_tensor(value) for value in tensors):
        raise ValueError(f"{path} does not hold a state_dict: a dictionary of tensors by name")
    return state


def resolve_device(device: str) -> torch.device:
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
def _probe(device: str) -> None:
    """Raise what torch raises where the device cannot be used; asked once, not for each image."""
    import_optional("torch", "torch", "this embedder").empty(1, device=device).cpu()


def unknown_weights(weights: str, model_name: str, tags: list[str], library: str) -> ValueError:
    """The one message for `weights` of which nothing is known.

    Parameters
    ----------
    weights, model_name : str
        As given to the embedder.
    tags : list of str
        What the library has for this model; of these, near ones are suggested.
    library : str
        Its name.

    Returns
    -------
    ValueError
    """
    near = {tag.lower(): tag for tag in tags}
    close = [near[tag] for tag in get_close_matches(weights.lower(), near, n=3, cutoff=0.5)]
    hint = f"; did you mean {', '.join(close)}?" if close else "."
    known = f"Tags: {', '.join(tags)}" if tags else f"{library} has no weights of this model"
    return ValueError(
        f"weights={weights!r} is neither 'pretrained' nor 'random', neither a tag of {model_name} "
        f"nor an existing file{hint} {known}"
    )
