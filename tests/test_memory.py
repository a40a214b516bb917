"""Memory beyond the tokens: of `fit`, and of scoring. NumPy reports its arrays to tracemalloc."""

import tracemalloc

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FunctionPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    ScoreUnion,
)
from skanomaly.core import prepared
from skanomaly.inspection import score_images
from skanomaly.scorers import _base, _checked

MEBIBYTE = 2**20
DIM = 384


def tokens(n_images, seed=0, dim=DIM):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n_images, 16, 16, dim), dtype=np.float32) + 1


def peak(function):
    """Bytes that a call takes at its peak, beyond what there was."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module", autouse=True)
def no_copy_of_few():
    """The copy that is made of few tokens, up to 64 MB, does not count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_COPIED", 0)
        yield


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """What is imported at first use does not count."""
    PatchKNNScorer(coreset=20).fit(tokens(3)).predict(tokens(1))


@pytest.mark.parametrize(
    "method, metric, most",
    [
        ("k_center", "cosine", 0.5),
        ("k_center", "euclidean", 0.5),
        ("random", "cosine", 0.5),
        ("projected_k_center", "cosine", 0.8),
    ],
)
def test_fit_of_a_coreset_makes_no_copy_of_the_tokens(method, most, metric):
    """What is left: blocks of 34 MiB, the projections, and 0.3 of the tokens to recognise them."""
    X = tokens(80)  # 30 MiB
    scorer = PatchKNNScorer(
        coreset=10, coreset_method=method, metric=metric, random_state=0, topk=0.1
    )
    assert peak(lambda: scorer.fit(X)) < most * X.nbytes + 34 * MEBIBYTE


def test_fit_of_a_coreset_with_masked_patches():
    X = tokens(80)
    X[:, 3, 3] = np.nan
    assert peak(lambda: PatchKNNScorer(coreset=10).fit(X)) < 0.5 * X.nbytes + 34 * MEBIBYTE


def test_fit_without_a_coreset():
    X = tokens(40)  # all are calibrated on
    scorer = PatchKNNScorer(algorithm="brute")
    assert peak(lambda: scorer.fit(X)) < 1.5 * X.nbytes + 60 * MEBIBYTE


@pytest.mark.parametrize("dim, most", [(DIM, 1.0), (96, 1.2)])
@pytest.mark.parametrize("covariance", ["shared", "position"])
def test_fit_of_gaussians(covariance, dim, most):
    X = tokens(60 * DIM // dim, dim=dim)
    scorer = PatchGaussianScorer(covariance, n_components=96, random_state=0)
    gaussians = 0 if covariance == "shared" else 2 * 256 * 96**2 * 4
    assert peak(lambda: scorer.fit(X)) < most * X.nbytes + gaussians + 40 * MEBIBYTE


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("covariance", ["shared", "position"])
@pytest.mark.parametrize("n_components, reduction", [(None, "random"), (32, "random"), (32, "pca")])
def test_folds_of_gaussians_make_no_copy_of_the_tokens(covariance, n_components, reduction, masked):
    """What is left: a tenth of the images, while they are scored, and blocks of 4 MiB."""
    X = np.random.default_rng(0).standard_normal((1500, 4, 4, 256), dtype=np.float32)  # 23 MiB
    if masked:
        X[:, 3, 3] = np.nan
    scorer = PatchGaussianScorer(
        covariance, n_components=n_components, reduction=reduction, random_state=0
    )
    gaussians = 0 if covariance == "shared" else 16 * (n_components or 256) ** 2 * 4
    assert peak(lambda: scorer.fit(X)) < 0.7 * X.nbytes + 3 * gaussians


def test_fit_of_a_subspace_makes_no_copy_of_the_tokens():
    """What is left: blocks, a tenth of the images while they are scored, and 12 matrices."""
    X = tokens(160, dim=192)  # 30 MiB
    matrices = 12 * 192**2 * 8
    assert peak(lambda: PatchSubspaceScorer().fit(X)) < 0.3 * X.nbytes + matrices + 40 * MEBIBYTE


@pytest.mark.parametrize(
    "scorer",
    [
        PatchKNNScorer(coreset=10),
        PatchSubspaceScorer(),
        PatchGaussianScorer("shared"),
        PatchGaussianScorer(n_components=16, random_state=0),
        ScoreUnion([("knn", PatchKNNScorer(coreset=10)), ("all", PatchGaussianScorer("shared"))]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["predict", "score_patches"])
def test_scoring_twice_as_many_images_takes_no_more_memory(scorer, method, monkeypatch):
    for module in (_base, _checked):
        monkeypatch.setattr(module, "PART_BYTES", 3 * MEBIBYTE // 2)  # 4 images
    scorer.fit(tokens(6))
    X = tokens(32, 1)
    score = getattr(scorer, method)
    few, many = (peak(lambda n=n: score(X[:n])) for n in (16, 32))
    # By image 9 bytes a patch of what is checked, 4 of patch scores, twice where they are joined.
    assert many - few < 16 * 256 * (9 + 2 * 4) + MEBIBYTE / 4


@pytest.mark.parametrize("stream", [True, False])
def test_streams_take_no_more_memory_for_more_images(stream, monkeypatch):
    """So does `score_images`, of which only the results grow, whatever `stream` is."""
    for module in (_base, _checked):
        monkeypatch.setattr(module, "PART_BYTES", 3 * MEBIBYTE // 2)

    def embed(image):
        return np.random.default_rng(image[0, 0, 0]).standard_normal((16, 16, DIM), np.float32)

    embedder, scorer = FunctionPatches(embed, stream=stream), PatchGaussianScorer("shared")
    images = [np.full((8, 8, 3), i, dtype=np.uint8) for i in range(32)]
    scorer.fit(np.asarray(embedder.transform(images[:4])))
    pipe = make_pipeline(embedder, scorer)
    pipe.predict(images[:2])
    score = pipe.predict if stream else lambda X: score_images(pipe, X)
    few, many = (peak(lambda n=n: score(images[:n])) for n in (16, 32))
    assert many - few < 16 * 256 * 2 * 4 + MEBIBYTE / 4 < 16 * 256 * DIM * 4 / 2
