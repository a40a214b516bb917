"""Principal subspaces of patch tokens, and what of a token lies outside of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.products import exact_product, product, rounded_for_products
from skanomaly.core.standardisation import row_blocks

_BLOCK_BYTES = 2**24  # of tokens that are in float64 at a time
_NOISE = 1e-6  # standard deviation, as a share of the mean, that rounding alone may make


@dataclass(frozen=True)
class TokenStatistics:
    """All that a principal subspace needs to know of tokens, however many they are.

    Attributes
    ----------
    count : int
        How many tokens there were.
    mean : ndarray of shape (dim,), float64
    scatter : ndarray of shape (dim, dim), float64
        Sum of the outer products of their deviations from the mean; packed its upper triangle
        alone, row by row.
    """

    count: int
    mean: FloatArray
    scatter: FloatArray

    def packed(self) -> TokenStatistics:
        """The same in half of the memory, to be kept."""
        return replace(self, scatter=self.scatter[np.triu_indices(len(self.mean))])

    def unpacked(self) -> TokenStatistics:
        """The same with the whole scatter, of packed ones too."""
        if self.scatter.ndim == 2:
            return self
        scatter = np.empty((len(self.mean),) * 2)
        rows, columns = np.triu_indices(len(self.mean))
        scatter[rows, columns] = scatter[columns, rows] = self.scatter
        return replace(self, scatter=scatter)


@dataclass(frozen=True)
class Subspace:
    """The directions in which normal tokens vary, around their mean.

    Attributes
    ----------
    mean : ndarray of shape (dim,), float64
        Of normal tokens.
    n_components : int
        Dimension of the subspace.
    axes : ndarray of shape (dim, n_axes), float32
        Orthonormal, rounded for exact products: those of the subspace, or those at right angles to
        it, whichever are fewer.
    outside : bool
        Whether `axes` are those at right angles.
    scale : ndarray of shape (dim,), float64
        Standard deviation of what lies outside of the subspace, of normal tokens, by component.
    """

    mean: FloatArray
    n_components: int
    axes: FloatArray
    outside: bool
    scale: FloatArray


def measure_tokens(tokens: FloatArray, rows: IntArray) -> TokenStatistics:
    """Statistics of some rows of tokens, a block at a time.

    Parameters
    ----------
    tokens : ndarray of shape (n_tokens, dim)
        Finite in these rows.
    rows : ndarray of int
        Which of them, at least one.

    Returns
    -------
    TokenStatistics

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.subspace import measure_tokens
    >>> measure_tokens(np.array([[1.0, 2.0], [3.0, 2.0], [9.0, 9.0]]), np.array([0, 1])).scatter
    array([[2., 0.],
           [0., 0.]])
    """
    parts = row_blocks(len(rows), tokens.shape[1], _BLOCK_BYTES)
    blocks = (tokens[rows[part]] for part in parts)
    return merge_statistics(map(_measure_block, blocks))


def merge_statistics(parts: Iterable[TokenStatistics]) -> TokenStatistics:
    """Statistics of all tokens, from those of their parts, without a look at the tokens.

    Parameters
    ----------
    parts : iterable of TokenStatistics
        At least one.

    Returns
    -------
    TokenStatistics

    Notes
    -----
    Chan's formula [1]_. Parts are added, never taken away, so that nothing cancels.

    References
    ----------
    .. [1] Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
       Sample Variances", 1979.
    """
    return reduce(_merged, parts)


def fit_subspace(statistics: TokenStatistics, explained_variance: float) -> Subspace:
    """The fewest principal components that explain a share of the variance.

    Parameters
    ----------
    statistics : TokenStatistics
        Of normal tokens.
    explained_variance : float
        The share, in (0, 1).

    Returns
    -------
    Subspace
        Of no dimension where the tokens do not vary, and of one less than the tokens at most: of
        all, it would leave nothing by which to tell tokens apart.

    Raises
    ------
    ValueError
        When the tokens are so large that their squares overflow.
    """
    dim = len(statistics.mean)
    if not np.isfinite(statistics.scatter).all():
        raise ValueError(
            "the squares of the patch tokens of the training images overflow: scale the tokens down"
        )
    # Divided first by what the largest eigenvalue cannot exceed: tokens may be of any size.
    trace = float(np.trace(statistics.scatter))
    noise = _NOISE * float(np.sqrt(np.square(statistics.mean).sum()))
    if not trace > statistics.count * noise**2:
        trace, variances, axes = 1.0, np.zeros(dim), np.eye(dim)
        n_components = 0
    else:
        variances, axes = np.linalg.eigh(statistics.scatter / trace)
        variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
        explained = np.cumsum(variances) / variances.sum()
        n_components = min(int(np.searchsorted(explained, explained_variance)) + 1, dim - 1)
    minor = axes[:, n_components:]
    scale = np.sqrt(np.square(minor) @ variances[n_components:] * (trace / statistics.count))
    outside = dim - n_components < n_components
    chosen = minor if outside else axes[:, :n_components]
    return Subspace(
        mean=statistics.mean,
        n_components=n_components,
        axes=rounded_for_products(chosen, dim, axis=0).astype(np.float32),
        outside=outside,
        scale=_without_zeros(scale),
    )


def squared_residuals(
    subspace: Subspace, tokens: FloatArray, valid: NDArray[np.bool_]
) -> FloatArray:
    """Squared distance of tokens from a subspace.

    Parameters
    ----------
    subspace : Subspace
    tokens : ndarray of shape (n_tokens, dim)
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches.

    Returns
    -------
    ndarray of shape (n_tokens,), float64
        The same to the last bit, whatever other tokens are among them; 0 for masked ones.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.core.subspace import fit_subspace, measure_tokens, squared_residuals
    >>> tokens = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    >>> line = fit_subspace(measure_tokens(tokens, np.arange(3)), 0.99)
    >>> squared_residuals(line, np.array([[7.0, 0.5]]), np.array([True]))
    array([0.25])
    """
    out, axes = np.zeros(len(tokens)), subspace.axes.astype(np.float64)
    if subspace.n_components and not subspace.outside:
        back = rounded_for_products(axes.T, subspace.n_components, axis=0)
    step = max(1, _BLOCK_BYTES // (tokens.shape[1] * 8))
    for start in range(0, len(tokens), step):
        rows = slice(start, start + step)
        centred = np.where(valid[rows, None], tokens[rows], subspace.mean) - subspace.mean
        if subspace.n_components:
            found = exact_product(centred, axes)
            centred = found if subspace.outside else centred - exact_product(found, back)
        out[rows] = np.einsum("ij,ij->i", centred, centred)
    return out


def residual(subspace: Subspace, token: FloatArray) -> FloatArray:
    """What of a token lies outside of a subspace, by component.

    Parameters
    ----------
    subspace : Subspace
    token : ndarray of shape (dim,)

    Returns
    -------
    ndarray of shape (dim,), float64
    """
    centred, axes = token - subspace.mean, subspace.axes.astype(np.float64)
    within = product(axes, product(centred, axes))
    return within if subspace.outside else centred - within


def _measure_block(tokens):
    tokens = tokens.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found in the end
        mean = tokens.mean(axis=0)
        tokens -= mean
        return TokenStatistics(len(tokens), mean, product(tokens.T, tokens))


def _merged(one, other):
    count = one.count + other.count
    with np.errstate(over="ignore", invalid="ignore"):
        shift = other.mean - one.mean
        mean = one.mean + shift * (other.count / count)
        between = np.outer(shift, shift * (one.count * (other.count / count)))
        between += one.scatter
        between += other.scatter
    return TokenStatistics(count, mean, between)


def _without_zeros(scale):
    """Standard deviations to divide by: the mean one where there is none."""
    varies = scale > 0
    return np.where(varies, scale, scale[varies].mean() if varies.any() else 1.0)
