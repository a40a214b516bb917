"""True and False are no numbers: a slip such as n_centers=True is an error."""

import numpy as np
import pytest

from skanomaly._images import resize_image
from skanomaly.core.aggregation import aggregate_patch_scores
from skanomaly.core.coreset import coreset_size, greedy_k_center
from skanomaly.core.filter_bank import filter_bank_features
from skanomaly.core.maps import upsample_map

TOKENS, IMAGE = np.eye(4), np.zeros((8, 8, 3), dtype=np.uint8)
CALLS = {
    "aggregation": lambda: aggregate_patch_scores([1.0, 2.0], aggregation=True),
    "topk": lambda: aggregate_patch_scores([1.0, 2.0], topk=True),
    "coreset": lambda: coreset_size(True, 10),
    "n_centers": lambda: greedy_k_center(TOKENS, True),
    "start": lambda: greedy_k_center(TOKENS, 2, start=True),
    "stride": lambda: filter_bank_features(IMAGE, stride=True),
    "size": lambda: upsample_map(TOKENS, (True, 8)),
    "size of an image": lambda: resize_image(IMAGE, (8, True)),
}


@pytest.mark.parametrize("name", CALLS)
def test_bools_are_refused(name):
    with pytest.raises(ValueError, match=f"{name.split(' ')[0]} must be.*True"):
        CALLS[name]()
