"""Loading of open_clip's models, and their text side."""

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from skanomaly._networks.loading import LoadedModel, load_once, resolve_device, weights_key
from skanomaly._networks.openclip_towers import for_size, reductions
from skanomaly._networks.openclip_weights import (
    build_open_clip,
    check_names,
    download,
    preprocessing,
    reason,
    tag_config,
)
from skanomaly._optional import import_optional

_MAX_SIZES = 32  # input sizes for which a model keeps its position embedding
_TEXT_BATCH = 128
_lock = threading.Lock()


@dataclass(frozen=True)
class OpenClipModel(LoadedModel):
    """An image tower ready for inference, with the model it belongs to.

    Attributes
    ----------
    clip : torch.nn.Module
        The whole model, whose image tower `module` is.
    reductions : tuple of int
        Pixels of the image per cell of the grid, of each layer.
    config : str
        Architecture, in JSON.
    """

    clip: object
    reductions: tuple
    config: str
    _sized: OrderedDict = field(default_factory=OrderedDict, init=False, compare=False)

    @property
    def transformer(self):
        return getattr(self.module, "trunk", self.module)

    def visual(self, height, width):
        """The image tower for inputs of that size; all share the weights.

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
            while len(self._sized) > _MAX_SIZES:
                self._sized.popitem(last=False)
            return self._sized[height, width]


def load_model(model_name, weights, *, device="auto", user="OpenClipPatches"):
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
    config, kind, weights = check_names(model_name, weights, user)
    device = str(resolve_device(device))
    source = weights
    if kind == "file":
        source = weights_key(Path(weights).expanduser().resolve())
    if kind == "tag":
        # The activation is the weights' own, whatever the name of the model says.
        config["quick_gelu"] = bool(tag_config(model_name, weights, user).get("quick_gelu"))
    architecture = json.dumps(config, sort_keys=True)
    key = ("open_clip", model_name, architecture, source, device)

    def build():
        clip = build_open_clip(model_name, weights, kind, config, user)
        clip = clip.eval().requires_grad_(False).to(device)
        visual, cfg = clip.visual, preprocessing(model_name, weights, kind, user)
        steps = reductions(visual)
        size, cell = np.max(visual.image_size), max(steps)
        return OpenClipModel(
            module=visual,
            mean=tuple(cfg["mean"]),
            std=tuple(cfg["std"]),
            interpolation=cfg["interpolation"],
            # SigLIP's 384 is no multiple of its patch of 14 pixels.
            image_size=max(1, int(size // cell)) * cell,
            cell=cell,
            hierarchical=len(set(steps)) > 1,
            clip=clip,
            reductions=steps,
            config=architecture,
        )

    return load_once(key, build)


def text_features(model_name, weights, texts, *, device="auto", user="PromptScorer"):
    """Encode texts with the model's own tokenizer.

    Parameters
    ----------
    model_name : str
        A name from ``open_clip.list_models()``.
    weights : str or os.PathLike
        As for :func:`load_model`.
    texts : sequence of str
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
    texts = None if isinstance(texts, (str, bytes)) else list(texts)
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise TypeError("texts must be a list of strings")
    if not texts:
        raise ValueError("there is no text to encode")
    model = load_model(model_name, weights, device=device, user=user)
    torch = import_optional("torch", "clip", user)
    tokens = _tokenize(model_name, texts, user)
    device, features = resolve_device(device), []
    with torch.no_grad():
        for part in tokens.split(_TEXT_BATCH):
            encoded = model.clip.encode_text(part.to(device), normalize=False)
            features.append(encoded.float().cpu().numpy())
    return np.concatenate(features)


def logit_scale(model_name, weights, *, device="auto", user="PromptScorer"):
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


def fetch_weights(model_name, weights):
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


def _tokenizer(model_name, user):
    open_clip = import_optional("open_clip", "clip", user)
    if open_clip.get_model_config(model_name)["text_cfg"].get("hf_tokenizer_name"):
        import_optional("transformers", "clip", f"the tokenizer of {model_name}")
    try:
        return open_clip.get_tokenizer(model_name)
    except Exception as exc:
        raise OSError(
            f"the tokenizer of {model_name} could not be had ({reason(exc)}). Connect once to "
            "download it into HF_HOME; HF_HUB_OFFLINE=1 then forbids further attempts"
        ) from exc


def _tokenize(model_name, texts, user):
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
