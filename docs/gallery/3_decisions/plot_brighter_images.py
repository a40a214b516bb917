"""
What happens when the light changes
===================================

A lamp ages, or a window is opened: how soon does a detector call good parts anomalous? This
example makes good images darker and brighter, and follows the share of them that is flagged.
"""

# %%
# Good parts under other light
# ----------------------------
#
# All pixels are multiplied by a factor. Even the photographs of a single day differ:
# ``make_surfaces`` varies the exposure from part to part by some percent.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, LocalKNNScorer, PatchKNNScorer, TinyPatches
from skanomaly.datasets import make_surfaces

good = make_surfaces(50, surface="tile", image_size=64, random_state=0).images
train, new = good[:30], good[30:]
gains = np.array([0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3])


def brighter(images, gain):
    """The images with all pixels multiplied, and cut at white."""
    return np.clip(images * gain, 0, 255).astype(np.uint8)


figure, axes = plt.subplots(1, 4, figsize=(8.5, 2.4), layout="constrained")
for ax, gain in zip(axes, gains[::2], strict=True):
    ax.imshow(brighter(new[0], gain))
    ax.set_title(f"light x {gain:g}")
    ax.set_axis_off()

# %%
# Three detectors
# ---------------
#
# All three are trained on the same good parts, with 10% of false alarms as the nominal share. We
# count how many good parts they flag under each light.

detectors = {
    "filter bank, nearest patches": make_pipeline(
        FilterBankPatches(image_size=64), PatchKNNScorer()
    ),
    "filter bank, near the place": make_pipeline(
        FilterBankPatches(image_size=64), LocalKNNScorer()
    ),
    "small network, nearest patches": make_pipeline(TinyPatches(image_size=64), PatchKNNScorer()),
}
flagged = {}
for name, detector in detectors.items():
    detector.fit(train)
    flagged[name] = [(detector.predict(brighter(new, gain)) < 0).mean() for gain in gains]
    print(f"{name:31s}", "  ".join(f"{share:4.0%}" for share in flagged[name]))

figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
for (name, shares), marker in zip(flagged.items(), "os^", strict=True):
    ax.plot(gains, shares, marker=marker, label=name)
ax.axhline(0.1, color="grey", linestyle="--", label="the nominal share")
ax.set_xlabel("light, as a factor of that in training")
ax.set_ylabel("good parts that are flagged")
ax.legend()

# %%
# If the light is known to vary
# -----------------------------
#
# A detector only knows what it was shown. We add copies of the training parts under other light,
# and use ``groups`` to say which images show the same part. Without that, the copies of a held-out
# part would make it look too normal, and the threshold would be too tight.

varied = np.concatenate([brighter(train, gain) for gain in (0.7, 0.85, 1.0, 1.15, 1.3)])
groups = list(range(len(train))) * 5
robust = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
robust.fit(varied, patchknnscorer__groups=groups)
shares = [(robust.predict(brighter(new, gain)) < 0).mean() for gain in gains]
print(f"{'trained on varied light':31s}", "  ".join(f"{share:4.0%}" for share in shares))

figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
ax.plot(gains, flagged["filter bank, nearest patches"], marker="o", label="one light in training")
ax.plot(gains, shares, marker="D", label="varied light in training")
ax.axhline(0.1, color="grey", linestyle="--", label="the nominal share")
ax.axvspan(0.7, 1.3, color="grey", alpha=0.15, label="light in training")
ax.set_xlabel("light, as a factor")
ax.set_ylabel("good parts that are flagged")
ax.legend()

# %%
# If the light differs much from that of training, nearly every good part is flagged; how soon this
# happens depends on the embedder. Varied images in training keep the share of false alarms low.
# The price is not measured here: the more a model takes for normal, the more easily it misses a
# defect. :doc:`/on-the-line` says in "The light has changed" what to do, in which order: put the
# light back; otherwise calibrate on good parts of today, as in
# :ref:`sphx_glr_auto_examples_3_decisions_plot_new_line.py`, and check that known defects are still
# found; if they are not, train with images of today.
