"""Heat maps shown: painted over an image, and in a grid of matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, find_objects

from skanomaly._images import check_images, viewable_image
from skanomaly._optional import import_optional
from skanomaly._parameters import check_integer
from skanomaly._pipelines import split_detector
from skanomaly._typing import FloatArray, ImageLike, Images
from skanomaly.inspection._colours import heat_colours
from skanomaly.inspection._limits import Limits, limits_for
from skanomaly.inspection._maps import Maps, anomaly_maps

_BLOCK = 2**20  # pixels that are painted at a time
_BEHIND_BAR = 150  # the grey over which colour bars show the scale


def overlay_map(
    image: ImageLike, heat_map: ArrayLike, limits: Limits, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Paint a heat map over its image, from clear through yellow and red to violet.

    Parameters
    ----------
    image : image
        Path, bytes, PIL image or array. What has more than 8 bits and uses little of its range is
        stretched to be seen.
    heat_map : ndarray of shape (height, width)
        Of the image's size; higher is more anomalous.
    limits : tuple of float
        ``(low, high)``: values up to `low` are clear, from `high` on violet. Those of
        :func:`color_limits` are the same for all images of a detector.
    mask : ndarray of shape (height, width), bool, optional
        True defect; its outline is drawn in white on black.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        The picture.

    Raises
    ------
    ValueError
        When the map is not of the image's size or holds NaN, or `limits` are not ascending.

    See Also
    --------
    colour_table : The colours.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.inspection import overlay_map
    >>> image = np.zeros((1, 2, 3), dtype=np.uint8)
    >>> overlay_map(image, np.array([[0.0, 1.0]]), (0, 1)).tolist()
    [[[0, 0, 0], [126, 22, 134]]]
    """
    pixels = viewable_image(image)
    white = 255 if pixels.dtype == np.uint8 else 1
    heat_map = np.asarray(heat_map)
    if heat_map.shape != pixels.shape[:2]:
        raise ValueError(f"the map is {heat_map.shape}, the image {pixels.shape[:2]}")
    low, high = _check_limits(limits)
    if np.isnan(heat_map).any():
        raise ValueError("the map holds NaN, which has no colour")
    out = np.empty(pixels.shape, dtype=np.uint8)
    n_rows = max(1, _BLOCK // pixels.shape[1])
    for start in range(0, len(pixels), n_rows):
        rows = slice(start, start + n_rows)
        heat = heat_map[rows].astype(np.float64) - low
        colour = heat_colours(np.clip(heat / max(high - low, np.finfo(np.float64).tiny), 0, 1))
        below = pixels[rows] / white
        below += colour[..., 3:] * (colour[..., :3] - below)
        out[rows] = below * 255 + 0.5
    if mask is not None and np.any(mask):
        _draw_outline(out, np.asarray(mask, dtype=bool))
    return out


def _draw_outline(picture, mask):
    """Draw the rim of a mask, white outside and black inside, into a picture."""
    box = find_objects(mask.astype(np.uint8))[0]
    width = max(1, round(min(mask.shape) / 200))
    inner = binary_erosion(mask[box], iterations=width)
    outline = binary_erosion(inner, iterations=width) ^ inner
    picture[box][outline], picture[box][mask[box] & ~inner] = 0, 255


class AnomalyMapDisplay:
    """Heat maps over their images, in a grid of matplotlib axes.

    Made by :meth:`from_estimator`.

    Parameters
    ----------
    images : list of images
        Paths, bytes, PIL images or arrays.
    maps : list of ndarray of shape (height, width)
        Heat map of each image, at its size.
    scores : ndarray of shape (n_images,)
        `score_samples` of each image.
    limits : tuple of float
        ``(low, high)`` of the colours, the same for all maps.
    threshold : float or None, default=None
        `offset_` of the detector: images that score lower are anomalous. None: there is none, and
        titles say no verdict.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One for each image.

    Examples
    --------
    >>> from skanomaly.inspection import AnomalyMapDisplay
    >>> display = AnomalyMapDisplay.from_estimator(pipe, images)  # doctest: +SKIP
    >>> display.figure_.savefig("maps.png")  # doctest: +SKIP
    """

    figure_: Any
    axes_: NDArray[Any]

    def __init__(
        self,
        *,
        images: Sequence[ImageLike],
        maps: Maps,
        scores: FloatArray,
        limits: Limits,
        threshold: float | None = None,
    ) -> None:
        self.images = images
        self.maps = maps
        self.scores = scores
        self.limits = limits
        self.threshold = threshold

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        images: Images,
        *,
        sigma: float = 4.0,
        limits: Limits | None = None,
        n_columns: int = 4,
    ) -> AnomalyMapDisplay:
        """Compute the maps of images and plot them.

        Parameters
        ----------
        estimator : Pipeline or detector
            As for :func:`anomaly_maps`.
        images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
            Paths, bytes, PIL images or arrays.
        sigma : float, default=4.0
            Of the Gaussian that smooths the maps, in pixels.
        limits : tuple of float or None, default=None
            ``(low, high)`` of the colours; None: :func:`color_limits` of the estimator, so that
            a good part stays clear and a defect is coloured whatever else is shown. Where it has
            none, the median and the maximum of these maps, and a `UserWarning` says so.
        n_columns : int, default=4
            Of the grid.

        Returns
        -------
        AnomalyMapDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            When the estimator gives no maps of images.
        ValueError
            When `limits` are not ascending, or `n_columns` is no integer of at least 1.
        ImportError
            Where matplotlib is not installed.
        """
        # Better said before the maps are computed than after.
        import_optional("matplotlib.pyplot", "plot", cls.__name__)
        check_integer(n_columns, "n_columns", 1)
        if limits is not None:
            _check_limits(limits)
        items = check_images(images)
        maps, scores = anomaly_maps(estimator, items, sigma=sigma, stack=False, return_scores=True)
        if limits is None:
            limits = limits_for(estimator, list(maps))
        threshold = getattr(split_detector(estimator).scorer, "offset_", None)
        display = cls(images=items, maps=maps, scores=scores, limits=limits, threshold=threshold)
        return display.plot(n_columns)

    def plot(self, n_columns: int = 4) -> AnomalyMapDisplay:
        """Draw the images with their maps.

        Parameters
        ----------
        n_columns : int, default=4
            Of the grid.

        Returns
        -------
        AnomalyMapDisplay
            This display, with `figure_` and `axes_` set.
        """
        pyplot = import_optional("matplotlib.pyplot", "plot", type(self).__name__)
        n_columns = min(check_integer(n_columns, "n_columns", 1), len(self.images))
        n_rows = -(-len(self.images) // n_columns)
        self.figure_, axes = pyplot.subplots(
            n_rows,
            n_columns,
            figsize=(3 * n_columns + 1, 3.3 * n_rows),
            squeeze=False,
            layout="constrained",
        )
        for axis in axes.flat:
            axis.set_axis_off()
        self.axes_ = axes.ravel()[: len(self.images)]
        for axis, image, heat, score in zip(
            self.axes_, self.images, self.maps, self.scores, strict=True
        ):
            axis.imshow(overlay_map(image, heat, self.limits))
            verdict = "" if self.threshold is None else f"{verdict_of(score, self.threshold)}, "
            axis.set_title(f"{verdict}score {score:.3g}")
        low, high = self.limits
        if low < high:
            colours = import_optional("matplotlib.colors", "plot", type(self).__name__)
            grey = np.full((1, 256, 3), _BEHIND_BAR, dtype=np.uint8)
            bar = overlay_map(grey, np.linspace(0, 1, 256)[None], (0, 1))[0] / 255
            scale = import_optional("matplotlib.cm", "plot", type(self).__name__).ScalarMappable(
                colours.Normalize(low, high), colours.ListedColormap(bar)
            )
            self.figure_.colorbar(scale, ax=axes, label="anomaly map", extend="both")
        return self


def verdict_of(score: float, threshold: float) -> str:
    """What a detector calls an image of a score: "anomalous" or "normal"."""
    return "anomalous" if score < threshold else "normal"


def _check_limits(limits):
    low, high = limits
    if low > high:
        raise ValueError(f"limits must be (low, high), got {tuple(limits)}")
    return low, high
