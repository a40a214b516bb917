"""Which image files are copies of others: of equal content, or nearly so to the eye."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from skanomaly._images import (
    ImageReadError,
    content_digest,
    load_with_span,
    small_range_message,
)
from skanomaly._typing import ValueRange
from skanomaly.core.copies import find_copies
from skanomaly.core.threads import reading_threads

_SIDE = 32  # of a thumbnail, in pixels

Pairs = list[tuple[int, int]]


def equal_files(paths: Sequence[Path]) -> Pairs:
    """Files of equal content, as pairs of the first such file and a later one, by the later.

    Only files of equal size are read. Those that cannot be are left out.
    """
    by_size = defaultdict(list)
    for i, path in enumerate(paths):
        try:
            by_size[os.stat(path).st_size].append(i)
        except OSError:
            continue
    pairs = []
    for alike in by_size.values():
        first: dict[str, int] = {}
        for i in alike if len(alike) > 1 else ():
            try:
                digest = content_digest(paths[i])
            except ImageReadError:
                continue
            if first.setdefault(digest, i) != i:
                pairs.append((first[digest], i))
    return sorted(pairs, key=lambda pair: pair[1])


def near_copies(
    paths: Sequence[Path],
    others: Sequence[Path],
    verbose: bool,
    value_range: ValueRange | None = None,
) -> tuple[list[tuple[Path, str]], Pairs, str | None]:
    """Decode all files: what is wrong with them, and the copies and near copies among `paths`.

    `others` are decoded too, but not compared; all by `value_range`, where one is
    given. Also what is to be said of the range of all.
    """
    results, damaged = decode_all([*paths, *others], verbose, value_range)
    whole = [result for result in results if not isinstance(result, str)]
    message = small_range_message([span for _, span in whole])
    known = [i for i in range(len(paths)) if not isinstance(results[i], str)]
    pairs = find_copies(np.stack([results[i][0] for i in known])) if len(known) > 1 else []
    return damaged, [(known[i], known[j]) for i, j in pairs], message


def decode_all(
    paths: Sequence[Path], verbose: bool, value_range: ValueRange | None = None
) -> tuple[list[Any], list[tuple[Path, str]]]:
    """Of each file a thumbnail and the span of its values, or what is wrong; and the latter.

    Files are decoded by `value_range`, where one is given.
    """
    # A thumbnail is all that is kept of an image.
    with ThreadPoolExecutor(reading_threads(), "skanomaly") as pool:
        results = list(
            tqdm(
                pool.map(partial(_decode, value_range=value_range), paths),
                total=len(paths),
                desc="decode",
                unit="image",
                disable=not verbose,
            )
        )
    damaged = [
        (path, result)
        for path, result in zip(paths, results, strict=True)
        if isinstance(result, str)
    ]
    return results, damaged


def thumbnail(image: NDArray[Any]) -> NDArray[np.float32]:
    """The grey values of an image in 32 x 32 fields of equal area, in a row.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3)
        As from `load_image`: uint8, or float32 in [0, 1].

    Returns
    -------
    ndarray of shape (1024,), float32
        From 0 to 1.
    """
    grey = image.mean(axis=2, dtype=np.float32)
    if image.dtype == np.uint8:
        grey /= 255
    small = Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


def _decode(path: Path, value_range: ValueRange | None) -> tuple[NDArray[np.float32], Any] | str:
    """The thumbnail of a file and the span of its numbers, or what is wrong with it."""
    try:
        image, span = load_with_span(path, None, value_range)
        return thumbnail(image), span
    except ImageReadError as error:
        return str(error)
