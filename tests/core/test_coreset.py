"""Farthest-first traversal: what the textbook says, and that its radius covers."""

from itertools import combinations
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances
from sklearn.preprocessing import normalize

from skanomaly import PatchKNNScorer
from skanomaly.core import lazy_distances
from skanomaly.core.coreset import (
    coreset_size,
    covering_radius,
    greedy_k_center,
    merge_coresets,
    projected_k_center,
)
from skanomaly.core.lazy_distances import DEFAULT_SIZES, Sizes

quick = settings(max_examples=40, deadline=None, derandomize=True)
DTYPES = [np.float32, np.float64]


def make(kind, n, dim, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim))
    if kind == "offset":
        x += 1e3
    elif kind == "small":
        x *= 1e-30
    elif kind == "large":
        x *= 1e12
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 3), n)]
    elif kind == "unit":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    elif kind == "clustered":
        x = 0.01 * x + x[rng.integers(0, max(1, n // 10), n)]
    elif kind == "grid":  # whole numbers: distances are exact, and many are equal
        x = rng.integers(0, 3, (n, dim))
    elif kind == "offset grid":
        x = rng.integers(0, 2, (n, dim)) + 1e6
    elif kind == "constant":
        x = np.full((n, dim), 0.3)
    elif kind == "outlier":  # the products see nothing of the others
        x *= 1e-6
        x[n // 2] += 1e3
    elif kind == "last digits":  # in float64, squares of differences underflow in float32
        x = 2.0**-19 * (1 + np.finfo(dtype).eps * rng.integers(0, 9, (n, dim)))
    return x.astype(dtype)


KINDS = ["plain", "offset", "small", "large", "duplicates", "unit", "clustered"]
KINDS += ["grid", "offset grid", "constant", "outlier", "last digits"]


def brute_radius(tokens, chosen):
    """Largest distance of a token to its nearest centre, float64."""
    tokens = tokens.astype(np.float64)
    return max(min(np.linalg.norm(t - tokens[c]) for c in chosen) for t in tokens)


def farthest_first(tokens, n_centers, start=0):
    """The textbook's loop in float64, which stops when only duplicates of the chosen are left."""
    tokens = tokens.astype(np.float64)
    chosen, nearest = [start], np.full(len(tokens), np.inf)
    while True:
        difference = tokens - tokens[chosen[-1]]
        nearest = np.minimum(nearest, (difference * difference).sum(axis=1))
        row = int(nearest.argmax())
        if len(chosen) == n_centers or nearest[row] == 0:
            return chosen, np.sqrt(nearest[row])
        chosen.append(row)


# Let a few tokens go through all that otherwise takes thousands.
SMALL = Sizes(cells=2, pool=(5, 5), steps=2, centres=3, rows=7, pairs=2)


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 40),
    dim=st.sampled_from([1, 2, 5, 32]),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
    lazy=st.booleans(),
)
@settings(quick, max_examples=150)
def test_equals_the_textbook(dtype, kind, n, dim, share, seed, lazy):
    tokens = make(kind, n, dim, dtype, seed)
    n_centers, start = max(1, int(share * n)), seed % n
    sizes = SMALL if lazy else DEFAULT_SIZES
    chosen, radius = greedy_k_center(tokens, n_centers, start=start, sizes=sizes)
    expected, expected_radius = farthest_first(tokens, n_centers, start)
    np.testing.assert_array_equal(chosen, expected)
    assert chosen.dtype == np.int64
    assert isinstance(radius, float)
    np.testing.assert_allclose(radius, expected_radius, rtol=1e-13)
    np.testing.assert_allclose(radius, brute_radius(tokens, chosen), rtol=1e-12)


@pytest.mark.parametrize("kind", ["plain", "offset", "duplicates", "clustered", "grid", "outlier"])
def test_equals_the_textbook_at_the_real_block_sizes(kind):
    tokens = make(kind, 3000, 24, np.float32)
    chosen, radius = greedy_k_center(tokens, 700, start=5)
    expected, expected_radius = farthest_first(tokens, 700, start=5)
    np.testing.assert_array_equal(chosen, expected)
    np.testing.assert_allclose(radius, expected_radius, rtol=1e-13)


@given(
    kind=st.sampled_from(KINDS),
    cells=st.integers(1, 9),
    pool=st.integers(1, 40),
    centres=st.integers(1, 30),
    rows=st.integers(1, 60),
    pairs=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
@quick
def test_the_same_for_all_block_sizes(kind, cells, pool, centres, rows, pairs, seed):
    tokens = make(kind, 60, 4, np.float32, seed)
    expected, expected_radius = greedy_k_center(tokens, 25)
    sizes = Sizes(cells, (pool, pool), 2, centres, rows, pairs)
    chosen, radius = greedy_k_center(tokens, 25, sizes=sizes)
    np.testing.assert_array_equal(chosen, expected)
    assert radius == expected_radius


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000), dim=st.sampled_from([2, 20, 300]))
@quick
def test_the_same_for_all_rounding(kind, seed, dim):
    """Products may be wrong by as much as any order of float32 sums can make them."""
    tokens = make(kind, 50, dim, np.float32, seed)
    rng = np.random.default_rng(seed)

    def rounded(left, right, out=None):
        left, right = left.astype(np.float64), right.astype(np.float64)
        error = left.shape[-1] * 2.0**-24 * (abs(left) @ abs(right))
        result = left @ right + error * rng.uniform(-1, 1, error.shape)
        return result.astype(np.float32) if out is None else np.copyto(out, result, "same_kind")

    with mock.patch.object(lazy_distances, "product", rounded):
        chosen, radius = greedy_k_center(tokens, 25, sizes=SMALL)
    expected, expected_radius = farthest_first(tokens, 25)
    np.testing.assert_array_equal(chosen, expected)
    np.testing.assert_allclose(radius, expected_radius, rtol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exponent", ["smallest", "largest"])
def test_the_same_at_the_ends_of_the_range(dtype, exponent):
    tokens = make("plain", 50, 6, dtype)
    info = np.finfo(dtype)
    scale = dtype(2.0) ** (info.minexp + 30 if exponent == "smallest" else info.maxexp - 4)
    expected, expected_radius = greedy_k_center(tokens, 20)
    chosen, radius = greedy_k_center(tokens * scale, 20, sizes=SMALL)
    np.testing.assert_array_equal(chosen, expected)
    np.testing.assert_allclose(radius, expected_radius * float(scale), rtol=1e-6)


@pytest.mark.parametrize("layout", ["fortran", "strided"])
def test_layout_does_not_matter(layout):
    tokens = make("plain", 50, 6, np.float32)
    other = np.asfortranarray(tokens) if layout == "fortran" else np.repeat(tokens, 2, axis=0)[::2]
    np.testing.assert_array_equal(greedy_k_center(other, 9)[0], greedy_k_center(tokens, 9)[0])


@given(kind=st.sampled_from(KINDS), n=st.integers(1, 40), seed=st.integers(0, 1000), data=st.data())
@quick
def test_stops_at_the_radius(kind, n, seed, data):
    tokens = make(kind, n, 3, np.float64, seed)
    everything, _ = greedy_k_center(tokens, n)
    radii = [brute_radius(tokens, everything[: k + 1]) for k in range(len(everything))]
    wanted = data.draw(st.floats(0, 1.1)) * radii[0]
    chosen, radius = greedy_k_center(tokens, n, radius=wanted)
    assert brute_radius(tokens, chosen) <= max(wanted * (1 + 1e-12), 1e-300)
    assert radius <= wanted
    assert len(chosen) == 1 or radii[len(chosen) - 2] > wanted * (1 - 1e-12)
    np.testing.assert_array_equal(chosen, everything[: len(chosen)])
    few = max(1, len(chosen) - 1)
    assert len(greedy_k_center(tokens, few, radius=wanted)[0]) == few


@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 40),
    seed=st.integers(0, 1000),
    data=st.data(),
    lazy=st.booleans(),
)
@quick
def test_covering_radius(kind, n, seed, data, lazy):
    tokens = make(kind, n, 5, np.float32, seed)
    chosen = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=30))
    radius = covering_radius(tokens, chosen, sizes=SMALL if lazy else DEFAULT_SIZES)
    np.testing.assert_allclose(radius, brute_radius(tokens, chosen), rtol=1e-12)


def test_covering_radius_at_the_real_block_sizes():
    tokens = make("clustered", 5000, 16, np.float32)
    chosen = np.random.default_rng(0).choice(5000, 600, replace=False)
    expected = pairwise_distances(tokens.astype(float), tokens[chosen].astype(float)).min(axis=1)
    np.testing.assert_allclose(covering_radius(tokens, chosen), expected.max(), rtol=1e-9)


@given(
    kinds=st.lists(
        st.sampled_from(["plain", "unit", "grid", "duplicates"]), min_size=1, max_size=4
    ),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
@quick
def test_a_merged_coreset_covers_what_its_parts_cover(kinds, share, seed):
    parts = [make(kind, 15 + 4 * i, 3, np.float32, seed + i) for i, kind in enumerate(kinds)]
    coresets, radii = [], []
    for part in parts:
        chosen, radius = greedy_k_center(part, 6)
        coresets.append(part[chosen])
        radii.append(radius)
    together = np.concatenate(coresets)
    chosen, radius = merge_coresets(coresets, radii, max(1, int(share * len(together))))
    assert len(set(chosen.tolist())) == len(chosen)
    centres = together[chosen].astype(float)
    distances = pairwise_distances(np.concatenate(parts).astype(float), centres)
    added = pairwise_distances(together.astype(float), centres).min(axis=1).max()
    assert distances.min(axis=1).max() <= radius + 1e-6
    np.testing.assert_allclose(radius, max(radii) + added, atol=1e-6)


def test_merging_stops_at_the_radius():
    tokens = make("plain", 40, 2, np.float64)
    indices, radius = merge_coresets([tokens[:20], tokens[20:]], [0.25, 0.125], 40, radius=1.0)
    assert len(indices) < 40
    assert radius <= 0.25 + 1.0
    np.testing.assert_allclose(radius, 0.25 + brute_radius(tokens, indices))


@pytest.mark.parametrize(
    "n_coresets, radii, message", [(2, [1.0], "2 coresets and 1 radii"), (1, [-1.0], "radii must")]
)
def test_merging_refuses(n_coresets, radii, message):
    with pytest.raises(ValueError, match=message):
        merge_coresets([np.eye(3)] * n_coresets, radii, 2)


@pytest.mark.parametrize("kind", ["clustered", "offset", "unit", "duplicates"])
def test_projected(kind):
    tokens = make(kind, 300, 64, np.float32)
    chosen, radius = projected_k_center(tokens, 40, n_components=8, random_state=0)
    assert len(set(chosen.tolist())) == 40
    np.testing.assert_allclose(radius, brute_radius(tokens, chosen), rtol=1e-12)
    again, _ = projected_k_center(tokens, 40, n_components=8, random_state=0)
    np.testing.assert_array_equal(again, chosen)
    other, _ = projected_k_center(tokens, 40, n_components=8, random_state=1)
    assert (other != chosen).any()
    # Not the exact order, and yet far better than chance.
    exact, least = greedy_k_center(tokens, 40)
    assert (chosen != exact).any()
    random = np.random.default_rng(0).choice(300, 40, replace=False)
    assert radius < 1.5 * least
    if kind == "clustered":
        assert radius < 0.9 * brute_radius(tokens, random)


def test_few_components_are_not_projected():
    tokens = make("plain", 100, 16, np.float32)
    chosen, radius = projected_k_center(tokens, 30, start=3, n_components=16)
    expected, expected_radius = greedy_k_center(tokens, 30, start=3)
    np.testing.assert_array_equal(chosen, expected)
    assert radius == expected_radius


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
    best = min(brute_radius(tokens, c) for c in combinations(range(n), n_centers))
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


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("method", [None, "k_center", "projected_k_center", "random"])
@pytest.mark.parametrize("dim", [5, 150])  # of which the first is not projected
def test_every_training_patch_is_within_the_radius_of_the_scorer(method, metric, dim):
    tokens = 1 + np.random.default_rng(0).standard_normal((12, 3, 4, dim)).astype(np.float32)
    tokens[2, 1, 1] = np.nan  # masked
    options = {} if method is None else {"coreset": 0.2, "coreset_method": method}
    scorer = PatchKNNScorer(metric=metric, random_state=0, **options).fit(tokens)
    patches = tokens.reshape(-1, dim).astype(np.float64)
    patches = patches[~np.isnan(patches[:, 0])]
    if metric == "cosine":
        patches = normalize(patches)
    farthest = pairwise_distances(patches, scorer.bank_.astype(np.float64)).min(axis=1).max()
    assert isinstance(scorer.coverage_radius_, float)
    np.testing.assert_allclose(scorer.coverage_radius_, farthest, atol=1e-5)
    assert len(scorer.bank_) == (len(patches) if method is None else int(0.2 * len(patches)))


@pytest.mark.parametrize("n_centers", [0, -1, 6])
def test_invalid_count(n_centers):
    with pytest.raises(ValueError, match=r"n_centers must be in \[1, 5\]"):
        greedy_k_center(np.eye(5), n_centers)


@pytest.mark.parametrize(
    "options, message",
    [({"start": 5}, "start must be a row"), ({"start": -1}, "start"), ({"radius": -1}, "radius")],
)
def test_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        greedy_k_center(np.eye(5), 2, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad):
    tokens = np.eye(5)
    tokens[3, 2] = bad
    with pytest.raises(ValueError, match="finite"):
        greedy_k_center(tokens, 2)


@pytest.mark.parametrize("tokens", [np.zeros(4), np.zeros((2, 3), int), np.zeros((2, 2, 2))])
def test_not_tokens(tokens):
    with pytest.raises(ValueError, match="float32 or float64 array of shape"):
        greedy_k_center(tokens, 1)


@pytest.mark.parametrize(
    "coreset, n_tokens, expected",
    [(0.1, 1000, 100), (0.1, 5, 1), (1.0, 7, 7), (0.999, 10, 9), (1, 7, 1), (8, 7, 7), (7, 7, 7)],
)
def test_coreset_size(coreset, n_tokens, expected):
    assert coreset_size(coreset, n_tokens) == expected
