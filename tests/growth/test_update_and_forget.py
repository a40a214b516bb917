"""Fitted models that take in images and forget some, against fits to the same images."""

import copy
import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skanomaly import (
    FilterBankPatches,
    ImageUnion,
    LocalKNNScorer,
    PatchKNNScorer,
    PatchwiseScorer,
    PCAForeground,
    RegionOfInterest,
    ScoreUnion,
    TinyPatches,
    anomaly_maps,
    explain,
    forget_images,
    load_model,
    merge_models,
    recalibrate,
    save_model,
    update_model,
)
from skanomaly._pipelines import split_pipeline
from skanomaly.datasets import make_surfaces, read_dataset
from skanomaly.inspection._training_images import trained_on
from skanomaly.metrics import image_auroc_scorer
from skanomaly.model_selection import OneClassSplit

MADE = make_surfaces(22, 2, surface="disc", image_size=64, random_state=0)
GOOD, NEW = list(MADE.images[:18]), list(MADE.images[18:])  # two of these are defective


def bank(size=64):
    return FilterBankPatches(image_size=size)


KNN = make_pipeline(bank(), PatchKNNScorer())
MODELS = {
    "knn": KNN,
    "views": make_pipeline(
        FilterBankPatches(image_size=64, augmentation="rotate90"), PatchKNNScorer()
    ),
    "foreground": make_pipeline(
        bank(), PCAForeground(threshold=1.0, no_foreground="keep"), PatchKNNScorer(2)
    ),
    "region": make_pipeline(
        bank(), RegionOfInterest([(0, 0), (1, 0), (0, 1)]), PatchKNNScorer(metric="euclidean")
    ),
    "before": make_pipeline(FunctionTransformer(), bank(), PatchKNNScorer()),
    "local": make_pipeline(TinyPatches(image_size=64), LocalKNNScorer()),
    "scorers": make_pipeline(
        bank(), ScoreUnion([("one", PatchKNNScorer()), ("two", PatchKNNScorer(3))])
    ),
    "detectors": ImageUnion(
        [("fine", KNN), ("coarse", make_pipeline(bank(32), LocalKNNScorer(few=4)))]
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)


def fit(name, images, y=None, groups=None):
    from skanomaly._grouped_fit import fit_with_groups

    return fit_with_groups(clone(MODELS[name]), images, y, groups)


def assert_same(found, expected, images=(*GOOD, *NEW)):
    one, other = (split_pipeline(model).scorer for model in (found, expected))
    np.testing.assert_allclose(one.train_scores_, other.train_scores_, rtol=1e-5, atol=1e-6)
    assert one.offset_ == pytest.approx(other.offset_, rel=1e-5)
    assert one.patch_limits_ == pytest.approx(other.patch_limits_, rel=1e-5)
    assert one.calibration_ == other.calibration_
    images = list(images)
    np.testing.assert_allclose(
        found.score_samples(images), expected.score_samples(images), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(found.predict(images), expected.predict(images))
    maps = zip(anomaly_maps(found, images), anomaly_maps(expected, images), strict=True)
    for heat, right in maps:
        np.testing.assert_allclose(heat, right, rtol=1e-4, atol=1e-5)
    assert trained_on(found) == trained_on(expected)
    near = (neighbors_of(explain(model, NEW[-1])) for model in (found, expected))
    assert next(near) == next(near)


def neighbors_of(explanation):
    """Which training images a map is explained by."""
    return [(one.image_number, one.row, one.column) for one in explanation.neighbors[:1]]


@each_model
def test_an_updated_model_is_that_of_a_fit(name):
    fitted = fit(name, GOOD[:12])
    before, state = fitted.score_samples(NEW), copy.copy(vars(split_pipeline(fitted).scorer))
    grown = update_model(update_model(fitted, GOOD[12:15]), GOOD[15:])
    assert_same(grown, fit(name, GOOD))
    # The old one is as it was.
    np.testing.assert_array_equal(fitted.score_samples(NEW), before)
    scorer = split_pipeline(fitted).scorer
    assert all(vars(scorer)[key] is value for key, value in state.items())
    assert len(trained_on(fitted)) == 12


@each_model
def test_labels_and_groups(name):
    y = np.where(np.arange(18) % 6 == 5, -1, 1)
    groups = [f"part {i // 2}" for i in range(18)]
    groups[13] = "part 0"
    expected = fit(name, GOOD, y, groups)
    grown = update_model(fit(name, GOOD[:12], y[:12], groups[:12]), GOOD[12:], y[12:], groups[12:])
    assert_same(grown, expected)
    left = [i for i in range(18) if i not in (0, 14)]
    assert_same(
        forget_images(grown, [GOOD[14], GOOD[0]]),
        fit(name, [GOOD[i] for i in left], y[left], [groups[i] for i in left]),
    )


@each_model
def test_forgotten_images_were_never_there(name):
    fitted = fit(name, GOOD)
    assert_same(forget_images(fitted, GOOD[2:5]), fit(name, [*GOOD[:2], *GOOD[5:]]))
    assert len(trained_on(fitted)) == 18


def test_a_model_from_a_file_goes_on(tmp_path):
    for i, image in enumerate(GOOD):
        Image.fromarray(image).save(tmp_path / f"{i:02d}.png")
    paths = sorted(tmp_path.glob("*.png"))
    for name in ("knn", "detectors"):
        save_model(fit(name, paths[:12]), tmp_path / "a.skan")
        grown = update_model(load_model(tmp_path / "a.skan"), paths[12:])
        save_model(grown, tmp_path / "b.skan")
        left = forget_images(load_model(tmp_path / "b.skan"), paths[3:4])
        assert_same(left, fit(name, [*paths[:3], *paths[4:]]))
        with pytest.raises(ValueError, match=rf"not fitted to image 1 \({paths[3]}\), and cannot"):
            forget_images(left, paths[2:4])


def test_scorers_by_themselves_and_searches():
    X = bank().fit_transform(GOOD)
    grown = update_model(PatchKNNScorer().fit(X[:12]), X[12:])
    np.testing.assert_allclose(grown.train_scores_, PatchKNNScorer().fit(X).train_scores_)
    assert len(forget_images(grown, X[:2]).train_scores_) == 16
    search = GridSearchCV(
        KNN,
        {"patchknnscorer__n_neighbors": [1, 2]},
        scoring=image_auroc_scorer,
        cv=OneClassSplit(3),
    )
    search.fit(list(MADE.images), MADE.y)
    searched = update_model(search, [np.flipud(GOOD[0])])
    assert type(searched) is GridSearchCV
    assert len(searched.best_estimator_[-1].train_scores_) == 23
    assert len(search.best_estimator_[-1].train_scores_) == 22


def test_copies_are_told_once_for_all_members():
    fitted = fit("detectors", GOOD[:12])
    with pytest.warns(UserWarning, match="training images 3 and 13 are copies") as told:
        update_model(fitted, [GOOD[12], GOOD[3]])
    assert len(told) == 1
    with pytest.warns(UserWarning, match="are copies"):
        twice = update_model(fitted, [GOOD[3]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(forget_images(twice, [GOOD[3]]), fit("detectors", [*GOOD[:3], *GOOD[4:12]]))


class Doubled(FilterBankPatches):
    """Of another class, and so another embedder."""


def test_what_cannot_change():
    fitted = fit("knn", GOOD[:12])
    with pytest.raises(TypeError, match="PatchwiseScorer cannot take in images after fit"):
        other = make_pipeline(bank(), PatchwiseScorer("isolation_forest"))
        update_model(other, GOOD)
    with pytest.raises(TypeError, match="LocalKNNScorer cannot change after fit: with coreset=0.5"):
        update_model(make_pipeline(bank(), LocalKNNScorer(coreset=0.5)).fit(GOOD), GOOD)
    with pytest.raises(NotFittedError):
        update_model(clone(fitted), GOOD)
    with pytest.raises(NotFittedError, match="image_size of this FilterBankPatches changed"):
        update_model(fit("knn", GOOD[:9]).set_params(filterbankpatches__image_size=32), GOOD[9:])
    swapped = Pipeline([("a", Doubled(image_size=64).fit(GOOD)), ("b", fitted[-1])])
    for change in (update_model, forget_images):
        with pytest.raises(ValueError, match="holds other tokens than this PatchKNNScorer"):
            change(swapped, GOOD[12:])
    with pytest.warns(UserWarning, match="3 of the images"):
        moved = recalibrate(fitted, images=GOOD[9:])
    for change in (update_model, forget_images):
        with pytest.raises(ValueError, match="set by other images"):
            change(moved, GOOD[12:])
    union = fit("detectors", GOOD[:12])
    union = recalibrate(union, threshold=-2.0)
    with pytest.raises(ValueError, match="given or tuned as a number"):
        update_model(union, GOOD[12:])
    inner = ImageUnion([("a", KNN), ("b", make_pipeline(bank(), LocalKNNScorer(coreset=3)))])
    with pytest.raises(TypeError, match="detector 'b': LocalKNNScorer cannot change"):
        update_model(inner.fit(GOOD), GOOD)
    with pytest.raises(ValueError, match="at least 1 normal image, and 0 of 12 would be left"):
        forget_images(fitted, GOOD[:12])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        update_model(fitted, GOOD[12:], groups=["a"])
    with pytest.raises(ValueError, match="images of the grids"):
        odd = make_pipeline(
            FilterBankPatches(image_size=64, resize="shortest_edge"), LocalKNNScorer()
        )
        update_model(odd.fit(GOOD), [np.zeros((64, 128, 3), np.uint8) + GOOD[0][:1, :1]])
    with pytest.raises(ValueError, match="there are no models to merge"):
        merge_models([])


@pytest.mark.slow
@pytest.mark.parametrize("category", ["cookies", "toothbrush"])
@pytest.mark.parametrize("scorer", [PatchKNNScorer(), LocalKNNScorer()], ids=repr)
def test_real_images(category, scorer, shared):
    split = read_dataset(shared / "data" / category)
    good = [image for image, y in zip(split.train.images, split.train.y, strict=True) if y == 1]
    good, test = good[:30], split.test.images[:10]
    pipe = make_pipeline(TinyPatches(image_size=128), scorer)
    expected = clone(pipe).fit(good)
    grown = update_model(clone(pipe).fit(good[:22]), good[22:])
    left = forget_images(clone(pipe).fit([*test[:2], *good]), test[:2])
    for found in (grown, left):
        for images in (test, good):
            np.testing.assert_allclose(
                found.score_samples(images), expected.score_samples(images), rtol=1e-5, atol=1e-6
            )
        np.testing.assert_array_equal(found.predict(test), expected.predict(test))
