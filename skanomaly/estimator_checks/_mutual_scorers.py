"""Checks of scorers of unlabelled images, which score those of `fit` by each other alone."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from skanomaly.embedders import FilterBankPatches
from skanomaly.estimator_checks._asserting import assert_same, check_bools, must_raise, prepared
from skanomaly.inspection import anomaly_maps

DIM = 6  # components of a token


def _tokens(n_images=12, grid=(4, 5), seed=0):
    tokens = np.random.default_rng(seed).normal(size=(n_images, *grid, DIM)) + 1
    return tokens.astype(np.float32)


def check_mutual_scorer_output(estimator: Any) -> None:
    """Shapes, dtypes and signs: `fit_predict`, `train_scores_`, `offset_` and `score_patches`."""
    for dtype in (np.float16, np.float32, np.float64, np.int64):
        X = (10 * _tokens()).astype(dtype)
        fitted = prepared(estimator).fit(X)
        scores = fitted.train_scores_
        assert scores.shape == (12,) and scores.dtype == np.float64, "train_scores_"
        assert np.isfinite(scores).all(), "train_scores_ are not finite"
        patches, again = fitted.score_patches(X, return_scores=True)
        assert patches.shape == (12, 4, 5) and patches.dtype == np.float32, "score_patches"
        assert (patches >= 0).all(), "distances are at least 0"
        np.testing.assert_array_equal(again, scores, "scores that come with patches")
        predicted = prepared(estimator).fit_predict(X)
        np.testing.assert_array_equal(
            predicted, np.where(scores < fitted.offset_, -1, 1), "fit_predict"
        )


def check_mutual_scorer_new_images(estimator: Any) -> None:
    """There is no `predict`, and new images are an error that names one."""
    fitted = prepared(estimator).fit(_tokens())
    for name in ("predict", "score_samples", "decision_function"):
        assert not hasattr(fitted, name), f"{name} would be of images that nothing is known of"
    with must_raise(ValueError, what="score_patches of a new image"):
        fitted.score_patches(_tokens(1, seed=1))
    with must_raise(ValueError, what="fit to one image"):
        prepared(estimator).fit(_tokens(1))


def check_mutual_scorer_order(estimator: Any) -> None:
    """Scores do not depend on the order of the images, to the last bit; patches on no batch."""
    X = _tokens(17)
    order = np.random.default_rng(0).permutation(17)
    fitted, other = prepared(estimator).fit(X), prepared(estimator).fit(X[order])
    np.testing.assert_array_equal(other.train_scores_, fitted.train_scores_[order])
    np.testing.assert_array_equal(other.score_patches(X), fitted.score_patches(X))
    np.testing.assert_array_equal(fitted.score_patches(X[3:4])[0], fitted.score_patches(X)[3])


def check_mutual_scorer_signs(estimator: Any) -> None:
    """A defect has lower scores of images, and higher ones of patches."""
    X = 5 + _tokens(20)
    X[4, 1:3, 1:3] = 5 * np.eye(DIM, dtype=np.float32)[0] - 5
    fitted = prepared(estimator, contamination=0.05).fit(X)
    assert fitted.train_scores_.argmin() == 4, "the image with a defect must score lowest"
    place = np.unravel_index(fitted.score_patches(X)[4].argmax(), (4, 5))
    assert place[0] in (1, 2) and place[1] in (1, 2), "its patches must score highest"


def check_mutual_scorer_forms(estimator: Any) -> None:
    """The same patches give the same scores in each form; without a grid, or an error names it."""
    X = _tokens()
    objects = np.empty(len(X), dtype=object)
    objects[:] = list(X)
    expected = prepared(estimator).fit(X).train_scores_
    assert_same(prepared(estimator).fit(objects).train_scores_, expected, "of an object array")
    try:
        found = prepared(estimator).fit(X.reshape(len(X), -1, DIM)).train_scores_
    except ValueError as exc:
        assert "grid" in str(exc), f"the error on tokens without a grid does not say so: {exc}"
    else:
        assert_same(found, expected, "of (n, patches, dim)")
    rows = X[:, 0, 0]
    expected = prepared(estimator).fit(rows[:, None, None]).train_scores_
    assert_same(prepared(estimator).fit(rows).train_scores_, expected, "of (n, dim)")
    with must_raise(ValueError, what="fit to views"):
        prepared(estimator).fit(np.stack([X, X[:, ::-1]], axis=1))


def check_mutual_scorer_mixed_grids(estimator: Any) -> None:
    """Images of different grids are scored each in its own shape."""
    X = np.empty(9, dtype=object)
    X[:] = [_tokens(1, grid=(3 + i % 3, 4), seed=i)[0] for i in range(9)]
    patches = prepared(estimator).fit(X).score_patches(X)
    assert [p.shape for p in patches] == [image.shape[:2] for image in X], "shapes of patch scores"


def check_mutual_scorer_masks(estimator: Any) -> None:
    """Patches that are NaN in all components score 0, and count nowhere; other NaN is an error."""
    X = _tokens()
    masked = np.concatenate([X, np.full_like(X[:, :1], np.nan)], axis=1)
    plain, fitted = prepared(estimator, topk=0.2).fit(X), prepared(estimator, topk=0.2).fit(masked)
    assert_same(fitted.train_scores_, plain.train_scores_, "scores with masked patches")
    patches = fitted.score_patches(masked)
    assert (patches[:, -1] == 0).all(), "masked patches must score 0"
    assert_same(patches[:, :-1], plain.score_patches(X), "scores beside masked patches")
    for value in (np.nan, np.inf):
        broken = X.copy()
        broken[3, 1, 2, 0] = value
        with must_raise(ValueError, what=f"fit to a token with {value}"):
            prepared(estimator).fit(broken)


def check_mutual_scorer_groups(estimator: Any) -> None:
    """Images of one group are not compared to each other, where `fit` takes groups."""
    if not has_fit_parameter(estimator, "groups"):
        return
    X = np.repeat(_tokens(12), 2, axis=0)
    noise = np.random.default_rng(0).normal(size=X.shape)
    X = (X + 1e-3 * noise).astype(np.float32)
    fitted = prepared(estimator).fit(X, groups=np.repeat(np.arange(12), 2))
    alone = prepared(estimator).fit(X[::2])
    assert_same(fitted.train_scores_[::2], alone.train_scores_, "scores of pairs", rtol=0.05)
    with must_raise(ValueError, what="fit to one group"):
        prepared(estimator).fit(X, groups=[0] * 24)


def check_mutual_scorer_keeps(estimator: Any) -> None:
    """Nothing is written into the tokens, and none that a caller may change are held."""
    X = _tokens()
    before = X.copy()
    fitted = prepared(estimator).fit(X)
    np.testing.assert_array_equal(X, before, "fit wrote into the tokens")
    expected = fitted.score_patches(X)
    X[:] = 7
    np.testing.assert_array_equal(fitted.score_patches(before), expected)


def check_mutual_scorer_persistence(estimator: Any) -> None:
    """A pickled scorer knows its images; a clone has the parameters, and is not fitted."""
    X = _tokens()
    fitted = prepared(estimator).fit(X)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.score_patches(X), fitted.score_patches(X))
    cloned = clone(fitted)
    assert repr(cloned) == repr(fitted) and not hasattr(cloned, "train_scores_"), "a clone"


def check_mutual_scorer_bools(estimator: Any) -> None:
    """True is refused where a number is meant."""
    check_bools(estimator, lambda wrong: wrong.fit(_tokens()))


def check_mutual_scorer_maps(estimator: Any) -> None:
    """After an embedder, a Pipeline labels images, and has maps of their sizes."""
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 40, 3), dtype=np.uint8)
    pipe = Pipeline([("emb", FilterBankPatches(image_size=32)), ("scorer", prepared(estimator))])
    assert set(pipe.fit_predict(images)) <= {-1, 1}, "labels"
    maps, scores = anomaly_maps(pipe, images[8:], return_scores=True)
    assert np.shape(maps) == (4, 32, 40) and np.isfinite(maps).all(), "maps of the images' sizes"
    assert_same(scores, pipe[-1].train_scores_[8:], "scores that come with maps", 1e-12)


MUTUAL_SCORER_CHECKS = (
    check_mutual_scorer_output,
    check_mutual_scorer_new_images,
    check_mutual_scorer_order,
    check_mutual_scorer_signs,
    check_mutual_scorer_forms,
    check_mutual_scorer_mixed_grids,
    check_mutual_scorer_masks,
    check_mutual_scorer_groups,
    check_mutual_scorer_keeps,
    check_mutual_scorer_persistence,
    check_mutual_scorer_bools,
    check_mutual_scorer_maps,
)
