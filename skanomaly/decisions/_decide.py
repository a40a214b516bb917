"""What a detector decides of each image, and by which numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skanomaly._images import check_images
from skanomaly._images.names import path_of
from skanomaly._pipelines import SplitPipeline, check_embedder, offset_of, split_pipeline
from skanomaly._typing import FloatArray, ImageLike, Images
from skanomaly.inspection import p_values_of


@dataclass(frozen=True, repr=False)
class Decision:
    """One image, judged.

    Parameters
    ----------
    index : int
        Number of the image in the input.
    image : image
        As it was given. It does not count when decisions are compared.
    score : float
        `score_samples`: higher is more normal.
    threshold : float
        `offset_` of the detector: images that score lower are called anomalous.
    p_value : float or None, default=None
        Conformal p-value; None where the scorer has no held-out scores.
    patch_scores : ndarray of shape (grid_h, grid_w) or None, default=None
        Higher is more anomalous; of a detector of images its map, at the model's size. None where
        there are none of a grid.

    Examples
    --------
    >>> from skanomaly.decisions import Decision
    >>> decision = Decision(0, "part.png", score=-0.31, threshold=-0.25, p_value=0.02)
    >>> decision.is_anomalous
    True
    >>> decision.to_dict()["decision"]
    'anomalous'
    """

    index: int
    image: ImageLike = field(compare=False)
    score: float
    threshold: float
    p_value: float | None = None
    patch_scores: FloatArray | None = field(default=None, compare=False)

    @property
    def is_anomalous(self) -> bool:
        """Whether the score is below the threshold."""
        return self.score < self.threshold

    @property
    def path(self) -> str | None:
        """Where the image lies; None of what is no path."""
        return path_of(self.image)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON.

        Returns
        -------
        dict of str to object
            `index`, `image` (its path, or None), `score`, `threshold`, `p_value`, and `decision`:
            "anomalous" or "normal".
        """
        return {
            "index": self.index,
            "image": self.path,
            "score": self.score,
            "threshold": self.threshold,
            "p_value": self.p_value,
            "decision": "anomalous" if self.is_anomalous else "normal",
        }

    def __repr__(self) -> str:
        values = self.to_dict()
        image = type(self.image).__name__ if values["image"] is None else repr(values["image"])
        p_value = "" if self.p_value is None else f", p_value={self.p_value:.4g}"
        return (
            f"Decision({self.index}, {image}: {values['decision']}, score={self.score:.6g}, "
            f"threshold={self.threshold:.6g}{p_value})"
        )


def decide(estimator: Any, images: Images) -> list[Decision]:
    """Judge images: score, threshold, p-value and patch scores of each, from one pass.

    Parameters
    ----------
    estimator : Pipeline or detector
        A fitted Pipeline of an embedder (after it, any transformers of tokens) and a scorer, a
        detector of images, or a search of either. The scorer needs `score_samples` and `offset_`;
        patch scores and p-values are given where it has them.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.

    Returns
    -------
    list of Decision
        One for each image, in their order.

    Raises
    ------
    TypeError
        When the estimator scores no images, or has no threshold.

    Notes
    -----
    The decision is that of ``predict(images)``, and the p-value that of
    :func:`skanomaly.p_values`, without scoring the images again.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, decide
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(9, 1, image_size=64, random_state=0)
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> [decision] = decide(pipe.fit(surfaces.images[:9]), surfaces.images[9:])
    >>> decision.is_anomalous, decision.p_value
    (True, 0.1)
    """
    split = split_pipeline(estimator)
    check_embedder(split)
    items = check_images(images)
    check_is_fitted(estimator)
    return decisions_of(split, items)


def decisions_of(
    split: SplitPipeline, items: Sequence[Any], tokens: Any = None, numbers: Any = None
) -> list[Decision]:
    """As :func:`decide`, of a detector taken apart.

    Parameters
    ----------
    split : SplitPipeline
        Fitted, with an embedder.
    items : sequence of images
        At least one.
    tokens : ndarray or None, default=None
        Their patch tokens, after all transformers, where these are known.
    numbers : sequence of int or None, default=None
        Of the images in the input; None where they are all of it.

    Returns
    -------
    list of Decision
    """
    threshold = offset_of(split.scorer)
    grids, scores = _score(split, items, tokens)
    p_values = p_values_of(split.scorer, scores)
    return [
        Decision(
            index=i if numbers is None else numbers[i],
            image=item,
            score=float(scores[i]),
            threshold=threshold,
            p_value=None if p_values is None else float(p_values[i]),
            patch_scores=grids[i],
        )
        for i, item in enumerate(items)
    ]


def _score(
    split: SplitPipeline, items: Sequence[Any], tokens: Any
) -> tuple[list[FloatArray | None], FloatArray]:
    """Patch scores, where they are known of a grid, and scores."""
    scorer = split.scorer
    if hasattr(scorer, "_maps_or_none"):  # some of its models have none
        return scorer._maps_or_none(split.transform(items))
    if hasattr(scorer, "score_maps"):
        maps, scores = scorer.score_maps(split.transform(items), size="model", return_scores=True)
        return list(maps), scores
    tokens = split.tokens_of(items) if tokens is None else tokens
    if not hasattr(scorer, "score_patches"):
        return [None] * len(items), np.asarray(scorer.score_samples(tokens), dtype=np.float64)
    grids, scores = scorer.score_patches(tokens, return_scores=True)
    return [grid if grid.ndim == 2 else None for grid in grids], scores
