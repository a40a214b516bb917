"""What the benchmark commands share: contenders in turn, the machine's ceiling, tables, JSON."""

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np


def interleave(contenders, repeats=5, warm_up=1, clock=time.perf_counter):
    """Time contenders in turn, so that what else the machine does falls on all of them alike.

    Parameters
    ----------
    contenders : dict of str to callable
        Called without arguments.
    repeats, warm_up : int
        Rounds that count, and rounds before them that do not.
    clock : callable
        ``time.perf_counter``, or ``time.process_time`` for work of one thread on a busy machine.

    Returns
    -------
    dict of str to dict
        ``median``, ``min`` and ``max`` in seconds.
    """
    times = {name: [] for name in contenders}
    for turn in range(-warm_up, repeats):
        for name, function in contenders.items():
            start = clock()
            function()
            if turn >= 0:
                times[name].append(clock() - start)
    return {
        name: {"median": median(values), "min": min(values), "max": max(values)}
        for name, values in times.items()
    }


def machine(packages=()):
    """The machine and what bounds it: float32 matrix products and copies, measured now."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2048, 2048), dtype=np.float32)
    source = np.ones(2**26, dtype=np.uint8)
    target = np.empty_like(source)
    rounds = interleave({"gemm": lambda: a @ a, "copy": lambda: np.copyto(target, source)})
    versions = {}
    for name in ("numpy", *packages):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "float32_gflops": 2 * 2048**3 / rounds["gemm"]["min"] / 1e9,
        "copy_gigabytes_per_second": 2 * source.nbytes / rounds["copy"]["min"] / 1e9,
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def print_table(title, rows):
    """Print rows (dicts with the same keys) as a Markdown table."""
    print(f"\n{title}\n")
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row[column]) for column in columns) + " |", flush=True)


def _cell(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_json(path, result):
    """Write the result of a run to a file, if one is asked for."""
    if path is not None:
        Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
