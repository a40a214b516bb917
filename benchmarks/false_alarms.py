"""Share of good images that are flagged, at nominal rates, over random splits of data sets.

python -m benchmarks.false_alarms path/to/data --seeds 20

The good images of each category, of train and test, are split at random: a model is fitted to some,
and the others are scored. Splits share images, so that the interval beside each share is that of a
binomial of half the images there are: the threshold is uncertain too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import binom
from sklearn.base import clone

from skanomaly import create_model
from skanomaly.core.calibration import contamination_offset
from skanomaly.datasets import read_mvtec

RATES = (0.05, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of categories in the layout of MVTec AD")
    parser.add_argument("--model", default="vision_filterbank")
    parser.add_argument("--scorer", default=None)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=20, help="random splits of each category")
    parser.add_argument("--train", type=int, default=60, help="images to fit to, at most")
    arguments = parser.parse_args()
    for folder in sorted(p for p in arguments.data.iterdir() if (p / "train").is_dir()):
        model = create_model(
            arguments.model, scorer=arguments.scorer, image_size=arguments.image_size
        )
        split = read_mvtec(folder)
        good = [p for p, y in zip(split.test.images, split.test.y, strict=True) if y == 1]
        tokens = model[:-1].fit_transform([*split.train.images, *good])
        n_train = min(2 * len(tokens) // 3, arguments.train)
        flagged = np.zeros(len(RATES))
        for seed in range(arguments.seeds):
            order = np.random.default_rng(seed).permutation(len(tokens))
            scorer = clone(model[-1]).fit(tokens[order[:n_train]])
            scores = scorer.score_samples(tokens[order[n_train:]])
            thresholds = [contamination_offset(scorer.train_scores_, rate) for rate in RATES]
            flagged += [np.mean(scores < threshold) for threshold in thresholds]
        for rate, share in zip(RATES, flagged / arguments.seeds, strict=True):
            low, high = np.array(binom.interval(0.95, len(tokens) // 2, rate)) / (len(tokens) // 2)
            print(
                f"{folder.name:12s} {len(tokens):4d} good images, fitted to {n_train:3d}: nominal "
                f"{rate:.0%}, flagged {share:.1%}, interval {low:.1%} to {high:.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
