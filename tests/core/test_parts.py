"""Parts of tokens: equal, of given sizes, and what cannot be one."""

import numpy as np
import pytest

from skanomaly.core.parts import part_slices


@pytest.mark.parametrize("parts", [1, 2, 4, np.int64(2), (1, 7), (3, 3, 2), np.array([5, 3])])
def test_cover_every_component_once_and_in_order(parts):
    components = np.arange(8)
    slices = part_slices(8, parts)
    np.testing.assert_array_equal(np.concatenate([components[part] for part in slices]), components)
    sizes = [len(components[part]) for part in slices]
    assert sizes == ([8 // parts] * parts if np.ndim(parts) == 0 else list(parts))


@pytest.mark.parametrize("parts", [0, 3, -1, (), (8, 0), (4, 5), (-1, 9)])
def test_parts_that_do_not_add_up(parts):
    with pytest.raises(ValueError, match="parts="):
        part_slices(8, parts)
