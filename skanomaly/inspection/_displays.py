"""Heat maps shown: painted over an image, and in a grid of matplotlib axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion, find_objects
from sklearn.exceptions import NotFittedError

from skanomaly._docstrings import document
from skanomaly._images import check_images, image_size, viewable_image
from skanomaly._optional import import_optional
from skanomaly._parameters import check_integer
from skanomaly._pipelines import split_detector
from skanomaly._typing import FloatArray, ImageLike, Images
from skanomaly.inspection._colours import heat_colours
from skanomaly.inspection._drawing import (
    DISPLAY_DOCS,
    axes_for,
    check_matplotlib,
    check_truth,
    grid_of_axes,
)
from skanomaly.inspection._limits import Limits, limits_for, threshold_of
from skanomaly.inspection._maps import Maps, anomaly_maps
from skanomaly.inspection._region_threshold import RegionCalibration

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
        :func:`~skanomaly.inspection.color_limits` are the same for all images of a detector.
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


@document(DISPLAY_DOCS)
class AnomalyMapDisplay:
    """Heat maps over their images, with the regions that are called anomalous outlined.

    Made by :meth:`from_estimator`, or from maps that are known.

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
    contours : sequence of float or None, default=None
        For each image the value of its map above which a region is outlined, by a dashed line.
    masks : sequence of ndarray of shape (height, width), bool, or None, default=None
        Of each image the true defect, outlined in white on black, or None where it is not known.

    Attributes
    ----------
    %(axes)s
        `ax_` is the first of `axes_`.
    axes_ : ndarray of matplotlib Axes
        One for each image.

    Examples
    --------
    >>> from skanomaly.inspection import AnomalyMapDisplay
    >>> display = AnomalyMapDisplay.from_estimator(pipe, images)  # doctest: +SKIP
    >>> display.figure_.savefig("maps.png")  # doctest: +SKIP
    """

    ax_: Any
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
        contours: Sequence[float] | None = None,
        masks: Sequence[NDArray[np.bool_] | None] | None = None,
    ) -> None:
        self.images = images
        self.maps = maps
        self.scores = scores
        self.limits = limits
        self.threshold = threshold
        self.contours = contours
        self.masks = masks

    @classmethod
    @document(DISPLAY_DOCS)
    def from_estimator(
        cls,
        estimator: Any,
        images: Images,
        *,
        masks: Sequence[ArrayLike | None] | None = None,
        sigma: float = 4.0,
        limits: Limits | None = None,
        contour: float | Literal["calibrated"] | None = "calibrated",
        n_columns: int = 4,
        ax: Any = None,
        **kwargs: Any,
    ) -> AnomalyMapDisplay:
        """Compute the maps of images and plot them.

        Parameters
        ----------
        %(estimator)s
        %(images)s
        masks : sequence of array-like of shape (height, width), bool, or None, default=None
            Of each image the true defect, or None where it is not known.
        %(sigma)s
        limits : tuple of float or None, default=None
            ``(low, high)`` of the colours; None: :func:`~skanomaly.inspection.color_limits` of the
            estimator, so that a good part stays clear and a defect is coloured whatever else is
            shown. Where it has none, from its threshold to twice that, and a `UserWarning` says so.
        contour : "calibrated", float or None, default="calibrated"
            Value of the maps at which regions are outlined. ``"calibrated"``: that of
            :func:`~skanomaly.inspection.region_threshold` for the size of each image, so that few
            good images show any; no outline, where the scorer keeps nothing to calibrate it on.
            None: no outline.
        n_columns : int, default=4
            Of the grid.
        ax : matplotlib Axes, array of them, or None, default=None
            One for each image. None: a grid in a new figure.
        **kwargs : object
            For `imshow` of the axes, such as ``interpolation="nearest"``.

        Returns
        -------
        AnomalyMapDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            When the estimator gives no maps of images.
        ValueError
            When `limits` are not ascending, `n_columns` is no integer of at least 1, a mask is not
            of its image's size, or there are not as many masks or axes as images; when the
            estimator has neither limits of colours nor a threshold, and none are given.
        %(no_matplotlib)s
        """
        # Better said before the maps are computed than after.
        check_matplotlib(cls.__name__)
        check_integer(n_columns, "n_columns", 1)
        if limits is not None:
            _check_limits(limits)
        items = check_images(images)
        _check_axes(ax, len(items), cls.__name__)
        scorer = split_detector(estimator).scorer
        limits = limits_for(estimator) if limits is None else limits
        truth = None if masks is None else check_truth(masks, items)
        contours = _contours(estimator, items, contour, sigma)
        maps, scores = anomaly_maps(estimator, items, sigma=sigma, stack=False, return_scores=True)
        display = cls(
            images=items,
            maps=maps,
            scores=scores,
            limits=limits,
            threshold=threshold_of(scorer),
            contours=contours,
            masks=truth,
        )
        return display.plot(ax, n_columns=n_columns, **kwargs)

    def plot(self, ax: Any = None, *, n_columns: int = 4, **kwargs: Any) -> AnomalyMapDisplay:
        """Draw the images with their maps.

        Parameters
        ----------
        ax : matplotlib Axes, array of them, or None, default=None
            One for each image. None: a grid in a new figure.
        n_columns : int, default=4
            Of the grid.
        **kwargs : object
            For `imshow` of the axes, such as ``interpolation="nearest"``.

        Returns
        -------
        AnomalyMapDisplay
            This display, with `figure_`, `axes_` and `ax_` set.
        """
        n_columns = check_integer(n_columns, "n_columns", 1)
        name = type(self).__name__
        given = _check_axes(ax, len(self.images), name)
        self.axes_ = grid_of_axes(len(self.images), n_columns, name) if given is None else given
        self.ax_, self.figure_ = axes_for(self.axes_[0], name)
        for i, (axis, image, heat) in enumerate(
            zip(self.axes_, self.images, self.maps, strict=True)
        ):
            mask = None if self.masks is None else self.masks[i]
            axis.set_axis_off()
            axis.imshow(overlay_map(image, heat, self.limits, mask), **kwargs)
            if self.contours is not None:
                _draw_contour(axis, heat, self.contours[i])
            score = float(self.scores[i])
            verdict = "" if self.threshold is None else f"{verdict_of(score, self.threshold)}, "
            axis.set_title(f"{verdict}score {score:.3g}")
        self._add_scale()
        return self

    def _add_scale(self):
        """The scale of colours, with the value at which regions are outlined, if it is one."""
        low, high = self.limits
        if low == high:
            return
        colours = import_optional("matplotlib.colors", "plot", type(self).__name__)
        mappable = import_optional("matplotlib.cm", "plot", type(self).__name__).ScalarMappable
        grey = np.full((1, 256, 3), _BEHIND_BAR, dtype=np.uint8)
        bar = overlay_map(grey, np.linspace(0, 1, 256)[None], (0, 1))[0] / 255
        scale = mappable(colours.Normalize(low, high), colours.ListedColormap(bar))
        label = "anomaly map (higher is more anomalous)"
        shown = self.figure_.colorbar(scale, ax=list(self.axes_), label=label, extend="both")
        values = set(self.contours or ())
        if len(values) == 1 and low < (value := values.pop()) < high:
            shown.ax.axhline(value, color="black", linewidth=2)
            shown.ax.axhline(value, color="white", linewidth=1, linestyle="--")


def verdict_of(score: float, threshold: float) -> str:
    """What a detector calls an image of a score: "anomalous" or "normal"."""
    return "anomalous" if score < threshold else "normal"


def _check_axes(ax, n_images, user):
    """As a list of Axes, one for each image; None where none are given."""
    if ax is None:
        return None
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    for each in axes:
        check_matplotlib(user, each)
    if len(axes) != n_images:
        raise ValueError(f"ax must be one Axes for each of the {n_images} images, got {len(axes)}")
    return axes


def _contours(estimator, images, contour, sigma):
    """The value of each map at which it is outlined, or None."""
    if contour is None:
        return None
    if contour != "calibrated":
        if isinstance(contour, str) or not np.isfinite(contour):
            raise ValueError(f"contour must be 'calibrated', a number or None, got {contour!r}")
        return [float(contour)] * len(images)
    sizes = [image_size(image, i) for i, image in enumerate(images)]
    try:
        calibration = RegionCalibration(estimator, None, sigma)
    except (TypeError, NotFittedError):  # nothing is kept to calibrate it on
        return None
    calibration.warn_of_few_images()
    return [calibration.threshold(size) for size in sizes]


def _draw_contour(axis, heat, value):
    """A dashed line in white on black, which is seen over anything, where a map crosses a value."""
    if heat.min() <= value < heat.max():
        axis.contour(heat, [value], colors="black", linewidths=2)
        axis.contour(heat, [value], colors="white", linewidths=1, linestyles="dashed")


def _check_limits(limits):
    low, high = limits
    if low > high:
        raise ValueError(f"limits must be (low, high), got {tuple(limits)}")
    return low, high
