"""
A first detector in eight lines
===============================

How do I get from a few photographs of good parts to a detector that flags the bad ones and
shows where they are bad? This example makes such photographs, trains on the good ones alone,
and draws the heat maps of new ones.
"""

# %%
# The images
# ----------
#
# Instead of photographs we take made images of brushed metal: 30 good parts to train on, and
# eight new ones, of which the last four have a defect. ``y`` is +1 for good and -1 for defective
# parts, as everywhere in scikit-learn; ``masks`` say which pixels a defect changed. Both serve to
# check the result: the detector is not told.

from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, LocalKNNScorer
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import AnomalyMapDisplay

data = make_surfaces(34, 4, surface="brushed_metal", image_size=128, random_state=0)
good, new = data.images[:30], data.images[30:]
y, masks = data.y[30:], data.masks[30:]

# %%
# The detector
# ------------
#
# A detector is a pipeline of two steps. The *embedder* describes each small square of an image, a
# *patch*, by a list of numbers. The *scorer* keeps how the patches of good parts look, and
# measures how far those of a new part are from them. ``contamination=0.1`` sets the threshold:
# one good part in ten may be flagged.

detector = make_pipeline(FilterBankPatches(image_size=128), LocalKNNScorer(contamination=0.1))
detector.fit(good)

print("known:     ", y)
print("predicted: ", detector.predict(new))

# %%
# The heat maps
# -------------
#
# The detector also says where. Colours are calibrated on the good parts that it was trained on:
# what is usual there stays clear, what hardly ever occurs there is violet. The dashed line
# encloses what is called anomalous, the line in white on black is the known defect.

AnomalyMapDisplay.from_estimator(detector, new, masks=masks, n_columns=4)

# %%
# The four defects are flagged, and the maps light up where they are. A false alarm among the good
# parts has to be expected now and then: the threshold says how often. What the two steps do with
# an image is shown in :ref:`sphx_glr_auto_examples_1_first_steps_plot_patch_tokens.py`.
