"""Labels mean the same to scorers, metrics, splitters and data sets; others are refused."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from skanomaly import AnomalibDetector, PatchGaussianScorer, PatchKNNScorer, ScoreUnion
from skanomaly.datasets import ImageSet
from skanomaly.metrics import IMAGE_SCORERS, image_auroc
from skanomaly.model_selection import OneClassSplit

TOKENS = np.random.default_rng(0).standard_normal((6, 3, 3, 4))
KINDS = ["good", "good", "bad", "good", "good", "bad"]
Y = [1, 1, -1, 1, 1, -1]


class Brightness:
    """An inferencer whose score is the mean of the image."""

    def predict(self, image):
        class Prediction:
            pred_score = float(np.mean(image))
            anomaly_map = None

        return Prediction()


def knn(y):
    return PatchKNNScorer().fit(TOKENS, y).train_scores_


def detector(y):
    images = [np.full((8, 8, 3), grey, np.uint8) for grey in range(10, 70, 10)]
    return AnomalibDetector(inferencer=Brightness()).fit(images, y).train_scores_


def union(y):
    members = [("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer("shared"))]
    return ScoreUnion(members).fit(TOKENS, y).train_scores_


def pipeline(y):
    return make_pipeline(PatchKNNScorer()).fit(TOKENS, y)[-1].train_scores_


def fit_predict(y):
    scorer = PatchKNNScorer()
    scorer.fit_predict(TOKENS, y)
    return scorer.train_scores_


def metric(y):
    return image_auroc(y, [3, 2, 1, 4, 5, 0])


def scorer_of_search(y):
    fitted = PatchKNNScorer().fit(TOKENS)
    return IMAGE_SCORERS["image_auroc"](fitted, TOKENS, y)


def split(y):
    return [[part.tolist() for part in parts] for parts in OneClassSplit(2).split(None, y)]


def image_set(y):
    made = ImageSet([f"{i}.png" for i in range(6)], y, [None] * 6, KINDS, "parts")
    return made.y.tolist()


SCORERS = [knn, detector, union, pipeline, fit_predict]
READERS = [metric, scorer_of_search, split, image_set]
GOOD_Y = [
    np.array(Y, np.int8),
    np.array(Y, np.float32),
    np.array(Y)[:, None],
    np.array(Y, object),
    pd.Series(Y, index=range(10, 16)),
    pd.Series(Y, dtype="Int64"),
    [float(sign) for sign in Y],
]
# Labels, and what the error says that they hold and to do.
BAD_Y = {
    "bools": ([kind == "bad" for kind in KINDS], r"got bools: pass np.where\(y, -1, 1\)"),
    "bool array": (np.array(Y) == -1, "got bools"),
    "all True": ([True] * 6, "got bools"),
    "a bool among numbers": ([*Y[:5], True], "got bools"),
    "words": (KINDS, r"got text, 'bad', 'good': pass np.where\(np.asarray\(y\) == 'good', 1, -1\)"),
    "array of words": (np.array(KINDS), "got text, 'bad', 'good'"),
    "categories": (pd.Series(KINDS, dtype="category"), "got text, 'bad', 'good'"),
    "other words": (["a", "a", "a", "a", "a", "rust"], r"== 'a', -1, 1\) if 'a' marks the anom"),
    "signs as text": ([str(sign) for sign in Y], r"'-1', '1': pass np.asarray\(y, dtype=float\)"),
    "None": ([*Y[:5], None], "got None: leave out the images whose label is not known"),
    "NaN": ([*Y[:5], np.nan], "got NaN: leave out"),
    "missing": (pd.Series([*Y[:5], None], dtype="Int64"), "(got NaN|got <NA>): leave out"),
    "complex": (np.array(Y, complex), r"got \(1\+0j\)"),
    "two columns": (np.stack([Y, Y], axis=1), r"y(_true)? has shape \(6, 2\): pass one label"),
    "a number": (1, r"y(_true)? has shape \(\)"),
}


@pytest.mark.parametrize("owner", [*SCORERS, *READERS], ids=lambda f: f.__name__)
def test_every_form_of_labels_is_taken(owner):
    for y in GOOD_Y:
        np.testing.assert_equal(owner(y), owner(Y))


@pytest.mark.parametrize("owner", [*SCORERS, *READERS], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", BAD_Y)
def test_what_is_no_label_is_an_error_that_says_what_to_pass(name, owner):
    y, message = BAD_Y[name]
    with pytest.raises(ValueError, match=message):
        owner(y)


@pytest.mark.parametrize("owner", [knn, detector, metric], ids=lambda f: f.__name__)
def test_as_many_labels_as_images(owner):
    with pytest.raises(ValueError, match="(5 labels, but there are 6 images|inconsistent)"):
        owner(Y[:5])


@pytest.mark.parametrize("owner", SCORERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 0, 1, 0, 0, 1], r"y holds 0, 1, which .*: every image is taken for normal, .* pass "),
        (np.array([0.0, 0, 1, 0, 0, 1]), r"np.where\(np.asarray\(y\) == 1, -1, 1\) if 1 marks"),
        (np.array([0, 1, 2, 0, 1, 2], object), "y holds 0, 1, 2, .* pass [+]1 for each normal"),
        (np.arange(6), "y holds 0, 1, 2, 3, 4, ..., which"),
        ([0] * 6, "y holds 0, which"),
    ],
)
def test_numbers_of_others_warn_once_at_the_line_of_the_user(y, message, owner):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = owner(y)
    (warning,) = caught
    with pytest.raises(UserWarning, match=message):
        raise warning.message
    assert warning.filename == __file__
    np.testing.assert_equal(scores, owner(None))


@pytest.mark.parametrize("owner", READERS, ids=lambda f: f.__name__)
def test_numbers_of_others_are_an_error_where_nothing_is_trained(owner):
    message = r"got 0, 1: pass np.where\(np.asarray\(y\) == 1, -1, 1\) if 1 marks the anomalous"
    with pytest.raises(ValueError, match=message):
        owner([0, 0, 1, 0, 0, 1])
    with pytest.raises(ValueError, match=r"got 0, 1, 2: pass \+1 for each normal"):
        owner([0, 0, 1, 0, 0, 2])


@pytest.mark.parametrize("owner", SCORERS, ids=lambda f: f.__name__)
def test_an_anomalous_image_never_slips_in(owner):
    with pytest.raises(ValueError, match="y holds -1 for anomalous images, but also 0: use"):
        owner([0, 0, -1, 0, 0, -1])
    with pytest.raises(ValueError, match="y holds no normal image"):
        owner([-1] * 6)
    assert len(owner(Y)) == 4 and len(owner([1] * 6)) == 6
