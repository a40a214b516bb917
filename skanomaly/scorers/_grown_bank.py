"""Memory banks of all patches that take in more images, lose some, or become one.

Banks are whole here, so that they hold the tokens of the images that they are made of: held-out
scores are those of a fit to the bit where one nearest patch counts, and the tokens are as they
were. For coresets see :mod:`skanomaly.scorers._grown_coreset`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.search.index import PatchIndex
from skanomaly.scorers._memory_bank import MemoryBank, MemoryBanks, banks_of_images, index_of

_QUERIES = 2**14  # patches that are copied at a time

HeldOut = dict[int, FloatArray]


def values_of(model: MemoryBanks, layout: PatchTokens) -> FloatArray:
    """The tokens of the training images, as whole banks compare them.

    Parameters
    ----------
    model : MemoryBanks
        Of all patches.
    layout : PatchTokens
        The training images.

    Returns
    -------
    ndarray of shape (n_rows, dim)
        Of unit length in each part for the cosine; NaN for masked ones.
    """
    dim = max(bank.space.stop for bank in model.banks)
    values = np.full((len(layout.valid), dim), np.nan, dtype=model.banks[0].index.dtype)
    for bank in model.banks:
        part = slice(bank.space.first, bank.space.stop)
        # Behind the components of the tokens may come their places.
        values[layout.valid, part] = bank.index.bank[:, : part.stop - part.start]
    return values


def joined_banks(models: Sequence[MemoryBanks], layout: PatchTokens, algorithm: str) -> MemoryBanks:
    """The banks of the images of several models, one after the other.

    Parameters
    ----------
    models : sequence of MemoryBanks
        Whole ones, of as many parts.
    layout : PatchTokens
        All images.
    algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.

    Returns
    -------
    MemoryBanks
        Those of a fit to all images.
    """
    banks = []
    for parts in zip(*(model.banks for model in models), strict=True):
        dtype = parts[0].index.dtype
        patches = np.concatenate([bank.index.bank for bank in parts], dtype=dtype)
        index = index_of(patches, parts[0].space, algorithm)
        banks.append(MemoryBank(parts[0].space, index, _all_rows(layout), 0.0))
    return banks_of_images(banks, layout, True)


def banks_without(
    model: MemoryBanks, stays: NDArray[np.bool_], layout: PatchTokens, algorithm: str
) -> MemoryBanks:
    """The banks of some of the images of a model.

    Parameters
    ----------
    model : MemoryBanks
        Whole ones.
    stays : ndarray of shape (n_bank,), bool
        False for the patches that leave.
    layout : PatchTokens
        The images that stay.
    algorithm : str
        As of :class:`skanomaly.PatchKNNScorer`.

    Returns
    -------
    MemoryBanks
    """
    banks = [
        MemoryBank(
            bank.space,
            index_of(bank.index.bank[stays], bank.space, algorithm),
            _all_rows(layout),
            0.0,
        )
        for bank in model.banks
    ]
    return banks_of_images(banks, layout, True)


def held_out_by_search(
    model: MemoryBanks, layout: PatchTokens, images: IntArray, n_neighbors: int
) -> HeldOut:
    """Distances of training images to the patches of the images of other groups.

    Parameters
    ----------
    model : MemoryBanks
        Whole ones, of images of several groups.
    layout : PatchTokens
        These images.
    images : ndarray of int
        Of which the scores are asked.
    n_neighbors : int
        Over how many nearest patches the mean is taken.

    Returns
    -------
    dict of int to ndarray of float64
        By the number of the image, of the valid patches of its first view.
    """
    at, of_patch = _patches_of(layout, images)
    groups, scores = layout.group_of_image[of_patch], np.zeros(len(at))
    for part in _parts(len(at)):
        for bank in model.banks:
            distances, _ = bank.index.search(
                bank.index.take(at[part]), n_neighbors, groups[part], model.group_of_row
            )
            scores[part] += bank.space.distances(distances).mean(axis=1)
        scores[part] /= len(model.banks)
    return _by_image(scores, of_patch, images)


def held_out_of_joined(
    models: Sequence[MemoryBanks],
    layouts: Sequence[PatchTokens],
    known: Sequence[Mapping[int, FloatArray]],
    joined: MemoryBanks,
    layout: PatchTokens,
    images: IntArray,
) -> HeldOut:
    """Held-out scores of the images of several models, by the banks of all of them.

    That of a patch is the lower one of its score before and its distance to the patches of the
    other models' images.

    Parameters
    ----------
    models : sequence of MemoryBanks
        Whole ones of one part, whose scores are distances to one nearest patch.
    layouts : sequence of PatchTokens
        The images of each.
    known : sequence of mapping of int to ndarray
        Of each, the held-out scores that it has, by the number of its image.
    joined : MemoryBanks
        From :func:`joined_banks`.
    layout : PatchTokens
        All images.
    images : ndarray of int
        Of which the scores are asked.

    Returns
    -------
    dict of int to ndarray of float64
    """
    starts = np.cumsum([0, *(one.n_images for one in layouts)])
    found: HeldOut = {}
    for k, (model, start) in enumerate(zip(models, starts, strict=False)):
        own = [i - start for i in images.tolist() if i - start in known[k]]
        if not own:
            continue
        at, of_patch = _patches_of(layouts[k], np.array(own))
        groups = layout.group_of_image[of_patch + start]
        scores = np.concatenate([known[k][i] for i in own])
        for m, (other, first) in enumerate(zip(models, starts, strict=False)):
            if m != k:
                rows = layouts[m].image_of_row()[layouts[m].valid] + first
                others = layout.group_of_image[rows]
                near = _nearest(model.banks[0], at, groups, other.banks[0], others)
                np.minimum(scores, near, out=scores)
        found |= {
            i + int(start): of_image
            for i, of_image in _by_image(scores, of_patch, np.array(own)).items()
        }
    rest = np.array([i for i in images.tolist() if i not in found], dtype=np.intp)
    return {**found, **(held_out_by_search(joined, layout, rest, 1) if len(rest) else {})}


def held_out_without(
    old: MemoryBanks,
    before: PatchTokens,
    known: Mapping[int, FloatArray],
    stays: NDArray[np.bool_],
    model: MemoryBanks,
    layout: PatchTokens,
    kept: IntArray,
    images: IntArray,
) -> HeldOut:
    """Held-out scores of the images that stay, by a bank without the others.

    Only patches whose nearest ones leave are searched again.

    Parameters
    ----------
    old : MemoryBanks
        Whole ones of one part, whose scores are distances to one nearest patch.
    before : PatchTokens
        Their images.
    known : mapping of int to ndarray
        Held-out scores by `old`, by the numbers of the images there.
    stays : ndarray of shape (n_bank,), bool
        As for :func:`banks_without`, which gave `model`.
    model : MemoryBanks
    layout : PatchTokens
        The images that stay.
    kept : ndarray of int
        Their numbers before.
    images : ndarray of int
        Of which the scores are asked, by their numbers now.

    Returns
    -------
    dict of int to ndarray of float64
    """
    own = np.array([i for i in images.tolist() if int(kept[i]) in known], dtype=np.intp)
    rest = np.setdiff1d(images, own)
    found = held_out_by_search(model, layout, rest, 1) if len(rest) else {}
    if not len(own):
        return found
    bank = model.banks[0]
    gone = old.banks[0].index.bank[~stays]
    left = MemoryBank(bank.space, PatchIndex(gone, bank.space.search_metric), None, 0.0)
    of_gone = before.group_of_image[before.image_of_row()[before.valid][~stays]]
    at, of_patch = _patches_of(layout, own)
    groups = before.group_of_image[kept[of_patch]]
    scores = np.concatenate([known[int(kept[i])] for i in own])
    lost = np.flatnonzero(_nearest(bank, at, groups, left, of_gone) <= scores)
    for part in _parts(len(lost)):
        rows = lost[part]
        distances, _ = bank.index.search(
            bank.index.take(at[rows]), 1, layout.group_of_image[of_patch[rows]], model.group_of_row
        )
        scores[rows] = bank.space.distances(distances)[:, 0]
    return {**found, **_by_image(scores, of_patch, own)}


def _nearest(bank, at, groups, other, others):
    """Distances of patches of a bank to the nearest ones of another one, of other groups."""
    out = np.full(len(at), np.inf)
    present = np.unique(others)
    asked = np.flatnonzero(groups != present[0]) if len(present) == 1 else np.arange(len(at))
    apart = not np.isin(groups, present).any()
    for part in _parts(len(asked)):
        rows = asked[part]
        excluded = () if apart else (groups[rows], others)
        distances, _ = other.index.search(bank.index.take(at[rows]), 1, *excluded)
        out[rows] = other.space.distances(distances)[:, 0]
    return out


def _patches_of(layout, images):
    """Where in a whole bank the patches of the first views of images are, and of which each is."""
    rank = np.cumsum(layout.valid) - 1
    at, of_patch = [], []
    for i in images.tolist():
        rows = layout.rows(i)
        first = slice(rows.start, rows.start + (rows.stop - rows.start) // layout.n_views)
        found = rank[first][layout.valid[first]]
        at.append(found)
        of_patch.append(np.full(len(found), i))
    return np.concatenate(at), np.concatenate(of_patch)


def _by_image(scores, of_patch, images):
    ends = np.searchsorted(of_patch, images, side="right")
    starts = np.searchsorted(of_patch, images, side="left")
    return {int(i): scores[start:end] for i, start, end in zip(images, starts, ends, strict=True)}


def _all_rows(layout):
    return None if layout.valid.all() else np.flatnonzero(layout.valid)


def _parts(n):
    return [slice(start, start + _QUERIES) for start in range(0, n, _QUERIES)]
