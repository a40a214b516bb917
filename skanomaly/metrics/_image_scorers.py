"""Image metrics as scorers of scikit-learn's searches and cross-validation."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from skanomaly.metrics._image import (
    Metric,
    image_auroc,
    image_average_precision,
    image_f1_max,
    image_fpr_at_recall,
    image_recall_at_zero_fpr,
)


class ImageScorer:
    """An image metric as a scorer: ``GridSearchCV(detector, grid, scoring=image_auroc_scorer)``.

    It takes `score_samples` and `y` of +1 and -1, the anomalies being the ones to find. Beware of
    ``make_scorer(average_precision_score, response_method="decision_function", pos_label=-1)``: it
    ranks the most normal image first, and the search picks the worst detector.

    Parameters
    ----------
    metric : callable
        ``metric(y_true, scores) -> float``.
    sign : {1, -1}, default=1
        -1 if a lower value is better: the scorer returns its negative.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.svm import OneClassSVM
    >>> from skanomaly.metrics import image_auroc_scorer
    >>> detector = OneClassSVM().fit([[0.0], [0.1], [0.2]])
    >>> image_auroc_scorer(detector, np.array([[0.1], [9.0]]), [1, -1])
    1.0
    """

    def __init__(self, metric: Metric, sign: int = 1) -> None:
        self.metric = metric
        self.sign = sign

    def __call__(self, estimator: Any, X: Any, y: ArrayLike) -> float:
        """The metric of a fitted estimator on images `X`, `y` +1/-1; higher is better."""
        return self.sign * self.metric(y, estimator.score_samples(X))

    def __repr__(self) -> str:
        return f"ImageScorer({self.metric.__name__}, sign={self.sign})"


image_auroc_scorer = ImageScorer(image_auroc)
image_average_precision_scorer = ImageScorer(image_average_precision)
image_f1_max_scorer = ImageScorer(image_f1_max)
image_recall_at_zero_fpr_scorer = ImageScorer(image_recall_at_zero_fpr)
neg_image_fpr_at_recall_scorer = ImageScorer(image_fpr_at_recall, sign=-1)

#: Scorers by name. As `scoring` of a search, the dict itself measures all of them.
IMAGE_SCORERS = {
    "image_auroc": image_auroc_scorer,
    "image_average_precision": image_average_precision_scorer,
    "image_f1_max": image_f1_max_scorer,
    "image_recall_at_zero_fpr": image_recall_at_zero_fpr_scorer,
    "neg_image_fpr_at_recall": neg_image_fpr_at_recall_scorer,
}
