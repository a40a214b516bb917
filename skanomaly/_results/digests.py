"""What results depend on, as digests: by these, and not by names, a run is recognised."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from skanomaly._cache import cache_key
from skanomaly._stamps import file_digest
from skanomaly.datasets import DatasetSplit

_MOST_THREADS = 8


def split_files(split: DatasetSplit) -> list[Path]:
    """The files of a data set: all images, of every part, and all masks.

    Parameters
    ----------
    split : DatasetSplit
        From any of the readers.

    Returns
    -------
    list of Path
        In order; some may be there twice.
    """
    parts = filter(None, (split.train, split.validation, split.test))
    files = [path for part in parts for path in _files(part)]
    return files + [path for paths in (split.unlabelled or {}).values() for path in paths]


def file_digests(splits: Iterable[DatasetSplit]) -> dict[Path, str]:
    """Digests of the contents of what data sets train on and are measured on.

    Parameters
    ----------
    splits : iterable of DatasetSplit
        Files that several of them share are read once.

    Returns
    -------
    dict of Path to str
        For :func:`data_digest`.

    Raises
    ------
    OSError
        When a file cannot be read.
    """
    paths = {path: None for s in splits for part in (s.train, s.test) for path in _files(part)}
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        return dict(zip(paths, pool.map(file_digest, paths), strict=True))


def data_digest(split: DatasetSplit, digests: Mapping[Path, str]) -> str:
    """Digest of all of a data set that its results depend on; its name and place are none of it.

    Parameters
    ----------
    split : DatasetSplit
        What is trained on and measured on.
    digests : dict of Path to str
        From :func:`file_digests`, of this data set or of one that it is a part of.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return cache_key(train=_content(split.train, digests), test=_content(split.test, digests))


def _content(images, digests):
    """Contents, labels and the like of a set of images, as plain values."""
    masks = [[digests[path] for path in _paths(mask)] for mask in images.masks]
    return [
        [digests[path] for path in images.images],
        images.y.tolist(),
        masks,
        images.defect_types,
        images.groups,
        images.class_ids,
        None if images.defects is None else [repr(defect) for defect in images.defects],
    ]


def _files(images):
    return [*images.images, *(path for mask in images.masks for path in _paths(mask))]


def _paths(mask):
    return () if mask is None else (mask,) if isinstance(mask, Path) else mask
