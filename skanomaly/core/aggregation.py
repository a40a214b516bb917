"""From the scores of an image's patches to the score of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real

import numpy as np

from skanomaly._typing import ArrayLike, FloatArray, IntArray


def aggregate_patch_scores(
    scores: ArrayLike, aggregation: str | float = "topk_mean", topk: float = 0.01
) -> float:
    """Aggregate the patch scores of one image into its image score.

    Parameters
    ----------
    scores : array-like of shape (n_patches,)
        Patch scores; higher is more anomalous. Masked patches are left out by the caller.
    aggregation : {"topk_mean", "max", "mean"} or float, default="topk_mean"
        ``"topk_mean"`` is the mean of the highest scores, as many as `topk` says. A float in
        [0, 1] is that quantile of the scores (0.5: the median).
    topk : float or int, default=0.01
        For ``"topk_mean"``: a float in (0, 1] takes the ``max(1, int(topk * n_patches))`` highest
        scores, an int that many.

    Returns
    -------
    float
        The image score; higher is more anomalous.

    Raises
    ------
    ValueError
        When there is no score, or fewer than an integer `topk` asks for; for an unknown
        `aggregation`, and for bools.

    Notes
    -----
    The scores are sorted before they are summed, so that the result does not depend on the order
    of the patches, not even in its last bit. The mean of the top 1% is the image score of
    AnomalyDINO [1]_.

    References
    ----------
    .. [1] Damm et al., "AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with
       DINOv2", WACV 2025.

    Examples
    --------
    >>> from skanomaly.core.aggregation import aggregate_patch_scores
    >>> aggregate_patch_scores([0.0, 1.0, 3.0, 2.0], topk=2)
    2.5
    >>> aggregate_patch_scores([0.0, 1.0, 3.0, 2.0], aggregation=0.5)
    1.5
    """
    scores = np.sort(np.asarray(scores, dtype=np.float64))
    if scores.size == 0:
        raise ValueError("there is no patch score to aggregate: every patch is masked")
    if isinstance(aggregation, Real) and not isinstance(aggregation, bool):
        return float(np.quantile(scores, aggregation))
    if aggregation == "max":
        return float(scores[-1])
    if aggregation == "mean":
        return float(scores.mean())
    if aggregation != "topk_mean":
        raise ValueError(
            f"aggregation must be 'topk_mean', 'max', 'mean' or a float in [0, 1], "
            f"got {aggregation!r}"
        )
    return float(scores[-_count(topk, scores.size) :].mean())


def n_decisive(n_patches: int, aggregation: str | float = "topk_mean", topk: float = 0.01) -> int:
    """How many of the highest patch scores decide the image score.

    Parameters
    ----------
    n_patches : int
        Patches of the image.
    aggregation, topk
        As for :func:`aggregate_patch_scores`.

    Returns
    -------
    int
        The image score stays as it is when all others are replaced by anything no higher than
        these.

    Examples
    --------
    >>> from skanomaly.core.aggregation import n_decisive
    >>> n_decisive(1024), n_decisive(1024, "max"), n_decisive(1024, 0.99)
    (10, 1, 13)
    """
    if isinstance(aggregation, Real):
        # Quantiles lie between two neighbours; one more for the rounding of their position.
        return min(n_patches, n_patches - int(aggregation * (n_patches - 1)) + 1)
    if aggregation == "max":
        return min(n_patches, 1)
    if aggregation == "topk_mean":
        return min(n_patches, topk if isinstance(topk, Integral) else _count(topk, n_patches))
    return n_patches


def highest_scores(
    bounds: FloatArray,
    offsets: Sequence[int] | IntArray,
    counts: Sequence[int],
    evaluate: Callable[[IntArray], FloatArray],
) -> FloatArray:
    """Scores of which the highest of every image are exact, from upper bounds of all.

    Parameters
    ----------
    bounds : ndarray of shape (n_patches,), float64
        No lower than the scores.
    offsets : ndarray of shape (n_images + 1,), int
        The patches of image i are ``offsets[i]`` to ``offsets[i + 1]``.
    counts : sequence of int
        How many scores of each image have to be exact.
    evaluate : callable
        ``evaluate(patches)`` returns the scores of patches, given by number. Called twice at most.

    Returns
    -------
    ndarray of shape (n_patches,), float64
        The ``counts[i]`` highest scores of each image; for the other patches a score or a bound
        that is no higher than these.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.aggregation import highest_scores
    >>> scores = np.array([0.1, 0.5, 0.9, 0.2])
    >>> highest_scores(scores + 0.05, [0, 4], [1], lambda patches: scores[patches])
    array([0.15, 0.5 , 0.9 , 0.25])
    """
    scores = np.array(bounds, dtype=np.float64)
    exact = np.zeros(len(scores), dtype=bool)
    images = [
        (np.arange(start, stop), count)
        for start, stop, count in zip(offsets[:-1], offsets[1:], counts, strict=True)
    ]
    first = [rows[np.argsort(-scores[rows], kind="stable")[: 2 * count]] for rows, count in images]
    for turn in (0, 1):
        chosen = []
        for (rows, count), rows_first in zip(images, first, strict=True):
            if turn == 0:
                chosen.append(rows_first)
            elif 0 < count < len(rows):
                # Bounds no higher than so many exact scores cannot come before them.
                least = np.sort(scores[rows][exact[rows]])[-count]
                chosen.append(rows[~exact[rows] & (scores[rows] > least)])
        asked = np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)
        if asked.size:
            scores[asked] = evaluate(asked)
            exact[asked] = True
    return scores


def _count(topk, n_patches):
    if isinstance(topk, bool):
        raise ValueError(f"topk must be a share or a number of patches, got {topk!r}")
    if not isinstance(topk, Integral):
        return max(1, int(topk * n_patches))
    if topk > n_patches:
        raise ValueError(f"topk={topk} is more than the {n_patches} patches of the image")
    return int(topk)
