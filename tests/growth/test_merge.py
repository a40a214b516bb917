"""Models of parts of the images that become one, against fits to all images."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from test_update_and_forget import GOOD, KNN, MODELS, NEW, assert_same, bank, each_model, fit

from skanomaly import (
    FilterBankPatches,
    ImageUnion,
    PatchKNNScorer,
    ScoreUnion,
    fit_shard,
    forget_images,
    merge_models,
    recalibrate,
    update_model,
)
from skanomaly.inspection._training_images import trained_on


@each_model
@pytest.mark.parametrize("n_shards", [2, 3])
def test_merged_shards_are_the_model_of_a_fit(name, n_shards):
    y = np.where(np.arange(18) % 6 == 5, -1, 1)
    groups = [f"part {i % 9}" for i in range(18)]  # of which each is in two shards
    expected = fit(name, GOOD, y, groups)
    parts = [fit_shard(MODELS[name], GOOD, i, n_shards, y, groups) for i in range(n_shards)]
    merged = merge_models(parts)
    assert_same(merged, expected)
    assert_same(forget_images(merged, GOOD[3:4]), forget_images(expected, GOOD[3:4]))
    assert sum(len(trained_on(part)) for part in parts) == 15


def test_one_model_and_models_that_were_changed():
    one = fit("knn", GOOD[:9])
    assert_same(merge_models([one]), one)
    first = update_model(one, GOOD[9:11])
    second = forget_images(fit("knn", GOOD[10:]), GOOD[10:11])
    assert_same(merge_models([first, second]), fit("knn", GOOD))


def test_coresets_report_their_radius():
    pipe = make_pipeline(bank(), PatchKNNScorer(coreset=100))
    parts = [fit_shard(pipe, GOOD, i, 2) for i in range(2)]
    merged = merge_models(parts)[-1]
    X = bank().fit_transform(GOOD).reshape(-1, merged.n_features_in_)
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    away = np.linalg.norm(X[:, None] - merged.bank_[None], axis=2).min(axis=1).max()
    radii = [part[-1].coverage_radius_ for part in parts]
    assert away <= merged.coverage_radius_ and merged.coverage_radius_ >= max(radii)
    assert len(merged.bank_) == 100


def test_shards_are_runs_of_all_images():
    model = fit_shard(KNN, GOOD, 1, 4)
    assert_same(model, clone(KNN).fit(GOOD[4:9]), GOOD)
    with pytest.raises(ValueError, match="shard=4 must be below n_shards=4"):
        fit_shard(KNN, GOOD, 4, 4)
    with pytest.raises(ValueError, match="n_shards=19 is more than there are images, 18"):
        fit_shard(KNN, GOOD, 0, 19)
    with pytest.raises(ValueError, match="groups has 2 labels for 18 images"):
        fit_shard(KNN, GOOD, 0, 3, groups=["a", "b"])
    with pytest.raises(ValueError, match="shard must be an integer of at least 0, got True"):
        fit_shard(KNN, GOOD, True, 3)


class Other(FilterBankPatches):
    """Of another class, and so another embedder."""


@pytest.mark.filterwarnings("ignore:training images")
def test_what_cannot_be_merged():
    first = fit("knn", GOOD[:9])
    union = ImageUnion([("a", KNN)]).fit(GOOD)
    scorers = ScoreUnion([("a", PatchKNNScorer())])
    for other, kind, why in [
        (fit("local", GOOD), TypeError, "its steps are TinyPatches, LocalKNNScorer, not FilterB"),
        (
            make_pipeline(bank(32), PatchKNNScorer()).fit(GOOD),
            ValueError,
            "its FilterBankPatches is another: image_size is 32, was 64",
        ),
        (
            make_pipeline(bank(), PatchKNNScorer(2)).fit(GOOD),
            ValueError,
            "n_neighbors is 2, not 1",
        ),
        (
            make_pipeline(bank(), PatchKNNScorer(contamination=0.2)).fit(GOOD),
            ValueError,
            "contamination is 0.2, not 0.1",
        ),
        (
            make_pipeline(
                FilterBankPatches(image_size=64, augmentation="rotate90"), PatchKNNScorer()
            ).fit(GOOD),
            ValueError,
            "augmentation of its FilterBankPatches is 'rotate90', not None",
        ),
        (union, TypeError, "its steps are ImageUnion, not FilterBankPatches"),
    ]:
        with pytest.raises(kind, match=f"model 1 cannot be merged with model 0: {why}"):
            merge_models([first, other])
    with pytest.raises(ValueError, match=r"its detectors are \['b'\], not \['a'\]"):
        merge_models([union, ImageUnion([("b", KNN)]).fit(GOOD)])
    with pytest.raises(ValueError, match="combination of its ImageUnion is 'max', not 'mean'"):
        merge_models([union, ImageUnion([("a", KNN)], combination="max").fit(GOOD)])
    parts = [
        make_pipeline(bank(), one).fit(GOOD)
        for one in (scorers, clone(scorers).set_params(combination="max"))
    ]
    with pytest.raises(ValueError, match="combination is 'max', not 'mean'"):
        merge_models(parts)
    with pytest.raises(TypeError, match="no union of scorers of the same names"):
        merge_models([parts[0], make_pipeline(bank(), ScoreUnion([("b", KNN[-1])])).fit(GOOD)])
    swapped = Pipeline([("a", Other(image_size=64).fit(GOOD)), ("b", first[-1])])
    with pytest.raises(TypeError, match="its steps are Other, PatchKNNScorer, not"):
        merge_models([first, swapped])
    with pytest.raises(ValueError, match="model 1: the threshold of this model was given"):
        merge_models([first, recalibrate(first, threshold=-1.0)])


@pytest.mark.filterwarnings("default:training images")
def test_copies_in_two_models_are_told():
    with pytest.warns(UserWarning, match="training images 3 and 10 are copies") as told:
        merge_models([fit("knn", GOOD[:9]), fit("knn", [NEW[0], GOOD[3], *GOOD[9:]])])
    assert len(told) == 1
