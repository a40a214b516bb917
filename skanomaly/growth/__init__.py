"""Fitted models that learn more images, forget some, or become one."""

from skanomaly.growth._forget import forget_images
from skanomaly.growth._merge import fit_shard, merge_models
from skanomaly.growth._update import update_model

__all__ = ["fit_shard", "forget_images", "merge_models", "update_model"]
