"""
Small defects on large images
=============================

A camera takes a wide picture, and a defect in it is only a few pixels large: is it still visible
after the image was shrunk to the size that an embedder takes? This example compares a detector
that shrinks the image with one that cuts it into tiles.
"""

# %%
# A wide picture
# --------------
#
# The images are slabs of 160 x 640 pixels: eight good ones to train on, and six good ones and six
# with a small spot to test on.

import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, Tiled, anomaly_maps
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import overlay_map
from skanomaly.metrics import image_auroc, pixel_auroc

data = make_surfaces(14, 6, surface="tile", defects="spot", image_size=(160, 640), random_state=0)
good, new, y, masks = data.images[:8], data.images[8:], data.y[8:], data.masks[8:]
print("pixels of the defects:", [int(mask.sum()) for mask in masks[y < 0]])

# %%
# Shrunk or tiled
# ---------------
#
# The embedder resizes every image to a square of 96 pixels. A spot that was seven pixels wide is
# then about one pixel wide. ``Tiled`` lets the same embedder look at squares of 96 pixels of the
# full image, which overlap by a quarter, and joins their tokens to one grid. The scorer uses that
# grid like any other.

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

figure, axes = plt.subplots(3, 1, figsize=(9, 7.6), layout="constrained")
slab = 6  # the first one with a spot
axes[0].imshow(new[slab])
axes[0].contour(masks[slab], levels=[0.5], colors="red", linewidths=1)
axes[0].set_title("a slab with a spot, outlined")
for ax, (name, detector) in zip(axes[1:], (("shrunk", shrunk), ("tiled", tiled)), strict=True):
    limits = detector[-1].patch_limits_
    ax.imshow(overlay_map(new[slab], maps[name][slab], limits))
    ax.set_title(name)
for ax in axes:
    ax.set_axis_off()

# %%
# With tiles, the image scores separate slabs with a spot from good ones much better. The marked
# place is about as large as the spot together with the surroundings that a token sees; on the
# shrunk image it is as wide as the stretched patches. The price is time and memory, because the
# grid has many more tokens. :doc:`/tiling` says how much, and how the tiles are joined.
