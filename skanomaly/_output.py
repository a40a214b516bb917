"""Files that are written for a person: safe names, and never over what somebody else wrote.

Names from folders, manifests and models are a stranger's claims, and a folder that a person names
may hold anything. So every target is known and checked before the work, and a file is written
beside its place and then moved there: it is whole, or as it was.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from skanomaly._stamps import is_special
from skanomaly._typing import PathLike

# Of a name without its suffix: file systems take 255 bytes, some of them 143.
_MOST_BYTES = 120
_FORBIDDEN = frozenset('<>:"/\\|?*')
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))]
)
# How a PNG file of ours begins: behind its header, of 33 bytes, comes this chunk.
_MARK = ("Software", "skanomaly")
_MARK_BYTES = b"tEXt" + "\0".join(_MARK).encode()
_MADE = " made surface"  # behind the mark of what stands for a photograph
_PRINTED = 10


def safe_name(text: str) -> str:
    """A name for a file or a folder that every system takes, as much like a text as can be.

    Parameters
    ----------
    text : str
        Anything, such as a defect type of a manifest.

    Returns
    -------
    str
        One part of a path, of at most 120 bytes; never empty, hidden, or a way out of its folder.

    Examples
    --------
    >>> from skanomaly._output import safe_name
    >>> [safe_name(text) for text in ("scratch", "../../etc", "a/b", "", "aux")]
    ['scratch', '__.._etc', 'a_b', '_', '_aux']
    """
    plain = "".join("_" if c in _FORBIDDEN or not c.isprintable() else c for c in text)
    name = plain.strip(" ").rstrip(". ")
    if name[:1] in ("", ".") or name.partition(".")[0].rstrip().lower() in _RESERVED:
        name = "_" + name.lstrip(".")
    encoded = name.encode()
    if len(encoded) > _MOST_BYTES:  # the digest tells apart what begins alike
        digest = hashlib.sha256(encoded).hexdigest()[:8]
        name = f"{encoded[: _MOST_BYTES - 9].decode(errors='ignore').rstrip('. ')}-{digest}"
    return name


def folded(name: str) -> str:
    """What two names have in common that are one file to some systems: case and composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def unique_names(texts: Sequence[str], reserved: Iterable[str] = ()) -> list[str]:
    """A safe name for each of several texts, no two alike on any system.

    Parameters
    ----------
    texts : sequence of str
        What is to be named.
    reserved : iterable of str, default=()
        Names that are taken.

    Returns
    -------
    list of str
        As of :func:`safe_name`; where that is taken, with a number behind it. A text that is a safe
        name itself goes first.

    Examples
    --------
    >>> from skanomaly._output import unique_names
    >>> unique_names(["a/b", "a_b", "A_B"])
    ['a_b-3', 'a_b', 'A_B-2']
    """
    taken = {folded(name) for name in reserved}
    names = [safe_name(text) for text in texts]
    for i in sorted(range(len(texts)), key=lambda i: names[i] != texts[i]):
        name, number = names[i], 1
        while folded(names[i]) in taken:
            number += 1
            names[i] = f"{name}-{number}"
        taken.add(folded(names[i]))
    return names


class Guard:
    """What a run may not write over.

    Parameters
    ----------
    inputs : iterable of path-like, default=()
        Files that the run reads: never written over. What is not there is left out.
    overwrite : bool, default=False
        Whether files of others, but for the inputs, may be.
    """

    def __init__(self, inputs: Iterable[PathLike] = (), overwrite: bool = False) -> None:
        # By their numbers, which are the same through links and whatever the case of a name.
        paths = [Path(path) for path in inputs]
        self._inputs = frozenset(filter(None, map(_number, paths)))
        self._folders = frozenset(filter(None, map(_number, {path.parent for path in paths})))
        self.overwrite = overwrite

    def is_input(self, path: Path) -> bool:
        """Whether a file is one that the run reads, by whatever name."""
        return _number(path) in self._inputs

    def holds_inputs(self, folder: Path) -> bool:
        """Whether files that the run reads lie in a folder, not in one below it."""
        return _number(folder) in self._folders

    def check(self, targets: Iterable[Path], is_own: Callable[[Path], bool]) -> None:
        """Raise where a target is an input, or a file that `is_own` does not know for ours.

        Parameters
        ----------
        targets : iterable of Path
            Files that will be written.
        is_own : callable
            Takes the path of a file that is there.

        Raises
        ------
        FileExistsError
            The message names the files, and says what to do.
        """
        there = [path for path in targets if os.path.lexists(path)]
        inputs = [path for path in there if self.is_input(path)]
        if inputs:
            raise FileExistsError(
                f"{_count(inputs)} of this run would be replaced by its output, which never "
                f"happens; name another place for the output:{_listed(inputs)}"
            )
        odd = [path for path in there if path.exists() and not path.is_file()]
        if odd:
            raise FileExistsError(
                f"where a file is to be written there is something else:{_listed(odd)}"
            )
        foreign = [] if self.overwrite else [path for path in there if not is_own(path)]
        if foreign:
            raise FileExistsError(
                f"the output would replace what skanomaly did not write; name another place, or "
                f"pass --overwrite (overwrite=True):{_listed(foreign)}"
            )


def check_folder(folder: Path) -> None:
    """Make a folder where it is missing, and raise where nothing can be written in it.

    Parameters
    ----------
    folder : Path
        With those above it.

    Raises
    ------
    OSError
        When it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise type(exc)(f"{folder} cannot be a folder: there is a file of that name") from exc
    probe = _beside(folder / "probe")
    with names(folder, probe):
        with open(probe, "xb"):  # more than permissions: the disk may be read-only
            pass
        os.unlink(probe)


def foreign_images(folder: Path, targets: Iterable[Path]) -> list[Path]:
    """The image files in a folder, not in those below it, that :func:`save_picture` did not write.

    Parameters
    ----------
    folder : Path
        That exists.
    targets : iterable of Path
        Files that are to be written: they do not count.

    Returns
    -------
    list of Path
        Sorted.
    """
    return [
        path
        for path in sorted(set(folder.iterdir()) - set(targets))
        if path.suffix.lower() in Image.registered_extensions() and not is_own_picture(path)
    ]


@contextmanager
def names(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let errors of the system, such as of a full disk, name `path`, not what stands for it."""
    try:
        yield
    except OSError as exc:
        if exc.errno is not None and exc.filename in (None, str(temporary)):
            exc.filename, exc.filename2 = str(path), None
        raise


@contextmanager
def written_beside(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end, or leaves it as it was.

    Parameters
    ----------
    path : Path
        Of a file that is there or not.

    Yields
    ------
    binary file
        Beside `path`.
    """
    temporary = _beside(path)
    try:
        with names(path, temporary):
            with open(temporary, "xb") as file:
                yield file
            if path.is_file():
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def save_picture(
    picture: Image.Image, path: Path, *, compress_level: int = 6, photograph: bool = False
) -> None:
    """Write a picture as a PNG file that :func:`is_own_picture` knows again.

    Parameters
    ----------
    picture : PIL.Image.Image
        In any mode of PNG.
    path : Path
        In a folder that exists.
    compress_level : int, default=6
        From 0, none, to 9, slow.
    photograph : bool, default=False
        Whether it stands for a photograph, and is one to models: no :func:`is_drawing`.
    """
    info = PngInfo()
    key, value = _MARK
    info.add_text(key, value + _MADE if photograph else value)
    with written_beside(path) as file:
        picture.save(file, "PNG", pnginfo=info, compress_level=compress_level)


def is_own_picture(path: Path) -> bool:
    """Whether a file is a picture of :func:`save_picture`.

    Parameters
    ----------
    path : Path
        Of any file.

    Returns
    -------
    bool
    """
    return _mark_of(path) is not None


def is_drawing(path: Path) -> bool:
    """Whether a file is a picture of ours of what a model found, such as a heat map.

    Parameters
    ----------
    path : Path
        Of any file.

    Returns
    -------
    bool
        False of made surfaces, which stand for photographs.
    """
    mark = _mark_of(path)
    return mark is not None and not mark.startswith(_MADE.encode())


def _mark_of(path):
    """What stands behind the mark of ours, None without one."""
    if is_special(path):
        return None
    try:
        with open(path, "rb") as file:
            head = file.read(33 + 4 + len(_MARK_BYTES) + len(_MADE))
    except (OSError, ValueError):  # ValueError: a null character in the name
        return None
    marked = head[33 + 4 :]
    if not (head.startswith(b"\x89PNG\r\n\x1a\n") and marked.startswith(_MARK_BYTES)):
        return None
    return marked[len(_MARK_BYTES) :]


def _beside(path):
    return path.with_name(f".skanomaly-{os.getpid()}-{secrets.token_hex(8)}.tmp")


def _number(path):
    """Number of a file, None of one that is not there."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino


def _count(paths):
    return "an input" if len(paths) == 1 else f"{len(paths)} inputs"


def _listed(paths):
    more = len(paths) - _PRINTED
    lines = [*map(str, paths[:_PRINTED]), *([f"and {more} more"] if more > 0 else [])]
    return "".join(f"\n  {line}" for line in lines)
