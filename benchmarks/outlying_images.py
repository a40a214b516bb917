"""How often a threshold is said to rest on few images where none of them is unusual.

    python -m benchmarks.outlying_images [--trials 10000] [--images 10 20 31 50 100]

Held-out scores of good images are drawn from one distribution each, and a threshold is set to flag
5% and 10% of them. None is an outlier, so that each note of :func:`resting_on` is a false one. The
table has the largest share of samples with a note, over both thresholds, and over all numbers of
images.
"""

import argparse

import numpy as np

from benchmarks._timing import print_table
from skanomaly.core.calibration import contamination_offset, resting_on

SHARES = (0.05, 0.1)
DISTRIBUTIONS = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "Gumbel": lambda rng, size: -rng.gumbel(size=size),
    "Laplace": lambda rng, size: rng.laplace(size=size),
    "log-normal, sigma 0.5": lambda rng, size: -rng.lognormal(sigma=0.5, size=size),
    "exponential": lambda rng, size: -rng.exponential(size=size),
    "Student's t, 3 degrees of freedom": lambda rng, size: rng.standard_t(3, size),
    "log-normal, sigma 1": lambda rng, size: -rng.lognormal(sigma=1.0, size=size),
}


def false_notes(samples):
    """The largest share of samples, one a row, that a note is about."""
    return max(
        np.mean([resting_on(row, contamination_offset(row, share)) > 0 for row in samples])
        for share in SHARES
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10000)
    parser.add_argument("--images", type=int, nargs="+", default=[10, 20, 31, 50, 100])
    options = parser.parse_args()
    rows = []
    for name, draw in DISTRIBUTIONS.items():
        rng = np.random.default_rng(0)
        found = [false_notes(draw(rng, (options.trials, n))) for n in options.images]
        shares = {
            f"{n} images": f"{share:.1%}" for n, share in zip(options.images, found, strict=True)
        }
        rows.append({"scores": name, **shares, "largest": f"{max(found):.1%}"})
    print_table("Samples with a note, though no image is unusual", rows)


if __name__ == "__main__":
    main()
