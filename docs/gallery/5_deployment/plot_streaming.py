"""
More images than memory holds
=============================

How do I train on thousands of photographs, and judge those of a camera that never stops? In both
cases, images are read a few at a time. This example streams files into a model, and frames from a
generator into decisions.
"""

# %%
# Files
# -----
#
# Good images lie in a folder, as they would on a line. (There are only sixty small ones, so that
# the example is quick.)

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.pipeline import make_pipeline

from skanomaly import Failure, FilterBankPatches, PatchKNNScorer, fit_stream, iter_scores
from skanomaly.datasets import make_surfaces

data = make_surfaces(60, surface="tile", image_size=64, random_state=0)
folder = Path("good")
folder.mkdir(exist_ok=True)
for number, image in enumerate(data.images):
    Image.fromarray(image).save(folder / f"{number:03d}.png")
paths = sorted(folder.glob("*.png"))

# %%
# Training
# --------
#
# ``fit_stream`` embeds a few images at a time, and keeps only what the model needs. Here this is a
# *coreset*: a tenth of the patches, chosen so that no patch is far from one that was kept.

detector = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(coreset=0.1))
fit_stream(detector, paths)
print(f"{len(paths)} images of 64 patches, kept: {len(detector[-1].bank_)} patches")

# %%
# A camera
# --------
#
# Frames come from a generator. From frame 40 on, a fault of the machine leaves its mark on every
# fourth part, and one frame is broken. ``iter_scores`` yields a decision for each frame, in order,
# and never holds more than a few frames. With ``on_error="record"`` it yields a ``Failure`` in
# place of a frame that cannot be read, and goes on.

stream = make_surfaces(80, 20, surface="tile", image_size=64, random_state=5)


def camera():
    """Frames, one after the other."""
    defects = iter(stream.images[80:])
    for number in range(80):
        if number == 20:
            yield b"not an image"
        else:
            faulty = number >= 40 and number % 4 == 0
            yield next(defects) if faulty else stream.images[number]


scores, flagged, failed = [], [], []
for number, decision in enumerate(iter_scores(detector, camera(), on_error="record")):
    if isinstance(decision, Failure):
        print(f"frame {number}: {decision.error}")
        failed.append(number)
        scores.append(np.nan)
    else:
        scores.append(decision.score)
        if decision.is_anomalous:
            flagged.append(number)
print("flagged frames:", flagged)

figure, ax = plt.subplots(figsize=(8.5, 3.4), layout="constrained")
scores = np.array(scores)
ax.plot(scores, "o-", linewidth=0.5, markersize=4, label="score (higher is more normal)")
ax.plot(flagged, scores[flagged], "o", color="C3", label="flagged")
ax.axhline(detector[-1].offset_, color="grey", linestyle="--", label="threshold")
for number in failed:
    ax.axvline(number, color="C1", label="could not be read")
ax.axvspan(40, 80, color="grey", alpha=0.12, label="the machine has a fault")
ax.set_xlabel("frame")
ax.set_ylabel("score")
ax.legend(loc="lower left")

# %%
# Faulty frames have clearly lower scores, and the broken frame is reported and skipped. From time
# to time a good frame is flagged: the threshold is set for one in ten. :doc:`/streaming-fit` says
# what training from a stream costs, and :doc:`/many-machines` how to judge files so that the work
# can be resumed after a stop.
