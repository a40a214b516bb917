"""Checks of scorers: what maps, evaluations and users rely on."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from skanomaly.embedders import FilterBankPatches
from skanomaly.estimator_checks._asserting import (
    assert_same,
    check_bools,
    must_raise,
    prepared,
)
from skanomaly.inspection import anomaly_maps

DIM = 6  # components of a token
_SCORING = ("score_samples", "decision_function", "predict", "score_patches")


def _tokens(n_images=12, grid=(4, 5), seed=0):
    tokens = np.random.default_rng(seed).normal(size=(n_images, *grid, DIM)) + 1
    return tokens.astype(np.float32)


def _defective(n_images, seed):
    """Tokens that are far from those of `_tokens`, and point the other way."""
    return 3 - 6 * _tokens(n_images, seed=seed)


def _objects(images):
    """The mixed form: a 1-D object array of one array an image."""
    out = np.empty(len(images), dtype=object)
    out[:] = list(images)
    return out


def check_patch_scorer_forms(estimator: Any) -> None:
    """The same patches give the same scores in each form, in `fit` and afterwards.

    A scorer to which the neighbours of a patch matter may refuse patches without a grid, in `fit`.
    """
    good, new = _tokens(), _tokens(5, seed=1)
    flat = lambda X: X.reshape(len(X), -1, DIM)  # noqa: E731
    by_grid = prepared(estimator).fit(good)
    expected = by_grid.score_samples(new)
    for name, form in {"(n, patches, dim)": flat, "object array": _objects, "list": list}.items():
        try:
            fitted = prepared(estimator).fit(form(good))
        except ValueError as exc:
            what = f"the error on the {name} does not say that it needs a grid: {exc}"
            assert form is flat and "grid" in str(exc), what
        else:
            scores = fitted.score_samples(form(new))
            assert_same(scores, expected, f"scores, fitted to the {name}")
        assert_same(by_grid.score_samples(form(new)), expected, f"scores of the {name}")
    # Rows are images of one patch.
    rows, new_rows = good[:, 0, 0], new[:, 0, 0]
    as_grids = prepared(estimator).fit(rows[:, None, None])
    expected = as_grids.score_samples(new_rows[:, None, None])
    as_rows = prepared(estimator).fit(rows)
    assert_same(as_rows.score_samples(new_rows), expected, "scores of (n, dim)")


def check_patch_scorer_mixed_grids(estimator: Any) -> None:
    """Images of different grids are scored each in its own shape, or refused for their grids."""
    X = _objects([_tokens(1, grid=(3 + i % 3, 4), seed=i)[0] for i in range(9)])
    try:
        fitted = prepared(estimator).fit(X)
    except ValueError as exc:
        assert "grid" in str(exc), f"the error on different grids does not name them: {exc}"
        return
    patches, scores = fitted.score_patches(X, return_scores=True)
    assert patches.dtype == object, "patch scores of different grids must be a 1-D object array"
    assert [p.shape for p in patches] == [image.shape[:2] for image in X], "shapes of patch scores"
    alone = [fitted.score_samples(image[None])[0] for image in X]
    assert_same(scores, alone, "scores of images of different grids")


def check_patch_scorer_views(estimator: Any) -> None:
    """Views, (n_images, n_views, grid_h, grid_w, dim), are for `fit` alone; an image is its first.

    A training image is scored without its views too: mirrored, they hold the same patches.
    """
    good = _tokens()
    views = np.stack([good, good[:, ::-1], good[:, :, ::-1]], axis=1)
    fitted = prepared(estimator).fit(views)
    assert np.shape(fitted.train_scores_) == (len(good),), "one training score an image"
    assert_same(fitted.score_samples(good), fitted.train_scores_, "scores of the first views")
    predicted = prepared(estimator).fit_predict(views)
    np.testing.assert_array_equal(predicted, fitted.predict(good), "fit_predict of views")
    with must_raise(ValueError, what="score_samples of views"):
        fitted.score_samples(views)
    plain = prepared(estimator).fit(good)
    patches = fitted.score_patches(good).astype(float)
    if (plain.score_patches(good) > 0).all():
        assert (patches > 0).all(), "a training image was compared to a view of itself"


def check_patch_scorer_batches(estimator: Any) -> None:
    """The score of an image depends neither on the batch nor on the order in it."""
    fitted = prepared(estimator).fit(_tokens())
    X = np.concatenate([_tokens(6, seed=1), _tokens()[:3]])  # training images among them
    together = fitted.score_samples(X)
    alone = [fitted.score_samples(image[None])[0] for image in X]
    assert_same(alone, together, "scores of images one by one")
    order = np.random.default_rng(0).permutation(len(X))
    assert_same(fitted.score_samples(X[order]), together[order], "scores in another order")


def check_patch_scorer_masks(estimator: Any) -> None:
    """Patches that are NaN in all components are never the highest, and count nowhere."""
    good, new = _tokens(), _tokens(3, seed=1)

    def with_masked_row(X):
        return np.concatenate([X, np.full_like(X[:, :1], np.nan)], axis=1)

    # A fifth: 4 of 20 patches, 5 of 25, so that it shows where a masked patch is counted.
    plain = prepared(estimator, topk=0.2).fit(good)
    masked = prepared(estimator, topk=0.2).fit(with_masked_row(good))
    expected = plain.score_samples(new)
    patches, scores = masked.score_patches(with_masked_row(new), return_scores=True)
    assert_same(scores, expected, "image scores with masked patches", rtol=1e-5)
    lowest = np.minimum(patches[:, :-1].min(axis=(1, 2)), 0)
    assert (patches[:, -1] == lowest[:, None]).all(), "masked patches must score 0, or the lowest"
    assert_same(patches[:, :-1], plain.score_patches(new), "scores beside masked ones", rtol=1e-5)
    assert_same(masked.train_scores_, plain.train_scores_, "training scores", rtol=1e-5)


def check_patch_scorer_not_finite(estimator: Any) -> None:
    """NaN in a part of a token, infinity, and an image of masked patches alone are errors."""
    good = _tokens()
    fitted = prepared(estimator).fit(good)
    for value, what in ((np.nan, "a token that is NaN in part"), (np.inf, "an infinite token")):
        broken = good.copy()
        broken[3, 1, 2, 0] = value
        with must_raise(ValueError, what=f"fit to {what}"):
            prepared(estimator).fit(broken)
        with must_raise(ValueError, what=f"score_samples of {what}"):
            fitted.score_samples(broken)
    blank = good.copy()
    blank[2] = np.nan
    with must_raise(ValueError, what="score_samples of an image without any patch"):
        fitted.score_samples(blank)


def check_patch_scorer_training_images(estimator: Any) -> None:
    """Training images that are scored again get the scores that the threshold rests on."""
    good = _tokens(30)
    fitted = prepared(estimator).fit(good)
    assert_same(fitted.score_samples(good), fitted.train_scores_, "scores of training images")
    predicted = prepared(estimator).fit_predict(good)
    np.testing.assert_array_equal(predicted, fitted.predict(good), "fit_predict")
    noise = 1 + 1e-7 * np.random.default_rng(0).normal(size=good.shape)
    again = fitted.score_samples((good * noise).astype(np.float32))
    assert_same(again, fitted.train_scores_, "scores of training images with float noise")


def check_patch_scorer_contamination(estimator: Any) -> None:
    """The share of flagged training images is `contamination`."""
    if "contamination" not in estimator.get_params(deep=False):
        return
    good = _tokens(30)
    for share in (0.1, 0.3):
        fitted = prepared(estimator, contamination=share).fit(good)
        flagged = int((fitted.predict(good) == -1).sum())
        assert abs(flagged - share * 30) <= 1, f"{flagged} of 30 flagged at contamination={share}"


def check_patch_scorer_new_images(estimator: Any) -> None:
    """The threshold serves new images: it rests on scores that were held out."""
    fitted = prepared(estimator, contamination=0.2).fit(_tokens(40))
    share = (fitted.predict(_tokens(100, seed=1)) == -1).mean()
    # 20%, by chance 5 to 40%, or what a threshold that needs no image flags.
    assert share < 0.5, (
        f"{share:.0%} of new normal images are flagged at contamination=0.2: the scores of "
        "training images must come from a model that has not seen them"
    )


def check_patch_scorer_groups(estimator: Any) -> None:
    """Images of one group are held out together, where `fit` takes groups."""
    if not has_fit_parameter(estimator, "groups"):
        return
    parts = np.repeat(_tokens(20), 3, axis=0)
    noise = 0.01 * np.random.default_rng(0).normal(size=parts.shape)
    X, groups = (parts + noise).astype(np.float32), np.repeat(np.arange(20), 3)
    order = np.random.default_rng(1).permutation(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of copies, where groups are not handed on
        fitted = prepared(estimator, contamination=0.2).fit(X[order], groups=groups[order])
    share = (fitted.predict(_tokens(100, seed=1)) == -1).mean()
    assert share < 0.5, (
        f"{share:.0%} of new normal images are flagged at contamination=0.2, fitted to three "
        "photographs of each part: images of one group must be held out together"
    )
    if hasattr(fitted, "train_scores_"):
        again = fitted.score_samples(X[order])
        assert_same(again, fitted.train_scores_, "scores of training images, with groups")


def check_patch_scorer_labels(estimator: Any) -> None:
    """Images whose label is -1 never enter the model."""
    good, new = _tokens(15), _tokens(4, seed=1)
    X = np.concatenate([good, 100 * _tokens(5, seed=3) - 300])
    y = np.r_[np.ones(15), -np.ones(5)]
    expected, fitted = prepared(estimator).fit(good), prepared(estimator).fit(X, y)
    assert_same(fitted.score_samples(new), expected.score_samples(new), "scores with labels")
    assert_same(fitted.train_scores_, expected.train_scores_, "training scores with labels")
    with must_raise(ValueError, what="fit to anomalous images alone"):
        prepared(estimator).fit(X[15:], y[15:])


def check_patch_scorer_signs(estimator: Any) -> None:
    """Image scores are higher for normal images, patch scores for anomalous patches."""
    fitted = prepared(estimator).fit(_tokens(30))
    normal, defective = _tokens(5, seed=1), _defective(5, seed=2)
    assert fitted.score_samples(normal).mean() > fitted.score_samples(defective).mean(), (
        "score_samples must be higher for normal images"
    )
    assert fitted.score_patches(normal).mean() < fitted.score_patches(defective).mean(), (
        "score_patches must be higher for anomalous patches"
    )
    X = np.concatenate([normal, defective])
    decision = fitted.decision_function(X)
    assert_same(decision, fitted.score_samples(X) - fitted.offset_, "decision_function", 1e-12)
    np.testing.assert_array_equal(fitted.predict(X), np.where(decision < 0, -1, 1), "predict")


def check_patch_scorer_output(estimator: Any) -> None:
    """Shapes and dtypes of what is returned, for tokens of any dtype of numbers."""
    for dtype in (np.float16, np.float32, np.float64, np.int64):
        good, new = ((10 * _tokens(n, seed=n)).astype(dtype) for n in (12, 3))
        fitted = prepared(estimator).fit(good)
        scores, patches = fitted.score_samples(new), fitted.score_patches(new)
        for name, values, kind in (
            ("score_samples", scores, np.float64),
            ("decision_function", fitted.decision_function(new), np.float64),
            ("score_patches", patches, np.float32),
        ):
            assert values.dtype == kind, f"{name} is {values.dtype}, of tokens of {dtype.__name__}"
            assert np.isfinite(values).all(), f"{name} is not finite"
        assert scores.shape == (3,) and patches.shape == (3, 4, 5), "shapes of scores"
        assert set(fitted.predict(new)) <= {-1, 1}, "predict must be -1 or +1"
        assert fitted.score_patches(new.reshape(3, 20, DIM)).shape == (3, 20), "shape of patches"
        assert np.ndim(fitted.offset_) == 0 and np.isfinite(fitted.offset_), "offset_"


def check_patch_scorer_return_scores(estimator: Any) -> None:
    """`score_patches(X, return_scores=True)` is the pair of what both methods return."""
    fitted = prepared(estimator).fit(_tokens())
    X = np.concatenate([_tokens(3, seed=1), _tokens()[:2]])
    patches, scores = fitted.score_patches(X, return_scores=True)
    np.testing.assert_array_equal(patches, fitted.score_patches(X), "patch scores of the pair")
    assert_same(scores, fitted.score_samples(X), "image scores of the pair", 1e-12)


def check_patch_scorer_writes(estimator: Any) -> None:
    """No method writes into the tokens of the caller, of any form."""
    good, new = _tokens(), _tokens(3, seed=1)
    fitted = prepared(estimator).fit(good.copy())
    methods = {name: getattr(prepared(estimator), name) for name in ("fit", "fit_predict")}
    methods |= {name: getattr(fitted, name) for name in _SCORING}
    for name, method in methods.items():
        X = new if name in _SCORING else good
        for kind in (np.float32, np.float64):
            given = X.astype(kind)
            before = given.copy()
            method(given)
            np.testing.assert_array_equal(given, before, f"{name} wrote into the tokens")
    views = np.stack([good, good[:, ::-1]], axis=1)
    before = views.copy()
    prepared(estimator).fit(views)
    np.testing.assert_array_equal(views, before, "fit wrote into the views")


def check_patch_scorer_input(estimator: Any) -> None:
    """A fitted scorer holds no tokens that a caller may change."""
    good, new = _tokens(), _tokens(3, seed=1)
    fitted = prepared(estimator).fit(good)
    expected = fitted.score_samples(new)
    good[:] = 7
    assert_same(fitted.score_samples(new), expected, "scores after the tokens were changed", 0)


def check_patch_scorer_bools(estimator: Any) -> None:
    """True is refused where a number is meant."""
    check_bools(estimator, lambda wrong: wrong.fit(_tokens()))


def check_patch_scorer_persistence(estimator: Any) -> None:
    """A pickled scorer scores as before; a clone has the parameters, and is not fitted."""
    good, new = _tokens(), _tokens(4, seed=1)
    fitted = prepared(estimator).fit(good)
    loaded = pickle.loads(pickle.dumps(fitted))
    for X in (new, good):
        assert_same(loaded.score_samples(X), fitted.score_samples(X), "scores of the pickled", 0)
    cloned = clone(fitted)
    assert repr(cloned) == repr(fitted), "parameters of a clone"
    if get_tags(cloned).requires_fit:
        with must_raise(NotFittedError, what="predict of a clone"):
            cloned.predict(new)


def check_patch_scorer_maps(estimator: Any) -> None:
    """After an embedder, a Pipeline scores images, and has maps of their sizes."""
    images = np.random.default_rng(0).integers(0, 256, (14, 32, 40, 3), dtype=np.uint8)
    steps = [("emb", FilterBankPatches(image_size=32)), ("scorer", prepared(estimator))]
    pipe = Pipeline(steps).fit(images[:12])
    maps, scores = anomaly_maps(pipe, images[10:], return_scores=True)
    assert isinstance(maps, np.ndarray), "one array where the sizes of the images agree"
    assert maps.shape == (4, 32, 40) and np.isfinite(maps).all(), "maps of the images' sizes"
    assert_same(scores, pipe.score_samples(images[10:]), "scores that come with maps", 1e-12)


SCORER_CHECKS = (
    check_patch_scorer_forms,
    check_patch_scorer_mixed_grids,
    check_patch_scorer_views,
    check_patch_scorer_batches,
    check_patch_scorer_masks,
    check_patch_scorer_not_finite,
    check_patch_scorer_training_images,
    check_patch_scorer_contamination,
    check_patch_scorer_new_images,
    check_patch_scorer_groups,
    check_patch_scorer_labels,
    check_patch_scorer_signs,
    check_patch_scorer_output,
    check_patch_scorer_return_scores,
    check_patch_scorer_writes,
    check_patch_scorer_input,
    check_patch_scorer_bools,
    check_patch_scorer_persistence,
    check_patch_scorer_maps,
)
