"""Resize images with Pillow, whose filters are what the networks were trained with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resize_image(
    image: NDArray[Any], size: tuple[int, int], interpolation: str = "bicubic", clip: bool = True
) -> NDArray[Any]:
    """Resize an RGB image, antialiased when it shrinks (Pillow's filters).

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8 or float32
        Float images are in [0, 1].
    size : tuple of int
        New (height, width) in pixels.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos"}, default="bicubic"
        The filter.
    clip : bool, default=True
        Clip float results to [0, 1]. Without, they are those of torch's antialiased interpolation.

    Returns
    -------
    resized : ndarray of shape (height, width, 3), dtype of `image`
        `image` itself when its size is already `size`. Bicubic and lanczos filters have negative
        lobes and overshoot at edges; Pillow clips that for uint8 (in each of its two passes), and
        float results are clipped to [0, 1] at the end, unless `clip` is False. The other filters
        average, and cannot leave the range.

    Raises
    ------
    ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._images import resize_image
    >>> image = np.zeros((4, 6, 3), dtype=np.uint8)
    >>> resize_image(image, (2, 3)).shape
    (2, 3, 3)
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}, not one of {list(INTERPOLATIONS)}.")
    if image.dtype not in (np.uint8, np.float32) or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            "Expected a uint8 or float32 image of shape (H, W, 3), got an array of shape "
            f"{image.shape} and dtype {image.dtype}."
        )
    height, width = size
    if isinstance(height, bool) or isinstance(width, bool):
        raise ValueError(f"size must be (height, width) in pixels, got {size!r}")
    if min(height, width, *image.shape) < 1:
        raise ValueError(f"Cannot resize an image of shape {image.shape} to {(height, width)}.")
    if image.shape[:2] == (height, width):
        return image
    resample = INTERPOLATIONS[interpolation]
    if image.dtype == np.uint8:
        return np.array(Image.fromarray(image).resize((width, height), resample))
    # Pillow's only float mode, "F", has a single channel.
    channels = [
        np.asarray(Image.fromarray(channel).resize((width, height), resample))
        for channel in np.ascontiguousarray(np.moveaxis(image, 2, 0))
    ]
    resized = np.stack(channels, axis=2)
    overshoots = interpolation in ("bicubic", "lanczos")
    return np.clip(resized, 0, 1) if clip and overshoots else resized
