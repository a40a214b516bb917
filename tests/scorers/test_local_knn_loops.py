"""The local scorer over tokens of real images, against the same in plain float64 loops."""

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, LocalKNNScorer, TimmPatches
from skanomaly.datasets import make_surfaces
from skanomaly.model_selection import OneClassSplit

OPTIONS = {"radius": 1, "shrinkage": 0.2, "regularization": 0.05, "prior": 2.0}


def in_loops(
    train,
    new,
    whitening,
    few,
    radius,
    shrinkage,
    regularization,
    prior,
    unit_length=False,
    n_components=None,
    standardise=True,
):
    """Patch scores of new images, patch by patch."""
    train, new = np.asarray(train, np.float64), np.asarray(new, np.float64)
    n, height, width, dim = train.shape
    if few or unit_length:
        train, new = (x / np.linalg.norm(x, axis=3, keepdims=True) for x in (train, new))
    if few:
        return 1 - np.max(new @ train.reshape(-1, dim).T, axis=3)
    if n_components is None and standardise:
        centre, spread = train.mean(axis=(0, 1, 2)), train.std(axis=(0, 1, 2))
        train, new = (train - centre) / spread, (new - centre) / spread
    scatters = np.zeros((height, width, dim, dim))
    for i in range(height):
        for j in range(width):
            for token in train[:, i, j]:
                rest = token - train[:, i, j].mean(axis=0)
                scatters[i, j] += np.outer(rest, rest) / n
    pooled = scatters.mean(axis=(0, 1))
    ridge = (regularization + (prior / n) ** 2) * np.eye(dim)
    if n_components:
        variances, directions = np.linalg.eigh(pooled)
        ridge *= variances.mean()
        kept = directions[:, -n_components:]
    if n_components and whitening != "shared":
        if whitening == "local":
            kept = kept / np.sqrt(variances[-n_components:] + ridge[0, 0])
        options = (few, radius, shrinkage, regularization, prior)
        return in_loops(train @ kept, new @ kept, whitening, *options, standardise=False)
    if n_components:
        of_components = kept @ np.diag(1 / (variances[-n_components:] + ridge[0, 0])) @ kept.T
    scores = np.empty(new.shape[:3])
    for i in range(height):
        for j in range(width):
            if whitening == "local":
                covariance = (1 - shrinkage) * scatters[i, j] + shrinkage * pooled + ridge
            else:
                covariance = np.eye(dim) if whitening is None else pooled + ridge
            inverse = of_components if n_components else np.linalg.inv(covariance)
            for q, image in enumerate(new):
                scores[q, i, j] = np.inf
                for k in range(max(0, i - radius), min(height, i + radius + 1)):
                    for m in range(max(0, j - radius), min(width, j + radius + 1)):
                        for b in train[:, k, m]:
                            x = image[i, j] - b
                            scores[q, i, j] = min(scores[q, i, j], np.sqrt(x @ inverse @ x))
    return scores


@pytest.fixture(scope="module", params=["filter bank", "filter bank, wide", "ViT-Tiny"])
def tokens(request, shared):
    """Of 8 images to fit to and 2 others, one of them defective."""
    if request.param == "ViT-Tiny":
        pytest.importorskip("timm")
        weights = str(shared / "weights" / "vit_tiny_patch16_224.safetensors")
        embedder = TimmPatches("vit_tiny_patch16_224", weights=weights, image_size=64)
    else:
        embedder = FilterBankPatches(image_size=32, resize="shortest_edge")
    folder = shared / "data" / "cookies"
    train = sorted((folder / "train" / "good").iterdir())[:8]
    test = [sorted(kind.iterdir())[0] for kind in sorted((folder / "test").iterdir())[:2]]
    train, test = ([_pixels(path, request.param) for path in paths] for paths in (train, test))
    return np.asarray(embedder.fit_transform(train)), np.asarray(embedder.transform(test))


def _pixels(path, kind):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels[: pixels.shape[1] // 2] if "wide" in kind else pixels


@pytest.mark.parametrize(
    ("whitening", "few"), [("local", 0), ("shared", 0), (None, 0), ("local", 8)]
)
def test_scores_of_real_images(tokens, whitening, few):
    train, new = tokens
    scorer = LocalKNNScorer(**OPTIONS, whitening=whitening, few=few, topk=3).fit(train)
    expected = in_loops(train, new, whitening, few > 0, **OPTIONS)
    np.testing.assert_allclose(scorer.score_patches(new), expected, rtol=1e-5)
    highest = np.sort(expected.reshape(2, -1), axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_allclose(scorer.score_samples(new), -highest, rtol=1e-5)


@pytest.mark.parametrize("few", [0, 8])
@pytest.mark.parametrize(
    "options",
    [
        {"whitening": "local", "unit_length": True},
        {"whitening": "shared", "n_components": 7},
        {"whitening": "local", "n_components": 7},
        {"whitening": None, "n_components": 7},
        {"whitening": "shared", "n_components": 7, "unit_length": True},
    ],
    ids=["direction", "components", "local", "euclidean", "components of directions"],
)
def test_directions_and_components_of_real_images(tokens, options, few):
    train, new = tokens
    scorer = LocalKNNScorer(**OPTIONS, **options, few=few).fit(train)
    expected = in_loops(train, new, few=few > 0, **OPTIONS, **options)
    np.testing.assert_allclose(scorer.score_patches(new), expected, rtol=2e-5)
    others = np.delete(train, 3, axis=0)  # of 8 images, each is left out by a fit without it
    options = {**OPTIONS, **options, "prior": 2.0 * 7 / 8}
    expected = in_loops(others, train[3:4], few=few > 0, **options)
    np.testing.assert_allclose(scorer.held_out_patches_[3], expected[0], rtol=2e-5)


@pytest.mark.parametrize("few", [0, 8])
def test_held_out_scores_of_real_images(tokens, few):
    train, _ = tokens
    found = LocalKNNScorer(**OPTIONS, few=few).fit(train).held_out_patches_
    for i in (0, 5):
        others, options = np.delete(train, i, axis=0), {**OPTIONS, "prior": 2.0 * 7 / 8}
        expected = in_loops(others, train[i : i + 1], "local", few > 0, **options)
        np.testing.assert_allclose(found[i], expected[0], rtol=1e-5)


def test_held_out_scores_of_more_images_are_nearly_those_of_the_loops(shared):
    paths = sorted((shared / "data" / "cookies" / "train" / "good").iterdir())
    train = np.asarray(FilterBankPatches(image_size=32).fit_transform(paths))
    found = LocalKNNScorer(**OPTIONS).fit(train).held_out_patches_
    for i in (3, 20):
        others = np.delete(train, i, axis=0)
        options = {**OPTIONS, "prior": 2.0 * len(others) / len(train)}  # the same diagonal
        expected = in_loops(others, train[i : i + 1], "local", False, **options)
        error = np.abs(found[i] / expected[0] - 1)
        assert np.median(error) < 3e-3, np.median(error)


def _negative_spread(estimator, X, y=None):
    return -float(np.std(estimator.score_samples(X)))


def test_a_search_over_radius_and_whitening():
    made = make_surfaces(24, 4, surface="disc", image_size=64, random_state=0)
    pipe = make_pipeline(FilterBankPatches(image_size=64), LocalKNNScorer())
    grid = {"localknnscorer__radius": [0, 2], "localknnscorer__whitening": ["local", None]}
    found = [
        GridSearchCV(pipe, grid, scoring=_negative_spread, cv=OneClassSplit(2), n_jobs=n_jobs)
        .fit(made.images, made.y)
        .cv_results_["mean_test_score"]
        for n_jobs in (None, 2)
    ]
    assert len(set(found[0])) == 4
    np.testing.assert_array_equal(found[1], found[0])
