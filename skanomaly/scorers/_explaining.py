"""Why a patch has its score: the nearest patches, the components, the prompts behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.explanations import (
    Component,
    NeighborPatch,
    PatchExplanation,
    Prompt,
    place_of_row,
    squared_contributions,
)
from skanomaly.core.gaussian import reduce_components
from skanomaly.core.prompts import cosines
from skanomaly.core.search.brute_force import prepare_bank

if TYPE_CHECKING:
    from skanomaly.scorers._patch_gaussian import _GaussianModel
    from skanomaly.scorers._patch_knn import _MemoryBank

_LEFT_OUT = "a training image: its own patches, and those of its group, are left out"
_OF_ALL = (
    "a training image: its score is by Gaussians without it, the components by those of all images"
)


def neighbors_of(
    bank: _MemoryBank,
    query: FloatArray,
    known: int,
    train_numbers: IntArray,
    metric: Literal["cosine", "euclidean"],
    n_neighbors: int,
) -> PatchExplanation:
    """The patches of a memory bank that are nearest to one.

    Parameters
    ----------
    bank : _MemoryBank
        Of :class:`skanomaly.PatchKNNScorer`.
    query : ndarray of shape (1, dim)
        The token.
    known : int
        Number of its image among the training images, or -1.
    train_numbers : ndarray of int
        Numbers of the training images in the X of `fit`.
    metric : {"cosine", "euclidean"}
        Of the bank.
    n_neighbors : int
        How many.

    Returns
    -------
    PatchExplanation
    """
    rows = np.arange(len(bank.index)) if bank.rows is None else bank.rows
    allowed, groups = len(rows), {}
    if known >= 0:
        image_of_row = np.searchsorted(bank.offsets, rows, side="right") - 1
        own = bank.group_of_image[known]
        of_bank = bank.group_of_image[image_of_row]
        allowed = np.count_nonzero(of_bank != own)
        groups = {"query_groups": np.array([own]), "bank_groups": of_bank}
    note = _LEFT_OUT if known >= 0 else ""
    if not allowed:
        return PatchExplanation("neighbors", note=note)
    distances, indices = bank.index.search(
        prepare_bank(query.astype(bank.index.dtype), metric), min(n_neighbors, allowed), **groups
    )
    found = []
    for distance, index in zip(distances[0].tolist(), indices[0], strict=True):
        place = place_of_row(int(rows[index]), bank.offsets, bank.grids, bank.n_views)
        image, view, row, column, grid = place
        number = int(train_numbers[image])
        found.append(NeighborPatch(number, view, row, column, grid, bank.n_views, distance))
    return PatchExplanation("neighbors", neighbors=tuple(found), note=note)


def components_of(
    model: _GaussianModel, token: FloatArray, position: int, is_known: bool
) -> PatchExplanation:
    """What the components of a token add to its distance from normal ones.

    Parameters
    ----------
    model : _GaussianModel
        Of :class:`skanomaly.PatchGaussianScorer`.
    token : ndarray of shape (1, dim)
        Of the patch.
    position : int
        Of the patch in its image.
    is_known : bool
        Whether its image is a training image.

    Returns
    -------
    PatchExplanation
    """
    numbers, kind = np.arange(token.shape[1]), "component"
    if model.components is not None:
        token = reduce_components(token, np.array([True]), model.components)
        kind = "component" if model.components.ndim == 1 else "principal component"
        numbers = model.components if model.components.ndim == 1 else np.arange(token.shape[1])
    deviations, contributions = squared_contributions(model.gaussian, token[0], position)
    order = np.argsort(-contributions, kind="stable")
    components = tuple(
        Component(
            int(numbers[i]), f"{kind} {numbers[i]}", float(deviations[i]), float(contributions[i])
        )
        for i in order
    )
    return PatchExplanation("components", components=components, note=_OF_ALL if is_known else "")


def prompts_of(
    embeddings: FloatArray,
    scores: FloatArray,
    texts: tuple[list[str], list[str]],
    features: FloatArray,
    note: str,
) -> PatchExplanation:
    """How near a patch is to each text.

    Parameters
    ----------
    embeddings : ndarray of shape (n, dim)
        Of the patch, or of the windows that cover it.
    scores : ndarray of shape (n,)
        Of each: the most anomalous one is compared.
    texts : tuple of list of str
        The normal and the anomalous ones.
    features : ndarray of shape (n_texts, dim)
        Of all texts, in that order.
    note : str
        On the embedding, with ``{}`` for its number.

    Returns
    -------
    PatchExplanation
    """
    highest = int(np.argmax(scores))
    normal, anomaly = texts
    kinds: list[Literal["normal", "anomaly"]] = ["normal"] * len(normal) + ["anomaly"] * len(
        anomaly
    )
    found = [
        Prompt(text, kind, float(cosine))
        for text, kind, cosine in zip(
            [*normal, *anomaly], kinds, cosines(embeddings[highest], features), strict=True
        )
    ]
    found.sort(key=lambda prompt: -prompt.cosine)
    return PatchExplanation("prompts", prompts=tuple(found), note=note)
