"""Distances of new patches to the nearest normal patches near their place."""

from __future__ import annotations

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.local_bank import EPS32, LocalBank
from skanomaly.core.local_neighbors import LARGEST, MEASURED, nearest_beyond, window_of
from skanomaly.core.local_places import window_pairs
from skanomaly.core.products import product, rounded_for_products, squared_norms

_NUMBERS = 2**23  # of float32 at a time


def local_distances(bank: LocalBank, tokens: FloatArray, places: IntArray) -> FloatArray:
    """Distance of each token to the nearest patch near its place.

    Parameters
    ----------
    bank : LocalBank
    tokens : ndarray of shape (n, dim)
        Finite, as they come.
    places : ndarray of shape (n,), int
        Of the tokens.

    Returns
    -------
    ndarray of shape (n,), float64
        The same to the last bit, whatever other tokens come with them. At a place around which
        there is no patch at all, within the smallest radius at which there is one.

    Notes
    -----
    The search is in float32, by ``|(x-m)L|^2 - 2 ((x-m)LL') (b-m) + |(b-m)L|^2`` with the origin
    `m` of the place of x, of which the last is kept; patches that a bound of its rounding does not
    rule out are measured in float64. It goes through the places of the bank, and multiplies the
    patches of each by all tokens that are compared with them, so that an image reads the bank once.
    """
    out = np.empty(len(tokens))
    order = np.argsort(places, kind="stable")
    _, starts, _ = window_pairs(bank.grid, bank.radius)
    n, dim = bank.tokens.shape[1:]
    numbers = np.cumsum(np.diff(starts)[places[order]] * (n + dim))
    for rows in np.split(order, np.flatnonzero(np.diff(numbers // _NUMBERS)) + 1):
        if len(rows):
            out[rows] = _squared_distances(bank, bank.units.of(tokens[rows]), places[rows])
    return np.sqrt(out)


def _squared_distances(bank, x, places):
    """Of tokens in the units of the bank that are sorted by their place."""
    dim = x.shape[1]
    constant, slopes, sizes = _expanded(bank, x, places)
    length = np.sqrt(squared_norms(slopes))
    usable = length < LARGEST  # others are compared with every patch
    slopes = np.where(usable[:, None], slopes, 0)
    lower, tokens_of, places_of = _lower_bounds(bank, slopes, places)
    # Each row of `lower` is of one token and the patches of one place.
    numbers = lower.argmin(axis=1)
    least = np.take_along_axis(lower, numbers[:, None], axis=1)[:, 0]
    of_token = np.argsort(tokens_of, kind="stable")
    starts = np.searchsorted(tokens_of[of_token], np.arange(len(x)))
    least_of_token = np.minimum.reduceat(least[of_token], starts)
    row = np.empty(len(x), dtype=np.int64)
    lowest = np.flatnonzero(least == least_of_token[tokens_of])
    row[tokens_of[lowest]] = lowest
    best = _measured(bank, x, places, np.arange(len(x)), places_of[row], numbers[row])
    # No patch whose bound is above this can be measured as nearer.
    slack = sizes * np.sqrt(dim) * 2.0**-22 * (np.sqrt(squared_norms(x)) + bank.longest)
    error = 2.02 * (dim + 8) * EPS32 * length * bank.longest
    limit = np.square(np.sqrt(best) + slack) * (1 + 1e-9) - constant + error
    limit = np.where(usable, limit, np.inf)
    with np.errstate(over="ignore"):
        limit = np.nextafter(limit.astype(np.float32), np.float32(np.inf))
    limit = np.minimum(limit, np.finfo(np.float32).max)
    rows = np.flatnonzero(least <= limit[tokens_of])
    close = lower[rows] <= limit[tokens_of[rows]][:, None]
    first = row[tokens_of[rows]] == rows
    close[first, numbers[rows[first]]] = False
    found, numbers = np.divmod(np.flatnonzero(close), close.shape[1])
    rows = rows[found]
    order = np.argsort(tokens_of[rows], kind="stable")
    rows, numbers = rows[order], numbers[order]
    for start in range(0, len(rows), MEASURED):
        part = slice(start, start + MEASURED)
        tokens = tokens_of[rows[part]]
        found = _measured(bank, x, places, tokens, places_of[rows[part]], numbers[part])
        starts = np.flatnonzero(np.diff(tokens, prepend=-1))
        tokens = tokens[starts]
        best[tokens] = np.minimum(best[tokens], np.minimum.reduceat(found, starts))
    for k in np.flatnonzero(np.isinf(least_of_token)):
        place = int(places[k])
        near = window_of(bank, place, bank.norms_of(place), bank.factor(place))
        best[k] = nearest_beyond(near, place, x[k])[0]
    return best


def _runs(sorted_numbers):
    """First and one past the last of each run of equal numbers."""
    cuts = np.flatnonzero(np.diff(sorted_numbers)) + 1
    return zip([0, *cuts.tolist()], [*cuts.tolist(), len(sorted_numbers)], strict=True)


def _expanded(bank, x, places):
    """What the bounds of each token have in common, its slopes, and the size of its metric."""
    constant, slopes, sizes = np.empty(len(x)), np.empty(x.shape), np.empty(len(x))
    for start, stop in _runs(places):
        place = int(places[start])
        origin, factor = (
            bank.origin(place).astype(np.float64),
            bank.factor(place).astype(np.float64),
        )
        white = product(x[start:stop] - origin, factor)
        slopes[start:stop] = product(white, factor.T)
        constant[start:stop] = squared_norms(white) + 2 * (slopes[start:stop] @ origin)
        sizes[start:stop] = np.linalg.norm(factor)
    return constant, slopes, sizes


def _lower_bounds(bank, slopes, places):
    """No more than the squared distances, but for a constant of each token, and what each row is.

    A row is of one token and the patches of one place; tokens are sorted by their place.
    """
    near, starts, turned = window_pairs(bank.grid, bank.radius)
    first, last = int(places[0]), int(places[-1])
    counts = np.bincount(places, minlength=len(starts) - 1)
    before = np.cumsum(counts) - counts
    pairs = np.sort(turned[starts[first] : starts[last + 1]])
    pairs = pairs[counts[near[pairs]] > 0]
    times = counts[near[pairs]]
    stops = np.cumsum(times)
    tokens_of = np.repeat(before[near[pairs]] - (stops - times), times) + np.arange(stops[-1])
    place_of_pair = np.searchsorted(starts, pairs, side="right") - 1
    left = (-2 * slopes).astype(np.float32)[tokens_of]
    lower = np.empty((len(left), bank.tokens.shape[1]), dtype=np.float32)
    for start, stop in _runs(place_of_pair):
        rows = slice(stops[start] - times[start], stops[stop - 1])
        product(left[rows], bank.tokens[place_of_pair[start]].T, out=lower[rows])
        rows_of_norms = pairs if bank.is_local else place_of_pair
        norms = bank.norms[rows_of_norms[start:stop]]
        if (times[start:stop] == times[start]).all():
            lower[rows].reshape(len(norms), times[start], -1)[:] += norms[:, None]
        else:
            lower[rows] += np.repeat(norms, times[start:stop], axis=0)
    return lower, tokens_of, np.repeat(place_of_pair, times)


def _measured(bank, x, places, tokens, places_near, numbers):
    """Squared distances of tokens, sorted, to patches of the bank, in float64.

    Alike in any batch: see :func:`skanomaly.core.products.exact_product`.
    """
    differences = x[tokens] - bank.tokens[places_near, numbers]
    differences = rounded_for_products(differences, x.shape[1], axis=-1)
    out = np.empty(len(tokens))
    for start, stop in _runs(places[tokens]):
        factor = bank.factor(int(places[tokens[start]])).astype(np.float64)
        out[start:stop] = squared_norms(product(differences[start:stop], factor))
    return out
