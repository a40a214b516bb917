"""What a detector decides of images, and thresholds that are moved without a refit."""

from skanomaly.decisions._decide import Decision, decide
from skanomaly.decisions._recalibrate import recalibrate
from skanomaly.decisions._tune import tune_threshold
from skanomaly.decisions._tuned import TunedThreshold
from skanomaly.decisions._tuned_on import warn_if_tuned_on

__all__ = [
    "Decision",
    "TunedThreshold",
    "decide",
    "recalibrate",
    "tune_threshold",
    "warn_if_tuned_on",
]
