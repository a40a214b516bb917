"""
What patch tokens are
=====================

What does a detector see in an image? It cuts the image into patches and describes each patch by a
list of numbers, its *token*. This example looks at tokens: it shows which patches of an image are
alike, and which patch of the good parts is most similar to a defect.
"""

# %%
# From pixels to tokens
# ---------------------
#
# The parts are discs. ``transform`` turns each image into a grid of tokens: with 128 x 128 pixels
# and patches of 8 pixels there are 16 rows and 16 columns. The filter bank describes a patch by
# its colours, and by edges and structures of several sizes in and around it.

import matplotlib.pyplot as plt
import numpy as np

from skanomaly import FilterBankPatches
from skanomaly.datasets import make_surfaces

data = make_surfaces(12, 1, surface="disc", defects="missing_piece", image_size=128, random_state=3)
embedder = FilterBankPatches(image_size=128)
tokens = embedder.fit_transform(data.images)
n_images, rows, columns, dim = tokens.shape
side = 128 // rows

print(f"{n_images} images, each a grid of {rows} x {columns} tokens of {dim} numbers")
print("the first of these numbers:", ", ".join(embedder.get_feature_names_out()[:4]), "...")

# %%
# Which patches are alike?
# ------------------------
#
# Two patches are alike if their tokens point in nearly the same direction: the cosine of the angle
# between them is then near 1. We pick one patch of a good part, at the rim of a hole, and colour
# all patches of the same image by their similarity to it.


def cosine(token, others):
    """Cosine of the angle between a token and each of the others."""
    lengths = np.linalg.norm(others, axis=-1) * np.linalg.norm(token)
    return others @ token / lengths


row, column = 3, 6
similarity = cosine(tokens[0, row, column], tokens[0])


def frame(ax, row, column, colour):
    """Draw the border of a patch."""
    corner = (column * side - 0.5, row * side - 0.5)
    ax.add_patch(plt.Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=2))


figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
axes[0].imshow(data.images[0])
axes[0].set_title(f"a good part, {rows} x {columns} patches")
for edge in range(side, 128, side):
    axes[0].axhline(edge - 0.5, color="white", linewidth=0.4)
    axes[0].axvline(edge - 0.5, color="white", linewidth=0.4)
axes[1].imshow(data.images[0])
axes[1].set_title("one patch")
shown = axes[2].imshow(similarity, cmap="viridis")
axes[2].set_title("how much all are like it")
axes[2].plot(column, row, "s", markersize=9, markerfacecolor="none", markeredgecolor="red")
frame(axes[1], row, column, "red")
figure.colorbar(shown, ax=axes[2], label="cosine")
for ax in axes:
    ax.set_axis_off()

# %%
# Patches at the other holes are similar to the patch, and the ground beside the part is not,
# although nobody has told the embedder what a hole is.
#
# What is most like a defect?
# ---------------------------
#
# The last image has a defect. For each of its patches we look for the most similar one among all
# patches of the good parts. One minus the cosine of the two is a patch score: it says how far away
# the nearest good patch is.

good, defective = tokens[:-1].reshape(-1, dim), tokens[-1]
best = np.array([[cosine(token, good).max() for token in line] for line in defective])
scores = 1 - best
row, column = np.unravel_index(scores.argmax(), scores.shape)
nearest = cosine(defective[row, column], good).argmax()
image, near_row, near_column = np.unravel_index(nearest, (n_images - 1, rows, columns))
print(f"the patch that is least like any good one: row {row}, column {column}")
print(f"the nearest good one: image {image}, row {near_row}, column {near_column}")

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
axes[0].imshow(data.images[-1])
axes[0].set_title("a part with a defect")
frame(axes[0], row, column, "red")
shown = axes[1].imshow(scores, cmap="magma")
axes[1].set_title("distance to good patches")
axes[2].imshow(data.images[image])
axes[2].set_title("the nearest good patch")
frame(axes[2], near_row, near_column, "red")
figure.colorbar(shown, ax=axes[1], label="1 - cosine")
for ax in axes:
    ax.set_axis_off()

# %%
# The highest distances lie at the defect. The nearest good patch does not look like the defect: it
# is only less different than all others. ``PatchKNNScorer`` does the same, with a faster search
# and a threshold. ``skanomaly.explain`` gives these answers in words:
# :ref:`sphx_glr_auto_examples_1_first_steps_plot_explain.py`.
