"""Whether a file is still the one that it was."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from skanomaly._typing import PathLike


def file_stamp(path: PathLike) -> tuple[str, int, int, int, int]:
    """What changes where a file is written to or replaced, without reading it.

    Parameters
    ----------
    path : str or os.PathLike
        An existing file; ``~`` is expanded.

    Returns
    -------
    tuple
        Its real path, size, number on the disk, and the times of the change of its content, which
        copies may keep, and of its entry, which on Linux and macOS they cannot.
    """
    real = Path(path).expanduser().resolve()
    stat = real.stat()
    return str(real), stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def is_special(path: PathLike) -> bool:
    """Whether a name stands for a pipe, a socket or a device, which may be read from for ever.

    Parameters
    ----------
    path : str or os.PathLike
        Of anything, or of nothing.

    Returns
    -------
    bool
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a null character in the name
        return False
    return not (S_ISREG(mode) or S_ISDIR(mode))


def file_digest(path: PathLike) -> str:
    """sha256 of a file, in 64 hexadecimal digits; read again only where its stamp is another.

    Parameters
    ----------
    path : str or os.PathLike
        An existing file; ``~`` is expanded.

    Returns
    -------
    str

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(delete=False) as file:
    ...     _ = file.write(b"weights")
    >>> file_digest(file.name)[:12]
    '9a129038d9a0'
    """
    return _digest(file_stamp(path))


@lru_cache(maxsize=2**14)  # images of a data set do not push out the weights of a model
def _digest(stamp: tuple[str, int, int, int, int]) -> str:
    digest = hashlib.sha256()
    if is_special(stamp[0]):
        raise OSError(f"{stamp[0]} is a pipe, socket or device, and no file")
    with open(os.fspath(stamp[0]), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
