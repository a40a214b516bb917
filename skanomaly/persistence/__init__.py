"""Model files: an estimator in one file, which is read without running code from it."""

from skanomaly.persistence._loading import ModelVersionWarning, load_model, model_manifest
from skanomaly.persistence._saving import ModelTrustWarning, save_model

__all__ = ["ModelTrustWarning", "ModelVersionWarning", "load_model", "model_manifest", "save_model"]
