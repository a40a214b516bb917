"""
Choosing a scorer by cross-validation
=====================================

How do I choose a scorer and its parameters without fooling myself? As for any other estimator
of scikit-learn: by ``GridSearchCV``, with a splitter that keeps defective images out of
training.
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
# The last step of the pipeline is searched over, the embedder is the same. It embeds the images
# for each candidate anew, unless it keeps tokens on disk (``cache_dir=``) or, as here, the images
# are embedded before the search.

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
# ``topk`` is the share of the highest patch scores whose mean is the score of the image. Each dot
# is the AUROC of one fold, the bar is their mean.

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
# Dots of one row lie apart by as much as rows do: the search chooses the best mean, which may be
# the best by chance. And the AUROC of the chosen one is flattered, since it was chosen for it.
# Measure it on images that had no part in the choice. Read on in
# :ref:`sphx_glr_auto_examples_2_models_plot_compare_scorers.py`.
