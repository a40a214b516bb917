"""Image AUROC of nearest patches with views of the training images, and with masks, at few shots.

    python -m benchmarks.views ROOT --weights vit_tiny_patch16_224.safetensors [--side 224]
        [--categories toothbrush screw] [--shots 1 4 16] [--seeds 3] [--cache FOLDER] [--json FILE]

ROOT holds categories in the layout of MVTec AD. ViT-Tiny, block 3 and the last block, with the
scoring of AnomalyDINO: cosine distance to the nearest patch, mean of the top 1%. Of a category with
more than 50 defective images 50 are drawn.
"""

import argparse
import warnings

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks._timing import machine, print_table, write_json
from skanomaly import PatchKNNScorer, PCAForeground, TimmPatches
from skanomaly.core.views import views_of
from skanomaly.datasets import list_categories, read_dataset

MODEL, BLOCKS, MOST_DEFECTIVE = "vit_tiny_patch16_224", {"3": 3, "last": 11}, 50
AUGMENTATION = ["rotate45", "brightness"]
ROWS = {
    "the image alone": None,
    "rotate45": "rotate45",
    "brightness": "brightness",
    "both": AUGMENTATION,
}
MASKED = ("the image alone", "rotate45")
# The published threshold is for DINOv2; tokens of others have other scales.
THRESHOLD = 0.25


def tested(split):
    """Paths of the test images, and whether each is defective."""
    paths, defective = np.array(split.test.images), np.array(split.test.y) == -1
    chosen = np.flatnonzero(defective)
    if len(chosen) > MOST_DEFECTIVE:
        chosen = np.random.default_rng(0).choice(chosen, MOST_DEFECTIVE, replace=False)
    chosen = np.sort(np.concatenate([np.flatnonzero(~defective), chosen]))
    return list(paths[chosen]), defective[chosen]


def measure(root, category, args):
    """AUROC of each row, masked or not, at each number of shots, for each block: one a seed."""
    split = read_dataset(root, category=category)
    paths, defective = tested(split)
    good = np.array(split.train.images)[np.array(split.train.y) == 1]
    chosen = {
        (shots, seed): np.random.default_rng(seed).permutation(len(good))[:shots]
        for shots in args.shots
        for seed in range(args.seeds)
    }
    used = sorted(set(np.concatenate(list(chosen.values()))))
    embedder = TimmPatches(
        MODEL,
        layers=tuple(BLOCKS.values()),
        image_size=args.side,
        resize="shortest_edge",
        augmentation=AUGMENTATION,
        weights=args.weights,
        device="cpu",
        cache_dir=args.cache,
    )
    every = embedder.fit_transform(list(good[used]))
    new = embedder.transform(paths)
    known = views_of(AUGMENTATION)
    rows = {}
    for part, block in enumerate(BLOCKS):
        one = slice(192 * part, 192 * (part + 1))
        views, tokens = every[..., one], np.ascontiguousarray(new[..., one])
        flat = views[:, 0].reshape(len(used), -1, 192)
        spread = float(np.sqrt(((flat - flat.mean(1, keepdims=True)) ** 2).sum(-1).mean()))
        mask = PCAForeground(THRESHOLD * spread, no_foreground="keep")
        masked = mask.fit(tokens).transform(tokens)
        for row, augmentation in ROWS.items():
            of_row = [known.index(view) for view in views_of(augmentation)]
            for shots in args.shots:
                scores = {"": [], ", masked": []}
                for seed in range(args.seeds):
                    train = views[np.searchsorted(used, chosen[shots, seed])][:, of_row]
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # what one image calibrates is not asked
                        scorer = PatchKNNScorer().fit(np.ascontiguousarray(train))
                    for name, X in (("", tokens), (", masked", masked)):
                        if not name or row in MASKED:
                            auroc = roc_auc_score(defective, -scorer.score_samples(X))
                            scores[name].append(float(auroc))
                for name, found in scores.items():
                    if found:
                        rows.setdefault((block, row + name), {})[shots] = found
        kept = float((~np.isnan(masked[..., 0])).mean())
        rows[block, f"{kept:.0%} of patches are kept by the mask"] = {}
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache")
    parser.add_argument("--json")
    args = parser.parse_args()
    results = []
    for category in args.categories or list_categories(args.root):
        rows = []
        for (block, name), found in measure(args.root, category, args).items():
            means = {f"{s} shots": f"{np.mean(found[s]):.3f}" if found else "" for s in args.shots}
            rows.append({"block": block, "training images": name, **means})
            results.append({"category": category, "block": block, "row": name, "aurocs": found})
        print_table(f"{category}: mean image AUROC of {args.seeds} draws", rows)
    write_json(args.json, {"machine": machine(), "results": results})


if __name__ == "__main__":
    main()
