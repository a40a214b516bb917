"""Records of images, each at once: JSON lines and CSV, printed or in a file to go on with."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from skanomaly._output import Guard, check_folder, written_beside
from skanomaly._results.file import _append, _ends_a_line
from skanomaly.cli._options import printable

Form = Literal["jsonl", "csv"]

_NAMES = ("path", "heat_map")  # fields that hold names of files
_BACKSLASH = re.compile(r"\\(?=udc(?:[89a-f][0-9a-f]|5c))")
_CODE = re.compile(r"\\udc([89a-f][0-9a-f]|5c)")
_DIGEST = re.compile("[0-9a-f]{12}")


def field_names(*, regions: bool, maps: bool) -> tuple[str, ...]:
    """Names of what a record holds, in their order."""
    optional = (("regions",) if regions else ()) + (("heat_map",) if maps else ())
    return ("path", "decision", "score", "threshold", "p_value", *optional, "error", "model")


class Printed:
    """Records on standard output, each at once.

    Parameters
    ----------
    fields : sequence of str
        Of :func:`field_names`.
    form : {"jsonl", "csv"} or None
        None: a line for a person.
    """

    n_kept = n_anomalous = 0

    def __init__(self, fields: Sequence[str], form: Form | None) -> None:
        self.fields, self.form = fields, form
        if form == "csv":
            print(_as_csv(fields), end="", flush=True)

    def takes(self, path: Path) -> bool:
        """Whether there is a record for an image: never."""
        return False

    def add(self, record: dict[str, Any]) -> None:
        """Print a record."""
        if self.form is None:
            print(printable(_as_text(record)), flush=True)
        else:
            print(_as_line(record, self.fields, self.form), end="", flush=True)


class RecordFile:
    """Records in a file, each written at once and in one piece.

    Parameters
    ----------
    path : Path
        The file, in a folder that is there.
    fields : sequence of str
        Of :func:`field_names`.
    form : {"jsonl", "csv"}
        Of the file.
    model : str
        Twelve digits by which the model is known, as in each record.
    guard : Guard
        What must not be written over.
    resume : bool
        Go on with the file: images of which it has a record are had. A last record that was cut
        off, records of errors, and those of images that were changed after the file, are dropped.

    Attributes
    ----------
    n_kept, n_anomalous : int
        How many records were in the file, and how many of them of anomalous images.

    Raises
    ------
    OSError, ValueError
        When the file cannot be written, is there already, or is of another model, other options or
        no file of records at all; before anything is written.
    """

    def __init__(
        self,
        path: Path,
        fields: Sequence[str],
        form: Form,
        model: str,
        guard: Guard,
        resume: bool,
    ) -> None:
        from skanomaly.datasets._tree import IMAGE_SUFFIXES  # not needed for --help

        self.path, self.fields, self.form, self.model = path, tuple(fields), form, model
        self.n_kept = self.n_anomalous = 0
        self._had: Counter[bytes] = Counter()
        self._is_begun = False
        if not path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder for --{form} {path}")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise ValueError(f"--{form} {path} is the name of an image; name another file")
        guard.check([path], lambda _: True)
        if path.exists() and not resume and not guard.overwrite:
            raise FileExistsError(
                f"{path} is there already: go on with it by --resume, replace it by --overwrite, "
                "or name another file"
            )
        check_folder(path.parent)
        if path.exists():
            with open(path, "ab"):  # raises where it may not be written
                pass
            if resume:
                self._go_on()

    def takes(self, path: Path) -> bool:
        """Whether there is a record for an image; for one that is listed twice there are two."""
        if not self._had:
            return False
        key = _key(path)
        self._had[key] -= 1
        if self._had[key] > 0:
            return True
        return self._had.pop(key) == 0

    def add(self, record: dict[str, Any]) -> None:
        """Write a record behind the others, or none of it."""
        line = _encoded(_as_line(record, self.fields, self.form))
        if self._is_begun:
            _append(self.path, line)
            return
        with written_beside(self.path) as file:  # an earlier file has stood so far
            self._write_head(file)
            file.write(line)
        self._is_begun = True

    def _go_on(self):
        """Take over the records of the file, and write it anew where some of them are dropped."""
        if self.path.stat().st_size == 0:
            return
        written = self.path.stat().st_mtime
        n_dropped = 0
        for record in self._read():
            if record is None or not _still_holds(record, written):
                n_dropped += 1
                continue
            if record["model"] != self.model:
                raise ValueError(
                    f"{self.path} holds records of another model ({record['model']}, not "
                    f"{self.model}): name another file, or replace it by --overwrite"
                )
            self.n_kept += 1
            self.n_anomalous += record["decision"] == "anomalous"
            self._had[_key(record["path"])] += 1
        if n_dropped or not _ends_a_line(self.path):
            with written_beside(self.path) as file:
                self._write_head(file)
                for record in self._read():
                    if record is not None and _still_holds(record, written):
                        file.write(_encoded(_as_line(record, self.fields, self.form)))
        self._is_begun = True

    def _read(self) -> Iterator[dict[str, Any] | None]:
        """The records; None of a last one that is not whole, which the first always is."""
        csv.field_size_limit(2**31 - 1)  # an image may have many regions
        with open(self.path, encoding="utf-8", errors="replace", newline="") as file:
            found = map(_of_line, file) if self.form == "jsonl" else self._rows(file)
            before: dict[str, Any] | None = None
            for number, record in enumerate(found):
                cut_off = number > 0 and before is None
                if cut_off or (record is None and number == 0) or self._is_other(record):
                    raise ValueError(
                        f"{self.path} is no file of records with {', '.join(self.fields)}: pass "
                        "the options that it was written with, or name another file"
                    )
                before = record
                yield record

    def _is_other(self, record):
        return record is not None and set(record) != set(self.fields)

    def _rows(self, file):
        try:
            rows = csv.reader(file)
            head = next(rows, [])
            if set(head) != set(self.fields):
                yield dict.fromkeys(head)
            for row in rows:
                record: dict[str, Any] = dict(zip(head, row, strict=False))
                record |= {name: _unescaped(record[name]) for name in _NAMES if name in record}
                yield record if _DIGEST.fullmatch(record.get("model", "")) else None
        except csv.Error:
            yield {}

    def _write_head(self, file):
        if self.form == "csv":
            file.write(_encoded(_as_csv(self.fields)))


def _of_line(line):
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _still_holds(record, written):
    """Whether the image of a record was judged, and has not changed since the file was written."""
    if record["error"]:
        return False
    try:
        return os.stat(record["path"]).st_mtime <= written
    except (OSError, ValueError):  # it is gone, or its name is not one of this system
        return True


def _key(path):
    """Few bytes for a path, however it is spelled."""
    name = os.path.abspath(path).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(name, digest_size=16).digest()


def _as_line(record, fields, form):
    if form == "jsonl":
        return json.dumps({name: record[name] for name in fields}) + "\n"
    cells = [_escaped(record[name]) if name in _NAMES else record[name] for name in fields]
    return _as_csv([json.dumps(cell) if isinstance(cell, list) else cell for cell in cells])


def _escaped(name):
    """A name for CSV: bytes that are no UTF-8 by their codes, and so a backslash before a code."""
    if name is None:
        return None
    return _BACKSLASH.sub(r"\\udc5c", name).encode("utf-8", "backslashreplace").decode()


def _unescaped(name):
    return name and _CODE.sub(lambda code: _of_code(code[1]), name)


def _of_code(digits):
    return "\\" if digits == "5c" else chr(0xDC00 + int(digits, 16))


def _as_csv(cells):
    """A row; with the ends of lines that Python quotes in all versions, but for its own."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _as_text(record):
    if record["error"]:
        return f"failed     {record['error']}"
    p_value = "" if record["p_value"] is None else f"  p-value {record['p_value']:.3g}"
    n_regions = len(record.get("regions") or ())
    regions = f"  {n_regions} region{'s' * (n_regions != 1)}" if "regions" in record else ""
    return (
        f"{record['decision']:9}  score {record['score']:.4g}{p_value}{regions}  {record['path']}"
    )


def _encoded(line):
    """Bytes of a line; JSON is ASCII, and in CSV what is not UTF-8 is shown by its bytes."""
    return line.encode("utf-8", "backslashreplace")


def is_terminal() -> bool:
    """Whether standard output is read by a person."""
    return sys.stdout.isatty()
