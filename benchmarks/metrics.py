"""Pixel metrics against anomalib, torchmetrics and scikit-learn: agreement, time, peak memory.

Run ``python -m benchmarks.metrics``: 80 maps of 512 x 512 pixels, 60 of them with one to four
elliptic defects; ``--images 200 --size 1024`` for the larger set, ``--json FILE`` to keep the
numbers. A contender that is not installed is left out, and ``--contenders exact histogram`` runs
those alone (the others need some 14 GB for the larger set). First every value is compared with
ours; then all contenders run in turn in one process, on one thread, and the median time of each
counts. Peak memory, beyond the maps and masks, is that of one call in a process of its own, on
Linux with glibc alone. The histogram is given the range of the scores.
"""

import argparse
import ctypes
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from scipy import ndimage
from threadpoolctl import threadpool_limits

from skanomaly.metrics import HistogramPixelMetrics, pixel_metrics

LIMIT = 0.3
AUROC, AP, AUPRO = "pixel_auroc", "pixel_average_precision", f"aupro_{LIMIT:g}"


def make_maps(n_images, size, seed=0):
    """Smooth float32 maps in [0, 1], raised around elliptic defects in three images of four."""
    rng = np.random.default_rng(seed)
    maps = np.empty((n_images, size, size), dtype=np.float32)
    masks = np.zeros((n_images, size, size), dtype=bool)
    coarse = size // 14 + 1
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    for index in range(n_images):
        noise = rng.random((coarse, coarse), dtype=np.float32)
        maps[index] = ndimage.zoom(noise, size / coarse, order=1)[:size, :size]
        for _ in range(rng.integers(1, 5) if index % 4 else 0):
            center, radii = rng.uniform(0.05, 0.95, 2) * size, rng.uniform(4, size / 10, 2)
            inside = ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2
            masks[index] |= inside <= 1
        raised = ndimage.gaussian_filter(masks[index].astype(np.float32), 9 * size / 512)
        maps[index] = 0.05 + 0.3 * (maps[index] + rng.uniform(0.1, 0.8) * raised)
    return masks, maps


def exact(masks, maps):
    return pixel_metrics(masks, maps, max_fpr=LIMIT)


def histogram(masks, maps):
    metrics = HistogramPixelMetrics(low=maps.min(), high=maps.max())
    for mask, heat_map in zip(masks, maps, strict=True):
        metrics.update(mask, heat_map)
    found = metrics.compute(max_fpr=LIMIT)
    return {name.removeprefix("approximate_"): value for name, value in found.items()}


def anomalib_aupro(masks, maps):
    import torch
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO(fpr_limit=LIMIT)
    for start in range(0, len(maps), 8):
        part = slice(start, start + 8)
        metric.update(torch.from_numpy(maps[part]), torch.from_numpy(masks[part].astype(np.int64)))
    return {AUPRO: float(metric.compute())}


def torchmetrics_auroc(masks, maps):
    import torch
    from torchmetrics.functional.classification import binary_auroc

    target = torch.from_numpy(masks.ravel().astype(np.int64))
    return {AUROC: float(binary_auroc(torch.from_numpy(maps.ravel()), target))}


def torchmetrics_ap(masks, maps):
    import torch
    from torchmetrics.functional.classification import binary_average_precision

    target = torch.from_numpy(masks.ravel().astype(np.int64))
    return {AP: float(binary_average_precision(torch.from_numpy(maps.ravel()), target))}


def sklearn_auroc(masks, maps):
    from sklearn.metrics import roc_auc_score

    return {AUROC: float(roc_auc_score(masks.ravel(), maps.ravel()))}


def sklearn_ap(masks, maps):
    from sklearn.metrics import average_precision_score

    return {AP: float(average_precision_score(masks.ravel(), maps.ravel()))}


# What a contender is called, what must be installed for it, and the largest difference allowed:
# torchmetrics and anomalib sum in float32.
CONTENDERS = {
    "exact": (exact, None, 0.0),
    "histogram": (histogram, None, 1e-4),
    "anomalib AUPRO": (anomalib_aupro, "anomalib", 1e-4),
    "torchmetrics AUROC": (torchmetrics_auroc, "torchmetrics", 1e-4),
    "torchmetrics AP": (torchmetrics_ap, "torchmetrics", 1e-4),
    "scikit-learn AUROC": (sklearn_auroc, None, 1e-9),
    "scikit-learn AP": (sklearn_ap, None, 1e-9),
}


def installed(wanted):
    return {
        name: entry[0]
        for name, entry in CONTENDERS.items()
        if name in wanted and (entry[1] is None or importlib.util.find_spec(entry[1]))
    }


def one_thread():
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


def resident(field):
    """A field of the process's status, in bytes: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure_memory(function, masks, maps):
    """Peak resident memory of a call beyond what was resident before it, in bytes."""
    function(masks[:4], maps[:4])  # imports and lookup tables are not the call's own
    ctypes.CDLL(None).malloc_trim(0)  # nor is memory at hand, freed but kept by the allocator
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present
    before = resident("VmRSS")
    function(masks, maps)
    return resident("VmHWM") - before


def memory_of(name, args):
    """`measure_memory` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--memory-of", name]
    command += ["--images", str(args.images), "--size", str(args.size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def run(args):
    masks, maps = make_maps(args.images, args.size)
    functions = installed({"exact", *args.contenders})
    ours = exact(masks, maps)
    report = {name: {"differences": {}, "seconds": []} for name in functions}
    for name, function in functions.items():
        for metric, value in function(masks, maps).items():
            difference = abs(value - ours[metric])
            report[name]["differences"][metric] = difference
            assert difference <= CONTENDERS[name][2], (name, metric, value, ours[metric])
    for _ in range(args.repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function(masks, maps)
            report[name]["seconds"].append(time.perf_counter() - start)
    for name, entry in report.items():
        entry["seconds"] = median(entry["seconds"])
        entry["mebibytes"] = memory_of(name, args) / 2**20
    for entry in report.values():
        entry["time_ratio"] = entry["seconds"] / report["exact"]["seconds"]
        entry["memory_ratio"] = entry["mebibytes"] / report["exact"]["mebibytes"]
    return {
        "images": args.images,
        "size": args.size,
        "defect_share": float(masks.mean()),
        "values": ours,
        "contenders": report,
    }


def print_table(result):
    print(f"{result['images']} maps of {result['size']} x {result['size']}; ratios are to exact")
    heads = ("seconds", "ratio", "MiB", "ratio")
    print(f"{'':20}" + "".join(f"{head:>10}" for head in heads) + "  difference")
    for name, entry in result["contenders"].items():
        numbers = (
            f"{entry['seconds']:10.3f}{entry['time_ratio']:10.2f}"
            f"{entry['mebibytes']:10.0f}{entry['memory_ratio']:10.2f}"
        )
        found = entry["differences"] if name != "exact" else {}
        differences = ", ".join(f"{metric} {value:.1e}" for metric, value in found.items())
        print(f"{name:20}{numbers}  {differences}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    one_thread()
    with threadpool_limits(1):
        if args.memory_of:
            masks, maps = make_maps(args.images, args.size)
            print(measure_memory(CONTENDERS[args.memory_of][0], masks, maps))
            return
        result = run(args)
    print_table(result)
    text = json.dumps(result, indent=2)
    if args.json:
        args.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
