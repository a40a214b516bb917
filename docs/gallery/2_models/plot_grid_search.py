"""
Choosing a scorer by cross-validation
=====================================

How do I choose a scorer and its parameters without fooling myself? Do it as for any other
estimator of scikit-learn: with ``GridSearchCV``, and with a splitter that keeps defective images
out of training.
"""

# %%
# Good images train, all images test
# ----------------------------------
#
# There are 24 good and 10 defective pieces of fabric. ``OneClassSplit`` makes folds of the good
# images. Each model is trained on the good images of all folds but one, and tested on the good
# images of that one and all defective images. A defect never enters a model.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, PatchKNNScorer
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc_scorer
from skanomaly.model_selection import OneClassSplit

data = make_surfaces(24, 10, surface="fabric", image_size=96, random_state=0)
splitter = OneClassSplit(4)
for number, (train, test) in enumerate(splitter.split(data.images, data.y)):
    good = (data.y[test] > 0).sum()
    print(
        f"fold {number}: train on {len(train)}, test on {good} good, {len(test) - good} defective"
    )

# %%
# The search
# ----------
#
# The search varies the last step of the pipeline; the embedder is always the same. It would embed
# the images anew for each candidate. To avoid that, let it keep tokens on disk (``cache_dir=``),
# or embed the images before the search, as here.

tokens = FilterBankPatches(image_size=96).fit_transform(data.images)
pipe = Pipeline([("scorer", PatchKNNScorer())])
grid = [
    {"scorer": [PatchKNNScorer()], "scorer__n_neighbors": [1, 5], "scorer__topk": [0.005, 0.05]},
    {"scorer": [PatchGaussianScorer("shared")], "scorer__topk": [0.005, 0.05]},
]
search = GridSearchCV(pipe, grid, scoring=image_auroc_scorer, cv=splitter)
search.fit(tokens, data.y)
print("chosen:", search.best_params_)

# %%
# What the folds say
# ------------------
#
# ``topk`` is a share of the patches: the mean of the highest patch scores of this share is the
# score of the image. Each dot is the AUROC of one fold, the bar is their mean.

results = search.cv_results_
folds = np.array([results[f"split{i}_test_score"] for i in range(splitter.get_n_splits())])
labels = []
for params in results["params"]:
    scorer = "nearest" if isinstance(params["scorer"], PatchKNNScorer) else "Gaussian"
    neighbors = params.get("scorer__n_neighbors")
    extra = "" if neighbors is None else f", {neighbors} neighbour{'s' * (neighbors > 1)}"
    labels.append(f"{scorer}{extra}, topk {params['scorer__topk']:g}")
order = np.argsort(results["mean_test_score"])
figure, ax = plt.subplots(figsize=(8.5, 3.4), layout="constrained")
for place, i in enumerate(order):
    ax.plot(folds[:, i], np.full(len(folds), place), "o", color="C0", alpha=0.5)
    ax.plot(folds[:, i].mean(), place, "|", color="black", markersize=16, markeredgewidth=2)
ax.set_yticks(range(len(order)), [labels[i] for i in order])
ax.set_xlabel("AUROC of a fold")
ax.grid(axis="x", alpha=0.3)

# %%
# The dots of one row differ as much as the rows do. The search chooses the best mean, which may be
# the best by chance. Moreover, the AUROC of the chosen candidate looks too good, because it was
# chosen for its AUROC. Measure it on images that had no part in the choice. Read on in
# :ref:`sphx_glr_auto_examples_2_models_plot_compare_scorers.py`.
