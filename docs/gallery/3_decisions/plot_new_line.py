"""
A new line, a new threshold
===========================

The detector was trained on one line, and a second line has a slightly different camera. Must I
train again? Often a new threshold is enough. This example changes the camera, counts false alarms,
and recalibrates on a few good parts of the new line.
"""

# %%
# Two lines
# ---------
#
# The camera of the second line has more noise and is a little out of focus. We assume that this is
# the only difference.

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, recalibrate
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import ScoreHistogramDisplay
from skanomaly.metrics import image_auroc

rng = np.random.default_rng(0)


def second_camera(images):
    """The images as a noisier camera with a softer lens takes them."""
    soft = gaussian_filter(images.astype(float), (0, 0.5, 0.5, 0))
    return np.clip(soft + rng.normal(0, 3, images.shape), 0, 255).astype(np.uint8)


data = make_surfaces(140, 40, surface="tile", image_size=64, random_state=0)
first_line, second_line = data.images[:40], second_camera(data.images[40:])
y = data.y[40:]
detector = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(first_line)

# %%
# The old threshold on the new line
# ---------------------------------
#
# We keep forty good parts of the new line to calibrate on, and count on the other 60 and on the 40
# defective ones. The threshold is set for 10% of good parts.

calibration, new, new_y = second_line[:40], second_line[40:], y[40:]


def rates(detector):
    """Shares of good and of defective parts that are flagged."""
    flagged = detector.predict(new) < 0
    return f"{flagged[new_y > 0].mean():.0%} of good, {flagged[new_y < 0].mean():.0%} of defects"


print("as trained, flagged:  ", rates(detector))

# %%
# Recalibrate
# -----------
#
# ``recalibrate`` returns a copy that shares the model. It takes its threshold from the scores of
# the good parts of today.

second = recalibrate(detector, images=calibration)
print("recalibrated, flagged:", rates(second))
print("where the threshold is from:", second[-1].calibration_["kind"])
print(f"AUROC of both: {image_auroc(new_y, second.score_samples(new)):.3f}")

figure, axes = plt.subplots(2, 1, figsize=(8, 6), sharex=True, layout="constrained")
for ax, each, name in zip(axes, (detector, second), ("as trained", "recalibrated"), strict=True):
    ScoreHistogramDisplay.from_estimator(each, new, new_y, bins=150, ax=ax)
    ax.set_title(name)
    ax.set_xlim(-0.3, 0)  # many defects lie farther to the left

# %%
# The new camera makes every part look a little unusual, so that the old threshold flags most good
# ones. But the AUROC says that defects still score lower than nearly all good parts. So a new
# threshold from forty good parts repairs it. Always check this with known defects: if the lowest
# scores of good parts overlap those of defects, defects pass, and no threshold helps. Train with
# images of the new line then. :doc:`/on-the-line` has all steps, in "The light has changed". More
# ways to move a threshold are in :doc:`/thresholds`.
