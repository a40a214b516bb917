"""Checks of scorers and embedders, beside those of :mod:`sklearn.utils.estimator_checks`.

They check what scikit-learn does not know of: forms of tokens, masked patches, held-out scores,
signs, maps; views, batches and containers of images. Scorers get tokens of 6 components, embedders
photographs of 64 x 64 pixels and more, so that an estimator has to take these.

Each check is a function of one estimator, which it clones, and raises an AssertionError where the
estimator does not do what this package's Pipelines, maps and evaluations rely on.
"""

from __future__ import annotations

from skanomaly.estimator_checks._embedders import EMBEDDER_CHECKS
from skanomaly.estimator_checks._running import (
    check_estimator,
    checks_of,
    parametrize_with_checks,
)
from skanomaly.estimator_checks._scorers import SCORER_CHECKS

__all__ = [
    "EMBEDDER_CHECKS",
    "SCORER_CHECKS",
    "check_estimator",
    "checks_of",
    "parametrize_with_checks",
]
