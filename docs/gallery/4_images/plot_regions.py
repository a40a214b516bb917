"""
Outlines of defects, for other tools
====================================

A heat map is made for the eye: how do I get boxes, areas and outlines that other programs can use?
This example finds regions, draws them, and writes them in the format of COCO.
"""

# %%
# Regions
# -------
#
# ``anomaly_regions`` returns for each image the connected parts of its heat map that lie above a
# threshold. (Heat maps are higher for more anomalous places.) The threshold is calibrated: one in
# ten new good images shows any region.

import json

import matplotlib.pyplot as plt
from PIL import Image
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, anomaly_regions
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import region_threshold, write_coco

data = make_surfaces(34, 4, surface="brushed_metal", image_size=128, random_state=4)
good, masks = data.images[:30], data.masks[30:]
detector = make_pipeline(FilterBankPatches(image_size=128), PatchGaussianScorer("shared")).fit(good)

paths = []
for number, image in enumerate(data.images[30:]):
    paths.append(f"part-{number}.png")
    Image.fromarray(image).save(paths[-1])
found = anomaly_regions(detector, paths)
for path, regions in zip(paths, found, strict=True):
    for region in regions:
        print(f"{path}: box {region.box}, {region.area} pixels, peak {region.peak:.1f}")

# %%
# Drawn on the images
# -------------------
#
# The pictures show the box and the outline of each region, and the known defect in white. Regions
# are larger than defects, because a patch looks at its surroundings, and maps are smoothed.

figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
for ax, path, regions, mask in zip(axes.flat, paths, found, masks, strict=True):
    ax.imshow(Image.open(path))
    if mask.any():
        ax.contour(mask, levels=[0.5], colors="white", linewidths=1)
    for region in regions:
        x, y, width, height = region.box
        ax.add_patch(plt.Rectangle((x, y), width, height, fill=False, edgecolor="C1"))
        ax.contour(region.mask, levels=[0.5], colors="C3", extent=(x, x + width, y, y + height))
    ax.set_title(f"{path}: {len(regions)} region{'s' * (len(regions) != 1)}", fontsize=10)
    ax.set_axis_off()

# %%
# Another share, and small specks
# -------------------------------
#
# You can choose a threshold for another share of good images, and leave out regions of few pixels.

size = (128, 128)
for share in (0.05, 0.1, 0.3):
    threshold = region_threshold(detector, share=share, size=size)
    regions = anomaly_regions(detector, paths, threshold=threshold, min_area=20)
    print(
        f"share {share:.0%}: threshold {threshold:.2f}, regions {[len(each) for each in regions]}"
    )

# %%
# One file for other tools
# ------------------------
#
# FiftyOne, CVAT and Label Studio read COCO.

write_coco("regions.json", paths, found)
with open("regions.json", encoding="utf-8") as file:
    coco = json.load(file)
print({key: len(value) for key, value in coco.items() if isinstance(value, list)})
print("keys of an annotation:", *coco["annotations"][0])

# %%
# The detector found each defect as a region that is larger than the defect itself. A lower
# threshold makes more regions, also on good parts. Which share is right depends on what it costs
# to look at a region. :doc:`/explaining` says how other tools open the file.
