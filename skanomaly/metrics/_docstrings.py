"""Entries that the docstrings of several metrics share."""

from __future__ import annotations

METRIC_DOCS = {
    "y_true": """
y_true : array-like of shape (n_images,)
    +1 normal, -1 anomalous.
""",
    "scores": """
scores : array-like of shape (n_images,)
    Higher is more normal.
""",
    "image_errors": """
ValueError
    When `y_true` holds anything but +1 and -1, such as 0 and 1, or one of them only; or a score is
    not finite.
""",
    "masks": """
masks : sequence of array-like of shape (height, width), bool
    True where there is a defect; all False for a good image. Or integers of two levels, 0 and one
    other.
""",
    "maps": """
maps : sequence of array-like of shape (height, width)
    Anomaly maps; higher is more anomalous. Sizes may differ between images.
""",
    "pixel_errors": """
ValueError
    When the metric is undefined, as no pixel or every pixel lies in a mask; when a map has NaN or
    infinity; when sizes differ, a mask is None, of float, such as where masks and maps are
    swapped, or of more levels than two, as compression leaves. The error names the image.
""",
}
