"""What a detector says of images: heat maps, overlays, displays, p-values."""

from skanomaly.inspection._displays import AnomalyMapDisplay, overlay_map
from skanomaly.inspection._limits import color_limits
from skanomaly.inspection._maps import anomaly_maps, p_values, p_values_of, score_images

__all__ = [
    "AnomalyMapDisplay",
    "anomaly_maps",
    "color_limits",
    "overlay_map",
    "p_values",
    "p_values_of",
    "score_images",
]
