"""Local banks that grow, shrink and merge, against fits to the same images."""

import numpy as np
import pytest
from sklearn.base import clone

from skanomaly import LocalKNNScorer

SCORERS = [
    LocalKNNScorer(),
    LocalKNNScorer(1, whitening="shared"),
    LocalKNNScorer(0, whitening=None, aggregation="max"),
    LocalKNNScorer(unit_length=True),
    LocalKNNScorer(few=0),
]
each_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=repr)


def tokens(n=30, seed=0, grid=(4, 5), views=()):
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(5).normal(size=(*grid, 6)) * 3 + 10
    X = (places + rng.normal(size=(n, *views, *grid, 6))).astype(np.float32)
    X[rng.uniform(size=X.shape[:-1]) < 0.03] = np.nan
    return X


def assert_same(found, expected, new):
    """Tokens come back from standardised float32: a unit in its last place, amplified."""
    for one, other in [
        (found.train_scores_, expected.train_scores_),
        (found.offset_, expected.offset_),
        (found.patch_limits_, expected.patch_limits_),
        (found.score_samples(new), expected.score_samples(new)),
        (found.p_values(new), expected.p_values(new)),
    ]:
        np.testing.assert_allclose(one, other, rtol=3e-6)
    np.testing.assert_allclose(
        found.score_patches(new), expected.score_patches(new), rtol=2e-5, atol=1e-5
    )
    assert found._train_numbers.tolist() == expected._train_numbers.tolist()


@each_scorer
@pytest.mark.parametrize("n", [5, 10, 24])
def test_grown_merged_and_shrunk_models_are_those_of_fits(scorer, n):
    """Also where a model of few images, which compares directions alone, becomes one of many."""
    X, new = tokens(), tokens(6, seed=9)
    expected = clone(scorer).fit(X)
    grown = clone(scorer).fit(X[:n]).partial_fit(X[n:])
    assert_same(grown, expected, new)
    assert_same(clone(scorer).fit(X[:n])._merged_with([clone(scorer).fit(X[n:])]), expected, new)
    np.testing.assert_allclose(grown.score_samples(X), expected.score_samples(X), rtol=3e-6)
    assert_same(grown.forget(X[n:]), clone(scorer).fit(X[:n]), new)


def test_groups_and_views():
    X, new = tokens(24, views=(2,)), tokens(6, seed=9)
    groups = np.repeat(np.arange(12), 2)
    expected = LocalKNNScorer().fit(X, groups=groups)
    grown = LocalKNNScorer().fit(X[:15], groups=groups[:15]).partial_fit(X[15:], groups=groups[15:])
    assert_same(grown, expected, new)
    assert_same(grown.forget(X[:4, 0]), LocalKNNScorer().fit(X[4:], groups=groups[4:]), new)


def test_what_a_local_bank_cannot():
    X = tokens(14)
    for scorer in (LocalKNNScorer(coreset=0.5), LocalKNNScorer(n_components=3)):
        assert not hasattr(scorer.fit(X), "partial_fit") and not hasattr(scorer, "forget")
        with pytest.raises(AttributeError, match="has not the tokens of its training images"):
            scorer._check_can_change()
    fitted = LocalKNNScorer().fit(X)
    other = tokens(3, grid=(5, 5))
    with pytest.raises(ValueError, match=r"images of the grids \[\(4, 5\), \(5, 5\)\]"):
        fitted.partial_fit(other)
    with pytest.raises(ValueError, match="cannot be merged with model 0: places of more images"):
        fitted._merged_with([LocalKNNScorer().fit(tokens(12, grid=(5, 5)))])
    mixed = np.empty(16, dtype=object)
    for i in range(16):
        mixed[i] = tokens(1, seed=i, grid=(4, 5 - i % 2))[0]
    with pytest.raises(ValueError, match="images of the grids"):
        LocalKNNScorer().fit(mixed).forget(mixed[:1])
