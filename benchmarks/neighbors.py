"""Exact nearest patches of one image: this package and others, in turn, on the same tokens.

Run ``python -m benchmarks.neighbors`` (``--bank 10000 100000 1000000 --tokens mixture vit noise
--dim 384 192 --queries 1024 784 --threads 1 --json FILE``). Before anything is timed, every
contender is compared with float64 distances of a sample of the queries, and the searches of this
package with each other, to the last bit. With one thread, times are of the processor. Contenders
that build the whole matrix of distances stop at 200,000 rows. The image score alone is the mean of
the top 1%, for which most patches need no exact distance. Memory: ``python -m benchmarks.memory``.
"""

import argparse
import importlib.util
import itertools
import os
import sys
import time
import types
import warnings

# Before NumPy and others start their threads.
if "--threads" in sys.argv:
    _threads = sys.argv[sys.argv.index("--threads") + 1]
else:
    _threads = "1"
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = _threads

import numpy as np  # noqa: E402
from sklearn.neighbors import NearestNeighbors  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from benchmarks._timing import interleave, machine, print_table, write_json  # noqa: E402
from benchmarks._tokens import KINDS, make_tokens  # noqa: E402
from skanomaly.core.aggregation import highest_scores  # noqa: E402
from skanomaly.core.search.brute_force import nearest_patches  # noqa: E402
from skanomaly.core.search.index import PatchIndex  # noqa: E402
from skanomaly.core.search.low_precision import fastest_dtype  # noqa: E402

QUERIES = 1024  # one image of 512 x 512 pixels in patches of 16, or of 448 in patches of 14
LARGEST_MATRIX = 200_000
IMAGE_SCORE = "skanomaly, image score alone"


def contenders(bank, queries, clock):
    """Functions that return distances 1 - cos to the nearest row, and what was built for them."""
    start = clock()
    index = PatchIndex(bank.copy())
    index.search(queries[:1])
    built = {"skanomaly": clock() - start}
    functions = {
        "skanomaly": lambda: index.search(queries)[0][:, 0],
        "skanomaly, brute force": lambda: nearest_patches(queries, bank)[0][:, 0],
    }
    for name in ("certified", "wide"):
        if len(bank) > LARGEST_MATRIX or (name == "wide" and fastest_dtype() != "bfloat16"):
            continue  # each takes a bank of its own
        forced = PatchIndex(bank.copy(), algorithm=name)
        functions[f"skanomaly, {name}"] = lambda forced=forced: forced.search(queries)[0][:, 0]
    if index.has_bounds:  # not that of a small bank
        functions[IMAGE_SCORE] = lambda: highest_scores(
            index.upper_bounds(queries)[:, 0],
            [0, len(queries)],
            [len(queries) // 100],
            lambda rows: index.search(queries[rows])[0][:, 0],
        )
    brute = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank)
    functions["scikit-learn brute"] = lambda: brute.kneighbors(queries)[0][:, 0] ** 2 / 2
    if importlib.util.find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(int(_threads))
        flat = faiss.IndexFlatIP(bank.shape[1])
        flat.add(bank)
        functions["faiss IndexFlatIP"] = lambda: 1 - flat.search(queries, 1)[0][:, 0]
    if len(bank) <= LARGEST_MATRIX:
        functions["published loop"] = lambda: published_loop(queries, bank)
        functions |= torch_contenders(bank, queries)
    return functions, built, index


def torch_contenders(bank, queries):
    if not importlib.util.find_spec("torch"):
        return {}
    import torch

    torch.set_num_threads(int(_threads))
    left, right = torch.from_numpy(queries), torch.from_numpy(bank)

    def cdist():
        return torch.cdist(left, right).topk(1, largest=False).values[:, 0].numpy() ** 2 / 2

    functions = {"torch.cdist + topk": cdist}
    if importlib.util.find_spec("anomalib"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from anomalib.models.image.anomaly_dino.torch_model import AnomalyDINOModel
        side = int(len(queries) ** 0.5)
        model = types.SimpleNamespace(
            memory_bank=right,
            patch_size=1,
            masking=False,
            training=False,
            num_neighbours=1,
            extract_features=lambda images: left[None],
            mean_top1p=AnomalyDINOModel.mean_top1p,
            anomaly_map_generator=lambda scores, size: scores,
        )
        images = torch.zeros(1, 3, side, side)

        def anomalib():
            with torch.inference_mode():
                return AnomalyDINOModel.forward(model, images).anomaly_map.numpy().ravel()

        functions["anomalib AnomalyDINO"] = anomalib
    return functions


def published_loop(queries, bank):
    """One query after the other, as in the papers' formulas."""
    return np.array([(1 - bank @ query).min() for query in queries])


def check(functions, bank, queries):
    """Largest error of each contender on a sample, against float64."""
    sample = np.arange(0, len(queries), max(1, len(queries) // 64))
    exact = np.full(sample.size, np.inf)
    for start in range(0, len(bank), 65536):
        product = queries[sample].astype(np.float64) @ bank[start : start + 65536].T
        exact = np.minimum(exact, (1 - product).min(axis=1))
    found = {name: function() for name, function in functions.items()}
    errors = {name: float(np.abs(d[sample] - exact).max()) for name, d in found.items()}
    if IMAGE_SCORE in found:
        top = [
            np.sort(found[name])[-(len(queries) // 100) :] for name in (IMAGE_SCORE, "skanomaly")
        ]
        errors[IMAGE_SCORE] = float(np.abs(top[0] - top[1]).max())
    for name in found:
        if name.startswith("skanomaly,") and name != IMAGE_SCORE and "skanomaly" in found:
            np.testing.assert_array_equal(found[name], found["skanomaly"])
    for name, error in errors.items():
        # The root of a small number in float32 is what torch.cdist and scikit-learn return.
        assert error < (1e-6 if name.startswith("skanomaly") else 1e-3), (name, error)
    return errors


def bfloat16_gflops():
    if not importlib.util.find_spec("torch"):
        return None
    import torch

    a = torch.ones(2048, 2048, dtype=torch.bfloat16)
    times = interleave({"gemm": lambda: a @ a}, clock=time.process_time)
    return 2 * 2048**3 / times["gemm"]["min"] / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--tokens", nargs="+", choices=KINDS, default=["mixture"])
    parser.add_argument("--dim", type=int, nargs="+", default=[384], help="not of vit tokens: 192")
    parser.add_argument("--queries", type=int, nargs="+", default=[QUERIES])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="beginnings of the contenders' names")
    parser.add_argument("--json")
    args = parser.parse_args()
    clock = time.process_time if args.threads == 1 else time.perf_counter
    result = {"threads": args.threads, "runs": []}
    with threadpool_limits(args.threads):
        result["machine"] = machine(["faiss-cpu", "scikit-learn", "torch", "anomalib"])
        for kind, dim, n_queries in itertools.product(args.tokens, args.dim, args.queries):
            if kind == "vit" and dim != args.dim[0]:
                continue
            for n_bank in args.bank:
                result["runs"].append(run(kind, n_bank, dim, n_queries, args, clock))
        result["machine"]["bfloat16_gflops"] = bfloat16_gflops()
    print(f"\n{result['machine']}")
    result["slopes"] = slopes(result["runs"])
    if result["slopes"]:
        print_table("Slope of log time over log rows of the bank", result["slopes"])
    write_json(args.json, result)


def run(kind, n_bank, dim, n_queries, args, clock):
    bank, queries = make_tokens(kind, n_bank, 0, dim), make_tokens(kind, n_queries, 1, dim)
    functions, built, searched = contenders(bank, queries, clock)
    index = functions.pop("skanomaly")
    functions = {"skanomaly": index, **functions}
    if args.only:
        functions = {name: f for name, f in functions.items() if name.startswith(tuple(args.only))}
    errors = check(functions, bank, queries)
    repeats = min(args.repeats, 3) if n_bank > LARGEST_MATRIX else args.repeats
    times = interleave(functions, repeats, warm_up=0, clock=clock)
    rows = [
        {
            "search": name,
            "ms": 1000 * times[name]["median"],
            "min ms": 1000 * times[name]["min"],
            "skanomaly is faster by": times[name]["median"] / times["skanomaly"]["median"],
            "error": errors[name],
        }
        for name in functions
    ]
    shape = {"tokens": kind, "bank": n_bank, "dim": bank.shape[1], "queries": n_queries}
    print_table(f"{n_queries} queries, bank of {n_bank} x {bank.shape[1]}, {kind} tokens", rows)
    print(f"built in {built['skanomaly']:.2f} s, searched by {searched.chosen!r}", flush=True)
    return {**shape, "built": built, "chosen": searched.chosen, "rows": rows}


def slopes(runs):
    curves = {}
    for run in runs:
        for row in run["rows"]:
            key = (run["tokens"], run["dim"], run["queries"], row["search"])
            curves.setdefault(key, []).append((run["bank"], row["ms"]))
    rows = []
    for (kind, dim, n_queries, name), points in curves.items():
        if len(points) > 1:
            x, y = np.log(np.array(points)).T
            slope = float(np.polyfit(x, y, 1)[0])
            shape = {"tokens": kind, "dim": dim, "queries": n_queries}
            rows.append({**shape, "search": name, "slope": slope})
    return rows


if __name__ == "__main__":
    main()
