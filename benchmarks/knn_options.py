"""What the options of nearest patches are worth: image AUROC and flagged shares on real images.

Run ``python -m benchmarks.knn_options ROOT --weights vit_tiny_patch16_224.safetensors``. `ROOT`
holds data sets in the layout of MVTec. Tokens are of blocks 3 and 8 of ViT-Tiny at 224 pixels;
each scorer is fitted to at most `--shots` images of each set, drawn once. The last rows are a model
of all sets together. In brackets: the shares of good parts and of defects that are flagged.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from skanomaly import PatchKNNScorer, RetrievalKNNScorer, TimmPatches
from skanomaly.datasets import list_categories, read_mvtec
from skanomaly.metrics import image_auroc

DIM = 192
PATCHCORE = {"metric": "euclidean", "aggregation": "max"}
ALONE = {
    "block 3": (1, PatchKNNScorer()),
    "block 3, position_weight=0.07": (1, PatchKNNScorer(position_weight=0.07)),
    "block 3, means of 3x3 patches": ("means", PatchKNNScorer()),
    "blocks 3 and 8, joint": (2, PatchKNNScorer()),
    "blocks 3 and 8, parts=2": (2, PatchKNNScorer(parts=2)),
    "block 3, PatchCore, 10%": (1, PatchKNNScorer(**PATCHCORE, coreset=0.1)),
    "block 3, PatchCore, 10%, reweighting=9": (
        1,
        PatchKNNScorer(**PATCHCORE, coreset=0.1, reweighting=9),
    ),
}
TOGETHER = {
    "one bank of all": PatchKNNScorer(),
    **{f"n_retrieved={n}": RetrievalKNNScorer(n) for n in (5, 20, 50, 150)},
    "n_retrieved=50, radius=1": RetrievalKNNScorer(50, radius=1),
}


def blocks(tokens, what):
    """The first blocks of the tokens, or means over 3x3 patches of the first one."""
    if what != "means":
        return np.ascontiguousarray(tokens[..., : what * DIM])
    padded = np.pad(tokens[..., :DIM], ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = tokens.shape[1:3]
    shifts = [(row, column) for row in range(3) for column in range(3)]
    return sum(padded[:, r : r + height, c : c + width] for r, c in shifts) / np.float32(9)


def measured(scorer, test, y):
    """AUROC, and the shares of good parts and of defects that are flagged."""
    scores = scorer.score_samples(test)
    flagged = scores < scorer.offset_
    shares = [float(flagged[y == label].mean()) for label in (1, -1)]
    return [float(image_auroc(y, scores)), *shares]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--shots", type=int, default=60)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    embedder = TimmPatches(
        "vit_tiny_patch16_224",
        layers=(3, 8),
        image_size=224,
        weights=args.weights,
        device="cpu",
    )
    sets, rows = {}, {}
    for name in args.sets or list_categories(args.root):
        split = read_mvtec(args.root / name)
        good = np.random.default_rng(0).permutation(len(split.train.images))[: args.shots]
        paths = [split.train.images[i] for i in np.sort(good)]
        sets[name] = (
            embedder.fit_transform(paths),
            embedder.transform(split.test.images),
            split.test.y,
        )
    with threadpool_limits(1):
        for option, (what, scorer) in ALONE.items():
            rows[option] = {
                name: measured(scorer.fit(blocks(train, what)), blocks(test, what), y)
                for name, (train, test, y) in sets.items()
            }
            show(option, rows[option])
        mixture = np.concatenate([blocks(train, 1) for train, _, _ in sets.values()])
        for option, scorer in TOGETHER.items():
            scorer.fit(mixture)
            start = time.process_time()
            rows[f"all sets, {option}"] = found = {
                name: measured(scorer, blocks(test, 1), y) for name, (_, test, y) in sets.items()
            }
            n_images = sum(len(y) for _, _, y in sets.values())
            speed = n_images / (time.process_time() - start)
            show(f"all sets, {option}", found, f"{speed:.0f} images/s")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def show(option, row, more=""):
    """A row of the table."""
    cells = [f"{a:.3f} ({good:.2f}, {bad:.2f})" for a, good, bad in row.values()]
    print("|", " | ".join([option, *cells, more]), "|", flush=True)


if __name__ == "__main__":
    main()
