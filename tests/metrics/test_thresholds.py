"""A threshold that is handed out, used as it is, gives what it was handed out for."""

import numpy as np
import pandas as pd
import pytest

from skanomaly import PatchKNNScorer
from skanomaly.metrics import (
    image_f1_max,
    image_f1_max_threshold,
    pixel_f1_max,
    pixel_f1_max_threshold,
    pixel_iou,
    pixel_metrics,
    pro_curve,
)

FLOATS = [np.float16, np.float32, np.float64, ">f4"]
INTEGERS = [np.int8, np.uint8, np.int64, np.uint64, bool]


def hard_values(dtype, rng, kind, shape):
    """Scores with ties, and scores that lie as close, as small and as large as floats can."""
    if np.dtype(dtype).kind != "f":
        return rng.integers(0, 2 if dtype is bool else 5, shape).astype(dtype)
    info = np.finfo(dtype)
    steps = rng.integers(-3, 4, shape)
    if kind == "neighbours":
        values = 1 + steps * np.float64(info.eps)
    elif kind == "tiny":
        values = steps * np.float64(info.smallest_subnormal)
    elif kind == "largest":
        # scikit-learn's curve of precision and recall takes differences in float64.
        most = info.max / info.dtype.type(4 if info.dtype == np.float64 else 1)
        values = rng.choice([most, -most, np.nextafter(most, info.dtype.type(0))], shape)
    else:
        values = rng.standard_normal(shape)
    return values.astype(dtype)


CASES = [(dtype, kind) for dtype in FLOATS for kind in ("neighbours", "tiny", "largest", "usual")]
CASES += [(dtype, "integers") for dtype in INTEGERS]


def f1_score(truth, called):
    return 2 * np.count_nonzero(truth & called) / (np.count_nonzero(truth) + called.sum())


def best_f1(truth, called_by_each):
    return max(f1_score(truth, called) for called in called_by_each)


@pytest.mark.parametrize(("dtype", "kind"), CASES)
def test_of_images(dtype, kind):
    rng = np.random.default_rng(0)
    for _ in range(20):
        y = np.r_[1, -1, rng.choice([-1, 1], 8)]
        scores = hard_values(dtype, rng, kind, 10)
        promised = best_f1(y == -1, [scores <= level for level in scores])
        assert image_f1_max(y, scores) == pytest.approx(promised, abs=1e-12)
        threshold = image_f1_max_threshold(y, scores)
        for form in (scores, pd.Series(scores)):
            predicted = np.where(form < threshold, -1, 1)
            assert f1_score(y == -1, predicted == -1) == pytest.approx(promised, abs=1e-12)


@pytest.mark.parametrize(("dtype", "kind"), CASES)
def test_of_pixels(dtype, kind):
    rng = np.random.default_rng(0)
    for _ in range(20):
        masks = rng.random((2, 3, 4)) < 0.4
        masks[0, 0] = [True, False, True, False]
        maps = hard_values(dtype, rng, kind, (2, 3, 4))
        promised = best_f1(masks.ravel(), [(maps >= level).ravel() for level in maps.flat])
        assert pixel_f1_max(masks, maps) == pytest.approx(promised, abs=1e-12)
        threshold = pixel_f1_max_threshold(masks, maps)
        assert pixel_metrics(masks, maps)["pixel_f1_threshold"] == threshold
        called = maps >= threshold
        assert f1_score(masks, called) == pytest.approx(promised, abs=1e-12)
        iou = np.count_nonzero(masks & called) / np.count_nonzero(masks | called)
        assert pixel_iou(masks, maps, threshold) == iou
        for fpr, _, level in np.transpose(pro_curve(masks, maps)):
            assert np.mean((maps >= level)[~masks]) == fpr


def test_of_a_scorer():
    rng = np.random.default_rng(0)
    scorer = PatchKNNScorer().fit(rng.standard_normal((12, 4, 4, 3)))
    X = np.concatenate([rng.standard_normal((9, 4, 4, 3)), 1 + rng.standard_normal((9, 4, 4, 3))])
    X = np.concatenate([X, X[5:12]])  # ties
    y = np.r_[np.ones(9), -np.ones(9), np.where(np.arange(5, 12) < 9, 1, -1)]
    scores = scorer.score_samples(X)
    scorer.offset_ = image_f1_max_threshold(y, scores)
    promised = best_f1(y == -1, [scores <= level for level in scores])
    assert f1_score(y == -1, scorer.predict(X) == -1) == pytest.approx(promised, abs=1e-12)
    scorer.offset_ = scores[3]  # a score that is the threshold itself counts as normal
    assert scorer.predict(X[[3]]).tolist() == [1]
    assert scorer.decision_function(X[[3]]).tolist() == [0]
