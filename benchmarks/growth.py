"""Seconds of a model that takes in more images, beside a fit to all of them.

    python -m benchmarks.growth [--images 200] [--more 10] [--size 256] [--repeats 3] [--cpu]

Made surfaces (brushed metal), the filter bank, and three scorers: a whole bank, a coreset of 10%
and the local one. Each model of 200 images takes in 10 more by `update_model`, forgets these by
`forget_images`, and two models of half of the images each are merged; beside these stand the fits
to the same images. Checked is what docs/growing.md promises: scores, thresholds and p-values of 20
other images are those of the fit to 1e-5 relative, and those of coresets differ by the covering
radii at most. With `--cpu` seconds are those of the processor, for machines that do other work:
set OMP_NUM_THREADS=1 for these. Printed are medians, the ratio of the fit to the change, and the
largest differences.
"""

import argparse
import time

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from benchmarks._timing import interleave, machine, print_table, write_json
from skanomaly import (
    FilterBankPatches,
    LocalKNNScorer,
    PatchKNNScorer,
    forget_images,
    merge_models,
    update_model,
)
from skanomaly.datasets import make_surfaces

_NEW = 20
SCORERS = {
    "knn": PatchKNNScorer(),
    "coreset 10%": PatchKNNScorer(coreset=0.1),
    "local": LocalKNNScorer(),
}


def row(name, images, n_old, repeats, size, clock):
    """Seconds and differences of one scorer."""
    pipe = make_pipeline(FilterBankPatches(image_size=size), SCORERS[name])
    known, new = list(images[:-_NEW]), list(images[-_NEW:])
    before = clone(pipe).fit(known[:n_old])
    halves = [clone(pipe).fit(known[: n_old // 2]), clone(pipe).fit(known[n_old // 2 :])]
    made = {}
    ways = {
        "fit": lambda: clone(pipe).fit(known),
        "update": lambda: update_model(before, known[n_old:]),
        "forget": lambda: forget_images(made["update"], known[n_old:]),
        "merge": lambda: merge_models(halves),
    }

    def keeping(way):
        return lambda: made.update({way: ways[way]()})

    times = interleave({way: keeping(way) for way in ways}, repeats=repeats, clock=clock)
    seconds = {way: times[way]["median"] for way in ways}
    pairs = [(made["update"], made["fit"]), (made["merge"], made["fit"]), (made["forget"], before)]
    apart = np.max([_differences(one, other, new) for one, other in pairs], axis=0)
    if SCORERS[name].get_params()["coreset"] is None:
        assert apart.max() < 1e-5, f"{name}: outputs differ by {apart.max():.2g}"
    else:
        for one, other in pairs:
            _check_radii(one, other, new)
    return {
        "scorer": name,
        **{f"{way}, s": value for way, value in seconds.items()},
        "fit / update": seconds["fit"] / seconds["update"],
        "fit / merge": seconds["fit"] / seconds["merge"],
        **dict(zip(("scores differ", "threshold", "p-values"), apart.tolist(), strict=True)),
    }


def _differences(found, expected, images):
    """Of scores and thresholds, relative, and of p-values: the largest of each."""
    scores = [model.score_samples(images) for model in (found, expected)]
    tokens = expected[0].transform(images)
    p_values = [model[-1].p_values(tokens) for model in (found, expected)]
    return (
        np.abs(scores[0] / scores[1] - 1).max(),
        abs(found[-1].offset_ / expected[-1].offset_ - 1),
        np.abs(p_values[0] - p_values[1]).max(),
    )


def _check_radii(found, expected, images):
    """Distances to either bank are those to all patches, and its covering radius more at most."""
    tokens = expected[0].transform(images)
    ours, theirs = (np.sqrt(2 * one[-1].score_patches(tokens)) for one in (found, expected))
    assert (ours - theirs <= found[-1].coverage_radius_ + 1e-5).all()
    assert (theirs - ours <= expected[-1].coverage_radius_ + 1e-5).all()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--more", type=int, default=10)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    n = options.images + options.more + _NEW
    clock = time.process_time if options.cpu else time.perf_counter
    made = make_surfaces(n, surface="brushed_metal", image_size=options.size, random_state=0).images
    asked = options.images, options.repeats, options.size, clock
    rows = [row(name, made, *asked) for name in SCORERS]
    title = f"{options.more} images beside {options.images}, of {options.size} pixels"
    print_table(title, rows)
    write_json(options.json, {"title": title, "rows": rows, "machine": machine()})


if __name__ == "__main__":
    main()
