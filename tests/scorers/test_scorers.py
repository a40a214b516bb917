"""What all scorers share: forms, masks, signs, held-out scores, labels, errors."""

import warnings

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skanomaly import PatchGaussianScorer, PatchKNNScorer

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


@each_scorer
def test_forms_agree(scorer):
    good, new = _tokens(), _tokens(5, seed=1)
    flat = lambda X: X.reshape(len(X), -1, X.shape[-1])  # noqa: E731
    mixed = np.empty(len(new), dtype=object)
    mixed[:] = list(new)
    expected = clone(scorer).fit(good)
    other = clone(scorer).fit(flat(good))
    scores = expected.score_samples(new)
    np.testing.assert_array_equal(other.score_samples(flat(new)), scores)
    np.testing.assert_array_equal(expected.score_samples(flat(new)), scores)
    np.testing.assert_array_equal(expected.score_samples(mixed), scores)
    np.testing.assert_array_equal(expected.score_samples(list(new)), scores)
    np.testing.assert_allclose(expected.score_samples(new.tolist()), scores, rtol=1e-6)
    np.testing.assert_array_equal(expected.score_samples(list(flat(new))), scores)
    np.testing.assert_array_equal(other.train_scores_, expected.train_scores_)
    assert expected.score_patches(new).shape == (5, 4, 5)
    assert expected.score_patches(new).dtype == np.float32
    assert other.score_patches(flat(new)).shape == (5, 20)


@each_scorer
def test_rows_are_images_of_one_patch(scorer):
    rows = _tokens().reshape(12, -1)[:, :7]
    new = _tokens(4, seed=1).reshape(4, -1)[:, :7]
    as_rows = clone(scorer).fit(rows)
    as_grid = clone(scorer).fit(rows[:, None, None])
    np.testing.assert_array_equal(as_rows.score_samples(new), as_grid.score_samples(new))
    np.testing.assert_array_equal(
        as_rows.score_samples(new), as_grid.score_samples(new[:, None, None])
    )
    np.testing.assert_array_equal(as_rows.train_scores_, as_grid.train_scores_)


@each_scorer
def test_batch_and_order_do_not_matter(scorer):
    scorer = clone(scorer).fit(_tokens())
    new = np.concatenate([_tokens(6, seed=1), _tokens()[:3]])  # training images among them
    together = scorer.score_samples(new)
    alone = np.concatenate([scorer.score_samples(image[None]) for image in new])
    np.testing.assert_allclose(alone, together, rtol=1e-6)
    order = np.random.default_rng(0).permutation(len(new))
    np.testing.assert_allclose(scorer.score_samples(new[order]), together[order], rtol=1e-6)


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
def test_masked_patches_change_nothing(scorer):
    good, new = _tokens(), _tokens(3, seed=1)
    plain = clone(scorer).fit(good)

    def with_masked_row(X):
        return np.concatenate([X, np.full_like(X[:, :1], np.nan)], axis=1)

    masked = clone(scorer).fit(with_masked_row(good))
    # An int topk, because a masked patch must not count as one of a share either.
    np.testing.assert_allclose(
        masked.score_samples(with_masked_row(new)), plain.score_samples(new), rtol=1e-6
    )
    np.testing.assert_allclose(masked.train_scores_, plain.train_scores_, rtol=1e-6)
    patches = masked.score_patches(with_masked_row(new))
    np.testing.assert_allclose(patches[:, :-1], plain.score_patches(new), rtol=1e-5, atol=1e-6)
    assert (patches[:, -1] == 0).all()


@each_scorer
def test_training_images_get_held_out_scores(scorer):
    good = _tokens(30)
    scorer = clone(scorer).set_params(contamination=0.2).fit(good)
    assert scorer.train_scores_.shape == (30,)
    assert scorer.train_scores_.dtype == np.float64
    np.testing.assert_array_equal(scorer.score_samples(good), scorer.train_scores_)
    assert (scorer.predict(good) == -1).sum() == 6
    np.testing.assert_array_equal(clone(scorer).fit_predict(good), scorer.predict(good))
    # Float noise, as between two runs of a model, does not hide a training image.
    noise = 1 + 1e-7 * np.random.default_rng(0).normal(size=good.shape)
    np.testing.assert_array_equal(
        scorer.score_samples((good * noise).astype(np.float32)), scorer.train_scores_
    )
    # Its own patches are not in what it is compared with: no score is what they would give.
    assert (scorer.score_patches(good) > 0).all()


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
def test_the_model_does_not_share_memory_with_its_input(scorer):
    good, new = _tokens(), _tokens(3, seed=1)
    fitted = clone(scorer).fit(good)
    expected = fitted.score_samples(new)
    good[:] = 7
    np.testing.assert_array_equal(fitted.score_samples(new), expected)


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


@each_scorer
def test_parameters_changed_since_fit(scorer):
    fitted = clone(scorer).fit(_tokens()).set_params(aggregation="mean")
    with pytest.raises(NotFittedError, match="aggregation of this .* changed since fit"):
        fitted.predict(_tokens(2, seed=1))
    fitted.set_params(aggregation="topk_mean").predict(_tokens(2, seed=1))


@each_scorer
def test_signs(scorer):
    good = _tokens(30)
    scorer = clone(scorer).fit(good)
    X = np.concatenate([_tokens(5, seed=1), 3 - 6 * _tokens(5, seed=2)])
    patches, scores = scorer.score_patches(X, return_scores=True)
    assert (patches >= 0).all()
    np.testing.assert_array_equal(scores, scorer.score_samples(X))
    decision = scorer.decision_function(X)
    np.testing.assert_array_equal(decision, scores - scorer.offset_)
    np.testing.assert_array_equal(scorer.predict(X), np.where(decision < 0, -1, 1))
    assert scores[:5].min() > scores[5:].max()
    assert scorer.offset_ == np.quantile(scorer.train_scores_, 0.1, method="weibull")
    p = scorer.p_values(X)
    expected = [(1 + (scorer.train_scores_ <= s).sum()) / 31 for s in scores]
    np.testing.assert_allclose(p, expected)


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
@each_scorer
def test_image_score_is_the_aggregate(scorer, aggregation, topk, reference):
    scorer = clone(scorer).set_params(aggregation=aggregation, topk=topk).fit(_tokens())
    X = np.concatenate([_tokens(3, seed=1), _tokens()[:2]])
    expected = [-reference(patches.astype(float)) for patches in _flat(scorer.score_patches(X))]
    np.testing.assert_allclose(scorer.score_samples(X), expected, rtol=1e-6)


@each_scorer
def test_anomalous_rows_never_enter(scorer):
    good, bad = _tokens(15), 100 * _tokens(5, seed=3) - 300
    X, y = np.concatenate([good, bad]), np.r_[np.ones(15), -np.ones(5)]
    expected = clone(scorer).fit(good)
    fitted = clone(scorer).fit(X, y)
    new = _tokens(4, seed=1)
    np.testing.assert_array_equal(fitted.score_samples(new), expected.score_samples(new))
    np.testing.assert_array_equal(fitted.train_scores_, expected.train_scores_)
    np.testing.assert_array_equal(clone(scorer).fit_predict(X, y), fitted.predict(X))
    # Anything but +1 and -1 is not a label of ours.
    ignored = clone(scorer).fit(X, np.r_[np.zeros(15), np.ones(5)])
    assert len(ignored.train_scores_) == 20
    column = clone(scorer).fit(X, y[:, None])
    np.testing.assert_array_equal(column.train_scores_, expected.train_scores_)
    # Labels of ours and others: an anomalous image would slip into the model.
    for other in (0, np.nan):
        with pytest.raises(ValueError, match="y holds -1 for anomalous images, but also"):
            clone(scorer).fit(X, np.r_[other, y[1:]])
    with pytest.raises(ValueError, match="no normal image"):
        clone(scorer).fit(bad, -np.ones(5))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clone(scorer).fit(good, np.ones(3))


@each_scorer
def test_views_train_with_their_image(scorer):
    good = _tokens(10)
    views = np.stack([good, good[:, ::-1], good[:, :, ::-1]], axis=1)
    fitted = clone(scorer).fit(views)
    # The mirrored views of an image hold the same patches: not left out, they would score 0.
    assert (fitted.score_patches(good) > 0).all()
    assert fitted.train_scores_.shape == (10,)
    np.testing.assert_array_equal(fitted.score_samples(good), fitted.train_scores_)
    np.testing.assert_array_equal(clone(scorer).fit_predict(views), fitted.predict(good))
    with pytest.raises(ValueError, match="views are only for fit"):
        fitted.predict(views)


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
    folds = np.arange(10) * scorer._n_folds // 10
    if scorer.get_params().get("coreset") is not None:
        scorer = clone(scorer).set_params(coreset=len(fitted.bank_))
    for fold in np.unique(folds):
        without = clone(scorer).fit(good[folds != fold])
        held_out = good[folds == fold]
        np.testing.assert_allclose(
            without.score_samples(held_out), fitted.train_scores_[folds == fold], rtol=1e-6
        )


def test_calibration_of_many_images_is_bounded(monkeypatch):
    from skanomaly.scorers import _patch_knn

    monkeypatch.setattr(_patch_knn, "MAX_CALIBRATION_PATCHES", 100)
    good = _tokens(20)  # 400 patches: every fourth image is calibrated on
    scorer = PatchKNNScorer().fit(good)
    everything = PatchKNNScorer()
    monkeypatch.setattr(_patch_knn, "MAX_CALIBRATION_PATCHES", 10**6)
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


@each_scorer
def test_persistence_and_clone(scorer, tmp_path):
    good, new = _tokens(), _tokens(4, seed=1)
    fitted = clone(scorer).fit(good)
    joblib.dump(fitted, tmp_path / "scorer.joblib")
    loaded = joblib.load(tmp_path / "scorer.joblib")
    for X in (new, good):
        np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    assert clone(fitted).get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        clone(fitted).predict(new)


@each_scorer
def test_errors(scorer):
    good = _tokens()
    fitted = clone(scorer).fit(good)
    with pytest.raises(ValueError, match="X has 3 features, but .* is expecting 6 features"):
        fitted.predict(good[..., :3])
    broken = good.copy()
    broken[3, 1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="patch 7 of image 3"):
        fitted.predict(broken)
    blank = good.copy()
    blank[2] = np.nan
    with pytest.raises(ValueError, match="every patch of image 2 is masked"):
        clone(scorer).fit(blank)
    with pytest.raises(ValueError, match="image 0: topk=21 is more than the 20 patches"):
        clone(scorer).set_params(topk=21).fit(good)
    for paths in (["a.png", "b.png"], np.array(["a.png", "b.png"]), [None, None]):
        with pytest.raises(ValueError, match="put an embedder before it"):
            fitted.predict(paths)
    with pytest.raises(ValueError, match="1 image of one patch"):
        clone(scorer).set_params(
            **({"covariance": "shared"} if hasattr(scorer, "covariance") else {})
        ).fit(good[:1, 0, 0])


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


def test_no_warning_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scorer in SCORERS:
            clone(scorer).fit(_tokens()).predict(_tokens(2, seed=1))
