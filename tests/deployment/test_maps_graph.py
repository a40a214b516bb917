"""Tests of heat maps in a graph: those of `anomaly_maps` are the oracle."""

import numpy as np
import pytest
from _graphs import function_of
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, anomaly_maps
from skanomaly.core.maps import upsample_map
from skanomaly.datasets import make_surfaces
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._maps import maps_graph
from skanomaly.inspection import score_images

CASES = [
    ((70, 91), (32, 32), 4.0),
    ((1, 1), (3, 5), 4.0),
    ((5, 7), (1, 1), 4.0),
    ((13, 9), (28, 28), 4.0),
    ((64, 50), (2, 1), 0.0),
    ((100, 120), (8, 8), 10.5),
]


@pytest.mark.parametrize("size, grid, sigma", CASES)
@pytest.mark.parametrize("fixed", [True, False])
def test_maps_are_those_of_upsample_map(size, grid, sigma, fixed):
    found = function_of(
        lambda graph, scores, image: maps_graph(
            graph, scores, size if fixed else None, image=image, sigma=sigma
        ),
        ("scores", np.float32, ["batch", *grid]),
        ("image", np.uint8, ["batch", "height", "width", 3]),
        n_axes=3,
    )
    for n_images in (1, 3):
        scores = np.random.default_rng(0).normal(size=(n_images, *grid)).astype(np.float32)
        maps = found(scores, np.zeros((n_images, *size, 3), dtype=np.uint8))
        assert maps.dtype == np.float32 and maps.shape == (n_images, *size)
        expected = np.stack([upsample_map(one, size, sigma) for one in scores])
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5 * np.ptp(scores) + 1e-7)
        assert (maps >= scores.min(axis=(1, 2), keepdims=True)).all()
        assert (maps <= scores.max(axis=(1, 2), keepdims=True)).all()


def test_maps_of_a_pipeline():
    surfaces = make_surfaces(8, 2, image_size=72, random_state=0)
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchGaussianScorer())
    pipe.fit(surfaces.images[:8])
    bad = surfaces.images[8:]
    scores = np.stack(score_images(pipe, bad)[0])
    found = function_of(
        lambda graph, name: maps_graph(graph, name, (72, 72)),
        ("scores", np.float32, ["batch", 8, 8]),
        n_axes=3,
    )(scores)
    expected = anomaly_maps(pipe, bad)
    assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)


def test_without_a_size_the_image_is_needed():
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match="need the image"):
        maps_graph(Graph(), "scores", None)
