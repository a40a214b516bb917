"""Memory and time of unlabelled images that score each other.

    python -m benchmarks.mutual [--images 200] [--compare 24] [--neighborhoods 1] [--json FILE]

*memory*: `MutualScorer` on `--images` of 1024 tokens of `--dim` components; printed is the resident
memory at its peak, the tokens included. That takes hours of a core at the full size: ``--dim 32``
measures all but the tokens in minutes. *time*: on `--compare` images of 384 components, seconds of
the processor for one part and one neighbourhood, beside one search of all patches among all other
images by brute force, and beside all that `PatchKNNScorer` does in `fit`. Linux only.
"""

import argparse
import resource
import time

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks._timing import interleave, machine, print_table, write_json
from benchmarks._tokens import make_tokens
from skanomaly import MutualScorer, PatchKNNScorer

_GRID = (32, 32)


def images_of(n_images, dim, seed=0):
    """Tokens of images, of the mixture."""
    tokens = make_tokens("mixture", n_images * _GRID[0] * _GRID[1], seed, dim)
    return tokens.reshape(n_images, *_GRID, dim)


def peak():
    """Most resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def memory(options):
    """Peak memory and time of one fit."""
    X = images_of(options.images, options.dim)
    before, start = peak(), time.process_time()
    MutualScorer(neighborhoods=range(1, 2 * options.neighborhoods, 2)).fit(X)
    return {
        "images": options.images,
        "dim": options.dim,
        "neighborhoods": options.neighborhoods,
        "tokens, GB": X.nbytes / 1e9,
        "peak before, GB": before,
        "peak, GB": peak(),
        "seconds": time.process_time() - start,
    }


def times(options):
    """Seconds of one part and neighbourhood, and of the search of nearest patches."""
    X = images_of(options.compare, 384)
    contenders = {
        "MutualScorer, 1 neighbourhood": lambda: MutualScorer(neighborhoods=(1,)).fit(X),
        "with graph_filter": lambda: MutualScorer(neighborhoods=(1,), graph_filter=True).fit(X),
        "PatchKNNScorer, brute": lambda: PatchKNNScorer(algorithm="brute").fit(X),
        "PatchKNNScorer, auto": lambda: PatchKNNScorer().fit(X),
    }
    found = interleave(contenders, repeats=3, warm_up=0, clock=time.process_time)
    ours = found["MutualScorer, 1 neighbourhood"]["median"]
    return [
        {"what": name, "seconds": result["median"], "times ours": result["median"] / ours}
        for name, result in found.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--neighborhoods", type=int, default=1)
    parser.add_argument("--compare", type=int, default=24)
    parser.add_argument("--only", choices=("memory", "time"))
    parser.add_argument("--json")
    options = parser.parse_args()
    found = {"machine": machine()}
    with threadpool_limits(1):
        if options.only != "memory":
            found["time"] = times(options)
            print_table(f"time, {options.compare} images", found["time"])
        if options.only != "time":
            found["memory"] = memory(options)
            print_table("memory", [found["memory"]])
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
