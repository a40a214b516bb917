"""One process that judges images without end: its memory does not grow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.memory_slope import line_through

ROOT = Path(__file__).resolve().parents[1]
N_IMAGES = 2000
# Beyond this many bytes an image it is a leak: of 10 kB an image it would be the double. What the
# allocator takes late, in pieces of up to a few MB, is below it.
MOST = 5000

LEAKING = """
import sys
from benchmarks import memory_slope
kept = []
looked_at = memory_slope.looked_at

def leak(stream):
    for decision in stream:
        kept.append(bytes([len(kept) % 256]) * 10_000)
        yield decision

memory_slope.looked_at = lambda stream, n: looked_at(leak(stream), n)
memory_slope.main()
"""


def slope(folder, *start):
    command = [sys.executable, *start, "--images", str(N_IMAGES), "--json", str(folder / "s.json")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    looks = json.loads((folder / "s.json").read_text())["looks"]
    assert looks[-1][0] == N_IMAGES
    return line_through(*zip(*looks, strict=True))[0]


def test_the_line_is_that_of_polyfit():
    rng = np.random.default_rng(0)
    x = np.arange(50) * 40 + 10
    y = 3e8 + 7.5 * x + rng.normal(0, 100, 50)
    (expected, _), covariance = np.polyfit(x, y, 1, cov=True)
    found, error = line_through(x, y)
    assert found == pytest.approx(expected, rel=1e-6)
    assert error == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc")
def test_memory_does_not_grow_with_images(tmp_path):
    assert slope(tmp_path, "-m", "benchmarks.memory_slope") < MOST


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc")
def test_a_leak_would_be_seen(tmp_path):
    assert slope(tmp_path, "-c", LEAKING) > MOST
