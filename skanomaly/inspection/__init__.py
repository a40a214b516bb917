"""What a detector says of images: maps, regions, explanations, displays, p-values."""

from skanomaly.inspection._colours import colour_table
from skanomaly.inspection._displays import AnomalyMapDisplay, overlay_map
from skanomaly.inspection._explain import explain
from skanomaly.inspection._explanation import Explanation, NearestPatch, patch_box
from skanomaly.inspection._export import regions_to_coco, save_region_masks, write_coco
from skanomaly.inspection._limits import color_limits
from skanomaly.inspection._maps import anomaly_maps, p_values, p_values_of, score_images
from skanomaly.inspection._region_threshold import region_threshold
from skanomaly.inspection._regions import Region, anomaly_regions, find_regions

__all__ = [
    "AnomalyMapDisplay",
    "Explanation",
    "NearestPatch",
    "Region",
    "anomaly_maps",
    "anomaly_regions",
    "color_limits",
    "colour_table",
    "explain",
    "find_regions",
    "overlay_map",
    "p_values",
    "p_values_of",
    "patch_box",
    "region_threshold",
    "regions_to_coco",
    "save_region_masks",
    "score_images",
    "write_coco",
]
