"""Where in an image the anomaly is: heat maps and overlays."""

from numbers import Integral, Real

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skanomaly._images import check_images, image_size
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
