"""Visual anomaly detection for scikit-learn.

Embedders turn images into patch tokens, scorers turn patch tokens into calibrated scores, and
both are composed in a plain :class:`sklearn.pipeline.Pipeline`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from skanomaly._version import __version__

if TYPE_CHECKING:
    # For type checkers and editors, which cannot follow `__getattr__`.
    from skanomaly import (
        anomalib,
        base,
        benchmarking,
        datasets,
        decisions,
        deployment,
        detectors,
        embedders,
        estimator_checks,
        evaluation,
        growth,
        inspection,
        metrics,
        model_selection,
        persistence,
        preprocessing,
        registry,
        report,
        scorers,
        streaming,
    )
    from skanomaly._images import ImageReadError
    from skanomaly.anomalib import AnomalibDetector
    from skanomaly.benchmarking import benchmark
    from skanomaly.decisions import decide, recalibrate, tune_threshold
    from skanomaly.deployment import DeployedDetector, export_model
    from skanomaly.detectors import ImageUnion
    from skanomaly.embedders import (
        DinoV2Patches,
        FilterBankPatches,
        FunctionPatches,
        OpenClipPatches,
        Tiled,
        TimmPatches,
        TinyPatches,
    )
    from skanomaly.evaluation import evaluate_split
    from skanomaly.growth import fit_shard, forget_images, merge_models, update_model
    from skanomaly.inspection import (
        AnomalyMapDisplay,
        anomaly_maps,
        anomaly_regions,
        explain,
        p_values,
    )
    from skanomaly.persistence import load_model, model_manifest, save_model
    from skanomaly.preprocessing import PCAForeground, RegionOfInterest
    from skanomaly.registry import create_model, list_models, model_info
    from skanomaly.report import write_report
    from skanomaly.scorers import (
        LocalKNNScorer,
        MutualScorer,
        PatchGaussianScorer,
        PatchKNNScorer,
        PatchSubspaceScorer,
        PatchwiseScorer,
        PromptScorer,
        RetrievalKNNScorer,
        ScoreUnion,
    )
    from skanomaly.streaming import Failure, fit_stream, iter_scores, score_files

__all__ = [
    "AnomalibDetector",
    "AnomalyMapDisplay",
    "DeployedDetector",
    "DinoV2Patches",
    "Failure",
    "FilterBankPatches",
    "FunctionPatches",
    "ImageReadError",
    "ImageUnion",
    "LocalKNNScorer",
    "MutualScorer",
    "OpenClipPatches",
    "PCAForeground",
    "PatchGaussianScorer",
    "PatchKNNScorer",
    "PatchSubspaceScorer",
    "PatchwiseScorer",
    "PromptScorer",
    "RegionOfInterest",
    "RetrievalKNNScorer",
    "ScoreUnion",
    "Tiled",
    "TimmPatches",
    "TinyPatches",
    "__version__",
    "anomalib",
    "anomaly_maps",
    "anomaly_regions",
    "base",
    "benchmark",
    "benchmarking",
    "create_model",
    "datasets",
    "decide",
    "decisions",
    "deployment",
    "detectors",
    "embedders",
    "estimator_checks",
    "evaluate_split",
    "evaluation",
    "explain",
    "export_model",
    "fit_shard",
    "fit_stream",
    "forget_images",
    "growth",
    "inspection",
    "iter_scores",
    "list_models",
    "load_model",
    "merge_models",
    "metrics",
    "model_info",
    "model_manifest",
    "model_selection",
    "p_values",
    "persistence",
    "preprocessing",
    "recalibrate",
    "registry",
    "report",
    "save_model",
    "score_files",
    "scorers",
    "streaming",
    "tune_threshold",
    "update_model",
    "write_report",
]

# Module -> public names that it defines. Loaded at first use, so that `import skanomaly` costs
# next to nothing and brings in neither torch nor any other extra.
_EXPORTS = {
    "skanomaly._images": ["ImageReadError"],
    "skanomaly.anomalib": ["AnomalibDetector"],
    "skanomaly.benchmarking": ["benchmark"],
    "skanomaly.decisions": ["decide", "recalibrate", "tune_threshold"],
    "skanomaly.deployment": ["DeployedDetector", "export_model"],
    "skanomaly.detectors": ["ImageUnion"],
    "skanomaly.embedders": [
        "DinoV2Patches",
        "FilterBankPatches",
        "FunctionPatches",
        "OpenClipPatches",
        "Tiled",
        "TimmPatches",
        "TinyPatches",
    ],
    "skanomaly.evaluation": ["evaluate_split"],
    "skanomaly.growth": ["fit_shard", "forget_images", "merge_models", "update_model"],
    "skanomaly.inspection": [
        "AnomalyMapDisplay",
        "anomaly_maps",
        "anomaly_regions",
        "explain",
        "p_values",
    ],
    "skanomaly.persistence": ["load_model", "model_manifest", "save_model"],
    "skanomaly.preprocessing": ["PCAForeground", "RegionOfInterest"],
    "skanomaly.registry": ["create_model", "list_models", "model_info"],
    "skanomaly.report": ["write_report"],
    "skanomaly.scorers": [
        "LocalKNNScorer",
        "MutualScorer",
        "PatchGaussianScorer",
        "PatchKNNScorer",
        "PatchSubspaceScorer",
        "PatchwiseScorer",
        "PromptScorer",
        "RetrievalKNNScorer",
        "ScoreUnion",
    ],
    "skanomaly.streaming": ["Failure", "fit_stream", "iter_scores", "score_files"],
}
_HOMES = {name: module for module, names in _EXPORTS.items() for name in names}

if not TYPE_CHECKING:  # else every name would exist for a type checker

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            value = getattr(importlib.import_module(_HOMES[name]), name)
            globals()[name] = value
            return value
        if name in __all__:
            return importlib.import_module(f"skanomaly.{name}")
        raise AttributeError(f"module 'skanomaly' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
