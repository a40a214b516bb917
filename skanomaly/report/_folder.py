"""Files that the command line writes: heat maps with their table."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from skanomaly._images.names import distinct_stems
from skanomaly._output import (
    Guard,
    check_folder,
    foreign_images,
    is_own_picture,
    save_picture,
    unique_names,
)
from skanomaly._typing import FloatArray
from skanomaly.datasets import ImageSet
from skanomaly.report._picture import part_picture

_TABLE = "scores.csv"
_COLUMNS = ("image", "heat_map", "defect_type", "score", "threshold", "verdict")


class HeatMapFolder:
    """Writes image and heat map side by side, and a table of the scores, image by image.

    It is the `on_map` of :func:`~skanomaly.evaluate_split`, and is to be closed by
    ``with``. When it is made, all that it will write is checked, and the folder is made. Each
    picture and each row of the table is written at once. At the end the heat maps that an earlier
    run listed in its table, and this one has not, are removed, and nothing else in the folder.

    Parameters
    ----------
    images : ImageSet
        The test images.
    folder : Path
        Where to write: ``scores.csv``, and a folder of pictures for each type of defect. Names that
        a system would not take, or that would lead elsewhere, are made safe; images of one name
        get those of their folders before it.
    guard : Guard
        What must not be written over.

    Attributes
    ----------
    targets : list of Path
        The picture of each image.
    table : Path
        The table of the scores.
    Raises
    ------
    FileExistsError
        When a target is an input, or a file that is not of an earlier run, or would lie among
        images of others.
    OSError
        When nothing can be written in the folder.

    Examples
    --------
    >>> from skanomaly import evaluate_split
    >>> from skanomaly._output import Guard
    >>> from skanomaly.report._folder import HeatMapFolder
    >>> guard = Guard(split.test.images)  # doctest: +SKIP
    >>> with HeatMapFolder(split.test, folder, guard) as write:  # doctest: +SKIP
    ...     result = evaluate_split(pipe, split, on_map=write)
    """

    def __init__(self, images: ImageSet, folder: Path, guard: Guard) -> None:
        self.images = images
        self.folder = folder
        self.guard = guard
        self.table = folder / _TABLE
        self.targets = [folder / name for name in _picture_names(images)]
        self._written: set[Path] = set()
        self._file: Any = None
        guard.check(self.targets, is_own_picture)
        guard.check([self.table], lambda path: _listed_pictures(path) is not None)
        for parent in {path.parent for path in self.targets}:
            if guard.holds_inputs(parent):
                raise FileExistsError(
                    f"{parent} holds images of this run, and heat maps among them would be taken "
                    "for images by the next; name another place for the output"
                )
            if os.path.lexists(parent):
                check_folder(parent)
                if others := foreign_images(parent, self.targets):
                    raise FileExistsError(
                        f"{parent} holds images that are no heat maps, such as {others[0].name}, "
                        "and a later run would take heat maps among them for images; name another "
                        "place for the output"
                    )
        check_folder(folder)
        self._earlier = _listed_pictures(self.table) or ()

    @property
    def n_written(self) -> int:
        """How many pictures were written."""
        return len(self._written)

    def __enter__(self) -> HeatMapFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            if kind is None:
                self._remove_earlier()

    def __call__(
        self,
        index: int,
        heat_map: FloatArray,
        score: float,
        threshold: float,
        limits: tuple[float, float],
    ) -> None:
        """Write the picture and the row of one image."""
        path, target = self.images.images[index], self.targets[index]
        kind = self.images.defect_types[index]
        picture = part_picture(
            path,
            heat_map,
            self.images.load_mask(index),
            score,
            threshold,
            limits,
            name=path.name,
            known=kind,
        )
        target.parent.mkdir(exist_ok=True)
        save_picture(picture, target)
        self._written.add(target)
        if self._file is None:  # now that one was written: an earlier table has stood so far
            self._open()
        verdict = "anomalous" if score < threshold else "normal"
        name = target.relative_to(self.folder).as_posix()
        csv.writer(self._file).writerow([path, name, kind, score, threshold, verdict])
        self._file.flush()

    def _remove_earlier(self) -> None:
        for path in {self.folder / name for name in self._earlier} - self._written:
            inside = path.resolve().is_relative_to(self.folder.resolve())
            if inside and is_own_picture(path) and not self.guard.is_input(path):
                path.unlink()

    def _open(self) -> None:
        # A file name that cannot be decoded is shown by its bytes: the table stays UTF-8.
        self._file = open(self.table, "w", newline="", encoding="utf-8", errors="backslashreplace")
        csv.writer(self._file).writerow(_COLUMNS)


def _listed_pictures(table):
    """The pictures that a table of ours lists; None of any other file, or none."""
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) == _COLUMNS:
                return [row["heat_map"] or "" for row in rows]
    except (OSError, ValueError, csv.Error):
        pass
    return None


def _picture_names(images: ImageSet) -> list[str]:
    """A path in the folder for the picture of each image, no two alike on any system."""
    kinds = list(dict.fromkeys(images.defect_types))
    folders = dict(zip(kinds, unique_names(kinds, [_TABLE]), strict=True))
    names = [""] * len(images)
    for kind, folder in folders.items():
        members = [i for i, other in enumerate(images.defect_types) if other == kind]
        stems = distinct_stems([images.images[i] for i in members])
        for i, stem in zip(members, stems, strict=True):
            names[i] = f"{folder}/{stem}.png"
    return names
