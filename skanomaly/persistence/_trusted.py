"""What may be in a model file: types and functions that are trusted, by name and by place.

Objects of the types below are made without a call of their constructor, and given their attributes.
So each of them must do no harm whatever its attributes are: it calls nothing that it holds but
methods of its own kind (`fit`, `transform`, `predict`, ...) of estimators, and what this module
allows in that place. Left out for that reason are, among others, transformers that call functions
or attributes by name (`ColumnTransformer`, `SelectFromModel`, `SelectKBest`), splitters that call
a class (`RepeatedKFold`), and what reads arrays in compiled code without checks (trees, SVMs,
search trees, sparse matrices).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_OURS = {
    "anomalib._detector": ["AnomalibDetector"],
    "core.explanations": ["Component", "NeighborPatch", "PatchExplanation"],
    "core.fingerprints": ["ImageFingerprints"],
    "core.gaussian": ["PatchGaussian"],
    "core.gaussian_moments": ["GaussianMoments"],
    "core.region_overlap": ["Region"],
    "core.local_bank": ["LocalBank"],
    "core.local_metric": ["Metric"],
    "core.local_units": ["Units"],
    "core.search.index": ["PatchIndex"],
    "core.search.sorting": ["Part"],
    "core.search.tuning": ["Tuning"],
    "deployment._detector": ["DeployedDetector"],
    "detectors._image_union": ["ImageUnion"],
    "core.subspace": ["Subspace", "TokenStatistics"],
    "core.token_space": ["TokenSpace"],
    "embedders._dinov2": ["DinoV2Patches"],
    "embedders._filter_bank": ["FilterBankPatches"],
    "embedders._function": ["FunctionPatches"],
    "embedders._openclip": ["OpenClipPatches"],
    "embedders._tiled": ["Tiled"],
    "embedders._timm": ["TimmPatches"],
    "embedders._tiny": ["TinyPatches"],
    "_images.training": ["TrainingImages"],
    "_patch_tokens": ["PatchTokens"],
    "model_selection": ["OneClassSplit"],
    "persistence._tree": ["StoredArray", "StoredArrays", "StoredPath"],
    "preprocessing._pca_foreground": ["PCAForeground"],
    "preprocessing._region_of_interest": ["RegionOfInterest"],
    "scorers._local_knn": ["LocalKNNScorer"],
    "scorers._local_model": ["FewImages", "LocalModel"],
    "scorers._mutual": ["MutualScorer"],
    "scorers._patch_gaussian": ["PatchGaussianScorer", "_GaussianModel"],
    "scorers._patch_subspace": ["PatchSubspaceScorer"],
    "scorers._patchwise": ["PatchwiseScorer"],
    "scorers._memory_bank": ["MemoryBank", "MemoryBanks"],
    "scorers._patch_knn": ["PatchKNNScorer"],
    "scorers._prompt": ["PromptScorer"],
    "scorers._retrieval_knn": ["RetrievalKNNScorer", "_TrainingImages"],
    "scorers._score_union": ["ScoreUnion"],
}
# Around our estimators, and transformers of numbers between them. FunctionTransformer calls a
# function, which can only be a ufunc of NumPy, or one that is named in `trusted`.
_SKLEARN = {
    "sklearn.pipeline": ["FeatureUnion", "Pipeline"],
    "sklearn.model_selection": [
        "GridSearchCV",
        "RandomizedSearchCV",
        "GroupKFold",
        "GroupShuffleSplit",
        "KFold",
        "LeaveOneGroupOut",
        "LeaveOneOut",
        "LeavePGroupsOut",
        "LeavePOut",
        "PredefinedSplit",
        "ShuffleSplit",
        "StratifiedGroupKFold",
        "StratifiedKFold",
        "StratifiedShuffleSplit",
        "TimeSeriesSplit",
    ],
    "sklearn.preprocessing": [
        "Binarizer",
        "FunctionTransformer",
        "KernelCenterer",
        "MaxAbsScaler",
        "MinMaxScaler",
        "Normalizer",
        "PolynomialFeatures",
        "PowerTransformer",
        "QuantileTransformer",
        "RobustScaler",
        "StandardScaler",
    ],
    "sklearn.decomposition": [
        "FactorAnalysis",
        "FastICA",
        "IncrementalPCA",
        "KernelPCA",
        "MiniBatchNMF",
        "NMF",
        "PCA",
        "TruncatedSVD",
    ],
    "sklearn.feature_selection": ["VarianceThreshold"],
    "sklearn.random_projection": ["GaussianRandomProjection"],
    "sklearn.kernel_approximation": ["Nystroem", "RBFSampler"],
}
# They call a metric, and a method of the estimator that they are given: only as scorers of
# searches, where that is the estimator searched.
SEARCHES = frozenset(
    f"sklearn.model_selection._search.{name}" for name in ("GridSearchCV", "RandomizedSearchCV")
)
IMAGE_SCORER = "skanomaly.metrics._image_scorers.ImageScorer"
SCORER = "sklearn.metrics._scorer._Scorer"
SCORERS = "sklearn.metrics._scorer._MultimetricScorer"
RESPONSES = frozenset(["decision_function", "predict", "predict_proba", "score_samples"])
# Functions of numbers and labels, which call nothing that they are given.
_METRICS = {
    "skanomaly.metrics._image": [
        "image_auroc",
        "image_average_precision",
        "image_f1_max",
        "image_fpr_at_recall",
        "image_recall_at_zero_fpr",
    ],
    "sklearn.metrics": [
        "accuracy_score",
        "average_precision_score",
        "balanced_accuracy_score",
        "f1_score",
        "fbeta_score",
        "jaccard_score",
        "matthews_corrcoef",
        "precision_score",
        "recall_score",
        "roc_auc_score",
    ],
}

# Where versions of NumPy say that their ufuncs are.
_UFUNCS = ("numpy", "numpy._core._multiarray_umath", "numpy.core._multiarray_umath")

# What is left out above, and why.
_REASONS = {
    "skanomaly.core.search.faiss_index.FaissIndex": "faiss reads its indices with too few checks, "
    "so that a made-up file could do harm",
}


@lru_cache(maxsize=1)
def trusted_types() -> frozenset[str]:
    """Names of the types of which a file may hold objects anywhere."""
    ours = {f"skanomaly.{module}.{name}" for module, names in _OURS.items() for name in names}
    return frozenset(ours | _names(_SKLEARN))


@lru_cache(maxsize=1)
def trusted_metrics() -> frozenset[str]:
    """Names of the functions that a scorer in a file may call."""
    return _names(_METRICS)


@lru_cache(maxsize=1)
def number_types() -> frozenset[str]:
    """Names of the types of NumPy's numbers and texts."""
    kinds = (np.number, np.bool_, np.str_)
    return frozenset(
        f"numpy.{kind.__name__}" for kind in np.sctypeDict.values() if issubclass(kind, kinds)
    )


def is_ufunc(module: str, name: str) -> bool:
    """Whether a name is that of one of NumPy's functions of numbers, such as ``numpy.sqrt``."""
    return module in _UFUNCS and isinstance(getattr(np, name, None), np.ufunc)


def untrusted_error(path: object, names: Sequence[str]) -> TypeError:
    """The error for a file that holds what is not trusted.

    Parameters
    ----------
    path : object
        Of the file.
    names : sequence of str
        Of types and functions.

    Returns
    -------
    TypeError
    """
    reasons = "".join(f" {name}: {_REASONS[name]}." for name in names if name in _REASONS)
    listed = ", ".join(map(repr, names))
    return TypeError(
        f"{path} holds types that are not trusted: {', '.join(names)}.{reasons} Whoever made the "
        "file chose these names, and to load it is to use what they stand for here. If you know "
        f"them, load it with trusted=[{listed}]; on the command line with --plugin FILE, the file "
        "or module of Python that defines them, or with --trust NAME for each, where their module "
        "can be imported"
    )


def _names(table: dict[str, list[str]]) -> frozenset[str]:
    """The names under which what a module offers is defined; not all versions offer all."""
    found = set()
    for module, names in table.items():
        for name in names:
            if (value := getattr(importlib.import_module(module), name, None)) is not None:
                found.add(f"{value.__module__}.{value.__name__}")
    return frozenset(found)
