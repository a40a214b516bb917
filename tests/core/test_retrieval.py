"""The most similar images, and the nearest patches near the same place, by exhaustion."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.core.retrieval import nearest_within, similar_images
from skanomaly.core.search.brute_force import prepare_bank

quick = settings(max_examples=40, deadline=None, derandomize=True)


@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    radius=st.integers(0, 6),
    k=st.integers(1, 2),
    metric=st.sampled_from(["cosine", "euclidean"]),
    coarse=st.booleans(),
    seed=st.integers(0, 1000),
)
@quick
def test_nearest_within(grid, radius, k, metric, coarse, seed):
    rng = np.random.default_rng(seed)
    n_places, n_images = grid[0] * grid[1], 3
    tokens = rng.normal(size=((n_images + 1) * n_places, 5)).astype(np.float32)
    if coarse:  # with ties
        tokens = np.round(tokens) + np.float32(0.5)
    tokens = prepare_bank(tokens, metric)
    queries, bank = tokens[:n_places], tokens[n_places:]
    allowed = rng.uniform(size=len(bank)) < 0.8
    allowed[: 2 * n_places] = True
    asked = np.flatnonzero(rng.uniform(size=n_places) < 0.7)
    if not asked.size:
        return
    distances, rows = nearest_within(queries, bank, allowed, asked, grid, radius, k, metric)
    for place, far, found in zip(asked, distances, rows, strict=True):
        here, expected = divmod(place, grid[1]), []
        for row in np.flatnonzero(allowed):
            there = divmod(row % n_places, grid[1])
            if max(abs(here[0] - there[0]), abs(here[1] - there[1])) <= radius:
                squared = np.sum((queries[place].astype(float) - bank[row]) ** 2)
                expected.append((squared / 2 if metric == "cosine" else np.sqrt(squared), row))
        expected = sorted(expected)[:k]
        np.testing.assert_allclose(far, [one for one, _ in expected], rtol=1e-12)
        np.testing.assert_array_equal(found, [row for _, row in expected])


def test_memory_does_not_grow_with_the_radius():
    rng = np.random.default_rng(0)
    tokens = prepare_bank(rng.normal(size=(21 * 400, 16)).astype(np.float32), "cosine")
    queries, bank = tokens[:400], tokens[400:]
    peaks = []
    for radius in (1, 6):
        tracemalloc.start()
        nearest_within(queries, bank, np.ones(len(bank), bool), np.arange(400), (20, 20), radius)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 4 * bank.nbytes
    assert peaks[1] < 1.2 * peaks[0]


def test_too_few_patches_near_a_place():
    bank, allowed = np.ones((4, 2)), np.array([True, False, True, True])
    with pytest.raises(ValueError, match="n_neighbors=1 is more than the 0 patches .* radius=0"):
        nearest_within(bank, bank, allowed, np.arange(4), (2, 2), 0)


def test_similar_images():
    rng = np.random.default_rng(0)
    descriptors = prepare_bank(rng.normal(size=(9, 4)).astype(np.float32), "cosine")
    allowed = rng.uniform(size=9) < 0.6
    for descriptor in descriptors:
        order = np.argsort(-(descriptors.astype(float) @ descriptor.astype(float)), kind="stable")
        expected = [number for number in order if allowed[number]]
        np.testing.assert_array_equal(
            similar_images(descriptor, descriptors, allowed, 3), expected[:3]
        )
        assert len(similar_images(descriptor, descriptors, allowed, 100)) == allowed.sum()
