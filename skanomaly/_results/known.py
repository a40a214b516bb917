"""What a fitted detector was fitted on, as far as it remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skanomaly._pipelines import split_detector
from skanomaly._stamps import file_digest
from skanomaly.datasets import ImageSet
from skanomaly.inspection._training_images import trained_on


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


def training_images_among(estimator: Any, images: ImageSet) -> list[tuple[Path, str]]:
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
        Each with what is wrong with it. Empty where the detector does not remember its images.
    """
    seen = trained_on(estimator)
    if not seen:
        return []
    digests = [(path, file_digest(path)) for path in images.images]
    return [
        (path, f"the same image as {seen[digest]}, which the detector was fitted on")
        for path, digest in digests
        if digest in seen
    ]
