"""Digests of what results depend on."""

import hashlib
import tracemalloc

from skanomaly._results.digests import file_digests
from skanomaly.datasets import DatasetSplit, ImageSet


def test_files_are_not_read_into_memory(tmp_path):
    paths = [tmp_path / f"{name}.tif" for name in "ab"]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * (1 << 24))
    train, test = (ImageSet([path], [1], [None], ["good"], path.stem) for path in paths)
    tracemalloc.start()
    try:
        digests = file_digests([DatasetSplit("x", train, test)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert digests == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert peak < 1 << 23
