"""Peak memory and time of a memory bank of 200 images x 1024 patches x 384 components.

    python -m benchmarks.memory [--images 200] [--tokens mixture] [--json FILE]

1,000 images are a bank of 1 million rows. Printed is the resident memory at its peak, beyond the
process with its tokens, of fitting (leave-one-image-out calibration included) and of scoring; and,
as a check, that a scored image equals scikit-learn's brute force. The tokens are made in another
process, so that what that takes does not count. Of ``--tokens noise`` nothing can be ruled out:
calibrating goes through brute force, and takes the longest. The tokens count as input: they are one
C-contiguous float32 array, of which `fit` makes no second copy but the bank. Linux only.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from benchmarks._timing import machine, print_table, write_json
from benchmarks._tokens import make_tokens
from skanomaly import PatchKNNScorer
from skanomaly.core.search.low_precision import fastest_dtype

MEBIBYTE = 2**20
_PATCHES, _DIM = 1024, 384


def save_tokens(path, kind, n_images, seed):
    tokens = make_tokens(kind, n_images * _PATCHES, seed, _DIM)
    np.save(path, tokens.reshape(n_images, _PATCHES, _DIM))


def tokens_of(kind, n_images, seed):
    """Tokens of images, made by another process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.npy"
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=save_tokens, args=(path, kind, n_images, seed))
        child.start()
        child.join()
        if child.exitcode:
            raise SystemExit(f"the process that makes tokens ended with {child.exitcode}")
        return np.load(path)


def memory(field):
    """Resident memory of this process in bytes: VmRSS now, or VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def measured(function):
    """What a call returns, its seconds, and the bytes at its peak beyond those before it."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start, memory("VmHWM") - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--tokens", choices=("mixture", "noise"), default="mixture")
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    tokens = tokens_of(options.tokens, options.images, 0)
    queries = tokens_of(options.tokens, options.queries, 1)
    fastest_dtype()  # loads torch, if it is installed, whose size is not the search's
    start_memory = memory("VmRSS")
    scorer, fit_seconds, fit_peak = measured(lambda: PatchKNNScorer().fit(tokens))
    held = memory("VmRSS") - start_memory
    patches, score_seconds, score_peak = measured(lambda: scorer.score_patches(queries))

    reference = NearestNeighbors(n_neighbors=1, algorithm="brute", metric="euclidean")
    reference.fit(normalize(tokens.reshape(-1, _DIM)))
    expected = reference.kneighbors(normalize(queries[0]))[0][:, 0] ** 2 / 2
    difference = float(np.abs(patches[0].ravel() - expected).max())
    assert difference < 1e-5, difference

    bank = tokens.nbytes  # of the same shape and dtype
    rows = [
        {
            "step": step,
            "MiB beyond the tokens": value / MEBIBYTE,
            "times the bank": value / bank,
            "MiB beyond 1.5 banks": (value - 1.5 * bank) / MEBIBYTE,
            "seconds": seconds,
        }
        for step, value, seconds in (
            ("fit, at its peak", fit_peak, fit_seconds),
            ("after fit", held, ""),
            ("score, at its peak", held + score_peak, score_seconds),
        )
    ]
    n_rows = options.images * _PATCHES
    print_table(
        f"Bank of {n_rows} x {_DIM}, {bank / MEBIBYTE:.0f} MiB, {options.tokens} tokens", rows
    )
    print(f"\n{score_seconds / options.queries:.3f} s to score an image")
    print(f"largest difference to scikit-learn's brute force: {difference:.1e}")
    print(f"load {os.getloadavg()[0]:.1f}")
    result = {
        "machine": machine(("torch", "scikit-learn")),
        "bank": [n_rows, _DIM],
        "tokens": options.tokens,
        "rows": rows,
        "max_difference_to_scikit_learn": difference,
    }
    write_json(options.json, result)


if __name__ == "__main__":
    main()
