"""The one result of a command, as text or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from skanomaly._output import Guard, check_folder, written_beside


def check_summary(json_file: str | None, guard: Guard, outputs: Iterable[Path] = ()) -> None:
    """Raise before the work where ``--json`` names a file that cannot be written.

    Parameters
    ----------
    json_file : str or None
        Value of the option; "-" is standard output.
    guard : Guard
        What must not be written over.
    outputs : iterable of Path, default=()
        What else the command writes.

    Raises
    ------
    OSError, ValueError
        The message says what to do.
    """
    if json_file in (None, "-"):
        return
    path = Path(str(json_file))
    if os.path.realpath(path) in map(os.path.realpath, outputs):
        raise ValueError(f"--json {path} is the file of --output; name another")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder for --json {path}")
    guard.check([path], _is_summary)
    check_folder(path.parent)


def give_summary(
    summary: Mapping[str, Any], show: Callable[[], None], json_file: str | None
) -> None:
    """Show the result, or write it where ``--json`` asks for it.

    Parameters
    ----------
    summary : mapping
        Plain values; begins with `command` and `skanomaly`, by which such a file is known again.
    show : callable
        Prints it for a person.
    json_file : str or None
        Value of the option: None shows the result; a file is written besides; "-" prints the
        summary instead.
    """
    encoded = json.dumps(summary)
    if json_file == "-":
        print(encoded, flush=True)
        return
    if json_file is not None:
        with written_beside(Path(json_file)) as file:
            file.write(encoded.encode() + b"\n")
    show()


def _is_summary(path):
    """Whether a file is a summary that a command wrote."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"command", "skanomaly"} <= set(found)
