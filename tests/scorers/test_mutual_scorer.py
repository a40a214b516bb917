"""Unlabelled images that score each other: against the published algorithm in plain loops."""

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline

from skanomaly import (
    FilterBankPatches,
    MutualScorer,
    PCAForeground,
    TimmPatches,
    anomaly_maps,
    load_model,
    recalibrate,
    save_model,
)
from skanomaly._tokens import check_tokens
from skanomaly.core import mutual


def unit(x):
    return x / np.sqrt((x * x).sum())


def loops(X, parts, sides, share, classes=None, counts=(1, 2, 3)):
    """Patch scores and image scores of MuSc, in float64, one distance at a time."""
    n, height, width, dim = X.shape
    X, scores = X.astype(np.float64), np.zeros((n, height, width))
    size = dim // parts
    for part in range(parts):
        for side in sides:
            reach, tokens = side // 2, np.zeros((n, height, width, size))
            for i in range(n):
                for r in range(height):
                    for c in range(width):
                        total = np.zeros(size)
                        for a in range(max(0, r - reach), min(height, r + reach + 1)):
                            for b in range(max(0, c - reach), min(width, c + reach + 1)):
                                total += X[i, a, b, part * size : (part + 1) * size]
                        tokens[i, r, c] = unit(total / side**2)
            for i in range(n):
                for r in range(height):
                    for c in range(width):
                        nearest = []
                        for j in range(n):
                            if j != i:
                                apart = tokens[j] - tokens[i, r, c]
                                nearest.append(np.sqrt((apart**2).sum(axis=-1)).min())
                        lowest = sorted(nearest)[: max(1, int(share * (n - 1)))]
                        scores[i, r, c] += np.mean(lowest) / (parts * len(sides))
    images = scores.reshape(n, -1).max(axis=1)
    if classes is not None:
        units = [unit(token.astype(np.float64)) for token in classes]
        alike = np.array([[a @ b for b in units] for a in units])
        means = []
        for count in counts:
            kept = alike.copy()
            for row in kept:
                row[np.argsort(row)[: n - count]] = 0
            means.append([row @ images / row.sum() for row in kept])
        images = np.mean(means, axis=0)
    return scores, images


@pytest.fixture(scope="module")
def real(shared):
    pytest.importorskip("timm")
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    paths = sorted((shared / "data" / "cookies" / "test").rglob("*.jpg"))[::7][:6]
    made = {}
    for resize in ("squash", "shortest_edge"):
        embedder = TimmPatches(
            "vit_tiny_patch16_224",
            weights=weights,
            layers=(3, 7),
            class_token=True,
            image_size=112,
            resize=resize,
            dtype="float32",
        )
        made[resize] = embedder.transform(paths)
    return made


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_the_published_algorithm_in_loops(real, resize):
    X = real[resize]
    assert (X.shape[1] == X.shape[2]) == (resize == "squash")
    classes = X[:, 0, 0, 384:]
    patches, scores = loops(X[..., :384], 2, (1, 3), 0.5, classes)
    scorer = MutualScorer(3, neighborhoods=(1, 3), share=0.5, class_token=True).fit(X)
    np.testing.assert_allclose(scorer.patch_scores_, patches, atol=1e-5)
    np.testing.assert_allclose(-scorer.train_scores_, scores, atol=1e-5)
    _, scores = loops(X[..., :384], 2, (1, 3), 0.5)
    plain = MutualScorer(2, neighborhoods=(1, 3), share=0.5).fit(X[..., :384])
    np.testing.assert_allclose(-plain.train_scores_, scores, atol=1e-5)
    scorer.set_params(rescoring=()).fit(X)
    np.testing.assert_allclose(scorer.train_scores_, plain.train_scores_, atol=1e-5)


def test_masked_patches_in_loops():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5, 4, 3, 6))
    X[1, 2, 0] = X[3, 0] = np.nan
    scorer = MutualScorer(neighborhoods=(3,), share=0.5).fit(X)
    for i in range(5):
        for r, c in np.ndindex(4, 3):
            if np.isnan(X[i, r, c, 0]):
                assert scorer.patch_scores_[i, r, c] == 0
                continue
            nearest = []
            for j in set(range(5)) - {i}:
                means = [
                    unit(np.nansum(X[j, max(0, a - 1) : a + 2, max(0, b - 1) : b + 2], axis=(0, 1)))
                    for a, b in np.ndindex(4, 3)
                    if not np.isnan(X[j, a, b, 0])
                ]
                own = unit(np.nansum(X[i, max(0, r - 1) : r + 2, max(0, c - 1) : c + 2], (0, 1)))
                nearest.append(min(np.linalg.norm(own - mean) for mean in means))
            expected = np.mean(sorted(nearest)[:2])
            np.testing.assert_allclose(scorer.patch_scores_[i, r, c], expected, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 400))
def test_blocks_and_order_change_nothing(seed, n_images, n_bytes):
    rng = np.random.default_rng(seed)
    X = np.empty(n_images, dtype=object)
    X[:] = [rng.normal(size=(*rng.integers(1, 5, 2), 4)) for _ in range(n_images)]
    expected = MutualScorer(graph_filter=True).fit(X)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mutual, "_ROWS", 7)
        found = MutualScorer(graph_filter=True).fit(X)
    np.testing.assert_array_equal(found.train_scores_, expected.train_scores_)
    order = rng.permutation(n_images)
    found = MutualScorer(graph_filter=True).fit(X[order])
    np.testing.assert_array_equal(found.train_scores_, expected.train_scores_[order])


def test_blocks_of_queries_change_nothing(monkeypatch):
    X = np.random.default_rng(0).normal(size=(9, 4, 4, 8))
    expected = MutualScorer(graph_filter=True).fit(X)
    monkeypatch.setattr(mutual, "BLOCK_BYTES", 4 * 9 * 16 * 2)
    assert len(list(mutual.query_blocks(check_tokens(X)))) == 5
    found = MutualScorer(graph_filter=True).fit(X)
    assert found.n_excluded_ == expected.n_excluded_
    np.testing.assert_array_equal(found.train_scores_, expected.train_scores_)


@pytest.mark.parametrize("X", [np.zeros((4, 3, 3, 5)), np.full((4, 3, 3, 5), 7e30)])
@pytest.mark.filterwarnings("ignore:.*copies:UserWarning")
def test_constant_tokens_are_all_normal(X):
    scorer = MutualScorer(graph_filter=True).fit(X)
    assert (scorer.train_scores_ == 0).all() and (scorer.fit_predict(X) == 1).all()


def repeated_defect(n_images=24, n_bad=5, seed=0):
    """Patches that vary, and one defect that varies much less, in a fifth of the images."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(6, 6, 16)) * 3
    X = base + rng.normal(size=(n_images, 6, 6, 16))
    X[:n_bad, 2:4, 2:4] = 4 * rng.normal(size=16) + 0.05 * rng.normal(size=(n_bad, 2, 2, 16))
    return X, np.repeat([1, 0], [n_bad, n_images - n_bad])


def test_a_repeated_defect_is_filtered():
    X, bad = repeated_defect()
    plain = MutualScorer(neighborhoods=(1,)).fit(X)
    filtered = MutualScorer(neighborhoods=(1,), graph_filter=True).fit(X)
    assert plain.n_excluded_ == 0 and roc_auc_score(bad, -plain.train_scores_) < 0.7
    assert filtered.n_excluded_ == 20 and roc_auc_score(bad, -filtered.train_scores_) == 1
    places = filtered.patch_scores_[:5].reshape(5, -1).argmax(axis=1)
    assert set(places) <= {14, 15, 20, 21}


def test_groups_do_not_vouch_for_each_other():
    X, _ = repeated_defect(12, 0)
    X[0, 2, 2] = X[1, 2, 2] = 9 * np.eye(16)[3] - 5  # one part, two photographs
    groups = [0, 0, *range(1, 11)]
    with_groups = MutualScorer(neighborhoods=(1,)).fit(X, groups=groups)
    assert set(np.argsort(with_groups.train_scores_)[:2]) == {0, 1}
    alone = MutualScorer(neighborhoods=(1,), share=0.1).fit(X)
    assert alone.patch_scores_[0, 2, 2] < with_groups.patch_scores_[0, 2, 2]


def test_copies_are_warned_of():
    X, _ = repeated_defect(12, 0)
    X[5] = X[2]
    with pytest.warns(UserWarning, match="images 2 and 5 are copies"):
        MutualScorer().fit(X)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"neighborhoods": (2,)}, r"neighborhoods=\(2,\) must be odd sides"),
        ({"neighborhoods": ()}, "must be odd sides"),
        ({"neighborhoods": (1.5,)}, "each side in neighborhoods must be an integer of at least 1"),
        ({"parts": 3}, "parts=3 does not divide tokens of 8"),
        ({"class_token": True}, "class_token=True takes the last of several parts"),
        ({"parts": 2, "class_token": True}, "last part of the tokens of image 0 is not the same"),
    ],
)
def test_parameters_that_do_not_fit(params, message):
    X = np.random.default_rng(0).normal(size=(4, 3, 3, 8))
    with pytest.raises(ValueError, match=message):
        MutualScorer(**params).fit(X)


def test_what_is_not_there_says_why():
    scorer = MutualScorer().fit(np.random.default_rng(0).normal(size=(4, 3, 3, 8)))
    for name in ("predict", "score_samples", "decision_function"):
        with pytest.raises(AttributeError) as caught:
            getattr(scorer, name)
        assert "use fit_predict" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="needs a grid|need tokens of a grid"):
        MutualScorer().fit(np.ones((4, 9, 8)))
    with pytest.raises(ValueError, match="augmentation=None"):
        MutualScorer().fit(np.ones((4, 2, 3, 3, 8)))
    X = np.random.default_rng(0).normal(size=(4, 10, 10, 8))
    X[:, 3:7, 3:7] += 20
    with pytest.raises(ValueError, match=r"PCAForeground\(mask_training=True\)"):
        make_pipeline(PCAForeground(), MutualScorer()).fit(X)
    make_pipeline(PCAForeground(mask_training=True), MutualScorer()).fit(X)


def test_in_a_pipeline_with_files_and_other_thresholds(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 48, 32, 3), dtype=np.uint8)
    images[4, 10:30, 10:30] = 255
    pipe = Pipeline([("emb", FilterBankPatches(image_size=32)), ("mutual", MutualScorer())])
    assert pipe.fit_predict(images)[4] == -1
    maps = anomaly_maps(pipe, images)
    assert maps[4].max() == maps.max() and maps.shape == (10, 48, 32)
    joblib.dump(pipe, tmp_path / "pipe.joblib")
    save_model(pipe, tmp_path / "pipe.skan")
    for again in (joblib.load(tmp_path / "pipe.joblib"), load_model(tmp_path / "pipe.skan")):
        np.testing.assert_array_equal(anomaly_maps(again, images[3:5]), maps[3:5])
    moved = recalibrate(pipe, contamination=0.5)
    assert moved[-1].offset_ > pipe[-1].offset_
