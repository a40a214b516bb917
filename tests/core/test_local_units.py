"""The units in which tokens are compared: numbers of any size, and what they cost."""

import tracemalloc

import numpy as np
import pytest

from skanomaly.core.local_units import Units, component_units, standard_units


def test_directions_are_standardised_block_by_block():
    values, valid = np.ones((2**17, 16), np.float32), np.ones(2**17, bool)
    tracemalloc.start()
    standard_units(values, valid, unit_length=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * values.nbytes  # the directions, and little besides


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e300])
def test_directions_of_tokens_of_any_size(size):
    # Squares of the first are zero, those of the last infinite.
    tokens = size * np.array([[3.0, 4.0], [-4.0, 3.0], [0.0, 0.0]])
    units = Units(True, np.zeros(2), np.ones(2))
    expected = [[0.6, 0.8], [-0.8, 0.6], [0.0, 0.0]]
    np.testing.assert_allclose(units.of(tokens), expected, rtol=1e-15)


def test_masked_tokens_do_not_count():
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    valid = np.arange(60) % 3 > 0
    masked = np.where(valid[:, None], values, np.nan)
    rows = np.arange(60).reshape(12, 5)
    for fit in (
        lambda tokens, valid, rows: standard_units(tokens, valid, unit_length=True),
        lambda tokens, valid, rows: component_units(
            tokens, valid, rows, n_components=2, ridge=0.1, unit_length=True
        ),
    ):
        units, expected = fit(masked, valid, rows), fit(values, valid, rows)
        np.testing.assert_array_equal(units.of(values), expected.of(values))
        everything = fit(values, np.ones(60, bool), rows)
        assert np.abs(units.of(values) - everything.of(values)).max() > 1e-3
