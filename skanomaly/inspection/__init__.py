"""What a detector says of images: maps, regions, explanations, displays, p-values."""

from skanomaly.inspection._calibration_display import CalibrationDisplay
from skanomaly.inspection._colours import colour_table
from skanomaly.inspection._displays import AnomalyMapDisplay, overlay_map
from skanomaly.inspection._explain import explain
from skanomaly.inspection._explanation import Explanation, NearestPatch, patch_box
from skanomaly.inspection._export import regions_to_coco, save_region_masks, write_coco
from skanomaly.inspection._limits import color_limits
from skanomaly.inspection._maps import anomaly_maps, p_values, p_values_of, score_images
from skanomaly.inspection._neighbor_display import NearestPatchDisplay
from skanomaly.inspection._pro_display import PROCurveDisplay
from skanomaly.inspection._region_threshold import region_threshold
from skanomaly.inspection._regions import Region, anomaly_regions, find_regions
from skanomaly.inspection._score_display import ScoreHistogramDisplay
from skanomaly.inspection._threshold_display import ThresholdDisplay

__all__ = [
    "AnomalyMapDisplay",
    "CalibrationDisplay",
    "Explanation",
    "NearestPatch",
    "NearestPatchDisplay",
    "PROCurveDisplay",
    "Region",
    "ScoreHistogramDisplay",
    "ThresholdDisplay",
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
