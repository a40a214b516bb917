"""Similarity of patches to texts of normal and of anomalous things."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from sklearn.exceptions import NotFittedError

from skanomaly._docstrings import document
from skanomaly._origins import origin_of
from skanomaly._sklearn import Interval, StrOptions
from skanomaly._typing import ArrayLike, PathLike
from skanomaly.core.prompts import MODES, average_texts, prompt_patch_scores
from skanomaly.scorers._base import BasePatchScorer
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._prompt_bank import (
    encode_prompts,
    image_tower,
    model_logit_scale,
    prompt_texts,
    text_weight_files,
)
from skanomaly.scorers._winclip import check_token_dim, check_windows, winclip_scores

_CLIP_LOGIT_SCALE = 100.0
# What the text features and the scale depend on.
_TEXT_PARAMS = {
    "class_name",
    "prompts",
    "model_name",
    "weights",
    "text_features_normal",
    "text_features_anomaly",
    "logit_scale",
    "mode",
}

_Scorer = TypeVar("_Scorer", bound="PromptScorer")


@document(SCORER_DOCS)
class PromptScorer(BasePatchScorer):
    """Score patches by texts: zero-shot, without any normal image.

    Each patch is compared to texts of a normal and of a damaged thing, in the joint space of
    images and texts of a CLIP model. With `windows` this is WinCLIP [1]_.

    Parameters
    ----------
    class_name : str, default="object"
        What the images show; takes the place of ``{}`` in the prompts.
    prompts : dict, str or None, default=None
        ``{"normal": [...], "anomaly": [...]}``, with or without ``{}``, or the name of a bank:
        ``"winclip"`` (7 normal and 4 anomalous states in 21 templates) or ``"clip_ac"`` ("normal
        {}", "anomalous {}"). None is ``"winclip"``. Every text feature is brought to unit length;
        their mean, at unit length again, stands for the ensemble.
    model_name : str, default="ViT-B-16"
        Of open_clip, as of the embedder.
    weights : str or os.PathLike, default="pretrained"
        Weights, as of the embedder; tokens that are known to be of another model are an error.
    text_features_normal : array-like of shape (dim,) or (n_texts, dim), default=None
        Text features of normal things, in place of `prompts`; `class_name` is then not used.
    text_features_anomaly : array-like of shape (dim,) or (n_texts, dim), default=None
        Those of anomalous things; give both or none.
    mode : {"softmax", "diff", "ratio"}, default="softmax"
        Probability of the anomalous text, in [0, 1]; difference of cosines, in [-2, 2]; ratio of
        their exponentials, in [e^-2, e^2]. See :func:`skanomaly.core.prompts.prompt_patch_scores`.
    logit_scale : float or None, default=None
        Inverse temperature of the softmax. None: the model's own; 100, which is CLIP's, with text
        features that were passed in.
    windows : sequence of int or None, default=None
        Sides of the windows of WinCLIP, in patches, as of the embedder; the paper has ``(2, 3)``.
    %(topk)s
    aggregation : {"topk_mean", "max", "mean", "class_token"} or float, default="topk_mean"
        From patch scores to the image score; a float in [0, 1] is a quantile. ``"class_token"``,
        only with `windows`: the score of the class embedding, which is WinCLIP's.
    contamination : "auto" or float, default="auto"
        ``"auto"``: threshold at the probability 0.5, only for ``mode="softmax"``; no image is
        needed. A float in (0, 0.5]: share of normal images the threshold may flag; needs `fit`.
    device : str, default="auto"
        Where texts are encoded.

    Attributes
    ----------
    text_features_ : ndarray of shape (2, dim), float64
        Of the normal and the anomalous ensemble, unit vectors.
    logit_scale_ : float
        That of the softmax; other modes do not use it.
    train_scores_ : ndarray of shape (n_images,)
        Scores of the training images, as from `score_samples`.
    offset_ : float
        -0.5, or the `contamination` quantile of `train_scores_`.
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    Tokens must lie in the joint space: ``OpenClipPatches(model_name, project=True)``. A dimension
    that differs is an error, but models whose tokens have that of the joint space even unprojected
    cannot be told apart.

    `score_samples` and `score_patches` need no `fit` and follow the parameters as they are;
    nothing is learned from images, so scores of training images are held-out as they stand. A
    threshold of `fit` belongs to its class, and is refused after `set_class_name`.

    Features of the last texts are kept in memory for all scorers of the process.

    With ``windows=(2, 3)`` tokens are those of ``OpenClipPatches(project=True, windows=(2, 3))``:
    one after the other the embeddings of the patch, of the windows that start at it, and of the
    image. The map is the harmonic mean, over the scales, of the image's score and the harmonic
    means of the windows that cover a patch; the patch embedding itself is not used. It needs
    grids, and scores at least 0 (not ``"diff"``). A masked patch takes its window along, unless
    another patch at the border stores the same window. anomalib's WinCLIP has the scale ``1 /
    0.07``, and does not bring texts to unit length before their mean.

    References
    ----------
    .. [1] Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR
       2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import PromptScorer
    >>> scorer = PromptScorer(text_features_normal=[1, 0], text_features_anomaly=[0, 1])
    >>> tokens = np.array([[[[1.0, 0.1], [1.0, 0.0]]], [[[1.0, 0.1], [0.2, 1.0]]]])
    >>> scorer.predict(tokens)  # no normal image was needed
    array([ 1, -1])
    >>> scorer.score_patches(tokens)[1].round(3)
    array([[0., 1.]], dtype=float32)
    """

    _parameter_constraints: dict = {
        **BasePatchScorer._parameter_constraints,
        "class_name": [str],
        "prompts": [None, str, dict],
        "model_name": [str],
        "weights": [str, os.PathLike],
        "text_features_normal": [None, "array-like"],
        "text_features_anomaly": [None, "array-like"],
        "mode": [StrOptions(set(MODES))],
        "logit_scale": [None, Interval(Real, 0, None, closed="neither")],
        "windows": [None, "array-like"],
        "aggregation": [
            StrOptions({"topk_mean", "max", "mean", "class_token"}),
            Interval(Real, 0, 1, closed="both"),
        ],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "device": [str],
    }

    def __init__(
        self,
        class_name: str = "object",
        *,
        prompts: Mapping[str, Sequence[str]] | str | None = None,
        model_name: str = "ViT-B-16",
        weights: PathLike = "pretrained",
        text_features_normal: ArrayLike | None = None,
        text_features_anomaly: ArrayLike | None = None,
        mode: Literal["softmax", "diff", "ratio"] = "softmax",
        logit_scale: float | None = None,
        windows: Sequence[int] | None = None,
        topk: float = 0.01,
        aggregation: str | float = "topk_mean",
        contamination: float | Literal["auto"] = "auto",
        device: str = "auto",
    ):
        self.class_name = class_name
        self.prompts = prompts
        self.model_name = model_name
        self.weights = weights
        self.text_features_normal = text_features_normal
        self.text_features_anomaly = text_features_anomaly
        self.mode = mode
        self.logit_scale = logit_scale
        self.windows = windows
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination
        self.device = device

    def set_class_name(self: _Scorer, class_name: str) -> _Scorer:
        """Score by the prompts of another class: ``set_params(class_name=class_name)``.

        Parameters
        ----------
        class_name : str
            What the images show.

        Returns
        -------
        self : object
            The scorer. A threshold of `fit` does not serve the new class.
        """
        return self.set_params(class_name=class_name)

    _needs_fit = False

    @property
    def _fixed_offset(self):
        """The probability 0.5, which is a threshold without any image."""
        return -0.5 if self.mode == "softmax" and self.contamination == "auto" else None

    @property
    def patch_limits_(self) -> tuple[float, float]:
        """Limits of colours: of held-out patch scores, or without `fit` from the threshold to 1."""
        if self._fixed_offset is not None and not self._texts_are_kept():
            return -self._fixed_offset, 1.0
        return super().patch_limits_

    def _offset(self):
        if self._fixed_offset is None and not hasattr(self, "train_scores_"):
            raise NotFittedError(
                f"this {type(self).__name__} has no threshold yet: fit it on normal images, with "
                "a share of them as contamination. Without any, there is one only for "
                "mode='softmax' with contamination='auto', at the probability 0.5"
            )
        return super()._offset()

    def _single_image_warning(self, tokens):
        if self._fixed_offset is not None:
            return None
        return (
            "the threshold is of its own scores, and holds no nominal false-positive rate. Give "
            "more normal images"
        )

    def _check_origin(self, X, reset):
        super()._check_origin(X, reset)
        origin = origin_of(X) or {}
        given = (self.text_features_normal, self.text_features_anomaly)
        compared = not reset and self._texts_are_kept()
        if compared or "weights" not in origin or any(features is not None for features in given):
            return
        self._validate_params()
        where = {"device": self.device, "user": type(self).__name__}
        tower = image_tower(self.model_name, self.weights, **where)
        if tower != (origin["weights"], origin.get("model")):
            raise ValueError(
                f"X holds tokens of a {origin['embedder']} with another model, or other weights, "
                f"than model_name={self.model_name!r}, weights={os.fspath(self.weights)!r} of this "
                f"{type(self).__name__}: give both the same, texts are of no use to other tokens"
            )

    def _weight_files(self, fetch: bool) -> tuple[str, str | None, list[Path]] | None:
        if self.text_features_normal is not None:  # they take the place of all texts
            return None
        asked = self.model_name, self.weights, fetch, type(self).__name__
        found = text_weight_files(*asked, texts=not self._texts_are_kept())
        return None if found is None else ("weights", *found)

    def _texts_are_kept(self):
        """Whether the texts of `fit` are still those of the parameters."""
        return hasattr(self, "text_features_") and not _TEXT_PARAMS & set(self._changed_params())

    def _fit_tokens(self, tokens):
        self._checked_windows()
        if self.contamination == "auto" and self._fixed_offset is None:
            raise ValueError(
                f"contamination='auto' is the probability 0.5 of mode='softmax'; mode={self.mode!r}"
                " has no such threshold: give a share of normal images, such as 0.1"
            )
        texts = self._texts(tokens.dim)
        # Nothing is learned from images: their scores are held-out as they stand.
        train_scores = self._score_by_texts(tokens.select_view(0), *texts)[1]
        self.text_features_, self.logit_scale_ = texts
        return train_scores

    def _score_tokens(self, tokens):
        self._validate_params()
        if self._texts_are_kept():
            return self._score_by_texts(tokens, self.text_features_, self.logit_scale_)
        return self._score_by_texts(tokens, *self._texts(tokens.dim))

    def _texts(self, token_dim):
        """Directions of the texts, and the scale of the softmax."""
        windows = self._checked_windows()
        n_blocks = 1 if windows is None else 2 + len(windows)
        texts = self._text_features(token_dim // n_blocks)
        check_token_dim(token_dim, texts.shape[1], windows)
        if np.abs(texts[0] - texts[1]).max() < 1e-6:
            raise ValueError("the normal and the anomalous texts are the same: nothing differs")
        scale = self.logit_scale
        if scale is None and self.mode == "softmax" and self.text_features_normal is None:
            where = {"device": self.device, "user": type(self).__name__}
            scale = model_logit_scale(self.model_name, self.weights, **where)
        return texts, _CLIP_LOGIT_SCALE if scale is None else float(scale)

    def _text_features(self, dim):
        """Unit vectors of the normal and the anomalous texts; `dim` is what the tokens suggest."""
        given = [self.text_features_normal, self.text_features_anomaly]
        missing = [features is None for features in given]
        if all(missing):
            texts = prompt_texts(self.prompts, self.class_name)
            where = {"device": self.device, "user": type(self).__name__}
            return encode_prompts(self.model_name, self.weights, *texts, **where)
        if any(missing) or self.prompts is not None:
            raise ValueError(
                "give text_features_normal and text_features_anomaly, or else prompts: "
                "features take the place of all prompts"
            )
        names = ("text_features_normal", "text_features_anomaly")
        units = [average_texts(value, name) for value, name in zip(given, names, strict=True)]
        if len(units[0]) != len(units[1]):
            raise ValueError(
                f"text_features_normal is of dimension {len(units[0])}, text_features_anomaly of "
                f"{len(units[1])}"
            )
        return np.stack(units)

    def _checked_windows(self):
        windows = None if self.windows is None else check_windows(self.windows)
        if windows is not None and self.mode == "diff":
            raise ValueError(
                "windows need scores of at least 0, for their harmonic mean: mode='softmax' or "
                "'ratio'"
            )
        if windows is None and self.aggregation == "class_token":
            raise ValueError(
                "aggregation='class_token' needs windows, whose tokens hold the class embedding"
            )
        return windows

    def _score_by_texts(self, tokens, texts, scale):
        """Patch scores, and `score_samples`."""
        windows = self._checked_windows()
        check_token_dim(tokens.dim, texts.shape[1], windows)

        def score(embeddings):
            return prompt_patch_scores(embeddings, *texts, self.mode, scale)

        if windows is None:
            scores = np.zeros(len(tokens.values))
            scores[tokens.valid] = score(tokens.valid_values())
        else:
            scores, image_scores = winclip_scores(tokens, windows, score)
            if self.aggregation == "class_token":
                return scores, -image_scores
        return scores, -self._aggregate(tokens, scores)
