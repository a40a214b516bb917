"""
Only a part of the image counts
===============================

The ground beside the part is dusty, and nobody cares about the dust: how do I tell the detector?
Use a region of interest. This example puts dust on the ground, and compares a detector that looks
everywhere with one that looks only at the part.
"""

# %%
# Parts on a dusty ground
# -----------------------
#
# The parts are discs. On the ground of new images, good or not, there are bright specks of dust,
# which were not there in training.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import Pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, RegionOfInterest
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import AnomalyMapDisplay
from skanomaly.metrics import image_auroc

data = make_surfaces(50, 15, surface="disc", image_size=128, random_state=0)
good, new, y = data.images[:30], data.images[30:].copy(), data.y[30:]
rng = np.random.default_rng(0)
rows, columns = np.indices((128, 128)) - 63.5
ground = rows**2 + columns**2 > 58**2
for image in new:
    for _ in range(3):
        place = rng.choice(np.flatnonzero(ground))
        row, column = np.unravel_index(place, ground.shape)
        image[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = rng.integers(150, 255)

# %%
# A polygon around the part
# -------------------------
#
# ``RegionOfInterest`` stands between embedder and scorer. It takes polygons, whose coordinates are
# shares of width and height, or a mask. Patches outside are ignored: they are not in the model, do
# not count for the score, and are clear in heat maps.

angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
circle = [(0.5 + 0.4 * np.cos(angle), 0.5 + 0.4 * np.sin(angle)) for angle in angles]
steps = {
    "everywhere": [],
    "region of interest": [("region", RegionOfInterest(circle))],
}
detectors = {}
for name, between in steps.items():
    detector = Pipeline(
        [("emb", FilterBankPatches(image_size=128)), *between, ("knn", PatchKNNScorer())]
    )
    detectors[name] = detector.fit(good)
    scores, alarms = detector.score_samples(new), detector.predict(new[y > 0]) < 0
    print(f"{name:19s} AUROC {image_auroc(y, scores):.3f}, good parts flagged {alarms.mean():.0%}")

# %%
# The heat maps
# -------------
#
# The pictures show a good part and a defective one, for each of the two detectors. The white
# outline with a black edge is the known defect.

figure, axes = plt.subplots(2, 2, figsize=(7, 7.2), layout="constrained")
shown = [0, len(new) - 1]
for line, (name, detector) in zip(axes, detectors.items(), strict=True):
    AnomalyMapDisplay.from_estimator(detector, new[shown], masks=data.masks[30:][shown], ax=line)
    for ax in line:
        ax.set_title(f"{name}:\n{ax.get_title()}", fontsize=10)

# %%
# The detector that looks everywhere calls the dust unusual, which is correct, and therefore flags
# good parts. With the region, the detector judges only the part. A token sees some pixels beyond
# its patch, so that things just outside of the region may still have some influence. For objects
# that move from image to image there is ``PCAForeground``; :doc:`/foreground` describes both.
