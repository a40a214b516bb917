"""
One graph for the line
======================

The computer on the line has neither Python's scientific packages nor this package: how does the
detector get there? As one ONNX graph, from the pixels to the verdict. This example exports a
detector, reads the graph back, and compares.
"""

# %%
# Export
# ------
#
# The file contains everything: resizing, embedder, scorer, threshold, heat map and p-value. Before
# it is written, the graph is compared with the pipeline, on altered copies of the images that you
# give. Exporting needs the extra ``onnx``: ``pip install "skanomaly[onnx]"``.

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from sklearn.pipeline import make_pipeline

from skanomaly import (
    DeployedDetector,
    FilterBankPatches,
    PatchGaussianScorer,
    anomaly_maps,
    export_model,
)
from skanomaly.datasets import make_surfaces

data = make_surfaces(36, 6, surface="brushed_metal", image_size=96, random_state=0)
good, new = data.images[:30], data.images[30:]
detector = make_pipeline(FilterBankPatches(image_size=96), PatchGaussianScorer("shared")).fit(good)
report = export_model(detector, "metal.onnx", images=good)
print(f"{Path('metal.onnx').stat().st_size / 1e6:.2f} MB")
print("verified:", report["verified"])

# %%
# Read it back
# ------------
#
# ``DeployedDetector`` runs the graph as a detector of this package. So you can measure the very
# file that goes to the line with every function that takes a detector.

deployed = DeployedDetector("metal.onnx")
print("pipeline:", detector.predict(new))
print("graph:   ", deployed.predict(new))

scores, again = detector.score_samples(new), deployed.score_samples(new)
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
axes[0].plot(scores, again, "o")
axes[0].axline((scores[0], scores[0]), slope=1, color="grey", linewidth=0.8)
axes[0].set_xlabel("score of the pipeline")
axes[0].set_ylabel("score of the graph")
heat, heat_again = anomaly_maps(detector, new[-1:])[0], anomaly_maps(deployed, new[-1:])[0]
for ax, shown, name in zip(axes[1:], (heat, heat_again), ("pipeline", "graph"), strict=True):
    ax.imshow(shown, cmap="magma", vmin=0, vmax=heat.max())
    ax.set_title(f"heat map of the {name}")
    ax.set_axis_off()
print(f"largest relative difference of a score: {np.abs(again / scores - 1).max():.1e}")
difference = np.abs(heat - heat_again).max() / heat.max()
print(f"largest difference of a heat map, as a share of its peak: {difference:.1e}")

# %%
# Without this package
# --------------------
#
# On the line ONNX Runtime alone is enough. The input is an image of uint8, and these are the
# outputs.

session = onnxruntime.InferenceSession("metal.onnx", providers=["CPUExecutionProvider"])
outputs = session.run(None, {"image": new[-1:]})
for output, value in zip(session.get_outputs(), outputs, strict=True):
    print(f"{output.name:13s} {value.dtype!s:8s} {value.shape}")

# %%
# Graph and pipeline give the same decisions, and their numbers differ only by the rounding of
# float32. :doc:`/deployment` says which steps can be exported, and :doc:`/deployment-running` has
# programs in Python, C++ and C# that run the file.
