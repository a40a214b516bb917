"""Memory and time of `predict` over files, of arrays of tokens and of streams.

    python -m benchmarks.streaming [--images 2000] [--json FILE]

A Pipeline of `FilterBankPatches` and a scorer, fitted to 20 images, calls many PNG files of 256 x
256 pixels. Each contender is a process of its own: with ``stream=False`` all tokens are in memory
at once, with ``stream=True`` some images' at a time. Printed are the resident memory at its peak
beyond that after `fit`, in all and by image, and the wall-clock time; the decisions must be equal.
The same of `score_images`, which streams by itself. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._timing import machine, print_table, write_json
from skanomaly.datasets import make_surfaces

_TRAINING = 20
_WHAT = ("predict, arrays", "predict, stream", "score_images")


def resident(name):
    """MiB of this process, by its name in ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def write_images(folder, n_images):
    """Surfaces, and the same ones moved, as files."""
    surfaces = make_surfaces(100, 0, random_state=0).images
    rng = np.random.default_rng(0)
    for number in range(n_images):
        image = np.roll(surfaces[number % 100], rng.integers(0, 256, 2), axis=(0, 1))
        Image.fromarray(image).save(folder / f"{number:06}.png", compress_level=1)


def measure(what, folder):
    """Fit, score, and print what that took, as JSON."""
    from sklearn.pipeline import make_pipeline

    from skanomaly import FilterBankPatches, PatchGaussianScorer, inspection
    from skanomaly._pipelines import split_pipeline

    paths = sorted(Path(folder).glob("*.png"))
    embedder = FilterBankPatches(stream=True) if what == _WHAT[1] else FilterBankPatches()
    pipe = make_pipeline(embedder, PatchGaussianScorer("shared")).fit(paths[:_TRAINING])
    new = paths[_TRAINING:]
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.perf_counter()
    if what == _WHAT[2]:
        scores = inspection.score_images(pipe, new)[1]
        labels = np.where(scores < split_pipeline(pipe).scorer.offset_, -1, 1)
    else:
        labels = pipe.predict(new)
    seconds = time.perf_counter() - start
    mebibytes = resident("VmHWM") - before
    print(json.dumps({"labels": labels.tolist(), "mebibytes": mebibytes, "seconds": seconds}))


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--json")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    rows, labels = [], None
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.images + _TRAINING)
        for what in _WHAT:
            command = [sys.executable, "-m", "benchmarks.streaming", "--measure", what, folder]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            if labels not in (None, found["labels"]):
                raise AssertionError(f"{what} decides otherwise")
            labels = found["labels"]
            rows.append(
                {
                    "what": what,
                    "MiB": round(found["mebibytes"]),
                    "KiB an image": found["mebibytes"] * 1024 / options.images,
                    "images/s": options.images / found["seconds"],
                }
            )
    print_table(f"{options.images} PNG files of 256 x 256 pixels", rows)
    write_json(options.json, {"machine": machine(("scikit-learn",)), "rows": rows})


if __name__ == "__main__":
    main()
