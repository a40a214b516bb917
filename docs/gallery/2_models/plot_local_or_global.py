"""
Parts that lie still, and parts that are turned
===============================================

May a patch be compared with the patches of good parts anywhere, or only with those near the same place? Near the same place
finds more, as long as parts lie still. This example turns them, and looks at what becomes of both.
"""

# %%
# The same parts, aligned and turned
# ----------------------------------
#
# The discs lie in nearly the same place in all images. Of each we make a copy that is turned by a random quarter
# or by any angle; the ground is dark, and so are the corners that come in.

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from skanomaly import FilterBankPatches, LocalKNNScorer, PatchKNNScorer
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc

data = make_surfaces(50, 30, surface="disc", image_size=128, random_state=0)
y = data.y[30:]
rng = np.random.default_rng(0)
rows, columns = np.indices((128, 128)) - 63.5
inside = (rows**2 + columns**2 < 62**2)[..., None]


def turned(image):
    """The image, turned around its middle by any angle."""
    angle = rng.uniform(0, 360)
    return np.asarray(Image.fromarray(image).rotate(angle, resample=Image.Resampling.BICUBIC))


# Corners are cut off from all images, so that turned ones differ in nothing but the angle.
aligned = data.images * inside
anywhere = np.stack([turned(image) for image in aligned])

figure, axes = plt.subplots(2, 4, figsize=(8, 4.2), layout="constrained")
for line, images, name in zip(axes, (aligned, anywhere), ("aligned", "turned"), strict=True):
    for ax, image in zip(line, images, strict=False):
        ax.imshow(image)
        ax.set_title(name)
        ax.set_axis_off()

# %%
# Two scorers
# -----------
#
# ``PatchKNNScorer`` looks for the nearest patch of all good images, wherever it is. ``LocalKNNScorer`` looks within
# two rows and columns of the same place, and knows for each place how patches vary there. Both are trained
# on 30 good parts, and tested on 20 good and 30 defective ones.

embedder = FilterBankPatches(image_size=128)
scorers = {"anywhere": PatchKNNScorer, "near the place": LocalKNNScorer}
found = {}
for kind, images in (("aligned", aligned), ("turned", anywhere)):
    tokens = embedder.fit_transform(images)
    for name, scorer in scorers.items():
        fitted = scorer().fit(tokens[:30])
        found[kind, name] = fitted.score_samples(tokens[30:])
        print(f"{kind:8s} compared {name:15s} AUROC {image_auroc(y, found[kind, name]):.3f}")

# %%
# The scores
# ----------
#
# Scores are divided by the median of the good parts, so that they can be drawn on one axis: -1 is a usual good
# part, and what is far to the left is easy to tell from it.

figure, axes = plt.subplots(2, 2, figsize=(8.5, 4.8), sharex="row", layout="constrained")
for line, name in zip(axes, scorers, strict=True):
    for ax, kind in zip(line, ("aligned", "turned"), strict=True):
        scores = found[kind, name] / -np.median(found[kind, name][y > 0])
        for place, label, colour in ((1, "good", "C0"), (-1, "defective", "C3")):
            values = scores[y == place]
            heights = np.linspace(-0.3, 0.3, len(values)) + (place > 0)
            ax.plot(values, heights, "o", color=colour, alpha=0.6)
        ax.set_yticks([0, 1], ["defective", "good"])
        ax.set_title(f"{kind}, compared {name}")
for ax in axes[1]:
    ax.set_xlabel("score (higher is more normal)")
