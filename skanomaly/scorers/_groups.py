"""Images that do not stand for themselves, because they are copies of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from skanomaly._typing import FloatArray, IntArray
from skanomaly._warn import warn_user
from skanomaly.core.copies import copies_by_features

_TOLD_ELSEWHERE = ContextVar("_TOLD_ELSEWHERE", default=False)
_NAMES: ContextVar[Sequence[object] | None] = ContextVar("_NAMES", default=None)
_NAMED = 5  # pairs in the warning


@contextmanager
def copies_told_elsewhere() -> Iterator[None]:
    """In it, no fit looks for copies: that of a union does, once for all of its members."""
    token = _TOLD_ELSEWHERE.set(True)
    try:
        yield
    finally:
        _TOLD_ELSEWHERE.reset(token)


@contextmanager
def images_named(names: Sequence[object]) -> Iterator[None]:
    """In it, a warning of copies names images by these, and not by their numbers.

    Parameters
    ----------
    names : sequence
        Of the images of a fit in it, such as their paths. Fits to another number of images keep
        to numbers: a search fits to some of them, and a scorer may fit others to parts of them.
    """
    token = _NAMES.set(names)
    try:
        yield
    finally:
        _NAMES.reset(token)


def warn_of_copies(
    features: Sequence[FloatArray],
    groups: IntArray,
    images: IntArray,
    n_given: int,
    first: int = 0,
) -> None:
    """Warn where training images are copies of others that are not of their group.

    Parameters
    ----------
    features : sequence of ndarray
        Of the images that are trained on: :func:`skanomaly.core.copies.image_features`.
    groups : ndarray of shape (n_images,), int
        The group of each.
    images : ndarray of shape (n_images,), int
        Their numbers among the images that the user passed.
    n_given : int
        How many images the user passed.
    first : int, default=0
        Images before this one were looked at before: pairs of them are left out.

    Notes
    -----
    Each image is compared to each, by 256 numbers: about 3 seconds for 20000 images, and 11 for
    twice as many.
    """
    if _TOLD_ELSEWHERE.get():
        return
    names = _NAMES.get()
    known: Sequence[object] = range(n_given) if names is None or len(names) != n_given else names
    pairs = [
        " and ".join(str(known[images[k]]) for k in (i, j))
        for i, j in copies_by_features(features)
        if groups[i] != groups[j] and j >= first
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
