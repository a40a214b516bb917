"""Names, weight files and downloads of open_clip's models.

Seen in open_clip 3.0 to 3.3; `tests/_networks/test_doors.py` says which name of its inside is gone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from skanomaly._networks.hub import download_error, open_clip_file
from skanomaly._networks.loading import check_plain, read_weights, tag_and_file, unknown_weights
from skanomaly._optional import import_optional
from skanomaly._typing import PathLike


def check_names(
    model_name: str, weights: PathLike, user: str
) -> tuple[dict[str, Any], str, PathLike]:
    """Refuse names that open_clip does not have, and say what the weights are.

    Parameters
    ----------
    model_name : str
        A name from ``open_clip.list_models()``.
    weights : str or os.PathLike
        In this order: ``"random"``, ``"pretrained"``, a tag that open_clip has for this model, a
        local file.
    user : str
        What asks, for error messages.

    Returns
    -------
    config : dict
        Architecture of the model.
    kind : {"tag", "file", "random"}
    weights : str or os.PathLike
        The same, but the tag for ``"pretrained"``: the first that open_clip lists.
    """
    open_clip = import_optional("open_clip", "clip", user)
    config = open_clip.get_model_config(model_name) if ":" not in model_name else None
    if config is None:
        names = {name.lower(): name for name in open_clip.list_models()}
        close = [names[c] for c in get_close_matches(model_name.lower(), names, n=3, cutoff=0.5)]
        hint = f"; did you mean {', '.join(close)}?" if close else "."
        raise ValueError(
            f"open_clip has no model named {model_name!r}{hint} See open_clip.list_models()"
        )
    if weights == "random":
        return config, "random", weights
    text, tags = os.fspath(weights), open_clip.list_pretrained_tags_by_model(model_name)
    if text == "pretrained" and tags:
        return config, "tag", tags[0]
    if open_clip.is_pretrained_cfg(model_name, text):
        return config, "tag", text
    if Path(text).expanduser().is_file():
        return config, "file", weights
    raise unknown_weights(text, model_name, tags, "open_clip")


def weight_files(
    model_name: str, weights: PathLike, fetch: bool, user: str, texts: bool = False
) -> tuple[str | None, list[Path]] | None:
    """The files of the weights of a model, such as a model file takes in.

    Parameters
    ----------
    model_name, weights, user
        As for :func:`check_names`.
    fetch : bool
        Download what is missing.
    texts : bool, default=False
        Whether texts will be encoded.

    Returns
    -------
    tag : str or None
        As it was asked for; None of a file.
    files : list of pathlib.Path
        One, or none where it is not there.
    None in place of both for random weights.

    Raises
    ------
    ValueError
        With `fetch`, of a model that needs more than a file of weights.
    """
    tag, kept = tag_and_file(weights)
    config, kind, tag = check_names(model_name, tag, user)
    text = config["text_cfg"]
    more = text.get("hf_model_name") or (texts and text.get("hf_tokenizer_name"))
    if fetch and more and kind != "random":
        raise ValueError(
            f"{model_name} reads texts by {more} of transformers, which is downloaded besides its "
            "weights, and no model file holds"
            + ("" if text.get("hf_model_name") else f". Fit the {user} first: it keeps its texts")
        )
    if kept is not None:
        return os.fspath(weights).partition("@")[0], [kept]
    if kind != "tag":
        return None if kind == "random" else (None, [Path(weights).expanduser()])
    file: Any = open_clip_file(model_name, os.fspath(tag))  # of a tag, there is one
    path = download(model_name, tag, user) if fetch else file.cached()
    return os.fspath(weights), [] if path is None else [path]


def tag_config(model_name: str, weights: PathLike, user: str) -> dict[str, Any]:
    """What open_clip says of the weights of a tag."""
    open_clip = import_optional("open_clip", "clip", user)
    return open_clip.get_pretrained_cfg(model_name, os.fspath(weights))


def preprocessing(model_name: str, weights: PathLike, kind: str, user: str) -> dict[str, Any]:
    """Mean, standard deviation and interpolation: the tag's, or else the model's first tag's."""
    open_clip = import_optional("open_clip", "clip", user)
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if kind == "tag" or tags:
        return tag_config(model_name, weights if kind == "tag" else tags[0], user)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return {"mean": mean, "std": std, "interpolation": "bicubic"}


def build_open_clip(
    model_name: str,
    weights: PathLike,
    kind: str,
    config: dict[str, Any],
    user: str,
    kept: Path | None = None,
) -> Any:
    """Build a model with its weights.

    Parameters
    ----------
    model_name, weights, user
        As for :func:`check_names`.
    kind, config
        What that returned.
    kept : pathlib.Path, optional
        A file with what open_clip would download.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ValueError
        When a file does not hold exactly this model's weights.
    OSError
        When weights cannot be downloaded, or what was downloaded is damaged.
    """
    open_clip = import_optional("open_clip", "clip", user)
    torch = import_optional("torch", "clip", user)
    if config["text_cfg"].get("hf_model_name"):
        import_optional("transformers", "clip", f"the text tower of {model_name}")
    options, name = {}, f"{model_name}/{weights}"
    state = read_weights(weights, user) if kind == "file" else None
    if kind == "tag":
        path = download(model_name, weights, user) if kept is None else kept
        if kept is not None and kept.suffix not in (".npz", ".npy"):  # which it reads as arrays
            check_plain(kept, user)
        options = {"pretrained": str(path), "quick_gelu": config["quick_gelu"]}
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(0)
        try:
            clip = open_clip.create_model(model_name, pretrained_text=False, **options)
        except OSError as exc:
            raise download_error(name, exc) from exc
        except Exception as exc:
            if kind != "tag":
                raise
            raise OSError(
                f"the pretrained weights of {name} at {path} could not be loaded "
                f"({reason(exc)}); remove the file to download it again"
            ) from exc
    if kind == "file":
        _load_state(clip, state, weights, model_name)
    return clip


def _load_state(clip, state, path, model_name):
    """Load exactly this model's tensors, under the names of any version of open_clip."""
    factory = import_optional("open_clip.factory", "clip", "a weight file")
    if all(name.startswith("module.") for name in state):  # saved by several processes
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    try:
        state = factory.convert_state_dict(clip, dict(state))
        if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
            state = factory.convert_to_custom_text_state_dict(state)
        for name in ("logit_scale", "logit_bias"):  # scalars or of one element, by the version
            if name in state and getattr(clip, name, None) is not None:
                state[name] = state[name].reshape(getattr(clip, name).shape)
        clip.load_state_dict(state, strict=True)
    except (RuntimeError, KeyError, AttributeError) as exc:
        message = f"{path} does not hold the weights of {model_name}: {reason(exc)}"
        raise ValueError(message) from exc


def download(model_name: str, weights: PathLike, user: str) -> Path:
    """Path of the weights of a tag, downloaded where they are not yet there."""
    open_clip = import_optional("open_clip", "clip", user)
    file: Any = open_clip_file(model_name, os.fspath(weights))  # of a tag, there is one
    file.check_available()
    try:
        return Path(open_clip.download_pretrained(tag_config(model_name, weights, user)))
    except Exception as exc:
        raise download_error(file.name, exc, file.place()) from exc


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's warning of random weights, which are asked for or replaced."""

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    logger = logging.getLogger()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


def reason(exc: Exception) -> str:
    """An error in one line."""
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"
