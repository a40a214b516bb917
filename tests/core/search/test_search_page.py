"""The page on the exact search: its plain loops find, and rule out, what the package does."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from test_certified import shaped

from skanomaly.core.search.brute_force import prepare_bank
from skanomaly.core.search.certified import CertifiedSearch
from skanomaly.core.search.index import PatchIndex
from skanomaly.core.search.low_precision import torch_products
from skanomaly.core.search.sorting import sort_bank
from skanomaly.core.search.tuning import DEFAULT_TUNING, Tuning
from skanomaly.core.search.wide import WideSearch

PAGE = Path(__file__).parents[3] / "docs/development/search.md"
BLOCK = DEFAULT_TUNING.rows_per_block


@pytest.fixture(scope="module")
def page():
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def problem(kind="clusters", n_bank=260, dim=9, dtype=np.float64, metric="euclidean"):
    """Queries, and a sorted bank with its parts."""
    tokens = shaped(kind, 10, n_bank, dim, dtype)
    queries, bank = (prepare_bank(x, metric) for x in tokens)
    queries[1] = bank[5]
    _, parts = sort_bank(bank, BLOCK, rows_per_part=90)
    return queries, bank, parts


@pytest.mark.parametrize("kind", ["clusters", "duplicates", "plain"])
@pytest.mark.parametrize("metric, k", [("euclidean", 1), ("cosine", 3)])
def test_plain_loops_find_what_is_nearest(page, kind, metric, k):
    queries, bank, parts = problem(kind, metric=metric)
    found = page["plain_search"](queries, bank, parts, k)
    distances, rows, compared = (np.array(x) for x in zip(*found, strict=True))
    brute = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank)
    np.testing.assert_allclose(distances, brute.kneighbors(queries)[0], rtol=0, atol=1e-7)
    # Of unit vectors the cosine distance is half the squared distance.
    ours, indices = PatchIndex(bank.copy(), metric, "certified").search(queries, k)
    expected = ours if metric == "euclidean" else np.sqrt(2 * ours)
    np.testing.assert_allclose(distances, expected, rtol=0, atol=1e-12)
    if kind != "duplicates":  # whose order is decided by the last bit of a distance
        np.testing.assert_array_equal(rows, indices)
    if kind == "clusters":
        assert compared.mean() < 0.7 * len(bank)


def test_plain_loops_leave_groups_out(page):
    queries, bank, parts = problem()
    groups = np.arange(len(bank)) % 3
    own = np.array([0, 1, 2, -1, 5] * 2)
    found = page["plain_search"](queries, bank, parts, 2, BLOCK, own, groups)
    expected = PatchIndex(bank.copy(), "euclidean", "brute").search(queries, 2, own, groups)
    np.testing.assert_allclose([d for d, _, _ in found], expected[0], rtol=0, atol=1e-12)
    np.testing.assert_array_equal([r for _, r, _ in found], expected[1])


def wanted_of(queries, bank):
    """A similarity that about 20 rows of the bank reach, for each query."""
    similarity = queries @ bank.T - 0.5 * (bank**2).sum(axis=1)
    return np.partition(similarity, -20, axis=1)[:, -20], similarity


def assert_same_blocks(possible, values, starts, stops):
    """`values` are the plain sums of each row and query; near zero either answer is right."""
    for block, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        highest = values[start:stop].max(axis=0)
        clear = np.abs(highest) > 1e-4
        np.testing.assert_array_equal(possible[block][clear], highest[clear] >= 0)
    assert 0 < possible.mean() < 1


@pytest.mark.parametrize("kind", ["clusters", "low rank"])
def test_a_few_coordinates_rule_out_the_same_blocks(page, kind):
    pytest.importorskip("torch")
    queries, bank, parts = problem(kind, dim=70)
    wanted, similarity = wanted_of(queries, bank)
    search = CertifiedSearch(bank, parts, "euclidean", Tuning(precision="bfloat16"))
    values = np.empty((len(bank), len(queries)))
    for part in parts:
        part_of_bank = slice(part.start, part.stop)
        rows = np.array([page["row_column"](row, part) for row in bank[part_of_bank]])
        largest = np.linalg.norm(rows, axis=1).max()
        columns = [
            page["query_column"](query, part, value, largest)
            for query, value in zip(queries, wanted, strict=True)
        ]
        values[part_of_bank] = rows @ np.array(columns).T
    assert (values[similarity.T >= wanted] >= 0).all()
    possible = search._possible(search._query_columns(queries, wanted))
    assert_same_blocks(possible, values, search.blocks.starts, search.blocks.stops)


@pytest.mark.parametrize("kind", ["clusters", "plain"])
def test_all_coordinates_rule_out_the_same_rows(page, kind):
    pytest.importorskip("torch")
    queries, bank, _ = problem(kind, dim=70)
    wanted, similarity = wanted_of(queries, bank)
    search = WideSearch(bank, "euclidean")
    center, scale = search.center, search.scale
    rows = np.array([page["wide_row_column"](row, center, scale) for row in bank])
    columns, limits = zip(
        *[
            page["wide_query_column"](query, center, scale, value, search.widest)
            for query, value in zip(queries, wanted, strict=True)
        ],
        strict=True,
    )
    values = rows @ np.array(columns).T
    assert (values <= limits)[similarity.T >= wanted].all()
    packed, limit_of, _ = search._columns_of(queries)
    ((_, products),) = torch_products(search.rows, packed, len(search.rows))
    possible = products[: len(bank)] <= limit_of(wanted)
    # The package rounds the products to bfloat16: near the limit either answer is right.
    clear = np.abs(values - limits) > 2.0**-7 * np.abs(limits)
    np.testing.assert_array_equal(possible[clear], (values <= limits)[clear])
    assert 0 < possible.mean() < 1


@pytest.mark.parametrize("dim", [3, 57, 384])
@pytest.mark.parametrize("kind", ["plain", "low rank", "far clusters"])
def test_bases_are_as_orthonormal_as_the_bounds_need(kind, dim):
    _, bank = shaped(kind, 1, 300, dim, np.float32)
    _, parts = sort_bank(bank, BLOCK)
    for part in parts:
        error = part.basis.T @ part.basis - np.eye(part.basis.shape[1])
        assert np.linalg.norm(error, 2) < 30e-15
