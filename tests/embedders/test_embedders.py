"""Tests of what all embedders share, and of their token cache."""

import importlib.util
import inspect
import io
import os
import subprocess
import sys
import threading
from functools import partial

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.utils.estimator_checks as estimator_checks
from _adapters import (
    RowsToImages,
    assert_close,
    assert_same,
    cell_means,
    count_embedded,
    random_image,
    random_images,
)
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted

from skanomaly import (
    DinoV2Patches,
    FilterBankPatches,
    FunctionPatches,
    ImageReadError,
    OpenClipPatches,
    PatchKNNScorer,
    TimmPatches,
    TinyPatches,
)
from skanomaly.embedders._batches import read_ahead

VIT = partial(TimmPatches, "test_vit", image_size=32, weights="random", device="cpu")
CNN = partial(TimmPatches, "test_resnet", image_size=32, weights="random", device="cpu")
MAKE = {
    "filter_bank": partial(FilterBankPatches, image_size=32),
    "tiny": partial(TinyPatches, image_size=32),
    "vit": VIT,
    "cnn": CNN,
    "dinov2": partial(DinoV2Patches, image_size=28, weights="random", device="cpu"),
    "clip": partial(OpenClipPatches, "ViT-S-16", weights="random", image_size=32, device="cpu"),
    "function": partial(FunctionPatches, cell_means),
}
TOKEN_SHAPE = {
    "filter_bank": (4, 4, 102),
    "tiny": (4, 4, 128),
    "vit": (2, 2, 64),
    "cnn": (4, 4, 240),
    "dinov2": (2, 2, 384),
    "clip": (2, 2, 384),
    "function": (4, 4, 3),
}
CELL = {"filter_bank": 8, "tiny": 8, "vit": 16, "cnn": 32, "dinov2": 14, "clip": 16}
DEFAULTS = {
    "filter_bank": FilterBankPatches,
    "tiny": TinyPatches,
    "timm": TimmPatches,
    "dinov2": DinoV2Patches,
    "clip": OpenClipPatches,
    "function": partial(FunctionPatches, cell_means),
}
SIZES = [(40, 40), (64, 30), (20, 90), (32, 32), (51, 47)]

needs_torch = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "timm", "open_clip")),
    reason="needs torch, timm and open_clip",
)


LIGHT = ("filter_bank", "tiny", "function")  # of NumPy alone


def params(names):
    return [name if name in LIGHT else pytest.param(name, marks=needs_torch) for name in names]


# Module scope groups the tests of one embedder, so that its model stays loaded.
@pytest.fixture(scope="module", params=params(MAKE))
def name(request):
    return request.param


@pytest.fixture(scope="module", params=params(CELL))
def sized(request):
    """Names of the embedders that resize and read images themselves."""
    return request.param


def agree(name, actual, expected):
    """Exactly for NumPy's embedders, up to rounding for torch's."""
    if name in LIGHT:
        assert_same(actual, expected)
    else:
        assert_close(actual, expected)


def assert_contract(tokens, shape):
    assert type(tokens) is np.ndarray
    assert (tokens.dtype, tokens.shape) == (np.float32, shape)
    assert tokens.flags.c_contiguous
    assert np.isfinite(tokens).all()


def png(image):
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "png")
        return file.getvalue()


# The token contract


def test_tokens_follow_the_contract(name):
    tokens = MAKE[name]().transform(random_images(*SIZES))
    assert_contract(tokens, (len(SIZES), *TOKEN_SHAPE[name]))
    assert len(np.unique(tokens.reshape(len(SIZES), -1), axis=0)) == len(SIZES)


def test_an_image_has_the_same_tokens_in_any_batch_and_order(name):
    X, embedder = random_images(*SIZES), MAKE[name]()
    tokens = embedder.transform(X)
    agree(name, embedder.transform(X[::-1])[::-1], tokens)
    for image, expected in zip(X, tokens, strict=True):
        agree(name, embedder.transform([image]), expected[None])


@pytest.mark.parametrize("batch_size", [1, 100])
def test_batch_size_does_not_matter(sized, batch_size):
    X = random_images(*SIZES)
    agree(sized, MAKE[sized](batch_size=batch_size).transform(X), MAKE[sized]().transform(X))


def test_shortest_edge_gives_mixed_grids_in_the_order_of_the_images(sized):
    cell, dim = CELL[sized], TOKEN_SHAPE[sized][-1]
    embedder = MAKE[sized](image_size=cell, resize="shortest_edge")
    # Sides as multiples of the patch, and sides to be rounded to one.
    sizes = [(cell, 2 * cell), (cell, cell), (2 * cell, cell), (cell, 2 * cell), (100, 290)]
    X = random_images(*sizes)
    tokens = embedder.transform(X)
    assert (tokens.dtype, tokens.shape) == (object, (5,))
    fine = 4 if sized == "cnn" else 1  # this network's finest default layer has stride 8
    for item, grid in zip(tokens, [(1, 2), (1, 1), (2, 1), (1, 2), (1, 3)], strict=True):
        assert_contract(item, (grid[0] * fine, grid[1] * fine, dim))
    for image, expected in zip(X, tokens, strict=True):
        agree(sized, embedder.transform([image])[0], expected)


def test_shortest_edge_gives_one_array_where_grids_agree(sized):
    cell = CELL[sized]
    embedder = MAKE[sized](image_size=cell, resize="shortest_edge")
    tokens = embedder.transform(random_images((cell, 2 * cell), (3 * cell, 6 * cell)))
    grid_h, grid_w = tokens.shape[1:3]
    assert_contract(tokens, (2, grid_h, 2 * grid_h, TOKEN_SHAPE[sized][-1]))
    assert grid_w == 2 * grid_h


def test_tokens_are_laid_out_as_rows_and_columns(sized):
    """A wide image shows its change at the right-hand end in the last columns."""
    cell = CELL[sized]
    embedder = MAKE[sized](image_size=2 * cell, resize="shortest_edge")
    image = random_image(2 * cell, 6 * cell)
    changed = image.copy()
    changed[:, -cell:] = 255 - changed[:, -cell:]
    before, after = embedder.transform([image, changed])
    assert before.shape[1] == 3 * before.shape[0]
    distance = np.linalg.norm(after - before, axis=-1).mean(axis=0)
    assert distance.argmax() >= 2 / 3 * len(distance)


# Inputs


def test_path_bytes_pil_and_array_are_one_image(name, tmp_path):
    image = random_image(45, 37)
    path = tmp_path / "part.png"
    path.write_bytes(png(image))
    with Image.open(path) as opened:
        opened.load()
        X = [image, str(path), path, path.read_bytes(), bytearray(path.read_bytes()), opened]
        tokens = MAKE[name]().transform(X)
    for other in tokens[1:]:
        agree(name, other, tokens[0])


def object_array(X):
    array = np.empty(len(X), dtype=object)
    array[:] = [Image.fromarray(image) for image in X]
    return array


CONTAINERS = {
    "tuple": tuple,
    "object array": object_array,
    "Series": pd.Series,
    "4-D array": np.stack,
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_containers(name, container):
    X, embedder = random_images((32, 32), (32, 32), (32, 32)), MAKE[name]()
    X_in = container(X)
    agree(name, embedder.fit(X_in).transform(X_in), embedder.transform(X))


@pytest.mark.parametrize("kind", [np.array, pd.Series], ids=["array", "Series"])
def test_paths_in_a_string_array_or_series(name, tmp_path, kind):
    X = random_images((33, 32), (32, 35))
    for i, image in enumerate(X):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    paths = kind([str(tmp_path / "0.png"), str(tmp_path / "1.png")])
    agree(name, MAKE[name]().transform(paths), MAKE[name]().transform(X))


BAD_X = {
    "string": ("part.png", TypeError, "wrap it in a list"),
    "DataFrame": (pd.DataFrame({"path": ["a.png"]}), TypeError, r"X\['path'\]"),
    "empty list": ([], ValueError, "0 sample"),
    "empty array": (np.empty((0, 8, 8, 3), np.uint8), ValueError, "0 sample"),
    "table": (np.zeros((3, 4)), ValueError, "not a table of numbers"),
    "generator": ((i for i in ()), TypeError, "list"),
    "float stack": (np.zeros((2, 8, 8, 3)), ValueError, "must be uint8"),
}


@pytest.mark.parametrize("X, error, message", BAD_X.values(), ids=BAD_X)
def test_what_is_no_collection_of_images_is_refused(name, X, error, message):
    for method in ("fit", "transform", "fit_transform"):
        with pytest.raises(error, match=message):
            getattr(MAKE[name](), method)(X)


@pytest.mark.parametrize("cached", [False, True])
def test_a_broken_image_is_named(name, tmp_path, cached):
    path = tmp_path / "broken part.png"
    path.write_bytes(png(random_image(32, 32))[:-900])
    X = random_images(*[(32, 32)] * 12)
    X[10] = path
    caching = {"cache_dir": tmp_path / "cache"} if cached and name in CELL else {}
    with pytest.raises(ImageReadError, match=r"image 10 \(.*broken part\.png"):
        MAKE[name](**caching).transform(X)


@pytest.mark.parametrize("item", [None, 3, np.zeros((4, 4, 7), np.uint8), "no such file.png"])
def test_an_item_that_is_no_image_is_named(name, item):
    with pytest.raises(ImageReadError, match="image 1 "):
        MAKE[name]().transform([random_image(8, 8), item])


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_images_are_never_cropped(sized, corner):
    """A spot of a few pixels in the outermost corner changes that corner's token."""
    image = random_image(100, 140)
    painted = image.copy()
    rows, columns = (slice(0, 6) if side == 0 else slice(-6, None) for side in corner)
    painted[rows, columns] = 255 - painted[rows, columns]
    before, after = MAKE[sized]().transform([image, painted])
    distance = np.linalg.norm(after - before, axis=-1)
    assert distance[corner] > 1e-3 * np.linalg.norm(before[corner])
    if sized in ("filter_bank", "cnn"):  # in a transformer all tokens see each other
        assert distance[corner] >= 0.999 * distance.max()


SHAPES = [(1, 1), (1, 37), (37, 1), (2, 700), (700, 3), (2000, 2)]


def test_tiny_and_narrow_images(name):
    tokens = MAKE[name]().transform(random_images(*SHAPES))
    assert_contract(tokens, (len(SHAPES), *TOKEN_SHAPE[name]))


def test_tiny_and_narrow_images_keeping_their_aspect(sized):
    cell = CELL[sized]
    embedder = MAKE[sized](image_size=cell, resize="shortest_edge")
    grids = [tokens.shape[:2] for tokens in embedder.transform(random_images((1, 1), (1, 7)))]
    assert grids[1][0] == grids[0][0] == grids[0][1]
    assert grids[1][1] == 7 * grids[0][1]


@pytest.mark.parametrize("kind", ["uint16", "float64", "float32"])
def test_deep_images_have_the_tokens_of_their_8_bit_twins(name, kind):
    side = 28 if name == "dinov2" else 32  # no resizing, which rounds 8-bit images
    image = random_image(side, side)
    deep = image.astype(np.uint16) * 257 if kind == "uint16" else (image / 255).astype(kind)
    eight, other = MAKE[name]().transform([image, deep])
    assert_contract(other, TOKEN_SHAPE[name])
    assert_close(other, eight, 1e-4)


def test_deep_images_are_not_rounded_to_8_bits(name):
    image = np.random.RandomState(0).uniform(0.4, 0.401, (32, 32, 3))
    rounded = np.round(image * 255).astype(np.uint8)
    deep, eight = MAKE[name]().transform([image, rounded])
    assert not np.array_equal(deep, eight)


def test_grey_and_transparent_images(name):
    grey = random_image(32, 32)[..., 0]
    rgb = np.repeat(grey[..., None], 3, axis=2)
    opaque = np.dstack([rgb, np.full((32, 32), 255, np.uint8)])
    tokens = MAKE[name]().transform([rgb, grey, grey[..., None], opaque])
    for other in tokens[1:]:
        agree(name, other, tokens[0])


# scikit-learn's manners


def test_fit_learns_nothing_of_the_images_and_transform_needs_no_fit(name):
    X, embedder = random_images((32, 32), (40, 32)), MAKE[name]()
    before = dict(vars(embedder))
    tokens = embedder.transform(X)
    assert vars(embedder) == before
    assert embedder.fit(X) is embedder
    fitted = dict(vars(embedder))
    assert embedder.fit(X, [1, -1]) is embedder
    assert vars(embedder) == fitted  # but for what says which images these were
    assert embedder.fit(X[:1]) is embedder
    assert {k: v for k, v in vars(embedder).items() if k != "_train_images"} == {
        k: v for k, v in fitted.items() if k != "_train_images"
    }
    agree(name, embedder.transform(X), tokens)
    agree(name, embedder.fit_transform(X), tokens)
    agree(name, embedder.fit_transform(X, [1, -1]), tokens)
    check_is_fitted(embedder)


def test_clone_and_parameters(name):
    embedder = MAKE[name](verbose=2)
    copy = clone(embedder)
    assert copy is not embedder
    assert copy.get_params() == embedder.get_params()
    assert copy.set_params(verbose=False) is copy
    assert (copy.verbose, embedder.verbose) == (False, 2)
    with pytest.raises(ValueError, match="Invalid parameter 'size'"):
        copy.set_params(size=3)
    assert repr(embedder).startswith(f"{type(embedder).__name__}(")
    assert "verbose=2" in repr(embedder)


def test_every_parameter_is_documented_and_plain(sized):
    embedder = MAKE[sized]()
    documentation = inspect.getdoc(type(embedder))  # Python 3.13 drops the indentation
    for parameter, value in embedder.get_params().items():
        assert isinstance(value, (str, int, type(None)))
        assert f"\n{parameter} : " in documentation


@pytest.mark.parametrize("used", [False, True])
def test_pickles_are_small_and_embed_the_same(name, tmp_path, used):
    X, embedder = random_images((32, 32), (32, 32)), MAKE[name]()
    if used:
        embedder.fit_transform(X)
    path = tmp_path / "embedder.joblib"
    joblib.dump(embedder, path)
    assert path.stat().st_size < 100_000
    agree(name, joblib.load(path).transform(X), embedder.transform(X))


def test_html_representation_in_a_pipeline(name):
    with sklearn.config_context(display="diagram"):
        html = Pipeline([("emb", MAKE[name]()), ("knn", PatchKNNScorer())])._repr_html_()
    assert type(MAKE[name]()).__name__ in html
    assert "PatchKNNScorer" in html


def test_tags(name):
    tags = get_tags(MAKE[name]())
    assert not tags.requires_fit
    assert not tags.input_tags.two_d_array
    assert not tags.target_tags.required


def test_output_of_frames_leaves_tokens_as_they_are(name):
    X, embedder = random_images((32, 32)), MAKE[name]()
    with sklearn.config_context(transform_output="pandas"):
        agree(name, embedder.transform(X), MAKE[name]().transform(X))
        agree(name, embedder.fit_transform(X), MAKE[name]().transform(X))


@pytest.mark.parametrize("make", DEFAULTS.values(), ids=DEFAULTS)
def test_tokens_stay_arrays(make):
    embedder = make()
    pipeline = Pipeline([("emb", embedder), ("knn", PatchKNNScorer())])
    for estimator in (embedder, pipeline):
        assert estimator.set_output(transform="default") is estimator
        assert estimator.set_output() is estimator
        for container in ("pandas", "polars", "csv"):
            with pytest.raises(ValueError, match=f"grid_w, dim.*transform='{container}' has no"):
                estimator.set_output(transform=container)


@pytest.mark.parametrize("make", DEFAULTS.values(), ids=DEFAULTS)
def test_components_of_tokens_have_no_names(make):
    embedder = make()
    if isinstance(embedder, FilterBankPatches):
        assert len(embedder.get_feature_names_out()) == 102
        return
    assert not hasattr(embedder, "get_feature_names_out")
    with pytest.raises(AttributeError, match="components of a token have no names"):
        embedder.get_feature_names_out()
    pipeline = Pipeline([("emb", embedder), ("knn", PatchKNNScorer())])
    with pytest.raises(AttributeError, match="emb does not provide get_feature_names_out"):
        pipeline[:-1].get_feature_names_out()


@pytest.mark.parametrize("light", LIGHT)
def test_n_jobs_does_not_matter(light):
    X = random_images(*SIZES, *SIZES)
    assert_same(MAKE[light](n_jobs=2).transform(X), MAKE[light](n_jobs=1).transform(X))


@pytest.mark.parametrize("torch_based", ["timm", "dinov2", "clip"])
def test_embedders_of_torch_have_no_workers_of_joblib(torch_based):
    assert "n_jobs" not in DEFAULTS[torch_based]().get_params()


def test_verbose_shows_a_bar_and_changes_nothing(name, capsys):
    X = random_images(*SIZES)
    tokens = MAKE[name]().transform(X)
    assert capsys.readouterr() == ("", "")
    agree(name, MAKE[name](verbose=True).transform(X), tokens)
    out, err = capsys.readouterr()
    assert out == ""
    assert "embed" in err
    assert f"{len(X)}/{len(X)}" in err


def test_images_are_not_modified(name):
    X = random_images((32, 32), (28, 28), (50, 40))
    copies = [image.copy() for image in X]
    tokens = MAKE[name]().fit_transform(X)
    for image, copy in zip(X, copies, strict=True):
        assert_same(image, copy)
        assert not np.shares_memory(image, tokens)


def test_the_package_and_constructors_need_no_torch():
    code = (
        "import sys, numpy as np, skanomaly as s\n"
        "for make in (s.TimmPatches, s.DinoV2Patches): repr(make('whatever', dtype=3))\n"
        "X = np.zeros((1, 16, 16, 3), np.uint8)\n"
        "assert s.FilterBankPatches(image_size=16).fit_transform(X).shape == (1, 2, 2, 102)\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
        "sys.modules['torch'] = sys.modules['timm'] = None\n"
        "for make in (s.TimmPatches, s.DinoV2Patches):\n"
        "    try: make().fit(X).transform(X)\n"
        "    except ImportError as e: print(e)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count('pip install "skanomaly[torch]"') == 2


# Sizes and augmentation


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
@pytest.mark.parametrize("factor, nearest", [(0.4, 1), (1.3, 1), (2.7, 3)])
def test_image_size_must_be_a_multiple_of_the_patch(sized, resize, factor, nearest):
    cell = CELL[sized]
    size = int(cell * factor)
    embedder = MAKE[sized](image_size=size, resize=resize)
    message = (
        f"image_size={size} is not a multiple .* {cell} pixels; the nearest is {nearest * cell}$"
    )
    with pytest.raises(ValueError, match=message):
        embedder.transform(random_images((32, 32)))


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_image_size_may_be_a_numpy_integer(sized, tmp_path, resize):
    X, size = random_images((32, 40)), CELL[sized]
    plain = MAKE[sized](image_size=size, resize=resize).transform(X)
    numpy_size = np.arange(size + 1)[-1]
    embedder = MAKE[sized](image_size=numpy_size, resize=resize, cache_dir=tmp_path)
    agree(sized, embedder.transform(X), plain)


VIEWS = {
    "rotate90": [partial(np.rot90, k=k) for k in range(4)],
    "dihedral": [partial(np.rot90, k=k) for k in range(4)]
    + [lambda image, k=k: np.rot90(np.fliplr(image), k) for k in range(4)],
}


@pytest.mark.parametrize("augmentation", VIEWS)
def test_views(sized, augmentation):
    side = 28 if sized == "dinov2" else 32
    X, embedder = random_images((side, side), (side, side)), MAKE[sized](augmentation=augmentation)
    views = VIEWS[augmentation]
    tokens = embedder.fit_transform(X)
    assert_contract(tokens, (2, len(views), *TOKEN_SHAPE[sized]))
    agree(sized, tokens[:, 0], embedder.transform(X))
    agree(sized, tokens[:, 0], MAKE[sized]().transform(X))
    plain = MAKE[sized]()
    for v, view in enumerate(views):
        agree(sized, tokens[:, v], plain.transform([view(image) for image in X]))
    assert len(np.unique(tokens[0].reshape(len(views), -1), axis=0)) == len(views)


def test_views_are_of_the_whole_squashed_image(sized):
    """An oblong image is squashed first: its quarter turn is that of the square."""
    side = 28 if sized == "dinov2" else 32
    image = random_image(side, 3 * side)
    square = np.asarray(
        Image.fromarray(image).resize(
            (side, side), Image.Resampling.BILINEAR if sized == "cnn" else Image.Resampling.BICUBIC
        )
    )
    tokens = MAKE[sized](augmentation="rotate90").fit_transform([image])
    agree(sized, tokens[:, 1], MAKE[sized]().transform([np.rot90(square)]))


@pytest.mark.parametrize(
    "shapes", [[(32, 64)], [(32, 32), (32, 64)], [(32, 64), (64, 32)]], ids=str
)
@pytest.mark.parametrize("augmentation", VIEWS)
def test_views_need_one_square_grid(augmentation, shapes):
    embedder = FilterBankPatches(image_size=16, resize="shortest_edge", augmentation=augmentation)
    problem = "one square grid.* image [01] has . x .*resize='squash'"
    with pytest.raises(ValueError, match=problem):
        embedder.fit_transform(random_images(*shapes))
    embedder.transform(random_images(*shapes))


def test_views_of_squares_keeping_their_aspect():
    embedder = FilterBankPatches(image_size=16, resize="shortest_edge", augmentation="rotate90")
    assert embedder.fit_transform(random_images((32, 32), (20, 20))).shape == (2, 4, 2, 2, 102)


# Parameters and scikit-learn's checks


def invalid_parameters():
    bad = {
        "image_size": [0, -8, 2.5, "large", True],
        "grid": [8, 24, 32.0, "32", None, True],
        "resize": ["crop", None, 1],
        "augmentation": ["flip", True, 4],
        "value_range": [0, -1.5, "4095", True],
        "batch_size": [0, 1.5, None, True],
        "cache_dir": [3, True],
        "cache_size": [0, -1, 1.5, None, "2GB", True],
        "stream": ["yes", 1, None],
        "n_jobs": [1.5, "all", True],
        "verbose": ["yes", -1],
        "model_name": [None, 3],
        "layers": ["last", 1.5, True],
        "fusion": ["sum", None],
        "weights": [None, True, 3],
        "device": [None, 0],
        "dtype": ["float64", None, 32],
        "runtime": ["tensorrt", None, 1],
        "source": ["web", None],
        "class_token": [None, "yes", 2],
        "project": [None, "yes", 2],
        "value_attention": [None, "yes", -1, 1.5],
        "windows": [2, "2x2", True],
        "func": [None, "mean", 3],
        "func_version": [1, True],
    }
    tested = set()
    for name, make in DEFAULTS.items():
        for parameter in make()._parameter_constraints:
            # Of a parameter that several have, every value once; then that it is checked at all.
            values = bad[parameter][:1] if parameter in tested else bad[parameter]
            tested.add(parameter)
            for value in values:
                yield pytest.param(make, parameter, value, id=f"{name}-{parameter}-{value!r:.12}")


@pytest.mark.parametrize("make, parameter, value", list(invalid_parameters()))
def test_invalid_parameters(make, parameter, value):
    embedder = make().set_params(**{parameter: value})
    for method in ("fit", "transform"):
        with pytest.raises(
            InvalidParameterError, match=f"'{parameter}' parameter of {type(embedder).__name__}"
        ):
            getattr(embedder, method)(random_images((8, 8)))


@pytest.mark.parametrize("make", DEFAULTS.values(), ids=DEFAULTS)
def test_every_parameter_has_constraints(make):
    assert set(make()._parameter_constraints) == set(make().get_params())


# Checks that need no data, by every name they had since scikit-learn 1.6.
CHECKS = [
    ("check_estimator_cloneable",),
    ("check_estimator_tags_renamed",),
    ("check_valid_tag_types",),
    ("check_estimator_repr",),
    ("check_no_attributes_set_in_init",),
    ("check_parameters_default_constructible",),
    ("check_get_params_invariance",),
    ("check_set_params",),
    (
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_do_not_raise_errors_in_init_or_set_param",
    ),
    ("check_mixin_order",),
]


@pytest.mark.parametrize("names", CHECKS, ids=lambda names: names[0])
@pytest.mark.parametrize("estimator", DEFAULTS)
def test_scikit_learn_checks_without_data(estimator, names):
    known = [getattr(estimator_checks, check, None) for check in names]
    (check,) = [function for function in known if function is not None]
    if names == ("check_parameters_default_constructible",) and estimator == "function":
        # A required parameter has no default: scikit-learn's check would pass it a classifier.
        with pytest.raises(TypeError, match="func"):
            FunctionPatches()
        return
    check(estimator, DEFAULTS[estimator]())


@parametrize_with_checks(
    [
        RowsToImages(),
        RowsToImages(FilterBankPatches(image_size=8, n_jobs=2)),
        RowsToImages(TinyPatches(image_size=16, grid=16)),
    ]
)
def test_scikit_learn_checks_with_rows_as_images(estimator, check):
    check(estimator)


# The cache


@pytest.fixture
def counted(monkeypatch):
    """Numbers of images that filter banks embed, one a batch."""
    return count_embedded(monkeypatch, FilterBankPatches)


def test_a_grid_search_embeds_each_image_once(tmp_path, counted):
    X = random_images(*[(40, 40)] * 12)
    y = np.array([1, 1, 1, -1] * 3)
    for i in np.flatnonzero(y == -1):
        X[i][10:20] = 0
    embedder = FilterBankPatches(image_size=32, cache_dir=tmp_path)
    grid = {"knn__topk": [0.1, 1], "knn__contamination": [0.1, 0.3]}
    pipeline = Pipeline([("emb", embedder), ("knn", PatchKNNScorer())])
    search = GridSearchCV(pipeline, grid, cv=3, scoring="roc_auc", error_score="raise").fit(X, y)
    assert sum(counted) == 12
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    search.predict(X)
    search.set_params(estimator__emb__cache_dir=None).fit(X, y)
    assert sum(counted) > 12 * 4


@pytest.mark.parametrize("form", ["array", "float array", "PIL", "path", "bytes"])
def test_cached_tokens_are_those_of_a_fresh_embedding(sized, tmp_path, monkeypatch, form):
    X = random_images(*SIZES)
    if form == "float array":
        X = [image / 255 for image in X]
    elif form == "PIL":
        X = [Image.fromarray(image) for image in X]
    elif form in ("path", "bytes"):
        X = [png(image) for image in X]
    if form == "path":
        for i, data in enumerate(X):
            (tmp_path / f"{i}.png").write_bytes(data)
        X = [tmp_path / f"{i}.png" for i in range(len(X))]
    fresh = MAKE[sized]().transform(X)
    embedder = MAKE[sized](cache_dir=tmp_path / "cache")
    calls = count_embedded(monkeypatch, type(embedder))
    assert_same(embedder.transform(X), fresh)
    assert sum(calls) == len(X)
    # Neither another instance nor what does not bear on the tokens makes a miss.
    for other in (
        embedder,
        clone(embedder),
        clone(embedder).set_params(batch_size=2, verbose=True, cache_size=10**9),
        clone(embedder).set_params(cache_dir=str(tmp_path / "cache")),
    ):
        assert_same(other.transform(X[::-1])[::-1], fresh)
    assert sum(calls) == len(X)


def test_mixed_grids_are_cached(tmp_path, counted):
    X = random_images((16, 32), (16, 16), (32, 16))
    embedder = FilterBankPatches(image_size=16, resize="shortest_edge", cache_dir=tmp_path)
    first, second = embedder.transform(X), embedder.transform(X)
    assert sum(counted) == 3
    assert second.dtype == object
    for a, b in zip(first, second, strict=True):
        assert_same(a, b)


def test_only_new_images_are_embedded(tmp_path, counted):
    X = random_images(*SIZES)
    embedder = FilterBankPatches(image_size=16, cache_dir=tmp_path)
    embedder.transform(X[1:3])
    tokens = embedder.transform(X)
    assert counted == [2, 3]
    assert_same(tokens, FilterBankPatches(image_size=16).transform(X))


CHANGES = {
    "filter_bank": [{"image_size": 40}, {"resize": "shortest_edge"}],
    "tiny": [
        {"image_size": 48},
        {"resize": "shortest_edge"},
        {"grid": 16},
        {"weights": "random"},
    ],
    "vit": [
        {"image_size": 48},
        {"resize": "shortest_edge"},
        {"layers": 2},
        {"layers": [1, 2]},
        {"layers": [1, 2], "fusion": "mean"},
        {"dtype": "float16"},
        {"model_name": "test_vit2"},
    ],
    "dinov2": [
        {"image_size": 56},
        {"resize": "shortest_edge"},
        {"layers": 1},
        {"model_name": "dinov2_vits14_reg"},
    ],
}


@pytest.mark.parametrize("kind", params(CHANGES))
def test_a_change_that_bears_on_the_tokens_misses(tmp_path, monkeypatch, kind):
    X = random_images((30, 50))
    embedder = MAKE[kind](cache_dir=tmp_path)
    calls = count_embedded(monkeypatch, type(embedder))
    embedder.transform(X)
    for number, change in enumerate(CHANGES[kind], 2):
        changed = clone(embedder).set_params(**change)
        tokens = changed.transform(X)
        assert sum(calls) == number, change
        assert_same(tokens, changed.transform(X))
        assert sum(calls) == number, change
    assert_same(embedder.transform(X), MAKE[kind]().transform(X))


@needs_torch
def test_the_same_layers_by_other_numbers_hit(tmp_path, monkeypatch):
    calls = count_embedded(monkeypatch, TimmPatches)
    X = random_images((32, 32))
    for layers in (None, 1, -5, [1], np.array([-5]), (1, -5)):
        VIT(layers=layers, cache_dir=tmp_path).transform(X)
    VIT(image_size=np.int32(32), cache_dir=tmp_path).transform(X)
    assert sum(calls) == 1


@needs_torch
def test_other_weights_under_the_same_name_miss(tmp_path, monkeypatch):
    import timm
    import torch

    calls = count_embedded(monkeypatch, TimmPatches)
    X, path = random_images((32, 32)), tmp_path / "weights.pth"
    embedder = VIT(weights=path, cache_dir=tmp_path / "cache")
    state = timm.create_model("test_vit").state_dict()
    torch.save(state, path)
    first = embedder.transform(X)
    torch.save({name: tensor * 1.5 for name, tensor in state.items()}, path)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # whatever the file system's clock
    second = embedder.transform(X)
    assert sum(calls) == 2
    assert np.abs(second - first).max() > 1e-3
    # Content counts, not names: a copy of the first file elsewhere hits.
    torch.save(state, tmp_path / "copy.pth")
    assert_same(embedder.set_params(weights=tmp_path / "copy.pth").transform(X), first)
    assert sum(calls) == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_cache_file_is_computed_again(tmp_path, counted, damage):
    X = random_images((32, 32))
    embedder = FilterBankPatches(image_size=16, cache_dir=tmp_path)
    tokens = embedder.transform(X)
    (file,) = tmp_path.rglob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(bytes(data) if damage is None else damage)
    for _ in range(3):
        assert_same(embedder.transform(X), tokens)
    assert counted == [1, 1]


def test_the_same_content_under_two_names_is_embedded_once(tmp_path, counted):
    data = png(random_image(20, 20))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(data)
    embedder = FilterBankPatches(image_size=16, cache_dir=tmp_path / "cache")
    for X in ([tmp_path / "a.png"], [tmp_path / "b.png"], [data], [str(tmp_path / "a.png")]):
        embedder.transform(X)
    assert counted == [1]


def test_other_content_under_the_same_name_is_embedded_anew(tmp_path, counted):
    path = tmp_path / "part.png"
    embedder = FilterBankPatches(image_size=16, cache_dir=tmp_path / "cache")
    for seed in (0, 1):
        path.write_bytes(png(random_image(20, 20, seed)))
        tokens = embedder.transform([path])
        assert_same(tokens, FilterBankPatches(image_size=16).transform([path]))
    assert sum(counted) == 4


@pytest.mark.parametrize("augmentation, n_views", [("rotate90", 4), ("dihedral", 8)])
def test_views_are_cached(tmp_path, counted, augmentation, n_views):
    X = random_images((32, 32), (32, 32))
    plain = FilterBankPatches(image_size=16, cache_dir=tmp_path)
    embedder = clone(plain).set_params(augmentation=augmentation)
    plain.transform(X)
    first = embedder.fit_transform(X)
    assert sum(counted) == 2 * n_views
    assert_same(embedder.fit_transform(X), first)
    assert_same(embedder.transform(X), plain.transform(X))
    assert sum(counted) == 2 * n_views
    assert_same(first, clone(embedder).set_params(cache_dir=None).fit_transform(X))


def test_views_of_two_augmentations_do_not_mix(tmp_path):
    X = random_images((32, 32))
    for augmentation in ("rotate90", "dihedral", "rotate90"):
        embedder = FilterBankPatches(image_size=16, augmentation=augmentation)
        fresh = embedder.fit_transform(X)
        assert_same(embedder.set_params(cache_dir=tmp_path).fit_transform(X), fresh)


def test_the_cache_keeps_to_its_size(tmp_path):
    X = random_images(*[(32, 32)] * 12)
    embedder = FilterBankPatches(image_size=32, cache_dir=tmp_path, cache_size=30_000)
    tokens = embedder.transform(X)
    assert_same(embedder.transform(X), tokens)
    files = list(tmp_path.rglob("*.safetensors"))
    assert 0 < len(files) < 12
    assert sum(file.stat().st_size for file in files) <= 30_000


def test_cached_tokens_are_the_callers_own(tmp_path):
    X = random_images((32, 32))
    embedder = FilterBankPatches(image_size=16, cache_dir=tmp_path)
    fresh = embedder.transform(X)
    embedder.transform(X)[:] = 0
    assert_same(embedder.transform(X), fresh)


def test_no_cache_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FilterBankPatches(image_size=16).fit_transform(random_images((32, 32)))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_cache_dir_is_refused():
    with pytest.raises(ValueError, match="cache_dir is empty"):
        FilterBankPatches(image_size=32, cache_dir="").transform(random_images((32, 32)))


# Images are read ahead of the model


def in_order(calls, n_threads=2, margin=2):
    return read_ahead(((call,) for call in calls), n_threads, margin, None)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 2, 20])
def test_results_come_in_order(n_threads, n):
    assert list(in_order([partial(int, i) for i in range(n)], n_threads)) == list(range(n))


def test_the_next_images_are_read_while_the_model_runs():
    """The model waits for a later image, which without threads would never be read."""
    read = threading.Event()
    results = in_order([int, int, int, read.set, int])
    next(results)
    assert read.wait(60)
    assert len(list(results)) == 4


def test_no_more_is_read_than_is_bounded():
    count, lock = [], threading.Lock()

    def call():
        with lock:
            count.append(1)

    for done, _ in enumerate(in_order([call] * 50, n_threads=2, margin=3), 1):
        assert len(count) <= done + 3 + 2
    assert len(count) == 50


def readers():
    return [t for t in threading.enumerate() if t.name.startswith("skanomaly-read")]


def test_an_error_comes_in_its_turn_and_leaves_no_thread(tmp_path):
    X = random_images(*[(32, 32)] * 12)
    X[9] = tmp_path / "missing.png"
    X[5] = b"broken"
    with pytest.raises(ImageReadError, match="image 5 "):
        FilterBankPatches(image_size=16, batch_size=3).transform(X)
    assert not readers()


def test_an_error_of_the_model_leaves_no_thread(monkeypatch):
    def fail(self, images):
        assert readers()
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FilterBankPatches, "_embed_batch", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        FilterBankPatches(image_size=16, batch_size=2).transform(random_images(*[(32, 32)] * 9))
    assert not readers()


def test_a_grid_search_in_processes():
    X = random_images(*[(40, 40)] * 8)
    y = np.array([1, 1, 1, -1] * 2)
    pipeline = Pipeline(
        [("emb", FilterBankPatches(image_size=16, n_jobs=2)), ("knn", PatchKNNScorer())]
    )
    grid = {"knn__topk": [0.1, 1]}
    scores = [
        GridSearchCV(pipeline, grid, cv=2, scoring="roc_auc", error_score="raise", n_jobs=n_jobs)
        .fit(X, y)
        .cv_results_["mean_test_score"]
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*scores)
