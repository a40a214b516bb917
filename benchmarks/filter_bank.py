"""Images per second of the embedders that need no torch, on one core, at 256 x 256 pixels.

Run ``python -m benchmarks.filter_bank [--json FILE]``. Threads of the linear algebra are held to
one. The images are generated surfaces. First come the tokens alone, of the filter bank and of the
network of `TinyPatches` on either grid, beside torch where that is installed; then `transform` on
PNG files of 512 x 512 pixels, decoding and resizing included.
"""

import argparse
import importlib.util
import tempfile
import time
from functools import partial
from pathlib import Path

from PIL import Image
from threadpoolctl import threadpool_limits

from benchmarks._timing import interleave, machine, print_table, write_json
from skanomaly import FilterBankPatches, TinyPatches
from skanomaly.datasets import make_surfaces

EMBEDDERS = {
    "FilterBankPatches": FilterBankPatches(n_jobs=1),
    "TinyPatches": TinyPatches(n_jobs=1),
    "TinyPatches, 16 x 16": TinyPatches(grid=16, n_jobs=1),
}


def tokens_alone():
    """Functions that make the tokens of one image, by name."""
    image = make_surfaces(1, surface="disc", image_size=256, random_state=0).images[:1]
    embedders = dict(EMBEDDERS)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
        embedders["TinyPatches, torch"] = TinyPatches(runtime="torch", device="cpu")
    return {name: partial(one._embed_batch, image) for name, one in embedders.items()}


def rates(contenders, n_images, repeats):
    """A row of images per second for each contender, by processor time."""
    times = interleave(contenders, repeats, clock=time.process_time)
    return [
        {"embedder": name, "images/s": n_images / found["median"]} for name, found in times.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", help="file for the result")
    arguments = parser.parse_args()
    large = make_surfaces(8, surface="disc", image_size=512, random_state=0).images
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        result = {"machine": machine(("torch",)), "tokens": rates(tokens_alone(), 1, 21)}
        paths = [Path(folder) / f"{i}.png" for i in range(len(large))]
        for path, image in zip(paths, large, strict=True):
            Image.fromarray(image).save(path)
        whole = {name: partial(one.transform, paths) for name, one in EMBEDDERS.items()}
        result["transform"] = rates(whole, len(paths), 5)
    print(result["machine"])
    print_table("Tokens alone", result["tokens"])
    print_table("transform", result["transform"])
    write_json(arguments.json, result)


if __name__ == "__main__":
    main()
