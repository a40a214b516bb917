"""The units in which tokens are compared: what they cost."""

import tracemalloc

import numpy as np

from skanomaly.core.local_units import standard_units


def test_directions_are_standardised_block_by_block():
    values, valid = np.ones((2**17, 16), np.float32), np.ones(2**17, bool)
    tracemalloc.start()
    standard_units(values, valid, unit_length=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * values.nbytes  # the directions, and little besides
