"""Any outlier detector of scikit-learn or PyOD, on patches."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from skanomaly._docstrings import document
from skanomaly._patch_tokens import PatchTokens
from skanomaly._sklearn import HasMethods, Interval
from skanomaly._typing import FloatArray
from skanomaly.scorers._cross_fitted import CrossFittedScorer
from skanomaly.scorers._docstrings import SCORER_DOCS

_BLOCK_ROWS = 2**13  # patches that the estimator is given at a time


@document(SCORER_DOCS)
class PatchwiseScorer(CrossFittedScorer):
    """Score patches by an outlier detector of scikit-learn or PyOD.

    What such a detector lacks for images comes from here: maps, image scores, held-out calibration,
    masked patches, groups, and the checks of what is scored.

    Parameters
    ----------
    estimator : estimator
        Cloned, and fitted to patches of normal images, without labels: an outlier detector, a
        density such as ``sklearn.mixture.GaussianMixture``, or a Pipeline that ends in one. It has
        `score_samples`, or else `decision_function`; ``LocalOutlierFactor`` needs
        ``novelty=True``.
    n_patches : int or None, default=10_000
        Number of training patches it is fitted to, drawn at random from those of all images and
        views; all where there are no more, or for None.
    %(topk)s
    %(aggregation)s
    %(contamination)s
    random_state : int, RandomState instance or None, default=None
        Of that draw; None draws anew at each fit. What the estimator draws itself is a parameter of
        its own.

    Attributes
    ----------
    estimator_ : estimator
        The fitted one.
    %(train_scores_)s
    %(offset_)s
    %(calibration_)s
    %(patch_limits_)s
    %(features_in)s

    Notes
    -----
    A patch's score is ``-score_samples``, or, of an estimator without it, its `decision_function`
    with the sign that says so: PyOD's, which have `decision_scores_` once they are fitted, are
    higher for outliers, scikit-learn's are lower. Scores are on the scale of the estimator, may be
    negative, and must be finite. Masked patches have the score 0, or the lowest of their image
    where that is below 0. The estimator's own threshold and `contamination` do not count, those of
    this class do.

    Training images are scored by cross-fitting with 5 folds: the estimator is fitted six times. It
    is given 8192 patches at a time. Scores do not depend on the other images of a call if those of
    the estimator do not, as of ``IsolationForest`` and ``OneClassSVM``; where it multiplies
    matrices of all patches at once, they may differ in the last bits.

    A model file holds the fitted estimator. What reads arrays without checks, such as trees and
    support vectors, is loaded only with ``trusted=``; see :func:`skanomaly.load_model`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.svm import OneClassSVM
    >>> from skanomaly import PatchwiseScorer
    >>> rng = np.random.default_rng(0)
    >>> good = rng.normal(size=(20, 8, 8, 5))
    >>> bad = rng.normal(size=(1, 8, 8, 5))
    >>> bad[0, 2, 3] += 5
    >>> scorer = PatchwiseScorer(OneClassSVM(nu=0.1), random_state=0).fit(good)
    >>> scorer.predict(bad)
    array([-1])
    >>> np.argwhere(scorer.score_patches(bad)[0] == scorer.score_patches(bad).max())
    array([[2, 3]])
    """

    _parameter_constraints: dict = {
        **CrossFittedScorer._parameter_constraints,
        "estimator": [HasMethods(["fit", "get_params", "set_params"])],
        "n_patches": [None, Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        n_patches: int | None = 10_000,
        topk: float = 0.01,
        aggregation: str | float = "topk_mean",
        contamination: float = 0.1,
        random_state: int | RandomState | None = None,
    ):
        self.estimator = estimator
        self.n_patches = n_patches
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination
        self.random_state = random_state

    @property
    def estimator_(self) -> Any:
        """The fitted estimator."""
        return self._model

    def _fit_tokens(self, tokens: PatchTokens) -> FloatArray:
        _check_scores_new(self.estimator)
        return super()._fit_tokens(tokens)

    def _fit_model(self, tokens: PatchTokens) -> Any:
        rows = np.flatnonzero(tokens.valid)
        if self.n_patches is not None and self.n_patches < len(rows):
            rng = check_random_state(self.random_state)
            rows = np.sort(rng.choice(rows, self.n_patches, replace=False))
        return clone(self.estimator).fit(tokens.values[rows])

    def _score_model(self, model, tokens, known):
        score, sign = _score_of(model)
        scores, valid = np.zeros(len(tokens.values)), np.flatnonzero(tokens.valid)
        for start in range(0, len(valid), _BLOCK_ROWS):
            rows = valid[start : start + _BLOCK_ROWS]
            found = sign * np.asarray(score(tokens.values[rows]), dtype=np.float64)
            if found.shape != rows.shape:
                raise ValueError(
                    f"{type(model).__name__} made scores of shape {found.shape} of {len(rows)} "
                    "patches: there must be one of each"
                )
            # An image score of NaN is an error that names the image; one of these may be hidden.
            scores[rows] = np.where(np.isfinite(found), found, np.nan)
        return scores


def _check_scores_new(estimator):
    """Raise where an estimator could be fitted, and then not score other patches."""
    if hasattr(estimator, "score_samples") or hasattr(estimator, "decision_function"):
        return
    name = type(estimator).__name__
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if getattr(last, "novelty", True) is False:
        raise ValueError(f"{name} scores other patches than those of fit only with novelty=True")
    raise ValueError(
        f"{name} has neither score_samples nor decision_function, so that it scores no patches: "
        "give an outlier detector or a density"
    )


def _score_of(model):
    """The method that scores patches, and the sign by which its scores are higher for outliers."""
    if hasattr(model, "score_samples"):
        return model.score_samples, -1
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    return model.decision_function, 1 if hasattr(last, "decision_scores_") else -1
