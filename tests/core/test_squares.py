"""Sums over squares, one cell after the other."""

import numpy as np
import pytest

from skanomaly.core.squares import box_sums


@pytest.mark.parametrize("side", [1, 3, 5, 11])
def test_sums(side):
    values, reach = np.random.default_rng(0).normal(size=(4, 7, 2)), side // 2
    found = box_sums(values, side)
    for row, column in np.ndindex(4, 7):
        rows = slice(max(0, row - reach), row + reach + 1)
        columns = slice(max(0, column - reach), column + reach + 1)
        expected = values[rows, columns].sum(axis=(0, 1))
        np.testing.assert_allclose(found[row, column], expected, atol=1e-12)
