"""
A first detector in eight lines
===============================

How do I get from a few photographs of good parts to a detector that flags the bad ones and shows
where they are bad? This example makes such photographs, trains on the good ones alone, and draws
the heat maps of new ones.
"""

# %%
# The images
# ----------
#
# Instead of photographs we use generated images of brushed metal: 30 good parts to train on, and
# eight new ones, of which the last four have a defect. ``y`` is +1 for good and -1 for defective
# parts, as everywhere in scikit-learn; ``masks`` say which pixels a defect changed. Both are only
# used to check the result: the detector does not see them.

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
# *patch*, by a list of numbers. The *scorer* learns how the patches of good parts look, and
# measures how far those of a new part are from them. ``contamination=0.1`` sets the threshold: one
# good part in ten may be flagged.

detector = make_pipeline(FilterBankPatches(image_size=128), LocalKNNScorer(contamination=0.1))
detector.fit(good)

print("known:     ", y)
print("predicted: ", detector.predict(new))

# %%
# The heat maps
# -------------
#
# The detector also says where a part is anomalous. Colours are calibrated on the good parts that
# it was trained on: places that look as usual stay clear, and places that hardly ever look like
# this are violet. The dashed line encloses what is called anomalous; the white line with a black
# edge is the known defect.

AnomalyMapDisplay.from_estimator(detector, new, masks=masks, n_columns=4)

# %%
# The four defects are flagged, and the maps light up where they are. From time to time a good part
# will be flagged as well; the threshold says how often. What the two steps do with an image is
# shown in :ref:`sphx_glr_auto_examples_1_first_steps_plot_patch_tokens.py`.
