"""From PNG files to scores and heat maps: the peers' way and ours.

    python -m benchmarks.pipeline [--banks 10000 100000] [--images 8] [--threads 1] [--json FILE]

The peers' way, in plain lines: Pillow decodes and resizes, torch embeds in float32, a matrix
product and ``topk`` search the bank as in anomalib's AnomalyDINO, SciPy smooths the upsampled map.
Ours: ``anomaly_maps`` of a pipeline. Both with a DINOv2 ViT-S/14 of random weights at 448 pixels.
Before that, what training takes: the images of the bank, and the scorer with its calibration.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.pipeline import make_pipeline

from benchmarks._timing import interleave, machine, print_table, write_json
from benchmarks.embedding import plain_model, save_weights
from skanomaly import DinoV2Patches, PatchKNNScorer, anomaly_maps
from skanomaly._networks.dinov2 import interpolate_position_embedding
from skanomaly.datasets import make_surfaces

SIDE, GRID, FILE_SIDE = 448, 32, 1024
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_images(folder, n_images):
    """PNG files; the last quarter shows defects."""
    n_bad = max(1, n_images // 4)
    images = make_surfaces(n_images - n_bad, n_bad, image_size=FILE_SIDE, random_state=0).images
    paths = [Path(folder) / f"{i:03}.png" for i in range(n_images)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def training_images(n_bank):
    """So many other images that the bank holds about `n_bank` tokens of them."""
    return make_surfaces(max(2, round(n_bank / GRID**2)), image_size=SIDE, random_state=9).images


def peers_way(path, bank):
    """Function from paths to scores and maps."""
    import torch
    from torch.nn import functional

    model = plain_model(path, SIDE)
    model.pos_embed.data = interpolate_position_embedding(model.pos_embed.data, (GRID, GRID))
    model.patch_embed.grid_size = (GRID, GRID)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    rows = functional.normalize(torch.from_numpy(bank).flatten(0, 2), dim=1)

    @torch.inference_mode()
    def run(paths):
        scores, maps = [], []
        for item in paths:
            with Image.open(item) as file:
                image = file.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
            tokens = model.forward_features((x - mean) / std)[0, 1:]
            similarity = functional.normalize(tokens, dim=1) @ rows.T
            distances = (torch.ones_like(similarity) - similarity).clamp(0, 2)
            nearest = torch.topk(distances, 1, dim=1, largest=False)[0][:, 0]
            scores.append(-float(nearest.sort()[0][-max(1, len(nearest) // 100) :].mean()))
            grid = nearest.view(1, 1, GRID, GRID)
            size = (FILE_SIDE, FILE_SIDE)
            full = functional.interpolate(grid, size=size, mode="bilinear", align_corners=False)
            maps.append(gaussian_filter(full[0, 0].numpy(), 4.0))
        return np.stack(maps), np.array(scores)

    return run


def check_agreement(ours, theirs):
    """Scores and maps, up to what bfloat16 and the resizing leave."""
    (our_maps, our_scores), (their_maps, their_scores) = ours, theirs
    score = float(np.abs(our_scores / their_scores - 1).max())
    maps = float(
        min(
            np.corrcoef(a.ravel(), b.ravel())[0, 1]
            for a, b in zip(*(our_maps, their_maps), strict=True)
        )
    )
    print(
        f"largest relative difference of scores {score:.1e}, least correlation of maps {maps:.5f}"
    )
    if score > 0.03 or maps < 0.99:
        raise SystemExit("the two ways disagree")
    return {"score_difference": score, "map_correlation": maps}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--banks", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="torch")
    import torch

    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    result = {
        "machine": machine(("torch", "timm", "scipy", "openvino")),
        "rows": [],
        "training": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        weights, paths = save_weights(folder), write_images(folder, options.images)
        embedder = DinoV2Patches(weights=weights, device="cpu", runtime=options.runtime)
        embedder.transform(paths[:1])  # loads the model
        for n_bank in options.banks:
            images = training_images(n_bank)
            start = clock()
            bank = embedder.transform(images)
            embedded = clock()
            pipe = make_pipeline(embedder, PatchKNNScorer().fit(bank))
            training = {
                "images": len(bank),
                "seconds to embed": embedded - start,
                "seconds to fit and calibrate": clock() - embedded,
            }
            print_table("Training", [training])
            result["training"].append(training)
            ways = {
                "PIL, torch float32, matmul + topk, SciPy": peers_way(weights, bank),
                "ours": lambda paths, p=pipe: anomaly_maps(p, paths, return_scores=True),
            }
            first, *_, last = (way(paths) for way in ways.values())
            agreement = check_agreement(last, first)
            calls = {name: lambda way=way: way(paths) for name, way in ways.items()}
            times = interleave(calls, options.repeats, warm_up=0, clock=clock)
            slowest = next(iter(times.values()))["median"]
            result["rows"] += [
                {
                    "bank": bank.size // bank.shape[-1],
                    "way": name,
                    "images/s": len(paths) / times[name]["median"],
                    "times the first": slowest / times[name]["median"],
                    **agreement,
                }
                for name in ways
            ]
    print_table(
        f"{FILE_SIDE} px PNG files to scores and maps, {options.threads} thread(s)", result["rows"]
    )
    print(f"\nload {os.getloadavg()[0]:.1f}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
