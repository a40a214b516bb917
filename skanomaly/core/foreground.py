"""The object in an image, by the first principal component of its patch tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage

from skanomaly._typing import FloatArray
from skanomaly.core.products import product

# The published rule: a sign is kept that calls more than this share of the centre foreground.
CENTRE_SHARE = 0.35
_SQUARE = np.ones((3, 3), dtype=bool)


def first_component(tokens: FloatArray) -> FloatArray:
    """First principal component of the tokens of one image, by scikit-learn's rule for its sign.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
        Finite.

    Returns
    -------
    ndarray of shape (n_tokens,), float64
        Where each token lies along the axis of the largest variance, from the mean of all. Of the
        loadings of that axis the one of largest magnitude is positive. 0 where all tokens are
        equal.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.foreground import first_component
    >>> first_component(np.array([[0.0, 1.0], [3.0, 1.0], [6.0, 1.0]]))
    array([-3.,  0.,  3.])
    """
    size = float(np.abs(tokens).max(initial=0))  # tokens near the largest float must not overflow
    if size == 0:
        return np.zeros(len(tokens))
    scaled = tokens.astype(np.float64) / size
    scaled -= scaled.mean(axis=0)
    n_tokens, dim = scaled.shape
    # The same axis from the smaller of the two products.
    wide = n_tokens < dim
    square = product(scaled, scaled.T) if wide else product(scaled.T, scaled)
    last = len(square) - 1
    vector = linalg.eigh(square, subset_by_index=(last, last))[1][:, 0]
    axis = product(scaled.T, vector) if wide else vector
    length = np.linalg.norm(axis)
    if length == 0:
        return np.zeros(n_tokens)
    axis = axis / (length * np.sign(axis[np.abs(axis).argmax()]))
    return product(scaled, axis) * size


def foreground_of(
    component: FloatArray, valid: NDArray[np.bool_], threshold: float, border: float
) -> NDArray[np.bool_]:
    """Which patches of one image show the object, by AnomalyDINO's rule.

    Parameters
    ----------
    component : ndarray of shape (grid_h, grid_w)
        First principal component of the tokens.
    valid : ndarray of shape (grid_h, grid_w), bool
        False for patches that are masked already, which count neither as object nor as centre.
    threshold : float
        Patches above it are foreground.
    border : float
        Share of the grid, at each side, that is not its centre.

    Returns
    -------
    ndarray of shape (grid_h, grid_w), bool

    Notes
    -----
    Where no more than 35% of the centre are above the threshold, the sign is turned, whatever that
    gives. What was found is then dilated, and its small holes are closed, by squares of 3 x 3;
    beyond the grid there is nothing that either step could take in.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.foreground import foreground_of
    >>> component = np.full((9, 9), -20.0)
    >>> component[3:6, 3:6] = 30
    >>> everywhere = np.ones((9, 9), dtype=bool)
    >>> foreground_of(component, everywhere, threshold=10, border=0.3).sum(axis=1)
    array([0, 0, 5, 5, 5, 5, 5, 0, 0])
    """
    found = (component > threshold) & valid
    centre = tuple(_centre(side, border) for side in component.shape)
    if found[centre].sum() <= CENTRE_SHARE * valid[centre].sum():
        found = (-component > threshold) & valid
    # Closing is a dilation, then an erosion that takes what lies beyond the grid for foreground.
    found = ndimage.binary_dilation(found, _SQUARE, iterations=2)
    return ndimage.binary_erosion(found, _SQUARE, border_value=1) & valid


def _centre(side, border):
    """Rows, or columns, of the centre: at least one."""
    start = int(side * border)
    return slice(start, max(start + 1, int(side * (1 - border))))
