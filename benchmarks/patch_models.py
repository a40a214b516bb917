"""Models of patches on real images: image AUROC, good parts flagged, time of fit, size of the file.

Run ``python -m benchmarks.patch_models WEIGHTS ROOT...``: ViT-Tiny's weights as timm has them, and
folders of data sets. Tokens are the mean of the blocks ``--layers`` at ``--size`` pixels, and are
made once a data set (``--cache-dir`` keeps them). ``--shots 1 2 4 8`` fits to so many training
images in turn, ``--seeds`` times drawn at random, in place of all of them. ``--scorers`` takes the
names of the table; ``--json FILE`` keeps the numbers. Times are of the processor, on one thread.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from threadpoolctl import threadpool_limits

from benchmarks._timing import print_table, write_json
from skanomaly import (
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PatchwiseScorer,
    TimmPatches,
    save_model,
)
from skanomaly.datasets import read_dataset
from skanomaly.metrics import image_auroc


def patchwise(estimator):
    return PatchwiseScorer(estimator, n_patches=3000, random_state=0)


SCORERS = {
    "knn": PatchKNNScorer(),
    "gaussian": PatchGaussianScorer(random_state=0),
    "gaussian, shared": PatchGaussianScorer("shared", n_components=None),
    "subspace, 0.9": PatchSubspaceScorer(0.9),
    "subspace, 0.99": PatchSubspaceScorer(0.99),
    "isolation forest": patchwise(IsolationForest(random_state=0)),
    "one-class SVM": patchwise(make_pipeline(StandardScaler(), OneClassSVM(nu=0.1))),
    "8 Gaussians": patchwise(GaussianMixture(8, reg_covar=1e-4, random_state=0)),
}


def measure(scorer, train, test, y):
    """One fit to some training images."""
    start = time.process_time()
    fitted = clone(scorer).fit(train)
    seconds = time.process_time() - start
    scores = fitted.score_samples(test)
    with tempfile.TemporaryDirectory() as folder:
        save_model(fitted, Path(folder) / "model.skan")
        size = (Path(folder) / "model.skan").stat().st_size
    return {
        "auroc": image_auroc(y, scores),
        "good flagged": float(np.mean(scores[y == 1] < fitted.offset_)),
        "fit s": seconds,
        "MB": size / 1e6,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("roots", nargs="+", type=Path)
    parser.add_argument("--layers", type=int, nargs="+", default=[*range(1, 9)])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--shots", type=int, nargs="+", default=[0], help="0: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scorers", nargs="+", choices=SCORERS, default=list(SCORERS))
    parser.add_argument("--cache-dir")
    parser.add_argument("--json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # few shots, and detectors that a file has to be trusted with
    embedder = TimmPatches(
        "vit_tiny_patch16_224",
        layers=args.layers,
        fusion="mean",
        image_size=args.size,
        weights=args.weights,
        cache_dir=args.cache_dir,
    )
    rows = []
    with threadpool_limits(1):
        for root in args.roots:
            split = read_dataset(root)
            train = embedder.fit_transform(split.train.images)
            test, y = embedder.transform(split.test.images), np.asarray(split.test.y)
            for shots in args.shots:
                draws = [np.arange(len(train))]
                if shots:
                    rngs = map(np.random.default_rng, range(args.seeds))
                    draws = [rng.permutation(len(train))[:shots] for rng in rngs]
                for name in args.scorers:
                    found = [measure(SCORERS[name], train[draw], test, y) for draw in draws]
                    mean = {key: np.mean([one[key] for one in found]) for key in found[0]}
                    rows.append({"data": root.name, "shots": shots or "all", "scorer": name} | mean)
    print_table(f"layers {args.layers}, {args.size} px", rows)
    write_json(args.json, rows)


if __name__ == "__main__":
    main()
