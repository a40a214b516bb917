"""How time grows: with the number of images, with their resolution, with a coreset's tokens.

    python -m benchmarks.scaling [--only images resolution coreset] [--json FILE]

*images*: fitting `PatchKNNScorer`, leave-one-image-out calibration included, and scoring ten
images, against a plain loop over images with faiss's exact search; tokens of the mixture, in small
grids (``--grid``, ``--dim``). *resolution*: DINOv2 ViT-S/14 of random weights, against timm's
forward pass in float32. *coreset*: a tenth of the tokens by greedy k-center, against the plain
loop. Each table ends with the slope of log time over log size, by least squares. Results are
compared before anything is timed. What takes the peers too long is run for a part of the images or
centres, which all cost the same, and their time is that in proportion. With one thread, times are
of the processor. Growth with the rows of a bank: ``python -m benchmarks.neighbors``.
"""

import argparse
import os
import tempfile
import time
import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import coreset
from benchmarks._timing import interleave, machine, print_table, write_json
from benchmarks._tokens import make_tokens
from skanomaly import DinoV2Patches, PatchKNNScorer
from skanomaly.core.coreset import greedy_k_center
from skanomaly.datasets import make_surfaces
from skanomaly.scorers._training_images import MAX_CALIBRATION_PATCHES

_TOPK = 0.01
_NEW_IMAGES = 10
_SLOW = 5.0  # seconds, from which on once is enough
_COSINE_GOAL = 2e-5  # median of 1 - cosine to float32, as in benchmarks.embedding


def timed(functions, check, options):
    """Median seconds of each contender, after `check` of what they return."""
    found, slowest = {}, 0.0
    for name, function in functions.items():
        start = options.clock()
        found[name] = function()
        slowest = max(slowest, options.clock() - start)
    check(found)
    repeats = 1 if slowest > _SLOW else options.repeats
    times = interleave(functions, repeats, warm_up=0, clock=options.clock)
    return {name: result["median"] for name, result in times.items()}, found


def curves(title, unit, sizes, runs):
    """Print and return a table: a contender a row, a size a column, and the slope.

    `runs` holds a dict of seconds by contender for each size; the first contender is ours.
    """
    rows, ours = [], next(iter(runs[0]))
    for name in runs[0]:
        seconds = [run[name] for run in runs]
        row = {f"{size} {unit}": value for size, value in zip(sizes, seconds, strict=True)}
        for size, run in {sizes[0]: runs[0], sizes[-1]: runs[-1]}.items():
            row[f"times ours, {size}"] = run[name] / run[ours]
        if len(sizes) > 1:
            row["slope"] = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        rows.append({"seconds": name, **row})
    print_table(title, rows)
    return {"title": title, "sizes": list(sizes), "rows": rows}


def image_score(distances):
    """Mean of the highest patch scores."""
    return np.sort(distances)[-max(1, int(_TOPK * len(distances))) :].mean()


def plain_fit(unit, images):
    """Scores of some images of unit tokens, each against all the other images."""
    import faiss

    scores = []
    for image in images:
        parts = [part.reshape(-1, unit.shape[-1]) for part in (unit[:image], unit[image + 1 :])]
        similarity = [
            faiss.knn(unit[image], part, 1, metric=faiss.METRIC_INNER_PRODUCT)[0][:, 0]
            for part in parts
            if len(part)
        ]
        scores.append(image_score(1 - np.maximum.reduce(similarity)))
    return np.array(scores)


def plain_score(index, tokens):
    import faiss

    unit = tokens.reshape(-1, tokens.shape[-1]).copy()
    faiss.normalize_L2(unit)
    distances = 1 - index.search(unit, 1)[0][:, 0]
    return np.array([image_score(image) for image in distances.reshape(len(tokens), -1)])


def measure_images(options):
    import faiss

    patches, dim = options.grid**2, options.dim
    fits, scores = [], []
    new = make_tokens("mixture", _NEW_IMAGES * patches, 1, dim).reshape(-1, patches, dim)
    for n_images in options.images:
        tokens = make_tokens("mixture", n_images * patches, 0, dim).reshape(-1, patches, dim)
        unit = tokens.copy()
        faiss.normalize_L2(unit.reshape(-1, dim))
        # The images that `fit` calibrates on, and those of them that the peer does.
        calibrated = np.arange(0, n_images, -(-n_images * patches // MAX_CALIBRATION_PATCHES))
        steps = np.linspace(0, len(calibrated) - 1, min(len(calibrated), options.peer_images))
        chosen = steps.astype(int)

        def same_fit(found, calibrated=calibrated, chosen=chosen):
            ours = -found["ours"].train_scores_
            assert len(ours) == len(calibrated)
            np.testing.assert_allclose(ours[chosen], found["faiss, image by image"], atol=2e-6)

        seconds, found = timed(
            {
                "ours": lambda tokens=tokens: PatchKNNScorer(topk=_TOPK).fit(tokens),
                "faiss, image by image": lambda u=unit, i=calibrated[chosen]: plain_fit(u, i),
            },
            same_fit,
            options,
        )
        seconds["faiss, image by image"] *= len(calibrated) / len(chosen)
        fits.append(seconds)

        def same_scores(found):
            for result in found.values():
                np.testing.assert_allclose(result, found["ours, image scores"], atol=2e-6)

        scorer, index = found["ours"], faiss.IndexFlatIP(dim)
        index.add(unit.reshape(-1, dim))
        seconds, _ = timed(
            {
                "ours, image scores": lambda s=scorer: -s.score_samples(new),
                "ours, with patch scores": lambda s=scorer: (
                    -s.score_patches(new, return_scores=True)[1]
                ),
                "faiss IndexFlatIP": lambda i=index: plain_score(i, new),
            },
            same_scores,
            options,
        )
        scores.append(seconds)
    grid = f"grids of {options.grid} x {options.grid} x {dim}"
    fit_title = f"Fit with calibration, {grid}"
    score_title = f"Score {_NEW_IMAGES} images, {grid}, by images in the bank"
    return [
        curves(fit_title, "images", options.images, fits),
        curves(score_title, "images", options.images, scores),
    ]


def measure_resolution(options):
    from benchmarks.embedding import contenders, median_deviation, save_weights

    runs = []
    peer = argparse.Namespace(openvino=False, int8=False)
    with tempfile.TemporaryDirectory() as folder:
        path = save_weights(folder)
        for side in options.sides:
            images = np.stack(make_surfaces(1, image_size=side, random_state=5).images)
            embedder = DinoV2Patches(image_size=side, weights=path, device="cpu")
            plain = contenders(path, images, peer)["torch float32"]

            def close(found):
                ours = found["ours, transform"].reshape(found["torch float32"].shape)
                deviation = median_deviation(ours, found["torch float32"])
                assert deviation <= _COSINE_GOAL, deviation

            functions = {
                "ours, transform": lambda e=embedder, images=images: e.transform(images),
                "torch float32": plain,
            }
            runs.append(timed(functions, close, options)[0])
    title = "Embed one image, DINOv2 ViT-S/14, by its side (patches grow with its square)"
    return [curves(title, "px", options.sides, runs)]


def measure_coreset(options):
    runs = []
    for n_tokens in options.tokens:
        tokens = make_tokens("mixture", n_tokens)
        n_centers = n_tokens // 10
        few = min(n_centers, options.peer_centers)
        coreset.check(tokens, few, with_anomalib=False)
        functions = {
            "ours, exact": lambda t=tokens, m=n_centers: greedy_k_center(t, m),
            "plain loop": lambda t=tokens, m=few: coreset.plain_loop(t, m),
        }
        seconds, _ = timed(functions, lambda found: None, options)
        seconds["plain loop"] *= n_centers / few
        runs.append(seconds)
    title = "Coreset of a tenth of the tokens, 384 components"
    return [curves(title, "tokens", options.tokens, runs)]


MEASURES = {
    "images": measure_images,
    "resolution": measure_resolution,
    "coreset": measure_coreset,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--images", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--grid", type=int, default=16, help="patches on a side")
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--peer-images", type=int, default=50, help="the peer calibrates on")
    parser.add_argument("--sides", type=int, nargs="+", default=[224, 448, 896])
    parser.add_argument("--tokens", type=int, nargs="+", default=[5_000, 15_000, 50_000])
    parser.add_argument("--peer-centers", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    options.clock = time.process_time if options.threads == 1 else time.perf_counter
    warnings.filterwarnings("ignore", module="torch")
    import faiss
    import torch

    faiss.omp_set_num_threads(options.threads)
    # By default the patches of one image are too few for faiss to use matrix products.
    faiss.cvar.distance_compute_blas_threshold = 20
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        result = {"machine": machine(("torch", "timm", "faiss-cpu")), "threads": options.threads}
        print(result["machine"])
        result["curves"] = [curve for name in options.only for curve in MEASURES[name](options)]
    print(f"\nload {os.getloadavg()[0]:.1f}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
