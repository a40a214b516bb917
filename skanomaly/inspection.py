"""Where in an image the anomaly is: heat maps and overlays."""

from numbers import Integral, Real

import numpy as np
from scipy.ndimage import binary_erosion
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skanomaly._images import check_images, image_size, load_image
from skanomaly._optional import import_optional
from skanomaly.core.maps import upsample_map


def anomaly_maps(estimator, images, *, sigma=4.0, size="image", stack=None, return_scores=False):
    """Heat map of each image at the image's own size.

    Parameters
    ----------
    estimator : Pipeline or detector
        A fitted Pipeline of an embedder (after it, any transformers of tokens) and a scorer with
        `score_patches`, or an image detector with `score_maps`.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.
    sigma : float, default=4.0
        Standard deviation, in pixels of the map, of the Gaussian that smooths it; 0 for none.
    size : "image" or tuple of int, default="image"
        Size of the maps: each image's own, or ``(height, width)`` for all.
    stack : bool or None, default=None
        True: one array, an error where sizes differ. False: a list. None: one array where the
        sizes agree, else a list.
    return_scores : bool, default=False
        Return `score_samples` too, from the same computation.

    Returns
    -------
    maps : ndarray of shape (n_images, height, width), or list of ndarray of shape (height, width)
        float32; higher is more anomalous, in the unit of the patch scores.
    scores : ndarray of shape (n_images,), float64
        Only with `return_scores`; higher is more normal.

    Raises
    ------
    ValueError
        When a stack is asked for and the sizes differ.
    TypeError
        When the estimator has no patch scores.

    Notes
    -----
    The map of a training image shows its held-out patch scores.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, anomaly_maps
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(8, 2, image_size=64, random_state=0)
    >>> good, bad = surfaces.images[:8], surfaces.images[8:]
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(good)
    >>> anomaly_maps(pipe, bad).shape
    (2, 64, 64)
    """
    items = check_images(images)
    if not isinstance(sigma, Real) or not 0 <= sigma < np.inf:
        raise ValueError(f"sigma must be a number of pixels, at least 0, got {sigma!r}")
    if size == "image":
        sizes = [image_size(item, i) for i, item in enumerate(items)]
    else:
        sizes = [_check_size(size)] * len(items)
    if stack and len(set(sizes)) > 1:
        other = next(i for i, s in enumerate(sizes) if s != sizes[0])
        raise ValueError(
            f"maps of different sizes cannot be stacked: image 0 is {sizes[0]}, image {other} is "
            f"{sizes[other]} (height, width). Pass size=(height, width), or stack=False"
        )
    scores, grids = score_images(estimator, items)
    maps = [upsample_map(grid, s, sigma) for grid, s in zip(grids, sizes, strict=True)]
    if stack or (stack is None and len(set(sizes)) == 1):
        maps = np.stack(maps)
    return (maps, scores) if return_scores else maps


def score_images(estimator, images):
    """Image scores and patch scores from one pass.

    Parameters
    ----------
    estimator : Pipeline or detector
        As for :func:`anomaly_maps`.
    images : list of images
        Paths, bytes, PIL images or arrays.

    Returns
    -------
    scores : ndarray of shape (n_images,), float64
        As from `score_samples`: higher is more normal.
    grids : list of ndarray of shape (grid_h, grid_w), float32
        Patch scores: higher is more anomalous.
    """
    check_is_fitted(estimator)
    estimator = getattr(estimator, "best_estimator_", estimator)  # of a search
    if hasattr(estimator, "score_maps"):
        maps, scores = estimator.score_maps(images, size="model", return_scores=True)
        return scores, list(maps)
    tokens, scorer = images, estimator
    while isinstance(scorer, Pipeline):
        tokens, scorer = scorer[:-1].transform(tokens), scorer[-1]
    if scorer is estimator or not hasattr(scorer, "score_patches"):
        raise TypeError(
            f"{type(scorer).__name__} gives no maps of images: pass a fitted Pipeline that ends in "
            "a scorer with score_patches, or a detector with score_maps"
        )
    grids, scores = scorer.score_patches(tokens, return_scores=True)
    if any(grid.ndim != 2 for grid in grids):
        raise TypeError("maps need tokens of shape (n_images, grid_h, grid_w, dim)")
    return scores, list(grids)


def _check_size(size):
    sides = tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sides) != 2 or not all(isinstance(side, Integral) and side > 0 for side in sides):
        raise ValueError(f"size must be 'image' or (height, width) in pixels, got {size!r}")
    return sides


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
