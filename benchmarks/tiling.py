"""Large images, tile by tile: memory, time in proportion to pixels, and defects of 20 pixels.

    python -m benchmarks.tiling [--weights FILE] [--train 2] [--good 3] [--bad 6] [--json FILE]

Surfaces of 2000 x 8000 pixels: a brushed sheet of 2000 x 2000 that is continued by reflection, each
image moved and with noise of its own. Half of them have one defect of 20 x 20 pixels: spots, rings
and scratches of low contrast, in turn. The filter bank, and with ``--weights`` (those of timm's
``vit_tiny_patch16_224``) the first third of a ViT-Tiny, embed parts of 1 to 16 million pixels; then
each, tiled and by itself, scores all images. Printed are seconds of the processor, of all threads
together, the resident memory at its peak beyond that at the start, the AUROC of images, and how
many defects have the highest patch of their image. Each contender is a process of its own. Linux
only.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks._timing import machine, print_table, write_json
from skanomaly.datasets import make_surfaces

_SIZE, _DEFECT = (2000, 8000), 20
_WIDTHS = (500, 1000, 2000, 4000, 8000)
_MEBIBYTE = 2**20


def resident(name):
    """Bytes of this process, by its name in ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def write_base(path):
    """The sheet from which all images are made."""
    side = _SIZE[0]
    sheet = make_surfaces(1, surface="brushed_metal", image_size=side, random_state=0).images[0]
    np.save(path, sheet)


def make_image(base, seed, bad, width=_SIZE[1]):
    """A surface, and the place of its defect: the rows and columns of a square, or None."""
    rng = np.random.default_rng(seed)
    sheet = np.roll(base, rng.integers(0, base.shape[1], 1), axis=1)
    image = np.concatenate([sheet, sheet[:, ::-1]] * (_SIZE[1] // (2 * base.shape[1])), axis=1)
    size = _SIZE[0], width
    image = image[:, :width].astype(np.int16) + rng.integers(-4, 5, (*size, 1), dtype=np.int16)
    place = None
    if bad:
        top, left = (int(rng.integers(50, side - 50 - _DEFECT)) for side in size)
        place = slice(top, top + _DEFECT), slice(left, left + _DEFECT)
        y, x = np.indices((_DEFECT, _DEFECT)) - (_DEFECT - 1) / 2
        radius = np.hypot(y, x)
        angle = rng.uniform(0, np.pi)
        shapes = (
            radius < 7,  # a spot
            np.abs(radius - 7) < 2,  # a ring
            (np.abs(y * np.cos(angle) + x * np.sin(angle)) < 1.5) & (radius < 10),  # a scratch
        )
        image[place] += (rng.choice([-45, 45]) * shapes[seed % 3][..., None]).astype(np.int16)
    return np.clip(image, 0, 255).astype(np.uint8), place


def make_embedder(name, weights, tiled):
    from skanomaly import FilterBankPatches, Tiled, TimmPatches

    if name == "filter bank":
        inner = FilterBankPatches()
    else:
        inner = TimmPatches("vit_tiny_patch16_224", weights=weights, device="cpu")
    return Tiled(inner, stream=True) if tiled else inner


def time_of_sizes(base, embedder):
    """Seconds and peak memory of images of more and more pixels."""
    rows = []
    image, _ = make_image(base, 0, False)
    embedder.transform([image[:256, :256]])[0]  # loads what it needs
    for width in _WIDTHS:
        part = np.ascontiguousarray(image[:, :width])
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        start = time.process_time()
        tokens = embedder.transform([part])[0]
        seconds = time.process_time() - start
        pixels = part.shape[0] * part.shape[1] / 1e6
        rows.append(
            {
                "megapixels": pixels,
                "grid": "x".join(map(str, tokens.shape)),
                "CPU seconds": seconds,
                "CPU seconds a megapixel": seconds / pixels,
                "peak MiB": (resident("VmHWM") - before) / _MEBIBYTE,
                "of it tokens": tokens.nbytes / _MEBIBYTE,
            }
        )
    return rows


def detect(base, embedder, name, options):
    """Fit, score good and bad images, and say how many defects are found."""
    from sklearn.pipeline import make_pipeline

    from skanomaly import PatchGaussianScorer, PatchKNNScorer
    from skanomaly.inspection import score_images
    from skanomaly.metrics import image_auroc

    if name == "filter bank":
        scorer = PatchGaussianScorer("shared", aggregation="max", n_components=None)
    else:
        scorer = PatchKNNScorer(
            coreset=10_000, coreset_method="random", random_state=0, aggregation="max"
        )
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    good = [make_image(base, seed, False, options.width)[0] for seed in range(options.train)]
    start = time.process_time()
    pipe = make_pipeline(embedder, scorer).fit(good)
    to_fit = time.process_time() - start
    scores, hits, to_score = [], 0, 0.0
    for number in range(options.good + options.bad):
        bad = number >= options.good
        image, place = make_image(base, 1000 + number, bad, options.width)
        start = time.process_time()
        (grid,), (score,) = score_images(pipe, [image])
        to_score += time.process_time() - start
        scores.append(score)
        if bad:
            peak = np.argwhere(grid == grid.max())[0]
            cell = [side / n for side, n in zip(image.shape[:2], grid.shape, strict=True)]
            # Of the highest patch, its pixels and those of the defect have some in common.
            hits += all(
                index * c < part.stop and (index + 1) * c > part.start
                for index, c, part in zip(peak, cell, place, strict=True)
            )
    y = np.repeat([1, -1], [options.good, options.bad])
    return {
        "image AUROC": float(image_auroc(y, np.array(scores))),
        "defects hit": f"{hits} of {options.bad}",
        "CPU seconds to fit": to_fit,
        "CPU seconds to score an image": to_score / len(y),
        "peak MiB": (resident("VmHWM") - before) / _MEBIBYTE,
    }


def measure(options):
    """What one process is for, printed as JSON."""
    base = np.load(options.base)
    name, tiled, what = options.measure
    embedder = make_embedder(name, options.weights, tiled == "tiled")
    if what == "sizes":
        result = time_of_sizes(base, embedder)
    else:
        result = detect(base, embedder, name, options)
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="file of ViT-Tiny; without, the filter bank alone")
    parser.add_argument("--train", type=int, default=2)
    parser.add_argument("--good", type=int, default=3)
    parser.add_argument("--bad", type=int, default=6)
    parser.add_argument("--width", type=int, default=_SIZE[1], help="of the images to detect on")
    parser.add_argument("--json", help="file for the result")
    parser.add_argument("--base", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options)
        return
    with TemporaryDirectory(prefix="skanomaly-") as folder:
        options.base = str(Path(folder, "sheet.npy"))
        write_base(options.base)
        found = compare(options)
    print_table(f"defects of {_DEFECT} pixels in {options.width} x {_SIZE[0]}", found)
    write_json(options.json, {"machine": machine(("torch",)), "found": found})


def compare(options):
    """A row for each way to detect; times of sizes are printed."""
    found = []
    for name in ("filter bank", *(["ViT-Tiny"] if options.weights else [])):
        rows = run(options, name, "tiled", "sizes")
        print_table(f"{name}: one image of 2000 pixels high, tiled", rows)
        for how in ("tiled", "alone"):
            row = run(options, name, how, "detect")
            found.append({"embedder": f"{name}, {how}", **row})
    return found


def run(options, name, how, what):
    """The result of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.tiling", "--base", options.base]
    for flag in ("weights", "train", "good", "bad", "width"):
        if (value := getattr(options, flag)) is not None:
            command += [f"--{flag}", str(value)]
    done = subprocess.run(
        [*command, "--measure", name, how, what], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
