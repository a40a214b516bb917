"""Scorers that take in images after `fit`, forget some and are merged, against fits to the same."""

import copy
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skanomaly import PatchKNNScorer, PatchwiseScorer, ScoreUnion, recalibrate

WHOLE = [
    PatchKNNScorer(),
    PatchKNNScorer(metric="euclidean", contamination=0.3),
    PatchKNNScorer(3, aggregation="max"),
    PatchKNNScorer(parts=(3, 5)),
    PatchKNNScorer(position_weight=0.3, algorithm="certified"),
    PatchKNNScorer(metric="euclidean", aggregation="max", reweighting=4),
]
UNION = ScoreUnion(
    [
        ("one", PatchKNNScorer()),
        ("two", ScoreUnion([("far", PatchKNNScorer(3)), ("near", WHOLE[1])], combination="max")),
    ],
    aggregation="members",
)
WHOLE.append(UNION)
each_whole = pytest.mark.parametrize("scorer", WHOLE, ids=repr)


def tokens(n=20, seed=0, grid=(4, 5), views=()):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, *views, *grid, 8)).astype(np.float32) + 2
    X[rng.uniform(size=X.shape[:-1]) < 0.05] = np.nan  # masked patches
    return X


def assert_same(found, expected, new=None, atol=1e-6):
    """Whether a grown scorer is what a fit makes, in all that can be seen of it."""
    np.testing.assert_allclose(found.train_scores_, expected.train_scores_, rtol=1e-6, atol=atol)
    assert found.offset_ == pytest.approx(expected.offset_, rel=1e-6, abs=atol)
    np.testing.assert_allclose(found.patch_limits_, expected.patch_limits_, rtol=1e-6, atol=atol)
    for one, other in zip(found.held_out_patches_, expected.held_out_patches_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=atol)
    assert found.calibration_ == expected.calibration_
    assert found._train_numbers.tolist() == expected._train_numbers.tolist()
    assert found._calibration_numbers.tolist() == expected._calibration_numbers.tolist()
    X = tokens(5, seed=99) if new is None else new
    for method in ("score_samples", "score_patches", "p_values"):
        for one, other in zip(getattr(found, method)(X), getattr(expected, method)(X), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=atol)


def assert_knows(found, expected, X):
    """Whether both recognise the same images, whatever the order of their patches."""
    for form in (X, X[:, ::-1]):
        np.testing.assert_allclose(
            found.score_patches(form), expected.score_patches(form), rtol=1e-5, atol=1e-6
        )


@each_whole
def test_partial_fit_is_fit_at_first(scorer):
    X = tokens()
    assert_same(clone(scorer).partial_fit(X), clone(scorer).fit(X))


@each_whole
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_batches_give_the_model_of_a_fit(scorer, data):
    X = tokens(seed=data.draw(st.integers(0, 3)))
    cuts = data.draw(st.lists(st.integers(1, 19), min_size=1, max_size=3, unique=True))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "calibrated on a single", UserWarning)
        grown = clone(scorer)
        for batch in np.split(X, sorted(cuts)):
            assert grown.partial_fit(batch) is grown
    expected = clone(scorer).fit(X)
    assert_same(grown, expected)
    assert_knows(grown, expected, X)


@each_whole
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_is_forgotten_was_never_there(scorer, data):
    X = tokens(seed=data.draw(st.integers(0, 3)))
    gone = data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=18, unique=True))
    expected = clone(scorer).fit(np.delete(X, gone, axis=0))
    fitted = clone(scorer).fit(X)
    # Recognised as they are, and where places do not matter in any order of their patches.
    shown = X[gone] if getattr(scorer, "position_weight", 0) else X[gone][:, ::-1]
    assert fitted.forget(shown) is fitted
    assert_same(fitted, expected)
    assert_knows(fitted, expected, X)


@each_whole
def test_forgotten_one_by_one_and_taken_in_again(scorer):
    X = tokens()
    changed = clone(scorer).fit(X)
    for i in (3, 0, 19):
        changed.forget(X[[i]])
    changed.partial_fit(X[[3, 0, 19]])
    order = [*(i for i in range(20) if i not in (3, 0, 19)), 3, 0, 19]
    assert_same(changed, clone(scorer).fit(X[order]))


@each_whole
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(2, 18), min_size=1, max_size=3, unique=True))
def test_merged_models_are_one_of_all_images(scorer, cuts):
    X = tokens()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "calibrated on a single", UserWarning)
        first, *others = (clone(scorer).fit(batch) for batch in np.split(X, sorted(cuts)))
    before = first.train_scores_
    merged, expected = first._merged_with(others), clone(scorer).fit(X)
    assert_same(merged, expected)
    assert_knows(merged, expected, X)
    assert first.train_scores_ is before and len(first._train_numbers) == sorted(cuts)[0]


@each_whole
@pytest.mark.parametrize("labelled", [(True, True), (False, True), (True, False)])
def test_groups_go_on(scorer, labelled):
    """Images of a known label join its group; images without one are groups of their own."""
    X = tokens()
    labels = np.array(["a", "b", "c", "d", "e"] * 4)
    first, second = labels[:12].tolist(), labels[12:].tolist()
    groups = [
        *(first if labelled[0] else range(12)),
        *(second if labelled[1] else range(100, 108)),
    ]
    expected = clone(scorer).fit(X, groups=groups)
    grown = clone(scorer).fit(X[:12], groups=first if labelled[0] else None)
    grown.partial_fit(X[12:], groups=second if labelled[1] else None)
    assert_same(grown, expected)
    grown.forget(X[[0, 13]])
    left = np.delete(np.arange(20), [0, 13])
    assert_same(grown, clone(scorer).fit(X[left], groups=[groups[i] for i in left]))


@each_whole
def test_defects_are_left_out(scorer):
    X, y = tokens(), np.where(np.arange(20) % 4 == 3, -1, 1)
    expected = clone(scorer).fit(X, y)
    grown = clone(scorer).fit(X[:8], y[:8]).partial_fit(X[8:], y[8:])
    assert_same(grown, expected)
    with pytest.raises(ValueError, match=r"images? 0 of X: the model was not fitted to"):
        grown.forget(X[[3]])
    left = np.delete(np.arange(20), 12)
    assert_same(grown.forget(X[[12]]), clone(scorer).fit(X[left], y[left]))
    with pytest.raises(ValueError, match="y holds no normal image"):
        grown.partial_fit(tokens(2, seed=5), [-1, -1])


@pytest.mark.parametrize("scorer", WHOLE[:4], ids=repr)
def test_views_and_several_grids(scorer):
    X = tokens(views=(3,))
    grown = clone(scorer).fit(X[:12]).partial_fit(X[12:])
    assert_same(grown, clone(scorer).fit(X))
    assert_same(grown.forget(X[:4, 0]), clone(scorer).fit(X[4:]))
    with pytest.raises(ValueError, match="X has 1 view.s. of each image, and .* model have 3"):
        grown.partial_fit(tokens(2, seed=4))
    mixed = np.empty(20, dtype=object)
    for i in range(20):
        mixed[i] = tokens(1, seed=i, grid=(3 + i % 2, 4))[0]
    assert_same(
        clone(scorer).fit(mixed[:9]).partial_fit(mixed[9:]), clone(scorer).fit(mixed), new=mixed
    )


def test_more_images_than_are_calibrated_on(monkeypatch):
    """Images at other steps than before are calibrated on, once they are more."""
    monkeypatch.setattr("skanomaly.scorers._training_images.MAX_CALIBRATION_PATCHES", 150)
    X = tokens(40)
    for n in (5, 12, 18, 30):
        grown, expected = PatchKNNScorer().fit(X[:n]).partial_fit(X[n:]), PatchKNNScorer().fit(X)
        assert len(expected.train_scores_) == 7
        assert_same(grown, expected)
        assert_same(grown.forget(X[n:]), PatchKNNScorer().fit(X[:n]))


def test_one_image_at_first():
    X = tokens(3)
    with pytest.warns(UserWarning, match="calibrated on a single image"):
        grown = PatchKNNScorer().fit(X[:1])
    assert_same(grown.partial_fit(X[1:]), PatchKNNScorer().fit(X))
    with pytest.warns(UserWarning, match="calibrated on a single image"):
        grown.forget(X[:2])
    with pytest.warns(UserWarning, match="calibrated on a single image"):
        assert_same(grown, PatchKNNScorer().fit(X[2:]))
    with pytest.raises(ValueError, match="at least 1 normal image, and 0 of 1 would be left"):
        grown.forget(X[2:])


def test_images_of_the_one_group_that_there_is():
    X = tokens(6)
    with pytest.warns(UserWarning, match="calibrated on a single group"):
        grown = PatchKNNScorer().fit(X[:4], groups=list("aaaa"))
    with pytest.warns(UserWarning, match="calibrated on a single group"):
        grown.partial_fit(X[4:5], groups=["a"])
    with pytest.warns(UserWarning, match="calibrated on a single group"):
        assert_same(grown, PatchKNNScorer().fit(X[:5], groups=list("aaaaa")))
    grown.partial_fit(X[5:], groups=["b"])
    assert_same(grown, PatchKNNScorer().fit(X, groups=list("aaaaab")))


def test_copies_are_told_as_in_fit():
    X = tokens(16, grid=(8, 8))
    scorer = PatchKNNScorer().fit(X[:10])
    copies = np.concatenate([X[10:], X[[2]], X[[12]]])
    with pytest.warns(UserWarning, match="training images 2 and 16, 12 and 17 are copies") as told:
        scorer.partial_fit(copies)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.partial_fit(tokens(2, seed=7, grid=(8, 8)))  # those before were told of
        assert scorer.forget(X[[2]])._layout.n_images == 18  # and the copy went with it
    # Of one label they are held out together, and nothing is told.
    PatchKNNScorer().fit(X, groups=range(16)).partial_fit(X[[3]], groups=[3])


def test_a_failed_change_leaves_all_as_it_was():
    X = tokens()
    scorer = PatchKNNScorer().fit(X)
    before = copy.copy(vars(scorer))
    for bad in (X[..., :5], np.full_like(X[:1], np.inf)):
        with pytest.raises(ValueError):
            scorer.partial_fit(bad)
    with pytest.raises(ValueError, match="images 1, 2 of X"):
        scorer.forget(np.concatenate([X[:1], tokens(2, seed=1)]))
    assert all(vars(scorer)[name] is value for name, value in before.items())


def test_what_does_not_go_together():
    X = tokens()
    fitted = PatchKNNScorer().fit(X)
    with pytest.raises(NotFittedError):
        PatchKNNScorer().forget(X)
    with pytest.raises(NotFittedError, match="n_neighbors of this PatchKNNScorer changed"):
        clone(fitted).fit(X).set_params(n_neighbors=2).partial_fit(X)
    for moved, why in [
        (recalibrate(fitted, threshold=-0.1), "given or tuned as a number"),
        (recalibrate(fitted, images=tokens(12, seed=3)), "set by other images"),
    ]:
        with pytest.raises(ValueError, match=why):
            moved.partial_fit(tokens(2, seed=4))
        with pytest.raises(ValueError, match=why):
            moved.forget(X[:2])
    strict = recalibrate(fitted, contamination=0.2).partial_fit(tokens(2, seed=4))
    both = np.concatenate([X, tokens(2, seed=4)])
    assert_same(strict, PatchKNNScorer(contamination=0.2).fit(both))
    for other, why in [
        (
            PatchKNNScorer(2).fit(X),
            "model 1 cannot be merged with model 0: n_neighbors is 2, not 1",
        ),
        (PatchKNNScorer().fit(X[..., :5]), "its tokens have 5 components, not 8"),
        (PatchKNNScorer().fit(tokens(views=(2,))), "it has 2 views of each image, not 1"),
    ]:
        with pytest.raises(ValueError, match=why):
            fitted._merged_with([other])


def test_unions_of_which_a_member_does_not_change():
    X = tokens()
    union = ScoreUnion([("knn", PatchKNNScorer()), ("other", PatchwiseScorer("isolation_forest"))])
    assert not hasattr(union, "partial_fit") and not hasattr(union, "forget")
    union = ScoreUnion([("knn", PatchKNNScorer()), ("far", PatchKNNScorer(3))]).fit(X)
    with pytest.raises(ValueError, match="images 0 of X|image 0 of X"):
        union.forget(tokens(1, seed=9))
    with pytest.raises(NotFittedError):
        ScoreUnion([("knn", PatchKNNScorer())]).forget(X)


def test_labels_that_cannot_be_told_again():
    class Part:
        pass

    X = tokens()
    scorer = PatchKNNScorer().fit(X, groups=[Part() for _ in X])
    with pytest.raises(TypeError, match="labels that are text or numbers"):
        scorer.partial_fit(tokens(1, seed=2), groups=[Part()])
    scorer.partial_fit(tokens(1, seed=2))  # a group of its own
    assert scorer.calibration_["n_groups"] == 21
