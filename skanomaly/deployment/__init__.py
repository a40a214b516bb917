"""Detectors outside Python: one graph from the image to the verdict."""

from skanomaly.deployment._detector import DeployedDetector
from skanomaly.deployment._export import export_model

__all__ = ["DeployedDetector", "export_model"]
