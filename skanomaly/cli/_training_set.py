"""The good images that ``skanomaly fit`` trains on, from what a person names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from skanomaly._labels import BAD_WORDS
from skanomaly._output import is_drawing
from skanomaly.cli._inputs import LISTED, image_paths
from skanomaly.cli._options import printable


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
    arguments: Sequence[str], *, null: bool = False, groups_by_folder: bool = False
) -> TrainingSet:
    """The good images that the arguments of a command stand for, each of them decoded once.

    Parameters
    ----------
    arguments : sequence of str
        As for :func:`~skanomaly.cli._inputs.image_paths`. The folder of a data set, or its
        manifest, stands for the training images of it.
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
    _check_images(paths)
    if groups_by_folder:
        return TrainingSet(paths, [os.path.abspath(path.parent) for path in paths])
    if all(groups[path] is None for path in paths):
        return TrainingSet(paths, None)
    return TrainingSet(paths, [groups[path] or f"image {path}" for path in paths])


def _of_data_set(argument):
    """Training images of a data set with their groups; None of what is no data set."""
    from skanomaly.datasets import list_categories, read_dataset, sniff_layout
    from skanomaly.datasets._manifest import SUFFIXES

    folder = Path(argument)
    if not (folder.is_dir() or (folder.is_file() and folder.suffix.lower() in SUFFIXES)):
        return None
    layout = sniff_layout(folder)
    categories = list_categories(folder) if folder.is_dir() else ()
    if categories:
        raise ValueError(
            f"{argument} holds several categories, a model is trained on one of them: name its "
            f"folder, one of {', '.join(map(printable, categories[:20]))}"
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
    from skanomaly.datasets._tree import looks_like

    folders = {folder for path in paths for folder in path.parents}
    odd = {}
    for root in roots:
        for folder in folders:
            if root in folder.parents:
                word = folder.name.lower()
                if word in BAD_WORDS:
                    odd[folder] = "defective parts"
                elif looks_like(word) == "masks":
                    odd[folder] = "masks"
                elif word == "test" and (folder.parent / "train").is_dir():
                    odd[folder] = "test images"
    if odd:
        lines = [printable(f"{path}: {what}, by its name") for path, what in sorted(odd.items())]
        raise ValueError(
            "a model is trained on good parts alone, and these folders seem to hold others; name "
            "the folders of good parts themselves:" + "".join(f"\n  {line}" for line in lines)
        )


def _check_images(paths):
    """Decode all images, and raise where some cannot be trained on; the message names them all."""
    from skanomaly.datasets._copies import near_copies

    drawn = [path for path in paths if is_drawing(path)]
    if drawn:
        raise ValueError(
            "pictures of what a model found are no photographs to train on:"
            + "".join(f"\n  {printable(str(path))}" for path in drawn)
        )
    damaged, _, _ = near_copies(paths, (), verbose=sys.stderr.isatty())
    if damaged:
        raise ValueError(
            f"{len(damaged)} of {len(paths)} images cannot be used:"
            + "".join(f"\n  {printable(reason)}" for _, reason in damaged)
        )
