"""`value_range` of every embedder: tokens, cache keys, warnings, and the models by name."""

import inspect
import pickle
from functools import partial

import numpy as np
import pytest
from _adapters import assert_close, cell_means, count_embedded, random_image
from _image_files import encode
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from test_embedders import MAKE, params

from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    ImageReadError,
    PatchKNNScorer,
    create_model,
    list_models,
    model_info,
)
from skanomaly.cli._settings import make_model

EIGHT = [np.roll(random_image(32, 32)[..., 0], 5 * i, axis=0) for i in range(5)]
# Numbers 0..4080 in a type of 16 bits: as exact as those of 8 bits.
TWELVE = [image.astype(np.uint16) * np.uint16(16) for image in EIGHT]
SMALL = "Images of more than 8 bits hold the values"


@pytest.fixture(scope="module", params=params(MAKE))
def make(request):
    return MAKE[request.param]


def test_12_bits_have_the_tokens_of_their_8_bit_twins(make):
    if "dtype" in make().get_params():  # bfloat16 would round the last bits of an input up or down
        make = partial(make, dtype="float32")
    side = 28 if "dinov2" in str(make) else 32  # no resizing, which rounds 8-bit images
    eight, twelve = ([image[:side, :side] for image in X] for X in (EIGHT, TWELVE))
    expected = make().transform(eight)
    assert_close(make(value_range=4080).transform(twelve), expected, 1e-4)
    degrees = [(20 + image / 255 * 60).astype(np.float32) for image in eight]
    assert_close(make(value_range=(20.0, 80.0)).transform(degrees), expected, 1e-4)
    dark = make().transform(twelve)
    assert np.abs(dark - expected).max() > 100 * np.abs(expected).max() * 1e-4


def test_a_value_beyond_is_an_error_that_names_the_image(make):
    with pytest.raises(ImageReadError, match=r"image 1 .*value_range=\(0, 900\)"):
        make(value_range=900).transform([TWELVE[0] // 16, TWELVE[1]])
    with pytest.raises(ImageReadError, match="image 0 .*read with 8 bits"):
        make(value_range=4095).transform(EIGHT[:1])


@pytest.mark.parametrize("value", [(5, 5), (9, 1), (1, 2, 3), ("a", 2), [True, 5], float("inf")])
def test_no_range(make, value):
    for method in ("fit", "transform"):
        with pytest.raises(ValueError, match="value_range"):
            getattr(make(value_range=value), method)(TWELVE)


def test_clones_and_pickles_keep_it(make):
    embedder = make(value_range=(100, 4095))
    for copy in (clone(embedder), pickle.loads(pickle.dumps(embedder))):
        assert copy.get_params()["value_range"] == (100, 4095)
    assert "value_range=(100, 4095)" in repr(embedder)


def test_objects_that_read_themselves_take_none():
    class Reader:
        def embed(self, path):
            return np.zeros((2, 2, 3))

    FunctionPatches(Reader()).fit(["a.png"])
    with pytest.raises(ValueError, match="given images unread"):
        FunctionPatches(Reader(), value_range=4095).fit(["a.png"])


# The warning


@pytest.mark.parametrize("method", ["fit_transform", "Pipeline"])
def test_training_images_that_use_a_small_part_are_warned_of_once(make, method):
    embedder = make()
    fit = embedder.fit_transform
    if method == "Pipeline":
        fit = Pipeline([("emb", embedder), ("knn", PatchKNNScorer())]).fit
    low, high = min(map(np.min, TWELVE)), max(map(np.max, TWELVE))
    with pytest.warns(UserWarning) as caught:
        fit(TWELVE)
        line = inspect.currentframe().f_lineno - 1
    (warning,) = [w for w in caught if SMALL in str(w.message)]
    assert f"{SMALL} {low}..{high} of 0..65535" in str(warning.message)
    assert "value_range=4095 if these are numbers of 12 bits" in str(warning.message)
    assert (warning.filename, warning.lineno) == (__file__, line)


def test_no_warning_where_there_is_nothing_to_say(make):
    dark = [image // 8 for image in EIGHT]
    make().fit_transform(dark)  # of 8 bits
    make(value_range=4095).fit_transform(TWELVE)
    make().fit_transform([*TWELVE, TWELVE[0] * np.uint16(16)])  # together they use it
    make().transform(TWELVE)  # not training


def test_tokens_from_the_cache_say_nothing(tmp_path):
    embedder = FilterBankPatches(image_size=32, cache_dir=tmp_path)
    with pytest.warns(UserWarning, match=SMALL):
        embedder.fit_transform(TWELVE)
    embedder.fit_transform(TWELVE)


def test_views_are_read_once(tmp_path):
    embedder = FilterBankPatches(image_size=32, augmentation="rotate90")
    with pytest.warns(UserWarning, match=SMALL):
        embedder.fit_transform(TWELVE)


# The cache


@pytest.mark.parametrize("form", ["array", "path", "PIL"])
def test_tokens_of_other_ranges_are_never_shared(tmp_path, monkeypatch, form):
    X = TWELVE[:1]
    if form == "PIL":
        X = [Image.fromarray(X[0])]
    elif form == "path":
        (tmp_path / "a.png").write_bytes(encode(X[0]))
        X = [tmp_path / "a.png"]
    embedder = FilterBankPatches(image_size=32, cache_dir=tmp_path / "cache")
    calls = count_embedded(monkeypatch, FilterBankPatches)
    ranges = [None, 4095, 8191, (1, 5000), (0, 5000)]
    tokens = [clone(embedder).set_params(value_range=r).transform(X) for r in ranges[:3]]
    assert sum(calls) == 3
    for first in range(3):
        for second in range(first):
            assert not np.array_equal(tokens[first], tokens[second])
    # The same range in other words, and the same again.
    for value_range, expected in zip(ranges[:3], tokens, strict=True):
        np.testing.assert_array_equal(
            clone(embedder).set_params(value_range=value_range).transform(X), expected
        )
    clone(embedder).set_params(value_range=(0.0, 4095)).transform(X)
    assert sum(calls) == 3


def test_pil_images_that_only_a_range_can_read_are_cached(tmp_path, monkeypatch):
    calls = count_embedded(monkeypatch, FilterBankPatches)
    X = [Image.fromarray((image / 255 * 60 + 20).astype(np.float32)) for image in EIGHT]
    embedder = FilterBankPatches(image_size=32, cache_dir=tmp_path, value_range=(20, 80))
    np.testing.assert_array_equal(embedder.transform(X), embedder.transform(X))
    assert sum(calls) == len(X)


def test_keys_without_a_range_are_as_they_were():
    fingerprint = FilterBankPatches()._origin()
    assert "value_range" not in fingerprint
    assert FilterBankPatches(value_range=9)._origin() == {
        **fingerprint,
        "value_range": [0.0, 9.0],
    }


# Models by name


def test_every_model_takes_it():
    for name in list_models():
        parameters = model_info(name).parameters
        assert any(key.rpartition("__")[2] == "value_range" for key in parameters), name


def test_create_model_sets_it_and_refuses_what_is_none():
    pipe = create_model("filterbank", value_range=(100, 4095))
    assert pipe.get_params()["emb__value_range"] == (100, 4095)
    pipe = create_model("filterbank", embedder=cell_means, value_range=4095)
    assert pipe.get_params()["emb__value_range"] == 4095
    with pytest.raises(ValueError, match="black below white"):
        create_model("filterbank", value_range=(4095, 100))
    for text, value in [("value_range=4095", 4095), ("emb__value_range=100,4095", (100, 4095))]:
        pipe = make_model("filterbank", settings=[text])
        assert pipe.get_params()["emb__value_range"] == value


def test_a_grid_search_over_ranges():
    pipe = Pipeline([("emb", FilterBankPatches(image_size=32)), ("knn", PatchKNNScorer())])
    search = GridSearchCV(
        pipe,
        {"emb__value_range": [4095, (0, 12000)]},
        scoring=lambda estimator, X: float(estimator.score_samples(X).mean()),
        cv=2,
        error_score="raise",
    )
    search.fit(TWELVE)
    assert len(search.cv_results_["params"]) == 2
