"""A grid search over pipelines with a token cache, against embedding every image once.

    python -m benchmarks.grid_search [--images 20] [--side 448] [--json FILE]

12 candidates, 5 folds and the refit. The yardstick is what has to be done: each image embedded
once, and the same search over the tokens. The more images, the less the embedding and the cache
count: it grows with their number, the search almost with its square. 20 are the fewest of which
each fold has an anomalous one, and so the strictest. The images that the model sees are counted:
with the cache each comes once. With one thread, times are of the processor.
"""

import argparse
import contextlib
import os
import tempfile
import time
import warnings
from unittest import mock

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from benchmarks._timing import machine, print_table, write_json
from benchmarks.embedding import save_weights
from skanomaly import DinoV2Patches, PatchKNNScorer
from skanomaly.datasets import make_surfaces

_GRID = {
    "knn__n_neighbors": [1, 3],
    "knn__topk": [0.01, 0.05, 0.1],
    "knn__metric": ["cosine", "euclidean"],
}


def search(steps, X, y):
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    pipe = Pipeline([*steps, ("knn", PatchKNNScorer())])
    grid = GridSearchCV(pipe, _GRID, cv=folds, scoring="roc_auc", error_score="raise")
    return grid.fit(X, y).cv_results_["mean_test_score"]


@contextlib.contextmanager
def embedded_images():
    """A list to which the number of images of each batch goes that the model sees."""
    batches, embed = [], DinoV2Patches._embed_batch

    def counting(self, images):
        batches.append(len(images))
        return embed(self, images)

    with mock.patch.object(DinoV2Patches, "_embed_batch", counting):
        yield batches


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--side", type=int, default=448)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    if options.images < 20:
        parser.error("--images: 20 at least, of which 5 are anomalous, one for each fold")
    warnings.filterwarnings("ignore", module="torch")
    import torch

    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    n_bad = options.images // 4
    surfaces = make_surfaces(options.images - n_bad, n_bad, image_size=options.side, random_state=0)
    X, y = surfaces.images, np.repeat([1, -1], [options.images - n_bad, n_bad])
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        embedder = DinoV2Patches(
            image_size=options.side,
            weights=save_weights(folder),
            device="cpu",
            runtime=options.runtime,
        )
        embedder.transform(X[:1])  # loads the model
        start = clock()
        tokens = embedder.transform(X)
        seconds["embed once"] = clock() - start
        start = clock()
        expected = search([], tokens, y)
        seconds["search over tokens"] = clock() - start
        start = clock()
        with embedded_images() as batches:
            found = search([("emb", embedder.set_params(cache_dir=f"{folder}/cache"))], X, y)
        seconds["search over pipelines with cache_dir"] = clock() - start
    np.testing.assert_array_equal(found, expected)
    assert sum(batches) == options.images, batches
    yardstick = seconds["embed once"] + seconds["search over tokens"]
    rows = [
        {"step": name, "seconds": value, "of what has to be done": value / yardstick}
        for name, value in seconds.items()
    ]
    print_table(f"{options.images} images, 12 candidates x 5 folds, {threads} thread(s)", rows)
    print(f"\nimages that the model saw in the search over pipelines: {sum(batches)}")
    print(f"load {os.getloadavg()[0]:.1f}")
    write_json(options.json, {"machine": machine(("torch", "scikit-learn")), "rows": rows})


if __name__ == "__main__":
    main()
