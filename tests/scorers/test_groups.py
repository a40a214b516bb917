"""Groups are held out whole, and copies that are in none are named."""

import warnings

import numpy as np
import pytest
import sklearn
from _prompts import AxisPrompts
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    RetrievalKNNScorer,
    ScoreUnion,
)
from skanomaly.base import BasePatchScorer, CrossFittedScorer
from skanomaly.core.aggregation import aggregate_patch_scores
from skanomaly.core.copies import copies_by_features
from skanomaly.scorers import _groups, _training_images

KNN = PatchKNNScorer()
SCORERS = [
    KNN,
    PatchKNNScorer(metric="euclidean", n_neighbors=2),
    PatchKNNScorer(metric="euclidean", coreset=0.3),
    PatchKNNScorer(parts=2, position_weight=0.5),
    PatchKNNScorer(metric="euclidean", aggregation="max", reweighting=9),
    RetrievalKNNScorer(3, radius=1),
    PatchGaussianScorer(),
    PatchGaussianScorer("shared"),
    ScoreUnion([("knn", KNN), ("gaussian", PatchGaussianScorer("shared"))]),
]
each_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=repr)
# Not in runs: images of a group need not stand together.
GROUPS = np.array(list("abcdaebfcgdhaibc"))


def tokens(n=16, seed=0, grid=(4, 5), dim=6):
    return (np.random.default_rng(seed).normal(size=(n, *grid, dim)) + 1).astype(np.float32)


def bursts(n_parts, n_photographs, seed=0):
    """Photographs of parts, with the part that each shows."""
    parts = np.repeat(tokens(n_parts, seed), n_photographs, axis=0)
    noise = np.random.default_rng(seed + 1).normal(size=parts.shape)
    return (parts + 0.01 * noise).astype(np.float32), np.repeat(np.arange(n_parts), n_photographs)


def oracle_knn(X, groups, metric="cosine", n_neighbors=1, topk=0.01):
    """Scores of each image by all images outside of its group, in plain loops."""
    X = X.astype(np.float64)
    if metric == "cosine":
        X = X / np.linalg.norm(X, axis=-1, keepdims=True)
    scores = []
    for image, group in zip(X, groups, strict=True):
        bank = [
            patch
            for other, its in zip(X, groups, strict=True)
            if its != group
            for patch in other.reshape(-1, X.shape[-1])
        ]
        patches = []
        for patch in image.reshape(-1, X.shape[-1]):
            far = [np.sum((patch - other) ** 2) for other in bank]
            far = np.sort(np.array(far) / 2 if metric == "cosine" else np.sqrt(far))
            patches.append(far[:n_neighbors].mean())
        scores.append(-aggregate_patch_scores(np.array(patches), "topk_mean", topk))
    return np.array(scores)


@pytest.mark.parametrize("algorithm", ["brute", "certified"])
@pytest.mark.parametrize("metric, n_neighbors", [("cosine", 1), ("euclidean", 3)])
def test_knn_leaves_out_the_whole_group(metric, n_neighbors, algorithm):
    X = tokens()
    X[12] = X[0]  # both of group a
    scorer = PatchKNNScorer(n_neighbors, metric=metric, algorithm=algorithm)
    scorer.fit(X, groups=GROUPS)
    expected = oracle_knn(X, GROUPS, metric, n_neighbors)
    np.testing.assert_allclose(scorer.train_scores_, expected, rtol=1e-5)
    np.testing.assert_allclose(scorer.score_samples(X), expected, rtol=1e-5)


class DistanceToMean(CrossFittedScorer):
    """Knows nothing of groups, and counts the models that it fits."""

    _n_folds = 4

    def __init__(self, *, topk=0.01, aggregation="mean", contamination=0.1):
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_model(self, tokens):
        return tokens.valid_values().astype(np.float64).mean(axis=0)

    def _score_model(self, model, tokens, known):
        return np.linalg.norm(tokens.values - model, axis=1)


def test_folds_of_a_scorer_of_others_hold_whole_groups():
    X = tokens()
    order = {label: number for number, label in enumerate(dict.fromkeys(GROUPS))}
    # 9 groups in 4 folds, by the order in which they come first.
    fold = np.array([order[label] * 4 // 9 for label in GROUPS])
    expected = []
    for image, own in zip(X.astype(float), fold, strict=True):
        mean = X[fold != own].astype(float).reshape(-1, X.shape[-1]).mean(axis=0)
        expected.append(-np.linalg.norm(image - mean, axis=-1).mean())
    scorer = DistanceToMean().fit(X, groups=GROUPS)
    np.testing.assert_allclose(scorer.train_scores_, expected, rtol=1e-6)
    assert not np.allclose(DistanceToMean().fit(X).train_scores_, expected, rtol=1e-4)


def test_gaussians_leave_out_the_whole_group():
    """With as many folds as groups, each group is scored by Gaussians of all others."""
    X, groups = tokens(24, grid=(2, 3)), np.tile(np.arange(8), 3)
    scorer = PatchGaussianScorer("shared", aggregation="mean", regularization=0.1)
    scorer.fit(X, groups=groups)
    expected = np.empty(24)
    for group in range(8):
        rest = X[groups != group].reshape(-1, 6).astype(np.float64)
        covariance = np.cov(rest, rowvar=False, bias=True)
        covariance += 0.1 * np.diag(np.diag(covariance))
        precision = np.linalg.inv(covariance)
        for i in np.flatnonzero(groups == group):
            far = [np.sqrt(d @ precision @ d) for d in X[i].reshape(-1, 6) - rest.mean(axis=0)]
            expected[i] = -np.mean(far)
    np.testing.assert_allclose(scorer.train_scores_, expected, rtol=1e-5)


@each_scorer
def test_labels_of_any_kind(scorer):
    X = tokens()
    expected = clone(scorer).fit(X, groups=GROUPS).train_scores_
    for labels in (
        GROUPS.tolist(),
        [("line", label) for label in GROUPS],
        np.unique(GROUPS, return_inverse=True)[1] - 5.0,
        np.array(GROUPS, dtype=object),
    ):
        np.testing.assert_array_equal(clone(scorer).fit(X, groups=labels).train_scores_, expected)


@each_scorer
def test_a_group_for_each_image_is_none(scorer):
    X = tokens()
    fitted = clone(scorer).fit(X, groups=range(len(X)))
    plain = clone(scorer).fit(X)
    np.testing.assert_array_equal(fitted.train_scores_, plain.train_scores_)
    assert fitted.offset_ == plain.offset_
    np.testing.assert_array_equal(fitted.p_values(tokens(5, 1)), plain.p_values(tokens(5, 1)))


@each_scorer
def test_a_training_image_keeps_its_score(scorer):
    X, groups = bursts(10, 3)
    X = np.concatenate([X, X[:3]])  # copies in one group
    groups = np.concatenate([groups, groups[:3]])
    fitted = clone(scorer).fit(X, groups=groups)
    np.testing.assert_allclose(fitted.score_samples(X), fitted.train_scores_, rtol=1e-6)
    predicted = clone(scorer).fit_predict(X, groups=groups)
    np.testing.assert_array_equal(predicted, fitted.predict(X))


@each_scorer
def test_anomalous_images_go_with_their_groups(scorer):
    X = np.concatenate([tokens(2, seed=5) * 50, tokens()])
    y = np.r_[-1, -1, np.ones(16)]
    # In the group of good images, and in one of their own.
    groups = ["a", "defects", *GROUPS]
    fitted = clone(scorer).fit(X, y, groups=groups)
    expected = clone(scorer).fit(tokens(), groups=GROUPS)
    np.testing.assert_allclose(fitted.train_scores_, expected.train_scores_, rtol=1e-6)
    np.testing.assert_allclose(fitted.p_values(X), expected.p_values(X))


def test_masks_views_and_different_grids():
    X = tokens(12)
    groups = np.arange(12) // 2
    masked = X.copy()
    masked[:, 0, :2] = np.nan
    views = np.stack([X, X[:, ::-1]], axis=1)
    mixed = np.empty(12, dtype=object)
    mixed[:] = [image[: 3 + i % 2] for i, image in enumerate(X)]
    for form in (masked, views, mixed):
        fitted = PatchKNNScorer(metric="euclidean").fit(form, groups=groups)
        for i in range(12):
            rest = form[groups != groups[i]]
            image = form[i : i + 1, 0] if form.ndim == 5 else form[i : i + 1]
            alone = PatchKNNScorer(metric="euclidean").fit(rest).score_samples(image)
            np.testing.assert_allclose(fitted.train_scores_[i], alone[0], rtol=1e-5)


@each_scorer
@pytest.mark.parametrize("views", [False, True])
def test_one_group_is_calibrated_on_parts_of_itself(scorer, views):
    X = bursts(1, 5)[0]
    X = np.stack([X, X + tokens(5, seed=9)], axis=1) if views else X
    scorer = clone(scorer)
    if isinstance(scorer, PatchGaussianScorer) and scorer.covariance == "position":
        with pytest.raises(ValueError, match="at least 3 normal images, .* of 1 groups"):
            scorer.fit(X, groups=["only"] * 5)
        return
    if getattr(scorer, "radius", None) is not None:
        with pytest.raises(ValueError, match="at least 2 normal images, .* of 1 groups"):
            scorer.fit(X, groups=["only"] * 5)
        return
    with pytest.warns(UserWarning, match="calibrated on a single group: ") as caught:
        scorer.fit(X, groups=["only"] * 5)
    assert len(caught) == 1 and caught[0].filename == __file__
    base = X[:, 0] if views else X
    np.testing.assert_allclose(scorer.score_samples(base), scorer.train_scores_, rtol=1e-6)
    # Every part was compared with other parts alone.
    assert (scorer.score_patches(base).astype(float) != 0).all()


def test_one_group_of_an_image_is_as_one_image():
    X = tokens(1)
    with pytest.warns(UserWarning, match="calibrated on a single image: "):
        alone = PatchKNNScorer().fit(X)
    with pytest.warns(UserWarning, match="calibrated on a single image: "):
        grouped = PatchKNNScorer().fit(X, groups=["only"])
    assert alone.offset_ == grouped.offset_


def test_patches_that_are_thinned_for_calibration(monkeypatch):
    X, groups = bursts(10, 4)
    monkeypatch.setattr(_training_images, "MAX_CALIBRATION_PATCHES", 20 * 14)
    scorer = PatchKNNScorer().fit(X, groups=groups)
    images = np.arange(0, 40, 3)
    expected = oracle_knn(X, groups)
    np.testing.assert_allclose(scorer.train_scores_, expected[images], rtol=1e-5)
    np.testing.assert_allclose(scorer.score_samples(X), expected, rtol=1e-5)
    part, size = np.unique(groups[images], return_counts=True)
    weights = dict(zip(part, 1 / size, strict=True))
    score = np.sort(expected[images])[4]
    below = sum(weights[groups[i]] for i in images if expected[i] <= score)
    image = X[images][np.argsort(expected[images])[4]][None]
    np.testing.assert_allclose(scorer.p_values(image), (1 + below) / (len(part) + 1))


class SomeScores(BasePatchScorer):
    def __init__(self, *, topk=0.01, aggregation="mean", contamination=0.1):
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_tokens(self, tokens):
        return self._score_tokens(tokens)[1][:7]

    def _score_tokens(self, tokens):
        scores = tokens.values.mean(axis=1, dtype=np.float64)
        return scores, -self._aggregate(tokens, scores)


def test_scores_of_unknown_images_have_no_groups():
    SomeScores().fit(tokens())
    with pytest.raises(ValueError, match="SomeScores made 7 scores of 16 .* one of each"):
        SomeScores().fit(tokens(), groups=GROUPS)


@pytest.mark.parametrize("coreset", [None, 0.5])
def test_error_of_an_approximate_search_is_measured_outside_of_the_group(coreset):
    pytest.importorskip("faiss")
    X, groups = bursts(6, 4)
    scorer = PatchKNNScorer(algorithm="faiss:Flat", coreset=coreset).fit(X, groups=groups)
    assert scorer.approximation_error_ < 1e-5
    with pytest.warns(UserWarning, match="single group"):
        scorer = PatchKNNScorer(algorithm="faiss:Flat").fit(X[:4], groups=groups[:4])
    assert np.isnan(scorer.approximation_error_)


@pytest.mark.parametrize(
    "groups, error, match",
    [
        (["a"] * 15, ValueError, "groups has 15 labels for 16 images"),
        ([*"abcdefghijklmno", None], ValueError, r"groups\[15\] is None"),
        ([0.0, np.nan, *range(14)], ValueError, r"groups\[1\] is nan"),
        ([[1], *range(15)], TypeError, r"groups\[0\] is \[1\]: a label must be hashable"),
        ("abcdefghijklmnop", TypeError, "groups must be a sequence"),
        (3, TypeError, "groups must be a sequence"),
        (set(range(16)), TypeError, "groups must be a sequence"),
        (frozenset(range(16)), TypeError, "groups must be a sequence"),
        (dict.fromkeys(range(16), "a"), TypeError, "groups must be a sequence"),
        (dict.fromkeys(range(16)).keys(), TypeError, "groups must be a sequence"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "fit_predict"])
def test_groups_that_cannot_be(groups, error, match, method):
    with pytest.raises(error, match=match):
        getattr(PatchKNNScorer(), method)(tokens(), groups=groups)


def test_groups_of_pandas():
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(GROUPS, index=np.arange(16)[::-1])
    expected = PatchKNNScorer().fit(tokens(), groups=GROUPS).train_scores_
    fitted = PatchKNNScorer().fit(tokens(), groups=series)
    np.testing.assert_array_equal(fitted.train_scores_, expected)
    series = pandas.Series([*range(3), pandas.NA, *range(12)], dtype="Int64")
    with pytest.raises(ValueError, match=r"groups\[3\] is <NA>"):
        PatchKNNScorer().fit(tokens(), groups=series)


def test_a_union_hands_groups_on_and_refuses_who_takes_none():
    class NoGroups(PatchKNNScorer):
        def fit(self, X, y=None):
            return super().fit(X, y)

    union = ScoreUnion([("one", ScoreUnion([("knn", KNN)])), ("two", KNN)])
    union.fit(tokens(), groups=GROUPS)
    expected = PatchKNNScorer().fit(tokens(), groups=GROUPS).train_scores_
    for fitted in (union.scorers_["two"], union.scorers_["one"].scorers_["knn"]):
        np.testing.assert_array_equal(fitted.train_scores_, expected)
    union = ScoreUnion([("knn", KNN), ("mine", NoGroups())])
    union.fit(tokens())
    with pytest.raises(TypeError, match="scorer 'mine', NoGroups, takes no groups"):
        union.fit(tokens(), groups=GROUPS)


def images(n=12, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


def pipeline():
    return Pipeline([("emb", FilterBankPatches(image_size=32)), ("knn", PatchKNNScorer())])


def test_groups_through_a_pipeline():
    X, groups = images(), np.arange(12) // 3
    expected = PatchKNNScorer().fit(FilterBankPatches(image_size=32).transform(X), groups=groups)
    pipe = pipeline().fit(X, knn__groups=groups)
    np.testing.assert_array_equal(pipe[-1].train_scores_, expected.train_scores_)
    np.testing.assert_array_equal(
        pipeline().fit_predict(X, knn__groups=groups), expected.predict(pipe[0].transform(X))
    )


def test_groups_through_metadata_routing():
    X, groups = images(), np.arange(12) // 3
    expected = pipeline().fit(X, knn__groups=groups)[-1].train_scores_
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = pipeline()
        pipe.set_params(knn=PatchKNNScorer().set_fit_request(groups=True))
        fitted = clone(pipe).fit(X, groups=groups)
        np.testing.assert_array_equal(fitted[-1].train_scores_, expected)


@pytest.mark.parametrize("routing", [False, True])
def test_a_search_hands_each_fold_its_groups(routing):
    X, groups = images(16), np.repeat(list("abcd"), 4)
    seen = []

    class Watched(PatchKNNScorer):
        def _fit_tokens(self, tokens):
            seen.append(tokens.group_of_image.tolist())
            return super()._fit_tokens(tokens)

    def mean_score(estimator, X, y=None):
        return estimator.score_samples(X).mean()

    pipe, grid = pipeline(), {"knn__n_neighbors": [1]}
    with sklearn.config_context(enable_metadata_routing=routing):
        scorer = Watched().set_fit_request(groups=True) if routing else Watched()
        pipe.set_params(knn=scorer)
        folds = GroupKFold(4) if routing else list(GroupKFold(4).split(X, groups=groups))
        search = GridSearchCV(pipe, grid, cv=folds, scoring=mean_score)
        search.fit(X, **{"groups" if routing else "knn__groups": groups})
    runs = np.repeat([0, 1, 2], 4).tolist()
    assert seen == [runs] * 4 + [np.repeat([0, 1, 2, 3], 4).tolist()]


@each_scorer
def test_copies_are_named_once_by_their_numbers(scorer):
    X = np.concatenate([tokens(1, seed=5) * 50, tokens(10), tokens(10), tokens(6, seed=3)])
    y = np.r_[-1, np.ones(26)]
    with pytest.warns(UserWarning, match="are copies") as caught:
        clone(scorer).fit(X, y)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert str(caught[0].message).startswith(
        "training images 1 and 11, 2 and 12, 3 and 13, 4 and 14, 5 and 15 and 5 more pairs are "
        "copies"
    )
    with pytest.warns(UserWarning, match="training images 1 and 11, 2 and 12 are") as caught:
        pipe = Pipeline([("scorer", clone(scorer))])
        pipe.fit_predict(X[[0, *range(1, 13), *range(21, 27)]][:13], y[:13])
    assert len(caught) == 1 and caught[0].filename == __file__


def test_a_union_looks_for_copies_once(monkeypatch):
    looked = []

    def counted(features):
        looked.append(len(features))
        return copies_by_features(features)

    monkeypatch.setattr(_groups, "copies_by_features", counted)
    inner = ScoreUnion([("knn", KNN), ("gaussian", PatchGaussianScorer("shared"))])
    union = ScoreUnion([("inner", inner), ("gaussian", PatchGaussianScorer())])
    X = np.concatenate([tokens(), tokens()[:1]])
    with pytest.warns(UserWarning, match="training images 0 and 16 are copies") as caught:
        union.fit(X)
    assert looked == [17] and len(caught) == 1
    with pytest.raises(ValueError, match="neighborhood must be odd"):
        ScoreUnion([("gaussian", PatchGaussianScorer(neighborhood=2))]).fit(X)
    with pytest.warns(UserWarning, match="training images 0 and 16 are copies"):
        PatchKNNScorer().fit(X)  # a failed fit of a union leaves nothing switched off
    assert looked == [17, 17]


@each_scorer
def test_copies_within_a_group_are_known(scorer):
    X = np.concatenate([tokens(), tokens()])
    clone(scorer).fit(X, groups=np.tile(np.arange(16), 2))
    groups = np.tile(np.arange(16), 2)
    groups[20] = 99
    with pytest.warns(UserWarning, match="^training images 4 and 20 are copies"):
        clone(scorer).fit(X, groups=groups)


def test_a_threshold_that_needs_no_image_needs_no_warning():
    X = np.concatenate([tokens(), tokens()])
    AxisPrompts(logit_scale=10).fit(X)
    with pytest.warns(UserWarning, match="are copies"):
        AxisPrompts(logit_scale=10, contamination=0.1).fit(X)


def test_few_images_and_tables_give_no_warning():
    for n in (2, 3, 5):
        PatchKNNScorer().fit(tokens(n))
    rows = np.random.default_rng(0).integers(0, 2, (40, 2)) + 1.0
    PatchKNNScorer().fit(rows)


def test_a_warning_that_is_an_error_leaves_no_half_of_a_fit():
    X = np.concatenate([tokens(), tokens()])
    scorer = PatchKNNScorer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            scorer.fit(X)
    assert scorer.score_samples(X[:3]).shape == (3,)


def test_names_are_those_of_all_images_or_none():
    """A search, or a scorer in another one, fits to some of the images that were named."""
    tokens = np.random.default_rng(0).normal(size=(9, 4, 4, 6))
    tokens[7] = tokens[2]
    with _groups.images_named([f"{letter}.png" for letter in "abcdefghi"]):
        with pytest.warns(UserWarning, match="training images c.png and h.png are copies"):
            PatchKNNScorer().fit(tokens)
        with pytest.warns(UserWarning, match="training images 1 and 6 are copies"):
            PatchKNNScorer().fit(tokens[1:])
    with pytest.warns(UserWarning, match="training images 2 and 7 are copies"):
        PatchKNNScorer().fit(tokens)
