"""
How many good images does it take?
==================================

What can you achieve with 1, 2, 4 or 8 good images, and how much does it depend on which ones you
take? This example fits a detector to each of many such choices, and looks at how much the results
differ.
"""

# %%
# Images to choose from
# ---------------------
#
# There are 40 good discs to train on, and 30 good and 20 defective ones to test on. They are
# embedded once. ``few_shot_indices`` takes other images for each seed.

import warnings

import matplotlib.pyplot as plt
import numpy as np

from skanomaly import FilterBankPatches, PatchKNNScorer
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc
from skanomaly.model_selection import few_shot_indices

data = make_surfaces(70, 20, surface="disc", image_size=64, random_state=0)
tokens = FilterBankPatches(image_size=64).fit_transform(data.images)
bank, test, y = tokens[:40], tokens[40:], data.y[40:]

# %%
# One, two, four, eight
# ---------------------
#
# With a single image, no other image is left to calibrate the threshold on, and ``fit`` warns
# about it. We collect the warnings and print each of them once.

shots, seeds = (1, 2, 4, 8), range(5)
auroc = np.empty((len(shots), len(seeds)))
flagged = np.empty_like(auroc)
told = {}
for i, n_shots in enumerate(shots):
    for seed in seeds:
        chosen = bank[few_shot_indices(len(bank), n_shots, seed)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scorer = PatchKNNScorer().fit(chosen)
        told.setdefault(n_shots, {str(warning.message) for warning in caught})
        auroc[i, seed] = image_auroc(y, scorer.score_samples(test))
        flagged[i, seed] = (scorer.predict(test[y > 0]) < 0).mean()
for n_shots, messages in told.items():
    for message in messages:
        print(f"{n_shots} of fit: {message}")

# %%
# How far they lie apart
# ----------------------
#
# The left picture shows the AUROC, the chance that a good image scores higher than a defective
# one, as a dot for each choice of training images. (Scores are higher for more normal images.) The
# right picture shows the share of new good images that is flagged. ``contamination=0.1``, the
# default, asks for one in ten. With n images no threshold can promise less than one in n + 1; this
# is the grey line.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
places = np.arange(len(shots))
for ax, values in ((left, auroc), (right, flagged)):
    for seed in seeds:
        ax.plot(places + 0.05 * (seed - 2), values[:, seed], "o", color="C0", alpha=0.6)
    ax.plot(places, values.mean(axis=1), "_", color="black", markersize=24, label="mean")
    ax.set_xticks(places, [str(n) for n in shots])
    ax.set_xlabel("good images to train on")
    ax.grid(axis="y", alpha=0.3)
least = [max(0.1, 1 / (n + 1)) for n in shots]
right.plot(places, least, color="grey", linestyle="--", label="least that can be promised")
left.set_ylabel("image AUROC")
right.set_ylabel("good images that are flagged")
figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=2)

print("AUROC, mean and range of the choices:")
for n_shots, values in zip(shots, auroc, strict=True):
    print(f"{n_shots} images: {values.mean():.3f}, {values.min():.3f} to {values.max():.3f}")

# %%
# It matters very much which images were taken, and it matters more for the threshold than for the
# ranking. With two images the threshold may flag nearly none or most of the good parts; with one
# image it promises nothing at all, as the warning says. A promise holds on average over many
# choices, not for each single choice. So with only a few images, rank new images by
# ``score_samples``, and collect more good images before you rely on ``predict``. The page
# :doc:`/calibration` says how reliable the promise is, and :doc:`/accuracy` which model to use for
# few images.
