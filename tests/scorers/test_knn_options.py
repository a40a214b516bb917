"""Options of nearest patches, against the published algorithms in plain float64 loops."""

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, TimmPatches, anomaly_maps
from skanomaly.core.calibration import calibration_folds
from skanomaly.datasets import make_surfaces

DIM = 24


def tokens(n, seed=0, grid=(4, 5)):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(DIM, DIM))
    return (rng.normal(size=(n, *grid, DIM)) @ mixing + 1).astype(np.float32)


@pytest.fixture
def train():
    return tokens(10)


@pytest.fixture
def new():
    return tokens(4, seed=1) + np.float32(0.3)


def distance(one, other, metric):
    if metric == "euclidean":
        return np.sqrt(np.sum((one - other) ** 2))
    return 1 - one @ other / np.sqrt((one @ one) * (other @ other))


def places(grid):
    return [(row, column) for row in range(grid[0]) for column in range(grid[1])]


def patch_scores(image, bank_images, metric, k=1, parts=(slice(None),), weight=0.0):
    """Mean over the parts of the mean distance to the k nearest patches, patch by patch."""
    grid, dim = image.shape[:2], image.shape[2]
    out = np.zeros(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            place = np.array([row, column])
            for part in parts:
                found = []
                for other in bank_images:
                    for token, there in zip(
                        other.reshape(-1, dim), places(other.shape[:2]), strict=True
                    ):
                        far = np.sum((weight * (place - np.array(there))) ** 2)
                        near = distance(image[row, column, part], token[part], metric)
                        found.append(
                            near + far / 2 if metric == "cosine" else np.hypot(near, far**0.5)
                        )
                out[row, column] += np.mean(np.sort(found)[:k]) / len(parts)
    return out


def patchcore(image, bank, b):
    """Equation 7 of PatchCore: image score and patch scores."""
    patches = image.reshape(-1, image.shape[-1])
    nearest = []
    for patch in patches:
        far = [np.sqrt(np.sum((patch - other) ** 2)) for other in bank]
        nearest.append((min(far), int(np.argmin(far))))
    top = int(np.argmax([far for far, _ in nearest]))
    score, star = nearest[top]
    around = np.argsort([np.sum((bank[star] - other) ** 2) for other in bank], kind="stable")[:b]
    exps = [np.exp(np.sqrt(np.sum((patches[top] - bank[i]) ** 2)) - score) for i in around]
    return (1 - 1 / sum(exps)) * score, np.array([far for far, _ in nearest])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(
    ("k", "parts", "weight"), [(1, (8, 16), 0.0), (3, 2, 0.0), (1, 1, 0.3), (3, (20, 4), 0.5)]
)
@pytest.mark.parametrize("algorithm", ["brute", "certified"])
def test_parts_and_places_in_loops(metric, k, parts, weight, algorithm, train, new):
    scorer = PatchKNNScorer(
        k,
        metric=metric,
        parts=parts,
        position_weight=weight,
        algorithm=algorithm,
        aggregation="max",
    ).fit(train)
    sizes = parts if isinstance(parts, tuple) else (DIM // parts,) * parts
    ends = np.cumsum(sizes)
    slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    wide, bank = new[:1].astype(float), train.astype(float)
    expected = patch_scores(wide[0], bank, metric, k, slices, weight)
    np.testing.assert_allclose(scorer.score_patches(new[:1])[0], expected, rtol=1e-5, atol=1e-6)
    held_out = patch_scores(bank[3], np.delete(bank, 3, axis=0), metric, k, slices, weight)
    assert scorer.train_scores_[3] == pytest.approx(-held_out.max(), rel=1e-5)
    np.testing.assert_array_equal(scorer.score_samples(train), scorer.train_scores_)


@pytest.mark.parametrize("b", [2, 9, 1000])
@pytest.mark.parametrize("coreset", [None, 0.3])
@pytest.mark.parametrize("algorithm", ["brute", "certified"])
def test_patchcore_in_loops(b, coreset, algorithm, train, new):
    scorer = PatchKNNScorer(
        metric="euclidean", aggregation="max", reweighting=b, coreset=coreset, algorithm=algorithm
    ).fit(train)
    found, scores = scorer.score_patches(new, return_scores=True)
    for image, grid, score in zip(new.astype(float), found, scores, strict=True):
        expected, patches = patchcore(image, scorer.bank_.astype(float), b)
        np.testing.assert_allclose(grid.ravel(), patches, rtol=1e-6)
        assert -score == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(scorer.score_samples(new), scores)
    np.testing.assert_array_equal(scorer.score_samples(train), scorer.train_scores_)
    if coreset is None:  # exactly as of a bank without the image
        for i in (0, 5):
            bank = np.delete(train, i, axis=0).reshape(-1, DIM).astype(float)
            expected, _ = patchcore(train[i].astype(float), bank, b)
            assert scorer.train_scores_[i] == pytest.approx(-expected, rel=1e-6)


def test_held_out_weights_of_a_coreset_are_of_coresets_without_the_image(train):
    options = {"metric": "euclidean", "aggregation": "max", "coreset": 60, "reweighting": 9}
    scorer = PatchKNNScorer(**options).fit(train)
    folds = calibration_folds(np.arange(10), 5)
    for fold in range(5):
        without = PatchKNNScorer(**options).fit(train[folds != fold])
        expected = without.score_samples(train[folds == fold])
        np.testing.assert_array_equal(scorer.train_scores_[folds == fold], expected)


def test_one_image_and_masked_patches(train, new):
    train[2, 1, 1] = new[0, 2, 2] = np.nan
    for options in (
        {"parts": 2, "position_weight": 1.0},
        {"metric": "euclidean", "aggregation": "max", "reweighting": 9},
    ):
        scorer = PatchKNNScorer(**options).fit(train)
        patches, scores = scorer.score_patches(new, return_scores=True)
        assert patches[0, 2, 2] == 0 and np.isfinite(scores).all()
        with pytest.warns(UserWarning, match="single image"):
            one = PatchKNNScorer(**options).fit(train[:1])
        assert np.isfinite(one.train_scores_).all()
        np.testing.assert_array_equal(one.score_samples(train[:1]), one.train_scores_)


def test_views_belong_to_their_image(train, new):
    views = np.stack([train, train[:, ::-1, ::-1]], axis=1)
    for options in ({"parts": 2}, {"metric": "euclidean", "aggregation": "max", "reweighting": 9}):
        scorer = PatchKNNScorer(**options).fit(views)
        images = np.concatenate([views[1:, 0], views[1:, 1]])
        without = PatchKNNScorer(**options).fit(images)
        assert scorer.train_scores_[0] == without.score_samples(train[:1])[0]


def test_places_in_mixed_grids():
    mixed = np.empty(6, dtype=object)
    mixed[:] = [*tokens(3), *tokens(3, seed=1, grid=(6, 3))]
    scorer = PatchKNNScorer(position_weight=0.4, aggregation="max").fit(mixed)
    expected = patch_scores(
        mixed[4].astype(float),
        [one.astype(float) for one in np.delete(mixed, 4)],
        "cosine",
        weight=0.4,
    )
    assert scorer.train_scores_[4] == pytest.approx(-expected.max(), rel=1e-5)


def test_zero_tokens_with_places(train):
    train[0, 0, 0] = train[5, 3, 4] = 0
    scorer = PatchKNNScorer(position_weight=1e-3).fit(train)
    new = train[1:2].copy()
    new[0, 0, 0] = 0
    assert scorer.score_patches(new)[0, 0, 0] == pytest.approx(0, abs=1e-6)
    no_zero = PatchKNNScorer(position_weight=1e-3).fit(train[1:5])
    assert no_zero.score_patches(new)[0, 0, 0] == pytest.approx(1, abs=1e-5)


def test_explanations_are_of_each_part(train, new):
    scorer = PatchKNNScorer(parts=2, position_weight=0.5).fit(train)
    found = scorer.explain_patch(new[:1], 1, 2, n_neighbors=3)
    assert len(found.neighbors) == 6 and "2 parts" in found.note
    score = scorer.score_patches(new[:1])[0, 1, 2]
    assert np.mean([one.distance for one in found.neighbors[::3]]) == pytest.approx(score, rel=1e-6)
    own = scorer.explain_patch(train[4:5], 1, 2)
    assert all(one.image_number != 4 for one in own.neighbors) and "left out" in own.note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": 5}, "parts=5 does not divide tokens of 24 components"),
        ({"parts": (20, 5)}, "must be sizes of at least 1 that add up to the 24"),
        (
            {"reweighting": 9},
            "needs metric='euclidean', aggregation='max'; or set reweighting=None",
        ),
        (
            {"reweighting": 9, "metric": "euclidean", "aggregation": "max", "parts": 2},
            "needs parts=1",
        ),
    ],
)
def test_what_does_not_go_together(options, message, train):
    with pytest.raises(ValueError, match=message):
        PatchKNNScorer(**options).fit(train)


def test_places_need_a_grid(train):
    with pytest.raises(ValueError, match="20 patches without a grid"):
        PatchKNNScorer(position_weight=1.0).fit(train.reshape(10, 20, DIM))
    scorer = PatchKNNScorer(position_weight=1.0).fit(train)
    with pytest.raises(ValueError, match="7 patches without a grid"):
        scorer.predict(train.reshape(10, 20, DIM)[:, :7])


def test_a_coreset_for_each_part(train):
    scorer = PatchKNNScorer(parts=(8, 16), coreset=30).fit(train)
    assert [bank.shape for bank in scorer.bank_] == [(30, 8), (30, 16)]
    alone = [PatchKNNScorer(coreset=30).fit(train[..., part]) for part in (slice(8), slice(8, 24))]
    for bank, one in zip(scorer.bank_, alone, strict=True):
        np.testing.assert_array_equal(bank, one.bank_)
    assert scorer.coverage_radius_ == max(one.coverage_radius_ for one in alone)


def test_searches_and_pickles(tmp_path):
    made = make_surfaces(10, 4, image_size=64, random_state=0)
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(metric="euclidean"))
    search = GridSearchCV(
        pipe,
        {"patchknnscorer__parts": [1, (51, 51)], "patchknnscorer__position_weight": [0.0, 1.0]},
        scoring=lambda model, X, y: -np.mean(model.score_samples(X)),
        cv=[(range(8), range(8, 14))],
    ).fit(made.images, made.y)
    joblib.dump(search.best_estimator_, tmp_path / "model")
    loaded = joblib.load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.score_samples(made.images), search.best_estimator_.score_samples(made.images)
    )


@pytest.mark.parametrize("grid", [(14, 14), (8, 14)])
def test_real_images(grid, shared):
    """PatchCore and parts over photographs with ViT-Tiny's tokens, square and not."""
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    folder = shared / "data" / "cookies"
    pytest.importorskip("timm")
    paths = sorted((folder / "train" / "good").iterdir())[:5]
    paths += sorted((folder / "test" / "defective").iterdir())[:2]
    embedder = TimmPatches(
        "vit_tiny_patch16_224", layers=(3, 8), image_size=224, weights=weights, device="cpu"
    )
    made = embedder.fit_transform([str(path) for path in paths])[:, : grid[0], : grid[1]]
    good, bad = np.ascontiguousarray(made[:5]), np.ascontiguousarray(made[5:])
    flat = good.reshape(-1, good.shape[-1]).astype(float)
    core = PatchKNNScorer(metric="euclidean", aggregation="max", reweighting=9, coreset=100)
    core.fit(good)
    for image, score, patches in zip(
        bad.astype(float), core.score_samples(bad), core.score_patches(bad), strict=True
    ):
        expected, maps = patchcore(image, core.bank_.astype(float), 9)
        assert -score == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(patches.ravel(), maps, rtol=1e-5)
    for k in (1, 3):
        scorer = PatchKNNScorer(k, parts=2).fit(good)
        for image, patches in zip(bad.astype(float), scorer.score_patches(bad), strict=True):
            expected = 0
            for part in (slice(0, 192), slice(192, 384)):
                unit = flat[:, part] / np.linalg.norm(flat[:, part], axis=1, keepdims=True)
                for_part = []
                for token in image.reshape(-1, 384)[:, part]:
                    for_part.append(np.sort(1 - unit @ token / np.linalg.norm(token))[:k].mean())
                expected = expected + np.array(for_part) / 2
            np.testing.assert_allclose(patches.ravel(), expected, rtol=1e-5, atol=1e-6)
    pipe = make_pipeline(embedder, PatchKNNScorer(parts=2)).fit([str(path) for path in paths[:5]])
    assert np.isfinite(anomaly_maps(pipe, [str(path) for path in paths[5:]])[0]).all()
