"""A detector and a data set, to every metric."""

import time
from dataclasses import dataclass, field

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skanomaly.inspection import score_images
from skanomaly.metrics import image_auroc, image_average_precision, image_f1_max


@dataclass(frozen=True, repr=False)
class EvaluationResult:
    """What :func:`evaluate_split` found.

    Attributes
    ----------
    name : str
        Of the data set.
    n_train, n_normal, n_anomalous : int
        Images trained on; normal and anomalous images tested on.
    image_auroc, image_average_precision, image_f1_max : float
        See :mod:`skanomaly.metrics`; `image_f1_max` knows the test labels.
    contamination : float
        The nominal share of normal images to be flagged.
    threshold : float
        `offset_` of the detector: lower scores are flagged.
    false_positive_rate, recall : float
        Share of the normal and of the anomalous test images that the detector flags, by the
        threshold it took from training images alone.
    fit_seconds, score_seconds : float
        Wall-clock time of fitting, and of scoring the test images.
    y, scores, predictions : ndarray of shape (n_test,)
        Labels, `score_samples` and decisions (+1/-1) of the test images.
    patch_scores : list of ndarray of shape (grid_h, grid_w)
        Patch scores of the test images.
    estimator : estimator
        The fitted clone.
    """

    name: str
    n_train: int
    n_normal: int
    n_anomalous: int
    image_auroc: float
    image_average_precision: float
    image_f1_max: float
    contamination: float
    threshold: float
    false_positive_rate: float
    recall: float
    fit_seconds: float
    score_seconds: float
    y: np.ndarray = field(compare=False)
    scores: np.ndarray = field(compare=False)
    predictions: np.ndarray = field(compare=False)
    patch_scores: list = field(compare=False)
    estimator: object = field(compare=False)

    def to_dict(self):
        """The numbers alone, ready for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: value for name, value in values.items() if isinstance(value, (str, int, float))
        }

    def __repr__(self):
        lines = [
            f"  {name}={value:.4f}" if isinstance(value, float) else f"  {name}={value!r}"
            for name, value in self.to_dict().items()
        ]
        return "EvaluationResult(\n" + ",\n".join(lines) + "\n)"


def evaluate_split(estimator, split):
    """Fit a detector on a data set's training images and measure it on its test images.

    Parameters
    ----------
    estimator : Pipeline or detector
        Cloned, not modified. A Pipeline of an embedder and a scorer, or an image detector with
        `score_maps`.
    split : DatasetSplit
        For example from :func:`skanomaly.datasets.read_mvtec`.

    Returns
    -------
    EvaluationResult
        Metrics, decisions, scores, patch scores and the fitted clone.

    Raises
    ------
    ValueError
        When the test images are all normal or all anomalous.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchGaussianScorer, evaluate_split
    >>> from skanomaly.datasets import read_mvtec
    >>> pipe = make_pipeline(FilterBankPatches(), PatchGaussianScorer())
    >>> result = evaluate_split(pipe, read_mvtec("data/bottle"))  # doctest: +SKIP
    >>> result.image_auroc  # doctest: +SKIP
    """
    train, test = split.train, split.test
    for label, kind in ((1, "normal"), (-1, "anomalous")):
        if not np.any(test.y == label):
            raise ValueError(f"{split.name}: there is no {kind} test image, no metric is defined")
    estimator = clone(estimator)
    start = time.perf_counter()
    estimator.fit(list(train.images), train.y)
    fitted = time.perf_counter()
    scores, grids = score_images(estimator, list(test.images))
    scored = time.perf_counter()
    scorer = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    predictions = np.where(scores < scorer.offset_, -1, 1)
    flagged, normal = predictions == -1, test.y == 1
    return EvaluationResult(
        name=split.name,
        n_train=int(np.count_nonzero(train.y == 1)),
        n_normal=int(normal.sum()),
        n_anomalous=int((~normal).sum()),
        image_auroc=image_auroc(test.y, scores),
        image_average_precision=image_average_precision(test.y, scores),
        image_f1_max=image_f1_max(test.y, scores)[0],
        contamination=float(scorer.contamination),
        threshold=float(scorer.offset_),
        false_positive_rate=float(flagged[normal].mean()),
        recall=float(flagged[~normal].mean()),
        fit_seconds=fitted - start,
        score_seconds=scored - fitted,
        y=test.y,
        scores=scores,
        predictions=predictions,
        patch_scores=grids,
        estimator=estimator,
    )
