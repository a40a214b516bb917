"""How much the held-out scores of a union owe to a scale that has seen the image.

    python -m benchmarks.union_scale [--surfaces fabric disc brushed_metal] [--images 20 60]

Made surfaces of 128 pixels, the filter bank, and two scorers of nearest patches, whose own held-out
scores are exact. The `train_scores_` of 20 images are compared to the score of each by a union that
was fitted without it: the members' scores are the same, and what differs is the scale. Printed is
by how much,
in standard deviations of the `train_scores_`, and how many images are called otherwise by the
threshold of the first.
"""

import argparse

import numpy as np
from sklearn.base import clone

from benchmarks._timing import print_table
from skanomaly import FilterBankPatches, PatchKNNScorer, ScoreUnion
from skanomaly.datasets import make_surfaces

_REFITS = 20


def row(surface, n_images):
    """What differs on one surface."""
    made = make_surfaces(n_images, surface=surface, image_size=128, random_state=0).images
    X = FilterBankPatches(image_size=128).fit_transform(made)
    euclidean = PatchKNNScorer(3, metric="euclidean")
    union = ScoreUnion([("cosine", PatchKNNScorer()), ("euclidean", euclidean)])
    fitted = clone(union).fit(X)
    left_out = np.linspace(0, n_images - 1, min(n_images, _REFITS)).astype(int)
    without = np.empty(len(left_out))
    for number, i in enumerate(left_out):
        refit = clone(union).fit(np.delete(X, i, axis=0))
        (without[number],) = refit.score_samples(X[i : i + 1])
    held_out = fitted.train_scores_[left_out]
    apart = np.abs(held_out - without) / fitted.train_scores_.std()
    calls = held_out < fitted.offset_, without < fitted.offset_
    return {
        "surface": surface,
        "images": n_images,
        "median": float(np.median(apart)),
        "largest": float(apart.max()),
        "called otherwise": int(np.count_nonzero(calls[0] != calls[1])),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--surfaces", nargs="+", default=["fabric", "disc", "brushed_metal"])
    parser.add_argument("--images", nargs="+", type=int, default=[20, 60])
    options = parser.parse_args()
    rows = [row(surface, n) for surface in options.surfaces for n in options.images]
    print_table("by how much held-out scores and those of a refit differ", rows)


if __name__ == "__main__":
    main()
