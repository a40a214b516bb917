"""Peak memory and time of a memory bank of 200 images x 1024 patches x 384 components.

Run ``python -m benchmarks.memory`` (``--images 50`` for a quick look). The tokens are random points
around random centres, 0.3 GB of float32. Printed are the peak resident memory beyond the process
with its tokens, of fitting (leave-one-image-out calibration included) and of scoring; and, as a
check, that a scored image equals scikit-learn's brute force.
"""

import argparse
import json
import resource
import time

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from skanomaly import PatchKNNScorer
from skanomaly.core.sign_product import fastest_dtype

MEBIBYTE = 2**20


def make_tokens(n_images, n_patches=1024, dim=384, n_centers=300, seed=0):
    """Unit tokens in clusters, float32, made image by image to keep memory flat."""
    rng = np.random.default_rng([seed, 0])
    centers = rng.standard_normal((n_centers, dim), dtype=np.float32)
    tokens = np.empty((n_images, n_patches, dim), dtype=np.float32)
    rng = np.random.default_rng([seed, 1])
    for image in tokens:
        image[:] = centers[rng.integers(n_centers, size=n_patches)]
        image += 0.4 * rng.standard_normal(image.shape, dtype=np.float32)
    return tokens


def peak():
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--queries", type=int, default=10)
    args = parser.parse_args()
    tokens = make_tokens(args.images)
    queries = make_tokens(args.queries, seed=1)
    fastest_dtype()  # loads torch, if it is installed, whose size is not the search's
    before = peak()
    start = time.perf_counter()
    scorer = PatchKNNScorer().fit(tokens)
    fit_seconds, after_fit = time.perf_counter() - start, peak()
    start = time.perf_counter()
    patches = scorer.score_patches(queries)
    score_seconds, after_score = time.perf_counter() - start, peak()

    reference = NearestNeighbors(n_neighbors=1, algorithm="brute", metric="euclidean")
    reference.fit(normalize(tokens.reshape(-1, tokens.shape[-1])))
    expected = reference.kneighbors(normalize(queries[0]))[0][:, 0] ** 2 / 2
    difference = float(np.abs(patches[0] - expected).max())
    assert difference < 1e-5, difference

    result = {
        "bank": list(scorer.bank_.shape),
        "tokens_mib": tokens.nbytes / MEBIBYTE,
        "bank_mib": scorer.bank_.nbytes / MEBIBYTE,
        "fit_extra_over_bank": (after_fit - before) / scorer.bank_.nbytes,
        "fit_extra_mib": (after_fit - before) / MEBIBYTE,
        "score_extra_mib": (after_score - before) / MEBIBYTE,
        "fit_seconds": fit_seconds,
        "score_seconds_per_image": score_seconds / args.queries,
        "max_difference_to_scikit_learn": difference,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
