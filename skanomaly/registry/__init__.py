"""Models by name: what there is, how to make one, and how to give one's own a name."""

from skanomaly.registry._anomalydino import anomalydino_settings
from skanomaly.registry._create import create_model, embedder_of
from skanomaly.registry._info import ModelInfo, list_models, model_info
from skanomaly.registry._table import list_scorers, register_embedder, register_scorer

__all__ = [
    "ModelInfo",
    "anomalydino_settings",
    "create_model",
    "embedder_of",
    "list_models",
    "list_scorers",
    "model_info",
    "register_embedder",
    "register_scorer",
]
