"""Image AUROC of unlabelled images that score each other, on test images of the MVTec layout.

    python -m benchmarks.unlabelled DATA [DATA ...] --weights vit_tiny_patch16_224.safetensors

`DATA` are folders of a category, with ``test/good`` and ``test/KIND``. Good and defective test
images are taken together, and no others.
"""

import argparse
from pathlib import Path

from sklearn.metrics import roc_auc_score

from benchmarks._timing import print_table
from skanomaly import MutualScorer, TimmPatches
from skanomaly.datasets import read_dataset


def rows(folder, options):
    """One row for each setting."""
    split = read_dataset(folder)
    embedder = TimmPatches(
        "vit_tiny_patch16_224",
        weights=options.weights,
        layers=(3, 5),
        class_token=True,
        image_size=224,
        dtype="float32",
    )
    X, y = embedder.transform(split.test.images), split.test.y
    for neighborhoods in ((1,), (1, 3, 5)):
        for rescoring in ((), (1, 2, 3)):
            for graph_filter in (False, True):
                scorer = MutualScorer(
                    3,
                    class_token=True,
                    neighborhoods=neighborhoods,
                    rescoring=rescoring,
                    graph_filter=graph_filter,
                ).fit(X)
                yield {
                    "data": Path(folder).name,
                    "neighborhoods": neighborhoods,
                    "rescoring": rescoring,
                    "filter": graph_filter,
                    "AUROC": float(roc_auc_score(y, scorer.train_scores_)),
                }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--weights", required=True)
    options = parser.parse_args()
    for folder in options.data:
        print_table(folder, list(rows(folder, options)))


if __name__ == "__main__":
    main()
