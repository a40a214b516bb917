"""
How well are defects outlined?
==============================

Two detectors find the same defective parts: which one shows better where the defect is? This
example draws the curve that is made for this question, and shows why the pixel AUROC is not
enough.
"""

# %%
# Large and small defects
# -----------------------
#
# Stains are large, spots are small. The pixel AUROC counts pixels, so that a spot hardly matters
# beside a stain. The *per-region overlap* (PRO) counts defects: for each threshold it is the share
# of a defect that is covered, averaged over the defects.

import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, TinyPatches, anomaly_maps
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import PROCurveDisplay
from skanomaly.metrics import pixel_metrics

data = make_surfaces(
    25, 10, surface="wood", defects=["stain", "spot"], image_size=128, random_state=0
)
good, new, masks = data.images[:20], data.images[20:], data.masks[20:]
areas = {"stain": 0, "spot": 0}
for kind, mask in zip(data.defect_types[20:], masks, strict=True):
    if kind in areas:
        areas[kind] += int(mask.sum())
print("pixels of all stains and of all spots:", areas)

# %%
# Two detectors, one of them with smoothed maps too
# -------------------------------------------------
#
# ``sigma`` says how strongly heat maps are smoothed, in pixels; 4 is the default. Metrics are
# exact: no score is binned.

fine = make_pipeline(FilterBankPatches(image_size=128), PatchGaussianScorer("shared")).fit(good)
deep = make_pipeline(TinyPatches(image_size=128), PatchGaussianScorer("shared")).fit(good)
maps = {
    "filter bank": anomaly_maps(fine, new),
    "filter bank, sigma 12": anomaly_maps(fine, new, sigma=12),
    "small network": anomaly_maps(deep, new),
}
for name, heat in maps.items():
    values = pixel_metrics(masks, heat)
    shown = {key: values[key] for key in ("pixel_auroc", "aupro_0.3", "aupro_0.05")}
    print(f"{name:22s}", ", ".join(f"{key} {value:.3f}" for key, value in shown.items()))

# %%
# The curve
# ---------
#
# The horizontal axis is the share of good pixels that are called anomalous. Only its left part is
# useful in practice; therefore the area under the curve, AUPRO, is taken up to 0.3.

figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for name, heat in maps.items():
    PROCurveDisplay.from_predictions(masks, heat, name=name, ax=ax)

# %%
# The maps of one small defect
# ----------------------------

spot = max(i for i, kind in enumerate(data.defect_types[20:]) if kind == "spot")
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
axes[0].imshow(new[spot])
axes[0].set_title("a spot")
for ax, (name, heat) in zip(axes[1:], maps.items(), strict=True):
    ax.imshow(heat[spot], cmap="magma")
    ax.contour(masks[spot], levels=[0.5], colors="white", linewidths=1)
    ax.set_title(name, fontsize=10)
for ax in axes:
    ax.set_axis_off()

# %%
# Stronger smoothing reduces the pixel AUROC only a little. It reduces the AUPRO up to 0.05
# clearly; that is the part of the curve with few false alarms, which matters at the line. Choose
# the metric that answers your question, and look at the maps. :doc:`/displays` describes these
# displays, and :doc:`/results` has measured values of models.
