"""Models that take in more images after their fit."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any, TypeVar

import numpy as np
from sklearn.utils.validation import check_consistent_length

from skanomaly._images import check_images
from skanomaly._images.training import join_training_images, training_images
from skanomaly._labels import normal_images
from skanomaly._parameters import copy_of_estimator
from skanomaly._pipelines import split_pipeline
from skanomaly._typing import Groups, Images, Labels
from skanomaly.detectors import ImageUnion
from skanomaly.growth._parts import (
    Unread,
    check_changes,
    groups_of,
    leaf_of,
    remember,
    training_tokens,
)
from skanomaly.scorers._base import SINGLE
from skanomaly.scorers._groups import copies_told_elsewhere

_Estimator = TypeVar("_Estimator")


def update_model(
    estimator: _Estimator, images: Images, y: Labels = None, groups: Groups = None
) -> _Estimator:
    """A fitted model that has learned more good images, without another fit.

    Parameters
    ----------
    estimator : Pipeline, scorer or detector
        Fitted: a Pipeline of an embedder and a :class:`skanomaly.PatchKNNScorer`,
        :class:`skanomaly.LocalKNNScorer`, :class:`skanomaly.PatchGaussianScorer` or
        :class:`skanomaly.PatchSubspaceScorer`, a :class:`skanomaly.ScoreUnion` or
        :class:`skanomaly.ImageUnion` of such, or a search of these. It is left as it is.
    images : images
        Images that the model does not know yet, read as in `fit`; patch tokens for a scorer by
        itself. Where the embedder has `augmentation`, their views are learned too.
    y : array-like of shape (n_images,), optional
        +1 for normal, -1 for anomalous images, which are not learned.
    groups : sequence of hashable, optional
        A label for each image, such as the number of the part that it shows. Images of a label that
        the model knows are of the group of that. See :func:`skanomaly.p_values`.

    Returns
    -------
    estimator
        A copy whose model and threshold are those of a fit to the images of `estimator` followed by
        these, as far as :doc:`/growing` says. Steps between the embedder and the scorer that learn
        from tokens stay as they were fitted.

    Raises
    ------
    TypeError
        When the scorer cannot take in images after `fit`; the message names those that can.
    ValueError
        When the threshold was set by other images or a number, see :func:`skanomaly.recalibrate`;
        when an image cannot be read, or its grid or components are not those of the model.
    NotFittedError
        When `estimator` is not fitted, or parameters or weights are not those of its `fit`.

    Warns
    -----
    UserWarning
        Where images are copies of each other or of known ones, as in `fit`. They are numbered
        behind those that the model has.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, update_model
    >>> from skanomaly.datasets import make_surfaces
    >>> good = make_surfaces(24, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(good[:16])
    >>> grown = update_model(pipe, good[16:])
    >>> len(pipe[-1].train_scores_), len(grown[-1].train_scores_)
    (16, 24)
    """
    check_changes(estimator)
    made = copy_of_estimator(estimator)
    split = split_pipeline(made)
    if not split.transformers and not isinstance(split.scorer, ImageUnion):
        split.scorer.partial_fit(images, y, groups=groups)
        return made
    items = check_images(images)
    if groups is not None:
        groups = list(groups)
        check_consistent_length(items, groups)
    n_before = leaf_of(estimator)._n_given
    if isinstance(split.scorer, ImageUnion):
        _update_union(split.scorer, items, y, groups)
    else:
        split.scorer.partial_fit(training_tokens(split, items), y, groups=groups)
    more = training_images(items)
    remember(made, n_before, lambda known: join_training_images([known, more]))
    return made


def _update_union(union: ImageUnion, items: Any, y: Labels, groups: Groups) -> None:
    normal = normal_images(y, len(items))
    labels = None if len(normal) == len(items) else np.full(len(items), -1)
    if labels is not None:
        labels[normal] = 1
    members = {}
    for number, (name, member) in enumerate(union.detectors_.items()):
        with ExitStack() as told_once:
            if number:  # what the first one says of the images is enough
                told_once.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", SINGLE, UserWarning)
                told_once.enter_context(copies_told_elsewhere())
            members[name] = update_model(member, items, labels, groups)
    join_again(union, members)


def join_again(union: ImageUnion, members: dict[str, Any]) -> None:
    """Give a union members that have changed: its scales and threshold are made anew.

    Parameters
    ----------
    union : ImageUnion
        A copy of its own.
    members : dict of str to estimator
        All of the same images.
    """
    leaf = leaf_of(next(iter(members.values())))
    union._train_numbers = leaf._train_numbers
    union._join_members(members, Unread(leaf._n_given), groups_of(leaf))
