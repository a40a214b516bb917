"""Which images an estimator was trained on: where they lay, and what was in them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from skanomaly._images.names import path_of
from skanomaly._images.reading import content_digest
from skanomaly._stamps import file_digest


@dataclass(frozen=True)
class TrainingImages:
    """The images that were given to `fit`, in their order.

    Attributes
    ----------
    paths : tuple of str or None
        Absolute path of each; None of what is no path.
    digests : tuple of str or None
        sha256 of the file of each, or of the pixels of an array; None of what could not be read.
    """

    paths: tuple[str | None, ...]
    digests: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def without(self, gone: Collection[int]) -> TrainingImages:
        """All but those of some numbers."""
        kept = [i for i in range(len(self)) if i not in gone]
        return TrainingImages(
            tuple(self.paths[i] for i in kept), tuple(self.digests[i] for i in kept)
        )


def join_training_images(parts: Sequence[TrainingImages]) -> TrainingImages:
    """What is remembered of the images of several calls, one after the other.

    Parameters
    ----------
    parts : sequence of TrainingImages

    Returns
    -------
    TrainingImages
    """
    return TrainingImages(
        tuple(path for part in parts for path in part.paths),
        tuple(digest for part in parts for digest in part.digests),
    )


def training_images(items: Sequence[Any]) -> TrainingImages:
    """What is to be remembered of the images of a `fit`.

    Parameters
    ----------
    items : sequence
        As from :func:`skanomaly._images.check_images`.

    Returns
    -------
    TrainingImages
        An image that cannot be read has no digest: that is for whoever reads it to say.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly._images.training import training_images
    >>> known = training_images([np.zeros((2, 2, 3), dtype=np.uint8), "/parts/missing.png"])
    >>> known.paths, [digest and digest[:8] for digest in known.digests]
    ((None, '/parts/missing.png'), ['829e7be6', None])
    """
    paths: list[str | None] = []
    digests: list[str | None] = []
    for item in items:
        path = path_of(item)
        path = None if path is None else os.path.abspath(path)
        digest = None
        with suppress(OSError, ValueError, TypeError):
            digest = content_digest(item) if path is None else file_digest(path)
        paths.append(path)
        digests.append(digest)
    return TrainingImages(tuple(paths), tuple(digests))
