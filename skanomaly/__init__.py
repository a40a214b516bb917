"""Visual anomaly detection for scikit-learn.

Embedders turn images into patch tokens, scorers turn patch tokens into calibrated scores, and
both are composed in a plain :class:`sklearn.pipeline.Pipeline`.
"""

import importlib

__version__ = "0.1.0"

# Public name -> module that defines it. Loaded at first use, so that `import skanomaly` costs
# next to nothing and brings in neither torch nor any other extra.
_EXPORTS = {
    "DinoV2Patches": "skanomaly.embedders",
    "FilterBankPatches": "skanomaly.embedders",
    "FunctionPatches": "skanomaly.embedders",
    "OpenClipPatches": "skanomaly.embedders",
    "TimmPatches": "skanomaly.embedders",
    "PatchGaussianScorer": "skanomaly.scorers",
    "PatchKNNScorer": "skanomaly.scorers",
    "PromptScorer": "skanomaly.scorers",
    "ScoreUnion": "skanomaly.scorers",
    "AnomalibDetector": "skanomaly.anomalib",
    "ImageReadError": "skanomaly._images",
    "AnomalyMapDisplay": "skanomaly.inspection",
    "anomaly_maps": "skanomaly.inspection",
    "benchmark": "skanomaly.benchmarking",
    "create_model": "skanomaly.registry",
    "evaluate_split": "skanomaly.evaluation",
    "list_models": "skanomaly.registry",
    "model_info": "skanomaly.registry",
}
_SUBMODULES = (
    "anomalib",
    "base",
    "benchmarking",
    "datasets",
    "embedders",
    "estimator_checks",
    "evaluation",
    "inspection",
    "metrics",
    "model_selection",
    "registry",
    "scorers",
)

__all__ = ["__version__", *_EXPORTS, *_SUBMODULES]


def __getattr__(name):
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"skanomaly.{name}")
    raise AttributeError(f"module 'skanomaly' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
