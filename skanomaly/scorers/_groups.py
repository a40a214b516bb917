"""Images that do not stand for themselves: groups of one part, and copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import Groups, IntArray
from skanomaly._warn import warn_user
from skanomaly.core.copies import copies_among

_TOLD_ELSEWHERE = ContextVar("_TOLD_ELSEWHERE", default=False)
_NAMED = 5  # pairs in the warning


def group_numbers(groups: Groups, n_images: int) -> IntArray | None:
    """Number of each image's group, in the order in which they come first.

    Parameters
    ----------
    groups : iterable of hashable, or None
        Any labels.
    n_images : int
        How many there must be.

    Returns
    -------
    ndarray of shape (n_images,), int, or None
        None where there are no groups.

    Raises
    ------
    TypeError
        When it is no sequence, or a label is not hashable.
    ValueError
        When there are more or fewer than images, or a label is missing.
    """
    if groups is None:
        return None
    # A set has no order, and a dict is one of keys.
    if isinstance(groups, (str, bytes, Set, Mapping)) or not np.iterable(groups):
        raise TypeError(f"groups must be a sequence of one label for each image, got {groups!r}")
    labels = list(groups)
    if len(labels) != n_images:
        raise ValueError(f"groups has {len(labels)} labels for {n_images} images: give one each")
    numbers: dict[object, int] = {}
    out = np.empty(n_images, dtype=np.intp)
    for i, label in enumerate(labels):
        try:
            hash(label)
        except TypeError:
            raise TypeError(
                f"groups[{i}] is {label!r}: a label must be hashable, such as a str or an int"
            ) from None
        if _is_missing(label):
            raise ValueError(
                f"groups[{i}] is {label!r}: give each image a group; one of its own, where it "
                "belongs to no other"
            )
        out[i] = numbers.setdefault(label, len(numbers))
    return out


def _is_missing(label):
    try:
        return label is None or bool(label != label)
    except TypeError:  # pandas' NA is neither equal nor unequal to itself
        return True


@contextmanager
def copies_told_elsewhere() -> Iterator[None]:
    """In it, no fit looks for copies: that of a union does, once for all of its members."""
    token = _TOLD_ELSEWHERE.set(True)
    try:
        yield
    finally:
        _TOLD_ELSEWHERE.reset(token)


def warn_of_copies(tokens: PatchTokens, images: IntArray) -> None:
    """Warn where training images are copies of others that are not of their group.

    Parameters
    ----------
    tokens : PatchTokens
        Of the images that are trained on, views included.
    images : ndarray of shape (n_images,), int
        Their numbers among the images that the user passed.

    Notes
    -----
    Each image is compared to each, by 256 numbers: about 3 seconds for 20000 images, and 11 for
    twice as many.
    """
    if _TOLD_ELSEWHERE.get():
        return
    group = tokens.group_of_image
    pairs = [
        f"{images[i]} and {images[j]}"
        for i, j in copies_among(tokens.select_view(0))
        if group[i] != group[j]
    ]
    if pairs:
        more = len(pairs) - _NAMED
        warn_user(
            f"training images {', '.join(pairs[:_NAMED])}"
            + (f" and {more} more pair{'s' * (more > 1)}" if more > 0 else "")
            + " are copies or nearly so. They vouch for each other where one is held out, so that "
            "held-out scores are too good and the threshold too tight: remove them, or pass "
            "groups= to hold them out together"
        )
