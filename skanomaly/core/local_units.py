"""Tokens brought to the units of a bank of places: direction, standard deviations, components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.prepared import unit_rows
from skanomaly.core.products import exact_product, product, rounded_for_products
from skanomaly.core.standardisation import standardisation


@dataclass(frozen=True)
class Units:
    """How tokens are brought to the units in which a bank keeps them.

    Attributes
    ----------
    unit_length : bool
        Whether tokens are divided by their length first.
    centre, scale : ndarray of shape (dim,), float64
        What is subtracted, and by what the rest is divided.
    components : ndarray of shape (dim, n_components), float64, or None
        Onto which the rest is projected at last; None for all that it has.
    """

    unit_length: bool
    centre: FloatArray
    scale: FloatArray
    components: FloatArray | None = None

    @property
    def dim(self) -> int:
        """Components that a token has in these units."""
        return len(self.scale) if self.components is None else self.components.shape[1]

    @property
    def is_standardised(self) -> bool:
        """Whether components are divided by standard deviations that were learned."""
        return self.components is None and bool((self.scale != 1).any())

    def of(self, tokens: FloatArray) -> FloatArray:
        """Tokens in these units; a row does not depend on the others.

        Parameters
        ----------
        tokens : ndarray of shape (n, dim)

        Returns
        -------
        ndarray of shape (n, self.dim), float64
        """
        x = unit_rows(tokens.astype(np.float64)) if self.unit_length else tokens
        x = (x - self.centre) / self.scale
        return x if self.components is None else exact_product(x, self.components)


def standard_units(values: FloatArray, valid: NDArray[np.bool_], unit_length: bool) -> Units:
    """Each component without its mean, by its standard deviation.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, dim)
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches, which do not count.
    unit_length : bool
        Whether tokens are divided by their length first.

    Returns
    -------
    Units
    """
    if unit_length:
        values = unit_rows(values)  # masked rows are NaN before and after, and do not count
    centre, scale, _ = standardisation(values, valid)
    return Units(unit_length, centre, scale)


def component_units(
    values: FloatArray,
    valid: NDArray[np.bool_],
    rows: IntArray,
    *,
    n_components: int,
    ridge: float | None,
    unit_length: bool,
) -> Units:
    """The directions in which the tokens of a place vary most, each by how much they do.

    Parameters
    ----------
    values : ndarray of shape (n_tokens, dim)
    valid : ndarray of shape (n_tokens,), bool
        False for masked patches, which do not count.
    rows : ndarray of shape (n, n_places), int
        Where the patch of each image is that lies at each place.
    n_components : int
        How many directions; no more than `dim`.
    ridge : float or None
        What is added to each variance, in units of the mean variance of the `dim` components; None
        to leave the components as long as they are.
    unit_length : bool
        Whether tokens are divided by their length first.

    Returns
    -------
    Units
        With a ridge a component has the variance ``v / (v + ridge * mean)`` within places, where
        `v` is that of its direction.

    Raises
    ------
    ValueError
        When `n_components` is more than the tokens have, or no place has tokens that differ by more
        than rounding errors.
    """
    dim = values.shape[1]
    if n_components > dim:
        raise ValueError(
            f"n_components={n_components} is more than the {dim} components of the tokens"
        )
    units = Units(unit_length, np.zeros(dim), np.ones(dim))
    scatter, total, count = np.zeros((dim, dim)), np.zeros(dim), 0
    for of_place in rows.T:
        x = units.of(values[of_place[valid[of_place]]])
        if len(x):
            rest = x - x.mean(axis=0)
            scatter += product(rest.T, rest)
            total += x.sum(axis=0)
            count += len(x)
    variances, directions = np.linalg.eigh(scatter / count)
    variances, directions = np.maximum(variances[::-1], 0), directions[:, ::-1]
    if not variances[0] > 1e-12 * np.abs(total / count).max() ** 2:  # but rounding errors
        raise ValueError(
            "the patch tokens of the training images do not vary within their places, or not "
            "without those that are held out: n_components needs at least three normal images that "
            "differ"
        )
    components = directions[:, :n_components]
    if ridge is not None:
        components = components / np.sqrt(variances + ridge * variances.mean())[:n_components]
    # The sign of an eigenvector is free. No distance depends on it, but it is kept in model files:
    # the largest entry of each is positive.
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=0)[None], axis=0)
    rounded = rounded_for_products(components * np.sign(largest), dim, axis=0)
    return Units(unit_length, total / count, np.ones(dim), rounded)
