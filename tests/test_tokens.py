"""Patch tokens: every accepted form means the same, everything else is an error."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly._tokens import check_tokens

quick = settings(max_examples=30, deadline=None, derandomize=True)


def random_tokens(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def mixed(*arrays):
    out = np.empty(len(arrays), dtype=object)
    out[:] = list(arrays)
    return out


def different_grids(dtype=np.float32):
    shapes = [(2, 3, 4), (1, 1, 4), (5, 2, 4)]
    return mixed(*(random_tokens(*s, seed=i, dtype=dtype) for i, s in enumerate(shapes)))


@pytest.mark.parametrize(
    "shape, grid", [((5, 4), ()), ((5, 6, 4), (6,)), ((5, 2, 3, 4), (2, 3)), ((1, 1, 1, 1), (1, 1))]
)
@pytest.mark.parametrize("views", [False, True])
def test_arrays(shape, grid, views):
    X = random_tokens(*shape)
    tokens = check_tokens(X, views=views)
    per_image = int(np.prod(grid))
    np.testing.assert_array_equal(tokens.values, X.reshape(-1, shape[-1]))
    assert tokens.values.flags.c_contiguous
    np.testing.assert_array_equal(tokens.offsets, np.arange(shape[0] + 1) * per_image)
    assert tokens.grids == [grid] * shape[0]
    assert (tokens.n_images, tokens.dim, tokens.n_views) == (shape[0], shape[-1], 1)
    assert tokens.valid.all()
    np.testing.assert_array_equal(tokens.image_of_row(), np.repeat(range(shape[0]), per_image))


def test_views():
    X = random_tokens(3, 2, 4, 5, 6)
    tokens = check_tokens(X, views=True)
    np.testing.assert_array_equal(tokens.values, X.reshape(-1, 6))
    assert (tokens.n_images, tokens.n_views) == (3, 2)
    assert tokens.grids == [(4, 5)] * 3
    np.testing.assert_array_equal(tokens.values[tokens.rows(1)], X[1].reshape(-1, 6))


@pytest.mark.parametrize("as_form", [lambda X: X, list, tuple])
def test_images_of_different_grids(as_form):
    X = different_grids()
    tokens = check_tokens(as_form(X))
    assert tokens.grids == [(2, 3), (1, 1), (5, 2)]
    np.testing.assert_array_equal(tokens.offsets, [0, 6, 7, 17])
    for i, image in enumerate(X):
        np.testing.assert_array_equal(tokens.values[tokens.rows(i)], image.reshape(-1, 4))
    np.testing.assert_array_equal(tokens.image_of_row(), [0] * 6 + [1] + [2] * 10)


@pytest.mark.parametrize("as_form", [list, tuple, lambda X: mixed(*X)])
def test_a_list_of_images_of_one_grid_is_the_array(as_form):
    X = random_tokens(3, 2, 5, 4)
    X[1, 0, 3] = np.nan
    tokens, expected = check_tokens(as_form(X)), check_tokens(X)
    np.testing.assert_array_equal(tokens.values, expected.values)
    np.testing.assert_array_equal(tokens.valid, expected.valid)
    np.testing.assert_array_equal(tokens.offsets, expected.offsets)
    assert tokens.grids == expected.grids
    assert tokens.values.dtype == expected.values.dtype


@pytest.mark.parametrize("X", [[[1, 2], [3, 4]], pd.DataFrame({"a": [1, 3], "b": [2, 4]})])
def test_two_dimensional_array_likes(X):
    tokens = check_tokens(X)
    np.testing.assert_array_equal(tokens.values, [[1.0, 2.0], [3.0, 4.0]])
    assert tokens.values.dtype == np.float64


def test_numbers_of_dtype_object():
    tokens = check_tokens(np.ones((2, 3, 4), dtype=object))
    assert tokens.values.dtype == np.float64
    assert tokens.grids == [(3,)] * 2


@pytest.mark.parametrize("form", ["array", "mixed", "list"])
@pytest.mark.parametrize(
    "given_dtype, expected",
    [
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("longdouble", "float64"),
        ("uint8", "float64"),
        ("int16", "float64"),
        ("int32", "float64"),
        ("int64", "float64"),
    ],
)
def test_dtype(form, given_dtype, expected):
    X = np.arange(24).reshape(2, 2, 2, 3).astype(given_dtype)
    X = {"array": X, "mixed": mixed(*X), "list": list(X)}[form]
    tokens = check_tokens(X)
    assert tokens.values.dtype == expected
    np.testing.assert_array_equal(tokens.values.ravel(), np.arange(24))


@pytest.mark.parametrize(
    "dtypes, expected",
    [
        (["float16", "float32"], "float32"),
        (["float32", "float64"], "float64"),
        (["float32", "int64"], "float64"),
    ],
)
def test_dtype_of_images_of_different_dtypes(dtypes, expected):
    X = [np.ones((2, 1, 3), dtype=dtype) for dtype in dtypes]
    assert check_tokens(X).values.dtype == expected


def test_any_memory_order():
    X = random_tokens(4, 6, 3, 2).transpose(0, 3, 2, 1)
    tokens = check_tokens(X)
    np.testing.assert_array_equal(tokens.values, np.ascontiguousarray(X).reshape(-1, 6))
    assert tokens.values.flags.c_contiguous


@pytest.mark.parametrize("form", ["array", "mixed", "views"])
def test_masked_patches(form):
    X = random_tokens(3, 2, 2, 2, 5)
    X[0, 0, 0, 1] = X[2, 1, 1, 1] = X[2, 0, 0, 0] = np.nan
    if form != "views":
        X = X.reshape(3, 4, 2, 5)
    expected = ~np.isnan(X[..., 0]).ravel()
    tokens = check_tokens(mixed(*X) if form == "mixed" else X, views=form == "views")
    assert expected.sum() == 21
    np.testing.assert_array_equal(tokens.valid, expected)


@pytest.mark.parametrize("dim", [1, 4])
def test_huge_tokens_are_told_as_huge(dim):
    """Though their sum is infinite."""
    with pytest.raises(ValueError, match=r"reach 1.7e\+308, and are beyond float32"):
        check_tokens(np.full((3, dim), 1.7e308))


@pytest.mark.parametrize("form", ["array", "mixed", "views"])
@pytest.mark.parametrize(
    "token",
    [
        [np.nan, 1, 2],
        [np.inf, 1, 2],
        [-np.inf, 1, 2],
        [np.inf, -np.inf, 0],
        [np.nan, np.inf, np.nan],
        [np.inf, np.inf, np.inf],
    ],
)
def test_partly_nan_or_infinite(form, token):
    X = random_tokens(3, 2, 2, 2, 3)
    X[0, 0, 0, 0] = np.nan  # a masked patch before it
    X[1, 1, 0, 1] = token  # patch 5 of image 1
    X = X if form == "views" else X.reshape(3, 4, 2, 3)
    with pytest.raises(ValueError, match="contains NaN or infinity: patch 5 of image 1"):
        check_tokens(mixed(*X) if form == "mixed" else X, views=form == "views")


def test_partly_nan_where_images_differ_in_size():
    X = different_grids()
    X[2][3, 1, 0] = np.nan
    with pytest.raises(ValueError, match="patch 7 of image 2"):
        check_tokens(X)


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3), (4, 2, 3, 3)])
def test_every_patch_of_an_image_masked(shape):
    X = random_tokens(*shape)
    X[2] = np.nan
    with pytest.raises(ValueError, match="every patch of image 2 is masked"):
        check_tokens(X)


def test_every_patch_masked_where_images_differ_in_size():
    X = different_grids()
    X[1][:] = np.nan
    with pytest.raises(ValueError, match="every patch of image 1 is masked"):
        check_tokens(X)


def test_views_only_where_allowed():
    with pytest.raises(ValueError, match="views are only for fit"):
        check_tokens(random_tokens(2, 2, 2, 2, 3))


@pytest.mark.parametrize("views", [False, True])
def test_too_many_dimensions(views):
    with pytest.raises(ValueError, match="too many dimensions"):
        check_tokens(np.ones((1, 1, 1, 1, 1, 2)), views=views)


@pytest.mark.parametrize(
    "X, error, message",
    [
        (scipy.sparse.csr_matrix(np.eye(3)), TypeError, "[Ss]parse"),
        ("image.png", ValueError, "image.png"),
        (["a.png", "b.png"], ValueError, "put an embedder before it"),
        (np.array(["a.png", "b.png"]), ValueError, "put an embedder before it"),
        (np.array(["a.png", "b.png"], dtype=object), ValueError, "element 0 .* got str"),
        (np.array([["a", "b"]]), ValueError, "string"),
        ([], ValueError, "array"),
        (np.empty((0, 3)), ValueError, re.escape("0 sample(s)")),
        (np.empty((0, 2, 2, 3)), ValueError, re.escape("0 sample(s)")),
        (np.empty(0, dtype=object), ValueError, re.escape("0 sample(s)")),
        (np.empty((2, 0)), ValueError, re.escape("0 feature(s)")),
        (np.empty((2, 0, 3)), ValueError, "holds no patch token"),
        (np.empty((2, 2, 0, 3)), ValueError, "holds no patch token"),
        (np.empty((2, 2, 2, 0)), ValueError, "holds no patch token"),
        (3.0, ValueError, "Expected 2D array"),
        (np.array(3.0), ValueError, "Expected 2D array"),
        (np.ones(3), ValueError, "Expected 2D array"),
        (None, ValueError, "Expected 2D array"),
        (np.ones((2, 3), dtype=complex), ValueError, "Complex data not supported"),
    ],
)
def test_not_tokens(X, error, message):
    with pytest.raises(error, match=message):
        check_tokens(X)


@pytest.mark.parametrize("as_form", [list, lambda X: mixed(*X)])
@pytest.mark.parametrize(
    "second, message",
    [
        ("a.png", "element 1 of X must be .* got str"),
        (np.ones((2, 3)), re.escape("element 1 of X must be a numeric array") + ".*(2, 3)"),
        (np.ones((2, 2, 4)), "element 1 of X has tokens of dimension 4, element 0 of 3"),
        (np.ones((0, 2, 3)), "element 1 of X, .*, holds no patch token"),
        (np.full((2, 2, 3), "a"), "element 1 of X must be a numeric array"),
    ],
)
def test_not_tokens_of_one_image(as_form, second, message):
    with pytest.raises(ValueError, match=message):
        check_tokens(as_form([np.ones((2, 2, 3)), second]))


def test_the_estimator_is_named():
    with pytest.raises(ValueError, match="MyScorer"):
        check_tokens(np.empty((0, 3)), estimator="MyScorer")


@pytest.mark.parametrize("shape", [(4, 3), (4, 5, 3), (4, 2, 3, 3)])
def test_restore(shape):
    X = random_tokens(*shape, seed=1)
    if len(shape) > 2:
        X[1, 0] = X[3, -1] = np.nan
    scores = np.random.default_rng(0).random(int(np.prod(shape[:-1]))) + 1
    expected = np.where(np.isnan(X[..., 0]), 0, scores.reshape(shape[:-1]))
    restored = check_tokens(X).restore(scores)
    assert restored.dtype == np.float32
    np.testing.assert_array_equal(restored, expected.astype(np.float32))


def test_restore_hides_whatever_a_masked_patch_was_given():
    X = random_tokens(1, 3, 2)
    X[0, 1] = np.nan
    restored = check_tokens(X).restore(np.array([1.0, np.nan, 3.0]))
    np.testing.assert_array_equal(restored, [[1.0, 0.0, 3.0]])


def test_restore_images_of_different_grids():
    X = different_grids()
    X[2][4, 1] = np.nan
    restored = check_tokens(X).restore(np.arange(1.0, 18.0))
    assert restored.dtype == object
    assert restored.shape == (3,)
    assert all(grid.dtype == np.float32 for grid in restored)
    np.testing.assert_array_equal(restored[0], [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(restored[1], [[7]])
    np.testing.assert_array_equal(restored[2], [[8, 9], [10, 11], [12, 13], [14, 15], [16, 0]])


@given(
    n_images=st.integers(1, 5),
    n_views=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    data=st.data(),
)
@quick
def test_select_and_select_view_are_indexing(n_images, n_views, grid, data):
    X = random_tokens(n_images, n_views, *grid, 2)
    if grid != (1, 1):
        X[-1, -1, 0, 0] = np.nan
    tokens = check_tokens(X, views=True)
    images = data.draw(st.lists(st.integers(0, n_images - 1), min_size=1, max_size=6))
    view = data.draw(st.integers(0, n_views - 1))

    picked = tokens.select(images)
    np.testing.assert_array_equal(picked.values, X[images].reshape(-1, 2))
    np.testing.assert_array_equal(picked.valid, ~np.isnan(X[images][..., 0]).ravel())
    assert picked.grids == [grid] * len(images)
    assert picked.n_views == n_views
    for i, image in enumerate(images):
        np.testing.assert_array_equal(picked.values[picked.rows(i)], X[image].reshape(-1, 2))

    one = tokens.select_view(view)
    np.testing.assert_array_equal(one.values, X[:, view].reshape(-1, 2))
    np.testing.assert_array_equal(one.valid, ~np.isnan(X[:, view, ..., 0]).ravel())
    np.testing.assert_array_equal(one.offsets, np.arange(n_images + 1) * grid[0] * grid[1])
    assert one.n_views == 1
    np.testing.assert_array_equal(one.select(images).values, picked.select_view(view).values)


@pytest.mark.parametrize("images", [[2, 0], [1], [0, 1, 2], [1, 1, 2], []])
def test_select_images_of_different_grids(images):
    X = different_grids()
    picked = check_tokens(X).select(images)
    assert picked.n_images == len(images)
    assert picked.grids == [X[i].shape[:2] for i in images]
    assert picked.offsets[-1] == len(picked.values) == len(picked.valid)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(picked.values[picked.rows(i)], X[image].reshape(-1, 4))


def test_mask():
    X = random_tokens(2, 3, 4)
    X[0, 0] = np.nan
    tokens = check_tokens(X)
    masked = tokens.mask(np.array([False, True, False, False, False, True]))
    np.testing.assert_array_equal(masked.valid, [False, False, True, True, True, False])
    np.testing.assert_array_equal(tokens.valid, [False, True, True, True, True, True])
    np.testing.assert_array_equal(masked.values, tokens.values)
    np.testing.assert_array_equal(masked.restore(np.ones(6)), [[0, 0, 1], [1, 1, 0]])
