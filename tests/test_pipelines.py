"""Pipelines taken apart, and the protocol of a scorer with maps."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import OneClassSVM

from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PromptScorer,
)
from skanomaly._pipelines import (
    check_patch_scorer,
    contamination_of,
    offset_of,
    parameters_as_text,
    split_detector,
    split_pipeline,
)

EMBEDDER, SCORER = FilterBankPatches(image_size=16), PatchKNNScorer()
CROP, SCALE = FunctionTransformer(), FunctionTransformer()


class Detector(BaseEstimator):
    """As `AnomalibDetector`: from images, with maps."""

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return np.zeros(len(X))

    decision_function = predict = score_samples

    def score_maps(self, X, size="image", return_scores=False):
        raise NotImplementedError


DETECTOR = Detector()


def _search(estimator, **params):
    return GridSearchCV(estimator, {}, **params)


@pytest.mark.parametrize(
    ("estimator", "of_images", "of_tokens", "scorer"),
    [
        (SCORER, (), (), SCORER),
        (DETECTOR, (), (), DETECTOR),
        (make_pipeline(CROP, DETECTOR), (CROP,), (), DETECTOR),
        (make_pipeline(EMBEDDER, SCORER), (EMBEDDER,), (), SCORER),
        (make_pipeline(CROP, EMBEDDER, SCALE, SCORER), (CROP, EMBEDDER), (SCALE,), SCORER),
        # No step says that it takes images: the first is the embedder.
        (make_pipeline(CROP, SCALE, SCORER), (CROP,), (SCALE,), SCORER),
        (
            make_pipeline("passthrough", EMBEDDER, None, SCORER, "passthrough"),
            (EMBEDDER,),
            (),
            SCORER,
        ),
        (
            make_pipeline(make_pipeline(CROP, EMBEDDER), make_pipeline(SCALE, SCORER)),
            (CROP, EMBEDDER),
            (SCALE,),
            SCORER,
        ),
        (_search(make_pipeline(EMBEDDER, SCORER)), (EMBEDDER,), (), SCORER),
        (_search(DETECTOR), (), (), DETECTOR),
        (
            Pipeline([("emb", EMBEDDER), ("s", _search(make_pipeline(SCALE, SCORER)))]),
            (EMBEDDER,),
            (SCALE,),
            SCORER,
        ),
        (RandomizedSearchCV(_search(make_pipeline(EMBEDDER, SCORER)), {}), (EMBEDDER,), (), SCORER),
    ],
    ids="scorer detector cropped plain all untagged passthrough nested search searched-detector "
    "search-inside search-of-search".split(),
)
def test_split(estimator, of_images, of_tokens, scorer):
    split = split_pipeline(estimator)
    assert list(map(id, split.image_transformers)) == list(map(id, of_images))
    assert list(map(id, split.token_transformers)) == list(map(id, of_tokens))
    assert split.scorer is scorer
    assert split.transformers == of_images + of_tokens


def test_a_function_of_images_is_an_embedder():
    embedder = FunctionPatches(np.sum)
    split = split_pipeline(make_pipeline(CROP, embedder, SCALE, SCORER))
    assert split.image_transformers == (CROP, embedder)


def test_a_fitted_search_is_its_best_estimator():
    search = _search(make_pipeline(FunctionTransformer(), OneClassSVM()), cv=2, scoring=_score)
    search.fit(np.arange(8.0).reshape(4, 2))
    split = split_pipeline(search)
    assert split.scorer is search.best_estimator_[-1]
    assert split.scorer is not search.estimator[-1]
    np.testing.assert_array_equal(split.transform([[1.0, 2.0]]), [[1.0, 2.0]])


def _score(estimator, X, y=None):
    return 0.0


def test_split_errors():
    with pytest.raises(ValueError, match="GridSearchCV with refit=False never has"):
        split_pipeline(_search(SCORER, refit=False))
    with pytest.raises(TypeError, match="no step that scores"):
        split_pipeline(make_pipeline("passthrough"))


class NoScores(PatchKNNScorer):
    def score_patches(self, X):
        return super().score_patches(X)


class AnyKeyword(PatchKNNScorer):
    def score_patches(self, X, **options):
        return super().score_patches(X, **options)


class NoSize(Detector):
    def score_maps(self, X, return_scores=False):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (OneClassSVM(), "OneClassSVM has no score_patches: give a scorer of patch tokens with fit"),
        ("svm", "str has no fit, score_samples, decision_function, predict, score_patches"),
        (EMBEDDER, "FilterBankPatches has no score_samples, decision_function, predict, score_"),
        (PatchKNNScorer, "an instance, got the class PatchKNNScorer"),
        (NoScores(), "score_patches of NoScores takes no return_scores: give a .*return_scores="),
    ],
    ids=["sklearn", "text", "embedder", "class", "no-return-scores"],
)
def test_protocol(scorer, message):
    with pytest.raises(TypeError, match=f"^member 'a' must be .*{message}"):
        check_patch_scorer(scorer, "member 'a'")


@pytest.mark.parametrize("scorer", [SCORER, AnyKeyword(), PromptScorer()], ids=repr)
def test_scorers_with_maps(scorer):
    check_patch_scorer(scorer)
    assert split_detector(make_pipeline(EMBEDDER, scorer)).scorer is scorer


def test_detectors():
    assert split_detector(DETECTOR).scorer is DETECTOR
    with pytest.raises(TypeError, match="score_maps of NoSize takes no size: give a detector of"):
        split_detector(NoSize())
    with pytest.raises(TypeError, match="takes patch tokens, not images: put it in a Pipeline"):
        split_detector(SCORER)
    with pytest.raises(TypeError, match="the last step must be a scorer of patch tokens"):
        split_detector(make_pipeline(EMBEDDER, OneClassSVM()))


def test_what_is_read_after_fit():
    scorer = PatchKNNScorer(contamination=0.25).fit(np.random.default_rng(0).random((9, 2, 2, 3)))
    assert offset_of(scorer) == scorer.offset_ and contamination_of(scorer) == 0.25
    assert contamination_of(PromptScorer()) is None  # "auto" is no share
    assert contamination_of(DETECTOR) is None
    with pytest.raises(TypeError, match="Detector has no offset_ after fit: fit must set"):
        offset_of(DETECTOR)


def test_parameters_as_text_hold_no_addresses():
    """Which differ from run to run, so that no run would be recognised."""
    pipe = make_pipeline(FunctionPatches(lambda image: image), PatchKNNScorer())
    texts = parameters_as_text(pipe.set_params(functionpatches__n_jobs=2))
    assert texts["functionpatches__n_jobs"] == "2" and "lambda" in str(texts)
    assert "0x" not in str(texts)
    random = parameters_as_text(PatchGaussianScorer(random_state=np.random.RandomState(0)))
    assert random["random_state"] == "RandomState(MT19937)"
