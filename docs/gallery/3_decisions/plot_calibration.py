"""
Is the promise of the threshold kept?
=====================================

A detector with ``contamination=0.1`` promises to flag one good part in ten: does it? This example
counts on good parts that the detector has never seen, for every possible share. Then it does the
same with a wrong way to set a threshold that looks natural.
"""

# %%
# Many new good parts
# -------------------
#
# There are forty good tiles to train on, and 150 new good ones to count on. To check a promise
# about good parts we need no defect.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, p_values
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import CalibrationDisplay, ScoreHistogramDisplay

good = make_surfaces(190, surface="tile", image_size=64, random_state=0).images
train, new = good[:40], good[40:]
detector = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(contamination=0.1))
detector.fit(train)
print(f"asked for 10%, flagged of new good parts: {(detector.predict(new) < 0).mean():.1%}")

# %%
# Held-out scores
# ---------------
#
# The threshold comes from the scores of the training parts. Each of them was scored by a model
# without that part: these scores are the outline. The scores of new good parts are filled. If both
# are distributed in the same way, the threshold flags the same share of both. (Scores are
# negative, and higher for more normal parts.)

figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
ScoreHistogramDisplay.from_estimator(detector, new, np.ones(len(new), dtype=int), ax=ax)

# %%
# P-values
# --------
#
# The p-value of a part is the share of good parts that look at least as unusual. Flagging all
# parts with a p-value of at most 0.05 should flag at most 5% of the good ones, and so on for every
# share.
#
# The wrong way is to score the training parts with the model that has them in its memory: each
# part then finds its own patches there, at the distance zero. We compute p-values in this way,
# too.

tokens, fresh = detector[0].transform(train), detector[0].transform(new)
memory = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(
    tokens.reshape(-1, tokens.shape[-1])
)


def naive_scores(images):
    """Largest distance of a patch to the memory, for each image."""
    distances, _ = memory.kneighbors(images.reshape(-1, images.shape[-1]))
    return distances.reshape(len(images), -1).max(axis=1)


known, unknown = naive_scores(tokens), naive_scores(fresh)
naive = (1 + (known[None] >= unknown[:, None]).sum(axis=1)) / (len(known) + 1)
print(f"naive scores of training parts: {known.max():.2g} at most")
print(f"naive scores of new good parts: {unknown.min():.2g} at least")

figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
CalibrationDisplay.from_predictions(p_values(detector, new), name="held out", ax=axes[0])
CalibrationDisplay.from_predictions(naive, name="naive", ax=axes[1])

# %%
# With held-out scores the line stays near the diagonal, as promised. With forty training parts it
# may deviate somewhat, as the band and the number above show. The naive p-values of nearly all new
# good parts have the smallest possible value, so that the line rises at once: such a threshold
# flags every part that it has not seen. :doc:`/calibration` says why the promise holds, and in
# which cases it cannot hold.
