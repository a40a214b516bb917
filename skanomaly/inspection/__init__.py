"""What a detector says of images: maps, regions, explanations, displays, p-values."""

from skanomaly.inspection._colours import colour_table
from skanomaly.inspection._displays import AnomalyMapDisplay, overlay_map
from skanomaly.inspection._limits import color_limits
from skanomaly.inspection._maps import anomaly_maps, p_values, p_values_of, score_images
from skanomaly.inspection._regions import Region, anomaly_regions, find_regions, region_threshold

__all__ = [
    "AnomalyMapDisplay",
    "Region",
    "anomaly_maps",
    "anomaly_regions",
    "color_limits",
    "colour_table",
    "find_regions",
    "overlay_map",
    "p_values",
    "p_values_of",
    "region_threshold",
    "score_images",
]
