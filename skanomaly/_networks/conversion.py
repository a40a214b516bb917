"""Models converted for another runtime: made once, kept on disk, checked against torch."""

import contextlib
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

from skanomaly._cache import cache_key
from skanomaly._images import resize_image
from skanomaly._optional import import_optional
from skanomaly.datasets import make_surfaces

# Conversions that are kept on disk; the least recently used go.
MAX_KEPT = 16
# Largest median of 1 - cosine between the tokens of a conversion and those of torch in float32.
_TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-3, "int8": 0.2}


def exports_folder():
    """Folder of the converted models: ``XDG_CACHE_HOME``, or else the platform's for caches."""
    if os.environ.get("XDG_CACHE_HOME"):
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "skanomaly" / "exports"


def stored(parts, build, save, load):
    """A converted model: from disk if it is there, else built and saved.

    Parameters
    ----------
    parts : dict
        Everything that it depends on.
    build : callable
        Converts the model.
    save : callable
        ``save(model, folder)`` writes it into an empty folder.
    load : callable
        ``load(folder)`` reads it; raises where it is missing or damaged.

    Returns
    -------
    object
        What `build` or `load` returns.
    """
    folder = exports_folder() / cache_key(**parts)
    if folder.is_dir():
        with contextlib.suppress(Exception):  # whatever is wrong with it, it is made anew
            model = load(folder)
            with contextlib.suppress(OSError):
                os.utime(folder)
            return model
    model = build()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
        try:
            save(model, temporary)
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
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return model


def _prune(folder):
    kept = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing it
            if len(path.name) == 64:
                kept.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(kept, reverse=True)[MAX_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def identity(model, shape, layers, embedder):
    """What every conversion of a model depends on."""
    modules = {name: import_optional(name, "torch", "a conversion") for name in embedder._libraries}
    return {
        "embedder": type(embedder).__name__,
        "weights": model.digest,
        "shape": list(shape),
        "layers": list(layers),
        **embedder._graph(model),
        **{name: module.__version__ for name, module in modules.items()},
    }


@contextlib.contextmanager
def converting(model, shape, layers, embedder, runtime):
    """While a model is converted: what to convert, and what the converter cannot do said plainly.

    Parameters
    ----------
    model, shape, layers, embedder
        As for :func:`identity`.
    runtime : str
        For the message.

    Yields
    ------
    module : torch.nn.Module
        Its forward pass gives the maps of the layers.
    example : torch.Tensor of shape (1, 3, height, width)

    Raises
    ------
    RuntimeError
        When the converter fails.
    """
    torch = import_optional("torch", "torch", type(embedder).__name__)

    class Maps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = embedder._tower(model, shape)

        def forward(self, x):
            return tuple(m.contiguous() for m in embedder._forward(model, x, layers))

    module, example = Maps().eval(), torch.zeros((1, *shape[1:]))
    with torch.no_grad():
        module(example)  # an error of its own is none of the converter's
        try:
            yield module, example
        except Exception as exc:
            reason = " ".join(str(exc).split())[:300]
            raise RuntimeError(
                f"{embedder.model_name} could not be converted for runtime={runtime!r} "
                f"({type(exc).__name__}: {reason}); use runtime='torch'"
            ) from exc


def sample_inputs(model, shape, n, seed):
    """Pictures of machined parts as inputs of a model.

    Parameters
    ----------
    model : LoadedModel
        For its preprocessing.
    shape : tuple of int
        ``(B, 3, height, width)``; B is ignored.
    n, seed : int
        How many, and which.

    Returns
    -------
    torch.Tensor of shape (n, 3, height, width), float32
    """
    torch = import_optional("torch", "torch", "a conversion")
    images = make_surfaces(n, image_size=max(32, *shape[2:]), random_state=seed).images
    images = [resize_image(image, tuple(shape[2:]), model.interpolation) for image in images]
    mean, std = torch.tensor(model.mean), torch.tensor(model.std)
    x = torch.from_numpy(np.stack(images)).float() / 255
    return ((x - mean) / std).permute(0, 3, 1, 2).contiguous()


def check_export(function, model, shape, layers, embedder, runtime, dtype):
    """Raise when a converted model does not give the tokens of torch.

    Parameters
    ----------
    function : callable
        From a batch to maps.
    model, shape, layers, embedder
        As for :func:`identity`.
    runtime, dtype : str
        For the message, and for what may deviate.

    Raises
    ------
    RuntimeError
        When the median of 1 - cosine over the patches of a test image is too large.
    """
    torch = import_optional("torch", "torch", type(embedder).__name__)
    x = sample_inputs(model, shape, 1, seed=1)
    with torch.inference_mode():
        expected = embedder._forward(model, x, layers)
        for number, (one, other) in enumerate(zip(expected, function(x), strict=True)):
            cosine = torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=1)
            deviation = float((1 - cosine).median())
            if not deviation <= _TOLERANCE[dtype]:
                place = f"layer {layers[number]}" if number < len(layers) else "its windows"
                raise RuntimeError(
                    f"{embedder.model_name}, converted for runtime={runtime!r} in {dtype}, "
                    f"deviates from torch at {place}: median 1 - cosine {deviation:.1e}, "
                    f"{_TOLERANCE[dtype]:.0e} is the most; use runtime='torch'"
                )
