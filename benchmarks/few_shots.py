"""Image AUROC of nearest patches by place and of nearest patches anywhere, fitted to few images.

    python -m benchmarks.few_shots ROOT [--shots 1 2 4 8] [--seeds 3] [--categories bottle screw]
        [--weights vit_tiny_patch16_224.safetensors --side 224] [--cache FOLDER] [--json FILE]

ROOT holds categories in the layout of MVTec AD. The filter bank at 256 pixels, or block 3 of
ViT-Tiny. The local scorer compares 10 images or fewer anywhere, by the cosine distance, unless
`few=0` has it compare them by their places. Seed s takes the training images from s times their
number on; all test images; the mean of the seeds. A number of shots of 0 takes all training images.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks._timing import print_table, write_json
from skanomaly import FilterBankPatches, LocalKNNScorer, PatchKNNScorer, TimmPatches
from skanomaly.datasets import list_categories, read_dataset

TOPK = 0.005
SCORERS = {
    "by places": lambda: LocalKNNScorer(topk=TOPK, few=0),
    "anywhere, cosine": lambda: PatchKNNScorer(topk=TOPK),
    "anywhere, Euclidean": lambda: PatchKNNScorer(topk=TOPK, metric="euclidean"),
}


def tokens_of(category, args):
    """Tokens of the training and the test images, and which of these are good."""
    kind = "filterbank" if args.weights is None else f"vit{args.side}"
    path = None if args.cache is None else args.cache / f"{category}_{kind}.npz"
    if path is not None and path.exists():
        with np.load(path) as found:
            return found["train"], found["test"], found["good"]
    split = read_dataset(args.root, category=category)
    embedder = FilterBankPatches()
    if args.weights is not None:
        embedder = TimmPatches(
            "vit_tiny_patch16_224", weights=str(args.weights), image_size=args.side
        )
    train = np.array(split.train.images)[np.array(split.train.y) == 1]
    arrays = {
        "train": np.asarray(embedder.fit_transform(list(train))),
        "test": np.asarray(embedder.transform(list(split.test.images))),
        "good": np.array(split.test.y) == 1,
    }
    if path is not None:
        np.savez(path, **arrays)
    return arrays["train"], arrays["test"], arrays["good"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--categories", nargs="+")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--scorers", nargs="+", choices=tuple(SCORERS), default=list(SCORERS))
    parser.add_argument("--cache", type=Path, help="folder for tokens")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for category in args.categories or list_categories(args.root):
        train, test, good = tokens_of(category, args)
        for shots in args.shots:
            row = {"set": category, "shots": shots or len(train)}
            seeds = range(args.seeds if shots else 1)
            for name in args.scorers:
                found = []
                for seed in seeds:
                    part = train[seed * shots : (seed + 1) * shots] if shots else train
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", UserWarning)  # of few images
                        scorer = SCORERS[name]().fit(part)
                    found.append(roc_auc_score(good, scorer.score_samples(test)))
                row[name] = f"{np.mean(found):.3f}"
            rows.append(row)
            print(row, flush=True)
    print_table("Image AUROC", rows)
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
