"""Which model finds most: every contender on every data set, for numbers of training images.

    python -m benchmarks.accuracy ROOT --vit vit_tiny_patch16_224.safetensors --json runs.jsonl
        [--sets NAME...] [--models NAME...] [--shots 1 2 4 8 16 full] [--seeds 3] [--surfaces N]

ROOT holds data sets, a folder each, in one of the layouts of `skanomaly datasets`. To these come
generated surfaces, one set for each of N kinds. Each contender is fitted to all training images
(`full`), and to 1, 2, 4 ... of them, three times each where there are so many, and measured on all
test images: image AUROC, AP and F1-max, pixel AUROC and AUPRO where masks are known, the shares of
good and of defective images that are flagged at a nominal 10%. Runs go to the file of results one
by one: those that are there already are not repeated.

Then each contender is fitted to the first data set once more, to measure its model file and how
many images a second it scores with their maps, on one thread, from the file on.

Printed are tables, and at the end which contender the numbers recommend in which situation: that of
the highest mean image AUROC over the data sets, and of those within 0.005 of it the fastest.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks._timing import print_table
from skanomaly import ImageUnion, TimmPatches, anomaly_maps, create_model, save_model
from skanomaly._output import Guard
from skanomaly._pipelines import min_images_of, split_detector
from skanomaly._results.digests import split_files
from skanomaly._results.file import ResultsFile
from skanomaly.benchmarking import each_run
from skanomaly.datasets import read_dataset
from skanomaly.datasets._surfaces import write_surfaces
from skanomaly.datasets._textures import SURFACES

_TIMED_IMAGES = 16
_AS_GOOD = 0.005  # of the mean image AUROC: less is no reason to wait longer


def contenders(vit, cache):
    """Detectors by name; those that need torch only with weights for it.

    Named models whose weights cannot be had are made with ViT-Tiny in place of their networks.
    """
    models = {
        "vision_filterbank": create_model("vision_filterbank"),
        "filter bank, Gaussians": create_model(
            "filterbank", scorer="gaussian", neighborhood=3, n_components=None, topk=0.005
        ),
        "filter bank, nearest": create_model("filterbank", scorer="knn", metric="euclidean"),
        "filter bank, subspace": create_model("filterbank", scorer="subspace"),
        "vision_tiny": create_model("vision_tiny"),
        "vision_tiny, untrained": create_model("vision_tiny", weights="random"),
        "vision_tiny, shared metric": create_model("vision_tiny", whitening="shared"),
        "vision_tiny, nearest": create_model("tiny", scorer="knn"),
        "vision_tiny, 16 x 16": create_model("vision_tiny", grid=16),
        "vision_tiny, 16 x 16, shared metric": create_model(
            "vision_tiny", grid=16, whitening="shared"
        ),
        "vision_tiny, 16 x 16, nearest": create_model("tiny", scorer="knn", grid=16),
        "filter bank + vision_tiny": create_model("filterbank+tiny"),
    }
    if vit is not None:
        for side in (224, 448):
            for scorer in ("knn", "local"):
                models[f"ViT-Tiny {side} px, block 3, {scorer}"] = of_vit(vit, side, 3, scorer)
            models[f"ViT-Tiny {side} px, block 3, shared metric"] = of_vit(
                vit, side, 3, "local", whitening="shared"
            )
        models["ViT-Tiny 224 px, last block, knn"] = of_vit(vit, 224, -1, "knn")
        small = {"image_size": 224, "layers": 3, "weights": vit, "resize": "squash"}
        for name in ("vision_patchcore", "vision_padim", "vision_rad", "vision_anomalydino"):
            embedder = TimmPatches("vit_tiny_patch16_224")
            special = {
                "vision_anomalydino": {"augmentation": "rotate45"},
                "vision_rad": {"class_token": True, "parts": 2},
            }
            models[f"{name} with ViT-Tiny"] = create_model(
                name, embedder=embedder, **small, **special.get(name, {})
            )
        models["vision_subspacead with ViT-Tiny"] = create_model(
            "vision_subspacead",
            embedder=TimmPatches("vit_tiny_patch16_224", fusion="mean"),
            **{**small, "layers": (3, 4, 5)},
        )
        directions = {"whitening": "shared", "unit_length": True, "n_components": 48}
        large = of_vit(vit, 448, 3, "local", regularization=0.1, **directions)
        models["ViT-Tiny 448 px, block 3, 48 components"] = large
        models["ViT-Tiny 224 px knn + 448 px 48 components"] = ImageUnion(
            [("small", of_vit(vit, 224, 3, "knn", topk=0.02)), ("large", large)],
            detector_weights=(2, 3),
        )
        models["filter bank + ViT-Tiny 448 px knn"] = ImageUnion(
            [("filterbank", create_model("vision_filterbank")), ("vit", of_vit(vit, 448, 3, "knn"))]
        )
        models["filter bank + ViT-Tiny 224 px knn"] = ImageUnion(
            [("filterbank", create_model("vision_filterbank")), ("vit", of_vit(vit, 224, 3, "knn"))]
        )
    for model in models.values():
        params = [name for name in model.get_params() if name.endswith("__cache_dir")]
        model.set_params(**dict.fromkeys(params, cache))
    return models


def of_vit(vit, side, layers, scorer, **params):
    """A detector of blocks of ViT-Tiny."""
    backbone = {"weights": vit, "image_size": side, "layers": layers}
    return create_model("vit_tiny_patch16_224", scorer=scorer, **backbone, **params)


def data_sets(root, names, n_surfaces, folder):
    """The data sets under a folder, and surfaces."""
    found = sorted(path for path in Path(root).iterdir() if path.is_dir())
    splits = [read_dataset(path) for path in found if not names or path.name in names]
    for surface in sorted(SURFACES)[:n_surfaces]:
        write_surfaces(Path(folder) / surface, surface, 60, 256, 0, n_good=30, n_defective=30)
        splits.append(read_dataset(Path(folder) / surface))
    return splits


def runs_of(name, model, splits, shots, seeds, least, results):
    """Rows of a contender, for as many images as each set has for every seed, and it needs."""
    for split in splits:
        most = np.count_nonzero(np.array(split.train.y) == 1) // seeds
        possible = [k for k in shots if k is None or least <= k <= most]
        yield from each_run({name: model}, [split], shots=possible, seeds=seeds, results=results)


def cost(model, split):
    """Bytes of the model file, and images a second from files to maps on one thread."""
    images = list(islice(split.test.images, _TIMED_IMAGES))
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        fitted = model.fit(list(split.train.images))
        path = Path(folder) / "model.skan"
        save_model(fitted, path)
        params = [name for name in fitted.get_params() if name.endswith("cache_dir")]
        fitted.set_params(**dict.fromkeys(params))
        anomaly_maps(fitted, images[:4])
        start = time.process_time()
        anomaly_maps(fitted, images)
        return path.stat().st_size, len(images) / (time.process_time() - start)


def mean_of(rows, metric):
    """Mean of a metric over the rows in which it was measured; NaN of none."""
    values = [row["metrics"][metric] for row in rows if metric in row["metrics"]]
    return float(np.mean(values)) if values else np.nan


def tables(rows, costs):
    """Print what was measured."""
    full, few = defaultdict(list), defaultdict(list)
    for row in rows:
        (few if row["shots"] else full)[row["model"]].append(row)
    sets = sorted({row["name"] for row in rows})
    if full:
        print_table("Image AUROC, all training images", auroc_by_set(full, sets))
        print_table("Means over the data sets, all training images", means(full, costs))
    for name in sets:
        of_set = {m: [r for r in found if r["name"] == name] for m, found in few.items()}
        if any(of_set.values()):
            print_table(f"Image AUROC, few training images: {name}", by_shots(of_set))
    if few:
        print_table("Image AUROC, few training images: mean over the data sets", by_shots(few))


def auroc_by_set(by_model, sets):
    """A row for each model."""
    out = []
    for model, rows in by_model.items():
        found = {row["name"]: row["metrics"]["image_auroc"] for row in rows}
        mean = mean_of(rows, "image_auroc")
        out.append({"model": model, **{s: _shown(found.get(s, np.nan)) for s in sets}})
        out[-1]["mean"] = _shown(mean)
    return out


def means(by_model, costs):
    """A row for each model: every metric, decisions and costs."""
    metrics = ("image_average_precision", "image_f1_max", "pixel_auroc", "aupro_0.3")
    out = []
    for model, rows in by_model.items():
        size, speed = costs.get(model, (np.nan, np.nan))
        out.append(
            {
                "model": model,
                **{metric.replace("_", " "): _shown(mean_of(rows, metric)) for metric in metrics},
                "good flagged": _share(rows, "false_positive_rate"),
                "defects flagged": _share(rows, "recall"),
                "images/s": f"{speed:.0f}",
                "MB": f"{size / 1e6:.1f}",
            }
        )
    return out


def by_shots(by_model):
    """A row for each model, a column for each number of shots: mean and spread over seeds."""
    shots = sorted({row["shots"] for rows in by_model.values() for row in rows})
    out = []
    for model, rows in by_model.items():
        line = {"model": model}
        for k in shots:
            by_seed = defaultdict(list)
            for row in rows:
                if row["shots"] == k:
                    by_seed[row["seed"]].append(row)
            found = [mean_of(of_seed, "image_auroc") for of_seed in by_seed.values()]
            line[f"{k} shots"] = f"{np.mean(found):.3f} ({np.std(found):.3f})" if found else "-"
        out.append(line)
    return out


def recommend(rows, costs):
    """Print which model is best where."""
    out = []
    situations = {"1 or 2": (1, 2), "4 or 8": (4, 8), "16": (16,), "all": (None,)}
    for torch in (False, True):
        for images, shots in situations.items():
            by_model = defaultdict(list)
            for row in rows:
                if row["shots"] in shots and (torch or "ViT" not in row["model"]):
                    by_model[row["model"]].append(row)
            # Of those that were measured on all the same.
            most = max(map(len, by_model.values()), default=0)
            auroc = {
                model: mean_of(found, "image_auroc")
                for model, found in by_model.items()
                if len(found) == most
            }
            if not auroc:
                continue
            good = [m for m, value in auroc.items() if value >= max(auroc.values()) - _AS_GOOD]
            best = max(good, key=lambda m: (costs.get(m, (0, 0))[1], auroc[m]))
            out.append(
                {
                    "torch": "yes" if torch else "no",
                    "training images": images,
                    "take": best,
                    "mean image AUROC": _shown(auroc[best]),
                }
            )
    print_table("Recommended", out)


def _shown(value):
    return "-" if np.isnan(value) else f"{value:.3f}"


def _share(rows, name):
    return f"{np.mean([row[name] for row in rows]):.0%}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root")
    parser.add_argument("--vit", help="weights of timm's vit_tiny_patch16_224")
    parser.add_argument("--sets", nargs="+", help="only these folders")
    parser.add_argument("--models", nargs="+", help="only contenders with one of these in the name")
    parser.add_argument("--shots", nargs="+", default=["1", "2", "4", "8", "16", "full"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--surfaces", type=int, default=5, help="kinds of generated surfaces")
    parser.add_argument("--json", required=True, help="file of results")
    parser.add_argument("--no-costs", action="store_true", help="do not measure speed and size")
    parser.add_argument("--cache", help="folder for tokens; a temporary one without")
    arguments = parser.parse_args()
    shots = [None if k == "full" else int(k) for k in arguments.shots]
    with tempfile.TemporaryDirectory() as temporary:
        models = contenders(arguments.vit, arguments.cache or Path(temporary) / "tokens")
        wanted = arguments.models or [""]
        models = {n: m for n, m in models.items() if any(word in n for word in wanted)}
        splits = data_sets(arguments.root, arguments.sets, arguments.surfaces, temporary)
        inputs = [file for split in splits for file in split_files(split)]
        results = ResultsFile(arguments.json, Guard(inputs))
        rows = []
        for name, model in models.items():
            least = min_images_of(split_detector(model).scorer)
            for row in runs_of(name, model, splits, shots, arguments.seeds, least, results):
                rows.append(row)
                print(
                    f"{row['name']}, {name}, {row['shots'] or 'all'} images, seed {row['seed']}: "
                    f"{row['metrics']['image_auroc']:.4f}",
                    flush=True,
                )
        costs = {}
        if not arguments.no_costs:
            costs = {name: cost(model, splits[0]) for name, model in models.items()}
        tables(rows, costs)
        recommend(rows, costs)


if __name__ == "__main__":
    main()
