"""Heat maps of images, and pictures of them."""

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import OneClassSVM

from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    anomaly_maps,
    p_values,
)
from skanomaly.core.maps import upsample_map
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import (
    AnomalyMapDisplay,
    color_limits,
    colour_table,
    overlay_map,
    score_images,
)
from skanomaly.model_selection import OneClassSplit


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(
        20, 5, surface="fabric", image_size=96, defects="missing_piece", random_state=1
    )


@pytest.fixture(scope="module")
def pipe(surfaces):
    pipe = make_pipeline(FilterBankPatches(image_size=96), PatchGaussianScorer(neighborhood=3))
    return pipe.fit(surfaces.images[:20])


def test_maps_show_where(pipe, surfaces):
    bad, masks = surfaces.images[20:], surfaces.masks[20:]
    maps, scores = anomaly_maps(pipe, bad, return_scores=True)
    assert maps.shape == (5, 96, 96) and maps.dtype == np.float32
    np.testing.assert_array_equal(scores, pipe.score_samples(bad))
    for heat, mask in zip(maps, masks, strict=True):
        assert heat[mask].mean() > np.quantile(heat[~mask], 0.95)


def test_size_and_stack(pipe, surfaces, tmp_path):
    image = surfaces.images[0]
    wide = np.concatenate([image, image[:, :30]], axis=1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    images = [image, tmp_path / "wide.png", image[:8, :8]]
    maps = anomaly_maps(pipe, images)
    assert [m.shape for m in maps] == [(96, 96), (96, 126), (8, 8)]
    assert all(m.dtype == np.float32 and np.isfinite(m).all() for m in maps)
    with pytest.raises(ValueError, match="image 1 is \\(96, 126\\)"):
        anomaly_maps(pipe, images, stack=True)
    assert anomaly_maps(pipe, images, size=(50, 40)).shape == (3, 50, 40)
    assert isinstance(anomaly_maps(pipe, surfaces.images[:2], stack=False), list)
    for sigma in (-1, np.inf, np.nan, "4", None, True):
        with pytest.raises(ValueError, match="sigma must be"):
            anomaly_maps(pipe, images, sigma=sigma)
    for size in ("grid", (0, 5), (3,), (2.5, 3), 5, None, (True, 2)):
        with pytest.raises(ValueError, match="size must be"):
            anomaly_maps(pipe, images, size=size)


def test_map_is_the_upsampled_grid(pipe, surfaces):
    bad = surfaces.images[20:22]
    grids = pipe[-1].score_patches(pipe[:-1].transform(bad))
    for sigma in (0, 4):
        for grid, heat in zip(grids, anomaly_maps(pipe, bad, sigma=sigma), strict=True):
            np.testing.assert_array_equal(heat, upsample_map(grid, (96, 96), sigma))


def test_searches_and_nested_pipelines(pipe, surfaces):
    bad = surfaces.images[20:]
    expected = anomaly_maps(pipe, bad)
    nested = make_pipeline(pipe[0], make_pipeline("passthrough", pipe[1]))
    np.testing.assert_array_equal(anomaly_maps(nested, bad), expected)
    images, y = surfaces.images[12:], np.r_[np.ones(8), -np.ones(5)]
    small = make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer())
    search = GridSearchCV(
        small, {"patchknnscorer__topk": [0.1]}, scoring="roc_auc", cv=OneClassSplit(2)
    ).fit(images, y)
    np.testing.assert_array_equal(
        anomaly_maps(search, bad), anomaly_maps(search.best_estimator_, bad)
    )
    # A search as the last step.
    inner = GridSearchCV(small[1], {"topk": [0.1]}, scoring="roc_auc", cv=OneClassSplit(2))
    inner = make_pipeline(small[0], inner).fit(images, y)
    np.testing.assert_array_equal(anomaly_maps(inner, bad), anomaly_maps(search, bad))
    np.testing.assert_array_equal(p_values(inner, bad), p_values(search, bad))
    best = search.best_estimator_
    np.testing.assert_array_equal(
        p_values(search, bad), best[-1].p_values(best[:-1].transform(bad))
    )


def test_pairs_are_maps_and_scores(pipe, surfaces):
    bad = surfaces.images[20:]
    grids, scores = score_images(pipe, bad)
    assert [grid.shape for grid in grids] == [(12, 12)] * 5
    np.testing.assert_array_equal(scores, pipe.score_samples(bad))


def test_p_values(pipe, surfaces):
    values = p_values(pipe, surfaces.images[20:])
    assert values.shape == (5,) and ((1 / 21 <= values) & (values < 0.3)).all()
    with pytest.raises(NotFittedError):
        p_values(make_pipeline(FilterBankPatches(), PatchKNNScorer()), surfaces.images)
    with pytest.raises(TypeError, match="takes patch tokens, not images"):
        p_values(pipe[-1], surfaces.images)
    with pytest.raises(TypeError, match="_Detector has no p_values"):
        p_values(_Detector().fit(None), surfaces.images)


def test_errors_name_the_image(pipe, surfaces):
    images = [*surfaces.images[:3]] * 30
    images[70] = np.full((96, 96, 3), np.nan)
    with pytest.raises(ValueError, match="image 70 "):
        anomaly_maps(pipe, images, size=(8, 8))


def test_mixed_grids(surfaces):
    images = [surfaces.images[i][: 48 + 16 * (i % 3)] for i in range(6)]
    pipe = make_pipeline(FilterBankPatches(image_size=64, resize="shortest_edge"), PatchKNNScorer())
    maps = anomaly_maps(pipe.fit(images), images)
    assert [m.shape for m in maps] == [i.shape[:2] for i in images]


class _Detector(BaseEstimator):
    def fit(self, images, y=None):
        self.fitted_ = True
        return self

    def decision_function(self, images):
        return self.score_samples(images) + 0.5

    def predict(self, images):
        return np.where(self.decision_function(images) < 0, -1, 1)

    def score_maps(self, images, size="image", return_scores=False):
        maps = [np.ones((4, 4), dtype=np.float32) for _ in images]
        return (maps, self.score_samples(images)) if return_scores else maps

    def score_samples(self, images):
        return -np.arange(len(images), dtype=float)


def test_image_detector(surfaces):
    maps, scores = anomaly_maps(_Detector().fit(None), surfaces.images[:3], return_scores=True)
    assert (maps == 1).all() and maps.shape == (3, 96, 96)
    assert scores.tolist() == [0, -1, -2]
    behind = make_pipeline(FunctionTransformer(lambda images: images[:2]), _Detector().fit(None))
    assert score_images(behind, surfaces.images[:3])[1].tolist() == [0, -1]


def test_errors(pipe, surfaces):
    with pytest.raises(NotFittedError):
        anomaly_maps(make_pipeline(FilterBankPatches(), PatchKNNScorer()), surfaces.images)
    with pytest.raises(TypeError, match="takes patch tokens, not images"):
        anomaly_maps(pipe[-1], surfaces.images)
    with pytest.raises(TypeError, match="OneClassSVM has no score_patches"):
        anomaly_maps(make_pipeline(FilterBankPatches(), OneClassSVM()), surfaces.images)
    flat = make_pipeline(
        FilterBankPatches(image_size=96),
        FunctionTransformer(lambda X: X.reshape(len(X), -1, X.shape[-1])),
        PatchKNNScorer(),
    ).fit(surfaces.images[:5])
    with pytest.raises(TypeError, match="maps need tokens"):
        anomaly_maps(flat, surfaces.images[:2])


def test_overlay():
    image = np.full((40, 60, 3), 0.5, dtype=np.float32)
    heat = np.zeros((40, 60))
    heat[10, 10], heat[20, 20] = 5, 10
    picture = overlay_map(image, heat, (2, 8))
    assert picture.shape == (40, 60, 3) and picture.dtype == np.uint8
    assert (picture[0, 0] == 128).all()  # below the lower limit: the image itself
    assert picture[20, 20].tolist() == [158, 54, 166]  # above the upper limit: violet
    assert picture[10, 10, 0] > picture[10, 10, 1] > picture[10, 10, 2]  # between: orange
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:25, 5:25] = True
    outlined = overlay_map(image, np.zeros((40, 60)), (0, 1), mask)
    assert (outlined[5, 5] == 255).all() and (outlined[6, 6] == 0).all()
    assert (outlined[12, 12] == 128).all()
    with pytest.raises(ValueError, match="the map is"):
        overlay_map(image, heat[:5], (0, 1))
    with pytest.raises(ValueError, match="limits must be"):
        overlay_map(image, heat, (1, 0))
    with pytest.raises(ValueError, match="holds NaN"):
        overlay_map(image, heat * np.nan, (0, 1))
    # Equal limits, as of constant maps: nothing is hot, and nothing divides by zero.
    assert (overlay_map(image, np.ones((40, 60)), (1, 1)) == 128).all()
    # What is clear is the image to the last grey level, in every block of rows.
    tall = np.random.default_rng(0).integers(0, 256, (1100, 1000, 3)).astype(np.uint8)
    heat = np.zeros(tall.shape[:2])
    heat[-1, -1] = 1
    picture = overlay_map(tall, heat, (0, 1))
    np.testing.assert_array_equal(picture[:-1], tall[:-1])
    expected = 0.25 * tall[-1, -1] + 0.75 * colour_table()[-1, :3]
    np.testing.assert_allclose(picture[-1, -1], expected, atol=1)


def test_pictures_of_deep_images_are_neither_black_nor_errors():
    ramp = np.arange(0, 256, 5, dtype=np.uint8).reshape(4, 13)
    heat = np.zeros(ramp.shape)
    expected = overlay_map(ramp, heat, (0, 1)).astype(int)
    twelve = ramp.astype(np.uint16) * np.uint16(16)
    degrees = (20 + ramp / 255 * 60).astype(np.float32)
    for deep in (twelve, degrees, Image.fromarray(degrees), ramp.astype(np.int16) - 100):
        assert np.abs(overlay_map(deep, heat, (0, 1)) - expected).max() <= 1


def test_display(pipe, surfaces):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    images = list(surfaces.images[18:23])
    display = AnomalyMapDisplay.from_estimator(pipe, images, n_columns=3)
    assert display.axes_.shape == (5,)
    np.testing.assert_array_equal(display.maps, anomaly_maps(pipe, images))
    assert display.limits == color_limits(pipe)
    for axis, image, heat in zip(display.axes_, images, display.maps, strict=True):
        (shown,) = axis.get_images()
        np.testing.assert_array_equal(shown.get_array(), overlay_map(image, heat, display.limits))
    assert display.axes_[4].get_title() == f"anomalous, score {display.scores[4]:.3g}"
    matplotlib.pyplot.close(display.figure_)
    for wrong in ({"n_columns": True}, {"n_columns": 0}, {"limits": (1, 0)}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            AnomalyMapDisplay.from_estimator(None, None, **wrong)
