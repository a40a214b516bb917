"""The one colour scale of heat maps: displays, pictures and reports take it from here."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from skanomaly._parameters import check_integer
from skanomaly._typing import FloatArray

# Lightness, chroma and hue in OKLCh of the control points of a quadratic Bezier curve: a light
# yellow, what bends the curve through orange and red, and violet. Violet, as dark as it is, is what
# stands out most over black, grey, white and brown, to eyes that lack any one kind of cones too;
# red is lost on them over dark things. tests/inspection/test_colours.py measures this.
_CONTROLS = ((0.93, 0.12, 100.0), (0.73, 0.195, 50.0), (0.53, 0.23, 325.0))
_OPACITY = 0.75  # of full heat: what lies beneath stays visible
_N_COLOURS = 2041  # 8 steps for each of the 255 of a picture

# Ottosson's: from OKLab to cube roots of cone responses, and from their cubes to linear sRGB.
_TO_CONES = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_TO_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)


def colour_table(n: int = 256) -> NDArray[np.uint8]:
    """The colour scale of heat maps as a table, from clear to full.

    Parameters
    ----------
    n : int, default=256
        Number of colours, at least 2, evenly spaced from the lower to the upper limit.

    Returns
    -------
    ndarray of shape (n, 4), uint8
        Red, green, blue and opacity; colours are not multiplied with their opacity. The opacity
        rises evenly from 0 to three quarters.

    Raises
    ------
    ValueError
        When `n` is no integer of at least 2.

    Notes
    -----
    From light yellow through orange and red to violet, a curve in OKLab [1]_ in steps of equal
    length: they are about equally large to the eye, and the lightness falls from each to the next,
    also for those who cannot tell red from green or blue from yellow. Over any grey, nothing stands
    out more than full heat does.

    References
    ----------
    .. [1] Ottosson, "A perceptual color space for image processing", 2020,
       https://bottosson.github.io/posts/oklab.

    Examples
    --------
    >>> from skanomaly.inspection import colour_table
    >>> colour_table(3).tolist()
    [[250, 234, 137, 0], [230, 127, 118, 96], [168, 29, 178, 191]]
    """
    heat = np.linspace(0, 1, check_integer(n, "n", 2))
    return (heat_colours(heat) * 255 + 0.5).astype(np.uint8)


def heat_colours(heat: FloatArray) -> FloatArray:
    """Colours of heat from 0 to 1, with how much they cover: clear, yellow, red, violet.

    Parameters
    ----------
    heat : ndarray
        0 for the lower limit of the colours, 1 for the upper one.

    Returns
    -------
    ndarray of shape (..., 4)
        Red, green, blue and opacity, each from 0 to 1, of the nearest of 2041 heats.
    """
    return _scale()[np.rint(heat * (_N_COLOURS - 1)).astype(np.intp)]


@cache
def _scale() -> FloatArray:
    """The colours of evenly spaced heats, shape (_N_COLOURS, 4)."""
    heat = np.linspace(0, 1, _N_COLOURS)
    fine = _curve(np.linspace(0, 1, 8 * _N_COLOURS))
    length = np.append(0, np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1)))
    at = np.interp(heat, length / length[-1], np.linspace(0, 1, len(fine)))
    linear = (_curve(at) @ np.transpose(_TO_CONES)) ** 3 @ np.transpose(_TO_RGB)
    encoded = 1.055 * np.clip(linear, 0, 1) ** (1 / 2.4) - 0.055  # none is in sRGB's linear toe
    table = np.column_stack([encoded, _OPACITY * heat])
    table.flags.writeable = False
    return table


def _curve(at: FloatArray) -> FloatArray:
    """Points of the Bezier curve in OKLab, at parameters from 0 to 1."""
    lightness, chroma, hue = np.transpose(_CONTROLS)
    points = np.stack(
        [lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], axis=1
    )
    weights = np.stack([(1 - at) ** 2, 2 * at * (1 - at), at**2], axis=1)
    return weights @ points
