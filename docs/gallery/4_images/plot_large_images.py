"""
Small defects on large images
=============================

A camera takes a wide picture, and a defect in it is a few pixels small: shrunk to the size of a network's input it is gone. This
example compares a detector that shrinks the image with one that cuts it into tiles.
"""

# %%
# A wide picture
# --------------
#
# Sheets of brushed metal of 192 x 768 pixels, four good ones and four with a small spot.

import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, Tiled, anomaly_maps
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import overlay_map
from skanomaly.metrics import image_auroc, pixel_auroc

data = make_surfaces(
    14, 4, surface="tile", defects="spot", image_size=(192, 768), random_state=0
)
good, new, y, masks = data.images[:10], data.images[10:], data.y[10:], data.masks[10:]
print("pixels of the defects:", [int(mask.sum()) for mask in masks[y < 0]])

# %%
# Shrunk or tiled
# ---------------
#
# The embedder brings every image to a square of 96 pixels; what is left of the spot is about one pixel. ``Tiled`` has the same
# embedder look at squares of 96 pixels of the full image, which overlap by a quarter, and joins their tokens to one grid.
# What comes after it takes that grid as any other.

shrunk = make_pipeline(FilterBankPatches(image_size=96), PatchGaussianScorer("shared")).fit(good)
tiled = make_pipeline(Tiled(FilterBankPatches(), tile=96), PatchGaussianScorer("shared")).fit(good)
maps = {}
for name, detector in (("shrunk", shrunk), ("tiled", tiled)):
    maps[name] = anomaly_maps(detector, new)
    scores = detector.score_samples(new)
    grid = detector[:-1].transform(new[:1]).shape[1:3]
    print(
        f"{name:6s} grid {grid}, image AUROC {image_auroc(y, scores):.3f}, "
        f"pixel AUROC {pixel_auroc(masks, maps[name]):.3f}"
    )

# %%
# The heat maps
# -------------

figure, axes = plt.subplots(3, 1, figsize=(9, 7.2), layout="constrained")
axes[0].imshow(new[-1])
axes[0].contour(masks[-1], levels=[0.5], colors="red", linewidths=1)
axes[0].set_title("a sheet with a spot, outlined")
for ax, (name, detector) in zip(axes[1:], (("shrunk", shrunk), ("tiled", tiled)), strict=True):
    limits = detector[-1].patch_limits_
    ax.imshow(overlay_map(new[-1], maps[name][-1], limits))
    ax.set_title(name)
for ax in axes:
    ax.set_axis_off()
