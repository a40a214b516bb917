"""Views that fit_transform adds: of the image before it is resized, and left out with it."""

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, load_model, save_model
from skanomaly._recipes import fingerprint_of
from skanomaly.core.views import MOST_PIXELS, rotate_image, shrunk_size, views_of
from skanomaly.datasets import make_surfaces


def photographs(n, height, width, deep=False):
    """Smooth images of distinct colours, whose views differ."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(n):
        small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(small).resize((width, height)))
        images.append((image / 255).astype(np.float32) if deep else image)
    return images


@pytest.mark.parametrize("deep", [False, True], ids=["uint8", "float32"])
@pytest.mark.parametrize("resize, grid", [("squash", (3, 3)), ("shortest_edge", (3, 4))])
def test_images_are_turned_before_they_are_resized(resize, grid, deep):
    images = photographs(2, 60, 80, deep)
    plain = FilterBankPatches(image_size=24, resize=resize)
    embedder = clone(plain).set_params(augmentation="rotate45")
    tokens = embedder.fit_transform(images)
    assert tokens.shape == (2, 8, *grid, 102) and tokens.dtype == np.float32
    np.testing.assert_array_equal(embedder.transform(images), plain.transform(images))
    for v in range(8):
        expected = plain.transform([rotate_image(image, 45 * v) for image in images])
        np.testing.assert_array_equal(tokens[:, v], expected)
    assert len(np.unique(tokens[0].reshape(8, -1), axis=0)) == 8


def test_a_list_makes_the_views_of_all_its_parts():
    images = photographs(2, 40, 40)
    plain = FilterBankPatches(image_size=16)
    tokens = clone(plain).set_params(augmentation=("rotate90", 30, "brightness"))
    tokens = tokens.fit_transform(images)
    assert tokens.shape[:2] == (2, 9)
    thirty = plain.transform([rotate_image(image, 30) for image in images])
    np.testing.assert_array_equal(tokens[:, 4], thirty)
    small = [np.asarray(Image.fromarray(image).resize((16, 16), 3)) for image in images]
    quarter = plain.transform([np.rot90(image) for image in small])
    np.testing.assert_array_equal(tokens[:, 1], quarter)
    for v, factor in zip(range(5, 9), (0.8, 0.9, 1.1, 1.2), strict=True):
        levels = [np.minimum(np.rint(image * factor), 255).astype(np.uint8) for image in small]
        np.testing.assert_array_equal(tokens[:, v], plain.transform(levels))


def test_large_images_are_shrunk_before_they_are_turned():
    (image,) = photographs(1, 1500, 3000)
    height, width = shrunk_size((1500, 3000), (16, 32))
    assert height * width <= MOST_PIXELS < 1500 * 3000
    embedder = FilterBankPatches(image_size=16, resize="shortest_edge", augmentation=[45])
    tokens = embedder.fit_transform([image])
    smaller = np.asarray(Image.fromarray(image).resize((width, height), 3))
    expected = embedder.transform([rotate_image(smaller, 45)])
    np.testing.assert_array_equal(tokens[:, 1], expected)
    np.testing.assert_array_equal(tokens[:, 0], embedder.transform([image]))


def test_views_of_several_grids_name_the_image():
    images = [*photographs(2, 32, 48), *photographs(1, 48, 32)]
    embedder = FilterBankPatches(image_size=16, resize="shortest_edge", augmentation="rotate45")
    with pytest.raises(ValueError, match=r"image 2 has 3 x 2 patches where image 0 has 2 x 3"):
        embedder.fit_transform(images)
    with pytest.raises(ValueError, match=r"need one square grid, and image 0 has 2 x 3"):
        embedder.set_params(augmentation=["rotate45", "rotate90"]).fit_transform(images[:2])


def test_the_cache_knows_a_view_whatever_names_it(tmp_path, monkeypatch):
    embedded = []
    embed = FilterBankPatches._embed_batch
    monkeypatch.setattr(
        FilterBankPatches,
        "_embed_batch",
        lambda self, images: embedded.extend(images) or embed(self, images),
    )
    images = photographs(2, 32, 40)
    embedder = FilterBankPatches(image_size=16, augmentation="rotate45", cache_dir=tmp_path)
    views = embedder.fit_transform(images)
    assert len(embedded) == 16
    part = embedder.set_params(augmentation=[90, 45]).fit_transform(images)
    np.testing.assert_array_equal(part, views[:, [0, 2, 1]])
    assert len(embedded) == 16
    embedder.set_params(augmentation=["brightness", 45]).fit_transform(images)
    assert len(embedded) == 16 + 8
    fresh = clone(embedder).set_params(cache_dir=None).fit_transform(images)
    np.testing.assert_array_equal(embedder.fit_transform(images), fresh)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("n_neighbors", [1, 3])
def test_a_training_image_is_scored_without_all_of_its_views(metric, n_neighbors):
    images = make_surfaces(4, image_size=32, random_state=0).images
    embedder = FilterBankPatches(image_size=32, augmentation=["rotate45", "brightness"])
    scorer = PatchKNNScorer(n_neighbors, metric=metric, contamination=0.25)
    pipe = make_pipeline(embedder, scorer)
    predicted = pipe.fit_predict(images)
    tokens = embedder.fit_transform(images).astype(float)
    assert tokens.shape[1] == len(views_of(embedder.augmentation)) == 12
    if metric == "cosine":
        tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    scores = []
    for i in range(4):
        bank = np.delete(tokens, i, axis=0).reshape(-1, 102)
        distances = []
        for token in tokens[i, 0].reshape(-1, 102):
            each = 1 - bank @ token
            if metric == "euclidean":
                each = np.sqrt(((bank - token) ** 2).sum(axis=1))
            distances.append(np.sort(each)[:n_neighbors].mean())
        scores.append(-max(distances))  # 16 patches, of which 1% is one
    np.testing.assert_allclose(scorer.train_scores_, scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predicted, pipe.predict(images))


@pytest.mark.parametrize("augmentation", ["rotate45", [10, -10], ("brightness", 45.5)], ids=str)
def test_models_keep_their_views(tmp_path, augmentation):
    images = make_surfaces(4, image_size=32, random_state=0).images
    embedder = FilterBankPatches(image_size=32, augmentation=augmentation)
    pipe = make_pipeline(embedder, PatchKNNScorer(metric="euclidean"))
    plain = fingerprint_of(clone(pipe).set_params(filterbankpatches__augmentation=None))
    assert plain != fingerprint_of(pipe)
    pipe.fit(images)
    save_model(pipe, tmp_path / "model.skan")
    loaded = load_model(tmp_path / "model.skan")
    assert loaded[0].augmentation == augmentation
    np.testing.assert_array_equal(loaded.score_samples(images), pipe.score_samples(images))


def test_a_search_over_views():
    images = make_surfaces(6, image_size=32, random_state=0).images
    pipe = make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer(metric="euclidean"))
    choices = [None, "rotate45", [15, -15]]
    search = GridSearchCV(
        pipe,
        {"filterbankpatches__augmentation": choices},
        scoring=lambda estimator, X, y=None: estimator.score_samples(X).mean(),
        cv=2,
    ).fit(images)
    assert list(search.cv_results_["param_filterbankpatches__augmentation"]) == choices
    # More of what is normal is nearer to everything.
    assert search.best_params_["filterbankpatches__augmentation"] is not None
