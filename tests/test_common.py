"""scikit-learn's own checks of every scorer, unmodified and with no expected failure."""

import pytest
from _prompts import AxisPrompts
from sklearn.utils.estimator_checks import check_param_validation, parametrize_with_checks

from skanomaly import PatchGaussianScorer, PatchKNNScorer, ScoreUnion

SCORERS = [
    PatchKNNScorer(),
    PatchKNNScorer(metric="euclidean", n_neighbors=2, aggregation="max"),
    PatchKNNScorer(metric="euclidean", coreset=0.5),
    PatchKNNScorer(coreset=25, coreset_method="random", random_state=0),
    PatchGaussianScorer(),
    PatchGaussianScorer("shared", aggregation=0.9),
    PatchGaussianScorer(n_components=2, reduction="pca"),
    PatchGaussianScorer(n_components=2, reduction="random", random_state=0, shrinkage=0.5),
    AxisPrompts(logit_scale=10),
    AxisPrompts(mode="diff", contamination=0.1),
    ScoreUnion([("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer("shared"))]),
    ScoreUnion(
        [("prompt", AxisPrompts(logit_scale=10)), ("knn", PatchKNNScorer(n_neighbors=2))],
        normalization=None,
        combination="max",
        aggregation="members",
    ),
]


@parametrize_with_checks(SCORERS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", SCORERS, ids=repr)
def test_parameter_validation(estimator):
    check_param_validation(type(estimator).__name__, estimator)
