"""Saving and loading of a fitted model: model files, skops alone, joblib.

    python -m benchmarks.model_files [--images 200] [--repeats 5] [--json FILE]

A `PatchKNNScorer` whose bank holds all patches of 200 images, 32 x 32 tokens of 384 components, 315
MB. Each contender writes it to a file of the same folder, and reads it in a process of its own,
which prints the wall-clock time, by how much its resident memory grew at its peak, and the scores
of two images: these must be equal to the last bit. Files are in the page cache. Printed are
medians, and ratios to joblib. joblib runs code from the file, and neither joblib nor skops notices
a changed byte. Linux only.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import joblib
import numpy as np
import skops.io

from benchmarks._timing import machine, print_table, write_json
from benchmarks.streaming import resident

_GRID, _DIM = 32, 384


def make_tokens(n_images, seed=0):
    """(n_images, 32, 32, 384) tokens about a few directions, as those of parts are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(64, _DIM)).astype(np.float32)
    tokens = rng.normal(scale=0.5, size=(n_images, _GRID, _GRID, _DIM)).astype(np.float32)
    return tokens + centres[rng.integers(64, size=(n_images, _GRID, _GRID))]


def make_scorer(n_images):
    """A scorer as if it were fitted to many images, without the search that calibrates it."""
    from skanomaly import PatchKNNScorer
    from skanomaly._tokens import check_tokens
    from skanomaly.core.fingerprints import ImageFingerprints
    from skanomaly.core.search.brute_force import prepare_bank
    from skanomaly.core.search.index import PatchIndex

    tokens = make_tokens(n_images)
    scorer = PatchKNNScorer(algorithm="certified").fit(tokens[:6])
    checked = check_tokens(tokens)
    index = PatchIndex(prepare_bank(checked.values, "cosine"), "cosine", "certified")
    groups = np.arange(n_images)
    scorer._model = replace(
        scorer._model,
        banks=(replace(scorer._model.banks[0], index=index),),
        group_of_row=np.repeat(groups, _GRID * _GRID),
        group_of_image=groups,
    )
    scorer._fingerprints = ImageFingerprints(checked, False)
    return scorer


def save(how, scorer, path):
    """Write a scorer in one of the ways."""
    if how == "save_model":
        from skanomaly import save_model

        save_model(scorer, path)
    elif how == "skops":
        skops.io.dump(scorer, path)
    else:
        joblib.dump(scorer, path)


def load(how, path):
    """Read it back."""
    if how == "save_model":
        from skanomaly import load_model

        return load_model(path)
    if how == "skops":
        return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    return joblib.load(path, mmap_mode="r" if how == "joblib, mapped" else None)


def measure(how, path):
    """Load, score, and print what that took, as JSON."""
    import skanomaly.persistence  # noqa: F401
    import skanomaly.scorers  # noqa: F401

    new = make_tokens(2, seed=1)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.perf_counter()
    scorer = load(how, path)
    seconds, grown = time.perf_counter() - start, resident("VmHWM") - before
    digest = hashlib.sha256(scorer.score_samples(new).tobytes()).hexdigest()
    print(json.dumps({"load": seconds, "MiB": grown, "scores": digest}))


def run(n_images, repeats, json_path=None):
    """Time all contenders in turn, and print medians and ratios."""
    scorer = make_scorer(n_images)
    expected = hashlib.sha256(scorer.score_samples(make_tokens(2, seed=1)).tobytes()).hexdigest()
    contenders = ("save_model", "skops", "joblib", "joblib, mapped")
    found = {how: [] for how in contenders}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            for how in contenders:
                path = Path(folder) / how
                start = time.perf_counter()
                save(how, scorer, path)
                saved = time.perf_counter() - start
                command = [sys.executable, "-m", "benchmarks.model_files", "--measure", how, path]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                row = {**json.loads(done.stdout), "save": saved, "MB": path.stat().st_size / 1e6}
                assert row["scores"] == expected, how
                if turn:  # the first warms up
                    found[how].append(row)
    rows = []
    for how in contenders:
        of = {key: median(row[key] for row in found[how]) for key in ("save", "load", "MiB", "MB")}
        rows.append({"": how, "save s": of["save"], "load s": of["load"], "RSS MiB": of["MiB"],
                     "file MB": of["MB"]})  # fmt: skip
    for row in rows:
        for what in ("save", "load"):
            row[f"{what} / joblib"] = row[f"{what} s"] / rows[2][f"{what} s"]
    print_table(f"A model of {n_images} images of 1024 patches, {_DIM} components", rows)
    write_json(json_path, {"machine": machine(("skops", "joblib")), "rows": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
    else:
        run(options.images, options.repeats, options.json)
