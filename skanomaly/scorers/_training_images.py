"""Which of the training images are calibrated on, and what is kept of their scores."""

from __future__ import annotations

import numpy as np

from skanomaly._faults import of_an_image
from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import ArrayLike, FloatArray, IntArray

# Patches of training images that are searched for the threshold: 128 images of 1024 patches. With
# more, images are taken at even steps, which bounds the cost of calibration.
MAX_CALIBRATION_PATCHES = 2**17


def check_scores(scores: ArrayLike, n_images: int | None, owner: str, first: int = 0) -> FloatArray:
    """The scores of images as a scorer made them; an error where they could call none anomalous.

    Parameters
    ----------
    scores : array-like
        What a scorer returned.
    n_images : int or None
        How many there must be; None for any number.
    owner : str
        The scorer, for the message.
    first : int, default=0
        Number of the first image, for the message.

    Returns
    -------
    ndarray of shape (n_images,), float64

    Raises
    ------
    ValueError
        When there are more or fewer, or one is not a finite number.
    """
    values = np.asarray(scores, dtype=np.float64)  # None becomes NaN
    if values.ndim != 1 or not len(values) or n_images not in (None, len(values)):
        wanted = "one for each image" if n_images is None else f"{n_images}, one for each image"
        raise ValueError(f"{owner} made scores of shape {values.shape}: there must be {wanted}")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise of_an_image(
            ValueError(
                f"{owner} gave image {first + bad[0]} the score {values[bad[0]]}, which is below "
                "no threshold: scores must be finite. Look for tokens that are too large, or for a "
                "fault of the scorer"
            )
        )
    return values


def calibration_images(tokens: PatchTokens) -> IntArray:
    """Numbers of the images to calibrate on: all, or so many at even steps as cost not too much."""
    n_patches = len(tokens.values) // tokens.n_views
    return np.arange(0, tokens.n_images, -(-n_patches // MAX_CALIBRATION_PATCHES))


def images_of_scores(tokens: PatchTokens, n_scores: int) -> IntArray | None:
    """Numbers of the images that so many training scores are of; None where that is not known."""
    for images in (np.arange(tokens.n_images), calibration_images(tokens)):
        if n_scores == len(images):
            return images
    return None


def groups_of_scores(
    tokens: PatchTokens, images: IntArray | None, n_scores: int, owner: str
) -> IntArray | None:
    """The group of each training score, which are those of `images`; None without groups."""
    if tokens.groups is None:
        return None
    if images is None:
        raise ValueError(
            f"{owner} made {n_scores} scores of {tokens.n_images} training images: with groups it "
            "must make one of each"
        )
    return tokens.groups[images]


def grids_of(tokens: PatchTokens, scores: FloatArray) -> list[FloatArray]:
    """Scores of rows in the grid of each image; NaN for masked patches."""
    scores = np.where(tokens.valid, scores, np.nan)
    return [scores[tokens.rows(i)].reshape(tokens.grids[i]) for i in range(tokens.n_images)]
