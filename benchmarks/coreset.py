"""Greedy k-center against anomalib's sampler and the plain loop: agreement, radius, time.

Run ``python -m benchmarks.coreset``: 5,000 of 50,000 tokens of 384 components, on one thread, by
processor time. ``--tokens 200000 --centers 20000`` for the larger bank, ``--kind`` for other tokens
than a mixture of low rank, ``--json FILE`` to keep the numbers. Every step of the other contenders
costs the same, so that they run `--peer-centers` steps and their time for all centres is that in
proportion (``--peer-centers 5000`` runs them in full; anomalib's then takes minutes). anomalib's
sampler is left out where anomalib is not installed.

First the subsets are compared. The plain loop is the algorithm itself: one product of the tokens
with the newest centre, then the running minimum. anomalib's sampler works on a sparse random
projection, from a random start: its order is compared with ours from the same start on the same
projection. Making the tokens is not timed.
"""

import argparse
import importlib.util
import time
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks._timing import interleave, machine, print_table, write_json
from benchmarks._tokens import KINDS, make_tokens
from skanomaly.core.coreset import covering_radius, greedy_k_center, projected_k_center


def plain_loop(tokens, n_centers):
    """The published algorithm in float32: all tokens against each new centre."""
    squares = np.einsum("ij,ij->i", tokens, tokens)
    nearest = np.full(len(tokens), np.inf, dtype=np.float32)
    chosen = [0]
    while len(chosen) < n_centers:
        newest = chosen[-1]
        squared = tokens @ tokens[newest]
        squared *= -2
        squared += squares
        squared += squares[newest]
        np.minimum(nearest, squared, out=nearest)
        nearest[newest] = -1
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def anomalib_sampler(tokens, n_centers):
    """anomalib's sampler, without its progress bar, and its chosen rows."""
    import torch
    from anomalib.models.components.sampling import k_center_greedy

    torch.set_num_threads(1)
    with (
        torch.inference_mode(),
        mock.patch.object(k_center_greedy, "tqdm", lambda steps, **_: steps),
    ):
        ratio = (n_centers + 0.5) / len(tokens)
        sampler = k_center_greedy.KCenterGreedy(torch.from_numpy(tokens), ratio)
        return sampler, np.array(sampler.select_coreset_idxs())


def check(tokens, n_centers, with_anomalib):
    """Compare orders, as shares of equal steps and of equal rows."""
    pairs = {"plain loop": (plain_loop(tokens, n_centers), greedy_k_center(tokens, n_centers)[0])}
    if with_anomalib:
        sampler, rows = anomalib_sampler(tokens, n_centers)
        ours, _ = greedy_k_center(sampler.features.numpy(), n_centers, start=rows[0])
        pairs["anomalib, on its projection"] = rows, ours
    found = []
    for name, (rows, ours) in pairs.items():
        same = float(np.mean(rows == ours)), len(np.intersect1d(rows, ours)) / len(ours)
        # The rounding of float32 exchanges centres that are almost equally far.
        assert same[1] >= 0.99, (name, same)
        found.append({"compared with": name, "same step": same[0], "same row": same[1]})
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--centers", type=int, default=5_000)
    parser.add_argument("--peer-centers", type=int, default=200)
    parser.add_argument("--kind", choices=KINDS, default="mixture")
    parser.add_argument("--dim", type=int, default=384, help="not for vit")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json")
    args = parser.parse_args()
    with threadpool_limits(1):
        result = run(args)
    write_json(args.json, result)


def run(args):
    with_anomalib = importlib.util.find_spec("anomalib") is not None
    tokens = make_tokens(args.kind, args.tokens, dim=args.dim)
    n, m, few = args.tokens, args.centers, min(args.centers, args.peer_centers)
    dim = tokens.shape[1]
    agreement = check(tokens, few, with_anomalib)
    print_table(f"Agreement, {few:,} of {n:,}", agreement)

    kept = {}

    def keep(name, function):
        def call():
            kept[name] = function()

        return call

    contenders = {
        "ours": keep("ours", lambda: greedy_k_center(tokens, m)),
        "ours, projected": keep(
            "ours, projected", lambda: projected_k_center(tokens, m, random_state=0)
        ),
        "plain loop": lambda: plain_loop(tokens, few),
    }
    if with_anomalib:
        contenders["anomalib"] = lambda: anomalib_sampler(tokens, few)
    ceiling = machine(["torch", "anomalib"])
    seconds = interleave(contenders, args.repeats, warm_up=0, clock=time.process_time)
    random = np.random.default_rng(0).choice(n, m, replace=False)
    radii = {name: radius for name, (_, radius) in kept.items()}
    rows = []
    for name, times in seconds.items():
        steps = m if name in kept else few
        total = times["median"] * m / steps
        rows.append(
            {
                "contender": name,
                "centres run": steps,
                "seconds": times["median"],
                "seconds for all": total,
                "ratio": total / seconds["ours"]["median"],
                "radius": radii.get(name, ""),
            }
        )
    rows.append(
        {
            "contender": "at random",
            "centres run": m,
            "seconds": "",
            "seconds for all": "",
            "ratio": "",
            "radius": covering_radius(tokens, random),
        }
    )
    print_table(f"{m:,} of {n:,} {args.kind} tokens of {dim} components, one thread", rows)
    floors = {
        "every token against every centre, at the GEMM's speed": 2e-9
        * (n * m * dim / ceiling["float32_gflops"]),
        "reading the tokens once for each centre, at the copy's speed": 4e-9
        * (n * m * dim / ceiling["copy_gigabytes_per_second"]),
    }
    print_table("Bounds of the plain algorithm", [{"what": k, "s": v} for k, v in floors.items()])
    return {"machine": ceiling, "agreement": agreement, "contenders": rows, "floors": floors}


if __name__ == "__main__":
    main()
