"""Make the pictures and what the teachers say of them.

    python -m training.make_data --photographs DIR --weights DIR --out FOLDER
        [--pictures 12288] [--seed 0] [--workers 2] [--device cpu]

OUT gets `data.json` (what made it), `whitening.npz`, and a folder for each 256 pictures:
`shard_00000` with `pictures.npy` (256, 224, 224, 3) uint8, `vit.npy` (256, 28, 28, 128) and
`mobilenet.npy` (256, 14, 14, 128) float16. A shard is renamed to its name once it is whole: the
command goes on where it was stopped, and finished shards may be trained on meanwhile. Which worker
makes a shard changes nothing in it: each works on one thread, eight pictures at a time.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from training.pictures import Photographs, PictureMaker
from training.targets import MobileNetTeacher, VitTeacher, Whitening

SHARD = 256
_BATCH = 8
_TO_WHITEN = 384  # pictures; 301,056 tokens of the one teacher and 75,264 of the other


class Labeller:
    """Makes pictures by index, and the teachers' tokens of them."""

    def __init__(self, photographs, weights, seed, device):
        torch.set_num_threads(1)
        self.make = PictureMaker(photographs, seed)
        self.vit = VitTeacher(weights, device)
        self.mobilenet = MobileNetTeacher(weights, device)

    def batches(self, start, stop):
        """Small pictures, tokens of ViT-Tiny, tokens of MobileNetV2: eight pictures at a time."""
        for first in range(start, stop, _BATCH):
            pairs = [self.make(index) for index in range(first, min(first + _BATCH, stop))]
            large, small = (np.stack(pictures) for pictures in zip(*pairs, strict=True))
            yield small, self.vit(large), self.mobilenet(small)


def fit_whitenings(labeller, n_pictures):
    """The whitening of each teacher from the first pictures."""
    vit, mobilenet = [], []
    for _, a, b in labeller.batches(0, n_pictures):
        vit.append(a)
        mobilenet.append(b)
    return {
        "vit": Whitening.fit(np.concatenate(vit)),
        "mobilenet": Whitening.fit(np.concatenate(mobilenet), by_position=False),
    }


def save_whitenings(file, whitenings):
    part = file.with_suffix(".part.npz")
    np.savez(
        part, **{f"{name}.{k}": v for name, w in whitenings.items() for k, v in vars(w).items()}
    )
    os.replace(part, file)


def load_whitenings(file):
    """The whitening of each teacher, by name."""
    with np.load(file) as content:
        return {
            name: Whitening(*(content[f"{name}.{k}"] for k in Whitening.__annotations__))
            for name in ("vit", "mobilenet")
        }


def shard_folder(out, number):
    return Path(out) / f"shard_{number:05d}"


def write_shard(out, number, shard, labeller, whitenings):
    """One folder of pictures and targets, whole or not at all."""
    parts = {"pictures": [], "vit": [], "mobilenet": []}
    for small, *tokens in labeller.batches(number * shard, (number + 1) * shard):
        parts["pictures"].append(small)
        for name, values in zip(("vit", "mobilenet"), tokens, strict=True):
            side = int(values.shape[1] ** 0.5)
            white = whitenings[name](values).astype(np.float16)
            parts[name].append(white.reshape(len(white), side, side, -1))
    place = shard_folder(out, number)
    part = place.with_suffix(f".part{os.getpid()}")
    part.mkdir()
    for name, arrays in parts.items():
        np.save(part / f"{name}.npy", np.concatenate(arrays))
    os.replace(part, place)


_WORK: dict = {}  # what a process of the pool holds


def _start(photographs, weights, out, seed, device, shard):
    _WORK["limits"] = threadpool_limits(1)
    _WORK["fixed"] = out, shard
    images = Photographs(photographs, out / "photographs.u8")
    _WORK["labeller"] = Labeller(images, weights, seed, device)
    _WORK["whitenings"] = load_whitenings(out / "whitening.npz")


def _work(number):
    out, shard = _WORK["fixed"]
    write_shard(out, number, shard, _WORK["labeller"], _WORK["whitenings"])
    return number


def make_data(
    photographs,
    weights,
    out,
    n_pictures,
    seed,
    workers=2,
    device="cpu",
    shard=SHARD,
    whiten=_TO_WHITEN,
):
    """Make all shards that are missing.

    Parameters
    ----------
    photographs, weights, out : path
    n_pictures : int
        Rounded up to whole shards.
    seed, workers : int
    device : str
        Of the teachers.
    shard, whiten : int
        Pictures of a shard; pictures that the whitening is fitted on.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    images = Photographs(photographs, out / "photographs.u8")
    made_of = {
        "seed": seed,
        "photographs": images.digest,
        "n_photographs": len(images),
        "shard": shard,
        "whiten": whiten,
    }
    _check_same(out / "data.json", made_of)
    for left in out.glob("shard_*.part*"):
        shutil.rmtree(left)
    if not (out / "whitening.npz").exists():
        with threadpool_limits(1):  # sums of several threads have other last bits
            whitenings = fit_whitenings(Labeller(images, weights, seed, device), whiten)
        save_whitenings(out / "whitening.npz", whitenings)
        for name, whitening in whitenings.items():
            share = np.cumsum(whitening.eigenvalues) / whitening.eigenvalues.sum()
            print(f"{name}: 128 components hold {share[127]:.3f} of the variance", flush=True)
    n_shards = -(-n_pictures // shard)
    missing = [n for n in range(n_shards) if not shard_folder(out, n).exists()]
    begin = time.monotonic()
    setting = (photographs, weights, out, seed, device, shard)
    # Processes are started afresh: threads of torch do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers, _start, setting) as pool:
        for done, number in enumerate(pool.imap_unordered(_work, missing), 1):
            pace = (time.monotonic() - begin) / done / shard * 1e3
            left = (len(missing) - done) * pace * shard / 6e4
            print(f"shard {number}: {pace:.0f} ms a picture, {left:.0f} min left", flush=True)


def _check_same(file, made_of):
    """Refuse to mix pictures that were made otherwise."""
    if not file.exists():
        file.write_text(json.dumps(made_of, indent=1))
    elif (there := json.loads(file.read_text())) != made_of:
        raise ValueError(f"{file.parent} was made with {there}, not with {made_of}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=12288)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    # Told to end, it ends its workers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    make_data(
        options.photographs,
        options.weights,
        options.out,
        options.pictures,
        options.seed,
        options.workers,
        options.device,
    )


if __name__ == "__main__":
    main()
