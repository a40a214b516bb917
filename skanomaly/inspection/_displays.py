"""Heat maps shown: painted over an image, and in a grid of matplotlib axes."""

import numpy as np
from scipy.ndimage import binary_erosion

from skanomaly._images import check_images, load_image
from skanomaly._optional import import_optional
from skanomaly.inspection._maps import anomaly_maps


def overlay_map(image, heat_map, limits, mask=None):
    """Paint a heat map over its image, from clear through yellow to red.

    Parameters
    ----------
    image : image
        Path, bytes, PIL image or array.
    heat_map : ndarray of shape (height, width)
        Of the image's size; higher is more anomalous.
    limits : tuple of float
        ``(low, high)``: values up to `low` are clear, from `high` on red. Use one pair for all
        images that are to be compared.
    mask : ndarray of shape (height, width), bool, optional
        True defect; its outline is drawn in white on black.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
        The picture.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.inspection import overlay_map
    >>> image = np.zeros((1, 2, 3), dtype=np.uint8)
    >>> overlay_map(image, np.array([[0.0, 1.0]]), (0, 1)).tolist()
    [[[0, 0, 0], [178, 0, 0]]]
    """
    image = load_image(image)
    image = image / 255.0 if image.dtype == np.uint8 else image.astype(np.float64)
    heat_map = np.asarray(heat_map)
    if heat_map.shape != image.shape[:2]:
        raise ValueError(f"the map is {heat_map.shape}, the image {image.shape[:2]}")
    low, high = limits
    if low > high:
        raise ValueError(f"limits must be (low, high), got {tuple(limits)}")
    heat = np.clip((heat_map - low) / max(high - low, np.finfo(np.float64).tiny), 0, 1)[..., None]
    colour = np.concatenate([np.ones_like(heat), 1 - heat, np.zeros_like(heat)], axis=-1)
    out = image + 0.7 * heat * (colour - image)
    if mask is not None:
        width = max(1, round(min(heat_map.shape) / 200))
        inner = binary_erosion(mask, iterations=width)
        outline = binary_erosion(inner, iterations=width) ^ inner
        out[outline], out[mask & ~inner] = 0, 1
    return (out * 255).astype(np.uint8)


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

    def __init__(self, *, images, maps, scores, limits):
        self.images = images
        self.maps = maps
        self.scores = scores
        self.limits = limits

    @classmethod
    def from_estimator(cls, estimator, images, *, sigma=4.0, limits=None, n_columns=4):
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
            ``(low, high)`` of the colours; None: the median and the maximum of these maps.
        n_columns : int, default=4
            Of the grid.

        Returns
        -------
        AnomalyMapDisplay
        """
        items = check_images(images)
        maps, scores = anomaly_maps(estimator, items, sigma=sigma, stack=False, return_scores=True)
        if limits is None:
            limits = (
                float(np.median([np.median(heat) for heat in maps])),
                float(max(heat.max() for heat in maps)),
            )
        return cls(images=items, maps=maps, scores=scores, limits=limits).plot(n_columns)

    def plot(self, n_columns=4):
        """Draw the images with their maps.

        Parameters
        ----------
        n_columns : int, default=4
            Of the grid.

        Returns
        -------
        AnomalyMapDisplay
        """
        pyplot = import_optional("matplotlib.pyplot", "plot", type(self).__name__)
        if n_columns < 1:
            raise ValueError(f"n_columns must be at least 1, got {n_columns}")
        n_columns = min(n_columns, len(self.images))
        n_rows = -(-len(self.images) // n_columns)
        self.figure_, axes = pyplot.subplots(
            n_rows, n_columns, figsize=(3 * n_columns, 3 * n_rows), squeeze=False
        )
        for axis in axes.flat:
            axis.set_axis_off()
        self.axes_ = axes.ravel()[: len(self.images)]
        for axis, image, heat, score in zip(
            self.axes_, self.images, self.maps, self.scores, strict=True
        ):
            axis.imshow(overlay_map(image, heat, self.limits))
            axis.set_title(f"score {score:.3g}")
        return self
