"""What scorers share: threshold, held-out scores, labels, errors; what is special to each.

Forms, masks, batches, signs and the like are checked by `tests/test_common.py`.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skanomaly import PatchGaussianScorer, PatchKNNScorer
from skanomaly.base import CrossFittedScorer

SCORERS = [
    PatchKNNScorer(),
    PatchKNNScorer(metric="euclidean", n_neighbors=3),
    PatchKNNScorer(metric="euclidean", coreset=0.3),
    PatchKNNScorer(coreset=40, coreset_method="random", random_state=0),
    PatchGaussianScorer(),
    PatchGaussianScorer("shared"),
]
# Their patch scores do not depend on the position of a patch.
UNORDERED = [s for s in SCORERS if getattr(s, "covariance", "shared") == "shared"]
each_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=repr)
each_unordered = pytest.mark.parametrize("scorer", UNORDERED, ids=repr)


def _tokens(n=12, grid=(4, 5), dim=6, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, *grid, dim)) + 1).astype(np.float32)


def _flat(patch_scores):
    return np.asarray(patch_scores).reshape(len(patch_scores), -1)


class Given(CrossFittedScorer):
    """Gives each row the float it was made with; with an int so many rows more; or raises."""

    def __init__(self, result=0.0, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.result = result
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_model(self, tokens):
        return None

    def _score_model(self, model, tokens, known):
        if isinstance(self.result, Exception):
            raise self.result
        if isinstance(self.result, int):
            return np.zeros(len(tokens.values) + self.result)
        return np.full(len(tokens.values), self.result)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="Given gave image 0 the score .*: scores must be finite"):
        Given(bad).fit(_tokens())


@pytest.mark.parametrize("more", [1, -1])
def test_scores_of_other_rows_are_refused(more):
    with pytest.raises(ValueError, match="_score_model returned scores of shape"):
        Given(more).fit(_tokens())


def test_tokens_too_large_for_their_distances_are_refused():
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="beyond float32"):
        PatchGaussianScorer(covariance="shared").fit(_tokens().astype(np.float64) * 1e200)


def test_a_fit_that_fails_leaves_no_fitted_scorer():
    scorer = Given().fit(_tokens())
    with pytest.raises(RuntimeError, match="no more"):
        scorer.set_params(result=RuntimeError("no more")).fit(_tokens())
    with pytest.raises(NotFittedError):
        scorer.set_params(result=0.0).predict(_tokens())


@each_scorer
def test_the_exact_share_of_training_images_is_flagged(scorer):
    flagged = clone(scorer).set_params(contamination=0.3).fit_predict(_tokens(20)) == -1
    assert flagged.sum() == 6


@each_scorer
def test_forms_agree_to_the_bit(scorer):
    good, new = _tokens(), _tokens(5, seed=1)
    mixed = np.empty(len(new), dtype=object)
    mixed[:] = list(new)
    fitted = clone(scorer).fit(good)
    flat = clone(scorer).fit(good.reshape(12, 20, 6))
    np.testing.assert_array_equal(flat.train_scores_, fitted.train_scores_)
    scores = fitted.score_samples(new)
    for X in (mixed, list(new), new.reshape(5, 20, 6), list(new.reshape(5, 20, 6))):
        np.testing.assert_array_equal(fitted.score_samples(X), scores)
    np.testing.assert_array_equal(flat.score_samples(new.reshape(5, 20, 6)), scores)
    np.testing.assert_allclose(fitted.score_samples(new.tolist()), scores, rtol=1e-6)


@each_unordered
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_patch_permutation(scorer, seed):
    scorer = clone(scorer).fit(_tokens())
    X = np.concatenate([_tokens(2, seed=seed + 1), _tokens()[:2]]).reshape(4, 20, 6)
    order = np.random.default_rng(seed).permutation(20)
    np.testing.assert_allclose(
        scorer.score_samples(X[:, order]), scorer.score_samples(X), rtol=1e-9
    )
    np.testing.assert_allclose(
        scorer.score_patches(X[:, order]), scorer.score_patches(X)[:, order], rtol=1e-6
    )


@each_scorer
def test_one_changed_patch_is_a_new_image(scorer):
    good = _tokens(30)
    scorer = clone(scorer).set_params(topk=1).fit(good)
    changed = good[:1].copy()
    changed[0, 1, 2] = [-6, 4, -6, 4, -6, 4]
    patches = scorer.score_patches(changed)[0]
    assert np.unravel_index(patches.argmax(), patches.shape) == (1, 2)
    assert scorer.predict(changed) == -1


@each_scorer
def test_new_images_are_not_taken_for_training_images(scorer):
    new = _tokens(10, seed=1)
    new[5:, 1, 1] += 12
    outlier = _tokens(20)
    outlier[3, 2, 2] = 1e6
    offset = np.float64(1e6)
    for good, X in ((outlier, new), (_tokens(20) + offset, new + offset)):
        fitted = clone(scorer).fit(good)
        assert len(set(fitted.score_samples(X).tolist())) == 10


def test_threshold_and_p_values():
    good, new = _tokens(30), _tokens(10, seed=1)
    scorer = PatchGaussianScorer("shared").fit(good)
    assert scorer.train_scores_.dtype == np.float64 and scorer.train_scores_.shape == (30,)
    assert scorer.offset_ == np.quantile(scorer.train_scores_, 0.1, method="weibull")
    p = [(1 + (scorer.train_scores_ <= s).sum()) / 31 for s in scorer.score_samples(new)]
    np.testing.assert_allclose(scorer.p_values(new), p)
    # To the bit what `fit` calibrated on, and never what an image's own patches would give.
    np.testing.assert_array_equal(scorer.score_samples(good), scorer.train_scores_)
    assert (PatchKNNScorer().fit(good).score_patches(good) > 0).all()


def test_parameters_changed_since_fit():
    fitted = PatchKNNScorer().fit(_tokens()).set_params(aggregation="mean")
    with pytest.raises(NotFittedError, match="aggregation of this .* changed since fit"):
        fitted.predict(_tokens(2, seed=1))
    with pytest.raises(NotFittedError, match="aggregation of this .* changed since fit"):
        fitted.p_values(_tokens(2, seed=1))
    fitted.set_params(aggregation="topk_mean").predict(_tokens(2, seed=1))


def test_labels():
    good, bad = _tokens(15), 100 * _tokens(5, seed=3) - 300
    X, y = np.concatenate([good, bad]), np.r_[np.ones(15), -np.ones(5)]
    expected = PatchKNNScorer().fit(good).train_scores_
    np.testing.assert_array_equal(PatchKNNScorer().fit(X, y[:, None]).train_scores_, expected)
    # Labels of ours and others: an anomalous image would slip into the model.
    with pytest.raises(ValueError, match="y holds -1 for anomalous images, but also 0"):
        PatchKNNScorer().fit(X, np.r_[0, y[1:]])
    with pytest.raises(ValueError, match="no normal image"):
        PatchKNNScorer().fit(bad, -np.ones(5))
    with pytest.raises(ValueError, match="y holds 3 labels, but there are 15 images"):
        PatchKNNScorer().fit(good, np.ones(3))


@pytest.mark.parametrize(
    "scorer, name",
    [
        (PatchKNNScorer(), "n_neighbors"),
        (PatchKNNScorer(), "coreset"),
        (PatchKNNScorer(), "topk"),
        (PatchKNNScorer(), "aggregation"),
        (PatchKNNScorer(), "random_state"),
        (PatchGaussianScorer(), "neighborhood"),
        (PatchGaussianScorer(), "shrinkage"),
        (PatchGaussianScorer(), "regularization"),
        (PatchGaussianScorer(), "n_components"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_bools_are_no_numbers(scorer, name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of .* must not be a bool"):
        clone(scorer).set_params(**{name: True}).fit(_tokens())


@pytest.mark.parametrize(
    ("aggregation", "topk", "reference"),
    [
        ("topk_mean", 0.2, lambda s: np.sort(s)[-4:].mean()),
        ("topk_mean", 3, lambda s: np.sort(s)[-3:].mean()),
        ("topk_mean", 1e-4, np.max),
        ("max", 0.5, np.max),
        ("mean", 0.5, np.mean),
        (0.75, 0.5, lambda s: np.quantile(s, 0.75)),
    ],
)
@pytest.mark.parametrize("scorer", [SCORERS[0], SCORERS[5]], ids=repr)
def test_image_score_is_the_aggregate(scorer, aggregation, topk, reference):
    scorer = clone(scorer).set_params(aggregation=aggregation, topk=topk).fit(_tokens())
    X = np.concatenate([_tokens(3, seed=1), _tokens()[:2]])
    expected = [-reference(patches.astype(float)) for patches in _flat(scorer.score_patches(X))]
    np.testing.assert_allclose(scorer.score_samples(X), expected, rtol=1e-6)


def test_knn_leaves_out_the_image_exactly():
    good = _tokens(8).astype(np.float64)
    scorer = PatchKNNScorer(metric="euclidean", aggregation="mean").fit(good)
    for i, image in enumerate(good):
        rest = np.delete(good, i, axis=0).reshape(-1, 6)
        distances = np.sqrt(((image.reshape(-1, 1, 6) - rest) ** 2).sum(axis=-1)).min(axis=1)
        np.testing.assert_allclose(scorer.train_scores_[i], -distances.mean(), rtol=1e-12)
        np.testing.assert_allclose(scorer.score_patches(image[None]).ravel(), distances, rtol=1e-6)


@pytest.mark.parametrize("scorer", [PatchKNNScorer(coreset=0.4), PatchGaussianScorer()], ids=repr)
def test_cross_fitted_scores_are_those_of_a_model_without_the_fold(scorer):
    good = _tokens(10)
    fitted = clone(scorer).fit(good)
    # Five folds of two for the coreset, of which each takes as many patches as the whole; ten of
    # one for the Gaussians.
    n_folds = 5 if isinstance(scorer, PatchKNNScorer) else 10
    folds = np.arange(10) * n_folds // 10
    if scorer.get_params().get("coreset") is not None:
        scorer = clone(scorer).set_params(coreset=len(fitted.bank_))
    for fold in np.unique(folds):
        without = clone(scorer).fit(good[folds != fold])
        held_out = good[folds == fold]
        np.testing.assert_allclose(
            without.score_samples(held_out), fitted.train_scores_[folds == fold], rtol=1e-6
        )


def test_calibration_of_many_images_is_bounded(monkeypatch):
    from skanomaly.scorers import _training_images

    monkeypatch.setattr(_training_images, "MAX_CALIBRATION_PATCHES", 100)
    good = _tokens(20)  # 400 patches: every fourth image is calibrated on
    scorer = PatchKNNScorer().fit(good)
    everything = PatchKNNScorer()
    monkeypatch.setattr(_training_images, "MAX_CALIBRATION_PATCHES", 10**6)
    everything.fit(good)
    np.testing.assert_array_equal(scorer.train_scores_, everything.train_scores_[::4])
    # The other images are held out all the same when they are seen again.
    np.testing.assert_allclose(scorer.score_samples(good), everything.train_scores_, rtol=1e-9)


@pytest.mark.parametrize(
    "scorer", [PatchKNNScorer(), PatchKNNScorer(coreset=0.5), PatchGaussianScorer("shared")]
)
def test_a_single_image_warns_and_is_split(scorer):
    image = _tokens(1, grid=(6, 6))
    with pytest.warns(UserWarning, match="calibrated on a single image") as caught:
        fitted = clone(scorer).fit(image)
    assert caught[0].filename == __file__
    assert fitted.train_scores_.shape == (1,)
    assert fitted.predict(image) == 1
    assert (fitted.score_patches(image) > 0).all()
    assert np.isfinite(fitted.score_samples(_tokens(3, grid=(6, 6), seed=1))).all()
    with pytest.warns(UserWarning, match="against its other views"):
        clone(scorer).fit(np.stack([image, image[:, ::-1] + 0.1], axis=1))


@pytest.mark.parametrize("method", ["fit", "fit_predict"])
@pytest.mark.parametrize("in_a_pipeline", [False, True])
def test_the_warning_of_a_single_image_points_at_the_users_line(method, in_a_pipeline):
    estimator = PatchKNNScorer()
    if in_a_pipeline:
        estimator = make_pipeline(FunctionTransformer(), estimator)
    with pytest.warns(UserWarning, match="calibrated on a single image") as caught:
        getattr(estimator, method)(_tokens(1, grid=(6, 6)))
    assert [warning.filename for warning in caught] == [__file__]


def test_a_single_image_quarter_by_quarter():
    image = _tokens(1, grid=(4, 6)).astype(np.float64)
    with pytest.warns(UserWarning, match="single image"):
        scorer = PatchKNNScorer(metric="euclidean").fit(image)
    expected = np.empty((4, 6))
    for i in range(4):
        for j in range(6):
            others = [
                image[0, k, m]
                for k in range(4)
                for m in range(6)
                if (k // 2, m // 3) != (i // 2, j // 3)
            ]
            expected[i, j] = np.linalg.norm(np.array(others) - image[0, i, j], axis=1).min()
    np.testing.assert_allclose(scorer.score_patches(image)[0], expected, rtol=1e-6)


def test_zero_tokens_and_cosine():
    # A constant embedding of 0 for good and 10 for bad parts must tell them apart.
    good = np.zeros((2, 3, 3, 4), dtype=np.float32)
    scorer = PatchKNNScorer(contamination=0.5).fit(good)
    assert scorer.score_samples(good).tolist() == [0, 0]
    assert scorer.score_samples(good + 10).tolist() == [-1] * 2
    assert scorer.predict(np.concatenate([good[:1], good[:1] + 10])).tolist() == [1, -1]


def test_errors():
    good = _tokens()
    fitted = PatchKNNScorer().fit(good)
    with pytest.raises(ValueError, match="X has 3 features, but .* is expecting 6 features"):
        fitted.predict(good[..., :3])
    broken = good.copy()
    broken[3, 1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="patch 7 of image 3"):
        fitted.predict(broken)
    blank = good.copy()
    blank[2] = np.nan
    with pytest.raises(ValueError, match="every patch of image 2 is masked"):
        PatchKNNScorer().fit(blank)
    with pytest.raises(ValueError, match="image 0: topk=21 is more than the 20 patches"):
        PatchKNNScorer(topk=21).fit(good)
    for paths in (["a.png", "b.png"], np.array(["a.png", "b.png"]), [None, None]):
        with pytest.raises(ValueError, match="put an embedder before it"):
            fitted.predict(paths)
    for scorer in (PatchKNNScorer(), PatchKNNScorer(coreset=0.5), PatchGaussianScorer("shared")):
        with pytest.raises(ValueError, match="1 image of one patch"):
            scorer.fit(good[:1, 0, 0])


def test_gaussian_errors():
    good = _tokens()
    with pytest.raises(ValueError, match="at least 3 normal images, got n_samples = 2"):
        PatchGaussianScorer().fit(good[:2])
    mixed = np.empty(4, dtype=object)
    mixed[:] = [good[0], good[1], good[2], good[3, :3]]
    with pytest.raises(ValueError, match="images of one grid"):
        PatchGaussianScorer().fit(mixed)
    fitted = PatchGaussianScorer().fit(good)
    with pytest.raises(ValueError, match="per-position Gaussians need one grid"):
        fitted.predict(good[:, :3])
    with pytest.raises(ValueError, match="per-position Gaussians need one grid"):
        fitted.predict(good.transpose(0, 2, 1, 3))
    with pytest.raises(ValueError, match="neighborhood must be odd"):
        PatchGaussianScorer(neighborhood=2).fit(good)
    with pytest.raises(ValueError, match="needs the grid"):
        PatchGaussianScorer(neighborhood=3).fit(good.reshape(12, 20, 6))
    with pytest.raises(ValueError, match="do not vary"):
        PatchGaussianScorer().fit(np.ones((5, 2, 2, 3)))


def test_components_of_different_scale():
    good, bad = _tokens(30).astype(np.float64), _tokens(3, seed=1).astype(np.float64)
    bad[:, 1, 1, 1:] += 50
    good[..., 0] *= 2e6
    bad[..., 0] *= 2e6
    for scorer in (PatchGaussianScorer(), PatchGaussianScorer("shared")):
        assert (clone(scorer).fit(good).predict(bad) == -1).all()


def test_knn_errors():
    with pytest.raises(ValueError, match="n_neighbors=5 is more than the 3 patches"):
        PatchKNNScorer(n_neighbors=5, coreset=3).fit(_tokens())
    with pytest.raises(ValueError, match="lower n_neighbors"):
        PatchKNNScorer(n_neighbors=25).fit(_tokens(2))


def test_mixed_grids():
    images = [_tokens(1, grid=(3 + i % 3, 4), seed=i)[0] for i in range(9)]
    X = np.empty(9, dtype=object)
    X[:] = images
    scorer = PatchKNNScorer().fit(X)
    assert scorer.train_scores_.shape == (9,)
    np.testing.assert_array_equal(scorer.score_samples(X), scorer.train_scores_)
    patches = scorer.score_patches(X)
    assert patches.dtype == object and [p.shape for p in patches] == [i.shape[:2] for i in images]
    assert scorer.score_patches(X[:1]).shape == (1, 3, 4)


def test_random_reduction_needs_a_seed_only_when_it_reduces():
    good, new = _tokens(20, dim=12), _tokens(3, dim=12, seed=1)
    scores = [PatchGaussianScorer().fit(good).score_samples(new) for _ in range(2)]
    np.testing.assert_array_equal(*scores)
    scores = [
        PatchGaussianScorer(n_components=4, random_state=0).fit(good).score_samples(new)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*scores)
