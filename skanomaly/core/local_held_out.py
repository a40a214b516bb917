"""Distances of training patches, by banks and metrics without their own images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.local_bank import EPS32, LocalBank
from skanomaly.core.local_metric import nearly_singular
from skanomaly.core.local_neighbors import Window, measured, nearest, window_of
from skanomaly.core.products import exact_product, product, squared_norms

_BLOCK = 2**18  # distances at a time: so many stay in the cache
# Of the pooled covariance, a variance or the tokens: what a group has of it is left out to first
# order, of which the error is about the square.
_LITTLE = 0.2


@dataclass(frozen=True)
class Loss:
    """What the metric of a place loses with some of its patches, for each of some queries.

    The inverse covariance without the patches `R` (less the mean) is
    ``LL' + LV'M^-1 VL'`` with ``V = RL``, ``M = (I - 11'/N) / a - VV'``, where `a` is the weight of
    a patch in the covariance and `N` the number of patches before.

    Attributes
    ----------
    white : ndarray of shape (n_queries, size, dim), float64
        V of each query.
    gains : ndarray of shape (n_queries, size, size), float64
        Inverse Cholesky factor of M.
    """

    white: FloatArray
    gains: FloatArray

    @classmethod
    def of(cls, residuals: FloatArray, factor: FloatArray, weight: float, n_tokens: int) -> Loss:
        """What is lost with some patches.

        Parameters
        ----------
        residuals : ndarray of shape (n_queries, size, dim), float64
            The patches that each query's metric loses, less the mean.
        factor : ndarray of shape (dim, dim), float64
            L, of the covariance that still has them, with the divisor that it has without.
        weight : float
            Of a patch in that covariance.
        n_tokens : int
            How many it has.

        Returns
        -------
        Loss
        """
        white = exact_product(residuals, factor)
        size = white.shape[1]
        rest = (np.eye(size) - 1 / n_tokens) / weight
        try:
            lower = np.linalg.cholesky(rest - np.einsum("qgd,qhd->qgh", white, white))
        except np.linalg.LinAlgError as exc:
            raise nearly_singular() from exc
        return cls(white, np.linalg.inv(lower))

    def added(self, white: FloatArray, queries: IntArray) -> FloatArray:
        """What the loss adds to squared distances.

        Parameters
        ----------
        white : ndarray of shape (n, dim), float64
            Whitened differences.
        queries : ndarray of shape (n,), int
            Of which query each is.

        Returns
        -------
        ndarray of shape (n,), float64
        """
        along = np.einsum("cgd,cd->cg", self.white[queries], white)
        along = np.einsum("cgh,ch->cg", self.gains[queries], along)
        return squared_norms(along)

    @property
    def stretch(self) -> FloatArray:
        """By how much it makes distances longer at most, of each query."""
        gains, white = (np.sqrt(np.square(a).sum(axis=(1, 2))) for a in (self.gains, self.white))
        return 1 + gains * white

    def bounds(self, near: Window, white: FloatArray, products: FloatArray) -> FloatArray:
        """No more than `added` for each query and each patch of a window.

        Parameters
        ----------
        near : Window
        white : ndarray of shape (n_queries, dim), float64
            Whitened queries, less the mean.
        products : ndarray of shape (n_queries, n_near), float32
            Of the queries' own slopes: of one patch that is left out, its own.

        Returns
        -------
        ndarray of shape (n_queries, n_near), float32
        """
        n_queries, size, dim = self.white.shape
        slopes = product(self.white.reshape(-1, dim), near.factor.T)
        start = np.einsum("qgd,qd->qg", self.white, white)
        start += product(slopes, near.mean[:, None]).reshape(n_queries, size)
        gains = self.gains.astype(np.float32)
        if size == 1:
            length = start.astype(np.float32) - products
            length *= gains[:, 0]
            np.abs(length, out=length)
        else:
            along = near.products(slopes).reshape(n_queries, size, -1)
            np.subtract(start.astype(np.float32)[:, :, None], along, out=along)
            along = product(gains, along)
            length = np.sqrt(np.einsum("qgb,qgb->qb", along, along))
        reach = np.sqrt(squared_norms(slopes)).reshape(n_queries, size) * near.bank.longest
        error = np.sqrt(np.square(reach + np.abs(start)).sum(axis=1))
        error *= np.sqrt(np.square(self.gains).sum(axis=(1, 2))) * (dim + size + 8) * EPS32
        length *= np.float32(1 - (size + 8) * EPS32)
        length -= error.astype(np.float32)[:, None] * np.float32(1 + 4 * EPS32)
        np.maximum(length, 0, out=length)
        return np.square(length, out=length)


def held_out_distances(bank: LocalBank, images: IntArray, groups: IntArray) -> FloatArray:
    """Distance of training patches to the nearest of other groups, as of a bank without their own.

    Parameters
    ----------
    bank : LocalBank
        Of all patches, not thinned.
    images : ndarray of shape (m,), int
        Images of the bank, by their number there.
    groups : ndarray of shape (n,), int
        Group of each image of the bank, which is left out with all of its group.

    Returns
    -------
    ndarray of shape (m, n_places), float64
        NaN for masked patches. Of an image, the same to the last bit whatever others are asked.

    Notes
    -----
    The covariance of a place loses exactly the patches of the group. With `N` tokens of scatter
    `S`, of which the g rows of `R` (less the mean) are left out, the scatter of the rest is
    ``S - R'(I + 11'/(N - g))R``: its inverse follows from that of `S` by a product with `R`
    (Sherman, Morrison and Woodbury), which is one of those that the search takes anyway. What a
    group has in the covariance pooled over all places, and in the standardisation, is little, but
    for :func:`dominant_groups`: the squared distance to the patch that is found loses it to first
    order, ``w'Dw`` with `D` what the covariance grows by without the group, and `w` the difference
    times the inverse covariance.
    """
    out = np.full((len(images), len(bank.tokens)), np.nan)
    slopes = np.zeros((*out.shape, bank.units.dim))
    shares = np.zeros(out.shape)
    allowed = groups != groups[images][:, None]
    for place, valid in enumerate(bank.valid):
        x = bank.tokens[place].astype(np.float64)
        members = ~allowed & valid
        # What all places share is learned from images, masked at this place or not.
        n_tokens, lost = bank.count(place), members if bank.is_local else ~allowed
        sizes = np.where(valid[images], lost.sum(axis=1), 0)
        for size in np.unique(sizes[sizes > 0]).tolist():
            rest = n_tokens - size
            share = bank.metric.own_share(rest)
            near = _window_without(bank, place, n_tokens, size)
            step = max(1, _BLOCK // (len(near.norms) * size))
            asked = np.flatnonzero(sizes == size)
            for start in range(0, len(asked), step):
                part, loss = asked[start : start + step], None
                if share:
                    left_out = np.nonzero(members[part])[1].reshape(len(part), size)
                    loss = Loss.of(x[left_out] - near.mean, near.factor, share / rest, n_tokens)
                found = nearest(near, place, x[images[part]], allowed[part], loss)
                out[part, place], differences = found
                slopes[part, place] = _slopes(near, differences, loss)
                shares[part, place] = share
    for group, pooled, spread in changes_without(bank, groups, np.unique(groups[images])):
        for k in np.flatnonzero(groups[images] == group):
            lost = np.zeros(len(slopes[k]))
            if bank.units.is_standardised:
                lost += bank.metric.ridge * (np.square(slopes[k]) @ spread)
            if bank.metric.whitening is not None:
                along = np.einsum("pd,pd->p", product(slopes[k], pooled), slopes[k])
                lost += (1 - shares[k]) * along
            # 1 / (1 + a) for 1 - a: equal to first order, and never negative.
            above = out[k] > 0
            out[k, above] /= 1 + np.maximum(lost[above] / out[k, above], -0.5)
    return np.sqrt(out)


def nearest_patches(
    bank: LocalBank,
    token: FloatArray,
    place: int,
    n_neighbors: int,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[IntArray, IntArray, FloatArray]:
    """The nearest patches near the place of a token.

    Parameters
    ----------
    bank : LocalBank
    token : ndarray of shape (1, dim)
    place : int
    n_neighbors : int
    allowed : ndarray of shape (n_places, n), bool, optional
        Patches that are not of the image's group; None for a new image.

    Returns
    -------
    places, columns : ndarray of shape (n_found,), int
        The nearest first; none where no patch is allowed within the radius.
    distances : ndarray of shape (n_found,), float64
        Where each place has its own metric, and the bank all patches, in that without the group.
    """
    loss, near = None, window_of(bank, place, bank.norms_of(place), bank.factor(place))
    x = bank.units.of(token)
    usable = np.concatenate([bank.valid[run] for run in near.runs])
    if allowed is not None:
        usable = usable & np.concatenate([allowed[run] for run in near.runs])
    if allowed is not None and bank.is_local and len(bank.sources) == 1:
        left_out = np.flatnonzero(bank.valid[place] & ~allowed[place])
        n_tokens, size = bank.count(place), len(left_out)
        near, rest = _window_without(bank, place, n_tokens, size), n_tokens - size
        share = bank.metric.own_share(rest)
        if share:
            residuals = bank.tokens[place, left_out].astype(np.float64) - near.mean
            loss = Loss.of(residuals[None], near.factor, share / rest, n_tokens)
    patches = np.flatnonzero(usable)
    rows, zeros = np.broadcast_to(x[0], (len(patches), len(x[0]))), np.zeros(len(patches), int)
    found = np.sqrt(measured(near, rows, zeros, patches, loss))
    order = np.argsort(found, kind="stable")[:n_neighbors]
    places = np.concatenate([np.arange(run.start, run.stop) for run in near.runs])
    n = bank.tokens.shape[1]
    return places[patches[order] // n], patches[order] % n, found[order]


def _window_without(bank, place, n_tokens, size):
    """The window of a place whose metric has the divisor of so many tokens less."""
    if bank.metric.whitening is None:
        return window_of(bank, place, bank.norms_of(place), bank.factor(place))
    scatter = bank.scatter(place) if bank.is_local else None
    factor = bank.metric.factor(scatter, n_tokens - size)
    if 64 * size > n_tokens:
        norms = bank.window_norms(place, factor)
    else:  # no part of the covariance grows by more than its divisor shrinks
        norms = bank.norms_of(place) * np.float32((1 - size / n_tokens) * (1 - 16 * EPS32))
    return window_of(bank, place, norms, factor)


def _slopes(near, differences, loss):
    """Differences times the inverse covariance."""
    white = exact_product(differences, near.factor)
    if loss is not None:
        along = np.einsum("qgd,qd->qg", loss.white, white)
        along = np.einsum("qgh,qh->qg", loss.gains, along)
        along = np.einsum("qhg,qh->qg", loss.gains, along)
        white = white + np.einsum("qgd,qg->qd", loss.white, along)
    return exact_product(white, np.ascontiguousarray(near.factor.T))


def dominant_groups(bank: LocalBank, groups: IntArray, wanted: IntArray) -> IntArray:
    """Groups that have more of what all places share than can be left out to first order.

    Parameters
    ----------
    bank, groups, wanted : object
        As for :func:`changes_without`.

    Returns
    -------
    ndarray of int
        Those whose part of the tokens, of the variance of a component or of its pooled variance is
        more than a fifth.
    """
    own = bank.metric.pooled.diagonal()
    tokens_of = np.bincount(groups, bank.valid.sum(axis=0))
    found = []
    for group, pooled, spread in changes_without(bank, groups, wanted):
        relative = np.divide(pooled.diagonal(), own, where=own > 1e-6, out=np.zeros_like(own))
        share = tokens_of[group] / tokens_of.sum()
        if max(share, np.abs(relative).max(), np.abs(spread).max()) > _LITTLE:
            found.append(group)
    return np.array(found, dtype=np.intp)


def changes_without(
    bank: LocalBank, groups: IntArray, wanted: IntArray
) -> Iterator[tuple[int, FloatArray, FloatArray]]:
    """What the pooled covariance, and the variances, grow by without each group of images.

    Parameters
    ----------
    bank : LocalBank
        Of all patches, not thinned.
    groups : ndarray of shape (n,), int
        Group of each image of the bank.
    wanted : ndarray of int
        The groups.

    Yields
    ------
    group : int
    pooled : ndarray of shape (dim, dim), float64
        In the units of the bank.
    spread : ndarray of shape (dim,), float64
        Relative.
    """
    counts = np.count_nonzero(bank.valid, axis=1)
    totals = bank.tokens.sum(axis=(0, 1), dtype=np.float64)
    squares = np.einsum("pnd,pnd->d", bank.tokens, bank.tokens, dtype=np.float64)
    before = squares / counts.sum() - np.square(totals / counts.sum())
    for group in wanted.tolist():
        members = np.flatnonzero(groups == group)
        x = bank.tokens[:, members].astype(np.float64)
        valid = bank.valid[:, members, None]
        sizes = valid.sum(axis=1)
        rest = np.maximum(counts[:, None] - sizes, 1)
        residuals = np.where(valid, x - bank.means[:, None], 0)
        moved = residuals.sum(axis=1) / np.sqrt(rest)
        flat = residuals.reshape(-1, x.shape[2])
        lost = product(flat.T, flat) + product(moved.T, moved)
        n_rest = counts.sum() - sizes.sum()
        pooled = (bank.metric.pooled * counts.sum() - lost) / n_rest
        mean = (totals - x.sum(axis=(0, 1))) / n_rest
        after = (squares - np.square(x).sum(axis=(0, 1))) / n_rest - np.square(mean)
        change = np.where(before > 1e-6, after / np.where(before > 1e-6, before, 1) - 1, 0)
        yield group, pooled - bank.metric.pooled, change
