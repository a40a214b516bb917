"""What a scorer by texts does with its texts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from skanomaly._origins import origin_of
from skanomaly._typing import ArrayLike, FloatArray, PathLike
from skanomaly.scorers._base import BasePatchScorer
from skanomaly.scorers._prompt_bank import (
    encode_prompts,
    given_features,
    image_tower,
    model_logit_scale,
    prompt_texts,
    single_features,
    text_weight_files,
)
from skanomaly.scorers._winclip import check_token_dim, check_windows

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


class TextScorer(BasePatchScorer):
    """Base of :class:`skanomaly.PromptScorer`: its texts, and what tokens they go with."""

    class_name: str
    prompts: Mapping[str, Sequence[str]] | str | None
    model_name: str
    weights: PathLike
    text_features_normal: ArrayLike | None
    text_features_anomaly: ArrayLike | None
    mode: str
    logit_scale: float | None
    windows: Sequence[int] | None
    device: str
    text_features_: FloatArray
    logit_scale_: float

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

    def _texts_of(self, token_dim):
        """Directions and scale: those of `fit`, where the texts are still the same."""
        if self._texts_are_kept():
            return self.text_features_, self.logit_scale_
        return self._texts(token_dim)

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
        if self.text_features_normal is None and self.text_features_anomaly is None:
            texts = prompt_texts(self.prompts, self.class_name)
            where = {"device": self.device, "user": type(self).__name__}
            return encode_prompts(self.model_name, self.weights, *texts, **where)
        return given_features(self.text_features_normal, self.text_features_anomaly, self.prompts)

    def _single_texts(self):
        """The normal and the anomalous texts, each with its features."""
        if self.text_features_normal is not None:
            given = {
                "text_features_normal": np.atleast_2d(self.text_features_normal),
                "text_features_anomaly": np.atleast_2d(self.text_features_anomaly),
            }
            return [
                ([f"{name}[{i}]" for i in range(len(features))], features)
                for name, features in given.items()
            ]
        normal, anomaly = prompt_texts(self.prompts, self.class_name)
        where = {"device": self.device, "user": type(self).__name__}
        features = single_features(self.model_name, self.weights, [*normal, *anomaly], **where)
        n = len(normal)
        return [(normal, features[:n]), (anomaly, features[n:])]

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
