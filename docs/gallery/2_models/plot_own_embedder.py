"""
Your own description of patches
===============================

I know what matters on my parts: can I describe it in a function of my own? ``FunctionPatches``
makes an embedder of any function from an image to a grid of numbers. This example looks only at
colours, and compares that with the filter bank.
"""

# %%
# A function of one image
# -----------------------
#
# The function gets an array of (height, width, 3), with numbers from 0 to 255, and returns an
# array of (rows, columns, numbers). Here it returns for each cell of 8 x 8 pixels the mean colour,
# and how much the colour varies.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, FunctionPatches, PatchGaussianScorer
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc


def colours(image):
    """Mean and spread of the colours of cells of 8 x 8 pixels."""
    height, width = (length // 8 for length in image.shape[:2])
    cells = image[: 8 * height, : 8 * width].reshape(height, 8, width, 8, 3)
    return np.concatenate([cells.mean(axis=(1, 3)), cells.std(axis=(1, 3))], axis=-1)


data = make_surfaces(50, 30, surface="wood", image_size=128, random_state=0)
tokens = FunctionPatches(colours).fit_transform(data.images)
print("tokens:", tokens.shape)

# %%
# Which defects does it see?
# --------------------------
#
# The same scorer takes the tokens of the function and those of the filter bank. Both detectors are
# trained on 30 good pieces. For each kind of defect, the AUROC compares the defective pieces with
# 20 good pieces.

good, new = data.images[:30], data.images[30:]
y, kinds = data.y[30:], np.array(data.defect_types[30:])
embedders = {
    "own colours": FunctionPatches(colours),
    "filter bank": FilterBankPatches(image_size=128),
}
names = sorted(set(kinds) - {"good"})
found = {}
for name, embedder in embedders.items():
    detector = make_pipeline(embedder, PatchGaussianScorer("shared")).fit(good)
    scores = detector.score_samples(new)
    rows = {kind: (y > 0) | (kinds == kind) for kind in names}
    found[name] = [image_auroc(y[rows[kind]], scores[rows[kind]]) for kind in names]
    print(
        name,
        *(f"{kind} {value:.3f}" for kind, value in zip(names, found[name], strict=True)),
        sep=", ",
    )

figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
places = np.arange(len(names))
for shift, (name, values) in zip((-0.2, 0.2), found.items(), strict=True):
    ax.bar(places + shift, values, width=0.38, label=name)
ax.axhline(0.5, color="grey", linestyle="--", linewidth=1, label="guessing")
ax.set_xticks(places, [name.replace("_", " ") for name in names])
ax.set_ylabel("image AUROC")
ax.set_ylim(0.4, 1.02)
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))

# %%
# Six numbers for each patch are enough to see what differs in colour, such as a missing piece. A
# fine scratch hardly changes the mean colour; the filter bank, which knows edges and lines, is
# better there. A function of your own is useful if you know what to look for.
# :doc:`/development/extending` describes classes with parameters, batches and a cache.
