"""Scorers: patch tokens to calibrated anomaly scores."""

from skanomaly.scorers._patch_gaussian import PatchGaussianScorer
from skanomaly.scorers._patch_knn import PatchKNNScorer

__all__ = ["PatchGaussianScorer", "PatchKNNScorer"]
