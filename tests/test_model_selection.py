"""Splitters for one-class problems."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer
from skanomaly.datasets import make_surfaces
from skanomaly.model_selection import OneClassSplit, few_shot_indices

Y = np.array([1, -1, 1, 1, -1, 1, 1, 1, -1, 1])


@pytest.mark.parametrize(
    "cv", [2, 3, 7, ShuffleSplit(4, test_size=2, random_state=0)], ids=["2", "3", "7", "shuffle"]
)
def test_anomalies_never_train_and_always_test(cv):
    splitter = OneClassSplit(cv)
    splits = list(splitter.split(np.zeros((10, 3)), Y))
    assert len(splits) == splitter.get_n_splits(None, Y) == splitter.get_n_splits()
    for train, test in splits:
        assert (Y[train] == 1).all() and train.size
        assert set(np.flatnonzero(Y == -1)) <= set(test)
        assert (Y[test] == 1).any()
        assert not set(train) & set(test)
        assert (np.diff(test) > 0).all()
        if isinstance(cv, int):
            assert len(train) + len(test) == 10
    if isinstance(cv, int):
        tested = np.concatenate([test[Y[test] == 1] for _, test in splits])
        np.testing.assert_array_equal(np.sort(tested), np.flatnonzero(Y == 1))


@pytest.mark.parametrize("cv", [GroupKFold(3), LeaveOneGroupOut()], ids=["k-fold", "leave-one"])
def test_groups_are_never_on_both_sides(cv):
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    splitter = OneClassSplit(cv)
    splits = list(splitter.split(None, Y, groups))
    assert len(splits) == splitter.get_n_splits(None, Y, groups) == 3
    for train, test in splits:
        normal_test = test[Y[test] == 1]
        assert not set(groups[train]) & set(groups[normal_test])


def test_errors():
    with pytest.raises(ValueError, match=r"\+1 \(normal\) and -1"):
        next(OneClassSplit().split(None, [0, 1]))
    with pytest.raises(ValueError, match="inconsistent"):
        next(OneClassSplit().split(np.zeros(3), Y))
    for cv in (True, False):
        for run in (lambda s: next(s.split(None, Y)), lambda s: s.get_n_splits(None, Y)):
            with pytest.raises(ValueError, match=f"cv must be a number of folds or .*, got {cv}"):
                run(OneClassSplit(cv))
    assert clone(OneClassSplit(3), safe=False).cv == 3


def test_grid_search():
    made = make_surfaces(12, 6, surface="wood", image_size=64, random_state=0)
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(metric="euclidean"))
    search = GridSearchCV(
        pipe,
        {"patchknnscorer__topk": [0.02, 0.2]},
        scoring="roc_auc",
        cv=OneClassSplit(3),
        error_score="raise",
    ).fit(made.images, made.y)
    assert len(search.best_estimator_[-1].train_scores_) == 12
    scores = cross_val_score(pipe, made.images, made.y, scoring="roc_auc", cv=OneClassSplit(3))
    assert scores.shape == (3,) and (scores > 0.5).all()


def test_few_shot_indices_follow_the_reference_rule():
    files = sorted(f"{i:03d}.png" for i in np.random.default_rng(0).permutation(20))
    for k in (1, 2, 4):
        for seed in range(3):
            chosen = [files[i] for i in few_shot_indices(20, k, seed)]
            assert chosen == files[seed * k : (seed + 1) * k]
    with pytest.raises(ValueError, match="seed 3 takes images 18 to 23, but there are 20"):
        few_shot_indices(20, 6, 3)
    for numbers in ((20, 0, 0), (20, 1.5, 0), (20, 2, -1), (20, True), (20, 2, True), (True, 1)):
        with pytest.raises(ValueError, match="must be an integer"):
            few_shot_indices(*numbers)
