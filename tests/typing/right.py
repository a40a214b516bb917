"""Uses that a type checker must accept, and what it must know of them. Read by test_types.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

import skanomaly
from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    ImageReadError,
    PatchGaussianScorer,
    PatchKNNScorer,
    create_model,
    list_models,
    metrics,
    model_info,
)
from skanomaly.registry import ModelInfo

if TYPE_CHECKING:
    from typing_extensions import assert_type

scorer = PatchKNNScorer(contamination=0.05)
assert_type(scorer, PatchKNNScorer)
scorer.fit(np.zeros((3, 2, 2, 4))).predict(np.zeros((3, 2, 2, 4)))
assert_type(skanomaly.PatchKNNScorer(), PatchKNNScorer)
assert_type(PatchGaussianScorer(contamination=0.05), PatchGaussianScorer)
assert_type(skanomaly.__version__, str)
assert_type(list_models(), list[str])
assert_type(model_info("vision_filterbank"), ModelInfo)
create_model("filterbank", contamination=0.05)
AnomalibDetector("model.ckpt", trust=True)
error: type[ValueError] = ImageReadError

# Images in every form: paths, bytes, PIL images, arrays.
FilterBankPatches(augmentation=["rotate45", 10.0])
embedder = FilterBankPatches(image_size=64)
embedder.fit([Path("a.png"), "b.png"])
embedder.transform([Image.new("L", (8, 8))])
embedder.transform([b"", np.zeros((8, 8, 3), dtype=np.uint8)])
embedder.transform(np.zeros((2, 8, 8, 3), dtype=np.uint8))
metrics.image_auroc([1, 1, -1], [0.3, 0.2, 0.1])

# Decisions, and thresholds that are moved.
assert_type(skanomaly.recalibrate(scorer, contamination=0.1), PatchKNNScorer)
tuned = skanomaly.tune_threshold(scorer, np.zeros((2, 2, 2, 4)), [1, -1], prevalence=0.01)
assert_type(tuned.apply(scorer), PatchKNNScorer)
assert_type([d.is_anomalous for d in skanomaly.decide(scorer, ["part.png"])], list[bool])
