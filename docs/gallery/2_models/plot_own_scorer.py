"""
Your own scorer in twenty lines
===============================

I have an idea how to tell good patches from bad ones: what does it take to make it a detector with
a calibrated threshold and heat maps? Two methods are enough. This example writes them, and lets
the package check the result.
"""

# %%
# The idea
# --------
#
# Good patches come in a few kinds. We find the kinds by k-means, and score a patch by its distance
# to the nearest centre. ``_fit_model`` learns from tokens, one in each row; ``_score_model`` gives
# each row a number, higher for more anomalous ones. ``CrossFittedScorer`` does everything else:
# the forms of tokens, masked patches, labels, a threshold from held-out images, p-values, maps.

import numpy as np
from sklearn.cluster import KMeans
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches
from skanomaly.base import CrossFittedScorer
from skanomaly.datasets import make_surfaces
from skanomaly.estimator_checks import checks_of
from skanomaly.inspection import AnomalyMapDisplay


class KindsScorer(CrossFittedScorer):
    """Distance of each patch to the nearest of a few kinds of normal patches."""

    def __init__(self, n_kinds=8, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.n_kinds = n_kinds
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_model(self, tokens):
        patches = tokens.valid_values().astype(np.float64)
        n_kinds = min(self.n_kinds, len(patches))
        return KMeans(n_kinds, n_init=1, random_state=0).fit(patches).cluster_centers_

    def _score_model(self, model, tokens, known):
        squares = [((tokens.values - centre) ** 2).sum(axis=1) for centre in model]
        return np.sqrt(np.min(squares, axis=0))


# %%
# Does it keep the promises?
# --------------------------
#
# ``checks_of`` lists checks of everything that maps, evaluations and users rely on. A check raises
# an error if a scorer does not fulfil it. ``parametrize_with_checks`` makes tests of them for
# pytest.

checks = checks_of(KindsScorer())
for check in checks:
    check(KindsScorer())
print(f"{len(checks)} checks passed, the last of them {checks[-1].__name__}")

# %%
# A detector as any other
# -----------------------

data = make_surfaces(34, 4, surface="wood", image_size=96, random_state=0)
detector = make_pipeline(FilterBankPatches(image_size=96), KindsScorer(n_kinds=16))
detector.fit(data.images[:30])
print("known:     ", data.y[30:])
print("predicted: ", detector.predict(data.images[30:]))
AnomalyMapDisplay.from_estimator(detector, data.images[30:], masks=data.masks[30:])

# %%
# Compare what is known with what is predicted: an idea of twenty lines makes errors, and the maps
# show where. But all errors come from the idea, because thresholds, maps and checks are the same
# as for every other scorer. :doc:`/development/extending` describes all methods that you can
# write.
