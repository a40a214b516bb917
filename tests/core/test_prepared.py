"""Rows that are brought to unit length when they are read, or in a copy where that is small."""

import numpy as np
import pytest

from skanomaly.core import prepared
from skanomaly.core.prepared import PreparedRows
from skanomaly.core.search.brute_force import prepare_bank


@pytest.mark.parametrize("copied", [0, 2**24])
@pytest.mark.parametrize("rows", [None, np.r_[700:20:-3]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_bits_of_a_prepared_bank(monkeypatch, metric, dtype, rows, copied):
    monkeypatch.setattr(prepared, "_COPIED", copied)
    tokens = np.random.default_rng(0).standard_normal((900, 7)).astype(dtype)
    tokens[3::50] *= 1e-30
    tokens[5] = 0
    expected = prepare_bank(tokens, metric, rows)
    lazy = PreparedRows(tokens, metric, rows)
    assert lazy.shape == expected.shape and lazy.dtype == dtype
    for key in (slice(None), slice(30, 290), np.array([200, 3, 3, 0])):
        np.testing.assert_array_equal(lazy[key], expected[key])
    if metric == "cosine":
        exact = (tokens if rows is None else tokens[rows]).astype(np.longdouble)
        norms = np.sqrt((exact**2).sum(axis=1, keepdims=True))
        exact = exact / np.where(norms == 0, 1, norms)
        # Of a root of a sum and two quotients; where longdouble is no longer, of the oracle too.
        assert np.abs(lazy[:] - exact).max() <= 4 * np.finfo(dtype).eps


def test_another_metric():
    with pytest.raises(ValueError, match="metric must be 'cosine' or 'euclidean'"):
        PreparedRows(np.ones((2, 3)), "manhattan")
