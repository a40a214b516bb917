"""Which images entered a fitted model, as far as its steps remember them."""

from __future__ import annotations

from typing import Any

from skanomaly._pipelines import split_pipeline


def trained_on(estimator: Any) -> dict[str, str]:
    """The images that entered a fitted model, by their content.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted.

    Returns
    -------
    dict of str to str
        For the sha256 of each image its path, or where it had none its number. Those that `y`
        marked as anomalous are left out: they entered nothing. Empty where no step remembers.
    """
    split = split_pipeline(estimator)
    known, numbers = split.train_images, getattr(split.scorer, "_train_numbers", None)
    if known is None:
        return {}
    # An embedder that was fitted by itself, to others, does not know them by these numbers.
    used = range(len(known))
    if numbers is not None and len(numbers) and max(numbers) < len(known):
        used = numbers
    found: dict[str, str] = {}
    for i in used:
        if (digest := known.digests[i]) is not None:
            found.setdefault(digest, known.paths[i] or f"its image {i}")
    return found
