"""
Parts that lie still, and parts that are turned
===============================================

May a patch be compared with the patches of good parts anywhere, or only with those near the same
place? This example puts a screw into the wrong corner, and then turns all parts.
"""

# %%
# A screw in its corner
# ---------------------
#
# Each plate has a screw in its upper left corner, with a tolerance of one pixel. On some plates
# the screw is in the lower right corner instead: the screw itself is correct, only its place is
# wrong. Other plates have a spot somewhere, as a defect of the usual kind.

import matplotlib.pyplot as plt
import numpy as np

from skanomaly import FilterBankPatches, LocalKNNScorer, PatchKNNScorer
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc

rng = np.random.default_rng(0)
rows, columns = np.indices((96, 96))


def with_screw(image, place):
    """The image with a screw around a place, which varies by a pixel."""
    distance = np.hypot(rows - place - rng.uniform(-1, 1), columns - place - rng.uniform(-1, 1))
    image = image.copy()
    image[distance < 9] = (90, 88, 85)
    image[distance < 7] = (200, 198, 190)
    image[(distance < 5) & (abs(rows - place) < 1.5)] = (40, 40, 40)
    return image


data = make_surfaces(75, 20, surface="tile", defects="spot", image_size=96, random_state=0)
aligned = np.stack([with_screw(image, 24) for image in data.images])
kinds = np.array(["good"] * 55 + ["wrong corner"] * 20 + ["spot"] * 20)
for i in np.flatnonzero(kinds == "wrong corner"):
    aligned[i] = with_screw(data.images[i], 72)

# %%
# The same plates again, each turned by none, one, two or three quarters.

turned = np.stack([np.rot90(image, rng.integers(4)) for image in aligned])

figure, axes = plt.subplots(2, 4, figsize=(8, 4.4), layout="constrained")
for line, images, name in zip(axes, (aligned, turned), ("aligned", "turned"), strict=True):
    for ax, i in zip(line, (0, 1, 55, 75), strict=True):
        ax.imshow(images[i])
        ax.set_title(f"{name}: {kinds[i]}", fontsize=10)
        ax.set_axis_off()

# %%
# Two scorers
# -----------
#
# ``PatchKNNScorer`` looks for the nearest patch of all good plates, wherever it is.
# ``LocalKNNScorer`` looks within two rows and columns of the same place, and knows for each place
# how patches vary there. Both are trained on 30 good plates; 25 other good ones are compared with
# the defects.

scorers = {"anywhere": PatchKNNScorer, "near the place": LocalKNNScorer}
found = {}
for kind, images in (("aligned", aligned), ("turned", turned)):
    tokens = FilterBankPatches(image_size=96).fit_transform(images)
    for name, scorer in scorers.items():
        scores = scorer().fit(tokens[:30]).score_samples(tokens[30:])
        for defect in ("wrong corner", "spot"):
            rows_of = np.isin(kinds[30:], ["good", defect])
            y = np.where(kinds[30:][rows_of] == "good", 1, -1)
            found[kind, name, defect] = image_auroc(y, scores[rows_of])

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4), sharey=True, layout="constrained")
for ax, defect in zip(axes, ("wrong corner", "spot"), strict=True):
    for shift, name in zip((-0.2, 0.2), scorers, strict=True):
        values = [found[kind, name, defect] for kind in ("aligned", "turned")]
        bars = ax.bar(np.arange(2) + shift, values, width=0.38, label=f"compared {name}")
        ax.bar_label(bars, fmt="%.2f")
    ax.axhline(0.5, color="black", linestyle="--", linewidth=1, label="guessing")
    ax.set_xticks([0, 1], ["aligned", "turned"])
    ax.set_title(defect)
axes[0].set_ylabel("image AUROC")
axes[0].set_ylim(0, 1.12)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

# %%
# Only the scorer that compares near the place can know that a screw is in the wrong corner, and
# only as long as the plates always lie in the same way. Once they are turned, every corner had a
# screw in training. So find out how the parts lie before you choose. The page :doc:`/local`
# describes the local scorer, and :doc:`/knn` the one that compares anywhere.
