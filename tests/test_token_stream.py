"""Tokens that are computed when they are asked for."""

import numpy as np
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    ScoreUnion,
    anomaly_maps,
    create_model,
    p_values,
)
from skanomaly._token_stream import TokenStream
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import score_images
from skanomaly.scorers import _checked

SIDE = 32
SCORERS = [
    PatchKNNScorer(),
    PatchKNNScorer(metric="euclidean", coreset=0.3),
    PatchGaussianScorer("shared"),
    ScoreUnion([("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer())]),
]
METHODS = ["score_samples", "decision_function", "predict", "score_patches", "p_values"]


@pytest.fixture(scope="module")
def images():
    return make_surfaces(20, 3, image_size=SIDE, random_state=0).images


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Four images in a part."""
    monkeypatch.setattr(_checked, "PART_BYTES", 4 * 16 * 102 * 4)


def brightness(image):
    """(grid_h, grid_w, 2); a dark cell is masked."""
    height, width = (side // 8 for side in image.shape[:2])
    cells = image.reshape(height, 8, width, 8, 3).mean(axis=(1, 3, 4))
    tokens = np.stack([cells, cells**2], axis=-1)
    tokens[cells == 0] = np.nan
    return tokens


def test_it_is_the_array_when_that_is_asked_for(images):
    expected = FilterBankPatches(image_size=SIDE).transform(images)
    stream = FilterBankPatches(image_size=SIDE, stream=True).transform(images)
    assert isinstance(stream, TokenStream) and len(stream) == 23
    for _ in range(2):  # again and again
        np.testing.assert_array_equal(np.asarray(stream), expected)
        np.testing.assert_array_equal(list(stream), expected)
    np.testing.assert_array_equal(stream[-2], expected[-2])
    np.testing.assert_array_equal(np.asarray(stream[3:9:2]), expected[3:9:2])
    np.testing.assert_array_equal(np.asarray(stream[[5, 1]])[1], expected[1])
    np.testing.assert_array_equal(np.concatenate(list(stream.blocks(30_000))), expected)
    assert np.asarray(stream, dtype=np.float64).dtype == np.float64
    with pytest.raises(IndexError):
        stream[23]


def test_learning_gets_an_array(images):
    embedder = FilterBankPatches(image_size=SIDE, stream=True)
    for augmentation, shape in ((None, (23, 4, 4, 102)), ("rotate90", (23, 4, 4, 4, 102))):
        found = embedder.set_params(augmentation=augmentation).fit_transform(images)
        assert isinstance(found, np.ndarray) and found.shape == shape


@pytest.mark.parametrize("scorer", SCORERS, ids=repr)
def test_scores_are_those_of_arrays_to_the_bit(scorer, images):
    arrays = make_pipeline(FilterBankPatches(image_size=SIDE), scorer).fit(images[:12])
    streams = make_pipeline(FilterBankPatches(image_size=SIDE, stream=True), scorer)
    tokens, stream = arrays[0].transform(images), streams[0].transform(images)
    for method in METHODS:
        if method != "p_values" or hasattr(scorer, method):
            expected = getattr(scorer, method)(tokens)
            np.testing.assert_array_equal(getattr(scorer, method)(stream), expected)
    np.testing.assert_array_equal(streams.predict(images), arrays.predict(images))
    # A scorer is fitted to a stream as well.
    refitted = type(scorer)(**scorer.get_params(deep=False)).fit(stream[:12])
    np.testing.assert_array_equal(refitted.train_scores_, scorer.train_scores_)


class Counting:
    """Images whose embedding is counted."""

    def __init__(self):
        self.done = []

    def __call__(self, image):
        self.done.append(len(self.done))
        return brightness(image)


def test_no_more_images_are_in_memory_than_are_scored(images):
    counting = Counting()
    pipe = make_pipeline(FunctionPatches(counting, stream=True), PatchKNNScorer(metric="euclidean"))
    pipe.fit(images[:12])
    counting.done.clear()
    stream = pipe[0].transform(images)
    assert counting.done == []
    blocks = stream.blocks(4 * 16 * 2 * 4)
    assert len(next(blocks)) == 4 and len(counting.done) == 5


def test_masked_patches_and_different_grids():
    rng = np.random.default_rng(0)
    good = [rng.integers(1, 255, (16, 8 * (1 + i % 3), 3), dtype=np.uint8) for i in range(11)]
    new = [image.copy() for image in good[::-1]]
    new[4][:8, :8] = 0
    scorer = PatchKNNScorer(metric="euclidean")
    arrays = make_pipeline(FunctionPatches(brightness), scorer).fit(good)
    tokens = arrays[0].transform(new)
    stream = FunctionPatches(brightness, stream=True).transform(new)
    expected, found = scorer.score_patches(tokens), scorer.score_patches(stream)
    assert found.dtype == object
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(scorer.score_samples(stream), scorer.score_samples(tokens))


def test_errors_name_the_image_among_all(images):
    good = list(images)
    pipe = make_pipeline(
        FunctionPatches(brightness, stream=True), PatchKNNScorer(metric="euclidean")
    )
    pipe.fit(good)
    black = [*good[:17], np.zeros((SIDE, SIDE, 3), dtype=np.uint8)]
    for score in (pipe.predict, lambda X: score_images(pipe, X), lambda X: p_values(pipe, X)):
        with pytest.raises(ValueError, match="every patch of image 17 is masked"):
            score(black)
    streaming = make_pipeline(FilterBankPatches(image_size=SIDE, stream=True), PatchKNNScorer())
    with pytest.raises(ValueError, match="image 18"):
        streaming.fit(good).predict([*good[:18], np.zeros((3, 3), dtype=complex)])


def test_a_scorer_that_is_not_fitted_says_so_before_the_work():
    counting = Counting()
    stream = FunctionPatches(counting, stream=True).transform([np.ones((16, 16, 3), np.uint8)])
    with pytest.raises(NotFittedError):
        PatchKNNScorer().predict(stream)
    assert counting.done == []


def test_parameters_are_those_of_transform(images):
    embedder = FilterBankPatches(image_size=SIDE, stream=True)
    stream = embedder.transform(images)
    embedder.set_params(image_size=64)
    assert np.asarray(stream).shape == (23, 4, 4, 102)


def test_steps_between_embedder_and_scorer(images):
    half = FunctionTransformer(lambda X: np.asarray(X)[..., :50])
    scorer = PatchKNNScorer(metric="euclidean")
    arrays = make_pipeline(FilterBankPatches(image_size=SIDE), half, scorer).fit(images[:12])
    streams = make_pipeline(FilterBankPatches(image_size=SIDE, stream=True), half, scorer)
    expected = arrays.score_samples(images)
    np.testing.assert_array_equal(streams.score_samples(images), expected)
    np.testing.assert_array_equal(score_images(arrays, images)[1], expected)


def test_maps_scores_and_p_values_stream_by_themselves(images):
    counting = Counting()
    pipe = make_pipeline(FunctionPatches(counting), PatchKNNScorer(metric="euclidean"))
    pipe.fit(images[:12])
    scorer, tokens = pipe[-1], pipe[0].transform(images)
    grids, scores = score_images(pipe, images)
    np.testing.assert_array_equal(grids, scorer.score_patches(tokens))
    np.testing.assert_array_equal(scores, scorer.score_samples(tokens))
    np.testing.assert_array_equal(p_values(pipe, images), scorer.p_values(tokens))
    assert anomaly_maps(pipe, images).shape == (23, SIDE, SIDE)
    assert pipe[0].stream is False


class ArraysOnly(PatchKNNScorer):
    """A scorer of others, which knows arrays."""

    _takes_streams = False

    def score_patches(self, X, return_scores=False):
        assert isinstance(X, np.ndarray)
        return super().score_patches(X, return_scores)


def test_a_scorer_that_knows_no_streams_gets_an_array(images):
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), ArraysOnly()).fit(images[:12])
    assert len(score_images(pipe, images)[0]) == 23


def test_the_cache_serves_streams(images, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(6)]
    for image, file in zip(images, files, strict=False):
        Image.fromarray(image).save(file)
    embedder = FilterBankPatches(image_size=SIDE, cache_dir=tmp_path / "cache", stream=True)
    first = np.asarray(embedder.transform(files))
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 6
    np.testing.assert_array_equal(np.asarray(embedder.transform(files)), first)


def test_models_by_name_take_it():
    assert create_model("filterbank", stream=True)[0].stream is True
