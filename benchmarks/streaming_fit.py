"""Peak memory and time of fit_stream by the number of images, and how well its coresets cover.

    python -m benchmarks.streaming_fit [--images 250 1000 7000] [--model coreset] [--json FILE]

Images of 784 patches of 1536 components, unless told otherwise, are made on the fly by a stub of an
embedder: as embedding would dominate, what is measured is the fit alone. Each run is a process of
its own; printed is its resident memory at its peak, with Python and all libraries in it. Of a
coreset, `--radius N` compares runs of N images with the one-pass greedy coreset of all tokens,
which has to hold them (N images take N * 4.8 MB): the largest distance of any patch to the bank, as
a multiple of that of the greedy one. Linux only.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks._timing import machine, print_table, write_json
from benchmarks._tokens import make_tokens

MODELS = ("coreset", "patchcore", "gaussian", "subspace", "bank")


class Stub:
    """Stands for a network: tokens of the image whose number its pixels say."""

    def __init__(self, n_patches, dim, kind):
        self.n_patches, self.dim, self.kind, self.seconds = n_patches, dim, kind, 0.0

    def __call__(self, image):
        before = time.process_time()
        number = int(image[0, 0].astype(int) @ [1, 256, 65536])
        tokens = tokens_of(number, self.n_patches, self.dim, self.kind)
        self.seconds += time.process_time() - before
        return tokens, (1, self.n_patches)


def tokens_of(number, n_patches, dim, kind):
    """Unit tokens of one image; even seeds are those of good parts."""
    return make_tokens(kind, n_patches, 2 * number, dim)


def images_of(n_images):
    """What stands for so many paths: an image of one pixel each, which says its number."""
    numbers = np.arange(n_images)
    pixels = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=1)
    return list(pixels.astype(np.uint8).reshape(n_images, 1, 1, 3))


def scorer_of(model, coreset):
    from skanomaly import PatchGaussianScorer, PatchKNNScorer, PatchSubspaceScorer

    if model == "gaussian":
        return PatchGaussianScorer(random_state=0)
    if model == "subspace":
        return PatchSubspaceScorer()
    if model == "bank":
        return PatchKNNScorer()
    if model == "coreset":
        return PatchKNNScorer(coreset=coreset)
    return PatchKNNScorer(metric="euclidean", aggregation="max", coreset=coreset, reweighting=9)


def run(args):
    """One fit, in this process."""
    from sklearn.pipeline import make_pipeline

    from skanomaly import FunctionPatches, fit_stream

    (n_images,) = args.images
    stub = Stub(args.patches, args.dim, args.tokens)
    pipe = make_pipeline(FunctionPatches(stub, n_jobs=1), scorer_of(args.model, args.coreset))
    start, before = time.perf_counter(), time.process_time()
    fit_stream(pipe, images_of(n_images))
    seconds, busy = time.perf_counter() - start, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    scorer = pipe[-1]
    result = {
        "model": args.model,
        "images": n_images,
        "tokens, GB": n_images * args.patches * args.dim * 4 / 1e9,
        "peak, GB": peak / 1e9,
        "seconds": seconds,
        "processor, s": busy,
        "making tokens, s": stub.seconds,
        "calibrated on": len(scorer.train_scores_),
        "threshold": scorer.offset_,
    }
    if args.model in ("coreset", "patchcore"):
        result |= {
            "patches in the bank": len(scorer.bank_),
            "radius, bound": scorer.coverage_radius_,
        }
        if n_images <= args.radius:
            result |= radii(scorer.bank_, stub, n_images)
    print(json.dumps(result))


def radii(bank, stub, n_images):
    """How far any patch is from the bank, and from that of the one-pass greedy."""
    from skanomaly.core.coreset import greedy_k_center
    from skanomaly.core.search.index import PatchIndex

    tokens = np.empty((n_images * stub.n_patches, stub.dim), dtype=np.float32)
    for number in range(n_images):
        rows = slice(number * stub.n_patches, (number + 1) * stub.n_patches)
        tokens[rows] = tokens_of(number, stub.n_patches, stub.dim, stub.kind)
    index = PatchIndex(bank.copy(), "euclidean")
    farthest = max(
        float(index.search(tokens[start : start + 2**14])[0].max())
        for start in range(0, len(tokens), 2**14)
    )
    start = time.perf_counter()
    _, greedy = greedy_k_center(tokens, len(bank))
    return {
        "radius": farthest,
        "radius, one pass": greedy,
        "ratio": farthest / greedy,
        "greedy alone, s": time.perf_counter() - start,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[250, 1000])
    parser.add_argument("--model", choices=MODELS, default="patchcore")
    parser.add_argument("--coreset", type=float, default=0.01)
    parser.add_argument("--patches", type=int, default=784)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--tokens", choices=("mixture", "noise"), default="mixture")
    parser.add_argument("--radius", type=int, default=500, metavar="N")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json")
    args = parser.parse_args()
    if args.one:
        run(args)
        return
    rows = []
    for n_images in args.images:
        options = [
            f"--{k}={v}" for k, v in vars(args).items() if k not in ("images", "one", "json")
        ]
        command = [sys.executable, "-m", "benchmarks.streaming_fit", "--one", *options]
        done = subprocess.run(
            [*command, "--images", str(n_images)], check=True, stdout=subprocess.PIPE, text=True
        )
        rows.append(json.loads(done.stdout))
        print(done.stdout, end="", file=sys.stderr, flush=True)
    columns = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name, "") for name in columns} for row in rows]
    title = f"{args.patches} patches of {args.dim} components, {args.tokens} tokens"
    print_table(title, rows)
    write_json(args.json, {"machine": machine(("scikit-learn",)), "runs": rows})


if __name__ == "__main__":
    main()
