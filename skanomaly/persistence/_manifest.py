"""What a model file says of its model, for people and programs: plain values."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import numpy as np
import scipy
import sklearn

from skanomaly._images.training import TrainingImages
from skanomaly._parameters import without_addresses
from skanomaly._pipelines import (
    SplitPipeline,
    contamination_of,
    parameters_as_text,
    split_pipeline,
)
from skanomaly._version import __version__

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def versions() -> dict[str, str]:
    """Versions of what a model was saved by."""
    return {
        "skanomaly": __version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "skops": version("skops"),
        "python": platform.python_version(),
    }


def describe(estimator: Any, *, image_paths: bool) -> dict[str, Any]:
    """The manifest of a model, without what only the file knows.

    Parameters
    ----------
    estimator : estimator
        That is saved.
    image_paths : bool
        Whether paths of training images are told.

    Returns
    -------
    dict
        Plain values.
    """
    split = split_pipeline(estimator)
    scorer = split.scorer
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "estimator": {
            "class": _name(estimator),
            "text": without_addresses(repr(estimator)),
            "parameters": parameters_as_text(estimator),
            "steps": [_name(step) for step in (*split.transformers, scorer)],
        },
        "embedders": list(_embedders(split)),
        "regions": list(_regions(split)),
        "training_images": _training_images(split.train_images, image_paths),
        "calibration": _calibration(scorer),
    }


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers of NumPy as Python's, what is none as its text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return without_addresses(repr(value))


def _name(estimator: Any) -> str:
    kind = type(estimator)
    return f"{kind.__module__}.{kind.__name__}"


def _embedders(split: SplitPipeline) -> Iterator[Any]:
    """What the tokens of each embedder depend on, of a union's members too."""
    for step in split.image_transformers:
        if known := step.__dict__.get("_origin_at_fit"):
            yield plain(known)
    for member in getattr(split.scorer, "detectors_", {}).values():
        yield from _embedders(split_pipeline(member))


def _regions(split: SplitPipeline) -> Iterator[Any]:
    """What is looked at, each once, by a union's members too."""
    found = [step._facts() for step in split.token_transformers if hasattr(step, "_digest")]
    for member in getattr(split.scorer, "detectors_", {}).values():
        found += _regions(split_pipeline(member))
    yield from {facts["sha256"]: plain(facts) for facts in found}.values()


def _training_images(known: TrainingImages | None, image_paths: bool) -> dict[str, Any] | None:
    if known is None:
        return None
    images = {"count": len(known), "sha256": list(known.digests)}
    return {**images, "paths": list(known.paths)} if image_paths else images


def _calibration(scorer: Any) -> dict[str, Any] | None:
    """What the threshold rests on; None of what has none."""
    if not hasattr(scorer, "offset_"):
        return None
    found = {"threshold": scorer.offset_, "contamination": contamination_of(scorer)}
    scores = getattr(scorer, "train_scores_", None)
    if scores is not None and len(scores):
        found["n_scores"] = len(scores)
        quantiles = np.quantile(scores, _QUANTILES)
        found["score_quantiles"] = dict(zip(map(str, _QUANTILES), quantiles, strict=True))
    return plain({**found, **getattr(scorer, "calibration_", {})})
