"""Metrics of image scores and of anomaly maps: exact, and an error where they are undefined.

Image metrics are in scikit-learn's signs: `y_true` is +1 for normal and -1 for anomalous images,
and `scores` are higher for more normal images, as `score_samples` and `decision_function` return
them. The anomalous images are the positive class of precision and recall.

Pixel metrics are in the literature's sign: maps are higher where more anomalous. Masks are bool,
True where there is a defect. The truth comes first everywhere: ``(y_true, scores)``,
``(masks, maps)``, ``(regions, maps)``.
"""

from skanomaly.metrics._costs import expected_cost_curve
from skanomaly.metrics._histogram import HistogramPixelMetrics
from skanomaly.metrics._image import (
    bootstrap_interval,
    image_auroc,
    image_average_precision,
    image_f1_max,
    image_f1_max_threshold,
    image_fpr_at_recall,
    image_recall_at_zero_fpr,
)
from skanomaly.metrics._image_scorers import (
    IMAGE_SCORERS,
    ImageScorer,
    image_auroc_scorer,
    image_average_precision_scorer,
    image_f1_max_scorer,
    image_recall_at_zero_fpr_scorer,
    neg_image_fpr_at_recall_scorer,
)
from skanomaly.metrics._pixel import (
    aupro,
    pixel_auroc,
    pixel_average_precision,
    pixel_f1_max,
    pixel_f1_max_threshold,
    pixel_iou,
    pixel_metrics,
    pro_curve,
)
from skanomaly.metrics._saturated_overlap import auspro, spro

__all__ = [
    "IMAGE_SCORERS",
    "HistogramPixelMetrics",
    "ImageScorer",
    "aupro",
    "auspro",
    "bootstrap_interval",
    "expected_cost_curve",
    "image_auroc",
    "image_auroc_scorer",
    "image_average_precision",
    "image_average_precision_scorer",
    "image_f1_max",
    "image_f1_max_scorer",
    "image_f1_max_threshold",
    "image_fpr_at_recall",
    "image_recall_at_zero_fpr",
    "image_recall_at_zero_fpr_scorer",
    "neg_image_fpr_at_recall_scorer",
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_f1_max",
    "pixel_f1_max_threshold",
    "pixel_iou",
    "pixel_metrics",
    "pro_curve",
    "spro",
]
