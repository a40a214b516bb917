"""AnomalibDetector against anomalib's own inferencers, on the same trained model.

Run ``python -m benchmarks.anomalib_inference`` (a few minutes). A PaDiM with a ResNet-18 of random
weights is trained on generated surfaces and exported; speed does not depend on weights. Then every
contender scores the same PNG files, maps included: anomalib's inferencers one image a call,
as they are made for, the detector in batches of ``--batch`` and of 1. Its scores are compared with
anomalib's before anything is timed. Peak memory is that of a fresh process that does nothing else,
with what it imports.
"""

import argparse
import contextlib
import io
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._timing import interleave, machine, print_table, write_json
from skanomaly import AnomalibDetector
from skanomaly.datasets import make_surfaces

SIDE = 256  # of the model's input
FILES = {"ckpt": "model.ckpt", "onnx": "model.onnx", "openvino": "model.xml"}


def make_files(folder, n_images, side, family="Padim", backbone=None):
    """Train and export a model; write the images to score. Returns nothing: all is in `folder`.

    `backbone` are weights of timm's ResNet-18; None for random ones.
    """
    from anomalib import models
    from anomalib.data import Folder
    from anomalib.engine import Engine

    made = make_surfaces(n_images + 8, 8, surface="fabric", image_size=side, random_state=0)
    kinds = ["train"] * 8 + ["score"] * n_images + ["defect"] * 8
    for i, (image, kind) in enumerate(zip(made.images, kinds, strict=True)):
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / kind / f"{i:04}.png")
    data = Folder(
        name="surfaces", root=folder, normal_dir="train", abnormal_dir="defect", num_workers=0,
        normal_test_dir="train", val_split_mode="same_as_test", train_batch_size=4,
        eval_batch_size=4,
    )  # fmt: skip
    family = getattr(models, family)
    size = family.configure_pre_processor((SIDE, SIDE))
    model = family(backbone="resnet18", pre_trained=False, pre_processor=size)
    if backbone is not None:
        features = model.model.feature_extractor.feature_extractor
        features.load_state_dict({name: backbone[name] for name in features.state_dict()})
    engine = Engine(
        accelerator="cpu", devices=1, logger=False, default_root_dir=str(folder / "run"),
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    engine.fit(model=model, datamodule=data)
    engine.trainer.save_checkpoint(folder / "model.ckpt")
    for kind in ("torch", "onnx", "openvino"):
        made = engine.export(model, kind, export_root=folder / "run")
        for file in made.parent.iterdir():
            file.rename(folder / file.name)


def contender(name, folder, batch):
    """A function from paths to scores and maps."""
    kind, _, how = name.partition(" ")
    if how == "anomalib":
        from anomalib import deploy

        os.chdir(folder)  # one of them leaves a cache behind
        if kind == "torch":
            os.environ["TRUST_REMOTE_CODE"] = "1"
            inferencer = deploy.TorchInferencer(folder / "model.pt", device="cpu")
        else:
            config = {"INFERENCE_PRECISION_HINT": "f32"}
            inferencer = deploy.OpenVINOInferencer(folder / "model.xml", "CPU", config)

        def run(paths):
            results = [inferencer.predict(path) for path in paths]
            return [-float(np.ravel(result.pred_score)[0]) for result in results]

        return run
    size = int(how.split()[-1]) if how else batch
    detector = AnomalibDetector(folder / FILES[kind], device="cpu", batch_size=size)
    detector.normalized = True  # as the inferencers, which have nothing else to give

    def score(paths):
        return detector.score_maps(paths, size="model", return_scores=True)[1]

    return score


def contenders(batch):
    sizes = dict.fromkeys((batch, 1))
    ours = [f"{kind} ours, batch {size}" for kind in FILES for size in sizes]
    return ["torch anomalib", "openvino anomalib", *ours]


def own_peak():
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the process was before it became this program
        lines = status.read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_of(name, folder, batch):
    """Peak resident memory, in MiB, of a process that scores the images by one contender."""
    command = [sys.executable, "-m", "benchmarks.anomalib_inference", "--only", name]
    command += ["--folder", str(folder), "--batch", str(batch)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout.splitlines()[-1])


@contextlib.contextmanager
def _same_folder():
    before = Path.cwd()
    try:
        yield
    finally:
        os.chdir(before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=SIDE, help="of the images, in pixels")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if args.only:
        paths = sorted((args.folder / "score").iterdir())
        contender(args.only, args.folder, args.batch)(paths)
        print(own_peak())
        return
    with tempfile.TemporaryDirectory() as name, _same_folder():
        folder = Path(name)
        with contextlib.redirect_stdout(io.StringIO()):
            make_files(folder, args.images, args.side)
        paths = sorted((folder / "score").iterdir())
        measured = [n for n in contenders(args.batch) if n.endswith(("anomalib", f" {args.batch}"))]
        memory = {name: peak_of(name, folder, args.batch) for name in measured}
        runs = {name: contender(name, folder, args.batch) for name in contenders(args.batch)}
        scores = {name: np.array(run(paths)) for name, run in runs.items()}
        reference = scores["torch anomalib"]
        differences = {n: float(np.abs(s - reference).max()) for n, s in scores.items()}
        if args.side == SIDE:  # else anomalib resizes without antialiasing, and scores differ
            assert max(differences.values()) < 1e-3, differences
        timed = interleave({n: lambda run=run: run(paths) for n, run in runs.items()}, args.repeats)
    rows = [
        {
            "model": name,
            "images/s": len(paths) / timed[name]["median"],
            "times anomalib's torch": timed["torch anomalib"]["median"] / timed[name]["median"],
            "peak MiB": memory.get(name, ""),
            "largest difference of scores": differences[name],
        }
        for name in runs
    ]
    print_table(f"PaDiM, ResNet-18, {args.images} images of {args.side} x {args.side}", rows)
    packages = ("anomalib", "torch", "onnxruntime", "openvino")
    write_json(args.json, {"machine": machine(packages), "rows": rows, "seconds": timed})


if __name__ == "__main__":
    main()
