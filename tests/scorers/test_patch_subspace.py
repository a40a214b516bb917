"""SubspaceAD: the published algorithm over real images, and honest calibration at small cost."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline

from skanomaly import (
    FilterBankPatches,
    PatchKNNScorer,
    PatchSubspaceScorer,
    TimmPatches,
    anomaly_maps,
    create_model,
    explain,
    model_info,
    save_model,
)
from skanomaly._tokens import check_tokens
from skanomaly.datasets import make_surfaces, read_mvtec
from skanomaly.model_selection import OneClassSplit
from skanomaly.scorers import _patch_subspace
from skanomaly.scorers._cross_fitted import cross_fit


def tokens(n, seed, grid=(5, 6), dim=24):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(4, dim))
    found = rng.normal(size=(n, *grid, 4)) @ mixing + 0.1 * rng.normal(size=(n, *grid, dim)) + 2
    return found.astype(np.float32)


def published(train, new, share=0.99):
    """Scores of the patches of new images, and their image scores, in float64 loops."""
    rows = train.reshape(-1, train.shape[-1]).astype(np.float64)
    mean = sum(rows) / len(rows)
    covariance = np.zeros((rows.shape[1],) * 2)
    for row in rows:
        covariance += np.outer(row - mean, row - mean)
    variances, axes = np.linalg.eigh(covariance / (len(rows) - 1))
    variances, axes = variances[::-1], axes[:, ::-1]
    count = 1
    while sum(variances[:count]) / sum(variances) < share:
        count += 1
    maps, scores = [], []
    for image in new.astype(np.float64):
        grid = np.zeros(image.shape[:2])
        for i in range(image.shape[0]):
            for j in range(image.shape[1]):
                rest = image[i, j] - mean
                for k in range(count):
                    rest = rest - (rest @ axes[:, k]) * axes[:, k]
                grid[i, j] = rest @ rest
        maps.append(grid)
        highest = sorted(grid.ravel(), reverse=True)[: max(1, int(0.01 * grid.size))]
        scores.append(sum(highest) / len(highest))
    return np.array(maps), np.array(scores)


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_the_published_algorithm_on_real_images(resize, shared):
    pytest.importorskip("timm")
    split = read_mvtec(shared / "data" / "cookies")
    embedder = TimmPatches(
        "vit_tiny_patch16_224",
        layers=(3, 4, 5),
        fusion="mean",
        image_size=112,
        resize=resize,
        weights=shared / "weights" / "vit_tiny_patch16_224.safetensors",
        device="cpu",
        dtype="float32",
    )
    train = embedder.fit_transform(split.train.images[:6])
    new = embedder.transform([*split.test.images[:2], *split.test.images[-2:]])
    assert (new.shape[1] == new.shape[2]) == (resize == "squash")
    maps, scores = published(train, new)
    scorer = PatchSubspaceScorer().fit(train)
    found, samples = scorer.score_patches(new, return_scores=True)
    np.testing.assert_allclose(found, maps, rtol=1e-5)
    np.testing.assert_allclose(samples, -scores, rtol=1e-5)


def test_held_out_scores_are_those_of_a_model_without_the_fold():
    X = tokens(23, 0)
    X[4, 1:3] = np.nan
    scorer = PatchSubspaceScorer().fit(X)
    checked = check_tokens(X)
    expected = cross_fit(checked, 10, scorer._fit_model, scorer._score_model)
    expected = -scorer._aggregate(checked, expected)
    np.testing.assert_allclose(scorer.train_scores_, expected, rtol=1e-9)


def test_held_out_with_views_and_groups():
    X = np.stack([tokens(12, seed) for seed in range(3)], axis=1)
    groups = np.arange(12) // 2
    scorer = PatchSubspaceScorer().fit(X, groups=groups)
    for group in range(6):
        others = PatchSubspaceScorer().fit(X[groups != group], groups=groups[groups != group])
        own = groups == group
        np.testing.assert_allclose(
            scorer.train_scores_[own], others.score_samples(X[own, 0]), rtol=1e-9
        )


def test_every_token_is_summed_up_once(monkeypatch):
    counted = []

    def measure(values, rows):
        counted.append(len(rows))
        return measure_tokens(values, rows)

    measure_tokens = _patch_subspace.measure_tokens
    monkeypatch.setattr(_patch_subspace, "measure_tokens", measure)
    PatchSubspaceScorer().fit(tokens(25, 0))
    assert sum(counted) == 25 * 30 and len(counted) == 10


def test_new_good_images_score_as_held_out_ones():
    X = tokens(230, 1)
    scorer = PatchSubspaceScorer(contamination=0.1).fit(X[:30])
    assert 0.03 < np.mean(scorer.predict(X[30:]) == -1) < 0.25


def test_a_fitted_class_is_small(tmp_path):
    """The components are the same however many images there were."""
    X = np.random.default_rng(0).normal(size=(2, 16, 16, 384)).astype(np.float32)
    pipe = Pipeline([("scorer", PatchSubspaceScorer())]).fit(X)
    model = pipe[-1]._model
    assert model.axes.nbytes + model.mean.nbytes + model.scale.nbytes <= 2 * 384**2 + 16 * 384
    save_model(pipe, tmp_path / "model.skan")
    assert (tmp_path / "model.skan").stat().st_size < 1_000_000


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_explained_by_components(share):
    scorer = PatchSubspaceScorer(share).fit(tokens(20, 0))
    new = tokens(1, 9)
    new[0, 2, 3, 7] += 30
    found = scorer.explain_patch(new, 2, 3)
    score = scorer.score_patches(new)[0, 2, 3]
    assert found.kind == "components" and found.note == ""
    assert found.components[0].number == 7 and found.components[0].deviation > 3
    assert sum(part.contribution for part in found.components) == pytest.approx(score, rel=1e-5)
    assert "without it" in scorer.explain_patch(tokens(20, 0)[:1], 2, 3).note


def test_in_a_pipeline_with_maps_explanations_and_a_search():
    made = make_surfaces(10, 3, surface="fabric", image_size=64, random_state=0)
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchSubspaceScorer())
    grid = {"patchsubspacescorer__explained_variance": [0.5, 0.9]}
    search = GridSearchCV(pipe, grid, scoring=_negative_spread, cv=OneClassSplit(2))
    search.fit(made.images, made.y)
    assert [heat.shape for heat in anomaly_maps(search, made.images[:2])] == [(64, 64)] * 2
    assert explain(search, made.images[-1]).kind == "components"


def _negative_spread(estimator, X, y=None):
    return -float(np.std(estimator.score_samples(X)))


def test_mixed_grids_score_as_alone():
    scorer = PatchSubspaceScorer().fit(tokens(20, 0))
    mixed = np.empty(2, dtype=object)
    mixed[:] = [tokens(1, 5)[0], tokens(1, 6, grid=(3, 9))[0]]
    found = scorer.score_patches(mixed)
    for one, grid in zip(mixed, found, strict=True):
        np.testing.assert_array_equal(scorer.score_patches(one[None])[0], grid)


def test_one_image_and_constant_images():
    with pytest.warns(UserWarning, match="single image"):
        PatchSubspaceScorer().fit(tokens(1, 0))
    scorer = PatchSubspaceScorer().fit(np.ones((4, 3, 3, 5)))
    assert scorer.n_components_ == 0
    np.testing.assert_array_equal(scorer.predict(np.full((2, 3, 3, 5), 2.0)), -1)


@pytest.mark.parametrize("share", [0, 1, 0.0, 1.0, 1.5, True, "all"])
def test_shares_that_are_none(share):
    with pytest.raises(ValueError, match="explained_variance"):
        PatchSubspaceScorer(share).fit(tokens(5, 0))


def test_in_the_registry():
    model = create_model("filterbank", scorer="subspace", explained_variance=0.9)
    assert model["subspace"].explained_variance == 0.9
    pytest.importorskip("timm")
    published = create_model("vision_subspacead")
    assert published["emb"].image_size == 672 and len(published["emb"].layers) == 7
    assert "CVPR 2026" in model_info("vision_subspacead").paper
    assert not isinstance(published[-1], PatchKNNScorer)
