"""Images a second for one and two worker processes, and on paper for many machines.

    python -m benchmarks.scale_out [--images 200] [--model vision_filterbank] [--repeats 3]
        [--engines NAME ...] [--json FILE]

PNG files of 256 x 256 pixels are judged by `score_files`, each shard a task: of a pool of plain
processes, of Dask and of Ray, with one worker and with two, of one thread each. Engines are
started, and workers have loaded the model, before the clock: what that takes is in a column of its
own, and so is a call of a few images, which an engine takes however many there are. The others give
images a second. The yardstick is `iter_scores` in this process, by turns with each contender; the
least times count. Overhead is the processor time that an image takes of workers, scheduler and this
process, beyond that of the yardstick: other work on the machine moves it less than it moves images
a second.

Then the rates of what does not grow with the workers: going through the list, writing and checking
files of results, loading a model, a scheduler's work. From them, and from nothing else, follows
the last table: arithmetic for 1, 10 and 100 machines of two cores like these, from the processor
time of an image by two workers of the first engine, as if each core were for one worker alone.
Neither a network nor a shared disk is in it.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from statistics import median

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # before NumPy is imported, here and in the workers
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from benchmarks._timing import machine, print_table, write_json  # noqa: E402
from benchmarks.streaming import write_images  # noqa: E402

_TRAINING = 30
_SHARDS_PER_WORKER = 2
_ON_PAPER = 100_000_000


def shard_of(model, paths, out, shard, n_shards):
    """One task."""
    from skanomaly import score_files

    return score_files(model, paths, out=out, shard=shard, n_shards=n_shards)["images"]


@contextmanager
def plain(n_workers, model):
    """Judges paths with a pool of processes."""
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:

        def judge(paths, out):
            n = _SHARDS_PER_WORKER * n_workers
            tasks = [pool.submit(shard_of, model, paths, out, i, n) for i in range(n)]
            return sum(task.result() for task in tasks)

        yield judge


@contextmanager
def dask(n_workers, model, trim=None):
    """The same with Dask; `trim` is what its workers tell the allocator."""
    import dask
    from dask.distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": trim}),
        LocalCluster(n_workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def judge(paths, out):
            n = _SHARDS_PER_WORKER * n_workers
            tasks = [client.submit(shard_of, model, paths, out, i, n) for i in range(n)]
            return sum(client.gather(tasks))

        judge.client = client
        yield judge


def dask_as_it_comes(n_workers, model):
    """With the allocator that Dask sets, which gives memory back to the system at once."""
    return dask(n_workers, model, 65536)


@contextmanager
def ray_tasks(n_workers, model):
    """The same with tasks of Ray."""
    import ray

    with tempfile.TemporaryDirectory(prefix="sk", ignore_cleanup_errors=True) as short:
        root = str(Path(__file__).resolve().parents[1])
        ray.init(
            num_cpus=n_workers,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": root}},
            _temp_dir=short,
        )
        task = ray.remote(shard_of)

        def judge(paths, out):
            n, listed = _SHARDS_PER_WORKER * n_workers, ray.put(paths)
            return sum(ray.get([task.remote(model, listed, out, i, n) for i in range(n)]))

        try:
            yield judge
        finally:
            ray.shutdown()


ENGINES = {
    "processes": plain,
    "Dask, tasks": dask,
    "Dask, its allocator": dask_as_it_comes,
    "Ray, tasks": ray_tasks,
}


def times_of(function):
    """Wall-clock and processor time of a call, this process and all below it, in seconds."""
    processor, start = _processor_time(), time.perf_counter()
    if not function():
        raise AssertionError("not all images were judged")
    return time.perf_counter() - start, _processor_time() - processor


def _processor_time():
    import psutil

    this = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in (this, *this.children(recursive=True)))


def least(times):
    """The least wall-clock and the least processor time of several calls."""
    return [min(values) for values in zip(*times, strict=True)]


def measure_engines(model, paths, folder, repeats, engines):
    """A row for each engine and number of workers, and the time of a task of Dask."""
    from skanomaly import iter_scores, load_model

    here, rows, few, per_task = load_model(model), [], 8, float("nan")
    list(iter_scores(here, paths[:few]))
    outs = (f"{folder}/out-{number}" for number in count())
    n = len(paths)
    for name in engines:
        engine = ENGINES[name]
        for n_workers in (1, 2):
            start = time.perf_counter()
            with engine(n_workers, model) as judge:
                times_of(lambda: judge(paths[: 4 * few], next(outs)) == 4 * few)
                started = time.perf_counter() - start
                alone, constant, all_of_it = [], [], []
                for _ in range(repeats):
                    alone.append(times_of(lambda: len(list(iter_scores(here, paths))) == n))
                    constant.append(times_of(lambda: judge(paths[:few], next(outs)) == few))
                    all_of_it.append(times_of(lambda: judge(paths, next(outs)) == n))
                if name == "Dask, tasks":
                    per_task = time_of_a_task(judge.client)
            (wall, processor), (few_wall, few_processor) = least(all_of_it), least(constant)
            yardstick_wall, yardstick = (seconds / n for seconds in least(alone))
            rate = (n - few) / (wall - few_wall)
            rows.append(
                {
                    "engine": name,
                    "workers": n_workers,
                    "images/s": rate,
                    "times iter_scores": rate * yardstick_wall,
                    "iter_scores, processor ms an image": 1e3 * yardstick,
                    "overhead, processor ms an image": 1e3
                    * ((processor - few_processor) / (n - few) - yardstick),
                    "a call, s": few_wall,
                    "start, s": started,
                }
            )
            print(rows[-1], file=sys.stderr)
    return rows, per_task


def nothing(number):
    """A task without work."""
    return number


def time_of_a_task(client, n_tasks=2000):
    """Seconds that Dask takes for a task, the scheduler and the way there and back."""
    start = time.perf_counter()
    client.gather(client.map(nothing, range(n_tasks)))
    return (time.perf_counter() - start) / n_tasks


def measure_parts(model, paths, folder):
    """Rates of what is not the judging itself."""
    from skanomaly import load_model, score_files
    from skanomaly._images import load_image
    from skanomaly._recipes import digest_of_fitted
    from skanomaly.streaming import _files, _parts

    found = {}
    listed = [f"/data/line-7/2031-05-17/{i:012}.png" for i in range(1_000_000)]
    start = time.perf_counter()
    _files._shard_of(listed, 0, 800)
    found["list, us a path"] = 1e6 * (time.perf_counter() - start) / len(listed)
    tracemalloc.start()
    _files._shard_of((path for path in listed[:100_000]), 0, 1)
    found["list, bytes a path of the shard"] = tracemalloc.get_traced_memory()[1] / 100_000
    tracemalloc.stop()
    found["list, bytes a path that travels"] = len(pickle.dumps(listed)) / len(listed)

    run = _parts.Run("0" * 64, "0" * 64, 1, 4096)
    numbered = list(enumerate(listed[: 50 * 4096]))
    parts = _parts.Parts(Path(folder), run, 0, numbered)
    rows = [
        {
            **dict.fromkeys(_parts.COLUMNS),
            "path": path,
            "number": number,
            "decision": "normal",
            "score": -1 / (number + 3),
            "threshold": -0.5,
            "p_value": (number % 31 + 1) / 32,
            "model": "0" * 12,
        }
        for number, path in numbered[:4096]
    ]
    start = time.perf_counter()
    for part in range(50):
        parts.write(part, rows)
    found["results, us a row"] = 1e6 * (time.perf_counter() - start) / (50 * 4096)
    size = sum(path.stat().st_size for path in Path(folder).glob("*.parquet"))
    found["results, bytes a row"] = size / (50 * 4096)
    start = time.perf_counter()
    if parts.missing(resume=True):
        raise AssertionError("a part is missing")
    found["going on, us a file that is there"] = 1e6 * (time.perf_counter() - start) / 50

    code = (
        "import sys, time; start = time.perf_counter(); import skanomaly;"
        "list(skanomaly.iter_scores(skanomaly.load_model(sys.argv[1]), sys.argv[2:]));"
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", code, model, paths[0]]
    first = [float(subprocess.run(command, check=True, capture_output=True).stdout) for _ in "abc"]
    found["from the start of a process to its first image, s"] = median(first)
    start = time.perf_counter()
    pipe = load_model(model)
    found["loading the model file, s"] = time.perf_counter() - start
    start = time.perf_counter()
    digest_of_fitted(pipe)
    found["digest of the model, s"] = time.perf_counter() - start
    start = time.perf_counter()
    for path in paths[:100]:
        load_image(path)
    found["reading and decoding, ms an image"] = 1e3 * (time.perf_counter() - start) / 100
    found["bytes of an image"] = sum(os.path.getsize(path) for path in paths) / len(paths)
    found["model file, bytes"] = os.path.getsize(model)
    found["pickle, fitted, bytes"] = len(pickle.dumps(pipe))
    start = time.perf_counter()
    score_files(pipe, [], out=f"{folder}/none")
    found["a shard without images, s"] = time.perf_counter() - start
    return found


def on_paper(rows, found, per_task):
    """Arithmetic from what was measured, of the first engine, for machines of two cores."""
    row = next(row for row in rows if row["workers"] == 2)
    per_image = row["iter_scores, processor ms an image"] + row["overhead, processor ms an image"]
    rate = 2 * 1e3 / per_image
    start = found["from the start of a process to its first image, s"]
    table = []
    for n_machines in (1, 10, 100):
        n_workers = 2 * n_machines
        n_shards = 4 * n_workers
        judging = _ON_PAPER / (rate * n_machines)
        # Each shard goes through the whole list, and a worker has four shards.
        listing = 4 * _ON_PAPER * found["list, us a path"] / 1e6
        total = start + judging + listing
        n_files = n_shards * -(-_ON_PAPER // n_shards // 4096)
        table.append(
            {
                "machines": n_machines,
                "images/s": rate * n_machines,
                "shards": n_shards,
                "hours": total / 3600,
                "machine-hours": n_machines * total / 3600,
                "loading, %": 100 * start / total,
                "lists, %": 100 * listing / total,
                "scheduler, s": n_shards * per_task,
                "reading, MB/s": rate * n_machines * found["bytes of an image"] / 1e6,
                "files": n_files,
                "GB of results": _ON_PAPER * found["results, bytes a row"] / 1e9,
                "GB a process for its list": _ON_PAPER
                / n_shards
                * found["list, bytes a path of the shard"]
                / 1e9,
            }
        )
    return table


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="vision_filterbank")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--json")
    options = parser.parse_args()
    from skanomaly import create_model, save_model

    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        write_images(images, options.images + _TRAINING)
        paths = sorted(map(str, images.iterdir()))
        model = f"{folder}/parts.skan"
        save_model(create_model(options.model).fit(paths[:_TRAINING]), model)
        results = Path(folder, "results")
        results.mkdir()
        found = measure_parts(model, paths[_TRAINING:], results)
        print(found, file=sys.stderr)
        rows, per_task = measure_engines(
            model, paths[_TRAINING:], folder, options.repeats, options.engines
        )
    found["a task of Dask, ms"] = 1e3 * per_task
    table = on_paper(rows, found, per_task)
    print_table(f"{options.images} files, {options.model}, measured", rows)
    print_table("Parts, measured", [{"what": name, "": value} for name, value in found.items()])
    print_table(f"{_ON_PAPER:,} images on paper: arithmetic, not measured", table)
    about = machine(("distributed", "ray", "pyarrow"))
    print(json.dumps(about))
    write_json(options.json, {"machine": about, "rows": rows, "parts": found, "on_paper": table})


if __name__ == "__main__":
    main()
