"""From the scores of an image's patches to the score of the image."""

from numbers import Integral, Real

import numpy as np


def aggregate_patch_scores(scores, aggregation="topk_mean", topk=0.01):
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
        When there is no score, or fewer than an integer `topk` asks for.

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
    if isinstance(aggregation, Real):
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


def _count(topk, n_patches):
    if not isinstance(topk, Integral):
        return max(1, int(topk * n_patches))
    if topk > n_patches:
        raise ValueError(f"topk={topk} is more than the {n_patches} patches of the image")
    return int(topk)
