"""Reader of one category of the MVTec LOCO AD data set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skanomaly._typing import PathLike
from skanomaly.datasets._records import DatasetSplit
from skanomaly.datasets._rows import read_json
from skanomaly.datasets._tree import (
    check_stems,
    class_files,
    class_folders,
    read_class_folders,
    report_unmasked,
)

CONFIG = "defects_config.json"
_KEYS = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")


@dataclass(frozen=True)
class DefectType:
    """One entry of a ``defects_config.json``: how a defect is drawn, and when it is found.

    Parameters
    ----------
    name : str
        Name of the defect.
    pixel_value : int
        Value of its pixels in the mask files, 1 to 255.
    saturation_threshold : float
        Overlap at which the defect counts as found in full: in pixels, or as a
        share of the defect's area.
    relative_saturation : bool
        Whether the threshold is a share, in (0, 1].

    Raises
    ------
    ValueError
        For a value of another type or out of its range.

    Examples
    --------
    >>> from skanomaly.datasets import DefectType
    >>> missing = DefectType("missing_pin", 255, 0.5, relative_saturation=True)
    >>> missing.saturation_area(400)  # half of the defect counts as all of it
    200
    """

    name: str
    pixel_value: int
    saturation_threshold: float
    relative_saturation: bool

    def __post_init__(self) -> None:
        value, threshold = self.pixel_value, self.saturation_threshold
        if type(value) is not int or not 1 <= value <= 255:
            raise ValueError(f"pixel_value must be an integer from 1 to 255, got {value!r}")
        if type(threshold) not in (int, float) or not 0 < threshold < math.inf:
            raise ValueError(f"saturation_threshold must be a positive number, got {threshold!r}")
        if type(self.relative_saturation) is not bool:
            raise ValueError(
                f"relative_saturation must be a bool, got {self.relative_saturation!r}"
            )
        if self.relative_saturation and threshold > 1:
            raise ValueError(f"a relative saturation_threshold is at most 1, got {threshold!r}")
        if not self.relative_saturation and threshold < 1:
            raise ValueError(
                f"a saturation_threshold in pixels is at least 1, got {threshold!r}; a share needs "
                "relative_saturation"
            )

    def saturation_area(self, area: int) -> int:
        """Pixels of a defect which have to be found for it to count as found in full.

        Parameters
        ----------
        area : int
            Pixels of the defect.

        Returns
        -------
        int
            At least 1.
        """
        if self.relative_saturation:
            return max(1, int(self.saturation_threshold * area))
        return max(1, int(min(self.saturation_threshold, area)))


def read_loco(root: PathLike) -> DatasetSplit:
    """Read the file lists, labels and defects of one category of MVTec LOCO AD.

    The layout is ``train/good/*`` and ``test/<class>/*``, and optionally
    ``validation/good/*``, the masks ``ground_truth/<class>/<stem>/*``, of which
    an image has one for each of its defects, and ``defects_config.json``. What
    does not fit is an error as in :func:`read_mvtec`. No image is decoded.

    Parameters
    ----------
    root : str or path-like
        Folder of one category.

    Returns
    -------
    split : DatasetSplit
        ``split.train``, ``split.validation`` and ``split.test``. The masks of
        an image are a tuple, which ``split.test.load_mask`` joins to one and
        ``split.test.load_regions`` keeps apart, with the saturation area of
        each. ``split.test.defects`` is the content of ``defects_config.json``,
        None without it.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist or is not a folder.
    LayoutError
        Every path that does not fit the layout.

    References
    ----------
    Bergmann, Batzner, Fauser, Sattlegger, Steger: Beyond Dents and Scratches:
    Logical Constraints in Unsupervised Anomaly Detection and Localization.
    IJCV 130, 2022.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_loco
    >>> names = ["train/good/000.png", "validation/good/000.png", "test/good/000.png",
    ...          "test/logical_anomalies/000.png",
    ...          "ground_truth/logical_anomalies/000/000.png",
    ...          "ground_truth/logical_anomalies/000/001.png"]
    >>> config = [{"defect_name": "missing_pin", "pixel_value": 255,
    ...            "saturation_threshold": 20, "relative_saturation": False}]
    >>> with TemporaryDirectory() as folder:
    ...     for name in names:
    ...         path = Path(folder, "pins", name)
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         Image.new("L", (8, 6), 255).save(path)
    ...     _ = Path(folder, "pins", "defects_config.json").write_text(json.dumps(config))
    ...     split = read_loco(Path(folder, "pins"))
    ...     regions, saturation = split.test.load_regions(1)
    >>> split.test.defect_types, len(split.test.masks[1])
    (('good', 'logical_anomalies'), 2)
    >>> regions.shape, saturation.tolist()
    ((2, 6, 8), [20, 20])
    """
    return read_class_folders(
        root, validation="validation", masks_of=_folder_masks, defects_of=_read_config
    )


def _folder_masks(root, truth, test, classes, normal, offenders):
    """Masks in ``root/truth/<class>/<stem>/`` as {image path: (mask path, ...)}."""
    masks = {}
    for folder in class_folders(root, truth, offenders, required=False):
        name = folder.name
        if name == normal:
            offenders.append((folder, "masks for good images, which have no defect"))
            continue
        images = {path.stem: path for path in classes.get(name, ())}
        found = class_files(root, f"{truth}/{name}", offenders)
        for stem, files in found.items():
            check_stems(files, offenders)
            if stem not in images:
                reason = f"masks for which there is no image in {test}/{name}"
                offenders.append((folder / stem, reason))
            elif files:
                masks[images[stem]] = tuple(files)
        if found:
            report_unmasked(f"{truth}/{name}", images.values(), found, offenders)
    return masks


def _read_config(root, offenders):
    path = root / CONFIG
    if not path.exists():
        return None
    entries = read_json(root, path, offenders)
    if entries is None:
        return None
    if not isinstance(entries, list) or not entries:
        offenders.append((path, "expected a list of defects"))
        return None
    defects, taken = [], set()
    for i, entry in enumerate(entries):
        try:
            if not isinstance(entry, dict) or set(_KEYS) - set(entry):
                raise ValueError(f"expected an object with the keys {', '.join(_KEYS)}")
            defect = DefectType(*(entry[key] for key in _KEYS))
            if defect.pixel_value in taken:
                raise ValueError(f"a second defect of pixel_value {defect.pixel_value}")
        except ValueError as error:
            offenders.append((path, f"entry {i}: {error}"))
            continue
        taken.add(defect.pixel_value)
        defects.append(defect)
    return tuple(defects)
