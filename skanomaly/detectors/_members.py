"""The members of a union of detectors: fitted one by one, held-out scores of the same images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from skanomaly._grouped_fit import fit_with_groups, takes_groups
from skanomaly._pipelines import split_detector
from skanomaly._transductive import check_scores_new_images
from skanomaly._typing import FloatArray, Groups, IntArray, Labels
from skanomaly.core.unions import common_scale
from skanomaly.inspection import score_images
from skanomaly.scorers._base import SINGLE
from skanomaly.scorers._groups import copies_told_elsewhere
from skanomaly.scorers._training_images import check_scores


@dataclass(frozen=True)
class HeldOut:
    """What a member says of training images that it has not seen in that.

    Attributes
    ----------
    scores : ndarray of shape (n_images,), float64
        `score_samples`.
    maps : list of ndarray of shape (height, width)
        At the member's own size.
    location, scale : float
        Of its held-out patch scores: see :func:`skanomaly.core.unions.common_scale`.
    """

    scores: FloatArray
    maps: list[FloatArray]
    location: float
    scale: float


def check_members(detectors: Sequence[tuple[str, Any]], with_groups: bool) -> None:
    """Raise where the members of a union are no detectors, or do not take groups that there are.

    Parameters
    ----------
    detectors : list of (str, estimator)
        Each with a name of its own.
    with_groups : bool
        Whether `fit` was given groups.

    Raises
    ------
    TypeError, ValueError
        The message names the member.
    """
    for name, member in detectors:
        if isinstance(member, type) or not hasattr(member, "get_params"):
            raise TypeError(
                f"detector {name!r} must be a Pipeline of an embedder and a scorer, or a detector "
                f"of images, got {member!r}"
            )
        try:
            split_detector(member)
        except (TypeError, ValueError) as exc:
            raise type(exc)(f"detector {name!r}: {exc}") from exc
        check_scores_new_images(member, f"detector {name!r}")
        if with_groups and not takes_groups(member):
            raise TypeError(
                f"groups cannot be held out: fit of detector {name!r}, {type(member).__name__}, "
                "takes no groups"
            )


def fit_members(
    detectors: Sequence[tuple[str, Any]],
    images: Sequence[Any],
    y: Labels,
    groups: Groups,
    contamination: float,
) -> dict[str, Any]:
    """Fitted clones of the members.

    Parameters
    ----------
    detectors : list of (str, estimator)
        Checked.
    images, y, groups
        As for `fit`.
    contamination : float
        Of the union; for members whose own is no share, for their thresholds are not used, and that
        they have none by themselves must not prevent the fit.

    Returns
    -------
    dict of str to estimator
    """
    fitted = {}
    for number, (name, detector) in enumerate(detectors):
        member = clone(detector)
        scorer = split_detector(member).scorer
        if hasattr(scorer, "get_params"):
            if scorer.get_params(deep=False).get("contamination") == "auto":
                scorer.set_params(contamination=contamination)
        with ExitStack() as told_once:
            if number:  # what the first one says of the images is enough
                told_once.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", SINGLE, UserWarning)
                told_once.enter_context(copies_told_elsewhere())
            fitted[name] = fit_with_groups(member, images, y, groups)
    return fitted


def held_out_by_members(
    members: dict[str, Any], images: Sequence[Any], normal: IntArray
) -> tuple[IntArray, dict[str, HeldOut]]:
    """Held-out scores and maps of the same training images by each member.

    Members calibrate on some of many images, and each on others, for they have other numbers of
    patches. All are asked for the images of the one that has the fewest; who has not calibrated on
    all of these scores them again, and gives training images their held-out scores.

    Parameters
    ----------
    members : dict of str to estimator
        Fitted to `images`.
    images : sequence of images
        Of `fit`.
    normal : ndarray of int
        Numbers of the normal ones.

    Returns
    -------
    numbers : ndarray of int
        Of the images that there are scores of.
    held_out : dict of str to HeldOut
        Of each member.

    Raises
    ------
    TypeError
        When a member keeps no held-out scores, or no maps of images; it is named.
    """
    known = {name: _calibrated_on(name, member, normal) for name, member in members.items()}
    numbers = min((n for n in known.values() if n is not None), key=len, default=normal)
    return numbers, {
        name: _held_out(name, member, images, numbers, known[name])
        for name, member in members.items()
    }


def _calibrated_on(name: str, member: Any, normal: IntArray) -> IntArray | None:
    """Numbers of the images whose held-out scores and maps a member has; None if not known."""
    scorer = split_detector(member).scorer
    scores = getattr(scorer, "train_scores_", None)
    if scores is None:
        raise TypeError(
            f"detector {name!r}: {type(scorer).__name__} keeps no train_scores_ in fit, the "
            "scores of good images that it has not seen, which a union brings to one scale"
        )
    if hasattr(type(scorer), "held_out_patches_") and not hasattr(scorer, "held_out_patches_"):
        raise ValueError(
            f"detector {name!r}: {type(scorer).__name__} has no maps of images, which a union joins"
        )
    if len(getattr(scorer, "held_out_patches_", ())) != len(scores):
        return None
    numbers = getattr(scorer, "_calibration_numbers", None)
    if numbers is None and len(scores) == len(normal):
        return normal
    return numbers


def _held_out(
    name: str, member: Any, images: Sequence[Any], numbers: IntArray, known: IntArray | None
) -> HeldOut:
    scorer = split_detector(member).scorer
    if known is not None and np.isin(numbers, known).all():
        rows = np.flatnonzero(np.isin(known, numbers))
        maps = [scorer.held_out_patches_[row] for row in rows]
        scores: Any = np.asarray(scorer.train_scores_, dtype=np.float64)[rows]
    else:
        maps, scores = member_scores(name, member, [images[i] for i in numbers])
    # Of all patches that it has held out; masked ones are no scores.
    values = [np.ravel(heat) for heat in getattr(scorer, "held_out_patches_", None) or maps]
    if any(np.ndim(heat) != 2 for heat in maps):
        raise TypeError(
            f"detector {name!r}: maps need tokens of shape (n_images, grid_h, grid_w, dim)"
        )
    found = np.concatenate(values).astype(np.float64)
    return HeldOut(scores, maps, *common_scale(found[~np.isnan(found)]))


def member_scores(
    name: str, member: Any, images: Sequence[Any]
) -> tuple[list[FloatArray], FloatArray]:
    """Maps, at the member's own size, and `score_samples` of images.

    Parameters
    ----------
    name : str
        Of the member, for messages.
    member : estimator
        Fitted.
    images : sequence of images

    Returns
    -------
    maps : list of ndarray of shape (height, width)
    scores : ndarray of shape (n_images,), float64
    """
    maps, scores = score_images(member, images)
    return maps, check_scores(scores, len(images), f"detector {name!r}")


def member_samples(name: str, member: Any, images: Sequence[Any]) -> FloatArray:
    """`score_samples` of images by a member, without tokens of all of them at once.

    Parameters
    ----------
    name, member, images
        As for :func:`member_scores`.

    Returns
    -------
    ndarray of shape (n_images,), float64
    """
    split = split_detector(member)
    scores = split.scorer.score_samples(split.tokens_of(images))
    return check_scores(scores, len(images), f"detector {name!r}")
