"""Hand-made patch descriptors: local colour, contrast and oriented energies on a regular grid."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skanomaly.core.products import product

# Products of (1 + z) and (1 - z): binomial smoothing with a standard deviation of one pixel and
# its first two derivatives, normalised to answer 1 to x and to x**2 / 2.
SMOOTH = np.array([1, 4, 6, 4, 1], dtype=np.float32) / 16
FIRST = np.array([-1, -2, 0, 2, 1], dtype=np.float32) / 8
SECOND = np.array([1, 0, -2, 0, 1], dtype=np.float32) / 4
# Of even length: a pixel of the next level lies midway between two of this one, so that cells stay
# where they are and the pyramid of a flipped image is the flipped pyramid.
HALVE = np.array([1, 3, 3, 1], dtype=np.float32) / 8

# Standard deviations of the pooling windows in pixels of the image: of the energies per level of
# the pyramid, and of colour and contrast.
ENERGY_WINDOWS = (5.0, 6.0, 8.0)
COLOUR_WINDOWS = (3.0, 6.0, 12.0)

# Share of a mean square below which a variance in float64 is what rounding may leave of sums of
# thousands of pixels: there the image is flat, on any processor.
FLAT = 2.0**-40

# Of a sample in a window. The fourth root of a mean square hardly moves by less.
_LEAST_WEIGHT = 1e-30

_EDGE_ANGLES = {"luma": 2 * np.pi * np.arange(8) / 8, "chroma": 2 * np.pi * np.arange(4) / 4}
_LINE_ANGLES = np.pi * np.arange(4) / 4
EDGE_STEERING = {
    plane: np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    for plane, angles in _EDGE_ANGLES.items()
}
LINE_STEERING = np.stack(
    [np.cos(_LINE_ANGLES) ** 2, np.sin(2 * _LINE_ANGLES), np.sin(_LINE_ANGLES) ** 2], axis=1
).astype(np.float32)

# (centre, scale) of each group of channels: mean and standard deviation over photographs and
# procedural textures, rounded; they hardly depend on the window and the level. Constants, not
# statistics of the training images, so that the descriptor needs no fit.
CALIBRATION = {
    "luma": (0.45, 0.1),
    "chroma": (0.0, 0.04),
    "luma contrast": (0.25, 0.06),
    "chroma contrast": (0.1, 0.04),
    "luma edges": (0.1, 0.03),
    "chroma edges": (0.04, 0.02),
    "luma lines": (0.1, 0.025),
    "chroma blobs": (0.05, 0.02),
}

# In words: the planes and where they are higher, the directions of edges and the ways of lines.
_PLANES = {"luma": "brighter", "red-green": "redder", "yellow-blue": "yellower"}
_SIDES = [
    "to the right",
    "to the lower right",
    "downwards",
    "to the lower left",
    "to the left",
    "to the upper left",
    "upwards",
    "to the upper right",
]
_WAYS = ("vertical", "rising", "horizontal", "falling")


def filter_bank_features(image: ArrayLike, stride: int = 8) -> NDArray[np.float32]:
    """Texture, colour and shape descriptors of the cells of a regular grid.

    Parameters
    ----------
    image : array-like of shape (height, width, 3)
        RGB image: uint8, or floating point with values in [0, 1].
    stride : int, default=8
        Side of a cell in pixels. The pooling windows do not depend on it and suit 4 to 16.

    Returns
    -------
    ndarray of shape (grid_h, grid_w, 102), float32
        Descriptors, with ``grid_h = ceil(height / stride)`` and likewise for the width. Cell
        ``(i, j)`` describes the surroundings of row ``(i + 0.5) * height / grid_h`` and column
        ``(j + 0.5) * width / grid_w``. All channels are finite and of about unit variance over
        everyday images.

    Raises
    ------
    ValueError
        For another shape or dtype of the image, or a stride below 1.

    Notes
    -----
    The model is that of Malik and Perona [1]_: linear filters, half-wave rectification, local
    pooling. The image is split into luma and two opponent colours, and each plane into a binomial
    pyramid of three levels [2]_. The first two derivatives of the smoothed plane are steerable
    [3]_: two and three filters give them in every direction. Channels, in this order:

    - 9 means: luma and the two colours in each of 3 windows;
    - 9 standard deviations, likewise;
    - at each of the 3 levels, finest first: 8 luma edges (rectified first derivative in 8
      directions), 4 edges of either colour, 8 luma lines (second derivative in 4 directions, its
      positive parts before the negative ones), 4 colour blobs (Laplacian, likewise).

    Energies are root mean squares in Gaussian windows. The square root of those and of the
    standard deviations is taken, which compresses strong edges and equalises the variance of weak
    and strong textures, before every group of channels is centred and scaled by constants.

    Images are extended by reflection, so that borders are no edges. Work and memory are
    proportional to the number of pixels, except for the pooling: a product with a dense matrix,
    the fastest way for images of up to about 1000 pixels.

    References
    ----------
    .. [1] J. Malik and P. Perona, "Preattentive texture discrimination with early vision
       mechanisms", Journal of the Optical Society of America A 7(5), 1990.
    .. [2] P. J. Burt and E. H. Adelson, "The Laplacian pyramid as a compact image code", IEEE
       Transactions on Communications 31(4), 1983.
    .. [3] W. T. Freeman and E. H. Adelson, "The design and use of steerable filters", IEEE
       Transactions on Pattern Analysis and Machine Intelligence 13(9), 1991.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.filter_bank import filter_bank_features
    >>> filter_bank_features(np.zeros((60, 256, 3), dtype=np.uint8)).shape
    (8, 32, 102)
    """
    planes = _opponent_planes(image)
    if isinstance(stride, bool) or stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride!r}")
    stride = int(stride)
    size = planes.shape[1:]
    grid = tuple(-(-side // stride) for side in size)
    groups = _colour_statistics(planes, grid)
    for level, window in enumerate(ENERGY_WINDOWS):
        if level:
            planes = _halve(planes)
        for name, responses in _rectified_responses(planes):
            mean_square = _pool(np.square(responses), size, grid, window, level)
            groups.append(_calibrate(np.sqrt(np.sqrt(mean_square)), name))
    return np.ascontiguousarray(np.concatenate(groups).transpose(1, 2, 0))


def filter_bank_names() -> list[str]:
    """What the channels of :func:`filter_bank_features` are, in their order.

    Returns
    -------
    list of str
        Of 102 names. Scales are in pixels of the image; positions are as one sees it.

    Examples
    --------
    >>> from skanomaly.core.filter_bank import filter_bank_names
    >>> [filter_bank_names()[i] for i in (0, 18, 34)]
    ['mean luma in 3 px', 'luma edge of 1 px, brighter to the right', 'dark line of 1 px, vertical']
    """
    names = [
        f"{what} {plane} in {window:g} px"
        for what in ("mean", "contrast of")
        for window in COLOUR_WINDOWS
        for plane in _PLANES
    ]
    for level in range(len(ENERGY_WINDOWS)):
        scale = f"of {2**level} px"
        for plane, more in _PLANES.items():
            n = len(_EDGE_ANGLES["luma" if plane == "luma" else "chroma"])
            names += [f"{plane} edge {scale}, {more} {to}" for to in _SIDES[:: len(_SIDES) // n]]
        names += [f"{tone} line {scale}, {way}" for tone in ("dark", "bright") for way in _WAYS]
        names += [f"{tone} spot {scale}" for tone in ("greener", "bluer", "redder", "yellower")]
    return names


def _opponent_planes(image):
    """(3, height, width) float32: luma, red against green, yellow against blue."""
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must have shape (height, width, 3), got {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image must be uint8 or floating point, got {image.dtype}")
    red, green, blue = np.moveaxis(image, 2, 0).astype(np.float32)
    planes = np.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue])
    return planes / np.float32(255) if image.dtype == np.uint8 else planes


def _colour_statistics(planes, grid):
    """Groups of channels with the mean and the compressed standard deviation of each plane."""
    size = planes.shape[1:]
    means, contrasts = [], []
    # The variance is a difference of squares, of which a fourth root makes much of what rounding
    # leaves: around the image's mean and in float64 it keeps its digits.
    offset = planes.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    moments = np.empty((2 * len(planes), *size))
    np.subtract(planes, offset, out=moments[: len(planes)])
    np.square(moments[: len(planes)], out=moments[len(planes) :])
    for window in COLOUR_WINDOWS:
        mean, square = np.split(_pool(moments, size, grid, window), 2)
        total = total_weights(size, grid, window)
        variance = square - mean * mean / total - FLAT * square
        contrast = np.sqrt(np.sqrt(np.maximum(variance, 0))).astype(np.float32)
        mean = (mean + offset).astype(np.float32)
        means += [_calibrate(mean[:1], "luma"), _calibrate(mean[1:], "chroma")]
        contrasts += [
            _calibrate(contrast[:1], "luma contrast"),
            _calibrate(contrast[1:], "chroma contrast"),
        ]
    return means + contrasts


def _rectified_responses(planes):
    """Yield the name of each group and its half-wave rectified responses, (n, height, width)."""
    n_planes, height, width = planes.shape
    smooth_y, smooth_x = _filter(planes, SMOOTH, 1), _filter(planes, SMOOTH, 2)
    d_x, d_y = _filter(smooth_y, FIRST, 2), _filter(smooth_x, FIRST, 1)
    for index in range(n_planes):
        name = "chroma" if index else "luma"
        gradient = np.stack([d_x[index], d_y[index]]).reshape(2, -1)
        responses = product(EDGE_STEERING[name], gradient).reshape(-1, height, width)
        yield f"{name} edges", np.maximum(responses, 0, out=responses)
    d_xx, d_yy = _filter(smooth_y, SECOND, 2), _filter(smooth_x, SECOND, 1)
    d_xy = _filter(_filter(planes[:1], FIRST, 1), FIRST, 2)
    hessian = np.stack([d_xx[0], d_xy[0], d_yy[0]]).reshape(3, -1)
    lines = product(LINE_STEERING, hessian).reshape(-1, height, width)
    yield "luma lines", np.concatenate([np.maximum(lines, 0), np.maximum(-lines, 0)])
    blobs = d_xx[1:] + d_yy[1:]
    yield "chroma blobs", np.concatenate([np.maximum(blobs, 0), np.maximum(-blobs, 0)])


def _calibrate(channels, name):
    centre, scale = CALIBRATION[name]
    return (channels - np.float32(centre)) / np.float32(scale)


def _filter(planes, kernel, axis):
    """Correlation with a short kernel along one axis, the image reflected at its borders."""
    n, reach = planes.shape[axis], len(kernel) // 2
    padded = _reflect(planes, reach, reach, axis)
    return sum(kernel[k] * _slice(padded, slice(k, k + n), axis) for k in np.flatnonzero(kernel))


def _halve(planes):
    """Next level of the pyramid: blurred and decimated by two along both axes."""
    for axis in (1, 2):
        n = planes.shape[axis]
        half = -(-n // 2)
        padded = _reflect(planes, 1, 1 + n % 2, axis)
        planes = sum(
            HALVE[k] * _slice(padded, slice(k, k + 2 * half - 1, 2), axis) for k in range(4)
        )
    return planes


def _reflect(planes, before, after, axis):
    widths = [(0, 0)] * planes.ndim
    widths[axis] = (before, after)
    return np.pad(planes, widths, mode="symmetric")


def _slice(planes, part, axis):
    return planes[(slice(None),) * axis + (part,)]


def _pool(channels, size, grid, window, level=0):
    """Gaussian means of (n, height, width) channels around the centres of the cells."""
    rows = pooling_matrix(channels.shape[1], size[0], grid[0], window, level)
    columns = pooling_matrix(channels.shape[2], size[1], grid[1], window, level)
    return product(rows, product(channels, columns.T))


@lru_cache(maxsize=128)
def pooling_matrix(
    n_samples: int, n_pixels: int, n_cells: int, window: float, level: int = 0
) -> NDArray[np.float32]:
    """Gaussian weights of the samples along one axis around the centre of each cell.

    Parameters
    ----------
    n_samples, n_pixels, n_cells : int
        Length of a level of the pyramid, of the image, and of the grid.
    window : float
        Standard deviation in pixels of the image.
    level : int, default=0
        Of the pyramid; 0 is the image itself.

    Returns
    -------
    ndarray of shape (n_cells, n_samples), float32
        Read-only; rows sum to 1.

    Examples
    --------
    >>> from skanomaly.core.filter_bank import pooling_matrix
    >>> pooling_matrix(16, 16, 2, window=3.0).shape
    (2, 16)
    """
    sigma = window / 2**level
    centres = (np.arange(n_cells) + 0.5) * (n_pixels / n_cells) / 2**level - 0.5
    reach = int(np.ceil(3 * sigma)) + 1
    position = np.arange(-reach, n_samples + reach)
    weights = np.exp(-0.5 * ((position - centres[:, None]) / sigma) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    # Samples outside the image are reflections of samples inside, several times over if need be.
    source = position % (2 * n_samples)
    source = np.minimum(source, 2 * n_samples - 1 - source)
    matrix = np.zeros((n_samples, n_cells))
    np.add.at(matrix, source, weights.T)
    # Tails of no weight: their products would be denormal, which some processors compute at a
    # small part of their speed.
    matrix[matrix < _LEAST_WEIGHT] = 0
    made = np.ascontiguousarray(matrix.T, dtype=np.float32)
    made.setflags(write=False)
    return made


def total_weights(
    size: tuple[int, int], grid: tuple[int, int], window: float
) -> NDArray[np.float64]:
    """What the weights of the pixels add up to in each cell: 1 but for their rounding.

    Parameters
    ----------
    size, grid : tuple of int
        Of the image in pixels, and in cells.
    window : float
        Standard deviation in pixels.

    Returns
    -------
    ndarray of shape (grid_h, grid_w), float64

    Examples
    --------
    >>> from skanomaly.core.filter_bank import total_weights
    >>> total_weights((16, 24), (2, 3), 3.0).round(5).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    rows, columns = (
        pooling_matrix(n_pixels, n_pixels, n_cells, window).sum(axis=1, dtype=np.float64)
        for n_pixels, n_cells in zip(size, grid, strict=True)
    )
    return rows[:, None] * columns
