"""Why a patch has its score: the nearest patches, the components, the prompts behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.explanations import (
    Component,
    Member,
    NeighborPatch,
    PatchExplanation,
    Prompt,
    PromptKind,
    place_of_row,
    squared_contributions,
)
from skanomaly.core.gaussian import PatchGaussian, reduce_components
from skanomaly.core.prompts import cosines
from skanomaly.core.subspace import Subspace, residual
from skanomaly.scorers._memory_bank import MemoryBanks, queries_of

Texts: TypeAlias = tuple[Sequence[str], FloatArray]

LEFT_OUT = "a training image: its own patches, and those of its group, are left out"
_OF_ALL = (
    "a training image: its score is by Gaussians without it, the components by those of all images"
)
_OF_ALL_SUBSPACE = (
    "a training image: its score is by a subspace without it, the components by that of all images"
)


def neighbors_of(
    model: MemoryBanks, tokens: PatchTokens, row: int, known: int, n_neighbors: int
) -> list[tuple[IntArray, FloatArray]]:
    """The patches of memory banks that are nearest to one.

    Parameters
    ----------
    model : MemoryBanks
        Of :class:`skanomaly.PatchKNNScorer`.
    tokens : PatchTokens
        Of one image.
    row : int
        The patch.
    known : int
        Number of its image among the training images, or -1.
    n_neighbors : int
        How many.

    Returns
    -------
    list of (rows, distances)
        For each bank: rows of the tokens of the training images, the nearest first, and how far
        they are. Fewer than `n_neighbors`, where fewer are left to compare with.
    """
    found: list[tuple[IntArray, FloatArray]] = []
    for bank in model.banks:
        rows: IntArray = np.arange(len(bank.index)) if bank.rows is None else bank.rows
        allowed, groups = len(rows), {}
        if known >= 0:
            own = model.group_of_image[known]
            image_of_row = np.searchsorted(model.offsets, rows, side="right") - 1
            of_bank = model.group_of_image[image_of_row]
            allowed = int(np.count_nonzero(of_bank != own))
            groups = {"query_groups": np.array([own]), "bank_groups": of_bank}
        if not allowed:
            found.append((rows[:0], np.empty(0)))
            continue
        queries = queries_of(model, bank, tokens, np.array([row]))
        distances, indices = bank.index.search(queries, min(n_neighbors, allowed), **groups)
        found.append((rows[indices[0]], bank.space.distances(distances[0])))
    return found


def explain_by_neighbors(
    found: Sequence[tuple[IntArray, FloatArray]],
    offsets: IntArray,
    sides: IntArray,
    train_numbers: IntArray,
    known: int,
) -> PatchExplanation:
    """What near patches of training images say of one.

    Parameters
    ----------
    found : sequence of (rows, distances)
        Of each part of the token: rows of the tokens of the training images, the nearest first,
        and their distances.
    offsets : ndarray of shape (n_images + 1,), int
        Where the rows of each training image start.
    sides : ndarray of shape (n_images, 2), int
        Rows and columns of each training image's patches.
    train_numbers : ndarray of int
        Numbers of the training images in the X of `fit`.
    known : int
        Number of the patch's image among the training images, or -1.

    Returns
    -------
    PatchExplanation
    """
    neighbors, notes = [], [LEFT_OUT] if known >= 0 else []
    if len(found) > 1:
        counts = ", ".join(str(len(rows)) for rows, _ in found)
        notes.append(
            f"the tokens have {len(found)} parts: of the neighbours {counts} are those of each "
            "part in turn, and the score is the mean over the parts"
        )
    for rows, distances in found:
        for row, distance in zip(rows.tolist(), distances.tolist(), strict=True):
            image, view, line, column, grid = place_of_row(row, offsets, sides)
            number = int(train_numbers[image])
            neighbors.append(NeighborPatch(number, view, line, column, grid, distance))
    return PatchExplanation("neighbors", neighbors=tuple(neighbors), note="; ".join(notes))


def components_of(
    gaussian: PatchGaussian,
    kept: FloatArray | IntArray | None,
    token: FloatArray,
    position: int,
    is_known: bool,
) -> PatchExplanation:
    """What the components of a token add to its distance from normal ones.

    Parameters
    ----------
    gaussian : PatchGaussian
    kept : ndarray or None
        Components that are kept, as from :func:`skanomaly.core.gaussian.choose_components`; None
        for all.
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
    kind = "component"
    numbers: Sequence[int] = range(token.shape[1])
    if kept is not None:
        token = reduce_components(token, np.array([True]), kept)
        kind = "component" if kept.ndim == 1 else "principal component"
        numbers = kept.tolist() if kept.ndim == 1 else range(token.shape[1])
    deviations, contributions = squared_contributions(gaussian, token[0], position)
    order = np.argsort(-contributions, kind="stable")
    components = tuple(
        Component(numbers[i], f"{kind} {numbers[i]}", float(deviations[i]), float(contributions[i]))
        for i in order
    )
    return PatchExplanation("components", components=components, note=_OF_ALL if is_known else "")


def residuals_of(subspace: Subspace, token: FloatArray, is_known: bool) -> PatchExplanation:
    """What the components of a token add to its squared distance from a subspace.

    Parameters
    ----------
    subspace : Subspace
    token : ndarray of shape (dim,)
        Of the patch.
    is_known : bool
        Whether its image is a training image.

    Returns
    -------
    PatchExplanation
    """
    outside = residual(subspace, token)
    deviations, contributions = outside / subspace.scale, np.square(outside)
    components = tuple(
        Component(int(i), f"component {i}", float(deviations[i]), float(contributions[i]))
        for i in np.argsort(-contributions, kind="stable")
    )
    note = _OF_ALL_SUBSPACE if is_known else ""
    return PatchExplanation("components", components=components, note=note)


def prompts_of(
    embedding: FloatArray, normal: Texts, anomaly: Texts, note: str = ""
) -> PatchExplanation:
    """How near a patch is to each text.

    Parameters
    ----------
    embedding : ndarray of shape (dim,)
        Of the patch, or of a window.
    normal, anomaly : tuple
        The texts, and their features, of shape (n_texts, dim).
    note : str, default=""
        On the embedding.

    Returns
    -------
    PatchExplanation
    """
    found = [
        Prompt(text, kind, float(cosine))
        for kind, (texts, features) in zip(get_args(PromptKind), (normal, anomaly), strict=True)
        for text, cosine in zip(texts, cosines(embedding, features), strict=True)
    ]
    found.sort(key=lambda prompt: -prompt.cosine)
    return PatchExplanation("prompts", prompts=tuple(found), note=note)


def members_of(
    names: Sequence[str],
    scores: FloatArray,
    scaled: FloatArray,
    combination: Literal["mean", "max"],
    weights: FloatArray,
) -> PatchExplanation:
    """What the members of a union add to its score.

    Parameters
    ----------
    names : sequence of str
        Of the members.
    scores, scaled : ndarray of shape (n_members,)
        As of :class:`skanomaly.core.explanations.Member`.
    combination : {"mean", "max"}
        Of the union: of a maximum the highest score alone counts.
    weights : ndarray of shape (n_members,)
        Of the mean.

    Returns
    -------
    PatchExplanation
    """
    contributions: FloatArray = scaled * weights
    ranks = contributions
    if combination == "max":
        highest = np.arange(len(scores)) == np.argmax(scaled)
        contributions, ranks = np.where(highest, scaled, 0.0), scaled
    members = [
        Member(name, *map(float, values))
        for name, *values in zip(names, scores, scaled, contributions, strict=True)
    ]
    order = np.argsort(-ranks, kind="stable")
    return PatchExplanation("members", members=tuple(members[i] for i in order))


def with_inner(
    found: PatchExplanation, inner: PatchExplanation, train_numbers: IntArray
) -> PatchExplanation:
    """What a union and its first member say.

    Parameters
    ----------
    found, inner : PatchExplanation
        Of the union, and of the member.
    train_numbers : ndarray of int
        Of the images that members were fitted to, their numbers in the X of `fit`.

    Returns
    -------
    PatchExplanation
    """
    neighbors = tuple(
        replace(near, image_number=int(train_numbers[near.image_number]))
        for near in inner.neighbors
    )
    return replace(
        found,
        neighbors=neighbors,
        components=inner.components,
        prompts=inner.prompts,
        note=inner.note,
    )
