"""Gaussian models of patch tokens: one a position, or one for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtri

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import exact_product, product, rounded_for_products
from skanomaly.core.squares import box_sums
from skanomaly.core.standardisation import row_blocks, standardisation, valid_blocks

_BLOCK_BYTES = 2**21  # of float64 at a time: so much stays in the cache


@dataclass(frozen=True)
class PatchGaussian:
    """Gaussians to score patches against.

    Parameters
    ----------
    mean : ndarray of shape (n_positions, dim), float32
        One position stands for all when the Gaussian is shared.
    scale : ndarray of shape (dim,), float32
        Standard deviation of each component over all training patches.
    whitening : ndarray of shape (n_positions, dim, dim), float32
        ``((x - mean) / scale) @ whitening`` has unit covariance: the transposed inverse of its
        Cholesky factor, as :func:`skanomaly.core.products.rounded_for_products` leaves it.
    """

    mean: FloatArray
    scale: FloatArray
    whitening: FloatArray


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
    centre, scale = _standardisation(tokens.reshape(-1, dim), valid.ravel())
    count = valid.sum(axis=0).astype(np.float64)
    total = np.empty((n_positions, dim))
    second = np.empty((n_positions, dim, dim), dtype=np.float32)
    step = max(1, 2 * _BLOCK_BYTES // (n * dim * 8))
    for start in range(0, n_positions, step):
        part = slice(start, start + step)
        x = np.where(valid[:, part, None], (tokens[:, part] - centre) / scale, 0)
        x = x.astype(np.float32).transpose(1, 2, 0)  # (positions, dim, n)
        total[part] = x.sum(axis=2, dtype=np.float64)
        second[part] = product(x, x.transpose(0, 2, 1))
    sums, standard = (count, total, second), (centre, scale)
    return gaussians_of_sums(sums, standard, grid, shrinkage, regularization, neighborhood)


def gaussians_of_sums(
    sums: tuple[FloatArray, FloatArray, FloatArray],
    standard: tuple[FloatArray, FloatArray],
    grid: tuple[int, int],
    shrinkage: float,
    regularization: float,
    neighborhood: int,
) -> PatchGaussian:
    """Gaussians of positions whose tokens were summed up; as :func:`fit_gaussians` makes them.

    Parameters
    ----------
    sums : tuple of ndarray
        Of each position how many tokens there are, their sum, and the sum of their outer products:
        (n_positions,), (n_positions, dim) and (n_positions, dim, dim). The last is overwritten.
    standard : tuple of ndarray of shape (dim,)
        Centre and scale: tokens were summed up less the one, divided by the other.
    grid, shrinkage, regularization, neighborhood
        As for :func:`fit_gaussians`.

    Returns
    -------
    PatchGaussian
    """
    (count, total, second), (centre, scale) = sums, standard
    pooled = second.sum(axis=0, dtype=np.float64)
    shared = pooled / count.sum() - np.outer(*2 * [total.sum(axis=0) / count.sum()])
    pooled -= np.einsum("pd,pe->de", total / np.maximum(count, 1)[:, None], total)
    pooled /= count.sum()
    if neighborhood > 1:
        count, total, second = (
            box_sums(sums.reshape(*grid, *sums.shape[1:]), neighborhood).reshape(sums.shape)
            for sums in (count, total, second)
        )
    mean = total / np.maximum(count, 1)[:, None]
    constant = shrinkage * pooled + regularization * np.eye(len(centre))
    whitening = second  # in its place
    for p in range(len(mean)):
        if count[p] > 0:
            covariance = second[p] / count[p] - np.outer(mean[p], mean[p])
        else:
            covariance = shared
        whitening[p] = whitening_factor((1 - shrinkage) * covariance + constant)
    return PatchGaussian(
        mean=(mean * scale + centre).astype(np.float32),
        scale=scale.astype(np.float32),
        whitening=whitening.astype(np.float32, copy=False),
    )


def fit_shared_gaussian(
    tokens: FloatArray, valid: NDArray[np.bool_], regularization: float
) -> PatchGaussian:
    """Fit one Gaussian to the tokens of all positions.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
        Tokens of normal images.
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches, which do not count.
    regularization : float
        Added to the diagonal, in units of the variance of each component.

    Returns
    -------
    PatchGaussian
        Of one position.
    """
    count, dim = np.count_nonzero(valid), tokens.shape[1]
    centre, scale = _standardisation(tokens, valid)
    covariance = regularization * np.eye(dim)
    for x in valid_blocks(tokens, valid):
        x = ((x - centre) / scale).astype(np.float32)
        covariance += product(x.T, x) / count
    return PatchGaussian(
        mean=centre[None].astype(np.float32),
        scale=scale.astype(np.float32),
        whitening=whitening_factor(covariance)[None],
    )


def mahalanobis(
    gaussian: PatchGaussian, tokens: FloatArray, block_bytes: int = 2**25
) -> FloatArray:
    """Mahalanobis distance of patches to the Gaussian of their position.

    Parameters
    ----------
    gaussian : PatchGaussian
        Of `n_positions` positions, or of one that serves all.
    tokens : ndarray of shape (n, n_positions, dim)
        Finite tokens.
    block_bytes : int, default=2**25
        Bound on temporary memory.

    Returns
    -------
    ndarray of shape (n, n_positions), float64
        The same to the last bit, whatever other patches are scored in the same call.

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
    if n_positions == 1:  # no Gaussian is loaded anew for each block: small ones stay in the cache
        block_bytes = min(block_bytes, _BLOCK_BYTES)
    step = max(1, block_bytes // (n_positions * dim * 8))
    for start in range(0, n, step):
        x = ((tokens[start : start + step] - gaussian.mean) / gaussian.scale).astype(np.float32)
        if len(gaussian.whitening) == 1:
            whitening = gaussian.whitening[0].astype(np.float64)
            white = exact_product(x.reshape(-1, dim), whitening).reshape(x.shape)
        else:
            white = np.empty(x.shape)
            x = rounded_for_products(x, dim, axis=-1)
            for position, whitening in enumerate(gaussian.whitening):
                white[:, position] = product(x[:, position], whitening.astype(np.float64))
        out[start : start + step] = np.sqrt(np.einsum("npd,npd->np", white, white))
    return out


def whitening_factor(covariance: FloatArray) -> FloatArray:
    """Transposed inverse of the Cholesky factor, for exact products.

    Parameters
    ----------
    covariance : ndarray of shape (dim, dim), float64
        Positive definite.

    Returns
    -------
    ndarray of shape (dim, dim), float32
        ``x @ factor`` has unit covariance, as
        :func:`skanomaly.core.products.rounded_for_products` leaves it.

    Raises
    ------
    numpy.linalg.LinAlgError
        When the covariance is singular.
    """
    # Its transpose is what LAPACK's column order makes of a C-ordered array, without a copy.
    inverse, info = dtrtri(np.linalg.cholesky(covariance).T, lower=0, overwrite_c=1)
    if info:
        raise np.linalg.LinAlgError(f"singular covariance ({info})")
    return rounded_for_products(inverse, len(inverse), axis=0).astype(np.float32)


def _standardisation(tokens, valid):
    """Mean and standard deviation of each component; an error where none varies."""
    centre, scale, varies = standardisation(tokens, valid)
    check_varies(varies)
    return centre, scale


def check_varies(varies: NDArray[np.bool_]) -> None:
    """Raise a ValueError where no component of the tokens varies."""
    if not varies.any():
        raise ValueError(
            "the patch tokens of the training images do not vary: a Gaussian needs at least two "
            "different normal images"
        )


def choose_components(
    tokens: FloatArray,
    valid: NDArray[np.bool_],
    n_components: int,
    method: str,
    rng: np.random.RandomState,
) -> FloatArray | IntArray:
    """Which components to keep, or the axes of which to keep the coordinates.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
        Tokens of normal images.
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches, which do not count.
    n_components : int
        Components to keep, less than `dim`.
    method : {"random", "pca"}
        ``"random"`` picks components at random, as PaDiM does; ``"pca"`` takes the principal
        axes of largest variance.
    rng : RandomState
        For ``"random"``.

    Returns
    -------
    ndarray of shape (n_components,), int, or of shape (dim, n_components), float64
        Numbers of components, ascending, or axes; for :func:`reduce_components`.
    """
    dim = tokens.shape[1]
    if method == "random":
        return np.sort(rng.permutation(dim)[:n_components])
    count = np.count_nonzero(valid)
    centre, scatter = np.zeros(dim), np.zeros((dim, dim))
    for x in valid_blocks(tokens, valid):
        centre += x.sum(axis=0, dtype=np.float64) / count
    for x in valid_blocks(tokens, valid):
        x = x - centre
        scatter += product(x.T, x)
    _, axes = np.linalg.eigh(scatter)
    axes = axes[:, ::-1][:, :n_components]
    # The sign of an axis is arbitrary: fix it, so that it does not depend on the library.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(n_components)])
    return rounded_for_products(axes, dim, axis=0)


def reduce_components(
    tokens: FloatArray, valid: NDArray[np.bool_], components: FloatArray | IntArray
) -> FloatArray:
    """Tokens of fewer components.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
        Finite where they are not masked.
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches, which become 0.
    components : ndarray
        As from :func:`choose_components`.

    Returns
    -------
    ndarray of shape (n_tokens, n_components)
        Of the dtype of `tokens`. A row does not depend on the others, to the last bit.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.gaussian import reduce_components
    >>> reduce_components(np.array([[5.0, 6.0, 7.0]]), np.array([True]), np.array([0, 2]))
    array([[5., 7.]])
    """
    out = np.zeros((len(tokens), components.shape[-1]), dtype=tokens.dtype)
    for rows, x in zip(row_blocks(*tokens.shape), valid_blocks(tokens, valid), strict=True):
        if components.ndim == 1:
            out[rows][valid[rows]] = x[:, components]
        else:
            axes = components.astype(np.float64, copy=False)
            out[rows][valid[rows]] = exact_product(x, axes)
    return out
