"""What is decided of each image is what the estimator's own methods say."""

import json

import numpy as np
import pytest
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    PatchKNNScorer,
    PromptScorer,
    ScoreUnion,
    decide,
    p_values,
)
from skanomaly.datasets import make_surfaces
from skanomaly.decisions import Decision
from skanomaly.inspection import p_values_of, score_images
from skanomaly.metrics import image_auroc_scorer
from skanomaly.model_selection import OneClassSplit

SURFACES = make_surfaces(18, 4, image_size=64, random_state=0)
GOOD, NEW = list(SURFACES.images[:10]), list(SURFACES.images[10:])


class Darkness:
    """An inferencer; with maps or without."""

    def __init__(self, maps=True):
        self.maps = maps

    def predict(self, image):
        dark = 1 - image.mean(axis=2) / 255
        return {"pred_score": dark.mean(), "anomaly_map": dark if self.maps else None}


def embedder():
    return FilterBankPatches(image_size=64)


@pytest.fixture(scope="module")
def pipe():
    return make_pipeline(embedder(), PatchKNNScorer(contamination=0.2)).fit(GOOD)


def check_decisions(estimator, images):
    found = decide(estimator, images)
    assert [d.index for d in found] == list(range(len(images)))
    assert all(d.image is image for d, image in zip(found, images, strict=True))
    np.testing.assert_array_equal([d.score for d in found], estimator.score_samples(images))
    np.testing.assert_array_equal(
        [-1 if d.is_anomalous else 1 for d in found], estimator.predict(images)
    )
    return found


def test_all_numbers_are_those_of_the_pipeline(pipe):
    found = check_decisions(pipe, NEW)
    assert {d.threshold for d in found} == {pipe[-1].offset_}
    np.testing.assert_array_equal([d.p_value for d in found], p_values(pipe, NEW))
    for decision, grid in zip(found, score_images(pipe, NEW)[0], strict=True):
        np.testing.assert_array_equal(decision.patch_scores, grid)
    assert 0 < sum(d.is_anomalous for d in found) < len(NEW)


def test_images_are_embedded_once():
    calls = []

    def count(tokens):
        calls.append(len(tokens))
        return tokens

    pipe = make_pipeline(embedder(), FunctionTransformer(count), PatchKNNScorer()).fit(GOOD)
    calls.clear()
    decide(pipe, NEW)
    assert sum(calls) == len(NEW)


def test_of_groups_and_of_unions():
    union = ScoreUnion([("a", PatchKNNScorer()), ("b", PatchKNNScorer(3))])
    pipe = make_pipeline(embedder(), union)
    pipe.fit(GOOD, scoreunion__groups=np.arange(10) // 2)
    found = check_decisions(pipe, NEW)
    np.testing.assert_array_equal([d.p_value for d in found], p_values(pipe, NEW))
    assert min(d.p_value for d in found) == 1 / 6


def test_of_a_search():
    search = GridSearchCV(
        make_pipeline(embedder(), PatchKNNScorer()),
        {"patchknnscorer__n_neighbors": [1, 2]},
        scoring=image_auroc_scorer,
        cv=OneClassSplit(2),
    )
    check_decisions(search.fit(SURFACES.images, SURFACES.y), NEW)


def test_of_a_detector_with_maps_and_without():
    detector = AnomalibDetector(inferencer=Darkness()).fit(GOOD)
    found = check_decisions(detector, NEW)
    maps = detector.score_maps(NEW, size="model")
    assert all(np.array_equal(d.patch_scores, m) for d, m in zip(found, maps, strict=True))
    np.testing.assert_array_equal([d.p_value for d in found], detector.p_values(NEW))
    detector = AnomalibDetector(inferencer=Darkness(maps=False)).fit(GOOD)
    assert {d.patch_scores is None for d in check_decisions(detector, NEW)} == {True}


def test_a_detector_without_threshold_says_so():
    with pytest.raises(NotFittedError, match="brings no threshold of its own"):
        decide(AnomalibDetector(inferencer=Darkness()), NEW)


def test_of_texts_without_fit():
    texts = np.eye(embedder().transform(NEW[:1]).shape[-1])
    scorer = PromptScorer(text_features_normal=texts[0], text_features_anomaly=texts[1])
    pipe = make_pipeline(embedder(), scorer)
    found = check_decisions(pipe, NEW)
    assert {(d.threshold, d.p_value) for d in found} == {(-0.5, None)}
    pipe.fit(GOOD)
    found = check_decisions(pipe, NEW)
    np.testing.assert_array_equal([d.p_value for d in found], p_values(pipe, NEW))
    pipe[-1].set_params(topk=0.5)  # the scores of fit are those of other parameters
    assert p_values_of(pipe[-1], np.zeros(2)) is None


class Plain(OutlierMixin, BaseEstimator):
    """A detector of others: no maps, no p-values."""

    def fit(self, X, y=None):
        self.offset_ = -1.0
        return self

    def score_samples(self, X):
        return -np.asarray(X).reshape(len(X), -1).std(axis=1)

    def predict(self, X):
        return np.where(self.score_samples(X) < self.offset_, -1, 1)


def test_of_a_scorer_with_scores_alone():
    found = check_decisions(make_pipeline(embedder(), Plain()).fit(GOOD), NEW)
    assert {(d.p_value, d.patch_scores is None) for d in found} == {(None, True)}


def test_tokens_without_a_grid_have_no_map():
    flat = FunctionTransformer(lambda X: np.reshape(X, (len(X), -1, X.shape[-1])))
    found = check_decisions(make_pipeline(embedder(), flat, PatchKNNScorer()).fit(GOOD), NEW)
    assert all(d.patch_scores is None and d.p_value is not None for d in found)


@pytest.mark.parametrize(
    "estimator, error, message",
    [
        (PatchKNNScorer(), TypeError, "takes patch tokens, not images"),
        (make_pipeline(FilterBankPatches(), PatchKNNScorer()), NotFittedError, "not fitted"),
    ],
)
def test_what_cannot_decide_is_refused(estimator, error, message):
    with pytest.raises(error, match=message):
        decide(estimator, NEW)


def test_a_changed_parameter_is_refused_before_the_images_are_read(pipe):
    changed = make_pipeline(embedder(), PatchKNNScorer()).fit(GOOD)
    changed[-1].set_params(contamination=0.3)
    with pytest.raises(NotFittedError, match=r"recalibrate\(estimator, contamination=0.3\)"):
        decide(changed, ["missing.png"])


def test_a_decision_as_text_and_as_plain_values(tmp_path):
    decision = Decision(3, tmp_path / "a part.png", -0.5, -0.25, 0.02, np.ones((2, 2)))
    values = json.loads(json.dumps(decision.to_dict()))
    assert values == {
        "index": 3,
        "image": str(tmp_path / "a part.png"),
        "score": -0.5,
        "threshold": -0.25,
        "p_value": 0.02,
        "decision": "anomalous",
    }
    assert "a part.png" in repr(decision) and "anomalous" in repr(decision)
    array = Decision(3, np.zeros((9, 9, 3)), -0.25, -0.25)
    assert array.to_dict()["image"] is None and not array.is_anomalous
    assert repr(array) == "Decision(3, ndarray: normal, score=-0.25, threshold=-0.25)"
    # Images and maps are arrays, which have no one answer to whether they are equal.
    assert array == Decision(3, np.zeros((9, 9, 3)), -0.25, -0.25, None, np.ones((2, 2)))
