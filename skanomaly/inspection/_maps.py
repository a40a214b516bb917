"""What a Pipeline or a detector says of images: heat maps, patch scores, p-values."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal, overload

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skanomaly._images import check_images, image_size
from skanomaly._pipelines import check_embedder, split_detector, split_pipeline
from skanomaly._typing import FloatArray, Images
from skanomaly.core.maps import upsample_map

Maps = FloatArray | list[FloatArray]


@overload
def anomaly_maps(
    estimator: Any,
    images: Images,
    *,
    sigma: float = 4.0,
    size: Literal["image"] | tuple[int, int] = "image",
    stack: bool | None = None,
    return_scores: Literal[False] = False,
) -> Maps: ...


@overload
def anomaly_maps(
    estimator: Any,
    images: Images,
    *,
    sigma: float = 4.0,
    size: Literal["image"] | tuple[int, int] = "image",
    stack: bool | None = None,
    return_scores: Literal[True],
) -> tuple[Maps, FloatArray]: ...


def anomaly_maps(
    estimator: Any,
    images: Images,
    *,
    sigma: float = 4.0,
    size: Literal["image"] | tuple[int, int] = "image",
    stack: bool | None = None,
    return_scores: bool = False,
) -> Maps | tuple[Maps, FloatArray]:
    """Heat map of each image at the image's own size.

    Parameters
    ----------
    estimator : Pipeline or detector
        A fitted Pipeline of an embedder (after it, any transformers of tokens, which get those of
        one image at a time) and a scorer with `score_patches`,
        an image detector with `score_maps`, or a search of either.
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
        Of float32; higher is more anomalous, in the unit of the patch scores.
    scores : ndarray of shape (n_images,), float64
        Only with `return_scores`; higher is more normal.

    Raises
    ------
    ValueError
        When a stack is asked for and the sizes differ.
    TypeError
        When the estimator gives no maps of images; the message names what its scorer lacks.

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
    split_detector(estimator)
    items = check_images(images)
    check_sigma(sigma)
    if size == "image":
        sizes = [image_size(item, i) for i, item in enumerate(items)]
    else:
        sizes = [check_size(size)] * len(items)
    if stack and len(set(sizes)) > 1:
        other = next(i for i, s in enumerate(sizes) if s != sizes[0])
        raise ValueError(
            f"maps of different sizes cannot be stacked: image 0 is {sizes[0]}, image {other} is "
            f"{sizes[other]} (height, width). Pass size=(height, width), or stack=False"
        )
    grids, scores = score_images(estimator, items)
    each = [upsample_map(grid, s, sigma) for grid, s in zip(grids, sizes, strict=True)]
    stacked = stack or (stack is None and len(set(sizes)) == 1)
    maps: Maps = np.stack(each) if stacked else each
    return (maps, scores) if return_scores else maps


def score_images(estimator: Any, images: Images) -> tuple[list[FloatArray], FloatArray]:
    """Patch scores and image scores from one pass.

    Parameters
    ----------
    estimator : Pipeline or detector
        As for :func:`~skanomaly.anomaly_maps`.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.

    Returns
    -------
    grids : list of ndarray of shape (grid_h, grid_w), float32
        Patch scores: higher is more anomalous. Of a detector its maps, at the model's own size.
    scores : ndarray of shape (n_images,), float64
        As from `score_samples`: higher is more normal.

    Raises
    ------
    TypeError
        When the estimator gives no maps of images, or its tokens have no grid.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer
    >>> from skanomaly.datasets import make_surfaces
    >>> from skanomaly.inspection import score_images
    >>> images = make_surfaces(8, 0, image_size=64, random_state=0).images
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(images)
    >>> grids, scores = score_images(pipe, images[:2])
    >>> grids[0].shape, scores.shape
    ((8, 8), (2,))
    """
    split = split_detector(estimator)
    check_is_fitted(estimator)
    if hasattr(split.scorer, "score_maps"):
        maps, scores = split.scorer.score_maps(
            split.transform(images), size="model", return_scores=True
        )
        return list(maps), scores
    grids, scores = split.scorer.score_patches(split.tokens_of(images), return_scores=True)
    if any(grid.ndim != 2 for grid in grids):
        raise TypeError("maps need tokens of shape (n_images, grid_h, grid_w, dim)")
    return list(grids), scores


def p_values(estimator: Any, images: Images) -> FloatArray:
    """Conformal p-value of each image: how usual so low a score is among normal images.

    Parameters
    ----------
    estimator : Pipeline or detector
        A fitted Pipeline of an embedder (after it, any transformers of tokens, which get those of
        one image at a time) and a scorer with `p_values`,
        an image detector that has them, or a search of either.
    images : list, tuple, 1-D array or Series of images, or a 4-D uint8 array
        Paths, bytes, PIL images or arrays.

    Returns
    -------
    ndarray of shape (n_images,), float64
        ``(1 + #{held-out training images at least as anomalous}) / (n + 1)``, at least
        ``1 / (n + 1)`` with `n` training images. Valid for new images that are exchangeable with
        the training images.

    Raises
    ------
    TypeError
        When the estimator scores no images, or its scorer has no `p_values`.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, p_values
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(9, 1, image_size=64, random_state=0)
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> p_values(pipe.fit(surfaces.images[:9]), surfaces.images[9:])
    array([0.1])
    """
    split = split_pipeline(estimator)
    check_embedder(split)
    if not hasattr(split.scorer, "p_values"):
        raise TypeError(
            f"{type(split.scorer).__name__} has no p_values: they need the held-out scores of "
            "training images that the scorers of this package keep"
        )
    check_is_fitted(estimator)
    return split.scorer.p_values(split.tokens_of(images))


def p_values_of(scorer: Any, scores: FloatArray) -> FloatArray | None:
    """Conformal p-values of images whose scores are known already.

    Parameters
    ----------
    scorer : scorer or detector
        Fitted; the last step of a Pipeline.
    scores : ndarray of shape (n_images,)
        Its `score_samples` of the images.

    Returns
    -------
    ndarray of shape (n_images,), float64, or None
        As :func:`~skanomaly.p_values`. None where the scorer has no held-out scores of good images
        to compare with, or they belong to other parameters than it has now.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly import PatchKNNScorer
    >>> from skanomaly.inspection import p_values_of
    >>> tokens = np.random.default_rng(0).normal(size=(9, 4, 4, 8))
    >>> p_values_of(PatchKNNScorer().fit(tokens), np.array([-2.0, 0.0]))
    array([0.1, 1. ])
    """
    known = getattr(scorer, "_p_values_of", None)
    # Of unlabelled images that score each other nobody knows which scores are those of good ones.
    if known is None or getattr(scorer, "_transductive", False):
        return None
    return known(scores)


def check_sigma(sigma: float) -> None:
    """ValueError where `sigma` is no width of a Gaussian in pixels."""
    if isinstance(sigma, bool) or not isinstance(sigma, Real) or not 0 <= float(sigma) < np.inf:
        raise ValueError(f"sigma must be a number of pixels, at least 0, got {sigma!r}")


def check_size(size: Any) -> tuple[int, int]:
    """A size of a map as (height, width); ValueError where it is none."""
    sides = tuple(size) if isinstance(size, (tuple, list)) else ()
    integers = [isinstance(side, Integral) and not isinstance(side, bool) for side in sides]
    if len(sides) != 2 or not all(integers) or min(sides) < 1:
        raise ValueError(f"size must be 'image' or (height, width) in pixels, got {size!r}")
    return sides[0], sides[1]
