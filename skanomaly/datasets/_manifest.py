"""Reader of a data set that is listed in a CSV or JSON Lines file."""

from __future__ import annotations

import errno
import os
from difflib import get_close_matches
from pathlib import Path

from skanomaly._labels import BAD_WORDS, GOOD_WORDS
from skanomaly._typing import PathLike
from skanomaly.datasets._records import GOOD, DatasetSplit, LayoutError
from skanomaly.datasets._rows import (
    Row,
    check_rows,
    listed_file,
    parse_json,
    read_csv,
    read_text,
    row_set,
)
from skanomaly.datasets._tree import existing_folder

SUFFIXES = (".csv", ".jsonl", ".ndjson")
_PARTS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}
_COLUMNS = ("image", "split", "y", "label", "defect_type", "mask", "group")
_WORDS = {**dict.fromkeys(GOOD_WORDS, 1), **dict.fromkeys(BAD_WORDS, -1)}
# How tables write that a value is not known, beside an empty cell.
_MISSING = frozenset({"", "nan", "none", "null", "n/a", "<na>"})


def read_manifest(path: PathLike, root: PathLike | None = None) -> DatasetSplit:
    """Read a data set from a table of its images, in CSV or JSON Lines.

    The columns, of which others may stand beside, are

    - ``image``: path of the image file, relative to `root`, with ``/``;
    - ``split``: ``train``, ``test``, or ``validation`` or ``val``;
    - ``y``: +1 for a normal and -1 for an anomalous image; or ``label``, in
      words such as ``normal``, ``good``, ``ok`` or ``anomaly``, ``bad``, ``ng``.
      A number in ``label`` is an error, as 1 would be normal to some and
      anomalous to others. Not needed beside ``defect_type``;
    - ``defect_type``, optional: ``good``, ``normal`` or ``ok`` for a normal image;
    - ``mask``, optional: path of the mask file; a list of them in JSON Lines;
    - ``group``, optional: what belongs together, such as the views of a part.

    An empty cell, null, NaN, none, or a missing key mean that a value is not
    known. A column that looks like a misspelt one of these is an error. No image
    is decoded.

    Parameters
    ----------
    path : str or path-like
        The file, ending in ``.csv``, ``.jsonl`` or ``.ndjson``, in UTF-8.
    root : str or path-like or None, default=None
        Folder which holds all images; the folder of the file by default.

    Returns
    -------
    split : DatasetSplit
        ``split.train``, ``split.test`` and, if the file lists such images,
        ``split.validation``, in the order of the file. The name is that of
        the folder.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        The file or `root` does not exist.
    LayoutError
        Every line and file that does not fit. Paths that are absolute or lead
        out of `root` are refused.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from skanomaly.datasets import read_manifest
    >>> lines = ["image,split,y,defect_type,mask", "a.png,train,1,,", "b.png,test,1,good,",
    ...          "c.png,test,-1,scratch,c_mask.png"]
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("a.png", "b.png", "c.png", "c_mask.png"):
    ...         Image.new("L", (8, 6), 255).save(Path(folder, name))
    ...     _ = Path(folder, "parts.csv").write_text("\\n".join(lines))
    ...     split = read_manifest(Path(folder, "parts.csv"))
    >>> split.test.y.tolist(), split.test.defect_types, split.test.masks[1].name
    ([1, -1], ('good', 'scratch'), 'c_mask.png')
    """
    path = Path(os.path.abspath(Path(path)))
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a manifest ends in {', '.join(SUFFIXES)}")
    root = existing_folder(path.parent if root is None else root)
    offenders: list[tuple[Path, str]] = []
    read = _read_csv if path.suffix.lower() == ".csv" else _read_jsonl
    listed = read(path, offenders)
    _check_columns([cells for _, cells in listed], path, offenders)
    rows = [_row(root, where, cells, path, offenders) for where, cells in listed]
    rows = [row for row in rows if row is not None]
    check_rows(rows, path, offenders)
    for part in ("train", "test"):
        if not offenders and not any(row.part == part for row in rows):
            offenders.append((path, f"lists no {part} image"))
    if offenders:
        raise LayoutError(root, offenders)
    sets = {
        part: row_set(f"{root.name}/{part}", [row for row in rows if row.part == part])
        for part in ("train", "test", "validation")
    }
    return DatasetSplit(
        name=root.name,
        train=sets["train"],
        test=sets["test"],
        validation=sets["validation"] if len(sets["validation"]) else None,
    )


def _read_csv(path, offenders):
    return read_csv(path.parent, path, ("image", "split"), offenders)


def _read_jsonl(path, offenders):
    rows = []
    for number, line in enumerate((read_text(path.parent, path, offenders) or "").split("\n"), 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            cells = parse_json(line)
        except (ValueError, RecursionError) as error:
            offenders.append((path, f"{where}: is not JSON: {error}"))
            continue
        if isinstance(cells, dict):
            rows.append((where, cells))
        else:
            offenders.append((path, f"{where}: expected an object, got {cells!r:.40}"))
    return rows


def _check_columns(rows, source, offenders):
    """Report columns that are not read, and whose name is nearly that of one that is missing."""
    found = dict.fromkeys(column for cells in rows for column in cells)
    missing = [column for column in _COLUMNS if column not in found]
    for column in found:
        name = column.strip().lower().replace(" ", "_").replace("-", "_")
        near = get_close_matches(name, missing, 1, 0.8) if column not in _COLUMNS else []
        if near:
            reason = f"column {column!r} is not read; did you mean {near[0]!r}?"
            offenders.append((source, reason))


def _row(root, where, cells, source, offenders):
    before = len(offenders)

    def refuse(reason):
        offenders.append((source, f"{where}: {reason}"))

    def text(column):
        value = str(cells.get(column)).strip()
        return "" if value.lower() in _MISSING else value

    part = _PARTS.get(text("split").lower())
    if part is None:
        refuse(f"split is {text('split')!r}, expected one of {', '.join(_PARTS)}")
    kind = _kind(text("y"), text("label").lower(), text("defect_type"), refuse)
    image = listed_file(root, root, cells.get("image"), source, where, offenders)
    mask = cells.get("mask")
    if not text("mask") or mask == []:
        mask = None
    elif kind == GOOD:
        refuse(f"a normal image with a mask, {text('mask')!r}")
    elif isinstance(mask, list):
        mask = tuple(listed_file(root, root, item, source, where, offenders) for item in mask)
    else:
        mask = listed_file(root, root, mask, source, where, offenders)
    if len(offenders) > before:
        return None
    return Row(where, part, image, kind, mask, text("group") or None)


def _kind(y, label, kind, refuse):
    """Type of the defect, "good" if there is none, from all that a row says about it."""
    signs = set()
    if y:
        sign = {"1": 1, "+1": 1, "1.0": 1, "-1": -1, "-1.0": -1}.get(y)
        if sign is None:
            refuse(f"y is {y!r}, expected 1 (normal) or -1 (anomalous)")
            return None
        signs.add(sign)
    if label:
        if label not in _WORDS:
            refuse(f"label is {label!r}, expected one of {', '.join(_WORDS)}")
            return None
        signs.add(_WORDS[label])
    if kind and not signs and kind.replace(".", "").lstrip("+-").isdigit():
        refuse(f"defect_type is {kind!r}, which says nothing of good or bad: give y or label too")
        return None
    if kind:
        signs.add(_WORDS.get(kind.lower(), -1))
    if len(signs) != 1:
        what = "contradict each other" if signs else "are all missing"
        refuse(f"y, label and defect_type {what}: {y!r}, {label!r}, {kind!r}")
        return None
    if signs == {1}:
        return GOOD
    return kind or (label if label in _WORDS else "anomaly")
