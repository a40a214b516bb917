"""A detector and a data set, to every metric."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skanomaly._grouped_fit import fit_with_groups, takes_groups
from skanomaly._pipelines import (
    contamination_of,
    min_images_of,
    offset_of,
    parameters_as_text,
    split_detector,
)
from skanomaly._results.evaluated import EvaluationResult
from skanomaly._results.known import n_trained_on, training_images_among
from skanomaly._results.measured import image_metrics, pixel_metrics, roc_of
from skanomaly._results.remade import maps_of
from skanomaly._results.scored import ScoredImages, scored_images
from skanomaly._transductive import check_scores_new_images
from skanomaly._typing import FloatArray
from skanomaly._version import __version__
from skanomaly._warn import warn_user
from skanomaly.datasets import DatasetSplit, ImageSet
from skanomaly.datasets._check import (
    doubtful_images,
    inverted_masks,
    repeated_images,
    unusable_files,
)
from skanomaly.decisions import warn_if_tuned_on
from skanomaly.inspection import p_values_of, score_images
from skanomaly.inspection._limits import limits_for
from skanomaly.inspection._maps import check_sigma

__all__ = ["EvaluationResult", "ScoredImages", "evaluate_split", "evaluation_of", "scored_images"]

_PRINTED_PROBLEMS = 20

#: What :func:`evaluate_split` calls with each map: number of the test image, its map, its score,
#: the threshold, and the limits of a colour scale for the maps of all test images.
OnMap = Callable[[int, FloatArray, float, float, tuple[float, float]], object]


#: What it calls with the result.
OnResult = Callable[[EvaluationResult], object]


def evaluate_split(
    estimator: Any,
    split: DatasetSplit,
    *,
    sigma: float = 4.0,
    on_result: OnResult | None = None,
    on_map: OnMap | None = None,
) -> EvaluationResult:
    """Fit a detector on a data set's training images and measure it on its test images.

    Parameters
    ----------
    estimator : Pipeline or detector
        Cloned, not modified. A Pipeline of an embedder and a scorer, an image detector with
        `score_maps`, or a search of either; the search sees the training images alone, of which
        most data sets have only normal ones. Steps between embedder and scorer get the tokens of
        one test image at a time, so that they must not mix those of several.
    split : DatasetSplit
        For example from :func:`skanomaly.datasets.read_dataset`. Groups of its training images,
        such as the views of a part, are held out whole by a scorer that is the last step of a
        Pipeline.
    sigma : float, default=4.0
        Of the Gaussian that smooths the maps, in pixels of the image.
    on_result : callable or None, default=None
        ``on_result(result)`` is called as soon as there are numbers, before `on_map`: to keep them
        whatever becomes of the pictures.
    on_map : callable or None, default=None
        ``on_map(i, heat_map, score, threshold, limits)`` is called for each test image `i` in
        turn: with the map of the image's size that the metrics are
        measured on, read-only; the image's score and the threshold, below which it is anomalous;
        and ``(low, high)``, the limits of a colour scale that is one for all, from the training
        images alone: :func:`skanomaly.inspection.color_limits`. For pictures, one at a time.

    Returns
    -------
    EvaluationResult
        Metrics, decisions, scores, patch scores and the fitted clone.

    Raises
    ------
    ValueError
        When the test images are all normal or all anomalous, there are fewer training images than
        the scorer needs, or images or masks cannot be used: all of them are named. Before anything
        is fitted.
    TypeError
        When `split` is no DatasetSplit, or the estimator gives no maps of new images; the message
        names what its scorer lacks. Before anything is fitted, but for an `offset_` that `fit` does
        not set.

    Warns
    -----
    UserWarning
        Of images that are copies of a training image, or listed twice, of groups that are trained
        and tested on, of masks that may be inverted, and of groups that `estimator` cannot take.
        :func:`~skanomaly.datasets.find_problems` finds near copies too.

    Notes
    -----
    Maps are made from the patch scores. Those of all test images are kept for the pixel metrics and
    `on_map` where they take at most 512 MiB, 4 bytes a pixel; otherwise each is made again when it
    is needed, and memory grows with the distinct scores of the defect pixels alone, 36 bytes each.
    The metrics are exact in any case. Where they cannot be measured, because masks are not known,
    no map is kept, and without `on_map` none is made.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchGaussianScorer, evaluate_split
    >>> from skanomaly.datasets import read_dataset
    >>> pipe = make_pipeline(FilterBankPatches(), PatchGaussianScorer())
    >>> result = evaluate_split(pipe, read_dataset("data/bottle"))  # doctest: +SKIP
    >>> result.metrics["aupro_0.3"]  # doctest: +SKIP
    """
    split_detector(estimator)
    check_sigma(sigma)
    check_split(split)
    check_n_train(estimator, split.train, split.name)
    return evaluate_checked(estimator, split, sigma=sigma, on_result=on_result, on_map=on_map)


def check_split(split: DatasetSplit, with_training: bool = True) -> None:
    """Raise for all that is wrong with a data set, and warn of copies, before the work.

    Parameters
    ----------
    split : DatasetSplit
        What is to be evaluated on.
    with_training : bool, default=True
        Whether its training images are used, and not the test images alone.

    Raises
    ------
    TypeError
        When it is no DatasetSplit.
    ValueError
        When no metric is defined for it, or images or masks do not fit.
    """
    if not isinstance(split, DatasetSplit):
        raise TypeError(
            "the data set must be a DatasetSplit, such as skanomaly.datasets.read_dataset(FOLDER) "
            f"returns, got {type(split).__name__}"
        )
    for label, kind in ((1, "normal"), (-1, "anomalous")):
        if not np.any(split.test.y == label):
            raise ValueError(f"{split.name}: there is no {kind} test image, no metric is defined")
    used: list[ImageSet] = [*[split.train] * with_training, split.test]
    shares: dict[str, dict[Path, float]] = {}
    if problems := unusable_files(used, shares=shares):
        raise ValueError(_listed(f"{split.name}: these images or masks cannot be used", problems))
    doubtful = doubtful_images(split) if with_training else repeated_images(split.test)
    if doubts := [*inverted_masks(used, shares), *doubtful]:
        warn_user(_listed(f"{split.name}: what these images show is doubtful", doubts))


def _listed(title, problems):
    lines = [f"{path}: {reason}" for path, reason in problems[:_PRINTED_PROBLEMS]]
    if len(problems) > len(lines):
        lines.append(f"and {len(problems) - len(lines)} more")
    return "\n  ".join([title, *lines])


def check_n_train(estimator: Any, train: ImageSet, name: str) -> None:
    """Raise where an estimator scores no new images, or cannot be fitted to so few normal ones."""
    scorer = split_detector(estimator).scorer
    check_scores_new_images(estimator)
    least, normal, what = min_images_of(scorer), np.flatnonzero(train.y == 1), "normal images"
    n_found = len(normal)
    if train.groups is not None and takes_groups(estimator):
        n_found, what = len({train.groups[i] for i in normal}), "groups of normal images"
    if n_found < least:
        raise ValueError(
            f"{name}: {type(scorer).__name__} needs at least {least} {what} to train on, not "
            f"{n_found}"
        )


def evaluate_checked(
    estimator: Any,
    split: DatasetSplit,
    *,
    sigma: float = 4.0,
    on_result: OnResult | None = None,
    on_map: OnMap | None = None,
) -> EvaluationResult:
    """As :func:`~skanomaly.evaluate_split`, of what was checked: a table checks a data set once."""
    train = split.train
    if train.groups is not None and not takes_groups(estimator):
        warn_user(
            f"{split.name}: {type(estimator).__name__} takes no groups of images in fit, so that "
            "images of one group vouch for each other where one is held out, and the threshold may "
            "be too tight. Groups are handed to the scorer at the end of a Pipeline"
        )
    start = time.perf_counter()
    fitted = fit_with_groups(clone(estimator), list(train.images), train.y, train.groups)
    seconds = {"fit": time.perf_counter() - start}
    n_train = int(np.count_nonzero(train.y == 1))
    return _measured(fitted, split.name, split.test, n_train, seconds, sigma, on_result, on_map)


def evaluation_of(
    estimator: Any,
    split: DatasetSplit,
    *,
    sigma: float = 4.0,
    on_result: OnResult | None = None,
    on_map: OnMap | None = None,
) -> EvaluationResult:
    """Measure a fitted detector on the test images of a data set; nothing is fitted.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted, such as a model that was kept; as for :func:`~skanomaly.evaluate_split`.
    split : DatasetSplit
        Only its test images are looked at.
    sigma, on_result, on_map : object
        As for :func:`~skanomaly.evaluate_split`.

    Returns
    -------
    EvaluationResult
        As of :func:`~skanomaly.evaluate_split`, with the detector itself.

    Raises
    ------
    ValueError
        When the test images are all normal or all anomalous, or images or masks cannot be used.
    TypeError
        When `split` is no DatasetSplit, or the estimator gives no maps of images.
    sklearn.exceptions.NotFittedError
        When the estimator is not fitted.

    Warns
    -----
    UserWarning
        Of test images that the detector was fitted on or its threshold chosen on, by their content,
        of those that are listed twice, and of masks that may be inverted.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchGaussianScorer
    >>> from skanomaly.datasets import read_dataset
    >>> from skanomaly.evaluation import evaluation_of
    >>> pipe = make_pipeline(FilterBankPatches(), PatchGaussianScorer())
    >>> split = read_dataset("data/bottle")  # doctest: +SKIP
    >>> pipe.fit(split.train.images)  # doctest: +SKIP
    >>> evaluation_of(pipe, split).metrics["image_auroc"]  # doctest: +SKIP
    """
    split_detector(estimator)
    check_sigma(sigma)
    check_is_fitted(estimator)
    check_split(split, with_training=False)
    if doubts := training_images_among(estimator, split.test):
        warn_user(_listed(f"{split.name}: the detector was fitted on test images", doubts))
    warn_if_tuned_on(estimator, list(split.test.images))
    n_train = n_trained_on(estimator)
    return _measured(estimator, split.name, split.test, n_train, {}, sigma, on_result, on_map)


def _measured(fitted, name, test, n_train, seconds, sigma, on_result, on_map):
    """What a fitted detector finds on test images that were checked."""
    scorer = split_detector(fitted).scorer
    threshold = offset_of(scorer)
    start = time.perf_counter()
    grids, scores = score_images(fitted, list(test.images))
    seconds["score"] = time.perf_counter() - start
    unknown = [test.masks[i] for i in np.flatnonzero(test.y == -1)].count(None)
    start = time.perf_counter()
    maps = maps_of(test, grids, sigma, keeps=not unknown)
    measured, curves = image_metrics(test, scores), {"roc": roc_of(test.y, scores)}
    if not unknown:
        of_pixels, curves["pro"] = pixel_metrics(test, maps)
        measured.update(of_pixels)
    seconds["maps"] = maps.seconds
    seconds["metrics"] = time.perf_counter() - start - maps.seconds
    flagged, normal = scores < threshold, test.y == 1
    kinds = np.array(test.defect_types)
    result = EvaluationResult(
        name=name,
        n_train=n_train,
        n_normal=int(normal.sum()),
        n_anomalous=int((~normal).sum()),
        metrics=measured,
        n_unknown_masks=unknown,
        contamination=contamination_of(scorer),
        threshold=threshold,
        true_positives=int((flagged & ~normal).sum()),
        false_negatives=int((~flagged & ~normal).sum()),
        false_positives=int((flagged & normal).sum()),
        true_negatives=int((~flagged & normal).sum()),
        recall_by_type={
            str(kind): float(flagged[kinds == kind].mean()) for kind in np.unique(kinds[~normal])
        },
        seconds=seconds,
        parameters=parameters_as_text(fitted),
        versions={
            "python": platform.python_version(),
            "skanomaly": __version__,
            **{lib.__name__: lib.__version__ for lib in (sklearn, np, scipy)},
        },
        y=test.y,
        scores=scores,
        predictions=np.where(flagged, -1, 1),
        patch_scores=grids,
        estimator=fitted,
        test=test,
        p_values=p_values_of(scorer, scores),
        curves=curves,
    )
    if on_result is not None:
        on_result(result)
    if on_map is not None:
        _hand_out(on_map, maps, result)
    return result


def _hand_out(on_map, maps, result):
    """Call `on_map` with each map."""
    limits = limits_for(result.estimator, result.patch_scores)
    for i, heat_map in enumerate(maps):
        on_map(i, heat_map, float(result.scores[i]), result.threshold, limits)
