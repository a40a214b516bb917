"""What this package finds and costs beside others: the same images, the same backbone.

    python -m benchmarks.peers ROOT --weights vit_tiny_patch16_224.safetensors
        [--categories cookies toothbrush] [--only WORD...] [--json FILE]

ROOT holds categories in the layout of MVTec AD. Each contender is fitted to the good training
images of a category, and scores all of its test images, in a process of its own and on one thread.
All but our default take the tokens of one block of ViT-Tiny at 224 x 224 from the weights given:

- anomalib's PatchCore and PaDiM take this backbone by its name; its AnomalyDINO wants a DINOv2, and
  is given this one in its place. All are fitted and used by anomalib's engine, with its defaults
  otherwise, without its post-processor, which brings scores to [0, 1] and so makes ties. That the
  tokens are those of our embedder is checked before anything is measured.
- The detectors of scikit-learn, of PyOD and of imgad see one vector an image, the mean of its
  tokens as our embedder makes them, and give no maps. Those that cannot be imported are left out,
  and named. imgad has models of anomalib too, which are not measured twice.
- Ours have the same tokens. Our PatchCore does not average 3 x 3 of them, as anomalib's does.

*false alarms / found* are the shares of the good and of the defective test images that are flagged:
at a nominal 5% and 10% by those that take one, and with what each does by default. anomalib knows
no nominal share: its threshold is that of the best F1 on labelled images. Here these are the test
images themselves, which flatters it; of good images alone it would be the highest score among them.

AUPRO is exact, up to a false-positive rate of 0.3, on maps of the images' size: ours are made so,
anomalib's are brought to it by bilinear interpolation. Times are those of the processor. *import*
is what the contender imports, *fit* goes from files to a fitted model, embedding included, *score*
to scores, and to maps where there are any. *MB* is the model as the package saves it, and in
brackets what of it is not the backbone. Rows go to the file of results one by one: those that
are there already are not measured again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._peers import BLOCK, CONTENDERS, NOMINAL, SIDE, Anomalib, embedder_of
from benchmarks._timing import machine, print_table
from skanomaly import metrics
from skanomaly.datasets import read_mvtec

PACKAGES = (
    "torch", "timm", "scikit-learn", "anomalib", "pyod", "imgad", "numba", "transformers",
)  # fmt: skip


def importable(name):
    """Whether all that a contender needs is installed."""
    tops = {module.partition(".")[0] for module in CONTENDERS[name].needs}
    return all(find_spec(top) is not None for top in tops)


def token_difference(weights, paths):
    """Largest 1 - cosine, in the median over patches, of anomalib's tokens and ours."""
    import torch
    from anomalib.data import PredictDataset

    job = {"weights": str(weights)}
    ours = embedder_of(job).fit_transform(list(paths))
    found = []
    for name, contender in CONTENDERS.items():
        if not isinstance(contender, Anomalib):
            continue
        model = contender.model_of(job).eval()
        images = torch.stack([PredictDataset(path)[0].image for path in paths])
        with torch.inference_mode():
            x = model.pre_processor.transform(images)  # as the engine; a call is for exports
            inner = model.model
            extract = getattr(inner, "feature_encoder", None) or inner.feature_extractor
            theirs = extract(x)[f"blocks.{BLOCK}"]
        if theirs.ndim == 4:
            theirs = theirs.permute(0, 2, 3, 1)
        theirs = theirs.numpy().reshape(-1, ours.shape[-1]).astype(float)
        tokens = np.asarray(ours, dtype=float).reshape(theirs.shape)
        lengths = np.linalg.norm(theirs, axis=1) * np.linalg.norm(tokens, axis=1)
        found.append(float(np.median(1 - (theirs * tokens).sum(axis=1) / lengths)))
        assert found[-1] < 1e-3, (name, found[-1])
    return max(found)


def run(name, split, weights):
    """A row of the table: a contender in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "name": name,
            "weights": str(Path(weights).resolve()),
            "train": [str(path) for path in split.train.images],
            "test": [str(path) for path in split.test.images],
            "y": split.test.y.tolist(),
            "folder": folder,
        }
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks._peers"], input=json.dumps(job), text=True,
            capture_output=True, env=environment, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        return row_of(name, split.test, found, maps_in(Path(folder), split.test))


def maps_in(folder, test):
    """Maps at the size of their images, or None."""
    file = folder / "maps.npz"
    if not file.exists():
        return None
    with np.load(file) as kept:
        maps = [kept[f"arr_{i}"].astype(np.float32) for i in range(len(test.images))]
    return [at_size(m, path) for m, path in zip(maps, test.images, strict=True)]


def at_size(heat_map, path):
    with Image.open(path) as image:
        size = image.size
    if heat_map.shape == size[::-1]:
        return heat_map
    return np.asarray(Image.fromarray(heat_map).resize(size, Image.Resampling.BILINEAR))


def row_of(name, test, found, maps):
    """What is shown of a contender."""
    good = np.array(test.y) == 1
    known = maps is not None and all(
        mask is not None for mask, fine in zip(test.masks, good, strict=True) if not fine
    )
    masks = (test.load_mask(i) for i in range(len(test.images)))
    shares = {f"nominal {share:.0%}": flagged(found, str(share), good) for share in NOMINAL}
    size = f"{found['bytes'] / 1e6:.2f}"
    if found["backbone"]:
        size += f" ({(found['bytes'] - found['backbone']) / 1e6:.2f})"
    return {
        "contender": name,
        "image AUROC": f"{metrics.image_auroc(test.y, -np.array(found['scores'])):.3f}",
        "AUPRO": f"{metrics.aupro(masks, maps, 0.3):.3f}" if known else "-",
        **shares,
        "by default": f"{flagged(found, 'own', good)} ({found['threshold']})",
        "import s": f"{found['import']:.1f}",
        "fit s": f"{found['fit']:.2f}",
        "score ms": f"{1000 * found['score'] / len(good):.1f}",
        "peak MiB": f"{found['peak']:.0f}",
        "MB": size,
    }


def flagged(found, which, good):
    """Shares of the good and of the defective images that are flagged."""
    if which not in found["flags"]:
        return "-"
    flags = np.array(found["flags"][which])
    return f"{flags[good].mean():.2f} / {flags[~good].mean():.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path, required=True, help="of vit_tiny_patch16_224")
    parser.add_argument("--categories", nargs="+", default=["cookies", "toothbrush"])
    parser.add_argument("--only", nargs="+", default=[""], help="contenders with one of these")
    parser.add_argument("--json", type=Path, help="file of results, a JSON line a row")
    args = parser.parse_args()
    names = [name for name in CONTENDERS if any(word in name for word in args.only)]
    for name in names:
        if not importable(name):
            print(f"left out, not installed: {name}")
    names = [name for name in names if importable(name)]
    splits = {name: read_mvtec(args.root / name) for name in args.categories}
    if any(isinstance(CONTENDERS[name], Anomalib) for name in names):
        images = [str(path) for path in next(iter(splits.values())).train.images[:4]]
        apart = token_difference(args.weights.resolve(), images)
        print(f"tokens of anomalib and ours, {SIDE} px: median 1 - cos at most {apart:.1e}")
    kept = rows_in(args.json)
    for category, split in splits.items():
        rows = []
        for name in names:
            if (category, name) not in kept:
                kept[category, name] = run(name, split, args.weights)
                print(category, *kept[category, name].values(), sep=" | ", flush=True)
                append(args.json, {"category": category, "row": kept[category, name]})
            rows.append(kept[category, name])
        good = int((split.test.y == 1).sum())
        counts = f"{len(split.train.images)} training images, test: {good} good, "
        print_table(f"{category}: {counts}{len(split.test.y) - good} defective", rows)
    print("\n" + json.dumps(machine(PACKAGES)))


def rows_in(path):
    """Rows that an earlier run left, by category and contender."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    found = [json.loads(line) for line in lines]
    return {(line["category"], line["row"]["contender"]): line["row"] for line in found}


def append(path, line):
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
