"""Any number of images, judged in bounded memory."""

import threading
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skanomaly import (
    AnomalibDetector,
    Failure,
    FilterBankPatches,
    FunctionPatches,
    ImageReadError,
    PatchGaussianScorer,
    PatchKNNScorer,
    decide,
    iter_scores,
    p_values,
)
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import IMAGE_SCORERS

SIDE = 32
N_GOOD = 10


@pytest.fixture(scope="module")
def images():
    return list(make_surfaces(40, 3, image_size=SIDE, random_state=0).images)


def cells(image):
    """The mean colour of each cell; a black one is masked."""
    height, width = (side // 8 for side in image.shape[:2])
    tokens = image.reshape(height, 8, width, 8, 3).mean(axis=(1, 3))
    tokens[tokens.sum(axis=-1) == 0] = np.nan
    return tokens


def half(tokens):
    return tokens / 2


class Darkness:
    """An inferencer that fails at what it cannot read."""

    def predict(self, image):
        if isinstance(image, (str, Path)):
            with Image.open(image) as opened:
                image = np.asarray(opened)
        dark = 1 - image.mean(axis=2) / 255
        return {"pred_score": dark.mean(), "anomaly_map": dark}


class Inverted:
    """A step before the embedder."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return [255 - np.asarray(image) for image in X]

    def fit_transform(self, X, y=None):
        return self.transform(X)


class Plain(FilterBankPatches):
    """An embedder of others, which may do anything in `transform`."""

    def transform(self, X):
        return np.asarray(super().transform(X))


def filter_bank(**options):
    return FilterBankPatches(image_size=SIDE, **options)


DETECTORS = {
    "gaussian": lambda: make_pipeline(filter_bank(batch_size=3), PatchGaussianScorer("shared")),
    "knn": lambda: make_pipeline(filter_bank(stream=True), PatchKNNScorer()),
    "nested": lambda: make_pipeline(
        make_pipeline(filter_bank(), "passthrough"),
        make_pipeline(FunctionTransformer(half), PatchKNNScorer(metric="euclidean")),
    ),
    "function": lambda: make_pipeline(FunctionPatches(cells), PatchKNNScorer(metric="euclidean")),
    "detector": lambda: AnomalibDetector(inferencer=Darkness()),
    "before": lambda: make_pipeline(Inverted(), filter_bank(), PatchKNNScorer()),
    "other": lambda: make_pipeline(Plain(image_size=SIDE), PatchKNNScorer()),
}


@pytest.fixture(scope="module")
def fitted(images):
    return {name: make().fit(images[:N_GOOD]) for name, make in DETECTORS.items()}


def scores_of(results):
    return [result.score for result in results]


@pytest.mark.parametrize("batch_size", [1, 2, 7, 16, 100])
@pytest.mark.parametrize("name", DETECTORS)
def test_scores_are_those_of_the_whole_to_the_bit(fitted, images, name, batch_size):
    pipe = fitted[name]
    found = list(iter_scores(pipe, images, batch_size=batch_size))
    np.testing.assert_array_equal(scores_of(found), pipe.score_samples(images))
    np.testing.assert_array_equal([one.p_value for one in found], p_values(pipe, images))
    assert [one.is_anomalous for one in found] == list(pipe.predict(images) == -1)
    assert [one.index for one in found] == list(range(len(images)))
    assert all(one.image is image for one, image in zip(found, images, strict=True))
    for one, other in zip(found, decide(pipe, images), strict=True):
        assert one == other
        np.testing.assert_array_equal(one.patch_scores, other.patch_scores)


def test_a_search(images):
    pipe = make_pipeline(filter_bank(), PatchKNNScorer())
    grid = {"patchknnscorer__topk": [1, 2]}
    y, cv = [1] * 40 + [-1] * 3, [(range(30), range(30, 43))]
    search = GridSearchCV(pipe, grid, scoring=IMAGE_SCORERS["image_auroc"], cv=cv).fit(images, y)
    expected = search.score_samples(images)
    np.testing.assert_array_equal(scores_of(iter_scores(search, images)), expected)


def test_images_of_different_grids():
    rng = np.random.default_rng(0)
    images = [rng.integers(1, 255, (16, 8 * (1 + i % 3), 3), dtype=np.uint8) for i in range(20)]
    pipe = make_pipeline(FunctionPatches(cells), PatchKNNScorer(metric="euclidean")).fit(images)
    expected = pipe.score_samples(images)
    np.testing.assert_array_equal(scores_of(iter_scores(pipe, images, batch_size=5)), expected)


def containers(images, folder):
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    paths = [folder / f"{i}.png" for i in range(len(images))]
    yield paths
    yield (str(path) for path in paths)
    yield pd.Series(paths)
    yield deque(path.read_bytes() for path in paths)
    yield np.stack(images)
    yield map(Image.open, paths)


def test_whatever_gives_images(fitted, images, tmp_path):
    expected = fitted["knn"].score_samples(images[:12])
    for container in containers(images[:12], tmp_path):
        found = iter_scores(fitted["knn"], container, batch_size=5)
        np.testing.assert_array_equal(scores_of(found), expected)
    assert list(iter_scores(fitted["knn"], [])) == list(iter_scores(fitted["knn"], iter(()))) == []


def test_a_buffer_may_be_used_again(fitted, images, tmp_path):
    """Each image is judged, and kept, as it was when it came."""
    buffer = np.empty_like(images[0])
    data = bytearray(10**6)
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)

    def arrays():
        for image in images:
            buffer[:] = image
            yield buffer

    def pictures():
        """Of modes whose pixels Pillow leaves where they are."""
        shared = np.full((*images[0].shape[:2], 4), 255, dtype=np.uint8)
        picture = Image.frombuffer("RGBA", shared.shape[1::-1], shared, "raw", "RGBA", 0, 1)
        for image in images:
            shared[..., :3] = image
            yield picture

    def files():
        for path in paths:
            content = path.read_bytes()
            data[: len(content)] = content
            yield memoryview(data)[: len(content)]

    class Lazy(Sequence):
        def __len__(self):
            return len(images)

        def __getitem__(self, i):
            buffer[:] = images[i]
            return buffer

    pipe = fitted["knn"]
    expected = pipe.score_samples(images)
    for make in (arrays, pictures, files, Lazy):
        for batch_size in (1, 5, 16):
            found = list(iter_scores(pipe, make(), batch_size=batch_size))
            np.testing.assert_array_equal(scores_of(found), expected)
            kept = pipe.score_samples([one.image for one in found])
            np.testing.assert_array_equal(kept, expected)


def test_what_holds_all_images_is_not_copied(fitted, images):
    for container in (images, tuple(images)):
        found = iter_scores(fitted["knn"], container, batch_size=5)
        assert all(one.image is image for one, image in zip(found, images, strict=True))
    stacked = np.stack(images)
    assert all(np.shares_memory(one.image, stacked) for one in iter_scores(fitted["knn"], stacked))


class Followed(np.ndarray):
    """An image whose copies count as its source's."""

    def copy(self, order="C"):
        copy = np.array(self, order=order)
        self.source.n_alive += 1
        weakref.finalize(copy, self.source._end)
        return copy


class Source:
    """Images whose lives and number are followed."""

    def __init__(self, images):
        self.images, self.n_asked, self.n_alive = images, 0, 0

    def __iter__(self):
        for image in self.images:
            self.n_asked += 1
            followed = image.view(Followed)
            followed.source = self
            yield followed

    def _end(self):
        self.n_alive -= 1


@pytest.mark.parametrize("name", DETECTORS)
def test_no_more_is_asked_for_than_is_bounded(fitted, images, name):
    source = Source(images * 5)
    threads = 8  # at most
    for done, _ in enumerate(iter_scores(fitted[name], source, batch_size=4)):
        assert source.n_asked - done <= 2 * 4 + threads
        assert 0 < source.n_alive <= 3 * 4 + threads
    assert source.n_asked == len(images) * 5


@pytest.mark.parametrize("name", DETECTORS)
def test_with_batches_of_one_no_image_waits_for_the_next(fitted, images, name):
    source = Source(images)
    for done, _ in enumerate(iter_scores(fitted[name], source, batch_size=1), 1):
        assert source.n_asked == done


def broken(images, tmp_path):
    """Images as files, the numbers of some that are none, and words of what is said of each."""
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    paths[3].write_bytes(b"a text")
    paths[4].write_bytes(paths[4].read_bytes()[:100])
    paths[17] = tmp_path / "missing.png"
    paths[30].write_bytes(b"")
    return paths, {3: "not an image", 4: "4.png", 17: "path not found", 30: "0 bytes"}


@pytest.mark.parametrize("batch_size", [1, 4, 16])
@pytest.mark.parametrize("name", ["knn", "nested", "function", "detector", "other"])
def test_an_image_that_fails_is_recorded_and_no_other_lost(
    fitted, images, tmp_path, name, batch_size
):
    paths, bad = broken(images, tmp_path)
    found = list(iter_scores(fitted[name], paths, batch_size=batch_size, on_error="record"))
    assert [one.index for one in found] == list(range(len(paths)))
    assert [one.image for one in found] == paths
    failures = [one for one in found if isinstance(one, Failure)]
    assert [one.index for one in failures] == list(bad)
    for one in failures:
        assert f"image {one.index} " in one.error and str(paths[one.index]) in one.error
        assert name == "detector" or bad[one.index] in one.error
        assert one.to_dict() == {"index": one.index, "image": str(one.image), "error": one.error}
    good = [i for i in range(len(paths)) if i not in bad]
    expected = fitted[name].score_samples([paths[i] for i in good])
    np.testing.assert_array_equal([found[i].score for i in good], expected)


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("name", ["knn", "detector", "other"])
def test_an_error_names_the_image_and_comes_in_its_turn(fitted, images, tmp_path, name, batch_size):
    paths, _ = broken(images, tmp_path)
    paths = [*paths[5:17], *paths[17:]]  # the first that fails is 12
    had = []
    with pytest.raises(ValueError, match=r"image 12 .*missing\.png") as error:
        had.extend(  # noqa: B909
            iter_scores(fitted[name], iter(paths), batch_size=batch_size)
        )
    assert name == "detector" or isinstance(error.value, ImageReadError)
    results = iter_scores(fitted[name], iter(paths), batch_size=batch_size)
    assert [next(results).index for _ in range(12)] == list(range(12))
    with pytest.raises(ValueError, match="image 12 "):
        next(results)
    assert next(results, None) is None and not readers()


def test_an_image_whose_tokens_cannot_be_scored(images):
    pipe = make_pipeline(FunctionPatches(cells), PatchKNNScorer(metric="euclidean"))
    pipe.fit(images[:N_GOOD])
    black = [*images[:20], np.zeros((SIDE, SIDE, 3), dtype=np.uint8), *images[20:]]
    found = list(iter_scores(pipe, black, on_error="record"))
    assert [one.index for one in found if isinstance(one, Failure)] == [20]
    assert "every patch of image 20 is masked" in found[20].error
    with pytest.raises(ValueError, match="^image 20: "):
        list(iter_scores(pipe, black))


# What is no fault of an image


@pytest.mark.parametrize("on_error", ["raise", "record"])
def test_what_is_no_fault_of_an_image_is_raised(fitted, images, on_error, monkeypatch):
    for error in (
        MemoryError(),
        NotFittedError("changed"),
        RuntimeError("device"),
        OSError("disk"),
    ):

        def fail(self, batch, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(FilterBankPatches, "_embed_batch", fail)
            with pytest.raises(type(error)) as raised:
                list(iter_scores(fitted["knn"], images, on_error=on_error))
            assert raised.value is error
    assert not readers()


def fails(X):
    raise ValueError("a fault of the step")


@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_wrong_set_up_is_no_fault_of_the_images(fitted, images, tmp_path, batch_size):
    """Of a scorer of other tokens, a cache that cannot be made, a step that fails."""
    other = PatchKNNScorer().fit(np.random.default_rng(0).normal(size=(5, 4, 4, 7)))
    (tmp_path / "file").write_bytes(b"")
    embedder = fitted["knn"][0]
    uncached = filter_bank(cache_dir=tmp_path / "file" / "cache")
    scorer = fitted["knn"][-1]
    wrong = {
        "7 features": make_pipeline(embedder, other),
        "cache_dir": make_pipeline(uncached, scorer),
        "resize": make_pipeline(filter_bank(resize="other"), scorer),
        "a fault of the step": make_pipeline(embedder, FunctionTransformer(fails), scorer),
        "^a fault of the step": make_pipeline(FunctionTransformer(fails), embedder, scorer),
    }
    for message, pipe in wrong.items():
        for on_error in ("raise", "record"):
            with pytest.raises(ValueError, match=message):
                list(iter_scores(pipe, images, batch_size=batch_size, on_error=on_error))


def picky(image):
    """Tokens of bright images."""
    if image.max() == 0:
        raise ValueError("it is black")
    return cells(image)


class Picky(Darkness):
    def predict(self, image):
        if image.max() == 0:
            raise ValueError("it is black")
        return super().predict(image)


def test_a_function_says_of_an_image_that_it_is_of_no_use(images):
    mixed = [*images[:3], np.zeros((SIDE, SIDE, 3), dtype=np.uint8), *images[3:]]
    knn = PatchKNNScorer(metric="euclidean")
    for pipe in (make_pipeline(FunctionPatches(picky), knn), AnomalibDetector(inferencer=Picky())):
        found = list(iter_scores(pipe.fit(images[:N_GOOD]), mixed, on_error="record"))
        assert [one.index for one in found if isinstance(one, Failure)] == [3]
        assert "it is black" in found[3].error and "image 3" in found[3].error


def test_images_of_another_shape_are_at_fault(images):
    embedder = filter_bank(resize="shortest_edge")
    pipe = make_pipeline(embedder, PatchGaussianScorer()).fit(images[:N_GOOD])
    wide = np.zeros((SIDE, 2 * SIDE, 3), dtype=np.uint8)
    found = list(iter_scores(pipe, [*images[:20], wide, *images[20:]], on_error="record"))
    assert [one.index for one in found if isinstance(one, Failure)] == [20]
    assert "grid" in found[20].error


def test_changed_detectors_are_refused(images):
    pipe = make_pipeline(filter_bank(), PatchKNNScorer()).fit(images[:N_GOOD])
    pipe[0].set_params(image_size=64)
    with pytest.raises(NotFittedError, match="image_size"):
        list(iter_scores(pipe, images, on_error="record"))
    other = make_pipeline(FilterBankPatches(image_size=64).fit(images), pipe[-1])
    with pytest.raises(NotFittedError, match="other tokens"):
        list(iter_scores(other, images, on_error="record"))


def test_what_the_source_raises_comes_after_its_images(fitted, images):
    def camera():
        yield from images[:6]
        raise ConnectionError("the cable")

    had = []
    with pytest.raises(ConnectionError, match="the cable"):
        for one in iter_scores(fitted["knn"], camera(), batch_size=4, on_error="record"):
            had.append(one.index)
    assert had == list(range(6))


def test_what_is_known_before_the_first_image_is_said_at_once(fitted, images):
    never = iter(images)
    with pytest.raises(NotFittedError):
        iter_scores(make_pipeline(filter_bank(), PatchKNNScorer()), never)
    with pytest.raises(TypeError, match="takes patch tokens"):
        iter_scores(PatchKNNScorer(), never)
    with pytest.raises(ValueError, match="batch_size"):
        iter_scores(fitted["knn"], never, batch_size=0)
    with pytest.raises(ValueError, match="on_error"):
        iter_scores(fitted["knn"], never, on_error="skip")
    for single in ("a.png", Path("a.png"), b"", Image.new("RGB", (8, 8))):
        with pytest.raises(TypeError, match="single"):
            iter_scores(fitted["knn"], single)
    for other in (pd.DataFrame({"path": ["a.png"]}), {"a": 1}, {"a.png"}, 5):
        with pytest.raises(TypeError):
            iter_scores(fitted["knn"], other)
    assert next(never) is images[0]


# Threads


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("skanomaly-read")]


def test_closing_ends_the_threads(fitted, images):
    results = iter_scores(fitted["knn"], images * 10, batch_size=4)
    next(results)
    assert readers()
    results.close()
    assert not readers()


def test_images_are_read_while_those_before_are_scored(fitted, images, tmp_path):
    """A later image is opened before the first decision is had; the opening waits for nothing."""
    Image.fromarray(images[0]).save(tmp_path / "0.png")
    opened = []

    class Noted(type(tmp_path)):
        def __fspath__(self):
            opened.append(threading.current_thread().name)
            return str(self)

    paths = [Noted(tmp_path / "0.png") for _ in range(12)]
    next(iter_scores(fitted["knn"], paths, batch_size=4))
    assert len(opened) > 4 and all(name.startswith("skanomaly-read") for name in opened)
