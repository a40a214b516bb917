"""Decoding and resizing of image files: plain Pillow, ours, and what other libraries would take.

Run ``python -m benchmarks.decoding``: a generated surface of 1024 x 1024 pixels as PNG and as JPEG,
bicubic to 448 x 448, on one thread, by processor time; ``--size``, ``--to`` for others, ``--json
FILE`` to keep the numbers. First the pixels are compared with Pillow's, in grey levels: decoded
they are the same, resized as by the embedders on torch within one level. Other
libraries are timed where they are installed, on the step that they could take over: they are not
what the package uses, which reads every image with Pillow, so that what is accepted, refused and
returned does not depend on what else is installed. Inflating the PNG's data alone bounds any
decoder that uses zlib.
"""

import argparse
import importlib.util
import io
import struct
import time
import zlib

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits

from benchmarks._timing import interleave, machine, print_table, write_json
from skanomaly._images import load_image, resize_image
from skanomaly.datasets import make_surfaces
from skanomaly.embedders._resize import fast_resize


def encode(image, format, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format, **options)
    return stream.getvalue()


def compressed(png):
    """The compressed data of a PNG file."""
    parts, position = [], 8
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if kind == b"IDAT":
            parts.append(png[position + 8 : position + 8 + length])
        position += 12 + length
    return b"".join(parts)


def decoders(data):
    """Of a PNG or JPEG file to an RGB array."""
    found = {
        "Pillow": lambda: np.array(Image.open(io.BytesIO(data)).convert("RGB")),
        "ours": lambda: load_image(data),
    }
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)
        encoded = np.frombuffer(data, dtype=np.uint8)
        found["OpenCV"] = lambda: cv2.cvtColor(cv2.imdecode(encoded, 1), cv2.COLOR_BGR2RGB)
    if importlib.util.find_spec("imagecodecs"):
        import imagecodecs

        decode = imagecodecs.png_decode if data[1:4] == b"PNG" else imagecodecs.jpeg_decode
        found["imagecodecs"] = lambda: decode(data)
    if importlib.util.find_spec("torchvision"):
        import torch
        from torchvision.io import decode_image

        torch.set_num_threads(1)
        held = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        found["torchvision"] = lambda: decode_image(held).permute(1, 2, 0).contiguous().numpy()
    return found


def resizers(image, side):
    """Bicubic and antialiased, of an RGB array to an RGB array."""
    size = side, side
    found = {
        "Pillow": lambda: np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)),
        "ours": lambda: resize_image(image, size, "bicubic"),
    }
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        found["ours without torch"] = found["ours"]
        found["ours"] = lambda: fast_resize(image, size, "bicubic", "this benchmark")
    return found


def both_steps(data, side):
    """Of a file to a resized RGB array."""

    def by_pillow():
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return np.array(image.resize((side, side), Image.Resampling.BICUBIC))

    return {"Pillow": by_pillow, "ours": lambda: resizers(load_image(data), side)["ours"]()}


def compare(step, contenders, repeats, bounds=(), levels=0):
    """Times of one step, with the largest and the mean difference from Pillow's pixels."""
    expected = contenders["Pillow"]().astype(int)
    differences = {name: np.abs(function() - expected) for name, function in contenders.items()}
    assert differences["ours"].max() <= levels, step
    seconds = interleave({**contenders, **dict(bounds)}, repeats, clock=time.process_time)
    return [
        {
            "step": step,
            "contender": name,
            "ms": 1e3 * times["median"],
            "speed to Pillow": seconds["Pillow"]["median"] / times["median"],
            "largest difference": int(differences[name].max()) if name in differences else "",
            "mean difference": float(differences[name].mean()) if name in differences else "",
        }
        for name, times in seconds.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--to", type=int, default=448)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json")
    args = parser.parse_args()
    with threadpool_limits(1):
        result = run(args)
    write_json(args.json, result)


def run(args):
    image = make_surfaces(1, surface="disc", image_size=args.size, random_state=0).images[0]
    png, jpeg = encode(image, "PNG"), encode(image, "JPEG", quality=95)
    data = compressed(png)
    bounds = {"inflating (bound)": lambda: zlib.decompress(data)}
    rows = [
        *compare("decode PNG", decoders(png), args.repeats, bounds),
        *compare("decode JPEG", decoders(jpeg), args.repeats),
        *compare("resize", resizers(image, args.to), args.repeats, levels=1),
        *compare("PNG, both steps", both_steps(png, args.to), args.repeats, levels=1),
        *compare("JPEG, both steps", both_steps(jpeg, args.to), args.repeats, levels=1),
    ]
    print_table(f"{args.size} x {args.size} pixels to {args.to} x {args.to}, one thread", rows)
    packages = ["pillow", "torch", "torchvision", "opencv-python-headless", "imagecodecs"]
    return {"machine": machine(packages), "bytes": [len(png), len(jpeg)], "steps": rows}


if __name__ == "__main__":
    main()
