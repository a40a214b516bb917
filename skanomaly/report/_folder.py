"""Files that the command line writes: heat maps with their table."""

import csv

import numpy as np
from PIL import Image

from skanomaly._images import load_image
from skanomaly.core.maps import upsample_map
from skanomaly.inspection import overlay_map


def write_heat_maps(result, images, output):
    """Write image and overlay side by side, on one scale for all, and a table of the scores."""
    patch_scores = np.concatenate([grid.ravel() for grid in result.patch_scores])
    limits = np.quantile(patch_scores, [0.5, 0.999])
    _remove_heat_maps(output)
    with open(output / "scores.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "heat_map", "defect_type", "score", "threshold", "verdict"])
        for i, (path, kind) in enumerate(zip(images.images, images.defect_types, strict=True)):
            image = load_image(path)
            heat = upsample_map(result.patch_scores[i], image.shape[:2], sigma=4)
            plain = overlay_map(image, np.zeros_like(heat), (0, 1))
            picture = np.hstack([plain, overlay_map(image, heat, limits, images.load_mask(i))])
            target = output / kind / f"{path.stem}.png"
            target.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(target)
            verdict = "anomalous" if result.predictions[i] == -1 else "normal"
            name = target.relative_to(output).as_posix()
            table.writerow([path, name, kind, result.scores[i], result.threshold, verdict])


def _remove_heat_maps(output):
    """Remove the heat maps that an earlier run listed in its table."""
    if not (output / "scores.csv").is_file():
        return
    with open(output / "scores.csv", newline="", encoding="utf-8") as file:
        names = [row.get("heat_map") or "" for row in csv.DictReader(file)]
    for name in names:
        path = output / name
        if path.suffix == ".png" and path.resolve().is_relative_to(output.resolve()):
            path.unlink(missing_ok=True)
