"""What masking the background is worth: python -m benchmarks.foreground DATA... --weights FILE

Each folder holds a data set. The good images, those of the test too, are split anew for each seed:
one half trains the nearest-patch scorer, the other shows how many good parts are flagged. Masks are
compared to none, to masks in training too, and to a threshold of training images without masks.
First the same on generated tokens whose background is another in each image.
"""

import argparse
from pathlib import Path

import numpy as np

from skanomaly import PatchKNNScorer, PCAForeground, TimmPatches
from skanomaly.datasets import read_dataset
from skanomaly.metrics import image_auroc


def ways(threshold):
    """Name, what becomes of training tokens, what becomes of new ones; each a function."""
    new = PCAForeground(threshold, no_foreground="keep")
    both = PCAForeground(threshold, no_foreground="keep", mask_training=True)
    return [
        ("no mask", np.asarray, np.asarray),
        ("new images masked", new.fit_transform, new.transform),
        ("training images masked too", both.fit_transform, both.transform),
        ("threshold of unmasked images", np.asarray, new.transform),
    ]


def measure(good, bad, threshold, seeds):
    """Mean over the seeds of AUROC, share of good ones flagged and of defects found, by way."""
    found = {}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(good))
        train, rest = np.split(good[order], [len(good) // 2])
        y = np.repeat([1, -1], [len(rest), len(bad)])
        for name, of_training, of_new in ways(threshold):
            scorer = PatchKNNScorer().fit(of_training(train))
            scores = scorer.score_samples(of_new(np.concatenate([rest, bad])))
            flagged = scores < scorer.offset_
            numbers = image_auroc(y, scores), flagged[y == 1].mean(), flagged[y == -1].mean()
            found.setdefault(name, []).append(numbers)
    return {name: np.mean(numbers, axis=0) for name, numbers in found.items()}


def objects(n, seed, defect=0.0):
    """Tokens of objects before a background that no other image has."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(n, 12, 11, 6)).astype(np.float32)
    tokens[:, 4:8, 3:8, 0] += 40
    background = np.isnan(PCAForeground().transform(tokens)).all(axis=-1)
    tokens[background, 1:] = 3 * rng.normal(size=(background.sum(), 5))
    tokens[:, 5, 5, 1:] += defect
    return tokens


def generated(seeds):
    """Share of good ones flagged and of defects found where the background varies most, by way."""
    found = {}
    for seed in range(seeds):
        train, good, bad = (
            objects(100, seed),
            objects(200, 1000 + seed),
            objects(200, 2000 + seed, 2.5),
        )
        for name, of_training, of_new in ways(10.0):
            scorer = PatchKNNScorer(metric="euclidean", contamination=0.2).fit(of_training(train))
            shares = [np.mean(scorer.predict(of_new(part)) == -1) for part in (good, bad)]
            found.setdefault(name, []).append(shares)
    return {name: np.mean(shares, axis=0) for name, shares in found.items()}


def main():
    """Print a line for each data set, block and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--layers", nargs="+", type=int, default=[3, 11])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threshold", type=float, default=10.0)
    parser.add_argument("--most", type=int, default=200, help="good images, defects: at most")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache")
    options = parser.parse_args()
    print("generated tokens, contamination 0.2")
    for name, (flagged, recall) in generated(options.seeds).items():
        print(f"  {name:30} flagged {flagged:.3f}, found {recall:.3f}")
    for folder in options.data:
        split = read_dataset(folder)
        test = np.asarray(split.test.images, dtype=object)
        good = [*split.train.images, *test[split.test.y == 1]][-options.most :]
        bad = test[split.test.y == -1][: options.most]
        for layer in options.layers:
            embedder = TimmPatches(
                options.model,
                weights=options.weights,
                layers=layer,
                image_size=options.image_size,
                cache_dir=options.cache,
            )
            tokens = [np.asarray(embedder.transform(list(part))) for part in (good, bad)]
            masked = PCAForeground(options.threshold, no_foreground="keep").transform(tokens[0])
            share = 1 - np.isnan(masked).all(axis=-1).mean()
            print(f"{folder.name}, block {layer}: {share:.0%} of good images are foreground")
            measured = measure(*tokens, options.threshold, options.seeds)
            for name, (auroc, flagged, recall) in measured.items():
                print(f"  {name:30} AUROC {auroc:.3f}, flagged {flagged:.2f}, found {recall:.2f}")


if __name__ == "__main__":
    main()
