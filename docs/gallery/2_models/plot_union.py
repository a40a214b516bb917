"""
Two scorers as one
==================

One scorer sees what another overlooks: can I have both? ``ScoreUnion`` brings the scores of
several scorers onto one scale and averages them. This example joins a memory of patches with a
Gaussian, and then joins two embedders.
"""

# %%
# Scorers of the same tokens
# --------------------------
#
# The scores of different scorers have no common unit: a cosine distance is below 2, a Mahalanobis
# distance may be 20. The scale is taken from patches of good images, scored by models that have
# not seen them: 0 is their median, and 1 their 99% quantile.

import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    ImageUnion,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    ScoreUnion,
    TinyPatches,
    explain,
)
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc

data = make_surfaces(36, 20, surface="fabric", image_size=96, random_state=2)
good, new, y = data.images[:20], data.images[20:], data.y[20:]
tokens = FilterBankPatches(image_size=96).fit_transform(data.images)

knn, gaussian = PatchKNNScorer(), PatchGaussianScorer("shared")
both = ScoreUnion([("knn", knn), ("gaussian", gaussian)])
scores = {}
for name, scorer in (("knn", knn), ("gaussian", gaussian), ("both", both)):
    scores[name] = scorer.fit(tokens[:20]).score_samples(tokens[20:])
    print(f"{name:9s} AUROC {image_auroc(y, scores[name]):.3f}")

# %%
# What each of them sees
# ----------------------
#
# Each dot is an image. Its position says how anomalous it is for each scorer; the axes show minus
# the score, because scores are higher for more normal images. To the right of the vertical dashed
# line the first scorer flags the image; above the horizontal one the second does. In the upper
# left and the lower right corner they disagree. Only there can a union decide differently, for
# better or worse.

figure, ax = plt.subplots(figsize=(5.5, 4.5), layout="constrained")
for label, name, colour in ((1, "good", "C0"), (-1, "defective", "C3")):
    chosen = y == label
    ax.plot(-scores["knn"][chosen], -scores["gaussian"][chosen], "o", color=colour, label=name)
ax.axvline(-knn.offset_, color="grey", linestyle="--")
ax.axhline(-gaussian.offset_, color="grey", linestyle="--")
ax.set_xscale("log")
ax.xaxis.set_minor_formatter(plt.NullFormatter())
ax.set_xlabel("nearest patches (higher is more anomalous)")
ax.set_ylabel("Gaussian (higher is more anomalous)")
ax.legend(loc="lower right")

# %%
# Whole detectors
# ---------------
#
# ``ImageUnion`` joins pipelines, each with an embedder of its own: here the filter bank and a
# small network that is part of the package. ``explain`` says how much each has added at the most
# anomalous place of an image.

fine = make_pipeline(FilterBankPatches(image_size=96), LocalKNNScorer())
deep = make_pipeline(TinyPatches(image_size=96), PatchKNNScorer())
union = ImageUnion([("filterbank", fine), ("tiny", deep)]).fit(good)
for name, detector in (*union.detectors_.items(), ("union", union)):
    print(f"{name:11s} AUROC {image_auroc(y, detector.score_samples(new)):.3f}")
print()
for member in explain(union, new[-1]).members:
    print(f"at the worst place of the last image {member.name} adds {member.contribution:.2f}")

# %%
# The first union hardly differs from its members: they look at the same tokens, and make errors on
# the same images. The members of the second union use different tokens, and the union is better
# than both. That is not so on all parts: measure a union like any other model. More on unions is
# in :doc:`/combining`.
