"""The archive that a model file is."""

import numpy as np
import pytest

from skanomaly.persistence._container import Container, write_container


@pytest.mark.slow
def test_more_arrays_than_five_digits_count(tmp_path):
    path, few = tmp_path / "many.skan", [np.array([i]) for i in range(5)]
    arrays = few * 20001
    write_container(path, {}, b"", arrays, {})
    with Container(path) as file:
        found = file.arrays()
    assert len(found) == 100005
    for i in (0, 9999, 10000, 10001, 99999, 100000, 100004):
        np.testing.assert_array_equal(found[i], arrays[i])
