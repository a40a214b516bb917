"""Scorers: patch tokens to calibrated anomaly scores."""

from skanomaly.scorers._patch_gaussian import PatchGaussianScorer
from skanomaly.scorers._patch_knn import PatchKNNScorer
from skanomaly.scorers._prompt import PromptScorer
from skanomaly.scorers._retrieval_knn import RetrievalKNNScorer
from skanomaly.scorers._score_union import ScoreUnion

__all__ = [
    "PatchGaussianScorer",
    "PatchKNNScorer",
    "PromptScorer",
    "RetrievalKNNScorer",
    "ScoreUnion",
]
