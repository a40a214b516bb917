"""Coresets that grow, shrink and merge: what their covering radius promises, and what stays."""

import numpy as np
import pytest
from sklearn.base import clone

from skanomaly import PatchKNNScorer
from skanomaly.core.coreset import extend_k_center, greedy_k_center

CORESETS = [
    PatchKNNScorer(coreset=0.2),
    PatchKNNScorer(coreset=200, metric="euclidean"),
    PatchKNNScorer(coreset=0.3, coreset_method="random", random_state=0),
    PatchKNNScorer(coreset=150, coreset_method="random", random_state=0, metric="euclidean"),
    PatchKNNScorer(coreset=250, coreset_method="projected_k_center", random_state=0),
    PatchKNNScorer(coreset=0.2, metric="euclidean", aggregation="max", reweighting=5),
    PatchKNNScorer(coreset=0.2, position_weight=0.2),
]
each_coreset = pytest.mark.parametrize("scorer", CORESETS, ids=repr)


def tokens(n=30, seed=0, grid=(5, 6)):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, *grid, 8)).astype(np.float32) + 2
    X[rng.uniform(size=X.shape[:-1]) < 0.05] = np.nan
    return X


def space_of(scorer, X):
    """Patches as the bank compares them, by another way than the scorer's: float64."""
    x = X.reshape(-1, X.shape[-1]).astype(np.float64)
    if scorer.metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    if scorer.position_weight:
        zero = [np.zeros((len(x), 1))] if scorer.metric == "cosine" else []
        places = np.stack(np.divmod(np.arange(len(x)) % 30, 6), axis=1) * scorer.position_weight
        x = np.concatenate([x, *zero, places], axis=1)
    return x[~np.isnan(x).any(axis=1)]


def radius_of(scorer, X):
    """How far the patches of images are from the bank, by all distances."""
    x, bank = space_of(scorer, X), scorer.bank_.astype(np.float64)
    return max(np.linalg.norm(bank - patch, axis=1).min() for patch in x)


def rows_of(scorer, X):
    """Whether the bank holds patches of these images alone."""
    x = space_of(scorer, X).astype(np.float32)
    bank = scorer.bank_
    return all(np.abs(x - patch).max(axis=1).min() < 1e-5 for patch in bank)


def euclidean(scorer, distances):
    """Distances of a scorer in the Euclidean distance of its bank's space, in which radii are."""
    return np.sqrt(2 * distances) if scorer.metric == "cosine" else distances.astype(np.float64)


@each_coreset
@pytest.mark.parametrize("how", ["grown", "one by one", "merged", "forgotten"])
def test_every_patch_is_within_the_radius(scorer, how):
    """Of all images that the model knows; that of a fit is no larger than a known multiple."""
    X = tokens()
    if how == "grown":
        found = clone(scorer).fit(X[:20]).partial_fit(X[20:])
    elif how == "one by one":
        found = clone(scorer).fit(X[:26])
        for image in X[26:]:
            found.partial_fit(image[None])
    elif how == "merged":
        first, *others = (clone(scorer).fit(X[part::3]) for part in range(3))
        found = first._merged_with(others)
    else:
        found, X = clone(scorer).fit(X).forget(X[:8]), X[8:]
    assert radius_of(found, X) <= found.coverage_radius_ * (1 + 1e-6)
    assert rows_of(found, X)
    expected = clone(scorer).fit(X)
    if how == "forgotten":
        assert len(found.bank_) < len(clone(scorer).fit(tokens()).bank_)
    else:
        # Shares are rounded down model by model.
        assert len(expected.bank_) - 5 <= len(found.bank_) <= len(expected.bank_)
    if how in ("grown", "merged") and "random" not in scorer.coreset_method:
        assert found.coverage_radius_ <= 4 * expected.coverage_radius_


@each_coreset
def test_scores_of_new_images_differ_by_the_radii_at_most(scorer):
    X, new = tokens(), tokens(6, seed=5)
    grown = clone(scorer).fit(X[:20]).partial_fit(X[20:])
    expected = clone(scorer).fit(X)
    ours, theirs = (euclidean(scorer, one.score_patches(new)) for one in (grown, expected))
    assert (ours - theirs <= grown.coverage_radius_ + 1e-5).all()
    assert (theirs - ours <= expected.coverage_radius_ + 1e-5).all()


@each_coreset
@pytest.mark.parametrize("how", ["grown", "merged"])
def test_held_out_scores_are_no_lower_than_those_of_a_fit_by_more_than_its_radius(scorer, how):
    """Old images keep theirs, from fewer images: new ones could only have lowered them."""
    X = tokens()
    expected = clone(scorer).fit(X)
    if how == "grown":
        found = clone(scorer).fit(X[:20]).partial_fit(X[20:])
    else:
        found = clone(scorer).fit(X[:20])._merged_with([clone(scorer).fit(X[20:])])
    for i in range(30):
        ours, theirs = (
            euclidean(scorer, one.held_out_patches_[i][~np.isnan(X[i, ..., 0])])
            for one in (found, expected)
        )
        # A coreset of a part covers it within twice what one of all images does.
        assert (theirs - ours <= 2 * expected.coverage_radius_ + 1e-5).all()
        if how == "grown" and i >= 20 and "random" not in scorer.coreset_method:
            assert (ours - theirs <= 2 * found.coverage_radius_ + 1e-5).all()
    before = clone(scorer).fit(X[:20])
    np.testing.assert_array_equal(found.train_scores_[:20], before.train_scores_)
    np.testing.assert_array_equal(found.score_samples(X), found.train_scores_)
    assert found.calibration_["n_images"] == 30


@pytest.mark.filterwarnings("ignore:training images .* are copies")
@each_coreset
def test_new_images_are_held_out_with_their_groups(scorer):
    """No score is below the distance to all patches of other groups; without groups some are."""
    X = tokens()
    X[20:25] = X[:5] + 1e-4  # of the same parts as the first ones
    labels = [*range(20), *range(5), *range(100, 105)]
    first = clone(scorer).fit(X[:20], groups=labels[:20])
    grown = first.partial_fit(X[20:], groups=labels[20:])
    alone = clone(scorer).fit(X[:20]).partial_fit(X[20:], groups=range(100, 110))
    above = []
    for i in range(20, 25):
        others = space_of(scorer, X[[j for j in range(30) if labels[j] != labels[i]]])
        own = space_of(scorer, X[[i]])
        nearest = np.array([np.linalg.norm(others - patch, axis=1).min() for patch in own])
        shown = ~np.isnan(X[i, ..., 0])
        found, vouched = (
            euclidean(scorer, one.held_out_patches_[i][shown]) for one in (grown, alone)
        )
        assert (found >= nearest - 1e-5).all()
        above += (vouched < nearest - 1e-5).tolist()
    assert any(above)


@each_coreset
def test_what_is_forgotten_has_no_score_and_no_patch(scorer):
    X = tokens()
    fitted = clone(scorer).fit(X)
    kept = np.delete(np.arange(30), [2, 11])
    before = fitted.train_scores_
    fitted.forget(X[[11, 2]])
    np.testing.assert_array_equal(fitted.train_scores_, before[kept])
    np.testing.assert_array_equal(fitted.score_samples(X[kept]), before[kept])
    assert rows_of(fitted, X[kept])


def test_what_a_coreset_cannot():
    X = tokens()
    with pytest.warns(UserWarning, match="calibrated on a single image"):
        one = PatchKNNScorer(coreset=0.5).fit(X[:1])
    with pytest.raises(ValueError, match="was fitted to a single image or group"):
        one.partial_fit(X[1:])
    two = PatchKNNScorer(coreset=0.5).fit(X[:2])
    with pytest.raises(ValueError, match="would be left with a single image or group"):
        two.forget(X[:1])
    assert not hasattr(PatchKNNScorer(coreset=0.5, algorithm="faiss:Flat"), "partial_fit")
    few = PatchKNNScorer(coreset=1).fit(X[:4])
    holder = int(few._model.banks[0].rows[0]) // 30
    with pytest.raises(ValueError, match="all patches of the coreset are of the images"):
        few.forget(X[[holder]])


def test_centres_that_go_on():
    """The order is that of a traversal by plain distances from the centres that are there."""
    rng = np.random.default_rng(0)
    for n, n_kept, n_centers in [(200, 20, 60), (30, 1, 30), (50, 50, 50), (300, 120, 121)]:
        x = rng.normal(size=(n, 5)).astype(np.float32)
        chosen, radius = extend_k_center(x, n_kept, n_centers)
        expected = list(range(n_kept))
        distances = np.linalg.norm(x[:, None].astype(float) - x[None, :n_kept], axis=2).min(axis=1)
        while len(expected) < n_centers and distances.max() > 0:
            expected.append(int(distances.argmax()))
            away = np.linalg.norm(x.astype(float) - x[expected[-1]], axis=1)
            distances = np.minimum(distances, away)
        assert chosen.tolist() == expected
        assert radius == pytest.approx(distances.max(), abs=1e-9)
    same, radius = greedy_k_center(x, 40)
    assert extend_k_center(x[[same[0], *np.delete(np.arange(300), same[0])]], 1, 40)[1] == radius
