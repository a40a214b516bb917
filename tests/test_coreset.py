"""Farthest-first traversal: what the textbook says, and that its radius covers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.core.coreset import coreset_size, greedy_k_center

quick = settings(max_examples=40, deadline=None, derandomize=True)
DTYPES = [np.float32, np.float64]


def make(kind, n, dim, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim))
    if kind == "offset":
        x += 1e3
    elif kind == "small":
        x *= 1e-8
    elif kind == "large":
        x *= 1e12
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 3), n)]
    elif kind == "unit":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(dtype)


def covering_radius(tokens, chosen):
    """Largest distance of a token to its nearest centre, float64."""
    tokens = tokens.astype(np.float64)
    return max(min(np.linalg.norm(t - tokens[c]) for c in chosen) for t in tokens)


def farthest_first(tokens, n_centers, start=0):
    """The textbook's loop, float64."""
    tokens = tokens.astype(np.float64)
    chosen = [start]
    while len(chosen) < n_centers:
        nearest = [min(np.linalg.norm(t - tokens[c]) for c in chosen) for t in tokens]
        chosen.append(int(np.argmax(nearest)))
    return chosen


def square_error(tokens):
    """What the dtype leaves uncertain in a squared distance between centred tokens."""
    centred = tokens.astype(np.float64) - tokens.mean(axis=0, dtype=np.float64)
    largest = (centred**2).sum(axis=1).max()
    return 4 * (tokens.shape[1] + 4) * np.finfo(tokens.dtype).eps * largest


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    kind=st.sampled_from(["plain", "offset", "small", "large", "duplicates", "unit"]),
    n=st.integers(1, 40),
    dim=st.sampled_from([1, 2, 5, 32]),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
@quick
def test_radius_covers_and_is_attained(dtype, kind, n, dim, share, seed):
    tokens = make(kind, n, dim, dtype, seed)
    n_centers = max(1, int(share * n))
    chosen, radius = greedy_k_center(tokens, n_centers)
    assert chosen.dtype == np.int64
    assert isinstance(radius, float)
    assert len(set(chosen.tolist())) == len(chosen) <= n_centers
    assert abs(covering_radius(tokens, chosen) ** 2 - radius**2) <= square_error(tokens)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "offset", "small", "large", "unit"])
@pytest.mark.parametrize("n, dim, n_centers, start", [(40, 2, 12, 0), (60, 32, 60, 7)])
def test_equals_the_textbook(kind, n, dim, n_centers, start, dtype):
    tokens = make(kind, n, dim, dtype)
    chosen, radius = greedy_k_center(tokens, n_centers, start=start)
    np.testing.assert_array_equal(chosen, farthest_first(tokens, n_centers, start))
    expected = covering_radius(tokens, chosen)
    scale = tokens.std(dtype=np.float64)
    np.testing.assert_allclose(radius, expected, rtol=1e-5, atol=1e-5 * scale)


def test_of_equally_far_tokens_the_lowest_row():
    tokens = np.array([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0], [-3.0, 0.0], [0.0, 3.0]])
    chosen, radius = greedy_k_center(tokens, 4)
    np.testing.assert_array_equal(chosen, [0, 2, 3, 4])
    assert radius == 1.0


@given(n=st.integers(2, 8), dim=st.integers(1, 3), seed=st.integers(0, 1000), data=st.data())
@quick
def test_at_most_twice_the_optimum(n, dim, seed, data):
    tokens = make("plain", n, dim, np.float64, seed)
    n_centers = data.draw(st.integers(1, n))
    _, radius = greedy_k_center(tokens, n_centers)
    best = min(covering_radius(tokens, c) for c in combinations(range(n), n_centers))
    assert best - 1e-12 <= radius <= 2 * best + 1e-12


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "offset", "duplicates"])
def test_more_centres_never_a_larger_radius(kind, dtype):
    tokens = make(kind, 50, 8, dtype)
    results = [greedy_k_center(tokens, n_centers) for n_centers in range(1, 51)]
    radii = np.array([radius for _, radius in results])
    assert (np.diff(radii) <= 1e-6 * radii[0]).all()
    longest = results[-1][0]
    for chosen, _ in results:  # each is the beginning of the next
        np.testing.assert_array_equal(chosen, longest[: len(chosen)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["plain", "offset", "large"])
def test_every_token_a_centre(kind, dtype):
    tokens = make(kind, 30, 16, dtype)
    chosen, radius = greedy_k_center(tokens, 30)
    np.testing.assert_array_equal(np.sort(chosen), np.arange(30))
    assert radius == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0.0, 1.0, 300.0])
@pytest.mark.parametrize("n_distinct", [1, 2, 9])
def test_duplicates_are_never_chosen_twice(n_distinct, offset, dtype):
    rng = np.random.default_rng(0)
    distinct = (offset + rng.standard_normal((n_distinct, 33))).astype(dtype)
    source = np.concatenate([np.arange(n_distinct), rng.integers(0, n_distinct, 60)])
    chosen, radius = greedy_k_center(distinct[source], 40)
    assert sorted(source[chosen]) == list(range(n_distinct))
    assert radius == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_near_duplicates_are_not_duplicates(dtype):
    """Apart by less than the expanded square can tell, and yet different tokens."""
    tokens = np.ones((6, 4), dtype=dtype)
    tokens[3:, 0] += np.array([3, 5, 9], dtype=dtype) * np.finfo(dtype).eps
    tokens[5, 1] = 2
    chosen, radius = greedy_k_center(tokens, 6)
    assert sorted(chosen) == [0, 3, 4, 5]
    assert radius == 0
    assert greedy_k_center(tokens, 2)[1] > 0


def test_equal_tokens_are_covered_by_one():
    chosen, radius = greedy_k_center(np.full((5, 3), 7.0, dtype=np.float32), 3, start=2)
    np.testing.assert_array_equal(chosen, [2])
    assert radius == 0


@pytest.mark.parametrize("n_centers", [0, -1, 6])
def test_invalid_count(n_centers):
    with pytest.raises(ValueError, match=r"n_centers must be in \[1, 5\]"):
        greedy_k_center(np.eye(5), n_centers)


@pytest.mark.parametrize(
    "coreset, n_tokens, expected",
    [(0.1, 1000, 100), (0.1, 5, 1), (1.0, 7, 7), (0.999, 10, 9), (1, 7, 1), (8, 7, 7), (7, 7, 7)],
)
def test_coreset_size(coreset, n_tokens, expected):
    assert coreset_size(coreset, n_tokens) == expected
