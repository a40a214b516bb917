"""Transformers of patch tokens, for Pipelines, between embedder and scorer."""

from skanomaly.preprocessing._pca_foreground import PCAForeground

__all__ = ["PCAForeground"]
