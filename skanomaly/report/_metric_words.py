"""What the numbers of an evaluation say, for people who do not know them by name."""

from __future__ import annotations

_WORDS = {
    "image_auroc": (
        "Image AUROC",
        "how often a defective part scores worse than a good one; 1 is best, 0.5 is chance",
    ),
    "image_average_precision": (
        "Image average precision",
        "how pure the list of most unusual parts is in defective ones; 1 is best",
    ),
    "image_f1_max": (
        "Image F1, at its best threshold",
        "balance of defects found and flags that are right; 1 is best",
    ),
    "image_recall_at_zero_fpr": (
        "Defects found at zero overkill",
        "share found by a threshold that flags no good part; 1 is best",
    ),
    "image_fpr_at_95_recall": (
        "Good parts flagged at 95% of defects found",
        "the price of finding nearly all; 0 is best",
    ),
    "pixel_auroc": (
        "Pixel AUROC",
        "how often a defective pixel scores worse than a normal one; 1 is best",
    ),
    "pixel_average_precision": (
        "Pixel average precision",
        "how pure the most unusual pixels are in defective ones; 1 is best",
    ),
    "pixel_f1_max": (
        "Pixel F1, at its best threshold",
        "agreement of the map with the drawn defects; 1 is best",
    ),
}


def metric_in_words(name: str) -> tuple[str, str]:
    """A title of a metric, and what it says.

    Parameters
    ----------
    name : str
        Of the metric.

    Returns
    -------
    title, explanation : str
        Of a metric that is not known here, its name and nothing.
    """
    if name.startswith("aupro_"):
        limit = f"{100 * float(name.removeprefix('aupro_')):g}%"
        return (
            f"AUPRO, up to {limit} of normal pixels",
            "how much of each defect the map covers before it covers that much else; 1 is best",
        )
    return _WORDS.get(name, (name.replace("_", " "), ""))
