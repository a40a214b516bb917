"""Detectors: images to calibrated anomaly scores, whatever is between."""

from skanomaly.detectors._image_union import ImageUnion

__all__ = ["ImageUnion"]
