"""The door to open_clip: loading of its models, and their text side.

`openclip_weights.py`, which knows its names and files, and `openclip_towers.py` and
`openclip_joint.py`, which know the inside of its image towers, stand behind it.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skanomaly._networks.loading import load_once, resolve_device, tag_and_file, weights_key
from skanomaly._networks.network import LoadedModel, Preprocessing
from skanomaly._networks.openclip_towers import for_size, plain_tower, reductions, transformer
from skanomaly._networks.openclip_weights import (
    build_open_clip,
    check_names,
    download,
    preprocessing,
    reason,
    tag_config,
)
from skanomaly._optional import import_optional
from skanomaly._typing import PathLike

if TYPE_CHECKING:
    import torch

MAX_SIZES = 32  # input sizes for which a model keeps its position embedding
TEXT_BATCH = 128
_lock = threading.Lock()


@dataclass(frozen=True)
class OpenClipModel(LoadedModel):
    """An image tower ready for inference, with the model it belongs to.

    Attributes
    ----------
    clip : torch.nn.Module
        The whole model, whose image tower `module` is.
    config : str
        Architecture, in JSON.
    """

    clip: Any = None
    config: str = ""
    _sized: OrderedDict[tuple[int, int], Any] = field(
        default_factory=OrderedDict, init=False, compare=False
    )

    @property
    def transformer(self) -> Any:
        """The tower itself, or the network of timm in it."""
        return transformer(self.module)

    def sized(self, height: int, width: int) -> Any:
        """The image tower for inputs of that size in pixels; all share the weights.

        Where there is a position embedding, it is interpolated as by ``force_image_size``.
        """
        native = self.module.image_size
        native = tuple(native) if isinstance(native, (tuple, list)) else (native, native)
        if (height, width) == native:
            return self.module
        torch = import_optional("torch", "clip", "another image size")
        with _lock, torch.inference_mode(False), torch.no_grad():
            if (height, width) not in self._sized:
                self._sized[height, width] = for_size(self.module, height, width)
            self._sized.move_to_end((height, width))
            while len(self._sized) > MAX_SIZES:
                self._sized.popitem(last=False)
            return self._sized[height, width]


def load_model(
    model_name: str, weights: PathLike, *, device: str = "auto", user: str = "OpenClipPatches"
) -> OpenClipModel:
    """A model of open_clip in float32, loaded at first use and then shared.

    Parameters
    ----------
    model_name : str
        A name from ``open_clip.list_models()``.
    weights : str or os.PathLike
        A tag that open_clip has for this model, ``"pretrained"`` for the first of them, a local
        weight file, or ``"random"`` for weights from a fixed seed.
    device : str, default="auto"
        As for the embedders.
    user : str, default="OpenClipPatches"
        What needs it, for error messages.

    Returns
    -------
    OpenClipModel

    Raises
    ------
    ImportError
        When open_clip is missing, or what the text tower of the model needs besides.
    ValueError
        For a name or a tag that open_clip does not have, or a file that is not exactly this
        model's weights.
    OSError
        When the weights cannot be downloaded.
    """
    import_optional("torch", "clip", user)
    weights, kept = tag_and_file(weights)
    config, kind, weights = check_names(model_name, weights, user)
    device = str(resolve_device(device))
    source: Any = os.fspath(weights)
    if kind == "file":
        source = weights_key(Path(weights).expanduser())
    if kept is not None:
        source = source, weights_key(kept)
    if kind == "tag":
        # The activation is the weights' own, whatever the name of the model says.
        config["quick_gelu"] = bool(tag_config(model_name, weights, user).get("quick_gelu"))
    architecture = json.dumps(config, sort_keys=True)
    key = ("open_clip", model_name, architecture, source, device)

    def build() -> OpenClipModel:
        clip = build_open_clip(model_name, weights, kind, config, user, kept)
        clip = clip.eval().requires_grad_(False).to(device)
        visual, cfg = clip.visual, preprocessing(model_name, weights, kind, user)
        steps = reductions(visual)
        size, cell = np.max(visual.image_size), max(steps)
        of_images = Preprocessing(
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
            interpolation=cfg["interpolation"],
            # SigLIP's 384 is no multiple of its patch of 14 pixels.
            image_size=max(1, int(size // cell)) * cell,
            cell=cell,
        )
        return OpenClipModel(
            visual, of_images, steps, plain_tower(visual), clip=clip, config=architecture
        )

    return load_once(key, build)


def text_features(
    model_name: str,
    weights: PathLike,
    texts: Iterable[str],
    *,
    device: str = "auto",
    user: str = "PromptScorer",
) -> np.ndarray:
    """Encode texts with the model's own tokenizer.

    Parameters
    ----------
    model_name : str
        A name from ``open_clip.list_models()``.
    weights : str or os.PathLike
        As for :func:`load_model`.
    texts : iterable of str
        Each short enough for the model's context.
    device : str, default="auto"
        As for the embedders.
    user : str, default="PromptScorer"
        What needs them, for error messages.

    Returns
    -------
    ndarray of shape (n_texts, dim), float32
        In the joint space, not normalised.

    Raises
    ------
    ValueError
        When there is no text, or one is longer than the model reads.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError("texts must be a list of strings")
    texts = list(texts)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("texts must be a list of strings")
    if not texts:
        raise ValueError("there is no text to encode")
    model = load_model(model_name, weights, device=device, user=user)
    torch = import_optional("torch", "clip", user)
    tokens = _tokenize(model_name, texts, user)
    place, features = resolve_device(device), []
    with torch.no_grad():
        for part in tokens.split(TEXT_BATCH):
            encoded = model.clip.encode_text(part.to(place), normalize=False)
            features.append(encoded.float().cpu().numpy())
    return np.concatenate(features)


def logit_scale(
    model_name: str, weights: PathLike, *, device: str = "auto", user: str = "PromptScorer"
) -> float:
    """Factor by which the model multiplies cosine similarities before a softmax.

    Parameters
    ----------
    model_name, weights, device, user
        As for :func:`text_features`.

    Returns
    -------
    float
    """
    model = load_model(model_name, weights, device=device, user=user)
    return float(model.clip.logit_scale.exp().item())


def fetch_weights(model_name: str, weights: PathLike) -> Path:
    """Download the weights of a tag, and the tokenizer where the model has its own.

    Parameters
    ----------
    model_name : str
        A name from ``open_clip.list_models()``.
    weights : str
        A tag that open_clip has for this model.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        For a name or a tag that open_clip does not have.
    OSError
        When it cannot be downloaded.
    """
    user = "fetching weights"
    config, kind, weights = check_names(model_name, weights, user)
    if kind != "tag":
        raise ValueError(f"weights={weights!r} is no tag: there is nothing to download")
    path = download(model_name, weights, user)
    if config["text_cfg"].get("hf_tokenizer_name"):
        _tokenizer(model_name, user)
    return path


def _tokenizer(model_name: str, user: str) -> Any:
    open_clip = import_optional("open_clip", "clip", user)
    if open_clip.get_model_config(model_name)["text_cfg"].get("hf_tokenizer_name"):
        import_optional("transformers", "clip", f"the tokenizer of {model_name}")
    try:
        return open_clip.get_tokenizer(model_name)
    except Exception as exc:
        raise OSError(
            f"the tokenizer of {model_name} could not be loaded ({reason(exc)}). Connect once to "
            "download it into HF_HOME; HF_HUB_OFFLINE=1 then forbids further attempts"
        ) from exc


def _tokenize(model_name: str, texts: list[str], user: str) -> torch.Tensor:
    """(n_texts, context_length) tokens; a text that the tokenizer would cut is an error."""
    tokenizer = _tokenizer(model_name, user)
    tokens = tokenizer(texts)
    length = tokens.shape[1]
    longer = tokenizer([*texts, ""], context_length=length + 1)
    cut = (longer[:-1, -1] != longer[-1, -1]).nonzero().flatten().tolist()
    if cut:
        raise ValueError(
            f"text {cut[0]} is longer than the {length} tokens that {model_name} reads: "
            f"{texts[cut[0]]!r}"
        )
    return tokens
