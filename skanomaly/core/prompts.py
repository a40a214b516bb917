"""Scores of patches against texts of normal and of anomalous things (CLIP, WinCLIP)."""

from __future__ import annotations

from numbers import Real

import numpy as np
from scipy.special import expit

from skanomaly._typing import ArrayLike, FloatArray

MODES = ("diff", "ratio", "softmax")
_PATCHES_AT_ONCE = 2**14  # of which float64 copies are in memory


def average_texts(features: ArrayLike, name: str = "features") -> FloatArray:
    """Direction of an ensemble of texts: each at unit length, averaged, at unit length again.

    Parameters
    ----------
    features : array-like of shape (n_texts, dim) or (dim,)
        Text features; their lengths do not matter.
    name : str, default="features"
        How errors call them.

    Returns
    -------
    ndarray of shape (dim,), float64
        A unit vector.

    Raises
    ------
    ValueError
        For no text, another shape, NaN, infinity, a zero vector, or texts that cancel out.

    References
    ----------
    .. [1] Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR
       2023.

    Examples
    --------
    >>> from skanomaly.core.prompts import average_texts
    >>> average_texts([[3.0, 0.0], [0.0, 2.0]]).round(3)
    array([0.707, 0.707])
    """
    texts = _numbers(features, name)
    if texts.ndim not in (1, 2) or texts.size == 0:
        raise ValueError(
            f"{name} must be of shape (dim,) or (n_texts, dim), got shape {texts.shape}"
        )
    units = _unit_rows(np.atleast_2d(texts))
    zero = np.flatnonzero(~units.any(axis=1))
    if zero.size:
        raise ValueError(f"{name} holds a zero vector (text {zero[0]}), which has no direction")
    mean = units.mean(axis=0)
    length = np.linalg.norm(mean)
    if length < 1e-6:
        raise ValueError(f"the texts of {name} cancel each other out: their mean is zero")
    return mean / length


def prompt_patch_scores(
    patches: ArrayLike,
    normal: ArrayLike,
    anomaly: ArrayLike,
    mode: str = "diff",
    logit_scale: float = 100.0,
) -> FloatArray:
    """Score each patch by its similarity to a text of anomalies and to one of normal things.

    With `a` and `n`, the cosines between a patch and the texts, `s` is the score:

    ============= ============================================== =========== ================
    mode          score                                          range       texts swapped
    ============= ============================================== =========== ================
    ``"diff"``    ``a - n``                                      [-2, 2]     ``-s``
    ``"ratio"``   ``exp(a) / exp(n)``                            [e^-2, e^2] ``1 / s``
    ``"softmax"`` ``exp(c a) / (exp(c a) + exp(c n))``           [0, 1]      ``1 - s``
    ============= ============================================== =========== ================

    Parameters
    ----------
    patches : array-like of shape (..., dim)
        Patch embeddings in the joint space of images and texts; their lengths do not matter. A
        zero patch has the cosine 0 with everything, and so the score 0, 1 or 0.5.
    normal, anomaly : array-like of shape (dim,)
        Features of the texts; their lengths do not matter. Ensembles: see :func:`average_texts`.
    mode : {"diff", "ratio", "softmax"}, default="diff"
        See above. All three rise with `a`, and rank patches alike.
    logit_scale : float, default=100.0
        `c`, the inverse temperature of the softmax; other modes do not use it.

    Returns
    -------
    ndarray of shape (...), float64
        Higher is more anomalous.

    Raises
    ------
    ValueError
        For an unknown mode, dimensions that differ, NaN, infinity or a zero text vector.

    Notes
    -----
    A cosine may be negative, and a ratio of cosines is then neither finite nor monotone. The ratio
    is therefore one of ``exp(cosine)``, which is positive.

    References
    ----------
    .. [1] Radford et al., "Learning Transferable Visual Models From Natural Language
       Supervision", ICML 2021 (the softmax).

    Examples
    --------
    >>> from skanomaly.core.prompts import prompt_patch_scores
    >>> prompt_patch_scores([[1, 0], [0, 1]], normal=[1, 0], anomaly=[0, 1], mode="diff")
    array([-1.,  1.])
    >>> prompt_patch_scores([[1, 0], [0, 1]], [1, 0], [0, 1], "softmax", logit_scale=1).round(3)
    array([0.269, 0.731])
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    if not (isinstance(logit_scale, Real) and 0 < logit_scale < np.inf):
        raise ValueError(f"logit_scale must be a positive number, got {logit_scale!r}")
    texts = []
    for name, text in (("normal", normal), ("anomaly", anomaly)):
        if np.ndim(text) != 1:
            raise ValueError(
                f"{name} must be of shape (dim,), got shape {np.shape(text)}; average an ensemble "
                "with average_texts"
            )
        texts.append(average_texts(text, name))
    patches = np.asarray(patches)
    dim = patches.shape[-1] if patches.ndim else None
    for name, text in zip(("normal", "anomaly"), texts, strict=True):
        if len(text) != dim:
            raise ValueError(
                f"{name} is of dimension {len(text)}, patches are of shape {patches.shape}: their "
                "last axis must have that length"
            )
    rows = patches.reshape(-1, dim)
    scores = np.empty(len(rows))
    for start in range(0, len(rows), _PATCHES_AT_ONCE):
        units = _unit_rows(_numbers(rows[start : start + _PATCHES_AT_ONCE], "patches"))
        # Not by BLAS, whose last bit depends on the number of rows: a threshold may be a score.
        n, a = (np.clip(np.einsum("ij,j->i", units, text), -1, 1) for text in texts)
        scores[start : start + _PATCHES_AT_ONCE] = a - n
    if mode == "ratio":
        scores = np.exp(scores)
    elif mode == "softmax":
        scores = expit(logit_scale * scores)
    return scores.reshape(patches.shape[:-1])


def cosines(embedding: ArrayLike, texts: ArrayLike) -> FloatArray:
    """Cosine of an embedding with each of several texts.

    Parameters
    ----------
    embedding : array-like of shape (dim,)
        Of a patch; its length does not matter.
    texts : array-like of shape (n_texts, dim)
        Their features; their lengths do not matter.

    Returns
    -------
    ndarray of shape (n_texts,), float64
        0 with a zero vector.

    Examples
    --------
    >>> from skanomaly.core.prompts import cosines
    >>> cosines([2.0, 0.0], [[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    array([ 1.,  0., -1.])
    """
    (unit,) = _unit_rows(np.atleast_2d(_numbers(embedding, "embedding")))
    return np.clip(_unit_rows(np.atleast_2d(_numbers(texts, "texts"))) @ unit, -1, 1)


def harmonic_mean(scores: ArrayLike) -> FloatArray:
    """Harmonic mean of scores at least 0, along the first axis.

    Parameters
    ----------
    scores : array-like of shape (n, ...)
        NaN stands for a missing score, which does not count.

    Returns
    -------
    ndarray of shape (...), float64
        0 where one of them is 0, NaN where all are missing.

    Raises
    ------
    ValueError
        For a negative score.

    Examples
    --------
    >>> from skanomaly.core.prompts import harmonic_mean
    >>> harmonic_mean([[1.0, 0.0], [0.5, 1.0]]).round(3)
    array([0.667, 0.   ])
    """
    scores = np.asarray(scores, dtype=np.float64)
    if (scores < 0).any():
        raise ValueError("a harmonic mean needs scores of at least 0")
    present = ~np.isnan(scores)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return present.sum(axis=0) / np.where(present, 1 / scores, 0).sum(axis=0)


def harmonic_window_map(window_scores: ArrayLike, window: int) -> FloatArray:
    """Score of each patch from the scores of the windows that cover it, by their harmonic mean.

    Parameters
    ----------
    window_scores : array-like of shape (grid_h - window + 1, grid_w - window + 1)
        Of all windows inside the grid, at least 0, each at the position of its top left patch. NaN
        for a missing window, which does not count.
    window : int
        Side of a window, in patches.

    Returns
    -------
    ndarray of shape (grid_h, grid_w), float64
        NaN where every window that covers the patch is missing.

    References
    ----------
    .. [1] Jeong et al., "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation", CVPR
       2023.

    Examples
    --------
    >>> from skanomaly.core.prompts import harmonic_window_map
    >>> harmonic_window_map([[1.0, 0.5]], 2).round(3)
    array([[1.   , 0.667, 0.5  ],
           [1.   , 0.667, 0.5  ]])
    """
    scores = np.asarray(window_scores, dtype=np.float64)
    height, width = scores.shape
    covering = np.full((window**2, height + window - 1, width + window - 1), np.nan)
    for i in range(window**2):
        down, right = divmod(i, window)
        covering[i, down : down + height, right : right + width] = scores
    return harmonic_mean(covering)


def window_anchors(scores: ArrayLike, window: int) -> FloatArray:
    """Scores of the windows inside a grid, from scores that every patch holds.

    Where no window starts, at the right and the bottom of the grid, a patch holds the score of the
    window that starts closest to it.

    Parameters
    ----------
    scores : array-like of shape (grid_h, grid_w)
        NaN for masked patches.
    window : int
        Side of a window, in patches.

    Returns
    -------
    ndarray of shape (grid_h - window + 1, grid_w - window + 1), float64
        NaN for a window whose score no unmasked patch holds.

    Raises
    ------
    ValueError
        When the window is larger than the grid.

    Examples
    --------
    >>> from skanomaly.core.prompts import window_anchors
    >>> window_anchors([[0.2, 0.7, 0.7], [0.2, 0.7, 0.7]], 2)
    array([[0.2, 0.7]])
    """
    scores = np.asarray(scores, dtype=np.float64)
    for axis, side in enumerate(scores.shape):
        if window > side:
            raise ValueError(
                f"windows of {window} x {window} patches do not fit in a grid of {scores.shape}"
            )
        head, tail = np.split(scores, [side - window], axis=axis)
        scores = np.concatenate([head, np.fmax.reduce(tail, axis=axis, keepdims=True)], axis=axis)
    return scores


def _numbers(values, name):
    try:
        values = np.asarray(values)
        if values.dtype.kind == "c":
            raise TypeError("complex numbers have no cosine in [-1, 1]")
        values = values.astype(np.float64, copy=False)
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{name} must be an array of numbers ({exc})") from exc
    if not np.isfinite(values).all():
        raise ValueError(f"{name} contains NaN or infinity")
    return values


def _unit_rows(rows):
    """Rows at unit length; zero rows stay zero."""
    # By the largest component first: a square of it could be too large or too small.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    rows = rows / np.where(largest == 0, 1, largest)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    return rows / np.where(length == 0, 1, length)
