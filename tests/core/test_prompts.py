"""Prompt scores and WinCLIP's aggregation against plain loops in float64 and against anomalib."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skanomaly.core.prompts import (
    MODES,
    average_texts,
    harmonic_mean,
    harmonic_window_map,
    prompt_patch_scores,
    window_anchors,
)

each_mode = pytest.mark.parametrize("mode", MODES)
finite = st.floats(-1e3, 1e3, allow_subnormal=False)


def vectors(*shape):
    return arrays(np.float64, shape, elements=finite)


@st.composite
def problems(draw):
    """Patches, two texts and a scale of the softmax."""
    dim = draw(st.integers(1, 5))
    nonzero = vectors(dim).filter(lambda v: np.abs(v).max() > 1e-3)
    patches = draw(vectors(draw(st.integers(1, 4)), dim))
    return patches, draw(nonzero), draw(nonzero), draw(st.floats(0.1, 100))


def _cosine(left, right):
    """In plain Python."""
    lengths = math.hypot(*left), math.hypot(*right)
    if min(lengths) == 0:
        return 0.0
    pairs = zip(left, right, strict=True)
    return math.fsum((x / lengths[0]) * (y / lengths[1]) for x, y in pairs)


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_against_plain_loops(problem):
    patches, normal, anomaly, scale = problem
    pairs = [(_cosine(p, normal), _cosine(p, anomaly)) for p in patches.tolist()]
    expected = {
        "diff": [a - n for n, a in pairs],
        "ratio": [math.exp(a) / math.exp(n) for n, a in pairs],
        "softmax": [
            math.exp(scale * (a - max(a, n)))
            / (math.exp(scale * (a - max(a, n))) + math.exp(scale * (n - max(a, n))))
            for n, a in pairs
        ],
    }
    for mode in MODES:
        scores = prompt_patch_scores(patches, normal, anomaly, mode, scale)
        assert scores.shape == (len(patches),) and scores.dtype == np.float64
        np.testing.assert_allclose(scores, expected[mode], rtol=1e-9, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_swapping_the_texts(problem):
    patches, normal, anomaly, scale = problem
    there = {mode: prompt_patch_scores(patches, normal, anomaly, mode, scale) for mode in MODES}
    back = {mode: prompt_patch_scores(patches, anomaly, normal, mode, scale) for mode in MODES}
    np.testing.assert_array_equal(back["diff"], -there["diff"])
    np.testing.assert_allclose(back["ratio"], 1 / there["ratio"], rtol=1e-14)
    np.testing.assert_allclose(back["softmax"], 1 - there["softmax"], rtol=1e-14, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), powers=st.tuples(*[st.integers(-60, 60)] * 3))
def test_lengths_do_not_matter(problem, powers):
    patches, normal, anomaly, scale = problem
    by = [2.0**power for power in powers]  # exact, so that not a bit may change
    for mode in MODES:
        np.testing.assert_array_equal(
            prompt_patch_scores(by[0] * patches, by[1] * normal, by[2] * anomaly, mode, scale),
            prompt_patch_scores(patches, normal, anomaly, mode, scale),
        )


@each_mode
@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_finite_at_any_length(mode, size):
    patches = size * np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, -4.0]])
    scores = prompt_patch_scores(patches, [size, 0], [-size, 0], mode)
    expected = prompt_patch_scores(patches / size, [1, 0], [-1, 0], mode)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)
    # float32, in which scorers return them, holds them too.
    assert np.isfinite(scores.astype(np.float32)).all()


@each_mode
@settings(max_examples=60, deadline=None)
@given(
    angles=st.lists(st.floats(0, math.pi), min_size=2, max_size=8, unique=True),
    away=st.floats(-1, 1),
    scale=st.floats(0.5, 10),
)
def test_monotone_in_the_similarity_to_the_anomaly(mode, angles, away, scale):
    # Patches of one similarity to the normal text (the third axis), by that to the anomalous one.
    angles = np.sort(angles)
    patches = np.stack([np.cos(angles), np.sin(angles), np.full(len(angles), away)], axis=1)
    scores = prompt_patch_scores(patches, [0, 0, 1], [1, 0, 0], mode, scale)
    assert (np.diff(scores) <= 1e-15).all()
    far = np.diff(np.cos(angles)) < -1e-6
    assert (np.diff(scores)[far] < 0).all()


@each_mode
def test_rows_do_not_depend_on_their_batch(mode):
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(3, 7, 5, 33)).astype(np.float32)
    texts = rng.normal(size=(2, 33))
    together = prompt_patch_scores(patches, *texts, mode)
    assert together.shape == (3, 7, 5)
    for index in np.ndindex(3, 7, 5):
        assert prompt_patch_scores(patches[index], *texts, mode) == together[index]


def test_many_patches_in_blocks(monkeypatch):
    from skanomaly.core import prompts

    rng = np.random.default_rng(0)
    patches, texts = rng.normal(size=(50, 4)), rng.normal(size=(2, 4))
    expected = prompt_patch_scores(patches, *texts)
    monkeypatch.setattr(prompts, "_PATCHES_AT_ONCE", 7)
    np.testing.assert_array_equal(prompt_patch_scores(patches, *texts), expected)


def test_the_published_examples():
    scores = prompt_patch_scores([[1, 0], [0, 1]], [1, 0], [0, 1], mode="diff")
    assert scores.shape == (2,) and scores[1] > scores[0]
    # A zero patch is like nothing.
    zero = [prompt_patch_scores(np.zeros((1, 2)), [1, 0], [0, 1], mode)[0] for mode in MODES]
    assert zero == [0, 1, 0.5]
    assert prompt_patch_scores(np.empty((0, 2)), [1, 0], [0, 1]).shape == (0,)


def test_errors():
    good = ([[1.0, 0.0]], [1.0, 0.0], [0.0, 1.0])
    for arguments, message in [
        ((*good, "cosine"), "mode must be one of 'diff', 'ratio', 'softmax', got 'cosine'"),
        ((*good, "softmax", 0), "logit_scale must be a positive number, got 0"),
        ((*good, "softmax", np.nan), "logit_scale must be a positive number"),
        ((*good, "softmax", None), "logit_scale must be a positive number, got None"),
        (([[1j, 0.0]], *good[1:]), "patches must be an array of numbers"),
        (([[1.0, 0.0, 0.0]], *good[1:]), "normal is of dimension 2, patches are of shape"),
        ((*good[:2], [1.0, 0.0, 0.0]), "anomaly is of dimension 3, patches are of shape"),
        ((good[0], [[1.0, 0.0]], good[2]), "average an ensemble with average_texts"),
        ((good[0], [0.0, 0.0], good[2]), "normal holds a zero vector"),
        ((*good[:2], [0.0, np.nan]), "anomaly contains NaN or infinity"),
        (([[np.nan, 0.0]], *good[1:]), "patches contains NaN or infinity"),
        (([[np.inf, 0.0]], *good[1:]), "patches contains NaN or infinity"),
        ((good[0], ["a", "b"], good[2]), "normal must be an array of numbers"),
        ((1.0, *good[1:]), "patches are of shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            prompt_patch_scores(*arguments)
    for features, message in [
        (np.ones((2, 2, 2)), "of shape \\(dim,\\) or \\(n_texts, dim\\), got shape \\(2, 2, 2\\)"),
        ([], "got shape \\(0,\\)"),
        ([[1.0, 0.0], [0.0, 0.0]], "zero vector \\(text 1\\)"),
        ([[1.0, 0.0], [-2.0, 0.0]], "cancel each other out"),
    ]:
        with pytest.raises(ValueError, match=message):
            average_texts(features)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n_texts=st.integers(1, 6))
def test_average_of_texts(seed, n_texts):
    features = np.random.default_rng(seed).normal(size=(n_texts, 5)) + 0.5
    units = [[x / math.sqrt(math.fsum(y * y for y in row)) for x in row] for row in features]
    mean = [math.fsum(column) / n_texts for column in zip(*units, strict=True)]
    length = math.sqrt(math.fsum(x * x for x in mean))
    np.testing.assert_allclose(average_texts(features), np.array(mean) / length, atol=1e-12)
    np.testing.assert_allclose(average_texts(features), average_texts(features[::-1]), atol=1e-12)


def _loop_map(scores, window):
    """Harmonic mean of the windows over each patch, as the paper says it."""
    height, width = scores.shape[0] + window - 1, scores.shape[1] + window - 1
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            covering = [
                float(scores[a, b])
                for a in range(scores.shape[0])
                for b in range(scores.shape[1])
                if a <= i < a + window and b <= j < b + window
            ]
            out[i, j] = 0 if 0 in covering else len(covering) / math.fsum(1 / s for s in covering)
    return out


grids = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10_000))


@settings(max_examples=40, deadline=None)
@given(grid=grids)
def test_windows_against_plain_loops(grid):
    rows, columns, window, seed = grid
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=(rows, columns)) * (rng.uniform(size=(rows, columns)) > 0.1)
    result = harmonic_window_map(scores, window)
    np.testing.assert_allclose(result, _loop_map(scores, window), rtol=1e-12)
    # As stored at each patch of the grid, clamped at the right and the bottom.
    shape = result.shape
    stored = scores[
        np.minimum(np.arange(shape[0]), rows - 1)[:, None],
        np.minimum(np.arange(shape[1]), columns - 1),
    ]
    np.testing.assert_array_equal(window_anchors(stored, window), scores)


def test_masked_windows():
    stored = np.array([[0.2, 0.4, 0.4], [0.8, 0.5, 0.5], [0.8, 0.5, 0.5]])
    stored[0, 0] = stored[1, 1] = np.nan
    # The window at (1, 1) is stored at three other patches; that at (0, 0) nowhere else.
    anchors = window_anchors(stored, 2)
    np.testing.assert_array_equal(anchors, [[np.nan, 0.4], [0.8, 0.5]])
    result = harmonic_window_map(anchors, 2)
    assert np.isnan(result[0, 0])
    np.testing.assert_allclose(result[1, 1], 3 / (1 / 0.4 + 1 / 0.8 + 1 / 0.5))
    np.testing.assert_allclose(result[1, 0], 0.8)
    with pytest.raises(ValueError, match="windows of 4 x 4 patches do not fit in a grid of"):
        window_anchors(stored, 4)


def test_harmonic_mean():
    scores = [[1.0, 0.0, np.nan, np.nan], [0.5, 1.0, 0.3, np.nan]]
    np.testing.assert_allclose(harmonic_mean(scores), [2 / 3, 0, 0.3, np.nan])
    with pytest.raises(ValueError, match="at least 0"):
        harmonic_mean([[-1.0], [1.0]])


@pytest.fixture(scope="module")
def winclip():
    """anomalib's functions of arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("anomalib")
        import torch
        from anomalib.models.image.winclip import utils

    def scores(embeddings, texts, temperature):
        args = (torch.from_numpy(embeddings), torch.from_numpy(texts))
        return utils.class_scores(*args, temperature, target_class=1).numpy()

    def harmonic(window_scores, grid, window):
        flat = torch.from_numpy(window_scores.reshape(1, -1))
        return utils.harmonic_aggregation(flat, grid, utils.make_masks(grid, window)).numpy()[0]

    return scores, harmonic


@pytest.mark.slow
def test_against_anomalib(winclip):
    class_scores, harmonic_aggregation = winclip
    rng = np.random.default_rng(0)
    embeddings, texts = rng.normal(size=(50, 8)), rng.normal(size=(2, 8))
    np.testing.assert_allclose(
        prompt_patch_scores(embeddings, *texts, "softmax", 1 / 0.07),
        class_scores(embeddings, texts, 0.07),
        rtol=1e-9,
    )
    for grid, window in [((5, 7), 2), ((5, 7), 3), ((3, 3), 3), ((4, 4), 1)]:
        scores = rng.uniform(size=(grid[0] - window + 1, grid[1] - window + 1))
        scores[0, 0] = 0
        np.testing.assert_allclose(
            harmonic_window_map(scores, window),
            harmonic_aggregation(scores, grid, window),
            rtol=1e-12,
        )
