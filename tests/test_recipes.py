"""Digests by which a fitted model is known again."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    ScoreUnion,
    create_model,
    load_model,
    recalibrate,
    save_model,
)
from skanomaly._recipes import digest_of_fitted
from skanomaly.datasets import make_surfaces

IMAGES = make_surfaces(10, 2, image_size=32, random_state=0).images
GOOD = IMAGES[:10]


def bank(scorer, **params):
    return make_pipeline(FilterBankPatches(image_size=32, **params), scorer)


def lightness(estimator, images, y=None):
    return float(estimator.score_samples(images).mean())


MODELS = {
    "nearest": bank(PatchKNNScorer()),
    "coreset": bank(PatchKNNScorer(coreset=0.3)),
    "local": bank(LocalKNNScorer()),
    "gaussian": bank(PatchGaussianScorer()),
    "union": bank(ScoreUnion([("one", PatchKNNScorer()), ("two", PatchSubspaceScorer())])),
    "images": create_model("filterbank+tiny", image_size=32),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_the_same_wherever_it_went(name, tmp_path):
    model = clone(MODELS[name]).fit(GOOD)
    digest = digest_of_fitted(model)
    path = tmp_path / "model.skan"
    save_model(model, path)
    pickled = tmp_path / "model.pickle"
    pickled.write_bytes(pickle.dumps(model))
    model.predict(IMAGES)  # which fills what is kept for speed
    assert digest_of_fitted(model) == digest
    assert digest_of_fitted(pickle.loads(pickled.read_bytes())) == digest
    assert digest_of_fitted(load_model(path)) == digest
    assert digest_of_fitted(clone(model).fit(GOOD)) == digest
    code = (
        "import pickle, sys; from skanomaly._recipes import digest_of_fitted;"
        "print(digest_of_fitted(pickle.load(open(sys.argv[1], 'rb'))))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    command = [sys.executable, "-c", code, os.fspath(pickled)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == digest


def test_what_changes_no_score_does_not_count(tmp_path):
    plain = bank(PatchKNNScorer()).fit(GOOD)
    digest = digest_of_fitted(plain)
    told = bank(PatchKNNScorer(), cache_dir=tmp_path, n_jobs=2, stream=True).fit(GOOD)
    assert digest_of_fitted(told) == digest


def brightness(image):
    return image.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3))


def darkness(image):
    return image.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3))


def test_what_changes_scores_counts():
    plain = bank(PatchKNNScorer()).fit(GOOD)
    moved = recalibrate(plain, contamination=0.3)
    touched = pickle.loads(pickle.dumps(plain))
    touched[-1].train_scores_[3] = np.nextafter(touched[-1].train_scores_[3], 9)
    assert not np.array_equal(touched[-1].train_scores_, plain[-1].train_scores_)
    search = GridSearchCV(bank(PatchKNNScorer()), {"patchknnscorer__n_neighbors": [1, 2]}, cv=2)
    models = [
        plain,
        moved,
        touched,
        bank(PatchKNNScorer()).fit(GOOD[1:]),
        bank(PatchKNNScorer(n_neighbors=2)).fit(GOOD),
        search.set_params(scoring=lightness).fit(GOOD),
        make_pipeline(FunctionPatches(brightness), PatchKNNScorer()).fit(GOOD),
        make_pipeline(FunctionPatches(darkness), PatchKNNScorer()).fit(GOOD),
    ]
    assert len(set(map(digest_of_fitted, models))) == len(models)


class Holder:
    def __init__(self, **values):
        vars(self).update(values)


def test_values_are_told_apart_by_kind_place_and_holder():
    array = np.arange(6, dtype=np.float32)
    values = [
        array,
        array.reshape(2, 3),
        array.astype(np.float64),
        array[::-1],
        np.ma.masked_equal(array, 3),
        np.array([array, None], dtype=object),
        [1, [2]],
        [[1], 2],
        (1, [2]),
        {"a": 1, "b": 2},
        {"a": 2, "b": 1},
        {1, 2},
        1,
        1.0,
        True,
        "1",
        b"1",
        None,
        np.float32(1),
        np.float64(1),
        slice(1, 2),
        Holder(a=1),
        Holder(a=2),
        Holder,
        brightness,
        darkness,
    ]
    assert len(set(map(digest_of_fitted, values))) == len(values)
    assert digest_of_fitted({"a": 1, "b": 2}) == digest_of_fitted({"b": 2, "a": 1})
    assert digest_of_fitted(np.asfortranarray(array.reshape(2, 3))) == digest_of_fitted(
        array.reshape(2, 3)
    )
    circle = Holder(a=1)
    circle.itself = circle
    assert digest_of_fitted(circle) != digest_of_fitted(Holder(a=1))
    with pytest.raises(TypeError, match="pickle"):
        digest_of_fitted(Holder(file=sys.stdout))
