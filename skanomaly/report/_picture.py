"""The picture of one part: its image and its heat map, side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skanomaly._typing import FloatArray, ImageLike
from skanomaly.inspection import overlay_map


def part_picture(
    image: ImageLike,
    heat_map: FloatArray,
    mask: NDArray[np.bool_] | None,
    score: float,
    threshold: float,
    limits: tuple[float, float],
) -> Image.Image:
    """Image and heat map side by side.

    Parameters
    ----------
    image : image
        Path, bytes, PIL image or array.
    heat_map : ndarray of shape (height, width)
        Of the image's size; higher is more anomalous.
    mask : ndarray of shape (height, width), bool, or None
        The known defect, which is outlined.
    score, threshold : float
        Of the image: it is anomalous where its score is below the threshold.
    limits : tuple of float
        ``(low, high)`` of the colours.

    Returns
    -------
    PIL.Image.Image
        In colour.
    """
    plain = overlay_map(image, np.zeros_like(heat_map), (0, 1))
    painted = overlay_map(image, heat_map, limits, mask)
    return Image.fromarray(np.hstack([plain, painted]))
