"""Thresholds that are moved without a refit."""

from __future__ import annotations

from typing import Any, TypeVar

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skanomaly._calibrated import CONTAMINATION, CalibratedEstimator
from skanomaly._grouped_fit import group_numbers
from skanomaly._images import check_images
from skanomaly._images.training import training_images
from skanomaly._parameters import copy_of_estimator, is_finite
from skanomaly._pipelines import (
    SplitPipeline,
    check_patch_scorer,
    contamination_of,
    offset_of,
    split_pipeline,
)
from skanomaly._typing import Groups, Images
from skanomaly._warn import warn_user
from skanomaly.core.calibration import contamination_offset, images_for_share
from skanomaly.decisions._resting import warn_of_rest
from skanomaly.decisions._tuned_on import listed
from skanomaly.inspection._training_images import trained_on

_Estimator = TypeVar("_Estimator")


def recalibrate(
    estimator: _Estimator,
    *,
    contamination: float | None = None,
    threshold: float | None = None,
    images: Images | None = None,
    groups: Groups = None,
) -> _Estimator:
    """Move the threshold of a fitted detector, without fitting it again.

    Parameters
    ----------
    estimator : Pipeline, scorer or detector
        Fitted: a Pipeline of an embedder and a scorer, a detector of images, a search of either, or
        a scorer of patch tokens by itself. It is left as it is.
    contamination : float or None, default=None
        Share of normal images that the threshold may flag, in (0, 0.5]: the threshold is that
        quantile of the held-out scores, to the bit that of another `fit` with this
        `contamination`. Of a :class:`skanomaly.PromptScorer` also "auto".
    threshold : float or None, default=None
        The threshold itself, in the unit of `score_samples`: images that score lower are
        anomalous. By itself only.
    images : images or None, default=None
        Good images of the line as it is now, which need not be training images; patch tokens for a
        scorer by itself. The model stays as it is: their scores take the place of the held-out
        scores of the training images, in the threshold, in p-values, and in the limits of colours.
        The share is `contamination` or, without, the one that the threshold had.
    groups : sequence of hashable or None, default=None
        With `images`: a label for each, which those of one part share. See
        :func:`skanomaly.p_values`.

    Returns
    -------
    estimator
        A copy that shares what was learned with `estimator`. It is fitted, its clones have the new
        `contamination`, and `calibration_` of its scorer says where the threshold is from. Its
        steps are copies, so that neither is changed by a later fit of the other.

    Raises
    ------
    ValueError
        When nothing or too much is asked for, or a number is out of range.
    TypeError
        When the scorer lacks what it takes; the message names it.
    NotFittedError
        When there are no held-out scores yet, or another parameter than `contamination` changed
        since `fit`.

    Warns
    -----
    UserWarning
        Where some of `images` are training images; where there are fewer than ``1 /
        contamination - 1`` scores, or groups, so that no threshold holds so small a share; and
        where the threshold rests on few images that score far below all others.

    Notes
    -----
    A threshold that is a number is no share of good images: a clone of the copy that is fitted has
    the share `contamination` again.

    A scorer of your own that derives from nothing of `skanomaly.base` needs `offset_` for a
    `threshold`, and `train_scores_` too for a `contamination`; its `decision_function` must be
    ``score_samples(X) - offset_``, as the checks in `skanomaly.estimator_checks` ask.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, recalibrate
    >>> from skanomaly.datasets import make_surfaces
    >>> good = make_surfaces(24, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(contamination=0.25))
    >>> pipe.fit(good[:12]).predict(good[:12]).tolist().count(-1)
    3
    >>> strict = recalibrate(pipe, contamination=0.5)
    >>> strict.predict(good[:12]).tolist().count(-1)
    6
    >>> today = recalibrate(pipe, images=good[12:])  # the line has changed
    >>> today.predict(good[12:]).tolist().count(-1)
    3
    >>> today[-1].calibration_["kind"], today[-1].calibration_["contamination"]
    ('images', 0.25)
    """
    given = [contamination is not None, images is not None]
    if threshold is not None and any(given):
        raise ValueError("give threshold by itself: it is the number that the other two would find")
    if threshold is None and not any(given):
        raise ValueError("give contamination, threshold or images: nothing else is to be moved")
    if groups is not None and images is None:
        raise ValueError("groups are those of images, which are not given")
    split = split_pipeline(estimator)
    if threshold is not None:
        return with_threshold(estimator, threshold, "threshold")
    if images is None:
        scorer = _with_contamination(split.scorer, contamination)
    else:
        scorer = _with_images(split, images, contamination, groups, trained_on(estimator))
    _warn_of_few(scorer)
    warn_of_rest(scorer)
    made: _Estimator = _with_scorer(estimator, split.scorer, scorer, contamination)
    return made


def with_threshold(estimator: _Estimator, threshold: float, kind: str, **origin: Any) -> _Estimator:
    """A copy of an estimator with a number as its threshold.

    Parameters
    ----------
    estimator : Pipeline, scorer or detector
        As for :func:`~skanomaly.recalibrate`.
    threshold : float
        Finite.
    kind : str
        What `calibration_` calls it.
    **origin : dict
        What else it says, in plain values; `images`, the digests of those that chose it.

    Returns
    -------
    estimator
    """
    if not is_finite(threshold):
        raise ValueError(
            f"threshold must be a finite number in the unit of score_samples, got {threshold!r}"
        )
    old = split_pipeline(estimator).scorer
    if isinstance(old, CalibratedEstimator):
        new = old._with_threshold(float(threshold), kind, **origin)
    else:
        new = _foreign_copy(old, float(threshold))
    made: _Estimator = _with_scorer(estimator, old, new)
    return made


def _with_contamination(scorer: Any, contamination: Any) -> Any:
    if isinstance(scorer, CalibratedEstimator):
        return scorer._with_contamination(contamination)
    if not hasattr(scorer, "train_scores_"):
        raise TypeError(
            f"{type(scorer).__name__} has no train_scores_, the held-out scores of its training "
            "images, of which the share is taken: give threshold, or fit it again"
        )
    if not CONTAMINATION.is_satisfied_by(contamination):
        raise ValueError(f"contamination must be a number in (0, 0.5], got {contamination!r}")
    made = _foreign_copy(scorer, contamination_offset(scorer.train_scores_, float(contamination)))
    return _set_contamination(made, contamination)


def _with_images(
    split: SplitPipeline, images: Any, contamination: Any, groups: Groups, known: Any
) -> Any:
    scorer = split.scorer
    if not isinstance(scorer, CalibratedEstimator):
        raise TypeError(
            f"{type(scorer).__name__} cannot be calibrated on other images: that takes a scorer "
            "that derives from skanomaly.base, or AnomalibDetector. Give threshold"
        )
    check_is_fitted(scorer, "train_scores_")
    if contamination is None:
        contamination = scorer.contamination
        if getattr(scorer, "calibration_", {}).get("kind") in ("threshold", "cost"):
            raise ValueError(
                "this threshold was given as a number, and holds no share that images could keep: "
                f"give contamination too, such as the {contamination!r} of fit"
            )
    digests: tuple[str | None, ...] = ()
    if takes_images(split):
        images = check_images(images)
        digests = training_images(images).digests
    numbers = group_numbers(groups, len(images))
    kept = [digest for digest in digests if digest is not None]
    made = scorer._with_images(scored_by(split, images), contamination, numbers, kept)
    _warn_of_trained_on([i for i, digest in enumerate(digests) if digest in known])
    return made


def takes_images(split: SplitPipeline) -> bool:
    """Whether it is given images: not so a scorer of tokens by itself."""
    return bool(split.transformers) or hasattr(split.scorer, "score_maps")


def scored_by(split: SplitPipeline, images: Any) -> Any:
    """What the scorer takes of images; tokens that are given to it by itself, as they are."""
    return split.tokens_of(images) if split.transformers else images


def _foreign_copy(scorer: Any, threshold: float) -> Any:
    """A copy of a scorer that is not made of our base classes, with another threshold."""
    if not hasattr(scorer, "score_maps"):
        check_patch_scorer(scorer, "the last step")
    check_is_fitted(scorer)
    offset_of(scorer)  # an error where it has none
    made = copy_of_estimator(scorer)
    made.offset_ = threshold
    return made


def _with_scorer(estimator: Any, old: Any, new: Any, contamination: Any = None) -> Any:
    """A copy of a Pipeline or of a search with another scorer; its other steps are copies too."""
    made = copy_of_estimator(estimator, {id(old): new})
    if contamination is not None:
        _set_in_searched(made, contamination)
    return made


def _set_in_searched(estimator: Any, contamination: Any) -> None:
    """Set the contamination of what searches fit clones of."""
    if hasattr(estimator, "best_estimator_"):
        _set_contamination(split_pipeline(estimator.estimator).scorer, contamination)
        _set_in_searched(estimator.best_estimator_, contamination)
    elif isinstance(estimator, Pipeline):
        for _, step in estimator.steps:
            _set_in_searched(step, contamination)


def _set_contamination(scorer: Any, contamination: Any) -> Any:
    if hasattr(scorer, "contamination"):
        scorer.contamination = contamination
    return scorer


def _warn_of_trained_on(found: list[int]) -> None:
    if found:
        warn_user(
            f"{len(found)} of the images ({listed(found)}) are training images, which the model "
            "knows: a threshold is better calibrated on other good images"
        )


def _warn_of_few(scorer: Any) -> None:
    """Warn where no threshold on so few scores flags so small a share."""
    share = contamination_of(scorer)
    calibration = getattr(scorer, "calibration_", {})
    n_images = calibration.get("n_images", len(getattr(scorer, "train_scores_", ())))
    n_groups = calibration.get("n_groups")
    n, what = (n_images, "images") if n_groups is None else (n_groups, "groups of images")
    if share is None or n == 0 or n >= images_for_share(share):
        return
    warn_user(
        f"{n} {what} hold no threshold of contamination={share:g}: "
        + ("it is the lowest of their scores, and " if n_groups is None else "")
        + f"flags {1 / (n + 1):.2g} of new good images on average. Give at least "
        f"{images_for_share(share)}, or a contamination of at least {1 / (n + 1):.2g}"
    )
