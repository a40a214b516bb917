"""Networks converted for another runtime: made once, kept on disk, checked against torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from platformdirs import user_cache_path

from skanomaly._cache import cache_key
from skanomaly._images import resize_image
from skanomaly._networks.network import Network
from skanomaly._optional import import_optional
from skanomaly._warn import warn_user
from skanomaly.datasets import make_surfaces

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T")

# Conversions that are kept on disk; the least recently used go.
MAX_KEPT = 16
# Largest median of 1 - cosine between the tokens of a conversion and those of torch in float32.
_TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-3, "int8": 0.2}


def conversions_folder() -> Path:
    """Folder of the converted networks, in the platform's folder for caches."""
    return user_cache_path("skanomaly", appauthor=False) / "exports"


def load_or_convert(
    parts: dict[str, object],
    convert: Callable[[], _T],
    save: Callable[[_T, Path], object],
    load: Callable[[Path], _T],
) -> _T:
    """A converted network: read from disk if it is there, else made and kept.

    Parameters
    ----------
    parts : dict
        Everything that it depends on.
    convert : callable
        Converts the network.
    save : callable
        ``save(converted, folder)`` writes it into an empty folder.
    load : callable
        ``load(folder)`` reads it; raises where it is missing or damaged.

    Returns
    -------
    object
        What `convert` or `load` returns.
    """
    folder = conversions_folder() / cache_key(**parts)
    if folder.is_dir():
        with contextlib.suppress(Exception):  # whatever is wrong with it, it is made anew
            converted = load(folder)
            with contextlib.suppress(OSError):
                os.utime(folder)
            return converted
    converted = convert()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        try:
            save(converted, temporary)
            shutil.rmtree(folder, ignore_errors=True)  # if it is there, it is damaged
            try:
                os.rename(temporary, folder)
            except OSError:  # of several kinds where another process was faster
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _prune(folder.parent)
    except (OSError, RuntimeError) as error:
        text = f"the converted model could not be kept in {folder.parent}: {error}"
        warn_user(text, RuntimeWarning)
    return converted


def _prune(folder: Path) -> None:
    kept = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing it
            if len(path.name) == 64:
                kept.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(kept, reverse=True)[MAX_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def conversion_parts(network: Network, shape: Sequence[int]) -> dict[str, object]:
    """What every conversion of a network depends on, for inputs of that (3, height, width)."""
    return {"shape": list(shape), **network.fingerprint(), **network.versions()}


@contextlib.contextmanager
def converting(
    network: Network, shape: Sequence[int], runtime: str
) -> Iterator[tuple[torch.nn.Module, torch.Tensor]]:
    """While a network is converted: what to convert, and what the converter cannot do said plainly.

    Parameters
    ----------
    network : Network
        What to convert.
    shape : sequence of int
        ``(B, 3, height, width)``; B is ignored.
    runtime : str
        For the message.

    Yields
    ------
    module : torch.nn.Module
        Its forward pass gives the maps of the network.
    example : torch.Tensor of shape (1, 3, height, width)

    Raises
    ------
    RuntimeError
        When the converter fails.
    """
    torch = import_optional("torch", "torch", "a conversion")

    class Maps(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            # Held so that the converter finds its weights.
            self.module = network.model.sized(*map(int, shape[2:]))

        def forward(self, x: Any) -> Any:
            return tuple(m.contiguous() for m in network.forward(network.model, x))

    module, example = Maps().eval(), torch.zeros((1, *shape[1:]))
    with torch.no_grad():
        module(example)  # an error of its own is none of the converter's
        try:
            yield module, example
        except Exception as exc:
            reason = " ".join(str(exc).split())[:300]
            raise RuntimeError(
                f"{network.name} could not be converted for runtime={runtime!r} "
                f"({type(exc).__name__}: {reason}); use runtime='torch'"
            ) from exc


def sample_inputs(network: Network, shape: Sequence[int], n: int, seed: int) -> torch.Tensor:
    """Pictures of machined parts as inputs of a network.

    Parameters
    ----------
    network : Network
        For its preprocessing.
    shape : sequence of int
        ``(B, 3, height, width)``; B is ignored.
    n, seed : int
        How many, and which.

    Returns
    -------
    torch.Tensor of shape (n, 3, height, width), float32
    """
    torch = import_optional("torch", "torch", "a conversion")
    height, width = map(int, shape[2:])
    images = make_surfaces(n, image_size=max(32, height, width), random_state=seed).images
    interpolation = network.preprocessing.interpolation
    images = [resize_image(image, (height, width), interpolation) for image in images]
    x = network.preprocessing.normalise(np.stack(images), torch.device("cpu"))
    return x.contiguous()


def check_conversion(
    function: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    network: Network,
    shape: Sequence[int],
    runtime: str,
    dtype: str,
) -> None:
    """Raise when a converted network does not give the tokens of torch.

    Parameters
    ----------
    function : callable
        From a batch to maps.
    network, shape
        As for :func:`converting`.
    runtime, dtype : str
        For the message, and for what may deviate.

    Raises
    ------
    RuntimeError
        When the median of 1 - cosine over the patches of a test image is too large.
    """
    torch = import_optional("torch", "torch", "a conversion")
    x = sample_inputs(network, shape, 1, seed=1)
    with torch.inference_mode():
        expected = network.forward(network.model, x)
        for number, (one, other) in enumerate(zip(expected, function(x), strict=True)):
            cosine = torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=1)
            deviation = float((1 - cosine).median())
            if not deviation <= _TOLERANCE[dtype]:
                known = number < len(network.layers)
                place = f"layer {network.layers[number]}" if known else "its image or windows"
                raise RuntimeError(
                    f"{network.name}, converted for runtime={runtime!r} in {dtype}, "
                    f"deviates from torch at {place}: median 1 - cosine {deviation:.1e}, "
                    f"{_TOLERANCE[dtype]:.0e} is the most; use runtime='torch'"
                )
