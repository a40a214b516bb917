"""What a fitted detector was fitted on, as far as it remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skanomaly._images.training import TrainingImages
from skanomaly._pipelines import split_detector
from skanomaly._stamps import file_digest
from skanomaly.datasets import ImageSet


def n_trained_on(estimator: Any) -> int | None:
    """How many normal images a fitted detector was fitted on; None where it does not tell.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted.

    Returns
    -------
    int or None
    """
    scorer = split_detector(estimator).scorer
    if (numbers := getattr(scorer, "_train_numbers", None)) is not None:
        return len(numbers)
    scores = getattr(scorer, "train_scores_", None)
    return None if scores is None else len(scores)


def trained_on(estimator: Any, images: ImageSet) -> list[tuple[Path, str]]:
    """Images whose content a fitted detector was fitted on.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted.
    images : ImageSet
        Those that it is to be measured on.

    Returns
    -------
    list of (Path, str)
        Each with what is wrong with it. None where the detector does not remember its images.
    """
    numbers = getattr(split_detector(estimator).scorer, "_train_numbers", None)
    seen: dict[str, str] = {}
    for known in _remembered(estimator):
        used = range(len(known)) if numbers is None else numbers
        for i in used:
            if (digest := known.digests[i]) is not None:
                seen.setdefault(digest, known.paths[i] or f"its image {i}")
    if not seen:
        return []
    digests = [(path, file_digest(path)) for path in images.images]
    return [
        (path, f"the same image as {seen[digest]}, which the detector was fitted on")
        for path, digest in digests
        if digest in seen
    ]


def _remembered(estimator: Any) -> list[TrainingImages]:
    split = split_detector(estimator)
    found = (getattr(step, "_train_images", None) for step in (*split.transformers, split.scorer))
    return [known for known in found if known is not None]
