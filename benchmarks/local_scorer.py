"""Images per second, seconds of fit and memory of the filter bank with the local scorer.

    python -m benchmarks.local_scorer [ROOT] [--images 200] [--new 64] [--json FILE]

ROOT is a folder of PNG or JPEG files, some to fit to and others to score, such as bottle of MVTec
AD; without it, generated discs of 512 x 512 pixels are written to files. 256 pixels, one thread, by
processor time, decoding included. Linux only.
"""

import argparse
import tempfile
import time
from pathlib import Path

from PIL import Image
from threadpoolctl import threadpool_limits

from benchmarks._timing import machine, print_table, write_json
from benchmarks.memory import MEBIBYTE, measured, memory
from skanomaly import FilterBankPatches, LocalKNNScorer, anomaly_maps, create_model, iter_scores
from skanomaly.datasets import make_surfaces


def generated(folder, count):
    """Paths of generated images."""
    images = make_surfaces(count, surface="disc", image_size=512, random_state=0).images
    paths = [Path(folder) / f"{number:04}.png" for number in range(count)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def seconds(function):
    """What a call returns, and its processor time."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def measure(train, new):
    """A row a stage."""
    embedder = FilterBankPatches()
    embedder.fit_transform(train[:1])
    tokens, embedding = seconds(lambda: embedder.fit_transform(train))
    before = memory("VmRSS")
    (scorer, fitting), *_, peak = measured(lambda: seconds(lambda: LocalKNNScorer().fit(tokens)))
    held = memory("VmRSS") - before
    new_tokens = embedder.transform(new)
    scorer.score_samples(new_tokens[:2])
    model = create_model("vision_filterbank").fit(train)
    times = {
        "embedding": seconds(lambda: embedder.transform(new))[1],
        "scoring, all together": seconds(lambda: scorer.score_samples(new_tokens))[1],
        "scoring, 8 at a time": seconds(
            lambda: [scorer.score_samples(new_tokens[i : i + 8]) for i in range(0, len(new), 8)]
        )[1],
        "scoring, one at a time": seconds(
            lambda: [scorer.score_samples(new_tokens[i : i + 1]) for i in range(len(new))]
        )[1],
        "`score_samples` of the model": seconds(lambda: model.score_samples(new))[1],
        "`anomaly_maps` of the model": seconds(lambda: anomaly_maps(model, new))[1],
        "`iter_scores`, one image a batch": seconds(
            lambda: list(iter_scores(model, new, batch_size=1))
        )[1],
    }
    rows = [
        {"stage": stage, "ms an image": 1000 * taken / len(new), "images/s": len(new) / taken}
        for stage, taken in times.items()
    ]
    fit = {
        "images": len(train),
        "embedding, s": embedding,
        "fit of the scorer with its threshold, s": fitting,
        "memory at the peak, MB": peak / MEBIBYTE,
        "memory kept, MB": held / MEBIBYTE,
    }
    return rows, fit


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=200, help="to fit to")
    parser.add_argument("--new", type=int, default=64, help="to score")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    count = arguments.images + arguments.new
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        if arguments.root is None:
            paths = generated(folder, count)
        else:
            found = sorted(arguments.root.rglob("*.png")) + sorted(arguments.root.rglob("*.jpg"))
            paths = [path for path in found if "ground_truth" not in path.parts]
            paths = sorted(paths, key=lambda path: "train" not in path.parts)[:count]
        rows, fit = measure(paths[: arguments.images], paths[arguments.images :])
    print_table("New images", rows)
    print_table("Fit", [fit])
    write_json(arguments.json, {"machine": machine(), "new": rows, "fit": fit})


if __name__ == "__main__":
    main()
