"""Data sets that are listed in a table or a JSON file: rows, checked, to records.

Such a file may come from anywhere, so that nothing in it is trusted: a path has to stay within the
root. Everything that is wrong is reported together, as in `_tree`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from skanomaly.datasets._records import GOOD, ImageSet
from skanomaly.datasets._tree import IMAGE_SUFFIXES, Offenders, exists_inside, stays_inside


@dataclass(frozen=True)
class Row:
    """One image as a file lists it; `where` says on which line."""

    where: str
    part: str
    image: Path
    kind: str
    mask: Path | tuple[Path, ...] | None = None
    group: str | None = None


def read_json(root: Path, path: Path, offenders: Offenders) -> Any:
    """Content of a JSON file in the root; None, and a report, if it cannot be read."""
    text = read_text(root, path, offenders)
    if text is None:
        return None
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        offenders.append((path, f"is not JSON: {error}"))
        return None


def parse_json(text: str) -> Any:
    """Content of JSON text; ValueError if it is none, or an object has a key twice."""
    return json.loads(text, object_pairs_hook=_unique_keys)


def _unique_keys(pairs):
    keys = [key for key, _ in pairs]
    doubled = _doubled(keys)
    if doubled:  # Python would take the last one without a word
        raise ValueError(f"an object has {', '.join(map(repr, doubled))} twice")
    return dict(pairs)


def _doubled(names):
    """Those that are there more than once, sorted."""
    return sorted(name for name, n in Counter(names).items() if n > 1)


def read_text(root: Path, path: Path, offenders: Offenders) -> str | None:
    """Text of a file in the root, which a byte order mark may lead; None, and a report, if not."""
    if not os.path.lexists(path):
        offenders.append((path, "this file is missing"))
        return None
    if not exists_inside(root, path, offenders):
        return None
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        offenders.append((path, f"cannot be read: {error}"))
        return None


def read_csv(
    root: Path, path: Path, required: Sequence[str], offenders: Offenders
) -> list[tuple[str, dict[str, str]]]:
    """Rows of a CSV file as [(line, {column: text})]; whatever does not fit is reported."""
    text = read_text(root, path, offenders)
    if text is None:
        return []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, header = [], None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if not _is_valid_header(path, header, required, offenders):
                    return []
            elif len(cells) != len(header):
                reason = f"line {reader.line_num}: {len(cells)} cells, the header has {len(header)}"
                offenders.append((path, reason))
            else:
                rows.append((f"line {reader.line_num}", dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        offenders.append((path, f"line {reader.line_num}: {error}"))
    if header is None:
        offenders.append((path, "is empty"))
    return rows


def _is_valid_header(path, header, required, offenders):
    missing = [name for name in required if name not in header]
    doubled = _doubled(header)
    if missing:
        reason = f"lacks the columns {', '.join(missing)}; it has {', '.join(header)}"
        offenders.append((path, reason))
    if doubled:
        offenders.append((path, f"has columns twice: {', '.join(doubled)}"))
    return not missing and not doubled


def listed_file(
    root: Path, base: Path, text: Any, source: Path, where: str, offenders: Offenders
) -> Path | None:
    """Path of an image file which `source` lists relative to `base`; None, and a report, if odd."""

    def refuse(reason, path=source):
        prefix = f"{where}: {text!r} " if path is source else f"{source.name}, {where}: "
        offenders.append((path, prefix + reason))

    if not isinstance(text, str) or not text.strip():
        return refuse("is no path")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return refuse(f"is no file name in {sys.getfilesystemencoding()}, the encoding in use here")
    # As both systems read it: a list that was written on Windows must not lead out of the root on
    # Linux, or the other way round.
    flavours = PurePosixPath(text), PureWindowsPath(text)
    if any(path.is_absolute() or path.drive or path.root for path in flavours):
        return refuse("is an absolute path, expected one relative to the data set")
    if any(".." in path.parts for path in flavours):
        return refuse("leads out of its folder by '..'")
    path = base / text
    if "\0" in text or not stays_inside(root, path):
        return refuse("leads to a place outside of the root")
    if not os.path.isfile(path):
        return refuse("this file is missing", path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return refuse(f"not an image suffix ({' '.join(sorted(IMAGE_SUFFIXES))})", path)
    return path


def check_rows(rows: Sequence[Row], source: Path, offenders: Offenders) -> None:
    """Report images and masks that are listed twice, and groups that are not known for all."""
    listings = defaultdict(list)
    for row in rows:
        masks = row.mask if isinstance(row.mask, tuple) else (row.mask,)
        for path in (row.image, *(mask for mask in masks if mask is not None)):
            listings[path].append(f"{row.part} {row.where}")
    for path, places in listings.items():
        if len(places) > 1:
            offenders.append(
                (path, f"{source.name} lists it {len(places)} times: {_first_few(places)}")
            )
    bare = [row.where for row in rows if row.group is None]
    if bare and len(bare) < len(rows):
        offenders.append((source, f"no group, though other rows have one: {_first_few(bare)}"))


def _first_few(texts, limit=8):
    return ", ".join(texts[:limit] + ["..."] * (len(texts) > limit))


def row_set(name: str, rows: Sequence[Row], class_ids: bool = False) -> ImageSet:
    """ImageSet of rows, in their order."""
    groups = [row.group for row in rows if row.group is not None]
    return ImageSet(
        images=[row.image for row in rows],
        y=[1 if row.kind == GOOD else -1 for row in rows],
        masks=[row.mask for row in rows],
        defect_types=[row.kind for row in rows],
        name=name,
        groups=groups if groups and len(groups) == len(rows) else None,
        class_ids=class_ids,
    )
