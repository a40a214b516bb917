"""Names for what is made of images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from skanomaly._output import folded, safe_name, unique_names


def path_of(image: Any) -> str | None:
    """The path of an image as text; None of what is no path.

    Parameters
    ----------
    image : image
        Anything that is taken as one.

    Returns
    -------
    str or None

    Examples
    --------
    >>> from pathlib import PurePosixPath
    >>> from skanomaly._images.names import path_of
    >>> path_of(PurePosixPath("parts/1.png")), path_of(b"bytes of a file")
    ('parts/1.png', None)
    """
    return os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else None


def distinct_stems(paths: Sequence[Path]) -> list[str]:
    """Names for what is made of images: their stems, and where these are alike with their folders.

    Parameters
    ----------
    paths : sequence of Path
        Of the images.

    Returns
    -------
    list of str
        Safe names without suffix, no two alike on any system.

    Examples
    --------
    >>> from pathlib import Path
    >>> from skanomaly._images.names import distinct_stems
    >>> distinct_stems([Path("a/1.png"), Path("b/1.png"), Path("a/2.png")])
    ['a-1', 'b-1', '2']
    """
    groups = defaultdict(list)
    for i, path in enumerate(paths):
        groups[folded(safe_name(path.stem))].append(i)
    stems = [path.stem for path in paths]
    for members in groups.values():
        if len(members) > 1:
            common = len(os.path.commonprefix([paths[i].parent.parts for i in members]))
            for i in members:
                stems[i] = "-".join((*paths[i].parent.parts[common:], paths[i].stem))
    return unique_names(stems)
