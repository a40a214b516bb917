"""Prompts of normal and of anomalous things, and the features of their texts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from skanomaly._networks.loading import weights_key
from skanomaly._typing import ArrayLike, FloatArray, PathLike
from skanomaly.core.prompts import average_texts

# Classes whose text features are kept in memory by the process. They live here rather than on the
# scorers, so that a clone of a scorer, as in a grid search, encodes no text again.
MAX_CLASSES = 64
_features: OrderedDict[tuple, FloatArray] = OrderedDict()
_scales: dict[tuple, float] = {}
_lock = threading.RLock()

_NORMAL = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
_ANOMALY = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")


def _templates():
    """The 21 templates of WinCLIP, of which a state takes the place of ``{}``."""
    kinds = ("photo", "close-up photo", "bright photo", "dark photo", "blurry photo")
    templates = ["a cropped photo of the {}."]
    for article in ("a", "the"):
        templates += [f"a {kind} of {article} {{}}." for kind in (*kinds, "jpeg corrupted photo")]
        templates += [f"a photo of {article} {size} {{}}." for size in ("small", "large")]
        templates += [
            f"a photo of {article} {{}} for {purpose}."
            for purpose in ("visual inspection", "anomaly detection")
        ]
    return templates


# State by state, all templates.
BANKS = {
    "winclip": {
        "normal": [t.replace("{}", state) for state in _NORMAL for t in _templates()],
        "anomaly": [t.replace("{}", state) for state in _ANOMALY for t in _templates()],
    },
    "clip_ac": {"normal": ["normal {}"], "anomaly": ["anomalous {}"]},
}


def prompt_texts(
    prompts: Mapping[str, Sequence[str]] | str | None, class_name: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts of a class, normal and anomalous ones.

    Parameters
    ----------
    prompts : None, str or dict
        None is ``"winclip"``; a str is the name of a bank; a dict has the lists of str
        ``"normal"`` and ``"anomaly"``.
    class_name : str
        Takes the place of ``{}`` in each prompt.

    Returns
    -------
    normal, anomaly : tuple of str

    Raises
    ------
    ValueError
        For an unknown bank, keys that miss or are unknown, or no or empty prompts.
    """
    if not class_name.strip():
        raise ValueError("class_name is empty; name what the images show, such as 'bottle'")
    if prompts is None:
        prompts = "winclip"
    if isinstance(prompts, str):
        if prompts not in BANKS:
            close = get_close_matches(prompts, BANKS, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"prompts={prompts!r} is no bank of prompts; {hint}Known: {', '.join(BANKS)}. For "
                'prompts of your own pass {"normal": [...], "anomaly": [...]}'
            )
        prompts = BANKS[prompts]
    if set(prompts) != {"normal", "anomaly"}:
        raise ValueError(
            f"prompts must have the keys 'normal' and 'anomaly', got {sorted(map(str, prompts))}"
        )
    return tuple(_fill(prompts[key], key, class_name) for key in ("normal", "anomaly"))


def _fill(prompts, key, class_name):
    if not isinstance(prompts, (list, tuple)):
        raise ValueError(f"prompts[{key!r}] must be a list of str, got {prompts!r}")
    if len(prompts) == 0:
        raise ValueError(f"prompts[{key!r}] is empty; give at least one prompt")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, str) or not prompt.strip():
            raise ValueError(f"prompts[{key!r}][{i}] must be a text, got {prompt!r}")
    return tuple(str(prompt).replace("{}", class_name) for prompt in prompts)


def encode_prompts(
    model_name: str,
    weights: PathLike,
    normal: Sequence[str],
    anomaly: Sequence[str],
    *,
    device: str,
    user: str,
) -> FloatArray:
    """Directions of two ensembles of texts, encoded at first use.

    Parameters
    ----------
    model_name : str
        Of open_clip.
    weights : str or os.PathLike
        As of :class:`skanomaly.OpenClipPatches`.
    normal, anomaly : tuple of str
        The exact texts.
    device : str
        Where to encode; the features do not depend on it.
    user : str
        What needs them, for error messages.

    Returns
    -------
    ndarray of shape (2, dim), float64
        Unit vectors, read-only: normal, anomaly.
    """
    key = (model_name, weights_key(weights), normal, anomaly)
    with _lock:
        if key not in _features:
            features = single_features(
                model_name, weights, [*normal, *anomaly], device=device, user=user
            )
            directions = np.stack(
                [
                    average_texts(features[: len(normal)], "the features of the normal prompts"),
                    average_texts(features[len(normal) :], "the features of the anomaly prompts"),
                ]
            )
            directions.flags.writeable = False
            _features[key] = directions
        _features.move_to_end(key)
        while len(_features) > MAX_CLASSES:
            _features.popitem(last=False)
        return _features[key]


def single_features(
    model_name: str, weights: PathLike, texts: Sequence[str], *, device: str, user: str
) -> FloatArray:
    """Features of single texts, encoded whenever they are asked for.

    Parameters
    ----------
    model_name, weights, device, user
        As for :func:`encode_prompts`.
    texts : sequence of str
        The exact texts.

    Returns
    -------
    ndarray of shape (n_texts, dim)
    """
    from skanomaly._networks import openclip

    return np.asarray(
        openclip.text_features(model_name, weights, list(texts), device=device, user=user)
    )


def given_features(
    normal: ArrayLike | None, anomaly: ArrayLike | None, prompts: object
) -> FloatArray:
    """Directions of features that take the place of prompts.

    Parameters
    ----------
    normal, anomaly : array-like of shape (dim,) or (n_texts, dim), or None
        As of :class:`skanomaly.PromptScorer`.
    prompts : object
        Must be None.

    Returns
    -------
    ndarray of shape (2, dim), float64
        Unit vectors: normal, anomaly.

    Raises
    ------
    ValueError
        When one is missing, prompts are given too, or the dimensions differ.
    """
    if normal is None or anomaly is None or prompts is not None:
        raise ValueError(
            "give text_features_normal and text_features_anomaly, or else prompts: "
            "features take the place of all prompts"
        )
    units = [
        average_texts(normal, "text_features_normal"),
        average_texts(anomaly, "text_features_anomaly"),
    ]
    if len(units[0]) != len(units[1]):
        raise ValueError(
            f"text_features_normal is of dimension {len(units[0])}, text_features_anomaly of "
            f"{len(units[1])}"
        )
    return np.stack(units)


def model_logit_scale(model_name: str, weights: PathLike, *, device: str, user: str) -> float:
    """The inverse temperature that a model was trained with; asked of it once.

    Parameters
    ----------
    model_name, weights, device, user
        As for :func:`encode_prompts`.

    Returns
    -------
    float
    """
    from skanomaly._networks import openclip

    key = model_name, weights_key(weights)
    with _lock:
        if key not in _scales:
            _scales[key] = float(
                openclip.logit_scale(model_name, weights, device=device, user=user)
            )
        return _scales[key]


def text_weight_files(
    model_name: str, weights: PathLike, fetch: bool, user: str, texts: bool
) -> tuple[str | None, list[Path]] | None:
    """The files of the weights that encode texts.

    Parameters
    ----------
    model_name, weights, user
        As for :func:`encode_prompts`.
    fetch : bool
        Download what is missing.
    texts : bool
        Whether there are texts still to be encoded.

    Returns
    -------
    tuple or None
        As from :func:`skanomaly._networks.openclip_weights.weight_files`.
    """
    from skanomaly._networks.openclip_weights import weight_files

    return weight_files(model_name, weights, fetch, user, texts)


def image_tower(
    model_name: str, weights: PathLike, *, device: str, user: str
) -> tuple[object, object]:
    """What the origin of tokens says of its model, of the one that encodes the texts.

    Parameters
    ----------
    model_name, weights, device, user
        As for :func:`encode_prompts`.

    Returns
    -------
    digest : str
        Of the weights of the image tower.
    architecture : str
        Of the model.
    """
    from skanomaly._networks import openclip

    model = openclip.load_model(model_name, weights, device=device, user=user)
    return model.digest, model.config
