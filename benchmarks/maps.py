"""Heat maps from grids of patch scores: OpenCV with SciPy, anomalib's own generator, ours.

Run ``python -m benchmarks.maps``: from 32 x 32 to 1024 x 1024 pixels, with a Gaussian of 4 pixels,
on one thread, by processor time; ``--grid``, ``--size``, ``--sigma`` for others, ``--json FILE`` to
keep the numbers. What is not installed is left out. First every map is compared with bilinear
interpolation and SciPy's Gaussian in float64. anomalib's generator repeats scores instead of
interpolating them, so its map is another one; its blur after torch's bilinear interpolation,
which mirrors the border otherwise, is compared inside.
"""

import argparse
import importlib.util
import time

import numpy as np
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from benchmarks._timing import interleave, machine, print_table, write_json
from skanomaly.core.maps import upsample_map


def reference(grid, size, sigma):
    """Bilinear interpolation between the centres of the cells, then SciPy's Gaussian; float64."""
    grid = grid.astype(np.float64)
    for _ in range(2):  # along the rows, then, transposed, along the columns
        cells = np.arange(grid.shape[1])
        centres = (np.arange(size) + 0.5) * len(cells) / size - 0.5
        grid = np.stack([np.interp(centres, cells, row) for row in grid], axis=1)
    return gaussian_filter(grid, sigma)


def opencv_and_scipy(grid, size, sigma):
    import cv2

    cv2.setNumThreads(1)
    return gaussian_filter(cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR), sigma)


def make_anomalib(grid, size, sigma):
    """anomalib's generator, and its blur after a bilinear interpolation."""
    import torch
    from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator

    torch.set_num_threads(1)
    generator = AnomalyMapGenerator(sigma=sigma)
    scores = torch.from_numpy(grid)[None, None]

    @torch.inference_mode()
    def own():
        return generator(scores, (size, size))[0, 0].numpy()

    @torch.inference_mode()
    def bilinear():
        wide = torch.nn.functional.interpolate(scores, size=(size, size), mode="bilinear")
        return generator.blur(wide)[0, 0].numpy()

    return own, bilinear


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=int, default=32)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--sigma", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.size <= 12 * args.sigma:
        parser.error("--size must be above 12 times --sigma: borders are compared apart")
    with threadpool_limits(1):
        result = run(args)
    write_json(args.json, result)


def run(args):
    size, sigma = args.size, args.sigma
    grid = np.random.default_rng(0).random((args.grid, args.grid), dtype=np.float32) ** 4
    contenders = {"ours": lambda: upsample_map(grid, (size, size), sigma)}
    if importlib.util.find_spec("cv2"):
        contenders["OpenCV and SciPy"] = lambda: opencv_and_scipy(grid, size, sigma)
    if importlib.util.find_spec("anomalib"):
        own, bilinear = make_anomalib(grid, size, sigma)
        contenders["anomalib's generator"] = own
        contenders["bilinear and anomalib's blur"] = bilinear
    expected = reference(grid, size, sigma)
    inside = slice(6 * sigma, -6 * sigma)
    errors = {}
    for name, function in contenders.items():
        error = np.abs(function() - expected)
        errors[name] = float(error.max()), float(error[inside, inside].max())
        if name != "anomalib's generator":
            assert errors[name][1] < 1e-4, (name, errors[name])
    assert errors["ours"][0] < 1e-6, errors["ours"]

    written = np.empty((size, size), dtype=np.float32)
    contenders["writing the pixels (bound)"] = lambda: written.fill(1)
    ceiling = machine(["torch", "anomalib", "opencv-python-headless", "scipy"])
    seconds = interleave(contenders, args.repeats, clock=time.process_time)
    rows = [
        {
            "contender": name,
            "ms": 1e3 * times["median"],
            "least ms": 1e3 * times["min"],
            "ratio": times["median"] / seconds["ours"]["median"],
            "largest error": errors.get(name, ("", ""))[0],
            "error inside": errors.get(name, ("", ""))[1],
        }
        for name, times in seconds.items()
    ]
    print_table(f"{args.grid} x {args.grid} to {size} x {size}, sigma {sigma}, one thread", rows)
    return {"machine": ceiling, "contenders": rows}


if __name__ == "__main__":
    main()
