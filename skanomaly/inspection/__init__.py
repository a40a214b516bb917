"""Where in an image the anomaly is: heat maps, overlays, displays."""

from skanomaly.inspection._displays import AnomalyMapDisplay, overlay_map
from skanomaly.inspection._maps import anomaly_maps, score_images

__all__ = ["AnomalyMapDisplay", "anomaly_maps", "overlay_map", "score_images"]
