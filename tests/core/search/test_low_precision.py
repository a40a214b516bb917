"""Rounding to bfloat16, never down where it must not be, and the trial of its products."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.core.search import low_precision
from skanomaly.core.search.low_precision import (
    blocks_reaching_zero,
    pack,
    to_above,
    to_nearest,
    two_terms_above,
)

quick = settings(max_examples=200, deadline=None, derandomize=True)
# Zero and what float32 holds with all of its digits.
numbers = st.one_of(
    st.just(0.0), st.floats(2.0**-100, 2.0**100), st.floats(-(2.0**100), -(2.0**-100))
)


@pytest.mark.parametrize("dtype, bits", [("bfloat16", 8), ("float32", 24)])
@given(value=numbers)
@quick
def test_rounding(dtype, bits, value):
    values = np.array([value])
    for rounded in (to_nearest(values, dtype), to_above(values, dtype)):
        assert rounded.dtype == np.float32
        mantissa, _ = np.frexp(rounded.astype(np.float64))
        assert (mantissa * 2.0**bits == np.round(mantissa * 2.0**bits)).all()
    # Rounded to float32 first, then to bfloat16.
    assert abs(to_nearest(values, dtype)[0] - value) <= 2.0**-bits * 1.0001 * abs(value)
    assert 0 <= to_above(values, dtype)[0] - value <= 2.0 ** (1 - bits) * 1.0001 * abs(value)
    (terms,) = two_terms_above(values, dtype).astype(np.float64)
    assert 0 <= terms.sum() - value <= 2.0 ** (1 - 2 * bits) * 1.01 * abs(value)


@pytest.mark.parametrize("n_terms", [64, 1024])
def test_sums_in_bfloat16_are_not_taken_for_sums_in_float32(n_terms):
    rows, columns = low_precision._cancelling_products(64, n_terms)
    exact = rows @ columns
    in_bfloat16 = np.zeros_like(exact)
    for term in range(n_terms):
        in_bfloat16 = to_nearest(in_bfloat16 + np.outer(rows[:, term], columns[term]), "bfloat16")
    for sums, expected in ((exact, True), (in_bfloat16, False)):
        packed = pack(to_nearest(sums, "bfloat16"), "bfloat16").view(np.int16)
        assert low_precision._are_zero([(0, packed)], rows) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_that_reach_zero(dtype):
    if dtype == "bfloat16":
        pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    rows, columns = (rng.integers(-3, 4, shape) for shape in ((640, 5), (5, 7)))
    found = blocks_reaching_zero(pack(rows, dtype), pack(columns, dtype), 8, rows_per_product=128)
    expected = (rows @ columns).reshape(80, 8, 7).max(axis=1) >= 0
    np.testing.assert_array_equal(found, expected)
