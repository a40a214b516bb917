"""Checks of every estimator, scikit-learn's and ours, unmodified and with no expected failure."""

import importlib.util

import numpy as np
import pytest
from _prompts import AxisPrompts
from sklearn.ensemble import IsolationForest
from sklearn.svm import OneClassSVM
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_param_validation
from sklearn.utils.estimator_checks import parametrize_with_checks as sklearn_checks

from skanomaly import (
    DinoV2Patches,
    FilterBankPatches,
    FunctionPatches,
    LocalKNNScorer,
    MutualScorer,
    OpenClipPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PatchwiseScorer,
    PCAForeground,
    RegionOfInterest,
    RetrievalKNNScorer,
    ScoreUnion,
    Tiled,
    TimmPatches,
    TinyPatches,
)
from skanomaly.estimator_checks import EMBEDDER_CHECKS, parametrize_with_checks


def cell_means(image):
    """(8, 8, 6): mean and spread of the colours of cells, an embedding that a user may write."""
    height, width = (side // 8 for side in image.shape[:2])
    cells = image.reshape(8, height, 8, width, 3)
    return np.concatenate([cells.mean(axis=(1, 3)), cells.std(axis=(1, 3))], axis=-1)


KNN, SHARED = PatchKNNScorer(), PatchGaussianScorer("shared")
SCORERS = [
    KNN,
    PatchKNNScorer(metric="euclidean", n_neighbors=2, aggregation="max"),
    PatchKNNScorer(metric="euclidean", coreset=0.5),
    PatchKNNScorer(coreset=25, coreset_method="random", random_state=0),
    PatchKNNScorer(metric="euclidean", aggregation="max", reweighting=9),
    RetrievalKNNScorer(),
    PatchGaussianScorer(),
    LocalKNNScorer(),
    LocalKNNScorer(1, whitening="shared", coreset=0.5),
    LocalKNNScorer(0, whitening=None),
    PatchGaussianScorer("shared", aggregation=0.9),
    PatchGaussianScorer(n_components=2, reduction="pca"),
    PatchGaussianScorer(n_components=2, reduction="random", random_state=0, shrinkage=0.5),
    PatchSubspaceScorer(),
    PatchSubspaceScorer(0.5, aggregation="max"),
    PatchwiseScorer(IsolationForest(n_estimators=10, random_state=0)),
    PatchwiseScorer(OneClassSVM(), n_patches=100, random_state=0),
    AxisPrompts(logit_scale=10),
    AxisPrompts(mode="diff", contamination=0.1),
    ScoreUnion([("knn", KNN), ("gaussian", SHARED)]),
    ScoreUnion(
        [("prompt", AxisPrompts(logit_scale=10)), ("knn", PatchKNNScorer(n_neighbors=2))],
        normalization=None,
        combination="max",
        aggregation="members",
    ),
    MutualScorer(),
    MutualScorer(neighborhoods=(1,), graph_filter=True, aggregation="topk_mean", share=0.5),
]
# Scikit-learn's checks would say nothing new of these.
MORE_SCORERS = [
    PatchKNNScorer(position_weight=1.0),
    PatchKNNScorer(metric="euclidean", aggregation="max", reweighting=3, coreset=0.5),
    RetrievalKNNScorer(3, radius=1),
    SHARED,
    ScoreUnion([("prompt", AxisPrompts(logit_scale=3)), ("knn", KNN)], scorer_weights=[1, 3]),
    ScoreUnion([("one", KNN), ("two", ScoreUnion([("knn", KNN), ("gaussian", SHARED)]))]),
    MutualScorer(3, neighborhoods=(1, 3), graph_filter=True),
]
EMBEDDERS = [
    FilterBankPatches(image_size=64),
    FilterBankPatches(image_size=32, resize="shortest_edge"),
    TinyPatches(image_size=64),
    TinyPatches(image_size=32, grid=16, resize="shortest_edge"),
    FunctionPatches(cell_means),
    Tiled(FilterBankPatches(), tile=32),
    Tiled(TinyPatches(), tile=32),
    Tiled(FunctionPatches(cell_means), tile=40, overlap=10, scale=1.5),
]
if importlib.util.find_spec("timm") is not None:
    EMBEDDERS += [
        TimmPatches("vit_tiny_patch16_224", layers=1, image_size=32, weights="random"),
        TimmPatches("resnet18", layers=0, image_size=32, weights="random"),
        DinoV2Patches(layers=0, image_size=28, weights="random"),
        Tiled(TimmPatches("vit_tiny_patch16_224", layers=1, image_size=32, weights="random")),
        DinoV2Patches(layers=0, image_size=28, weights="random", class_token=True),
    ]
TRANSFORMERS = [PCAForeground(), RegionOfInterest([(0, 0), (1, 0), (0, 1)])]
# Those of scikit-learn's that give an estimator no table of numbers: tokens have four dimensions.
FORMLESS_CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_param_validation,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_set_params,
    estimator_checks.check_valid_tag_types,
]


# These checks fit with class labels of 0, 1 and 2, whose images all enter the model: hence a
# warning. Labels that no check passes, such as text and bools, are errors (tests/test_labels.py).
@pytest.mark.filterwarnings("ignore:y holds .*, which are no labels of normal:UserWarning")
@sklearn_checks(SCORERS)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", SCORERS, ids=repr)
def test_parameter_validation(estimator):
    check_param_validation(type(estimator).__name__, estimator)


@pytest.mark.parametrize("check", FORMLESS_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("estimator", TRANSFORMERS, ids=lambda one: type(one).__name__)
def test_scikit_learn_checks_of_transformers_of_tokens(estimator, check):
    check(type(estimator).__name__, estimator)


@parametrize_with_checks([*SCORERS, *MORE_SCORERS])
def test_our_checks_of_scorers(estimator, check):
    check(estimator)


@parametrize_with_checks(EMBEDDERS)
def test_our_checks_of_embedders(estimator, check):
    check(estimator)


@pytest.mark.parametrize("check", EMBEDDER_CHECKS, ids=lambda check: check.__name__)
def test_our_checks_of_open_clip(check, tiny_clip):
    check(OpenClipPatches(tiny_clip, weights="random"))
