"""What `value_range` is worth: the same photographs with 8 bits, 12 bits, and in a narrow range.

Run ``python -m benchmarks.deep_images ROOT --weights vit_tiny_patch16_224.safetensors``; ROOT is a
category in the layout of MVTec AD. The photographs are made grey and written as PNG files: as they
are; as numbers 0..4095 in 16 bits; and as 20000..23000 in 16 bits. Image AUROC of each, without a
range and with the right one.
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks._timing import print_table
from skanomaly import create_model
from skanomaly._images import load_image
from skanomaly.datasets import read_mvtec


def deep(low, high):
    return lambda grey: np.rint(low + grey / 255 * (high - low)).astype(np.uint16)


# How the pictures are stored, and the ranges to read them with.
KINDS = {
    "8 bits": (lambda grey: grey, [None]),
    "12 bits in 16": (deep(0, 4095), [None, 4095]),
    "20000..23000 in 16": (deep(20000, 23000), [None, (20000, 23000)]),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    args = parser.parse_args()
    vit = {"weights": str(args.weights), "layers": 5, "dtype": "float32"}
    models = {"filterbank": {}, "vit_tiny_patch16_224": vit}
    split = read_mvtec(args.root)
    rows = []
    for kind, (store, ranges) in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            train, test = (write(images, store, folder) for images in (split.train, split.test))
            for value_range in ranges:
                row = {"images": kind, "value_range": value_range}
                for name, params in models.items():
                    model = create_model(name, value_range=value_range, **params)
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # that the range is small
                        scores = model.fit(train).score_samples(test)
                    row[name] = f"{roc_auc_score(split.test.y, scores):.4f}"
                rows.append(row)
    print_table(f"Image AUROC, {args.root.name}", rows)


def write(images, store, folder):
    """Paths of the images, written anew."""
    paths = []
    for path in images.images:
        grey = np.asarray(Image.fromarray(load_image(path)).convert("L"))
        paths.append(Path(folder, f"{path.parent.name}-{path.parent.parent.name}-{path.name}"))
        paths[-1] = paths[-1].with_suffix(".png")
        Image.fromarray(store(grey)).save(paths[-1])
    return paths


if __name__ == "__main__":
    main()
