"""Tests of FunctionPatches."""

import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from _adapters import assert_same, cell_means, random_image, random_images
from PIL import Image
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skanomaly import FunctionPatches, ImageReadError, PatchKNNScorer

X = random_images((32, 32), (40, 24), (9, 70))


def patches_and_grid(image):
    tokens = cell_means(image)
    return tokens.reshape(16, 3), (4, 4)


def cells_of_8(image):
    """One token a cell of 8x8 pixels: the grid follows the image."""
    grid_h, grid_w = image.shape[0] // 8, image.shape[1] // 8
    cells = image[: grid_h * 8, : grid_w * 8].reshape(grid_h, 8, grid_w, 8, 3)
    return cells.mean(axis=(1, 3))


class Reader:
    """Embeds paths, as some other packages do, and remembers what it was given."""

    def __init__(self):
        self.seen = []

    def embed(self, path):
        self.seen.append(path)
        with Image.open(path) as image:
            tokens = cells_of_8(np.asarray(image))
            grid, size = tokens.shape[:2], image.size[::-1]
        return tokens.reshape(-1, 3), grid, size


@pytest.fixture
def paths(tmp_path):
    paths = []
    for i, image in enumerate(random_images((16, 24), (16, 24))):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def test_a_function_of_an_image():
    tokens = FunctionPatches(cell_means).transform(X)
    assert (tokens.dtype, tokens.shape) == (np.float32, (3, 4, 4, 3))
    assert tokens.flags.c_contiguous
    for image, item in zip(X, tokens, strict=True):
        assert_same(item, cell_means(image).astype(np.float32))


def test_patches_with_their_grid():
    expected = FunctionPatches(cell_means).transform(X)
    assert_same(FunctionPatches(patches_and_grid).transform(X), expected)


def test_tokens_with_their_grid():
    func = FunctionPatches(lambda image: (cell_means(image), (4, 4)))
    assert_same(func.transform(X), FunctionPatches(cell_means).transform(X))


def test_the_grid_is_in_rows():
    func = FunctionPatches(lambda image: (np.arange(6).reshape(6, 1), np.array([2, 3])))
    assert func.transform(X[:1])[0, ..., 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_mixed_grids():
    tokens = FunctionPatches(cells_of_8).transform(X)
    assert (tokens.dtype, tokens.shape) == (object, (3,))
    assert [item.shape for item in tokens] == [(4, 4, 3), (5, 3, 3), (1, 8, 3)]
    for image, item in zip(X, tokens, strict=True):
        assert item.flags.c_contiguous
        assert_same(item, cells_of_8(image).astype(np.float32))


@pytest.mark.parametrize(
    "image, dtype",
    [
        (random_image(8, 8), np.uint8),
        (random_image(8, 8)[..., 0], np.uint8),
        (np.full((8, 8), 65535, np.uint16), np.float32),
        (np.ones((8, 8, 3)), np.float32),
    ],
    ids=["RGB", "grey", "uint16", "float"],
)
def test_the_function_is_given_rgb_arrays(image, dtype):
    seen = []

    def func(array):
        seen.append((type(array), array.shape, array.dtype, array.max() <= 255))
        return np.ones((1, 1, 1))

    FunctionPatches(func).transform([image])
    assert seen == [(np.ndarray, (8, 8, 3), dtype, True)]


@pytest.mark.parametrize("kind", [str, Path, lambda path: path.read_bytes()])
def test_the_function_is_given_decoded_files(paths, kind):
    embedder = FunctionPatches(cells_of_8)
    arrays = random_images((16, 24), (16, 24))
    assert_same(embedder.transform([kind(path) for path in paths]), embedder.transform(arrays))


@pytest.mark.parametrize("kind", [str, Path])
def test_an_object_is_given_the_items_as_they_are(paths, kind):
    reader = Reader()
    items = [kind(path) for path in paths]
    tokens = FunctionPatches(reader).transform(items)
    assert all(seen is item for seen, item in zip(reader.seen, items, strict=True))
    assert_same(tokens, FunctionPatches(cells_of_8).transform(paths))


def test_an_objects_items_need_not_be_images():
    class Table:
        def embed(self, key):
            return np.full((2, 5), {"a": 1, "b": 2}[key]), (1, 2), (8, 16)

    tokens = FunctionPatches(Table()).transform(["a", "b"])
    assert tokens.shape == (2, 1, 2, 5)
    assert tokens[:, 0, 0, 0].tolist() == [1, 2]


def test_an_object_may_return_tokens_alone():
    class Table:
        def __init__(self, shape):
            self.shape = shape

        def embed(self, key):
            return np.arange(np.prod(self.shape), dtype=float).reshape(self.shape)

    assert FunctionPatches(Table((2, 3, 5))).transform(["a"]).shape == (1, 2, 3, 5)
    tokens = FunctionPatches(Table((4, 5))).transform(["a"])
    assert_same(tokens, FunctionPatches(Table((2, 2, 5))).transform(["a"]))
    with pytest.raises(ValueError, match="image 0: 6 patches are no square grid"):
        FunctionPatches(Table((6, 5))).transform(["a"])


BAD = {
    "None": None,
    "number": 3.0,
    "one axis": np.zeros(4),
    "patches without grid": np.zeros((4, 2)),
    "four axes": np.zeros((1, 2, 2, 3)),
    "no patches": np.zeros((0, 2, 3)),
    "no channels": np.zeros((2, 2, 0)),
    "complex": np.zeros((2, 2, 3), complex),
    "object": np.full((2, 2, 3), None),
    "strings": np.full((2, 2, 3), "a"),
    "dates": np.zeros((2, 2, 3), "datetime64[s]"),
    "ragged": [[[1], [2, 3]]],
    "too few patches": (np.zeros((5, 2)), (2, 3)),
    "too many patches": (np.zeros((7, 2)), (2, 3)),
    "grid of one side": (np.zeros((4, 2)), (4,)),
    "grid of three sides": (np.zeros((4, 2)), (1, 2, 2)),
    "grid as a number": (np.zeros((4, 2)), 4),
    "negative grid": (np.zeros((4, 2)), (-2, -2)),
    "empty grid": (np.zeros((0, 2)), (0, 3)),
    "fractional grid": (np.zeros((4, 2)), (1.6, 2.5)),
    "lone patches": (np.zeros((4, 2)),),
    "numbers": (1, 2, 3),
}


@pytest.mark.parametrize("result", BAD.values(), ids=BAD)
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_result_that_is_no_tokens_is_refused_with_its_image(result, n_jobs):
    def func(image):
        return result if image.shape == X[1].shape else cell_means(image)

    with pytest.raises(ValueError, match=r"func .* image 1\b"):
        FunctionPatches(func, n_jobs=n_jobs).transform(X)


@pytest.mark.parametrize("result", [None, 3, (np.zeros((4, 2)),), (np.zeros((4, 2)), 4, 8)])
def test_an_object_with_a_wrong_result_is_refused(result):
    class Wrong:
        def embed(self, item):
            return result

    with pytest.raises(ValueError, match=r"func .* image 0\b"):
        FunctionPatches(Wrong()).transform(X)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e39, -1e300])
def test_values_that_are_not_finite_are_refused_with_their_image(value):
    def func(image):
        tokens = cell_means(image)
        if image.shape == X[2].shape:
            tokens[1, 2, 0] = value
        return tokens.astype(np.float64)

    with pytest.raises(ValueError, match="image 2 is not finite"):
        FunctionPatches(func).transform(X)


def test_a_patch_of_nan_in_all_components_is_masked():
    def func(image):
        tokens = cell_means(image)
        tokens[1, 2] = np.nan
        return tokens

    masked = np.isnan(FunctionPatches(func).transform(X)).all(axis=-1)
    assert np.argwhere(masked).tolist() == [[0, 1, 2], [1, 1, 2], [2, 1, 2]]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64"])
def test_tokens_of_any_real_dtype(dtype):
    values = np.arange(8).reshape(2, 2, 2).astype(dtype)
    tokens = FunctionPatches(lambda image: values).transform(X)
    assert tokens.dtype == np.float32
    np.testing.assert_array_equal(tokens, np.stack([values] * 3))


def test_tensors_of_torch():
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12.0, requires_grad=True).reshape(2, 2, 3)
    tokens = FunctionPatches(lambda image: tensor).transform(random_images((8, 8)))
    np.testing.assert_array_equal(tokens, np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3))


def test_tokens_are_copied():
    """A function may use one buffer for all its results."""
    buffer = np.zeros((4, 4, 3), np.float32)

    def func(image):
        buffer[:] = cell_means(image)
        return buffer

    tokens = FunctionPatches(func).transform(X)
    assert_same(tokens, FunctionPatches(cell_means).transform(X))


def test_errors_of_the_function_are_its_own():
    def func(image):
        raise ZeroDivisionError("my own")

    with pytest.raises(ZeroDivisionError, match="my own"):
        FunctionPatches(func).transform(X)


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_errors_of_the_function_are_not_disguised(error):
    def func(image):
        raise error("my own")

    with pytest.raises(error) as caught:
        FunctionPatches(func).transform(X)
    assert caught.value.args == ("my own",)
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["raised by func for image 0"]


def test_a_broken_image_is_named():
    with pytest.raises(ImageReadError, match="image 1 "):
        FunctionPatches(cell_means).transform([X[0], b"no image"])


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_n_jobs(n_jobs):
    images = random_images(*[(32, 32)] * 9)
    expected = np.stack([cell_means(image) for image in images]).astype(np.float32)
    assert_same(FunctionPatches(cell_means, n_jobs=n_jobs).transform(images), expected)


def test_clone_and_pickle(tmp_path):
    embedder = FunctionPatches(patches_and_grid, n_jobs=2)
    assert clone(embedder).func is patches_and_grid
    joblib.dump(embedder, tmp_path / "embedder")
    loaded = joblib.load(tmp_path / "embedder")
    assert loaded.func is patches_and_grid
    assert_same(loaded.transform(X), embedder.transform(X))


def test_clone_copies_an_object_that_embeds(paths):
    embedder = FunctionPatches(Reader())
    copy = clone(embedder)
    assert_same(copy.transform(paths), embedder.transform(paths))
    assert copy.func is not embedder.func


def test_in_a_pipeline():
    good = random_images(*[(32, 32)] * 8)
    bad = [255 - image for image in good[:2]]
    pipeline = make_pipeline(FunctionPatches(cell_means), PatchKNNScorer(metric="euclidean"))
    assert pipeline.fit(good).predict(bad).tolist() == [-1, -1]
