"""The good images that ``skanomaly fit`` trains on, from what a person names."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skanomaly._labels import BAD_WORDS, GOOD_WORDS
from skanomaly._output import is_drawing
from skanomaly._pipelines import split_pipeline
from skanomaly.cli._inputs import LISTED, image_paths
from skanomaly.cli._options import printable
from skanomaly.datasets import list_categories, read_dataset, sniff_layout
from skanomaly.datasets._copies import decode_all
from skanomaly.datasets._manifest import SUFFIXES
from skanomaly.datasets._tree import looks_like

# Names of folders besides those that mark labels.
_MORE_BAD_WORDS = ("anomalies", "defective", "defects", "faulty", "nok", "reject", "rejects")
_MOST_NAMED = 20


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on.

    Attributes
    ----------
    paths : list of Path
        No two the same.
    groups : list of str or None
        What the images of one part have in common; None where nothing is known.
    """

    paths: list[Path]
    groups: list[str] | None


def training_set(
    arguments: Sequence[str], model: Any, *, null: bool = False, groups_by_folder: bool = False
) -> TrainingSet:
    """The good images that the arguments of a command stand for, each of them decoded once.

    Parameters
    ----------
    arguments : sequence of str
        As for :func:`~skanomaly.cli._inputs.image_paths`. The folder of a data set, or its
        manifest, stands for the training images of it.
    model : estimator
        What is to be trained: its range of values is that of the images.
    null : bool, default=False
        As for :func:`~skanomaly.cli._inputs.image_paths`.
    groups_by_folder : bool, default=False
        Whether the images of one folder are of one part.

    Returns
    -------
    TrainingSet

    Raises
    ------
    FileNotFoundError
        When there is nothing of a name, or no image.
    ValueError
        When images may be no good ones, are heat maps, or cannot be read; the message names all.
    """
    groups: dict[Path, str | None] = {}
    plain = []
    for argument in arguments:
        found = None if argument == LISTED else _of_data_set(argument)
        if found is None:
            plain.append(argument)
        else:
            groups.update(found)
    if plain:
        groups.update(dict.fromkeys(image_paths(plain, null=null)))
        _check_folders([Path(argument) for argument in plain], groups)
    paths = list({os.path.abspath(path): path for path in groups}.values())
    if not paths:
        raise FileNotFoundError("there are no images to train on: none was named")
    _check_images(paths, model)
    if groups_by_folder:
        return TrainingSet(paths, [os.path.abspath(path.parent) for path in paths])
    if all(groups[path] is None for path in paths):
        return TrainingSet(paths, None)
    return TrainingSet(paths, [groups[path] or f"image {path}" for path in paths])


def _of_data_set(argument):
    """Training images of a data set with their groups; None of what is no data set."""
    folder = Path(argument)
    if not (folder.is_dir() or (folder.is_file() and folder.suffix.lower() in SUFFIXES)):
        return None
    layout = sniff_layout(folder)
    categories = list_categories(folder) if folder.is_dir() else ()
    if categories:
        raise ValueError(
            f"{argument} holds categories, and a model is trained on one: name its folder, one of "
            f"{', '.join(map(printable, categories[:_MOST_NAMED]))}"
        )
    if layout is None:
        return None
    split = read_dataset(folder)
    train = split.train
    good = [i for i, label in enumerate(train.y) if label == 1]
    kept = len(split.test) + len(train) - len(good)
    print(
        printable(
            f"{argument} is a data set, of the layout {layout}: training on its {len(good)} good "
            f"training images, not on the {kept} others"
        ),
        file=sys.stderr,
    )
    known = train.groups or [None] * len(train)
    return {train.images[i]: None if known[i] is None else f"{argument}: {known[i]}" for i in good}


def _check_folders(roots: Sequence[Path], paths: Iterable[Path]) -> None:
    """Raise where a folder holds folders of images that by their names are not good ones."""
    folders = {folder for path in paths for folder in path.parents}
    odd = {}
    for folder in folders:
        if any(root in folder.parents for root in roots):
            word, beside = folder.name.lower(), {f.name for f in folders if _siblings(f, folder)}
            good = sorted(name for name in beside if name.lower() in GOOD_WORDS)
            if word in (*BAD_WORDS, *_MORE_BAD_WORDS):
                odd[folder] = "defective parts, by its name"
            elif looks_like(word) == "masks":
                odd[folder] = "masks, by its name"
            elif word == "test" and "train" in beside:
                odd[folder] = "test images, by its name"
            elif good and word not in GOOD_WORDS:
                odd[folder] = f"it is beside {good[0]}"
    if odd:
        lines = [printable(f"{path}: {what}") for path, what in sorted(odd.items())]
        raise ValueError(
            "a model is trained on good parts alone, and these folders seem to hold others; name "
            "the folders of good parts themselves:" + "".join(f"\n  {line}" for line in lines)
        )


def _siblings(one, other):
    return one != other and one.parent == other.parent


def _check_images(paths, model):
    """Raise where images cannot be trained on; the message names them all."""
    check_no_drawings(paths)
    check_readable(paths, model)


def check_no_drawings(paths: Iterable[Path]) -> None:
    """Raise where there are heat maps and the like among photographs, with their folders."""
    drawn = Counter(str(path.parent) for path in paths if is_drawing(path))
    if drawn:
        raise ValueError(
            "pictures of what a model found are no photographs to train on:"
            + "".join(f"\n  {printable(name)}: {n}" for name, n in drawn.items())
        )


def check_readable(paths: Sequence[Path], model: Any) -> None:
    """Decode all images as a model does, and raise where some cannot be; the message names all."""
    value_range = split_pipeline(model).value_range
    _, damaged = decode_all(paths, sys.stderr.isatty(), value_range)
    if damaged:
        raise ValueError(
            f"{len(damaged)} of {len(paths)} images cannot be used:"
            + "".join(f"\n  {printable(reason)}" for _, reason in damaged)
        )
