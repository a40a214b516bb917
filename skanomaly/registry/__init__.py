"""Models by name: what there is, and how to make one."""

from skanomaly.registry._create import (
    ModelInfo,
    create_model,
    embedder_of,
    list_models,
    model_info,
)

__all__ = ["ModelInfo", "create_model", "embedder_of", "list_models", "model_info"]
