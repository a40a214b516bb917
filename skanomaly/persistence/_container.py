"""The file of a model: a zip archive whose arrays can be mapped, and which a digest closes.

Members are stored as they are, in this order: ``manifest.json``, ``estimator.skops``,
``arrays/00000.npy`` and so on, ``weights/`` with digests as names. They are read where they lie,
and never extracted under a name. The comment of the archive, its last 64 bytes, is the sha256 of
all bytes before. Later formats keep that, and the manifest in front.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from skanomaly._output import Guard, check_folder, written_beside
from skanomaly._typing import PathLike

FORMAT = 1
NAME = "skanomaly model"

_ALIGNMENT = 64
_DIGEST = 64  # hexadecimal digits
_BLOCK = 1 << 20
_MANIFEST, _TREE = "manifest.json", "estimator.skops"
_NAMES = re.compile(r"manifest\.json|estimator\.skops|arrays/[0-9]{5,9}\.npy|weights/[0-9a-f]{64}")
_HEADER = 30  # bytes before the name of a member
_START = b"PK\x03\x04"
# An extra field of zip with a number that nobody has; 4 bytes say which and how long it is.
_PADDING = b"\xfe\x5a"
_MOST_HEADER = 10_000  # of an array, in bytes


def write_container(
    path: Path,
    manifest: Mapping[str, Any],
    tree: bytes,
    arrays: Sequence[np.ndarray],
    weights: Mapping[str, Path],
) -> None:
    """Write the file of a model; what was there stays until the new one is whole.

    Parameters
    ----------
    path : Path
        Where to; a model file that is there is replaced, anything else is an error.
    manifest : mapping
        Plain values.
    tree : bytes
        Of skops.
    arrays : sequence of ndarray
        In the order of their numbers.
    weights : mapping of str to Path
        Files by their sha256.

    Raises
    ------
    FileExistsError, OSError
        When there is a link or another file, or it cannot be written.
    """
    if path.is_symlink():
        raise FileExistsError(
            f"{path} is a link to {os.path.realpath(path)}: name the file itself, links are not "
            "written through"
        )
    if path.is_dir():
        raise FileExistsError(
            f"{path} is a folder: name a file in it, such as {path / 'model'}.skan"
        )
    if not path.parent.is_dir():
        check_folder(path.parent)
    Guard().check([path], is_model)
    with written_beside(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.comment = b"0" * _DIGEST
            head = {"format": NAME, "format_version": FORMAT, **manifest}
            text = json.dumps(head, indent=2).encode()
            _add(archive, file, _MANIFEST, len(text), [text])
            _add(archive, file, _TREE, len(tree), [tree])
            for number, array in enumerate(arrays):
                header, data = _npy(array)
                size = len(header) + len(data)
                _add(archive, file, f"arrays/{number:05d}.npy", size, [header, data])
            for digest, source in weights.items():
                with open(source, "rb") as content:
                    size = os.fstat(content.fileno()).st_size
                    blocks = iter(lambda: content.read(_BLOCK), b"")
                    _add(archive, file, f"weights/{digest}", size, blocks)
        file.flush()
        with open(file.name, "rb") as written:
            digest, _ = _digests(written)
        file.seek(-_DIGEST, os.SEEK_END)
        file.write(digest.encode())
        file.flush()
        os.fsync(file.fileno())  # whole on the disk before it takes the place of the old one


def _add(archive, file, name, size, blocks):
    """Add a member of known size whose content starts at a multiple of 64 bytes."""
    info = zipfile.ZipInfo(name)  # of 1980, as all: nothing here depends on the time
    info.compress_type, info.file_size = zipfile.ZIP_STORED, size
    info.external_attr = 0o600 << 16
    zip64 = size >= 1 << 30
    start = file.tell() + _HEADER + len(name) + 4 + (20 if zip64 else 0)
    pad = -start % _ALIGNMENT
    info.extra = _PADDING + pad.to_bytes(2, "little") + bytes(pad)
    with archive.open(info, "w", force_zip64=zip64) as member:
        for block in blocks:
            member.write(block)


def _npy(array):
    """Header and data of an array in NumPy's format; only what has gaps is copied."""
    if not array.flags.c_contiguous and not array.flags.f_contiguous:
        array = np.ascontiguousarray(array)
    header = _Bytes()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    flat = (array if array.flags.c_contiguous else array.T).reshape(-1)
    return bytes(header), memoryview(flat.view(np.uint8))


class _Bytes(bytearray):
    def write(self, data):
        self.extend(data)


def array_header(file: BinaryIO, end: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array in NumPy's format that begins here and ends at `end`.

    ValueError where it does not end there, or holds objects.
    """
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is of another format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_MOST_HEADER)
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError("an array is of objects, or of less than nothing")
    if file.tell() + math.prod(shape) * dtype.itemsize != end:
        raise ValueError("an array is not as long as it says")
    return shape, fortran, dtype


def _digests(file):
    """sha256 of all bytes but for the last 64, and these. By reads: a map would count as memory."""
    digest, last = hashlib.sha256(), b""
    file.seek(0)
    while block := file.read(_BLOCK):
        last += block
        digest.update(memoryview(last)[:-_DIGEST])
        last = last[-_DIGEST:]
    return digest.hexdigest(), last


def is_model(path: PathLike) -> bool:
    """Whether a file begins as the files of :func:`write_container` do.

    Parameters
    ----------
    path : str or os.PathLike
        Of any file.

    Returns
    -------
    bool
    """
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except (OSError, ValueError):
        return False
    begin = f'{{\n  "format": "{NAME}"'.encode()
    return (
        head.startswith(_START) and head[_HEADER:].startswith(_MANIFEST.encode()) and begin in head
    )


class Container:
    """The file of a model, found whole; a context manager that closes it.

    Arrays that were mapped stay valid after that.

    Parameters
    ----------
    path : str or os.PathLike
        Of the file; ``~`` is expanded.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When it is no model file, a link, damaged, of a newer format, or not as this package writes
        them; the message says which.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path).expanduser()
        if self.path.is_symlink():
            raise ValueError(
                f"{self.path} is a link to {os.path.realpath(self.path)}: name the file itself, "
                "links to models are not followed"
            )
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} is not an existing file")
        if not self.path.is_file():
            raise ValueError(f"{self.path} is no file")
        if not is_model(self.path):
            raise ValueError(
                f"{self.path} is not a model file of skanomaly, which save_model writes. A pickle "
                "or joblib file is not read here: it runs code when it is loaded"
            )
        self._file: BinaryIO = open(self.path, "rb")  # noqa: SIM115
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> None:
        found, claimed = _digests(self._file)
        if found.encode() != claimed:
            raise ValueError(
                f"{self.path} is damaged: it was cut, or bytes in it have changed (its sha256 is "
                "not the one at its end). Copy it again from where it is whole"
            )
        try:
            self._archive = zipfile.ZipFile(self._file)
            self._places = {info.filename: self._place(info) for info in self._archive.infolist()}
            if len(self._places) != len(self._archive.infolist()):
                raise ValueError("two members have one name")
            self.manifest = self._manifest()
        except Exception as exc:  # whatever zipfile and json meet in a made-up file
            raise self.refused(exc) from exc
        version, versions = self.manifest.get("format_version"), self.manifest.get("versions", {})
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise self.refused(ValueError(f"its format is {version!r}"))
        if version > FORMAT:
            writer = versions.get("skanomaly") if isinstance(versions, dict) else None
            raise ValueError(
                f"{self.path} is of format {version}, written by skanomaly {writer}; this version "
                f"reads formats up to {FORMAT}: install that version, or a newer one"
            )
        if not isinstance(versions, dict):
            raise self.refused(ValueError(f"its versions are {versions!r}"))

    def refused(self, exc: Exception) -> ValueError:
        """The error for a file that is whole, but not what this package writes."""
        reason = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        return ValueError(f"{self.path} is not as skanomaly writes model files ({reason})")

    def _manifest(self) -> dict[str, Any]:
        if next(iter(self._places)) != _MANIFEST or self._places[_MANIFEST][0] > 1024:
            raise ValueError("its manifest is not in front")
        manifest = json.loads(self.read(_MANIFEST))
        if not isinstance(manifest, dict) or manifest.get("format") != NAME:
            raise ValueError("its manifest is none")
        return manifest

    def _place(self, info: zipfile.ZipInfo) -> tuple[int, int]:
        """Where the content of a member lies: its first byte, and how many there are."""
        if not _NAMES.fullmatch(info.orig_filename):
            raise ValueError(f"a member is named {info.orig_filename[:80]!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & ~0x800:
            raise ValueError(f"{info.filename} is compressed or encrypted")
        self._file.seek(info.header_offset)
        head = self._file.read(_HEADER)
        n_name, n_extra = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
        name = self._file.read(n_name)
        if not head.startswith(_START) or name != info.filename.encode():
            raise ValueError(f"{info.filename} is not where it should be")
        start = info.header_offset + _HEADER + n_name + n_extra
        end = os.fstat(self._file.fileno()).st_size - _DIGEST
        if info.file_size != info.compress_size or start + info.file_size > end:
            raise ValueError(f"{info.filename} does not end within the file")
        return start, info.file_size

    def read(self, name: str) -> bytes:
        """The content of a member."""
        start, size = self._places[name]
        self._file.seek(start)
        return self._file.read(size)

    def tree(self) -> bytes:
        """What skops wrote; ValueError where a part of it is compressed."""
        data = self.read(_TREE)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                raise ValueError("a part of the estimator is compressed")  # to what size?
        return data

    def arrays(self) -> list[np.ndarray]:
        """The arrays, mapped: read from the file when they are used.

        What is written to them stays in memory, and never reaches the file.
        """
        names = [name for name in self._places if name.startswith("arrays/")]
        names.sort(key=lambda name: int(name[7:-4]))
        if [name[7:-4] for name in names] != [f"{i:05d}" for i in range(len(names))]:
            raise ValueError("its arrays are not numbered")
        if not names:
            return []
        mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
        return [self._array(mapped, *self._places[name]) for name in names]

    def _array(self, mapped: mmap.mmap, start: int, size: int) -> np.ndarray:
        self._file.seek(start)
        shape, fortran, dtype = array_header(self._file, start + size)
        first, count = self._file.tell(), math.prod(shape)
        array = np.frombuffer(mapped, dtype, count, first)
        return array.reshape(shape, order="F" if fortran else "C")

    def weights(self) -> list[str]:
        """The sha256 of each file of weights in it."""
        return [name[8:] for name in self._places if name.startswith("weights/")]

    def copy_weights(self, digest: str, target: BinaryIO) -> None:
        """Write out a file of weights; ValueError where it is another than its name says."""
        start, size = self._places[f"weights/{digest}"]
        found = hashlib.sha256()
        self._file.seek(start)
        while size:
            block = self._file.read(min(size, _BLOCK))
            found.update(block)
            target.write(block)
            size -= len(block)
        if found.hexdigest() != digest:
            raise ValueError(f"weights/{digest[:12]}... has another sha256 than its name")
