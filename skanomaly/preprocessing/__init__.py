"""Transformers of patch tokens, for Pipelines, between embedder and scorer."""

from skanomaly.preprocessing._pca_foreground import PCAForeground
from skanomaly.preprocessing._region_of_interest import RegionOfInterest

__all__ = ["PCAForeground", "RegionOfInterest"]
