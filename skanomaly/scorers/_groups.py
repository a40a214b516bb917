"""Images that do not stand for themselves, because they are copies of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from skanomaly._patch_tokens import PatchTokens
from skanomaly._typing import IntArray
from skanomaly._warn import warn_user
from skanomaly.core.copies import copies_among

_TOLD_ELSEWHERE = ContextVar("_TOLD_ELSEWHERE", default=False)
_NAMED = 5  # pairs in the warning


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
