"""Resize photographs with torch, where its pixels are Pillow's but for the rounding."""

from __future__ import annotations

import numpy as np

from skanomaly._images import resize_image
from skanomaly._optional import import_optional

# Stands for the resized pixels in the keys of cached tokens: to be raised whenever one changes.
RESIZE_VERSION = 1


def fast_resize(
    image: np.ndarray, size: tuple[int, int], interpolation: str, user: str
) -> np.ndarray:
    """Resize an RGB image as ``resize_image``, several times faster where torch can stand in.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3), uint8 or float32
        Writable.
    size : tuple of int
        New (height, width) in pixels.
    interpolation : {"nearest", "bilinear", "bicubic", "lanczos"}
        The filter.
    user : str
        What needs torch, for the error where it is missing.

    Returns
    -------
    ndarray of shape (height, width, 3), dtype of `image`
        Within one grey level of what ``resize_image`` gives; the same for an image in any thread,
        under any number of threads of torch, and on processors with and without AVX.

    Raises
    ------
    ValueError
        From ``resize_image``.
    """
    if not _torch_agrees(image, size, interpolation):
        return resize_image(image, size, interpolation)
    torch = import_optional("torch", "torch", user)
    with torch.inference_mode():
        channels = torch.from_numpy(image).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(
            channels, size=tuple(size), mode=interpolation, antialias=True
        )
        return resized[0].permute(1, 2, 0).contiguous().numpy()


def _torch_agrees(image: np.ndarray, size: tuple[int, int], interpolation: str) -> bool:
    """Whether torch's pixels are Pillow's to one grey level.

    torch resizes the rows first, always. So does Pillow, but for tall images in recent versions;
    the order shows in bicubic pixels, which are cut to 0..255 after either step. Either rounds
    after each step, torch with coarser weights. Where two pixels, a level apart each, weigh more
    than one (a scale of less than about 7:4), that may add up to two levels. And in a result one
    pixel wide torch misreads its strides on processors without AVX2.
    """
    if image.dtype != np.uint8 or interpolation not in ("bilinear", "bicubic"):
        return False
    (old_height, old_width), (height, width) = image.shape[:2], size
    shrinks = min(size) > 1 and 7 * height <= 4 * old_height and 7 * width <= 4 * old_width
    return shrinks and old_height <= old_width and width * old_height <= height * old_width
