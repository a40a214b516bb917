"""
Why was this part flagged?
==========================

A detector calls a part anomalous, and the person at the line asks why. This example asks two
detectors. The first compares with patches of good parts, and shows what it compared with. The
second knows averages and spreads, and names the numbers that deviate.
"""

# %%
# A piece with a spot
# -------------------
#
# Both detectors are fitted to the same 20 good pieces of fabric. The new piece has a small spot.

import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, PatchKNNScorer, explain
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import NearestPatchDisplay

data = make_surfaces(20, 1, surface="fabric", defects="spot", image_size=128, random_state=1)
good, piece = data.images[:20], data.images[20]

nearest = make_pipeline(FilterBankPatches(image_size=128), PatchKNNScorer()).fit(good)
gaussian = make_pipeline(FilterBankPatches(image_size=128), PatchGaussianScorer("shared")).fit(good)
print("nearest patches:", nearest.predict([piece]), " Gaussian:", gaussian.predict([piece]))

# %%
# Compared with what?
# -------------------
#
# ``explain`` takes the most anomalous patch of the most anomalous region. The pictures on the left
# show it in a frame, beside the patches of the good pieces that are nearest to it; below are
# close-ups. Here the training images are arrays, so we have to give them again. If ``fit`` had
# been given paths of files, ``explain`` would find the training images by itself.

NearestPatchDisplay.from_estimator(nearest, piece, n_neighbors=2, train_images=good)

# %%
# The same in words, for a log or a message:

print(explain(nearest, piece, n_neighbors=2))

# %%
# Which numbers are off?
# ----------------------
#
# The Gaussian has no patches to show. Instead it says for each number of the token how many
# standard deviations it is away from its mean in good pieces, and how much it adds to the squared
# distance. The numbers of the filter bank have names.

told = explain(gaussian, piece)
print(told)

strongest = told.components[:8][::-1]
figure, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
ax.barh([part.name for part in strongest], [part.deviation for part in strongest])
ax.axvline(0, color="black", linewidth=0.8)
ax.set_xlabel("standard deviations from the mean of good pieces")
ax.set_title(f"the patch in row {told.row}, column {told.column}")

# %%
# Both explanations point at the spot. The first shows that even the nearest good patch looks
# different; the second names what differs. A number may add much although it is not far from its
# mean: this happens if it does not fit the other numbers. The page :doc:`/explaining` describes
# everything that an explanation contains.
