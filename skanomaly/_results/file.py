"""The file of results: JSON lines of ours alone, each there as soon as it is had."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from skanomaly._output import Guard, check_folder, names, written_beside
from skanomaly._typing import PathLike
from skanomaly._version import __version__

Row = dict[str, Any]

_KEY = ("model", "name", "shots", "seed", "data_digest", "model_digest")
_KEYS = {*_KEY, "metrics", "parameters", "versions"}


def row_key(row: Row, version: str = __version__) -> str:
    """By what a run is known again: names, contents of data and model, and our version."""
    return json.dumps([*(row[name] for name in _KEY), version])


class ResultsFile:
    """A file of results, one JSON line a row.

    It is read and checked when this is made, before any work, and written by `add` alone.

    Parameters
    ----------
    path : path-like
        Where the file is, or will be.
    guard : Guard
        What must not be written over.

    Attributes
    ----------
    rows : dict of str to dict
        The rows that were there, by :func:`row_key`; of several of one run the last.

    Raises
    ------
    FileExistsError
        When the file holds anything but rows of ours, or is an input.
    OSError
        When it cannot be written.
    """

    def __init__(self, path: PathLike, guard: Guard) -> None:
        self.path = Path(os.path.realpath(path))  # a link stays a link
        if self.path.is_dir():
            raise IsADirectoryError(f"{path} is a folder, and no file for results")
        guard.check([self.path], lambda path: _read_rows(path) is not None)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"there is no folder for the results file {path}")
        check_folder(self.path.parent)
        if self.path.exists():
            with open(self.path, "ab"):  # raises where it may not be written
                pass
        rows = _read_rows(self.path)
        self.rows = {_key(row): row for row in rows or ()}
        # Others may have made a new file before its first row from here is added: one that was
        # replaced then would lose their rows.
        is_new = not self.path.exists() or self.path.stat().st_size == 0
        self._may_append = is_new or (bool(rows) and _ends_a_line(self.path))

    def add(self, row: Row) -> None:
        """Write a row behind the others. Of a run that is there already the later row counts.

        Nothing of what other processes write to the same file is lost.

        Parameters
        ----------
        row : dict
            What it is recognised by, and what an evaluation found; ready for JSON.
        """
        line = _line(row)
        if self._may_append:
            _append(self.path, line)
        else:  # after what a kill cut off, or in place of a file of others
            with written_beside(self.path) as file:
                file.writelines(map(_line, _read_rows(self.path) or ()))
                file.write(line)
            self._may_append = True
        self.rows[_key(row)] = row


def _key(row):
    return row_key(row, row["versions"]["skanomaly"])


def _append(path, line):
    """Add a line in one piece, so that other processes can add to the same file; or nothing."""
    with names(path), open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            if file.write(line) < len(line):
                raise OSError(f"the disk is full: a row of {path} was not written")
        except OSError:
            file.truncate(end)
            raise


def _ends_a_line(path):
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _line(row):
    return json.dumps(row).encode() + b"\n"


def _read_rows(path):
    """The rows of a file; None where it holds anything else.

    A last line that a kill cut off is left out, where whole rows of ours stand before it.
    """
    rows = []
    try:
        with open(path, "rb") as file:
            for line in filter(bytes.strip, file):
                row = _row(line)
                if row is None:
                    return rows if rows and not line.endswith(b"\n") else None
                rows.append(row)
    except OSError:
        return None
    return rows


def _row(line):
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and _KEYS <= set(row) and isinstance(row["versions"], dict)
    return row if is_row and "skanomaly" in row["versions"] else None
