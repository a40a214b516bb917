"""One frame of a camera, from its bytes to a decision and a heat map: how long that takes.

    python -m benchmarks.latency [--threads 1 2] [--frames 100] [--suffix png] [--json FILE]

Frames of 1024 x 1024 pixels come one at a time, as the bytes of PNG or JPEG files in memory.
Models, all with maps of the whole frame:

- the command line's own, ``filterbank+tiny``;
- PatchCore with a ResNet-18: anomalib's `TorchInferencer`, its model by `AnomalibDetector`, and
  ours, ``vision_patchcore``, with the same random weights of the backbone and as large a coreset;
- anomalib's `OpenVINOInferencer` with PaDiM on that backbone: of PatchCore anomalib 2.7 exports a
  graph that takes two images at a time, and the inferencer, which gives it one, fails.

Everything runs in one process, in turns. Before that, scores of PatchCore are compared by the order
of the frames, whose half is defective: the ways to resize them differ.
"""

import argparse
import contextlib
import io
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from benchmarks._timing import machine, print_table, write_json
from benchmarks.anomalib_inference import SIDE, _same_folder, make_files
from skanomaly import AnomalibDetector, anomaly_maps, create_model
from skanomaly.cli._options import DEFAULT_MODEL
from skanomaly.datasets import make_surfaces

FRAME = 1024
_CORESET = 0.1  # anomalib's own
_LEAST_ORDER = 0.7  # Spearman's correlation of the scores of one method by two programs


def frames(n, suffix):
    """Bytes of so many files, half of them with defects, and the pixels of training images."""
    n_bad = n // 2
    made = make_surfaces(8 + n - n_bad, n_bad, surface="fabric", image_size=FRAME, random_state=3)
    coded = []
    for image in made.images[8:]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, suffix)
        coded.append(file.getvalue())
    return coded, list(made.images[:8])


def ours(model):
    """A function from the bytes of a frame to its score, decision and map."""

    offset = model.offset_ if hasattr(model, "offset_") else model[-1].offset_

    def run(frame):
        maps, scores = anomaly_maps(model, [frame], return_scores=True)
        return float(scores[0]), bool(scores[0] < offset), maps[0]

    return run


def theirs(inferencer):
    """The same by an inferencer of anomalib."""

    def run(frame):
        image = Image.open(io.BytesIO(frame)).convert("RGB")
        found = inferencer.predict(image)
        heat = np.asarray(found.anomaly_map, np.float32).reshape(found.anomaly_map.shape[-2:])
        heat = Image.fromarray(heat).resize(image.size, Image.Resampling.BILINEAR)
        score = -float(np.ravel(found.pred_score)[0])
        return score, bool(np.ravel(found.pred_label)[0]), np.asarray(heat)

    return run


def backbone(folder):
    """Weights of timm's ResNet-18, and a file of them."""
    import timm
    import torch

    torch.manual_seed(0)
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save(state, folder / "resnet18.pth")
    return state, folder / "resnet18.pth"


def contenders(folder, weights, training, n_threads):
    """By name, functions from the bytes of a frame to score, decision and map."""
    from anomalib import deploy

    os.environ["TRUST_REMOTE_CODE"] = "1"  # anomalib reads a pickle that it has just written
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": n_threads}
    options = {"model_name": "resnet18", "weights": weights, "image_size": SIDE, "device": "cpu"}
    patchcore = create_model("vision_patchcore", coreset=_CORESET, **options)
    return {
        f"ours, {DEFAULT_MODEL}": ours(create_model(DEFAULT_MODEL).fit(training)),
        "anomalib TorchInferencer, PatchCore": theirs(
            deploy.TorchInferencer(folder / "Patchcore" / "model.pt", device="cpu")
        ),
        "AnomalibDetector, PatchCore": detector(folder / "Patchcore" / "model.ckpt"),
        "ours, vision_patchcore": ours(patchcore.fit(training)),
        "anomalib OpenVINOInferencer, PaDiM": theirs(
            deploy.OpenVINOInferencer(folder / "Padim" / "model.xml", "CPU", config)
        ),
    }


def detector(path):
    """A model of anomalib by `AnomalibDetector`, with the numbers that the inferencers give."""
    model = AnomalibDetector(path, device="cpu", batch_size=1)
    model.normalized = True

    def run(frame):
        maps, scores = model.score_maps([frame], return_scores=True)
        return float(scores[0]), bool(scores[0] < -0.5), maps[0]  # normalised, so is the threshold

    return run


def check(runs, coded):
    """Whether contenders give scores, decisions and maps, and those of PatchCore agree in order."""
    scores = {}
    for name, run in runs.items():
        results = [run(frame) for frame in coded]
        scores[name] = [score for score, _, _ in results]
        for score, decision, heat in results:
            assert np.isfinite(score) and isinstance(decision, bool), name
            assert heat.shape == (FRAME, FRAME) and np.isfinite(heat).all(), name
    reference = scores["anomalib TorchInferencer, PatchCore"]
    order = {name: float(spearmanr(values, reference).statistic) for name, values in scores.items()}
    for name, agreement in order.items():
        assert agreement > _LEAST_ORDER or "atch" not in name, (name, agreement)
    return order


def measure(runs, coded):
    """Wall and processor seconds of each contender and frame, the contenders in turns."""
    wall, busy = ({name: [] for name in runs} for _ in range(2))
    for turn, frame in enumerate([coded[0], *coded]):  # the first counts as a warm-up
        for name, run in runs.items():
            start = time.perf_counter(), time.process_time()
            run(frame)
            if turn:
                wall[name].append(time.perf_counter() - start[0])
                busy[name].append(time.process_time() - start[1])
    return wall, busy


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--suffix", choices=("png", "jpeg"), default="png")
    parser.add_argument("--json", help="file for the result")
    args = parser.parse_args()
    import torch

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    result = {"machine": machine(("anomalib", "torch", "onnxruntime", "openvino")), "runs": []}
    print(result["machine"])
    coded, training = frames(args.frames, args.suffix)
    with tempfile.TemporaryDirectory() as name, _same_folder():
        folder = Path(name)
        state, weights = backbone(folder)
        for family in ("Patchcore", "Padim"):
            (folder / family).mkdir()
            with contextlib.redirect_stdout(io.StringIO()):
                make_files(folder / family, 1, SIDE, family, state)
        os.chdir(folder)  # OpenVINO's inferencer leaves a cache behind
        for n_threads in args.threads:
            torch.set_num_threads(n_threads)
            with threadpool_limits(n_threads):
                runs = contenders(folder, weights, training, n_threads)
                order = check(runs, coded)
                wall, busy = measure(runs, coded)
            rows = [
                {
                    "model": name,
                    "p50, ms": 1e3 * np.percentile(wall[name], 50),
                    "p99, ms": 1e3 * np.percentile(wall[name], 99),
                    "processor p50, ms": 1e3 * np.percentile(busy[name], 50),
                    "order of scores as anomalib's": order[name],
                }
                for name in runs
            ]
            title = (
                f"one {FRAME} px {args.suffix} frame, {n_threads} thread(s), {args.frames} frames"
            )
            print_table(title, rows)
            result["runs"].append({"threads": n_threads, "rows": rows})
    print(f"\nload {os.getloadavg()[0]:.1f}")
    write_json(args.json, result)


if __name__ == "__main__":
    main()
