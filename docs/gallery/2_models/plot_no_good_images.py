"""
No image that is known to be good
=================================

What if nobody has sorted the photographs? In a batch that is mostly good, images can judge each
other. This example finds the defective ones of an unsorted batch, and uses the result to clean a
training folder.
"""

# %%
# An unsorted batch
# -----------------
#
# Four of 24 tiles have a defect, and nobody has said which. The tiles are shuffled; ``y`` is only
# used to check the result.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, MutualScorer, PatchKNNScorer, anomaly_maps
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc

data = make_surfaces(20, 4, surface="tile", image_size=96, random_state=0)
order = np.random.default_rng(0).permutation(24)
images, y = data.images[order], data.y[order]

# %%
# Images judge each other
# -----------------------
#
# A normal patch has a similar patch in most other images; a defect has one in few.
# ``MutualScorer`` compares all patches with all others (the method MuSc). Like scikit-learn's
# ``LocalOutlierFactor`` it has ``fit_predict``. Here ``contamination`` is not a promise: it is the
# share of the batch that is flagged, whatever the batch contains. So look at the ranking. (Lower
# scores are more anomalous.)

mutual = make_pipeline(FilterBankPatches(image_size=96), MutualScorer(contamination=0.2))
labels = mutual.fit_predict(images)
scores = mutual[-1].train_scores_
print(f"AUROC of the ranking: {image_auroc(y, scores):.3f}")
print(f"flagged: {(labels < 0).sum()}, of them defective: {((labels < 0) & (y < 0)).sum()}")

ranking = np.argsort(scores)
maps = anomaly_maps(mutual, images)
figure, axes = plt.subplots(2, 6, figsize=(9, 3.5), layout="constrained")
high = max(heat.max() for heat in maps)
for place, (above, below) in enumerate(axes.T):
    i = ranking[place]
    above.imshow(images[i])
    above.set_title(f"{place + 1}. " + ("defective" if y[i] < 0 else "good"), fontsize=10)
    below.imshow(maps[i], cmap="magma", vmin=0, vmax=high)
    above.set_axis_off()
    below.set_axis_off()
figure.suptitle("the most unusual images of the batch, and their heat maps")

# %%
# A clean training folder
# -----------------------
#
# ``MutualScorer`` cannot score new images. But the images that it has not flagged can train a
# detector that does. We compare it with a detector that was trained on the whole batch, defects
# included, on new tiles.

fresh = make_surfaces(20, 20, surface="tile", image_size=96, random_state=1)
detectors = {"all images": images, "those not flagged": images[labels > 0]}
for name, chosen in detectors.items():
    detector = make_pipeline(FilterBankPatches(image_size=96), PatchKNNScorer()).fit(chosen)
    missed = (detector.predict(fresh.images[20:]) > 0).mean()
    alarms = (detector.predict(fresh.images[:20]) < 0).mean()
    print(
        f"trained on {name:18s} {missed:.0%} of defects missed, {alarms:.0%} of good images flagged"
    )

# %%
# The ranking puts the defective tiles first. A detector that was trained on the whole batch takes
# their defects for normal, and misses many of the new ones; it becomes better after the flagged
# images were left out. To see whether ``contamination`` was well chosen, look at the images on
# both sides of the border. More is in :doc:`/unlabelled`; what a threshold promises when good
# images are known is in :ref:`sphx_glr_auto_examples_3_decisions_plot_calibration.py`.
