"""
A model that grows and forgets
==============================

New good parts arrive every day: must I train from the start each time? And what if a bad part was
among the training images by mistake? This example adds images to a fitted model, takes one out
again, and merges two models.
"""

# %%
# A small start
# -------------
#
# A detector is fitted to 5 good parts. Each day 10 more are added. ``update_model`` returns a new
# model; the old one stays as it was. Only the new images are embedded.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skanomaly import (
    FilterBankPatches,
    PatchKNNScorer,
    fit_shard,
    forget_images,
    merge_models,
    update_model,
)
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc

data = make_surfaces(75, 30, surface="wood", image_size=64, random_state=0)
good, new, y = data.images[:45], data.images[45:], data.y[45:]
model = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(good[:5])
days = [model]
for start in range(5, 45, 10):
    days.append(update_model(days[-1], good[start : start + 10]))

counts = [len(each[-1].train_scores_) for each in days]
scores = [each.score_samples(new) for each in days]
auroc = [image_auroc(y, each) for each in scores]
alarms = [(each[y > 0] < day[-1].offset_).mean() for each, day in zip(scores, days, strict=True)]
for n_images, value, share in zip(counts, auroc, alarms, strict=True):
    print(f"{n_images:2d} images: AUROC {value:.3f}, {share:.0%} of new good parts flagged")

figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
left.plot(counts, auroc, "o-")
left.set_ylabel("image AUROC")
left.set_ylim(0.5, 1)
right.plot(counts, alarms, "o-")
right.axhline(0.1, color="grey", linestyle="--", label="asked for")
right.set_ylabel("new good parts that are flagged")
right.set_ylim(0, None)
right.legend()
for ax in (left, right):
    ax.set_xlabel("good images in the model")

# %%
# Is it what a fit would give?
# ----------------------------
#
# For a bank of all patches it is, including the threshold.

fitted = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(good)
expected = fitted.score_samples(new)
difference = np.abs(expected - scores[-1]).max()
print(f"largest difference of a score: {difference:.1g}")
print(f"difference of the thresholds:  {abs(fitted[-1].offset_ - days[-1][-1].offset_):.1g}")

# %%
# Forgetting
# ----------
#
# A defective part was added by mistake, and the model now takes its defect for normal. We see this
# in another photograph of the same part, which differs only in noise. ``forget_images`` recognises
# the part by its tokens and removes it.

bad = data.images[75:76]
noise = np.random.default_rng(0).normal(0, 2, bad.shape)
again = np.clip(bad + noise, 0, 255).astype(np.uint8)
spoiled = update_model(days[-1], bad)
clean = forget_images(spoiled, bad)
for name, each in (("before", days[-1]), ("with it", spoiled), ("forgotten", clean)):
    score, patches = each.score_samples(again)[0], len(each[-1].bank_)
    print(f"{name:10s} score {score:.3f}, threshold {each[-1].offset_:.3f}, {patches} patches")

# %%
# Two machines, one model
# -----------------------
#
# Different machines can fit shards of the images, and the results can be merged.

shards = [fit_shard(model, good, number, 2) for number in range(2)]
merged = merge_models(shards)
difference = np.abs(expected - merged.score_samples(new)).max()
print(f"two shards merged, largest difference of a score: {difference:.1g}")

# %%
# The ranking was good from the start. The threshold needs more images: it comes nearer to the
# share that was asked for as images are added. A grown model and a merged model equal a fit to all
# images, without embedding the old images again. Other scorers have limits, which :doc:`/growing`
# describes; :doc:`/many-machines` is about many machines.
