"""Whether a graph says of images what the pipeline says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._parameters import copy_of_estimator
from skanomaly._pipelines import offset_of, split_pipeline
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.calibration import conformal_p_values
from skanomaly.deployment._running import Run
from skanomaly.inspection import anomaly_maps

SCORE_TOLERANCE, MAP_TOLERANCE = 1e-4, 1e-3
_AT_ONCE = 2  # images, so that batches are tried too


@dataclass(frozen=True)
class Verified:
    """How far a graph is from its pipeline, over altered copies of images.

    Attributes
    ----------
    n_images : int
    score_deviation : float
        Largest difference of a score, as a share of the score or, if that is more, of the median
        score of good images that are held out.
    map_deviation : float
        Largest difference of a pixel, as a share of the range of all maps.
    n_anomalous : int
        How many copies both call anomalous.
    """

    n_images: int
    score_deviation: float
    map_deviation: float
    n_anomalous: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def one_sided(self) -> str:
        """What to tell where all copies lie on one side of the threshold; empty where not."""
        if 0 < self.n_anomalous < self.n_images:
            return ""
        if self.n_anomalous:
            found, missing = "All", "good parts that are not training images"
        else:
            found, missing = "None", "known defects"
        copies = "altered copies were" if self.n_images > 1 else "altered copy was"
        return (
            f"{found} of the {self.n_images} {copies} called anomalous, so that the "
            "decisions of graph and pipeline were compared on one side of the threshold only: "
            f"compare the two on some images of {missing} as well, with DeployedDetector"
        )


def altered(image: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """A copy of an image that is new to a model which was trained on the image.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3), uint8
    number : int
        Of the image: every second copy is the image in a mirror, the others are a tenth darker.

    Returns
    -------
    ndarray of the same shape, uint8

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.deployment._verification import altered
    >>> image = np.array([[[10, 10, 10], [200, 200, 200]]], dtype=np.uint8)
    >>> altered(image, 0)[0, :, 0].tolist(), altered(image, 1)[0, :, 0].tolist()
    ([200, 10], [9, 180])
    """
    if number % 2:
        return (image.astype(np.uint16) * 9 // 10).astype(np.uint8)
    return np.ascontiguousarray(image[:, ::-1])


def as_strangers(estimator: Any) -> Any:
    """A copy of a detector to which all images are new, those of `fit` too.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted. A training image gets from it its held-out score, which no graph knows.

    Returns
    -------
    estimator
        That shares what was learned.
    """
    made = copy_of_estimator(estimator)
    scorer = split_pipeline(made).scorer
    for name in ("detectors_", "scorers_"):
        if name in vars(scorer):
            members = vars(scorer)[name].items()
            setattr(scorer, name, {name: as_strangers(member) for name, member in members})
    if "_fingerprints" in vars(scorer):
        scorer._fingerprints = _NoFingerprints()
    return made


class _NoFingerprints:
    """In place of those of training images: none is known."""

    def match(self, tokens: Any) -> IntArray:
        return np.full(tokens.n_images, -1)


def verify(
    run: Run,
    estimator: Any,
    images: Sequence[NDArray[np.uint8]],
    names: Sequence[str],
    sigma: float,
) -> Verified:
    """Compare a graph with its pipeline on altered copies of images.

    Parameters
    ----------
    run : callable
        The graph.
    estimator : Pipeline or detector
        Fitted.
    images : sequence of ndarray of shape (height, width, 3), uint8
    names : sequence of str
        Of the images, for messages.
    sigma : float
        Of the maps.

    Returns
    -------
    Verified

    Raises
    ------
    ValueError
        When scores, decisions, maps or p-values differ by more than is allowed; the message names
        the image, and says how far.
    """
    stranger, scorer = as_strangers(estimator), split_pipeline(estimator).scorer
    offset = offset_of(scorer)
    train_scores = getattr(scorer, "train_scores_", np.zeros(0))
    usual = float(np.median(np.abs(train_scores))) if len(train_scores) else 0.0
    shares, gaps, low, high, n_anomalous = [], [], np.inf, -np.inf, 0
    for start in range(0, len(images), _AT_ONCE):
        numbers = range(start, min(start + _AT_ONCE, len(images)))
        copies = [altered(images[i], i) for i in numbers]
        maps, scores = anomaly_maps(stranger, copies, sigma=sigma, stack=False, return_scores=True)
        by_size = [copies] if len({c.shape for c in copies}) == 1 else [[c] for c in copies]
        found = [run(np.stack(group)) for group in by_size]
        graph_scores = np.concatenate([of["score"] for of in found])
        decisions = np.concatenate([of["decision"] for of in found])
        graph_maps = [heat for of in found for heat in of["anomaly_map"]]
        for i, score, other in zip(numbers, scores, graph_scores, strict=True):
            share = abs(other - score) / max(abs(score), usual, np.finfo(float).tiny)
            if not share <= SCORE_TOLERANCE:
                raise _difference(
                    names[i],
                    i,
                    f"scores {other:.8g} in the graph and {score:.8g} in the pipeline,"
                    f" {share:.2g} of it apart, of which {SCORE_TOLERANCE:g} is allowed",
                )
            shares.append(share)
        expected = np.where(scores < offset, -1, 1)
        for i, score, one, other in zip(numbers, scores, expected, decisions, strict=True):
            if one != other:
                raise _difference(
                    names[i],
                    i,
                    f"is called {_WORDS[int(other)]} by the graph and {_WORDS[one]} "
                    f"by the pipeline: its score, {score:.8g}, is too near the threshold, "
                    f"{offset:.8g}",
                )
        if "p_value" in found[0]:
            _check_p_values(found, graph_scores, scorer)
        for heat, other in zip(maps, graph_maps, strict=True):
            gaps.append(float(np.abs(heat - other).max()))
            low, high = min(low, float(heat.min())), max(high, float(heat.max()))
        n_anomalous += int((expected < 0).sum())
    worst = int(np.argmax(gaps))
    span = high - low
    deviation = gaps[worst] / span if span > 0 else gaps[worst]
    if not deviation <= MAP_TOLERANCE:
        raise _difference(
            names[worst],
            worst,
            f"has maps that are {gaps[worst]:.3g} apart, {deviation:.2g} of "
            f"the range of all maps, of which {MAP_TOLERANCE:g} is allowed",
        )
    return Verified(len(images), float(max(shares)), float(deviation), n_anomalous)


_WORDS = {1: "normal", -1: "anomalous"}


def _check_p_values(found: Any, scores: FloatArray, scorer: Any) -> None:
    p_values = np.concatenate([of["p_value"] for of in found])
    expected = conformal_p_values(scorer.train_scores_, scores, scorer._train_groups)
    if not np.abs(p_values - expected).max() <= 1e-6:
        raise ValueError(
            f"the graph has p-values {p_values} where {expected} were expected; nothing was written"
        )


def _difference(name: str, number: int, what: str) -> ValueError:
    copy = "darker by a tenth" if number % 2 else "in a mirror"
    return ValueError(
        f"the exported model is not the one that was fitted: {name}, {copy}, {what}. Nothing was "
        "written"
    )
