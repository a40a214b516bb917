"""Scorers: patch tokens to calibrated anomaly scores."""

from skanomaly.scorers._local_knn import LocalKNNScorer
from skanomaly.scorers._mutual import MutualScorer
from skanomaly.scorers._patch_gaussian import PatchGaussianScorer
from skanomaly.scorers._patch_knn import PatchKNNScorer
from skanomaly.scorers._patch_subspace import PatchSubspaceScorer
from skanomaly.scorers._patchwise import PatchwiseScorer
from skanomaly.scorers._prompt import PromptScorer
from skanomaly.scorers._retrieval_knn import RetrievalKNNScorer
from skanomaly.scorers._score_union import ScoreUnion

__all__ = [
    "LocalKNNScorer",
    "MutualScorer",
    "PatchGaussianScorer",
    "PatchKNNScorer",
    "PatchSubspaceScorer",
    "PatchwiseScorer",
    "PromptScorer",
    "RetrievalKNNScorer",
    "ScoreUnion",
]
