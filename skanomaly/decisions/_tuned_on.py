"""Images that chose a threshold, and images that are then measured on."""

from __future__ import annotations

from typing import Any

from skanomaly._images import check_images
from skanomaly._images.training import training_images
from skanomaly._pipelines import split_pipeline
from skanomaly._typing import Images
from skanomaly._warn import warn_user

_NAMED = 5


def warn_if_tuned_on(estimator: Any, images: Images) -> None:
    """Warn where images that are to be measured on are those that the threshold was chosen on.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted. The threshold of one that :func:`~skanomaly.recalibrate` or
        :func:`~skanomaly.tune_threshold` made rests on other images than the training images; they
        are recognised by what is in their files.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        The images to be measured on, such as those of a test set.

    Warns
    -----
    UserWarning
        It names the images, by their numbers: rates measured on them are too good.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, recalibrate
    >>> from skanomaly.datasets import make_surfaces
    >>> from skanomaly.decisions import warn_if_tuned_on
    >>> good = make_surfaces(24, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(good[:12])
    >>> warn_if_tuned_on(recalibrate(pipe, images=good[12:22]), good[22:])  # these are others
    """
    calibration = getattr(split_pipeline(estimator).scorer, "calibration_", {})
    # A threshold that needs no image was chosen on none, whatever p-values rest on.
    is_fixed = calibration.get("kind") == "auto"
    known = set() if is_fixed else set(calibration.get("image_digests", ()))
    if not known:
        return
    digests = training_images(check_images(images)).digests
    found = [i for i, digest in enumerate(digests) if digest in known]
    if found:
        warn_user(
            f"{len(found)} of {len(digests)} images ({listed(found)}) are images that the "
            "threshold was chosen on: rates of misses and false alarms that are measured on them "
            "are too good. Measure on images that had no part in it"
        )


def listed(numbers: list[int]) -> str:
    """The first few numbers of images, as text."""
    shown = ", ".join(map(str, numbers[:_NAMED]))
    return f"number{'s' * (len(numbers) > 1)} {shown}" + ", ..." * (len(numbers) > _NAMED)
