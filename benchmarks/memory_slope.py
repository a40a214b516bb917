"""Whether the memory of a process grows with the number of images that it scores.

    python -m benchmarks.memory_slope [--images 200000] [--json FILE]

A Pipeline of `FilterBankPatches` and `LocalKNNScorer`, fitted to 20 surfaces of 32 x 32 pixels,
scores generated images of that size by `iter_scores`, one stream in one process; garbage is
collected and memory is given back as Python and the C library do by themselves. Resident memory is
looked at 200 times. Printed is the line through what was seen after the first tenth, by least
squares: its slope in bytes an image with its standard error, and how much memory grew from the
first to the last of these. The standard error takes what is left as noise of its own at each look,
which memory that is given back late is not. Linux only.
"""

import argparse
import math
import os
import time
from itertools import islice

import numpy as np
from sklearn.pipeline import make_pipeline

from benchmarks._timing import machine, print_table, write_json
from skanomaly import FilterBankPatches, LocalKNNScorer, iter_scores
from skanomaly.datasets import make_surfaces

SIZE = 32
_TRAINING, _LOOKS, _WARM_UP = 20, 200, 0.1


def resident():
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def line_through(x, y):
    """Slope of the line through points by least squares, and its standard error."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    rest = y - slope * x
    return slope, math.sqrt(float(rest @ rest) / (len(x) - 2) / float(x @ x))


def looked_at(stream, n_images):
    """Images that went through a stream, and resident memory then, time after time."""
    step = max(1, n_images // _LOOKS)
    rows = []
    for done, _ in enumerate(islice(stream, n_images), 1):
        if done % step == 0 and done >= _WARM_UP * n_images:
            rows.append((done, resident()))
    return rows


def images(n_images, seed=0):
    """Surfaces of a good part, each with noise of its own, one at a time."""
    surfaces = make_surfaces(50, 0, image_size=SIZE, random_state=1).images
    rng = np.random.default_rng(seed)
    for number in range(n_images):
        noise = rng.integers(0, 8, surfaces[0].shape, dtype=np.uint8)
        yield np.minimum(surfaces[number % len(surfaces)], 247) + noise


def scores(n_images):
    """Decisions of a fitted pipeline about so many images, as a stream."""
    pipe = make_pipeline(FilterBankPatches(image_size=SIZE), LocalKNNScorer())
    pipe.fit(make_surfaces(_TRAINING, 0, image_size=SIZE, random_state=0).images)
    return iter_scores(pipe, images(n_images))


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    stream = scores(options.images)
    start = time.perf_counter()
    rows = looked_at(stream, options.images)
    seconds = time.perf_counter() - start
    slope, error = line_through(*zip(*rows, strict=True))
    row = {
        "images": options.images,
        "bytes an image": f"{slope:.2f} ± {error:.2f}",
        "growth after warm-up, KiB": (rows[-1][1] - rows[0][1]) // 1024,
        "resident at the end, MiB": rows[-1][1] / 2**20,
        "images/s": options.images / seconds,
    }
    print_table(f"Images of {SIZE} x {SIZE} pixels through one process", [row])
    write_json(options.json, {"machine": machine(("scikit-learn",)), "row": row, "looks": rows})


if __name__ == "__main__":
    main()
