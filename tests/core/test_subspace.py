"""Principal subspaces of patch tokens against the published algorithm in float64 loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from skanomaly.core import subspace
from skanomaly.core.subspace import (
    fit_subspace,
    measure_tokens,
    merge_statistics,
    residual,
    squared_residuals,
)


def make(n=200, dim=9, seed=0):
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal((dim, dim)) * np.geomspace(3, 0.05, dim)[:, None]
    return rng.standard_normal((n, dim)) @ spread + 5


def every(tokens):
    return np.ones(len(tokens), dtype=bool)


def fitted(tokens, share=0.9):
    return fit_subspace(measure_tokens(tokens, np.arange(len(tokens))), share)


def oracle(train, share, tokens):
    """The number of components, and the score of each token, by the published steps."""
    dim = train.shape[1]
    mean = np.zeros(dim)
    for token in train:
        mean += token
    mean /= len(train)
    covariance = np.zeros((dim, dim))
    for token in train:
        covariance += np.outer(token - mean, token - mean)
    variances, axes = np.linalg.eigh(covariance / (len(train) - 1))
    order = np.argsort(variances)[::-1]
    total, explained, components = sum(variances), 0.0, []
    for i in order:
        components.append(axes[:, i])
        explained += variances[i]
        if explained / total >= share:
            break
    scores = []
    for token in tokens:
        rest = token - mean
        back = np.zeros(dim)
        for component in components:
            back += (rest @ component) * component
        scores.append(sum((rest - back) ** 2))
    return len(components), np.array(scores)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_scores_are_the_published_ones(share, dtype):
    train, test = make().astype(dtype), make(50, seed=1).astype(dtype)
    model = fitted(train, share)
    n_components, expected = oracle(train.astype(float), share, test.astype(float))
    assert model.n_components == n_components
    assert model.axes.shape[1] == min(n_components, 9 - n_components)
    np.testing.assert_allclose(squared_residuals(model, test, every(test)), expected, rtol=1e-5)
    np.testing.assert_allclose(
        [np.square(residual(model, token)).sum() for token in test], expected, rtol=1e-5
    )


def test_components_are_those_of_scikit_learn():
    train, test = make(), make(50, seed=1)
    pca = PCA(0.9, svd_solver="full").fit(train)
    rest = test - pca.inverse_transform(pca.transform(test))
    model = fitted(train)
    assert model.n_components == pca.n_components_
    expected = np.square(rest).sum(axis=1)
    np.testing.assert_allclose(squared_residuals(model, test, every(test)), expected, rtol=1e-5)
    spread = train - pca.inverse_transform(pca.transform(train))
    np.testing.assert_allclose(model.scale, spread.std(axis=0), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 199), max_size=5, unique=True),
    block=st.integers(1, 300),
    offset=st.sampled_from([0.0, 1e4]),
)
def test_statistics_of_parts_are_those_of_all(cuts, block, offset):
    tokens = make() + offset
    rows = np.random.default_rng(1).permutation(200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subspace, "_BLOCK_BYTES", block * 9 * 8)
        merged = merge_statistics(
            measure_tokens(tokens, part) for part in np.split(rows, sorted(cuts))
        )
    centred = tokens - tokens.mean(axis=0)
    assert merged.count == 200
    np.testing.assert_allclose(merged.mean, tokens.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.scatter, centred.T @ centred, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_of_rows_alone_and_among_others(share, monkeypatch):
    tokens = make(seed=1).astype("f4")
    model = fitted(make(), share)
    whole = squared_residuals(model, tokens, every(tokens))
    monkeypatch.setattr(subspace, "_BLOCK_BYTES", 7 * 9 * 8)
    np.testing.assert_array_equal(squared_residuals(model, tokens, every(tokens)), whole)
    alone = [squared_residuals(model, token[None], every(token[None]))[0] for token in tokens]
    np.testing.assert_array_equal(alone, whole)


def test_masked_tokens_score_nothing():
    tokens, model = make(4, seed=1), fitted(make())
    whole = squared_residuals(model, tokens, every(tokens))
    tokens[2] = np.nan
    found = squared_residuals(model, tokens, ~np.isnan(tokens[:, 0]))
    np.testing.assert_array_equal(found, np.where(np.arange(4) == 2, 0, whole))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e30])
def test_tokens_that_do_not_vary(value):
    train = np.full((50, 4), value, dtype="f4")
    model = fitted(train)
    assert model.n_components == 0 and np.isfinite(model.scale).all()
    np.testing.assert_array_equal(squared_residuals(model, train, every(train)) < 1e-12, True)
    other = train + np.float32([3, 0, 0, 4])
    if value < 1e20:
        np.testing.assert_allclose(squared_residuals(model, other, every(other)), 25, rtol=1e-6)


def test_fewer_tokens_than_components():
    train, test = make(3, dim=40), make(20, dim=40, seed=1)
    model = fitted(train, 0.999)
    assert model.n_components == 2
    np.testing.assert_allclose(squared_residuals(model, train, every(train)), 0, atol=1e-6)
    _, expected = oracle(train, 0.999, test)
    np.testing.assert_allclose(squared_residuals(model, test, every(test)), expected, rtol=1e-5)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_tokens_of_any_size(factor):
    train, test = make().astype("f4"), make(50, seed=1).astype("f4")
    expected = squared_residuals(fitted(train), test, every(test))
    train, test = train * np.float32(factor), test * np.float32(factor)
    found = squared_residuals(fitted(train), test, every(test))
    np.testing.assert_allclose(found / factor / factor, expected, rtol=1e-5)


def test_something_is_left_outside():
    """Of tokens that vary alike in all directions the share asks for all of them."""
    train = np.random.default_rng(0).normal(size=(500, 3))
    assert fitted(train, 0.99).n_components == 2
    assert fitted(train[:, :1], 0.99).n_components == 0


def test_squares_that_overflow_are_an_error():
    with pytest.raises(ValueError, match="overflow: scale the tokens down"):
        fitted(make() * 1e200)
