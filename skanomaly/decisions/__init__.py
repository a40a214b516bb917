"""What a detector decides of images, and thresholds that are moved without a refit."""

from skanomaly.decisions._decide import Decision, decide

__all__ = ["Decision", "decide"]
