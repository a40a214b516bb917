"""Candidates for a coreset of a stream: they cover what came by, and little is lost by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.core import streamed_coreset
from skanomaly.core.coreset import covering_radius, greedy_k_center
from skanomaly.core.streamed_coreset import CoresetCandidates

quick = settings(max_examples=40, deadline=None, derandomize=True)


def make(kind, n, dim, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim))
    if kind == "offset":
        x += 1e3
    elif kind == "small":
        x *= 1e-30
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 3), n)]
    elif kind == "clustered":
        x = 0.05 * x + x[rng.integers(0, max(1, n // 20), n)]
    elif kind == "grid":
        x = rng.integers(0, 3, (n, dim))
    elif kind == "constant":
        x = np.full((n, dim), 0.3)
    elif kind == "sorted":
        x = x[np.argsort(x[:, 0])]
    elif kind == "sheet":  # of two dimensions, in more
        x = rng.uniform(size=(n, 2)) @ rng.standard_normal((2, dim))
    return x.astype(dtype)


KINDS = ["plain", "offset", "small", "duplicates", "clustered", "grid", "constant", "sorted"]
KINDS += ["sheet"]


def candidates_of(tokens, capacity, block):
    found = CoresetCandidates(capacity)
    for start in range(0, len(tokens), block):
        part = tokens[start : start + block]
        found.add(part, np.arange(start, start + len(part)))
    return found


@quick
@given(
    st.sampled_from(KINDS),
    st.integers(1, 300),
    st.integers(1, 6),
    st.integers(2, 40),
    st.integers(1, 100),
    st.sampled_from([np.float32, np.float64]),
)
def test_every_token_is_within_reach_of_a_candidate(kind, n, dim, capacity, block, dtype):
    tokens = make(kind, n, dim, dtype)
    found = candidates_of(tokens, capacity, block)
    assert 1 <= len(found.tokens) <= capacity
    np.testing.assert_array_equal(found.tokens, tokens[found.numbers])
    assert (np.diff(found.numbers) > 0).all()
    difference = tokens[:, None].astype(float) - found.tokens[None].astype(float)
    distances = np.sqrt((difference**2).sum(axis=2)).min(axis=1)
    assert distances.max() <= found.reach * (1 + 1e-12)
    assert found.radius <= found.reach
    if found.radius and kind != "small":  # whose products underflow: nothing is found by them
        assert not found.far(tokens[distances <= found.radius * 0.999]).any()


def test_few_tokens_are_all_candidates():
    tokens = make("plain", 50, 3)
    found = candidates_of(tokens, 50, 7)
    np.testing.assert_array_equal(found.tokens, tokens)
    assert found.radius == found.reach == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_coreset_covers_as_one_of_all_tokens(kind):
    tokens = make(kind, 4000, 8)
    _, expected = greedy_k_center(tokens, 80)
    found = candidates_of(tokens, 4 * 80, 500)
    chosen, numbers, bound = found.coreset(80)
    np.testing.assert_array_equal(chosen, tokens[numbers])
    measured = covering_radius(tokens, numbers)
    assert measured <= (1.3 if kind == "sheet" else 1.2) * expected
    assert measured <= bound + 1e-12


@quick
@given(
    st.sampled_from(KINDS),
    st.integers(1, 200),
    st.integers(1, 60),
    st.integers(2, 40),
    st.integers(1, 30),
)
def test_tokens_that_were_set_aside_are_covered_unless_they_are_left_out(
    kind, n, n_aside, capacity, size
):
    tokens = make(kind, n + n_aside, 3)
    found = candidates_of(tokens[:n], capacity, 17)
    for part in np.array_split(np.arange(n, n + n_aside), 3):
        found.set_aside(tokens[part], part)
    assert (found.numbers < n).all()
    for last in (n, n + n_aside // 2, n + n_aside):
        chosen, numbers, radius = found.coreset(size, lambda numbers, last=last: numbers >= last)
        assert (numbers < last).all() and len(chosen) <= size
        np.testing.assert_array_equal(chosen, tokens[numbers])
        difference = tokens[:last, None].astype(float) - chosen[None].astype(float)
        distances = np.sqrt((difference**2).sum(axis=2)).min(axis=1)
        assert distances.max() <= radius * (1 + 1e-12)


def test_the_coreset_of_few_tokens_is_the_greedy_one():
    tokens = make("plain", 200, 4)
    found = CoresetCandidates(150)
    found.add(tokens[50:], np.arange(50, 200))
    found.set_aside(tokens[:50], np.arange(50))
    expected, radius = greedy_k_center(tokens, 20)
    chosen, numbers, bound = found.coreset(20)
    np.testing.assert_array_equal(numbers, expected)
    assert bound == radius


def test_tokens_are_looked_for_in_cells_where_there_are_many(monkeypatch):
    tokens = make("plain", 6000, 8)
    one_cell = candidates_of(tokens, 2000, 700)
    monkeypatch.setattr(streamed_coreset, "_FEW", 50)
    found = candidates_of(tokens, 2000, 700)
    assert found.radius > 0
    assert not np.array_equal(found.numbers, one_cell.numbers)  # some were not found
    difference = tokens[:, None] - found.tokens[None]
    nearest = np.sqrt((difference.astype(float) ** 2).sum(axis=2)).min(axis=1)
    assert nearest.max() <= found.reach
    # What is not found costs candidates, and not many.
    far = found.far(tokens)
    assert far[nearest > found.radius].all()
    assert far.sum() <= 0.1 * len(tokens)


def test_the_same_stream_gives_the_same_candidates():
    tokens = make("clustered", 3000, 8)
    one, two = candidates_of(tokens, 200, 300), candidates_of(tokens.copy(), 200, 300)
    np.testing.assert_array_equal(one.numbers, two.numbers)
    assert one.radius == two.radius and one.reach == two.reach


def test_a_capacity_of_one_is_refused():
    with pytest.raises(ValueError, match="capacity must be at least 2, got 1"):
        CoresetCandidates(1)
