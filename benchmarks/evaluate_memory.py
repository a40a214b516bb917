"""Memory and time of `evaluate_split` on large photographs with masks.

    python -m benchmarks.evaluate_memory [--images 150] [--width 4096] [--height 3000] [--json FILE]

The filter bank and nearest neighbours, on generated surfaces of which every other one has a defect
of about 3% of its area; images are JPEG files, masks PNG files, in a temporary folder (1 MB an
image). A process of its own evaluates them; printed are its resident memory at its peak, all in
all, and the wall-clock times. ``--python PATH`` runs it with another checkout of the package first
on the path, to compare with. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from benchmarks._timing import machine, print_table, write_json
from skanomaly.datasets import make_surfaces

_TRAINING = 8


def write_images(folder, n_images, size):
    """A tree of MVTec's layout: `_TRAINING` images to train on and `n_images` to test on."""
    surfaces = [Image.fromarray(image) for image in make_surfaces(20, 0, random_state=0).images]
    names = [f"train/good/{i}" for i in range(_TRAINING)]
    names += [f"test/{('good', 'stain')[i % 2]}/{i}" for i in range(n_images)]

    def write(number):
        rng = np.random.default_rng(number)
        surface = np.asarray(surfaces[number % len(surfaces)])
        shifted = Image.fromarray(np.roll(surface, rng.integers(0, 256, 2), axis=(0, 1)))
        pixels = np.array(shifted.resize(size, Image.Resampling.BILINEAR))
        path = folder / names[number]
        if "stain" in names[number]:
            # A blob: the highest 3% of a smooth random field.
            field = Image.fromarray(rng.integers(0, 256, (48, 64), dtype=np.uint8))
            field = np.asarray(field.filter(ImageFilter.GaussianBlur(6)).resize(size))
            mask = field > np.quantile(field[::16, ::16], 0.97)
            pixels[mask] = pixels[mask] // 2
            truth = folder / "ground_truth" / "stain" / f"{path.name}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(truth)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path.with_name(f"{path.name}.jpg"), quality=90)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, range(len(names))))


def measure(folder):
    """Evaluate, and print what that took, as JSON."""
    from skanomaly import create_model, evaluate_split
    from skanomaly.datasets import read_mvtec

    result = evaluate_split(create_model("filterbank", scorer="knn"), read_mvtec(folder))
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({"mebibytes": peak, "seconds": result.seconds, "metrics": result.metrics}))


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--python", type=Path, action="append", help="another checkout")
    parser.add_argument("--json")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.images, (options.width, options.height))
        for checkout in (None, *(options.python or ())):
            paths = [str(checkout)] if checkout else []
            paths += filter(None, [os.environ.get("PYTHONPATH"), os.getcwd()])
            command = [sys.executable, "-P", "-m", "benchmarks.evaluate_memory", "--measure"]
            done = subprocess.run(
                [*command, folder],
                check=True,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
            found = json.loads(done.stdout)
            row = {"what": "this" if checkout is None else str(checkout)}
            row |= {"peak MiB": round(found["mebibytes"])}
            row |= {f"{name}, s": value for name, value in found["seconds"].items()}
            rows.append({**row, **found["metrics"]})
    print_table(f"{options.images} images of {options.width} x {options.height}", rows)
    write_json(options.json, {"machine": machine(("scikit-learn",)), "rows": rows})


if __name__ == "__main__":
    main()
