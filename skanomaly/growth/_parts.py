"""The parts of a fitted model that change with its images, and what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skanomaly._images.training import TrainingImages
from skanomaly._pipelines import SplitPipeline, check_embedder, split_pipeline
from skanomaly._typing import IntArray
from skanomaly.base import BasePatchEmbedder
from skanomaly.detectors import ImageUnion
from skanomaly.preprocessing._base import PatchMask
from skanomaly.scorers._changing import ChangingScorer
from skanomaly.scorers._growth_checks import check_calibration


def check_changes(estimator: Any) -> None:
    """Raise where a fitted model cannot take in images, or forget them; nothing is computed.

    Parameters
    ----------
    estimator : Pipeline, scorer or detector

    Raises
    ------
    TypeError, ValueError, NotFittedError
        The message says what stands in the way, and of which member of a union.
    """
    split = split_pipeline(estimator)
    scorer = split.scorer
    if isinstance(scorer, ImageUnion):
        check_is_fitted(scorer, "detectors_")
        scorer._check_calibrated()
        check_calibration(scorer.calibration_)
        for name, member in scorer.detectors_.items():
            try:
                check_changes(member)
            except (TypeError, ValueError) as exc:
                raise type(exc)(f"detector {name!r}: {exc}") from exc
        return
    if not isinstance(scorer, ChangingScorer):
        raise TypeError(
            f"{type(scorer).__name__} cannot take in images after fit, or forget them, as scorers "
            "of this package with partial_fit can, such as PatchKNNScorer: fit it again"
        )
    try:
        scorer._check_can_change()
    except NotFittedError:  # which is an AttributeError too
        raise
    except AttributeError as exc:
        raise TypeError(f"{exc}; fit it again") from exc


def leaf_of(estimator: Any) -> ChangingScorer:
    """The scorer that knows the training images: of a union of detectors that of the first.

    Parameters
    ----------
    estimator : Pipeline, scorer or detector
        One that :func:`check_changes` lets pass.

    Returns
    -------
    ChangingScorer
    """
    scorer = split_pipeline(estimator).scorer
    while isinstance(scorer, ImageUnion):
        scorer = split_pipeline(next(iter(scorer.detectors_.values()))).scorer
    found: ChangingScorer = scorer
    return found


def groups_of(leaf: ChangingScorer) -> IntArray | None:
    """The group of each image that was given to a fit, by its number there; None without groups.

    Images that are not known, the anomalous ones, are of group -1.
    """
    if leaf._layout.groups is None:
        return None
    groups = np.full(leaf._n_given, -1)
    groups[leaf._train_numbers] = leaf._layout.groups
    return groups


class Unread(Sequence[Any]):
    """Training images that are no longer there to be read: an error where one is asked for."""

    def __init__(self, n_images: int) -> None:
        self._n_images = n_images

    def __len__(self) -> int:
        return self._n_images

    def __getitem__(self, number: Any) -> Any:
        """Raise ValueError: only a fit has them."""
        raise ValueError(
            "the detectors of this union calibrate on different ones of so many images, and those "
            "of its fit would have to be scored once more: fit it again"
        )


def images_steps(estimator: Any) -> Iterator[Any]:
    """The step of a Pipeline, or the union, that remembers which images it was trained on."""
    split = split_pipeline(estimator)
    for step in (split.scorer, *split.image_transformers):
        if getattr(step, "_train_images", None) is not None:
            yield step


def remember(estimator: Any, n_before: int, change: Any) -> None:
    """Change what the steps of a model remember of the images that were given to it.

    Parameters
    ----------
    estimator : Pipeline or detector
        Its steps are copies of its own.
    n_before : int
        How many images had been given. A step that remembers others, because it was fitted by
        itself, forgets them: their numbers would be wrong.
    change : callable
        ``change(images) -> images``, of :class:`TrainingImages`.
    """
    for step in images_steps(estimator):
        known: TrainingImages = step._train_images
        step._train_images = change(known) if len(known) == n_before else None


def training_tokens(split: SplitPipeline, images: Any) -> Any:
    """What the scorer of a fitted Pipeline would be given of more images in a fit: views included.

    Parameters
    ----------
    split : SplitPipeline
        Fitted.
    images : images
        Patch tokens where there is no embedder.

    Returns
    -------
    array-like
        Steps that learn from tokens stay as they were fitted.

    Raises
    ------
    NotFittedError
        When a step would give other tokens than in its fit.
    """
    if not split.transformers:
        return images
    check_embedder(split)
    for step in split.transformers:
        if isinstance(step, BasePatchEmbedder):
            step._origin()
            images = copy(step).fit_transform(images)
        elif isinstance(step, PatchMask):
            step._check_unchanged()
            images = copy(step).fit_transform(images)
        else:
            images = step.transform(images)
    return images
