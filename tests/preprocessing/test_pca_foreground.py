"""PCAForeground: the published masks on real tokens, and thresholds of masked images."""

import pickle

import numpy as np
import pytest
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PCAForeground,
    ScoreUnion,
    TimmPatches,
    anomaly_maps,
    explain,
    iter_scores,
    load_model,
    save_model,
)
from skanomaly._origins import origin_of, set_origin
from skanomaly._token_stream import TokenStream
from skanomaly.datasets import make_surfaces

SCORERS = [
    PatchKNNScorer(metric="euclidean"),
    PatchKNNScorer(metric="euclidean", coreset=0.3),
    PatchGaussianScorer("shared"),
    ScoreUnion(
        [("knn", PatchKNNScorer(metric="euclidean")), ("gaussian", PatchGaussianScorer("shared"))]
    ),
    PatchGaussianScorer("position"),
]


def objects(n, seed=0, grid=(12, 11), dim=6):
    """Tokens of images with an object in the middle, before a varied background."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(n, *grid, dim)).astype(np.float32)
    tokens[:, 4:8, 3:8, 0] += 40
    return tokens


def is_masked(tokens):
    return np.isnan(tokens).all(axis=-1)


def mask_in_loops(tokens, threshold=10, border=0.2):
    """The published mask of one image, in float64 and loops; True for the background."""
    height, width, dim = tokens.shape
    rows = [tokens[i, j].astype(np.float64) for i in range(height) for j in range(width)]
    mean = sum(rows) / len(rows)
    axes = np.linalg.svd(np.array([row - mean for row in rows]), full_matrices=False)[2]
    axis = axes[0] * np.sign(axes[0][np.argmax(np.abs(axes[0]))])
    component = [float(sum((row - mean) * axis)) for row in rows]
    grid = np.array(component).reshape(height, width)
    centre = [
        grid[i, j] > threshold
        for i in range(int(height * border), int(height * (1 - border)))
        for j in range(int(width * border), int(width * (1 - border)))
    ]
    found = (grid if sum(centre) > len(centre) * 0.35 else -grid) > threshold

    def spread(grid, function):
        return np.array(
            [
                [
                    function(
                        grid[a, b]
                        for a in range(max(i - 1, 0), min(i + 2, height))
                        for b in range(max(j - 1, 0), min(j + 2, width))
                    )
                    for j in range(width)
                ]
                for i in range(height)
            ]
        )

    return ~spread(spread(spread(found, any), any), all)


@pytest.mark.parametrize("layers", [3, 11])
@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_real_tokens_as_published(shared, layers, resize):
    pytest.importorskip("timm")
    data = shared / "data"
    images = [
        *sorted((data / "cookies/train/good").iterdir())[:2],  # 384 x 512
        *sorted((data / "screw/train/good").iterdir())[:1],
        *sorted((data / "bottle/train/good").iterdir())[:1],
    ]
    weights = str(shared / "weights/vit_tiny_patch16_224.safetensors")
    embedder = TimmPatches(
        "vit_tiny_patch16_224",
        weights=weights,
        layers=layers,
        image_size=224,
        resize=resize,
        device="cpu",
        dtype="float32",
    )
    tokens = embedder.transform(images)
    assert (tokens.dtype == object) == (resize == "shortest_edge")
    for found, one in zip(PCAForeground().transform(tokens), tokens, strict=True):
        expected = mask_in_loops(one)
        assert 0 < expected.mean() < 0.9
        np.testing.assert_array_equal(is_masked(found), expected)
        np.testing.assert_array_equal(found[~expected], one[~expected])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_and_many_and_streams(dtype):
    tokens = objects(5).astype(dtype)
    mask = PCAForeground().fit(tokens)
    masked = mask.transform(tokens)
    assert masked.dtype == dtype and masked.flags.c_contiguous
    assert is_masked(masked).mean(axis=(1, 2)).tolist() == pytest.approx([1 - 6 * 7 / 132] * 5)
    alone = np.concatenate([mask.transform(tokens[i : i + 1]) for i in range(5)])
    np.testing.assert_array_equal(alone, masked)
    np.testing.assert_array_equal(mask.transform(tokens[::-1])[::-1], masked)
    stream = TokenStream(lambda numbers: (tokens[i] for i in numbers), range(5))
    streamed = mask.transform(stream)
    assert isinstance(streamed, TokenStream)
    np.testing.assert_array_equal(np.asarray(streamed), masked)
    mixed = np.empty(2, dtype=object)
    mixed[:] = [tokens[0], tokens[1, :, :10]]
    found = mask.transform(mixed)
    np.testing.assert_array_equal(found[0], masked[0])
    np.testing.assert_array_equal(found[1], mask.transform(mixed[1][None])[0])
    assert not np.isnan(tokens).any(), "what is given stays"


def test_masked_patches_stay_masked():
    tokens = objects(3)
    tokens[:, :3] = np.nan
    masked = PCAForeground(border=0).transform(tokens)
    assert is_masked(masked)[:, :3].all()
    # As of an image without them, whose rows beyond the grid are no foreground either.
    np.testing.assert_array_equal(
        masked[:, 3:], PCAForeground(border=0).transform(objects(3)[:, 3:])
    )


@pytest.mark.parametrize("mask_training", [False, True])
@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_training_images_are_scored_as_masked_ones(scorer, mask_training):
    good, new = objects(24), objects(9, seed=1)
    new[:4, 5, 5] -= 30
    pipe = make_pipeline(PCAForeground(mask_training=mask_training), scorer)
    fitted = clone(pipe).fit(good)
    np.testing.assert_array_equal(clone(pipe).fit_predict(good), fitted.predict(good))
    np.testing.assert_array_equal(fitted.score_samples(good), fitted[-1].train_scores_)
    assert (fitted.predict(new)[:4] == -1).all()
    held_out = np.array(fitted[-1].held_out_patches_)
    np.testing.assert_array_equal(np.isnan(held_out), is_masked(fitted[0].transform(good)))


def test_the_bank_holds_each_patch_once_and_the_threshold_is_of_masked_images():
    good = objects(12)
    fitted = make_pipeline(PCAForeground(), PatchKNNScorer(metric="euclidean")).fit(good)
    bank = fitted[-1].bank_
    assert len(bank) == 12 * 132
    assert set(map(bytes, bank)) == set(map(bytes, good.reshape(-1, 6)))
    masked = PCAForeground().transform(good)
    scores = []
    for i in range(len(good)):  # each image's foreground, by all patches of the others
        others = np.delete(good, i, axis=0).reshape(-1, 6).astype(np.float64)
        rows = masked[i][~is_masked(masked[i])].astype(np.float64)
        nearest = np.sqrt(((rows[:, None] - others) ** 2).sum(axis=-1)).min(axis=1)
        scores.append(-nearest.max())  # the top 1% of 42 is one
    np.testing.assert_allclose(fitted[-1].train_scores_, scores, rtol=1e-5)
    with_mask = make_pipeline(PCAForeground(mask_training=True), PatchKNNScorer()).fit(good)
    assert len(with_mask[-1].bank_) == 12 * 42


def test_the_share_of_flagged_good_images_is_the_nominal_one():
    """A background that no training image explains must not loosen the threshold."""

    def cluttered(n, seed):
        tokens = objects(n, seed)
        background = is_masked(PCAForeground().transform(tokens))
        clutter = np.random.default_rng(seed + 100).normal(size=(*tokens.shape[:3], 5)) * 3
        tokens[..., 1:][background] = clutter[background]
        return tokens

    pipe = make_pipeline(PCAForeground(), PatchKNNScorer(metric="euclidean", contamination=0.2))
    pipe.fit(cluttered(100, 0))
    share = np.mean(pipe.predict(cluttered(200, 1)) == -1)
    assert 0.08 < share < 0.34  # four standard deviations of both samples


def test_views_of_the_embedder_come_first():
    good = objects(10, grid=(11, 11))
    views = np.stack([good, good[:, ::-1], good[:, :, ::-1]], axis=1)
    masked = PCAForeground().fit_transform(views)
    assert masked.shape == (10, 4, 11, 11, 6)
    first, background = is_masked(masked[:, 0]), is_masked(masked[:, 3])
    np.testing.assert_array_equal(masked[:, 0], PCAForeground().transform(good))
    np.testing.assert_array_equal(masked[:, 1:3], views[:, 1:])
    np.testing.assert_array_equal(background, ~first)
    np.testing.assert_array_equal(masked[:, 3][first], good[first])
    own = PCAForeground(mask_training=True).fit_transform(views)
    for view in range(3):
        np.testing.assert_array_equal(own[:, view], PCAForeground().transform(views[:, view]))
    with pytest.raises(ValueError, match="views are only for fit"):
        PCAForeground().transform(views)


def test_mixed_grids_in_training():
    good = np.empty(8, dtype=object)
    good[:] = [objects(1, seed=i, grid=(12, 10 + i % 2))[0] for i in range(8)]
    pipe = make_pipeline(PCAForeground(), PatchKNNScorer(metric="euclidean"))
    fitted = clone(pipe).fit(good)
    assert len(fitted[-1].bank_) == sum(one.shape[0] * one.shape[1] for one in good)
    np.testing.assert_array_equal(clone(pipe).fit_predict(good), fitted.predict(good))
    np.testing.assert_array_equal(fitted.score_samples(good), fitted[-1].train_scores_)


@pytest.mark.parametrize("scorer", SCORERS[:4], ids=repr)
def test_a_single_image(scorer):
    """Its quarters stand in for other images, not its background for its object."""
    good = objects(1, grid=(12, 11))
    pipe = make_pipeline(PCAForeground(), scorer)
    with pytest.warns(UserWarning, match="calibrated on a single image"):
        fitted = pipe.fit(good)
    assert fitted.predict(good) == [1]
    if isinstance(scorer, PatchKNNScorer):
        assert -fitted[-1].train_scores_[0] < 10, "compared to the background, it is 40 off"


def test_no_foreground_is_an_error_or_keeps_all():
    tokens = objects(3)
    tokens[1] = np.random.default_rng(0).normal(size=tokens[1].shape)
    with pytest.raises(ValueError, match=r"image 1 has no foreground: .* reaches [\d.]+, and"):
        PCAForeground().transform(tokens)
    masked = PCAForeground(no_foreground="keep").transform(tokens)
    assert is_masked(masked).any(axis=(1, 2)).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="no foreground"):
        PCAForeground().fit_transform(np.ones((2, 4, 4, 3)))


def test_such_an_image_stops_no_stream():
    made = make_surfaces(9, surface="disc", image_size=64, random_state=0).images
    images = [*made[:8], np.zeros((64, 64, 3), dtype=np.uint8)]
    pipe = make_pipeline(
        FilterBankPatches(image_size=64), PCAForeground(1.0), PatchKNNScorer(metric="euclidean")
    ).fit(made[:8])
    found = list(iter_scores(pipe, images, on_error="record"))
    assert [type(one).__name__ for one in found] == ["Decision"] * 8 + ["Failure"]
    assert "no foreground" in found[-1].error


@pytest.mark.parametrize(
    "X", [np.ones((4, 3)), np.ones((4, 5, 3))], ids=["(n, dim)", "(n, patches, dim)"]
)
def test_patches_need_a_grid(X):
    with pytest.raises(ValueError, match=r"X must have the shape \(n_images, grid_h,"):
        PCAForeground().fit(X)


def test_bad_input():
    mask = PCAForeground().fit(objects(3))
    with pytest.raises(ValueError, match="X has 5 features, but PCAForeground is expecting 6"):
        mask.transform(objects(1, dim=5))
    broken = objects(3)
    broken[2, 0, 1, 3] = np.inf
    with pytest.raises(ValueError, match="patch 1 of image 2"):
        mask.transform(broken)
    for params in ({"threshold": -1}, {"border": 0.5}, {"no_foreground": "drop"}):
        with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter"):
            PCAForeground(**params).fit(objects(2))
    mask.set_params(threshold=5.0)
    with pytest.raises(NotFittedError, match="threshold of this PCAForeground changed since fit"):
        mask.transform(objects(1))


def test_scorers_know_by_what_tokens_were_masked():
    good = objects(6)
    set_origin(good, {"embedder": "of the test"})
    masked = PCAForeground().transform(good)
    assert origin_of(masked)["masked by"] == ["PCAForeground(10.0, border=0.2)"]
    again = PCAForeground(5.0).transform(masked)
    assert origin_of(again)["masked by"][1] == "PCAForeground(5.0, border=0.2)"
    scorer = PatchKNNScorer().fit(PCAForeground().fit_transform(good))
    scorer.predict(masked)
    with pytest.raises(NotFittedError, match="masked by"):
        scorer.predict(good)


def test_clones_pickles_searches_and_workers(tmp_path):
    good = objects(16)
    pipe = make_pipeline(PCAForeground(), PatchKNNScorer(metric="euclidean"))
    fitted = clone(pipe).fit(good)
    expected = fitted.score_samples(good)
    save_model(fitted, tmp_path / "model.skan")
    workers = Parallel(2, prefer="threads")(delayed(clone(pipe).fit)(good) for _ in range(2))
    for other in (
        pickle.loads(pickle.dumps(fitted)),
        load_model(tmp_path / "model.skan"),
        *workers,
    ):
        np.testing.assert_array_equal(other.score_samples(good), expected)
    search = GridSearchCV(
        pipe,
        {"pcaforeground__threshold": [5.0, 10.0]},
        scoring=lambda one, X, y=None: one.score_samples(X).mean(),
        cv=2,
    ).fit(good)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert fitted[:-1].get_feature_names_out().tolist() == [f"x{i}" for i in range(6)]


def test_maps_and_explanations(tmp_path):
    from PIL import Image

    made = make_surfaces(9, 1, surface="disc", image_size=64, random_state=0).images
    paths = [tmp_path / f"{i}.png" for i in range(len(made))]
    for path, image in zip(paths, made, strict=True):
        Image.fromarray(image).save(path)
    pipe = make_pipeline(
        FilterBankPatches(image_size=64), PCAForeground(1.0), PatchKNNScorer(metric="euclidean")
    ).fit(paths[:9])
    patches = pipe[-1].score_patches(pipe[:-1].transform(paths))
    masked = is_masked(pipe[:-1].transform(paths))
    assert masked.any() and (patches[masked] == 0).all() and (patches[~masked] > 0).all()
    assert all(one.shape == (64, 64) for one in anomaly_maps(pipe, paths[:2]))
    found = explain(pipe, paths[-1], n_neighbors=200)
    tokens = pipe[0].transform(paths)
    own = tokens[-1, found.row, found.column].astype(float)
    seen = set()
    for near in found.neighbors:
        assert near.view == 0
        other = tokens[near.image_number, near.row, near.column].astype(float)
        assert np.linalg.norm(own - other) == pytest.approx(near.distance, rel=1e-4)
        seen.add(bool(masked[near.image_number, near.row, near.column]))
    assert seen == {True, False}, "of the background, too, the place is known"
