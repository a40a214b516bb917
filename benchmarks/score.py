"""Images a second and memory of `iter_scores` and `skanomaly score`.

    python -m benchmarks.score [--weights vit_tiny_patch16_224.safetensors] [--small N] [--large N]

Speed: one by one, `pipe.score_samples([image])`; all at once, `pipe.score_samples(images)`; and
`iter_scores` over a generator; in turn, in one process, over JPEG files of 1024 x 768. The scores
must be equal to the bit. Cores are the processor time by the wall-clock time. Memory: the command,
in a process of its own, over many small files and over large ones. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from sklearn.pipeline import make_pipeline

from benchmarks._timing import machine, print_table, write_json
from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    TimmPatches,
    iter_scores,
    save_model,
)
from skanomaly.datasets import make_surfaces

_TRAINING = 20
_COMMAND = """
import sys
from pathlib import Path
from skanomaly.cli import app
sys.argv = ["skanomaly", "score", *sys.argv[1:]]
try:
    app()
finally:
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(line for line in lines if line.startswith("VmHWM")).split()[1])
"""


def write_images(folder, n_images, size):
    """Surfaces, moved and enlarged, as JPEG files; their paths."""
    surfaces = make_surfaces(10, 10, random_state=0).images
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number:06}.jpg" for number in range(n_images)]
    for number, path in enumerate(paths):
        image = np.roll(surfaces[number % 20], rng.integers(0, 256, 2), axis=(0, 1))
        Image.fromarray(image).resize(size).save(path, quality=90)
    return paths


def time_scoring(pipe, paths, repeats):
    """Rows of the table of one model."""
    contenders = {
        "one by one": lambda: np.concatenate([pipe.score_samples([path]) for path in paths]),
        "all at once": lambda: pipe.score_samples(paths),
        "iter_scores": lambda: np.array([one.score for one in iter_scores(pipe, iter(paths))]),
    }
    expected = contenders["all at once"]()
    seconds = {name: [] for name in contenders}
    cores = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, contender in contenders.items():
            start, used = time.perf_counter(), time.process_time()
            scores = contender()
            took = time.perf_counter() - start
            cores[name].append((time.process_time() - used) / took)
            seconds[name].append(took)
            np.testing.assert_array_equal(scores, expected)
    slow = seconds["one by one"]
    return [
        {
            "what": name,
            "images/s": len(paths) / median(times),
            "times one by one": median(a / b for a, b in zip(slow, times, strict=True)),
            "cores": median(cores[name]),
        }
        for name, times in seconds.items()
    ]


def run_command(model, folder, n_images, output):
    """Peak memory and speed of the command."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _COMMAND, model, folder, "--jsonl", output]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    assert len(Path(output).read_text().splitlines()) == n_images
    return {"MiB": int(result.stdout) / 1024, "images/s": n_images / seconds}


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", help="of vit_tiny_patch16_224, to measure that as well")
    parser.add_argument("--images", type=int, default=100, help="for the speed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", type=int, default=5000, help="of 256 x 256, for the memory")
    parser.add_argument("--large", type=int, default=100, help="of 4096 x 3000, for the memory")
    parser.add_argument("--json")
    options = parser.parse_args()
    result = {"machine": machine(["pillow", "scikit-learn"]), "options": vars(options)}
    print(json.dumps(result["machine"]))
    good = list(make_surfaces(_TRAINING, random_state=0).images)
    pipes = {
        "filter bank, one Gaussian": make_pipeline(
            FilterBankPatches(), PatchGaussianScorer("shared")
        )
    }
    if options.weights:
        embedder = TimmPatches("vit_tiny_patch16_224", weights=options.weights, layers=5)
        pipes["ViT-Tiny, nearest patches"] = make_pipeline(embedder, PatchKNNScorer())
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        paths = write_images(root / "speed", options.images, (1024, 768))
        for name, pipe in pipes.items():
            result[name] = time_scoring(pipe.fit(good), paths, options.repeats)
            print_table(f"{name}, 1024 x 768", result[name])
        model = root / "parts.skan"
        save_model(pipes["filter bank, one Gaussian"], model)
        rows = []
        for name, n_images, size in (
            ("small", options.small, (256, 256)),
            ("large", options.large, (4096, 3000)),
        ):
            write_images(root / name, n_images, size)
            row = {"images": f"{n_images:,} of {size[0]} x {size[1]}"}
            rows.append(row | run_command(model, root / name, n_images, root / f"{name}.jsonl"))
        result["memory"] = rows
        print_table("skanomaly score, filter bank", rows)
    write_json(options.json, result)


if __name__ == "__main__":
    main()
