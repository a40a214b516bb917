"""Similarity of patches to texts of normal and of anomalous things."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Literal, TypeVar

import numpy as np
from sklearn.exceptions import NotFittedError

from skanomaly._calibrated import CONTAMINATION
from skanomaly._docstrings import document
from skanomaly._sklearn import Interval, StrOptions
from skanomaly._typing import ArrayLike, FloatArray, PathLike
from skanomaly.core.prompts import MODES, prompt_patch_scores
from skanomaly.scorers._docstrings import SCORER_DOCS
from skanomaly.scorers._explaining import prompts_of
from skanomaly.scorers._prompt_texts import TextScorer
from skanomaly.scorers._winclip import check_token_dim, most_anomalous_window, winclip_scores

_Scorer = TypeVar("_Scorer", bound="PromptScorer")


@document(SCORER_DOCS)
class PromptScorer(TextScorer):
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
    %(calibration_)s
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
        **TextScorer._parameter_constraints,
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
        "contamination": [StrOptions({"auto"}), CONTAMINATION],
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

    @property
    def held_out_patches_(self) -> list[FloatArray]:
        """Patch scores of the images of `fit`, where the texts are still those of `fit`."""
        if self._fixed_offset is not None and not self._texts_are_kept():
            raise AttributeError(
                f"held_out_patches_ of {type(self).__name__} are known after fit, for its texts"
            )
        return super().held_out_patches_

    def _offset(self):
        if self._fixed_offset is None and not hasattr(self, "offset_"):
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
        return self._score_by_texts(tokens, *self._texts_of(tokens.dim))

    def _explain_row(self, tokens, row, n_neighbors):
        directions, scale = self._texts_of(tokens.dim)
        embedding, note = tokens.values[row], ""
        if (windows := self._checked_windows()) is not None:
            embedding, note = most_anomalous_window(
                tokens,
                row,
                windows,
                lambda embeddings: prompt_patch_scores(embeddings, *directions, self.mode, scale),
            )
        return prompts_of(embedding, *self._single_texts(), note)

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
