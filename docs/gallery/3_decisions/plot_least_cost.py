"""
The threshold of least cost
===========================

A missed defect costs more than a false alarm, and I have some defects to try: where should the
threshold be? This example finds the cheapest threshold, says how sure that is, and tries it on
images that had no part in the choice.
"""

# %%
# Three sets apart
# ----------------
#
# We need good pieces to train on, good and defective ones to choose the threshold on, and others
# to try it on.

import matplotlib.pyplot as plt
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, decide, tune_threshold
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import ThresholdDisplay

data = make_surfaces(100, 60, surface="wood", image_size=64, random_state=0)
good = data.images[:30]
tuning, tuning_y = [*data.images[30:60], *data.images[100:120]], [1] * 30 + [-1] * 20
test, test_y = [*data.images[60:100], *data.images[120:]], [1] * 40 + [-1] * 40
scorer = PatchGaussianScorer("shared")
detector = make_pipeline(FilterBankPatches(image_size=64), scorer).fit(good)

# %%
# What errors cost
# ----------------
#
# A defect that passes costs 20, a good piece that is flagged costs 1. Among the images 2 in 5 are
# defective; on the line it is 1 in 20. The parameter ``prevalence`` gives the share on the line.
# Without it, the threshold would be right for a line on which defects are as frequent as among our
# images.

costs = {"cost_miss": 20, "cost_false_alarm": 1, "prevalence": 0.05}
tuned = tune_threshold(detector, tuning, tuning_y, **costs)
print(tuned)

# %%
# The curves
# ----------
#
# The curves show for every threshold: the share of defects that is missed, the share of good
# pieces that is flagged, and what both cost per inspected piece. (A piece is flagged if its score
# is below the threshold.)

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ThresholdDisplay.from_estimator(detector, tuning, tuning_y, ax=ax, **costs)

# %%
# On other images
# ---------------
#
# ``apply`` returns a copy of the detector with that threshold; the model in it is the same.
# ``decide`` gives a verdict for each image with its score, threshold and p-value.


def cost_of(detector, images, y):
    """What a piece costs on average, for the prevalence on the line."""
    flagged = [decision.is_anomalous for decision in decide(detector, images)]
    missed = sum(not f for f, label in zip(flagged, y, strict=True) if label < 0) / y.count(-1)
    alarms = sum(f for f, label in zip(flagged, y, strict=True) if label > 0) / y.count(1)
    cost = 0.05 * 20 * missed + 0.95 * 1 * alarms
    return f"{missed:.0%} of defects missed, {alarms:.0%} of good ones flagged, cost {cost:.3f}"


cheapest = tuned.apply(detector)
print("as fitted:", cost_of(detector, test, test_y))
print("tuned:    ", cost_of(cheapest, test, test_y))
print(decide(cheapest, test[:1])[0])

# %%
# A miss is expensive, but defects are rare on this line. With the threshold of ``fit`` false
# alarms cause most of the cost, and the cheapest threshold has fewer of them. The cost on other
# images is higher than the one measured on the images that chose the threshold; this is usually
# so. With twenty defects its interval is wide. :doc:`/thresholds` says why, and with which number
# to plan.
