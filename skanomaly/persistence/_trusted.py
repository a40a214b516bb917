"""What may be in a model file: types that are trusted, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import FunctionType

import sklearn.metrics
import sklearn.model_selection

# Objects of these are made without a call of their constructor, and given their attributes; those
# that have a `__setstate__` do nothing more with it. What reads bytes, runs code or calls what it
# is given is not among them.
_OURS = {
    "anomalib._detector": ["AnomalibDetector"],
    "core.fingerprints": ["ImageFingerprints"],
    "core.gaussian": ["PatchGaussian"],
    "core.search.index": ["PatchIndex"],
    "core.search.sorting": ["Part"],
    "core.search.tuning": ["Tuning"],
    "embedders._dinov2": ["DinoV2Patches"],
    "embedders._filter_bank": ["FilterBankPatches"],
    "embedders._function": ["FunctionPatches"],
    "embedders._openclip": ["OpenClipPatches"],
    "embedders._timm": ["TimmPatches"],
    "_images.training": ["TrainingImages"],
    "metrics._image": [
        "image_auroc",
        "image_average_precision",
        "image_f1_max",
        "image_fpr_at_recall",
        "image_recall_at_zero_fpr",
    ],
    "metrics._image_scorers": ["ImageScorer"],
    "model_selection": ["OneClassSplit"],
    "persistence._tree": ["StoredArray", "StoredPath"],
    "scorers._patch_gaussian": ["PatchGaussianScorer", "_GaussianModel"],
    "scorers._patch_knn": ["PatchKNNScorer", "_MemoryBank"],
    "scorers._prompt": ["PromptScorer"],
    "scorers._score_union": ["ScoreUnion"],
}
# Of a fitted search, besides estimators, which skops trusts.
_SCORERS = ("_PassthroughScorer", "_Scorer", "_MultimetricScorer")

# What is left out above, and why.
_REASONS = {
    "skanomaly.core.search.faiss_index.FaissIndex": "faiss reads its indices with too few checks, "
    "so that a made-up file could do harm",
}


@lru_cache(maxsize=1)
def trusted_names() -> tuple[str, ...]:
    """Names of the types and functions that files may hold, besides those that skops trusts."""
    ours = [f"skanomaly.{module}.{name}" for module, names in _OURS.items() for name in names]
    scorers = [f"sklearn.metrics._scorer.{name}" for name in _SCORERS]
    for function in vars(sklearn.metrics).values():
        if isinstance(function, FunctionType):
            scorers.append(f"{function.__module__}.{function.__name__}")
    splitters = [
        f"{kind.__module__}.{kind.__name__}"
        for kind in vars(sklearn.model_selection).values()
        if isinstance(kind, type) and hasattr(kind, "get_n_splits")
    ]
    return tuple(sorted({*ours, *scorers, *splitters}))


def untrusted_error(path: object, names: Sequence[str]) -> TypeError:
    """The error for a file that holds what is not trusted.

    Parameters
    ----------
    path : object
        Of the file.
    names : sequence of str
        Of types and functions.

    Returns
    -------
    TypeError
    """
    reasons = "".join(f" {name}: {_REASONS[name]}." for name in names if name in _REASONS)
    listed = ", ".join(map(repr, names))
    return TypeError(
        f"{path} holds types that are not trusted: {', '.join(names)}.{reasons} Whoever made the "
        "file chose these names, and to load it is to use what they stand for here. If you know "
        f"them, load it with trusted=[{listed}]"
    )
