"""The images that commands are given: files, folders, globs, and lists on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from skanomaly.cli._options import DATA, home, printable
from skanomaly.cli._typed import WrongUsage

LISTED = "-"  # the argument that stands for the list on standard input
_KINDS = 5  # of files left out, that are named


class EmptyList(ValueError):
    """The list on standard input holds no image."""


ImageArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES",
        callback=home,
        help="Files, folders with all below them, globs ('parts/**/*.png'), or '-' for a list on "
        "standard input, one path a line.",
    ),
]
Null = Annotated[
    bool,
    typer.Option(
        "--null",
        "-0",
        rich_help_panel=DATA,
        help="Read paths on standard input that end in NUL, as of `find -print0`, not in lines.",
    ),
]


def image_paths(arguments: Sequence[str], *, null: bool = False) -> Iterator[Path]:
    """Paths of the images that the arguments of a command stand for, one after the other.

    Parameters
    ----------
    arguments : sequence of str
        In order. A name that is there is that file, whatever it is called, or a folder: all image
        files in it and below it, in the order of their names. Another one is a glob, as of a shell,
        where ``**`` stands for folders too; what it matches is in the order of names, and folders
        among it are searched. ``"-"`` is the list on standard input.
    null : bool, default=False
        Whether a path of that list ends in NUL, not with its line.

    Returns
    -------
    iterator of Path
        A path that several arguments stand for comes once. Of the list on standard input, which is
        read when its paths are asked for, each comes as often as it is listed, and need not exist:
        whoever reads it will say so. Names that are not UTF-8 hold surrogates, see `os.fsdecode`.

    Raises
    ------
    FileNotFoundError
        When an argument is no file and matches none, or a folder holds no image; before the first
        path.
    ValueError
        When the list is asked for twice, or `null` is set without it; once its end is read, when it
        holds no image.

    Notes
    -----
    In a folder an image is known by its suffix, as in data sets. Hidden files and folders, and what
    desktops leave behind, are passed over. All else that is left out there, and the heat maps that
    this program wrote, is counted, and told on standard error at the end. What is named itself, or
    matched by a glob, is read whatever its suffix.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from skanomaly.cli._inputs import image_paths
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("b.png", "a.png"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in image_paths([f"{folder}/b.*", folder])]
    ['b.png', 'a.png']
    """
    if arguments.count(LISTED) > 1:
        raise WrongUsage(f"'{LISTED}', the list on standard input, can be given once only")
    if null and LISTED not in arguments:
        raise WrongUsage(f"--null is for a list on standard input: give '{LISTED}' for the images")
    for argument in arguments:
        if argument != LISTED:
            _check(argument)
    return _paths(arguments, null)


def _check(argument):
    """Raise where an argument stands for nothing; what is there is looked at again later."""
    left_out = Counter()
    if next(_matches(argument, left_out), None) is None:
        if not os.path.isdir(argument):
            is_glob = any(c in argument for c in "*?[")
            what = "matches no file" if is_glob else "is no file and no folder"
            raise FileNotFoundError(f"{argument} {what} (the current directory is {os.getcwd()})")
        other = f" but {_told(left_out)}; a file that is named is read as it is" if left_out else ""
        raise FileNotFoundError(f"{argument} holds no images{other}")


def _paths(arguments, null):
    left_out = Counter()
    seen = set()
    for argument in arguments:
        if argument == LISTED:
            is_empty = True
            for path in _listed(b"\0" if null else b"\n", left_out):
                is_empty = False
                yield path
            if is_empty:  # such as of a program that ended at once: not all is well then
                raise EmptyList("no image was listed on standard input")
            continue
        for path in _matches(argument, left_out):
            if len(arguments) > 1:
                name = os.path.abspath(path)
                if name in seen:
                    continue
                seen.add(name)
            yield path
    if left_out:
        print(f"left out of the folders: {_told(left_out)}", file=sys.stderr)


def _matches(argument, left_out):
    """What one argument stands for."""
    if os.path.lexists(argument):
        yield from _opened(Path(argument), left_out)
        return
    folders = set()
    for name in sorted(set(glob.iglob(argument, recursive=True)), key=_parts):
        # Below a folder that was searched, all is had.
        if any(parent in folders for parent in map(str, Path(name).parents)):
            continue
        if os.path.isdir(name):
            folders.add(str(Path(name)))
        yield from _opened(Path(name), left_out)


def _opened(path, left_out):
    """The path of a file, or the images in a folder."""
    if path.is_dir():
        yield from _images_below(path, left_out, frozenset())
    else:
        yield path


def _images_below(folder, left_out, above):
    """Images in a folder and those below it, by name; no folder within itself, by a link."""
    # Not needed for --help, which should be quick.
    from skanomaly._output import is_drawing
    from skanomaly._stamps import is_special
    from skanomaly.datasets._tree import IMAGE_SUFFIXES, list_entries

    info = os.stat(folder)
    number = info.st_dev, info.st_ino
    if number in above:
        return
    for entry in list_entries(folder):
        suffix = entry.suffix.lower()
        if entry.is_dir():
            yield from _images_below(entry, left_out, above | {number})
        elif suffix not in IMAGE_SUFFIXES:
            left_out[suffix or "without suffix"] += 1
        elif is_special(entry):
            left_out["pipes, sockets or devices"] += 1
        elif suffix == ".png" and is_drawing(entry):
            left_out["heat maps of skanomaly"] += 1
        else:
            yield entry


def _listed(end, left_out):
    """Paths of the list on standard input; a folder in it is searched."""
    if sys.stdin is None:
        raise ValueError(f"'{LISTED}' is the list on standard input, which is closed")
    for name in _pieces(sys.stdin.buffer, end):
        if end == b"\n" and name.endswith(b"\r") and not os.path.lexists(name):
            name = name[:-1]  # of a list that was made on Windows
        if name:
            yield from _opened(Path(os.fsdecode(name)), left_out)


def _pieces(file, end):
    """What stands between the ends, as soon as it is there."""
    rest = b""
    while block := file.read1(1 << 16):
        *pieces, rest = (rest + block).split(end)
        yield from pieces
    yield rest


def _parts(name):
    return Path(name).parts


def _told(left_out):
    kinds = [f"{number} {printable(kind)}" for kind, number in left_out.most_common(_KINDS)]
    more = sum(number for _, number in left_out.most_common()[_KINDS:])
    return ", ".join([*kinds, *([f"{more} others"] if more else [])])
