"""The local scorer: its places, grids, calibration and explanations."""

from contextlib import nullcontext

import numpy as np
import pytest

from skanomaly import LocalKNNScorer, PatchKNNScorer
from skanomaly.scorers import _training_images

DIM = 5


def images(n, grid=(4, 5), seed=0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(DIM, DIM))
    places = np.random.default_rng(8).normal(size=(*grid, DIM))
    return (rng.normal(size=(n, *grid, DIM)) @ mixing + 2 * places).astype(np.float32)


def objects(*arrays):
    out = np.empty(len(arrays), dtype=object)
    out[:] = arrays
    return out


def test_a_patch_out_of_its_place_is_found():
    train, new = images(30), images(1, seed=1)
    train[:, 3, 4] += 12
    new[0, 0, 0] = train[3, 3, 4]  # normal, at the other end of the image
    scores = LocalKNNScorer(radius=1).fit(train).score_patches(new)[0]
    assert scores.argmax() == 0
    everywhere = LocalKNNScorer(radius=9).fit(train).score_patches(new)[0]
    assert everywhere[0, 0] < 1e-4


def same_ridge(n, n_fitted, **params):
    """A scorer that adds to the diagonal what one of `n` images does, when fitted to fewer."""
    return LocalKNNScorer(1, prior=30.0 * n_fitted / n, **params)


@pytest.mark.parametrize("n", [2, 9, 11, 40])
@pytest.mark.parametrize("whitening", ["local", "shared", None])
def test_held_out_scores_are_those_of_a_refit(whitening, n):
    train = images(n, seed=2)
    scorer = LocalKNNScorer(1, whitening=whitening, few=0).fit(train)
    for i in range(0, n, 7):
        # Of a refit without the image, or of one image alone, whose threshold says nothing.
        others = np.delete(train, i, axis=0)
        refit = same_ridge(n, n - 1, whitening=whitening, few=0)
        with pytest.warns(UserWarning, match="single image") if n == 2 else nullcontext():
            refit.fit(others)
        expected = refit.score_samples(train[i : i + 1])[0]
        np.testing.assert_allclose(
            scorer.train_scores_[i], expected, rtol=1e-6 if n <= 10 else 0.01
        )


def test_views_are_left_out_with_their_image():
    train = images(14, seed=3)
    views = np.stack([train, train[:, ::-1], train + 0.01], axis=1)
    scorer = LocalKNNScorer(1).fit(views)
    refit = same_ridge(14, 13).fit(np.delete(views, 4, axis=0))
    np.testing.assert_allclose(
        scorer.train_scores_[4], refit.score_samples(train[4:5])[0], rtol=0.02
    )


@pytest.mark.parametrize("whitening", ["local", "shared", None])
def test_what_weighs_much_is_left_out_by_a_refit(whitening):
    """Half of the images in one group, and a component that varies in a single image."""
    train = images(40, seed=8)
    groups = np.r_[np.zeros(20, int), np.arange(1, 21)]
    train[groups == 0] = 3 * train[groups == 0] + 2
    train[30, 2, 2, 1] += 1e4
    scorer = LocalKNNScorer(1, whitening=whitening, topk=1.0).fit(train, groups=groups)
    for group in (0, 11):
        rest = groups != group
        refit = same_ridge(40, rest.sum(), whitening=whitening, topk=1.0)
        refit.fit(train[rest], groups=groups[rest])
        expected = refit.score_samples(train[~rest])
        np.testing.assert_allclose(scorer.train_scores_[~rest], expected, rtol=1e-6)


@pytest.mark.parametrize("n", [3, 8, 12, 20])
def test_new_images_score_as_held_out_ones_do(n):
    """Also of few images, whose covariances have a diagonal that depends on how many they are."""
    held_out, new = [], []
    for seed in range(12):
        train = images(n + 20, seed=seed)
        scorer = LocalKNNScorer(1).fit(train[:n])
        held_out.append(np.median(scorer.train_scores_))
        new.append(np.median(scorer.score_samples(train[n:])))
    # One image less to be near to makes held-out scores a little higher, in size.
    assert 0.8 < np.mean(new) / np.mean(held_out) < 1.06


def test_nearly_singular_covariances():
    train = np.random.default_rng(0).normal(size=(14, 3, 3, 40)).astype(np.float32)
    scorer = LocalKNNScorer(1, shrinkage=0, prior=0, regularization=1e-9)
    with pytest.raises(ValueError, match="raise regularization"):
        scorer.fit(train)


def test_components_that_cannot_be():
    few = LocalKNNScorer(whitening="shared", n_components=DIM + 1)
    with pytest.raises(ValueError, match="more than the 5 components"):
        few.fit(images(20))
    with pytest.raises(ValueError, match="do not vary within their places"):
        LocalKNNScorer(whitening="shared", n_components=2).fit(images(1).repeat(20, axis=0))


def test_components_of_rounding_errors_are_refused():
    # One direction alone, of many lengths: what its float32 numbers vary by is rounding.
    lengths = np.random.default_rng(0).lognormal(size=(20, 3, 3, 1))
    for direction in ([3, 4, 0, 0], [-3, -4, 0, 0]):
        train = (lengths * direction).astype(np.float32)
        with pytest.raises(ValueError, match="do not vary within their places"):
            LocalKNNScorer(whitening="shared", n_components=2, unit_length=True).fit(train)


def test_images_that_vary_only_with_one_that_is_held_out():
    train = images(1).repeat(20, axis=0)
    train[3] += 1
    with pytest.raises(ValueError, match="not without those that are held out"):
        LocalKNNScorer(whitening="shared", n_components=2).fit(train)


def test_what_lies_along_no_component_does_not_count():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(30, 3, 3, 1)) * np.r_[1.0, 2.0, 0, 0, 0]
    train = train + 1e-3 * rng.normal(size=train.shape)
    scorer = LocalKNNScorer(whitening="shared", n_components=1, prior=0).fit(train)
    across, along = np.r_[40.0, -20.0, 0, 0, 0], np.r_[20.0, 40.0, 0, 0, 0]
    assert scorer.score_patches(train[:1] + across).max() < 0.05
    assert scorer.score_patches(train[:1] + along).min() > 10


def test_more_images_than_are_calibrated_on(monkeypatch):
    monkeypatch.setattr(_training_images, "MAX_CALIBRATION_PATCHES", 300)
    train = images(40, seed=4)
    scorer = LocalKNNScorer(1).fit(train)
    assert len(scorer.train_scores_) < 40
    monkeypatch.undo()
    whole = LocalKNNScorer(1).fit(train)
    # The others are held out when they come again, as those are that are calibrated on.
    np.testing.assert_array_equal(scorer.score_samples(train), whole.score_samples(train))
    np.testing.assert_array_equal(whole.score_samples(train), whole.train_scores_)


def test_other_sizes_are_compared_by_their_places():
    train, scorer = images(20), LocalKNNScorer(1)
    scorer.fit(train)
    new = images(1, seed=1)
    twice = new.repeat(2, axis=1).repeat(2, axis=2)
    expected = scorer.score_patches(new).repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(scorer.score_patches(twice), expected)
    mixed = scorer.score_patches(objects(new[0], twice[0]))
    np.testing.assert_array_equal(mixed[1], expected[0])
    with pytest.raises(ValueError, match=r"image 0 has the grid \(19,\), .* \(4, 5\)"):
        scorer.score_patches(new.reshape(1, 20, DIM)[:, :19])


def test_training_images_of_several_grids():
    train = objects(*images(9), *images(9, grid=(3, 7), seed=1))
    scorer = LocalKNNScorer(1).fit(train)
    assert scorer._model.grid == (4, 7) and scorer._model.bank.tokens.shape == (28, 18, DIM)
    scores = scorer.score_samples(train)
    np.testing.assert_array_equal(scores, scorer.train_scores_)
    assert [p.shape for p in scorer.held_out_patches_] == [(4, 5)] * 9 + [(3, 7)] * 9


def test_where_there_are_no_places():
    flat = images(5).reshape(5, 20, DIM)
    with pytest.raises(ValueError, match="radius=2 needs the grid .* radius=0"):
        LocalKNNScorer().fit(flat)


def test_without_a_grid_and_a_radius_places_are_numbers():
    train, new = images(12), images(3, seed=1)
    by_grid = LocalKNNScorer(0).fit(train).score_patches(new)
    flat = LocalKNNScorer(0).fit(train.reshape(12, 20, DIM)).score_patches(new.reshape(3, 20, DIM))
    np.testing.assert_array_equal(flat, by_grid.reshape(3, 20))


def test_a_coreset_of_each_place():
    train, new = images(30, seed=5), images(4, seed=6)
    whole = LocalKNNScorer(1).fit(train)
    kept = LocalKNNScorer(1, coreset=0.2).fit(train)
    assert kept._model.bank.tokens.shape[1] == 6
    np.testing.assert_array_equal(kept._model.bank.factors, whole._model.bank.factors)
    assert (kept.score_patches(new) >= whole.score_patches(new)).all()
    np.testing.assert_array_equal(
        LocalKNNScorer(1, coreset=30).fit(train).score_patches(new), whole.score_patches(new)
    )


def test_masked_patches_count_nowhere():
    train, new = images(20, seed=7), images(2, seed=8)
    train[:, 0] = new[:, 0] = np.nan
    scorer = LocalKNNScorer(1).fit(train)
    cut = LocalKNNScorer(1).fit(train[:, 1:])
    np.testing.assert_allclose(
        scorer.score_patches(new)[:, 1:], cut.score_patches(new[:, 1:]), rtol=1e-6
    )
    # Where no training image has a patch, a new one is compared with the nearest that there are.
    seen = scorer.score_patches(images(1, seed=9))
    assert (seen > 0).all() and np.isfinite(seen).all()


@pytest.mark.parametrize("coreset", [None, 0.5])
def test_an_explanation_names_the_nearest_patches(coreset):
    train, new = images(20, seed=10), images(1, seed=11)
    new[0, 2, 3] = train[7, 1, 4] + 0.01
    scorer = LocalKNNScorer(1, coreset=coreset).fit(train)
    found = scorer.explain_patch(new, 2, 3, n_neighbors=4)
    assert found.kind == "neighbors" and len(found.neighbors) == 4 and not found.note
    first = found.neighbors[0]
    if coreset is None:
        assert (first.image_number, first.row, first.column, first.grid) == (7, 1, 4, (4, 5))
    distances = [near.distance for near in found.neighbors]
    assert distances == sorted(distances)
    np.testing.assert_allclose(distances[0], scorer.score_patches(new)[0, 2, 3], rtol=1e-6)


def test_an_explanation_of_a_training_image_leaves_it_out():
    train = images(20, seed=12)
    scorer = LocalKNNScorer(1).fit(train, groups=np.arange(20) // 2)
    found = scorer.explain_patch(train[4:5], 1, 1, n_neighbors=200)
    assert not {4, 5} & {near.image_number for near in found.neighbors}
    assert "left out" in found.note
    np.testing.assert_allclose(
        found.neighbors[0].distance, scorer.score_patches(train[4:5])[0, 1, 1], rtol=0.05
    )


@pytest.mark.parametrize("n", [1, 2, 10])
def test_few_images_are_compared_anywhere(n):
    train, new = images(n), images(3, seed=1)
    scorer, anywhere = LocalKNNScorer(topk=2), PatchKNNScorer(topk=2)
    for one in (scorer, anywhere):
        with pytest.warns(UserWarning, match="single image") if n == 1 else nullcontext():
            one.fit(train)
    for name in ("train_scores_", "offset_", "patch_limits_"):
        np.testing.assert_array_equal(getattr(scorer, name), getattr(anywhere, name))
    np.testing.assert_array_equal(scorer.score_patches(new), anywhere.score_patches(new))
    np.testing.assert_array_equal(scorer.score_samples(train), anywhere.score_samples(train))


def test_a_number_of_patches_a_place_is_kept_of_few_images_too():
    scorer = LocalKNNScorer(coreset=2).fit(images(6))
    (bank,) = scorer._model.banks.banks
    assert len(bank.index) == 2 * 4 * 5
