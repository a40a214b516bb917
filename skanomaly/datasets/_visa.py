"""Reader of one category of the VisA data set as it is published."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from skanomaly._typing import PathLike
from skanomaly.datasets._records import GOOD, DatasetSplit, LayoutError
from skanomaly.datasets._rows import Row, check_rows, listed_file, read_csv, row_set
from skanomaly.datasets._tree import (
    check_stems,
    existing_folder,
    exists_inside,
    image_files,
    join_names,
    list_entries,
)

COLUMNS = ("object", "split", "label", "image", "mask")
_KINDS = {"normal": GOOD, "anomaly": "anomaly"}


def read_visa(root: PathLike, category: str | None = None, split: str = "1cls") -> DatasetSplit:
    """Read the file lists and labels of one category of VisA, as it is published.

    The layout is ``split_csv/<split>.csv``, with the columns object, split,
    label, image and mask, over the files of
    ``<category>/Data/Images/{Normal,Anomaly}`` and
    ``<category>/Data/Masks/Anomaly``. The values in a mask are the ids of
    defects: whatever is not 0 is defective. No image is decoded. VisA converted
    to the layout of MVTec AD is read by :func:`read_mvtec`.

    Which images are used, and which mask belongs to which, is what the CSV file
    says. Beyond that, images of one stem and masks without an image in the
    category's folders are errors.

    Parameters
    ----------
    root : str or path-like
        Folder of the whole data set, which holds ``split_csv``.
    category : str or None, default=None
        Such as ``"candle"``; may be left out if there is only one.
    split : str, default="1cls"
        Name of a file in ``split_csv``: ``"1cls"``, ``"2cls_fewshot"`` or
        ``"2cls_highshot"``. The latter two have anomalous images in
        ``split.train``, with masks, which a one-class model must not use.

    Returns
    -------
    split : DatasetSplit
        ``split.train`` and ``split.test``, in the order of the CSV file but
        normal images first. The type of a defect is ``"anomaly"``.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        `root` does not exist or is not a folder.
    LayoutError
        Every file, and every line of the CSV file, that does not fit; also if
        there is no such category.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_visa
    >>> data = "candle/Data"
    >>> rows = ["object,split,label,image,mask",
    ...         f"candle,train,normal,{data}/Images/Normal/0000.JPG,",
    ...         f"candle,test,normal,{data}/Images/Normal/0001.JPG,",
    ...         f"candle,test,anomaly,{data}/Images/Anomaly/000.JPG,{data}/Masks/Anomaly/000.png"]
    >>> with TemporaryDirectory() as root:
    ...     for name in {name for row in rows[1:] for name in row.split(",")[3:] if name}:
    ...         Path(root, name).parent.mkdir(parents=True, exist_ok=True)
    ...         Image.new("L", (8, 6), 1).save(Path(root, name))
    ...     Path(root, "split_csv").mkdir()
    ...     _ = Path(root, "split_csv", "1cls.csv").write_text("\\n".join(rows))
    ...     split = read_visa(root, "candle")
    ...     mask = split.test.load_mask(1)
    >>> split.test
    ImageSet('candle/test': 2 images, 1 normal, 1 anomalous (anomaly), 1 mask)
    >>> bool(mask.all())
    True
    """
    root = existing_folder(root)
    source = _split_file(root, split)
    offenders: list[tuple[Path, str]] = []
    lines = read_csv(root, source, COLUMNS, offenders)
    for where, cells in lines:
        if not _is_folder_name(cells["object"].strip()):
            reason = f"{where}: object is {cells['object']!r}, expected the name of a folder"
            offenders.append((source, reason))
    if offenders:
        raise LayoutError(root, offenders)
    category = _choose_category(
        root, source, category, {cells["object"].strip() for _, cells in lines}
    )
    rows = []
    for where, cells in lines:
        if cells["object"].strip() == category:
            rows.append(_row(root, cells, source, where, offenders))
    rows = [row for row in rows if row is not None]
    _check_folders(root, category, rows, offenders)
    check_rows(rows, source, offenders)
    parts = Counter(row.part for row in rows)
    for part in ("train", "test"):
        if not parts[part] and not offenders:
            offenders.append((source, f"lists no {part} image of {category}"))
    if offenders:
        raise LayoutError(root, offenders)
    rows.sort(key=lambda row: row.kind != GOOD)
    train, test = (
        row_set(f"{category}/{part}", [row for row in rows if row.part == part], class_ids=True)
        for part in ("train", "test")
    )
    return DatasetSplit(name=category, train=train, test=test)


def split_files(root: Path) -> dict[str, Path]:
    """CSV files of the splits.

    Parameters
    ----------
    root : Path

    Returns
    -------
    dict of str to Path
        By name, the default one first.
    """
    folder = root / "split_csv"
    if not folder.is_dir():
        return {}
    files = [path for path in folder.glob("*.csv") if not path.name.startswith(".")]
    files.sort(key=lambda path: (path.stem != "1cls", path.name))
    return {path.stem: path for path in files}


def visa_categories(root: Path) -> tuple[str, ...]:
    """Names of the categories in any of the split files.

    Parameters
    ----------
    root : Path

    Returns
    -------
    tuple of str
        In order.
    """
    found: set[str] = set()
    for path in split_files(root).values():
        found.update(cells["object"].strip() for _, cells in read_csv(root, path, COLUMNS, []))
    return tuple(sorted(found))


def _is_folder_name(name):
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _split_file(root, split):
    files = split_files(root)
    if split in files:
        return files[split]
    found = (
        ", ".join(files) or f"nothing like it; the root contains: {join_names(list_entries(root))}"
    )
    path = root / "split_csv" / f"{split}.csv"
    raise LayoutError(root, [(path, f"looked for this list of a split, found {found}")])


def _choose_category(root, source, category, found):
    if category is None and len(found) == 1:
        return found.pop()
    if category in found:
        return category
    reason = "several categories, pass one of them" if category is None else f"no {category!r}"
    raise LayoutError(root, [(source, f"{reason}; it lists: {', '.join(sorted(found))}")])


def _row(root, cells, source, where, offenders):
    before = len(offenders)
    part, label = cells["split"].strip(), cells["label"].strip()
    if part not in ("train", "test"):
        offenders.append((source, f"{where}: split is {part!r}, expected train or test"))
    if label not in _KINDS:
        offenders.append((source, f"{where}: label is {label!r}, expected normal or anomaly"))
    image = listed_file(root, root, cells["image"], source, where, offenders)
    mask = cells["mask"].strip() or None
    if label == "normal" and mask is not None:
        offenders.append((source, f"{where}: a normal image with a mask, {mask!r}"))
    elif label == "anomaly" and mask is None:
        offenders.append((source, f"{where}: an anomalous image without a mask"))
    elif mask is not None:
        mask = listed_file(root, root, cells["mask"], source, where, offenders)
    if len(offenders) > before:
        return None
    for reason in _contradictions(root, cells["object"].strip(), label, image, mask):
        offenders.append((source, f"{where}: {reason}"))
    return Row(where, part, image, _KINDS[label], mask)


def _contradictions(root, category, label, image, mask):
    """Where the names of a row's files say other things than its cells."""
    folders = [name.lower() for name in image.relative_to(root).parts[:-1]]
    if folders[:1] != [category.lower()]:
        yield f"an image of {folders[0] if folders else 'the root'}, listed for {category}"
    if folders[-1:] != [label] and folders[-1:] in (["normal"], ["anomaly"]):
        yield f"label is {label!r}, but the image lies in {image.parent.name}"
    if mask is not None and mask.stem != image.stem:
        yield f"the mask {mask.name} is not that of {image.name}"


def _check_folders(root, category, rows, offenders):
    """Report images of one stem, and masks that belong to no image, whatever the list uses."""
    found = {}
    for name in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
        folder = root / category / "Data" / name
        if folder.is_dir() and exists_inside(root, folder, offenders):
            found[name] = image_files(root, folder, offenders)
            check_stems(found[name], offenders)
    stems = {path.stem for path in found.get("Images/Anomaly", ())}
    used = {row.mask for row in rows}
    for path in found.get("Masks/Anomaly", ()):
        if path.stem not in stems and path not in used:
            offenders.append((path, "a mask for which there is no image in Data/Images/Anomaly"))
