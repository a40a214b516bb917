"""Reader of one category of the Real-IAD data set."""

from __future__ import annotations

import re
from pathlib import Path

from skanomaly._typing import PathLike
from skanomaly.datasets._records import GOOD, DatasetSplit, LayoutError
from skanomaly.datasets._rows import Row, check_rows, listed_file, read_json, row_set
from skanomaly.datasets._tree import existing_folder, join_names, list_entries

LISTS = "realiad_jsons"
_SAMPLE = re.compile(r"S\d+")


def read_realiad(
    root: PathLike,
    category: str | None = None,
    resolution: str | int | None = None,
    annotations: str | None = None,
) -> DatasetSplit:
    """Read the file lists and labels of one category of Real-IAD.

    The layout is one JSON file per category, which lists the training and test
    images with their defects and masks, in ``realiad_jsons/realiad_jsons`` or
    ``realiad_jsons``; and the images in
    ``realiad_<resolution>/<category>/{OK,NG/<defect>}/S<number>/``. A folder
    ``S<number>`` holds the views of one sample, which may be normal from one
    side and anomalous from another: the score of a sample is the maximum over
    the views of its group. No image is decoded.

    Parameters
    ----------
    root : str or path-like
        Folder of the whole data set.
    category : str or None, default=None
        Such as ``"audiojack"``; may be left out if there is only one.
    resolution : str, int or None, default=None
        Which of the folders ``realiad_<resolution>`` to use, such as 1024; may
        be left out if there is only one.
    annotations : str or None, default=None
        Folder of the JSON files relative to `root`, such as
        ``"realiad_jsons/realiad_jsons_sv"`` for one view of each sample.

    Returns
    -------
    split : DatasetSplit
        ``split.train`` and ``split.test``, in the order of the JSON file but
        normal images first. `groups` is the folder of the sample, such as
        ``"NG/BX/S0003"``. The mask of an anomalous image is None where the file
        has null. In the lists with label noise ``split.train`` holds anomalous
        images too.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist or is not a folder.
    LayoutError
        Every file, and every entry of the JSON file, that does not fit; also
        if there is no such category.
    ValueError
        `resolution` is a bool.

    Examples
    --------
    >>> import json
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_realiad
    >>> def entry(kind, image, mask=None):
    ...     return {"category": "toy", "anomaly_class": kind, "image_path": image,
    ...             "mask_path": mask}
    >>> lists = {"meta": {"normal_class": "OK"},
    ...          "train": [entry("OK", "OK/S0001/a_C1.jpg")],
    ...          "test": [entry("OK", "NG/BX/S0002/b_C1.jpg"),
    ...                   entry("BX", "NG/BX/S0002/b_C2.jpg", "NG/BX/S0002/b_C2_mask.png")]}
    >>> with TemporaryDirectory() as root:
    ...     for row in lists["train"] + lists["test"]:
    ...         for name in filter(None, (row["image_path"], row["mask_path"])):
    ...             path = Path(root, "realiad_256", "toy", name)
    ...             path.parent.mkdir(parents=True, exist_ok=True)
    ...             Image.new("L", (8, 6), 255).save(path)
    ...     Path(root, "realiad_jsons").mkdir()
    ...     _ = Path(root, "realiad_jsons", "toy.json").write_text(json.dumps(lists))
    ...     split = read_realiad(root, "toy")
    >>> split.test
    ImageSet('toy/test': 2 images, 1 normal, 1 anomalous (BX), 1 mask)
    >>> split.test.groups
    ('NG/BX/S0002', 'NG/BX/S0002')
    """
    if isinstance(resolution, bool):
        raise ValueError(f"resolution must be a name or a number, got {resolution!r}")
    root = existing_folder(root)
    source = _source(root, category, annotations)
    category = source.stem
    base = _image_folder(root, category, resolution)
    offenders: list[tuple[Path, str]] = []
    content = read_json(root, source, offenders)
    if offenders:
        raise LayoutError(root, offenders)
    if not isinstance(content, dict):
        raise LayoutError(root, [(source, "expected an object with the lists train and test")])
    meta = content.get("meta")
    normal = meta.get("normal_class", "OK") if isinstance(meta, dict) else "OK"
    if not isinstance(normal, str):
        offenders.append((source, f"meta: normal_class is {normal!r:.40}, expected a name"))
    rows = []
    for part in ("train", "test"):
        entries = content.get(part)
        if not isinstance(entries, list) or not entries:
            offenders.append((source, f"expected a list of images, {part!r}"))
            continue
        for i, entry in enumerate(entries):
            rows.append(_row(root, base, entry, part, normal, source, i, offenders))
    rows = [row for row in rows if row is not None]
    check_rows(rows, source, offenders)
    if offenders:
        raise LayoutError(root, offenders)
    rows.sort(key=lambda row: row.kind != GOOD)
    train, test = (
        row_set(f"{category}/{part}", [row for row in rows if row.part == part])
        for part in ("train", "test")
    )
    return DatasetSplit(name=category, train=train, test=test)


def list_files(root: Path, annotations: str | None = None) -> dict[str, Path]:
    """JSON files of the categories.

    Parameters
    ----------
    root : Path
    annotations : str or None
        As for :func:`read_realiad`.

    Returns
    -------
    dict of str to Path
        By category.
    """
    folders = [LISTS + "/" + LISTS, LISTS] if annotations is None else [annotations]
    for folder in folders:
        if (root / folder).is_dir():
            files = [path for path in list_entries(root / folder) if path.suffix == ".json"]
            if files:
                return {path.stem: path for path in files}
    return {}


def _source(root, category, annotations):
    files = list_files(root, annotations)
    if category is None and len(files) == 1:
        return next(iter(files.values()))
    if category in files:
        return files[category]
    folder = root / (LISTS if annotations is None else annotations)
    if not files:
        contents = join_names(list_entries(root))
        reason = f"looked for <category>.json here; the root contains: {contents}"
    elif category is None:
        reason = f"several categories, pass one of them: {', '.join(files)}"
    else:
        reason = f"no {category!r}; the categories are: {', '.join(files)}"
    raise LayoutError(root, [(folder, reason)])


def _image_folder(root, category, resolution):
    prefix = "realiad_"
    folders = {
        path.name.removeprefix(prefix): path
        for path in list_entries(root)
        if path.name.startswith(prefix) and not path.name.startswith(LISTS) and path.is_dir()
    }
    if resolution is None and len(folders) > 1:
        reason = f"several resolutions, pass one of them: {', '.join(folders)}"
        raise LayoutError(root, [(root, reason)])
    if resolution is None and folders:
        resolution = next(iter(folders))
    folder = root / f"{prefix}{'<resolution>' if resolution is None else resolution}"
    if str(resolution) not in folders or not (folder / category).is_dir():
        contents = join_names(list_entries(folder if folder.is_dir() else root))
        reason = f"looked for this folder of images, found: {contents}"
        raise LayoutError(root, [(folder / category, reason)])
    return folder / category


def _row(root, base, entry, part, normal, source, i, offenders):
    where = f"{part}[{i}]"
    if not isinstance(entry, dict):
        offenders.append((source, f"{where}: expected an object, got {entry!r:.40}"))
        return None
    before = len(offenders)
    kind, mask = entry.get("anomaly_class"), entry.get("mask_path") or None
    if not isinstance(kind, str) or not kind or (kind == GOOD and kind != normal):
        reason = f"{where}: anomaly_class is {kind!r:.40}, expected {normal!r} or a defect"
        offenders.append((source, reason))
    image = listed_file(root, base, entry.get("image_path"), source, where, offenders)
    if kind == normal and mask is not None:
        offenders.append((source, f"{where}: a normal image with a mask, {mask!r}"))
    elif mask is not None:
        mask = listed_file(root, base, mask, source, where, offenders)
    if image is not None and not _SAMPLE.fullmatch(image.parent.name):
        reason = f"{where}: the image lies in no folder of a sample, S<number>: {image.name}"
        offenders.append((source, reason))
    if len(offenders) > before:
        return None
    if kind != normal and image.relative_to(base).parts[0] == normal:
        reason = f"{where}: anomaly_class is {kind!r}, but the image lies in {normal}: {image.name}"
        offenders.append((source, reason))
        return None
    group = image.parent.relative_to(base).as_posix()
    return Row(where, part, image, GOOD if kind == normal else kind, mask, group)
