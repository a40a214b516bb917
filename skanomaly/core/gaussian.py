"""Gaussian models of patch tokens: one a position, or one for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import strtrs

from skanomaly._typing import FloatArray
from skanomaly.core.products import product


@dataclass(frozen=True)
class PatchGaussian:
    """Gaussians to score patches against.

    Parameters
    ----------
    mean : ndarray of shape (n_positions, dim), float32
        One position stands for all when the Gaussian is shared.
    scale : ndarray of shape (dim,), float32
        Standard deviation of each component over all training patches.
    factor : ndarray of shape (n_positions, dim, dim), float32
        Lower Cholesky factor of the covariance of ``(x - mean) / scale``.
    """

    mean: FloatArray
    scale: FloatArray
    factor: FloatArray


def fit_gaussians(
    tokens: FloatArray,
    valid: NDArray[np.bool_],
    grid: tuple[int, int],
    shrinkage: float,
    regularization: float,
    neighborhood: int = 1,
) -> PatchGaussian:
    """Fit a Gaussian to the tokens of each position.

    Parameters
    ----------
    tokens : ndarray of shape (n, n_positions, dim)
        Tokens of normal images, position by position.
    valid : ndarray of shape (n, n_positions), bool
        False for masked patches, which do not count.
    grid : tuple of int
        ``(grid_h, grid_w)`` with ``grid_h * grid_w == n_positions``; only `neighborhood` needs it.
    shrinkage : float
        In [0, 1]: share of the pooled covariance within positions in each position's own.
    regularization : float
        Added to the diagonal, in units of the variance of each component.
    neighborhood : int, default=1
        Odd: a position's Gaussian is that of all tokens in a square of so many positions around
        it, cut at the border of the grid.

    Returns
    -------
    PatchGaussian

    Raises
    ------
    ValueError
        When the tokens do not vary at all.

    Notes
    -----
    PaDiM [1]_ fits a Gaussian with its own covariance, plus 0.01 on the diagonal, to each
    position. With fewer images than components such a covariance is mostly noise; the pooled one,
    from all positions, is not. A position without any valid token gets the Gaussian of them all.

    References
    ----------
    .. [1] Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection
       and Localization", ICPR 2021.
    """
    n, n_positions, dim = tokens.shape
    centre, scale = _standardisation(tokens[valid])
    x = np.where(valid[..., None], (tokens - centre) / scale, 0).astype(np.float32)
    x = x.transpose(1, 2, 0)  # (n_positions, dim, n)
    count = valid.sum(axis=0).astype(np.float64)
    total = x.sum(axis=2, dtype=np.float64)
    second = product(x, x.transpose(0, 2, 1))
    pooled = second.sum(axis=0, dtype=np.float64)
    pooled -= np.einsum("pd,pe->de", total / np.maximum(count, 1)[:, None], total)
    pooled /= count.sum()
    if not valid.any(axis=0).all():
        shared = np.cov(x.transpose(0, 2, 1)[valid.T], rowvar=False, bias=True)
    if neighborhood > 1:
        count, total, second = (_box_sums(s, grid, neighborhood) for s in (count, total, second))
    mean = total / np.maximum(count, 1)[:, None]
    constant = shrinkage * pooled + regularization * np.eye(dim)
    factor = np.empty_like(second)
    for p in range(n_positions):
        if count[p] > 0:
            covariance = second[p] / count[p] - np.outer(mean[p], mean[p])
        else:
            covariance = shared
        factor[p] = np.linalg.cholesky((1 - shrinkage) * covariance + constant)
    return PatchGaussian(
        mean=(mean * scale + centre).astype(np.float32),
        scale=scale.astype(np.float32),
        factor=factor,
    )


def fit_shared_gaussian(tokens: FloatArray, regularization: float) -> PatchGaussian:
    """Fit one Gaussian to the tokens of all positions.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
        Tokens of normal images.
    regularization : float
        Added to the diagonal, in units of the variance of each component.

    Returns
    -------
    PatchGaussian
        Of one position.
    """
    centre, scale = _standardisation(tokens)
    x = ((tokens - centre) / scale).astype(np.float32)
    covariance = product(x.T, x).astype(np.float64) / len(x) + regularization * np.eye(x.shape[1])
    return PatchGaussian(
        mean=centre[None].astype(np.float32),
        scale=scale.astype(np.float32),
        factor=np.linalg.cholesky(covariance)[None].astype(np.float32),
    )


def mahalanobis(
    gaussian: PatchGaussian, tokens: FloatArray, block_bytes: int = 2**26
) -> FloatArray:
    """Mahalanobis distance of patches to the Gaussian of their position.

    Parameters
    ----------
    gaussian : PatchGaussian
        Of `n_positions` positions, or of one that serves all.
    tokens : ndarray of shape (n, n_positions, dim)
        Finite tokens.
    block_bytes : int, default=2**26
        Bound on temporary memory.

    Returns
    -------
    ndarray of shape (n, n_positions), float64

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.gaussian import PatchGaussian, mahalanobis
    >>> unit = PatchGaussian(np.zeros((1, 2)), np.ones(2), np.eye(2, dtype="f4")[None])
    >>> mahalanobis(unit, np.array([[[3.0, 4.0]]]))
    array([[5.]])
    """
    n, n_positions, dim = tokens.shape
    out = np.empty((n, n_positions))
    step = max(1, block_bytes // (n_positions * dim * 8))
    for start in range(0, n, step):
        x = ((tokens[start : start + step] - gaussian.mean) / gaussian.scale).astype(np.float32)
        if len(gaussian.factor) == 1:
            white = _solve(gaussian.factor[0], x.reshape(-1, dim)).reshape(x.shape)
        else:
            white = np.empty_like(x)
            for position, factor in enumerate(gaussian.factor):
                white[:, position] = _solve(factor, x[:, position])
        out[start : start + step] = np.sqrt(np.einsum("npd,npd->np", white, white, dtype=float))
    return out


def _solve(factor, x):
    """Rows of `x` divided by the lower triangular factor."""
    # The transposes are what LAPACK's column order makes of C-ordered arrays, without a copy.
    solution, info = strtrs(factor.T, x.T, lower=0, trans=1)
    if info:
        raise np.linalg.LinAlgError(f"singular covariance ({info})")
    return solution.T


def _standardisation(tokens):
    """Mean and standard deviation of each component; constant components get the mean one."""
    centre = tokens.mean(axis=0, dtype=np.float64)
    scale = tokens.std(axis=0, dtype=np.float64)
    # What is left of a constant by rounding is no variance.
    varies = scale > 1e-6 * np.abs(centre)
    if not varies.any():
        raise ValueError(
            "the patch tokens of the training images do not vary: a Gaussian needs at least two "
            "different normal images"
        )
    return centre, np.where(varies, scale, scale[varies].mean())


def _box_sums(values, grid, side):
    """Sums over squares of `side` positions around each position, cut at the border."""
    out = values.reshape(*grid, *values.shape[1:])
    for axis in (0, 1):
        source, out = np.moveaxis(out, axis, 0), np.zeros_like(out)
        target, length = np.moveaxis(out, axis, 0), grid[axis]
        for shift in range(-(side // 2), side // 2 + 1):
            if abs(shift) < length:
                first, last = max(0, -shift), min(length, length - shift)
                target[first:last] += source[first + shift : last + shift]
    return out.reshape(values.shape)


def reduce_components(
    tokens: FloatArray, n_components: int, method: str, rng: np.random.RandomState
) -> NDArray[np.float32]:
    """Matrix that reduces the dimension of tokens.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
        Tokens of normal images.
    n_components : int
        Components to keep, less than `dim`.
    method : {"random", "pca"}
        ``"random"`` picks components at random, as PaDiM does; ``"pca"`` takes the principal
        axes of largest variance.
    rng : RandomState
        For ``"random"``.

    Returns
    -------
    ndarray of shape (dim, n_components), float32
    """
    dim = tokens.shape[1]
    if method == "random":
        return np.eye(dim, dtype=np.float32)[:, np.sort(rng.permutation(dim)[:n_components])]
    x = tokens - tokens.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(product(x.T, x))
    axes = axes[:, ::-1][:, :n_components]
    # The sign of an axis is arbitrary: fix it, so that it does not depend on the library.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n_components)])
    return axes.astype(np.float32)
