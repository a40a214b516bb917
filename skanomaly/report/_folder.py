"""Files that the command line writes: heat maps with their table."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType
from typing import Any

from skanomaly._typing import FloatArray
from skanomaly.datasets import ImageSet
from skanomaly.report._picture import part_picture

_COLUMNS = ("image", "heat_map", "defect_type", "score", "threshold", "verdict")


class HeatMapFolder:
    """Writes image and heat map side by side, and a table of the scores, image by image.

    It is the `on_map` of :func:`skanomaly.evaluation.evaluate_split`, and is to be closed by
    ``with``. At the first image the heat maps that an earlier run listed in its table are removed,
    and nothing else in the folder. Each picture and each row of the table is written at once.

    Parameters
    ----------
    images : ImageSet
        The test images.
    folder : Path
        Where to write: ``scores.csv``, and a folder of pictures for each type of defect. It must
        exist.

    Examples
    --------
    >>> from skanomaly import evaluate_split
    >>> from skanomaly.report._folder import HeatMapFolder
    >>> with HeatMapFolder(split.test, folder) as write:  # doctest: +SKIP
    ...     result = evaluate_split(pipe, split, on_map=write)
    """

    def __init__(self, images: ImageSet, folder: Path) -> None:
        self.images = images
        self.folder = folder
        self._file: Any = None

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

    def __call__(
        self,
        index: int,
        heat_map: FloatArray,
        score: float,
        threshold: float,
        limits: tuple[float, float],
    ) -> None:
        """Write the picture and the row of one image."""
        if self._file is None:
            self._open()
        path, kind = self.images.images[index], self.images.defect_types[index]
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
        target = self.folder / kind / f"{path.stem}.png"
        target.parent.mkdir(exist_ok=True)
        picture.save(target)
        verdict = "anomalous" if score < threshold else "normal"
        name = target.relative_to(self.folder).as_posix()
        csv.writer(self._file).writerow([path, name, kind, score, threshold, verdict])
        self._file.flush()

    def _open(self) -> None:
        _remove_heat_maps(self.folder)
        self._file = open(self.folder / "scores.csv", "w", newline="", encoding="utf-8")
        csv.writer(self._file).writerow(_COLUMNS)


def _remove_heat_maps(folder: Path) -> None:
    """Remove the heat maps that an earlier run listed in its table."""
    if not (folder / "scores.csv").is_file():
        return
    with open(folder / "scores.csv", newline="", encoding="utf-8") as file:
        names = [row.get("heat_map") or "" for row in csv.DictReader(file)]
    for name in names:
        path = folder / name
        if path.suffix == ".png" and path.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)
