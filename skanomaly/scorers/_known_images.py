"""What a scorer knows of its training images but their tokens, as it grows and shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skanomaly._patch_tokens import PatchTokens, join_tokens
from skanomaly._typing import FloatArray, IntArray
from skanomaly.core.fingerprints import ImageFingerprints


@dataclass(frozen=True)
class KnownImages:
    """Training images without their tokens.

    Attributes
    ----------
    layout : PatchTokens
        Of no components: grids, masks, views and groups.
    numbers : ndarray of shape (n_images,), int
        Of the images in what was given to `fit`, and after it to `partial_fit`, one call after the
        other.
    n_given : int
        How many were given, the anomalous ones among them, which are not known.
    names : list of str or None, or None
        For the number of each group what it is known by, see
        :func:`skanomaly._grouped_fit.group_names`; None of a group of one image that was given
        without a label. None where there are no groups.
    features : list of ndarray
        By which copies are told, see :func:`skanomaly.core.copies.image_features`; none where it is
        for others to know them.
    fingerprints : ImageFingerprints or None
        None where it is for others to recognise them.
    """

    layout: PatchTokens
    numbers: IntArray
    n_given: int
    names: list[str | None] | None
    features: list[FloatArray]
    fingerprints: ImageFingerprints | None

    def select(self, kept: IntArray) -> KnownImages:
        """Some of the images, as if the others had never been given.

        Parameters
        ----------
        kept : ndarray of int
            Numbers among the known images, ascending, at least one.

        Returns
        -------
        KnownImages
        """
        gone = np.delete(self.numbers, kept)
        numbers = self.numbers[kept]
        layout, names = self.layout.select(kept), self.names
        if layout.groups is not None and names is not None:
            # Groups are numbered in the order in which they come first.
            found, firsts, of_image = np.unique(
                layout.groups, return_index=True, return_inverse=True
            )
            order = np.argsort(firsts)
            names = [names[number] for number in found[order]]
            layout = replace(layout, groups=np.argsort(order)[of_image])
        return KnownImages(
            layout,
            numbers - np.searchsorted(np.sort(gone), numbers),
            self.n_given - len(gone),
            names,
            [self.features[i] for i in kept] if self.features else [],
            None if self.fingerprints is None else self.fingerprints.select(kept),
        )


def join_known(parts: Sequence[KnownImages]) -> KnownImages:
    """The images of several scorers, or of several calls, one after the other.

    Parameters
    ----------
    parts : sequence of KnownImages
        Of as many views.

    Returns
    -------
    KnownImages
        Images of one label are of one group, whatever part they are of.

    Raises
    ------
    TypeError
        When parts with groups cannot tell which of these are the same.
    """
    groups, names = _joined_groups(parts)
    layouts = [
        replace(part.layout, groups=of_part) for part, of_part in zip(parts, groups, strict=True)
    ]
    starts = np.cumsum([0, *(part.n_given for part in parts)])
    prints = [part.fingerprints for part in parts if part.fingerprints is not None]
    return KnownImages(
        join_tokens(layouts),
        np.concatenate([part.numbers + n for part, n in zip(parts, starts, strict=False)]),
        int(starts[-1]),
        names,
        [features for part in parts for features in part.features],
        ImageFingerprints.joined(prints) if prints else None,
    )


def _joined_groups(parts):
    """Numbers of the groups of each part's images, and what each group is known by."""
    if all(part.names is None for part in parts):
        return [None] * len(parts), None
    named = [part.names for part in parts if part.names is not None]
    if len(named) > 1 and any("" in names for names in named):
        raise TypeError(
            "groups of new images cannot be compared with those that the model has, for a label "
            "is of a type that cannot be told again: fit with labels that are text or numbers"
        )
    names: list[str | None] = []
    known: dict[str, int] = {}
    groups = []
    for part in parts:
        numbers = []
        for name in [None] * part.n_given if part.names is None else part.names:
            # Of what no label is known by, each is a group of its own.
            number = known.setdefault(name, len(names)) if name else len(names)
            if number == len(names):
                names.append(name)
            numbers.append(number)
        of_image = part.numbers if part.layout.groups is None else part.layout.groups
        groups.append(np.array(numbers, dtype=np.intp)[of_image])
    return groups, names
