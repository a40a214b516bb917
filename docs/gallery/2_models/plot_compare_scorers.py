"""
Comparing scorers on the same tokens
====================================

Which scorer suits my parts? Embedding images takes time, and all scorers take the same tokens. So
we embed once, fit many scorers, and compare how well they find defective images and defective
pixels.
"""

# %%
# Embed once
# ----------
#
# There are twenty good pieces of fabric to train on, and 10 good and 20 defective ones to compare
# on.

import matplotlib.pyplot as plt
import numpy as np

from skanomaly import (
    FilterBankPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
)
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import bootstrap_interval, image_auroc, pixel_auroc

data = make_surfaces(30, 20, surface="fabric", image_size=96, random_state=0)
tokens = FilterBankPatches(image_size=96).fit_transform(data.images)
train, test = tokens[:20], tokens[20:]
y, masks = data.y[20:], data.masks[20:]

# %%
# Fit many
# --------
#
# A scorer gives each patch a score, and computes one score for the image from them. The AUROC is
# the chance that a good image (or pixel) has a more normal score than a defective one: 1 is
# perfect, 0.5 is guessing. Here each patch score is given to all pixels of the patch, so that it
# can be compared with the masks. With 30 images an AUROC is uncertain. The interval says how
# uncertain; it is found by drawing the images again and again.

scorers = {
    "nearest patches": PatchKNNScorer(),
    "nearest patches near the place": LocalKNNScorer(),
    "a Gaussian for each place": PatchGaussianScorer(random_state=0),
    "one Gaussian": PatchGaussianScorer("shared", random_state=0),
    "one subspace": PatchSubspaceScorer(),
}
side = data.images.shape[1] // tokens.shape[1]
images, pixels, intervals = [], [], []
for name, scorer in scorers.items():
    scorer.fit(train)
    scores = scorer.score_samples(test)
    maps = np.kron(scorer.score_patches(test), np.ones((1, side, side), dtype=np.float32))
    images.append(image_auroc(y, scores))
    intervals.append(bootstrap_interval(image_auroc, y, scores, n_resamples=200))
    pixels.append(pixel_auroc(masks, maps))
    low, high = intervals[-1]
    print(f"{name:31s} images {images[-1]:.3f} ({low:.3f} to {high:.3f}), pixels {pixels[-1]:.3f}")

# %%
# Side by side
# ------------

figure, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
places = np.arange(len(scorers))[::-1]
low, high = np.transpose(intervals)
errors = np.maximum([images - low, high - images], 0)
ax.errorbar(
    images, places + 0.1, xerr=errors, fmt="o", capsize=3, label="images, with 95% interval"
)
ax.plot(pixels, places - 0.1, "s", label="pixels")
ax.set_yticks(places, list(scorers))
ax.set_xlabel("AUROC (1 is perfect, 0.5 is guessing)")
figure.legend(loc="outside lower center", ncols=2)
ax.grid(axis="x", alpha=0.3)

# %%
# If intervals overlap as they do here, 30 images cannot tell which scorer is best: the order of
# two neighbours may be chance. Which scorer suits which parts is in :doc:`/accuracy`; to choose by
# cross-validation, see :ref:`sphx_glr_auto_examples_2_models_plot_grid_search.py`.
