"""The arithmetic of the libraries that resize images of 8 bits, as products with whole numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray

# Bits behind the point in the weights of Pillow; those of torch have the most that 16 bits hold.
PILLOW_BITS = 22
_TORCH_MOST = 2**15


def resampling_weights(n_in: int, n_out: int, interpolation: str) -> FloatArray:
    """What each pixel of a line weighs in each pixel of the resized line.

    Parameters
    ----------
    n_in, n_out : int
        Pixels before and after.
    interpolation : {"bilinear", "bicubic", "lanczos"}
        The filter; where the line shrinks it is stretched, so that nothing is skipped.

    Returns
    -------
    ndarray of shape (n_out, n_in), float64
        Rows sum to 1.

    Raises
    ------
    ValueError
        For another filter.

    Examples
    --------
    >>> from skanomaly.core.resampling import resampling_weights
    >>> resampling_weights(4, 2, "bilinear").round(3)
    array([[0.429, 0.429, 0.143, 0.   ],
           [0.   , 0.143, 0.429, 0.429]])
    """
    if interpolation not in _FILTERS:
        raise ValueError(f"interpolation is {interpolation!r}, not one of {list(_FILTERS)}")
    support, kernel = _FILTERS[interpolation]
    scale = n_in / n_out
    stretch = max(scale, 1.0)
    weights = np.zeros((n_out, n_in))
    for place in range(n_out):
        centre = (place + 0.5) * scale
        first = max(int(centre - support * stretch + 0.5), 0)
        last = min(int(centre + support * stretch + 0.5), n_in)
        found = kernel((np.arange(first, last) - centre + 0.5) * (1 / stretch))
        # One after the other, as those libraries add: the last bit decides what a half becomes.
        weights[place, first:last] = found / sum(found.tolist())
    return weights


def whole_weights(weights: FloatArray, bits: int) -> FloatArray:
    """Weights as whole numbers of ``2 ** -bits``, halves away from zero.

    Parameters
    ----------
    weights : ndarray of shape (n_out, n_in)
        From :func:`resampling_weights`.
    bits : int
        Such as `PILLOW_BITS`.

    Returns
    -------
    ndarray of shape (n_out, n_in), float64

    Examples
    --------
    >>> from skanomaly.core.resampling import resampling_weights, whole_weights
    >>> whole_weights(resampling_weights(4, 2, "bilinear"), 8)
    array([[110., 110.,  37.,   0.],
           [  0.,  37., 110., 110.]])
    """
    scaled = weights * 2.0**bits
    return np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5))


def torch_bits(weights: FloatArray) -> int:
    """Bits behind the point that torch gives weights, for images of 8 bits.

    Parameters
    ----------
    weights : ndarray of shape (n_out, n_in)
        From :func:`resampling_weights`.

    Returns
    -------
    int
        The most, but 22, with which the largest weight takes 16 bits and a sign.

    Examples
    --------
    >>> from skanomaly.core.resampling import resampling_weights, torch_bits
    >>> torch_bits(resampling_weights(4, 2, "bilinear"))
    16
    """
    largest = weights.max()
    bits = 0
    while bits < PILLOW_BITS and int(0.5 + largest * 2 ** (bits + 1)) < _TORCH_MOST:
        bits += 1
    return bits


def resample(
    pixels: NDArray[np.uint8], weights: FloatArray, bits: int, axis: int
) -> NDArray[np.uint8]:
    """Resize along one axis.

    Parameters
    ----------
    pixels : ndarray of uint8
        Of any shape.
    weights : ndarray of shape (n_out, n_in), float64
        Whole, from :func:`whole_weights`.
    bits : int
        Of those weights.
    axis : int
        Of length `n_in`.

    Returns
    -------
    ndarray of uint8
        Rounded, halves up, and cut to 0..255.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.resampling import resample, resampling_weights, whole_weights
    >>> weights = whole_weights(resampling_weights(4, 2, "bilinear"), 22)
    >>> resample(np.array([0, 0, 255, 255], dtype=np.uint8), weights, 22, axis=0)
    array([ 36, 219], dtype=uint8)
    """
    moved = np.moveaxis(pixels, axis, -1).astype(np.float64)  # in which these sums are exact
    sums = np.floor(moved @ weights.T / 2.0**bits + 0.5)
    return np.moveaxis(np.clip(sums, 0, 255).astype(np.uint8), -1, axis)


def _triangle(x: FloatArray) -> FloatArray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: FloatArray) -> FloatArray:
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def _lanczos(x: FloatArray) -> FloatArray:
    return np.where((x >= -3) & (x < 3), _sinc(x) * _sinc(x / 3), 0)


def _sinc(x: FloatArray) -> FloatArray:
    angle = np.where(x == 0, 1, x) * np.pi
    return np.where(x == 0, 1, np.sin(angle) / angle)


# How far each reaches, in pixels, and itself.
_FILTERS = {"bilinear": (1.0, _triangle), "bicubic": (2.0, _cubic), "lanczos": (3.0, _lanczos)}
