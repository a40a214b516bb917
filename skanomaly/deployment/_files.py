"""The files of exported models: how they are known for ours, found whole, and what they say.

An ONNX file ends with a metadata entry, an OpenVINO ``.xml`` with a comment, that holds the sha256
of all bytes before it, and of the ``.bin`` beside.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from skanomaly._output import Guard, check_folder, written_beside
from skanomaly._stamps import is_special

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
FORMAT = 1
NAME = "skanomaly graph"
KEY = "skanomaly"  # of the manifest, in the metadata

# As protobuf has one more entry of the metadata of a model: its fields may come in any order.
_ONNX_TAIL = b"\x72\x54\x0a\x10skanomaly_sha256\x12\x40"
_XML_TAIL = b"<!--skanomaly_sha256 "
_DIGEST = 64


def files_of(path: Path) -> list[Path]:
    """The files of a model: for OpenVINO that of the numbers, which lies beside, first."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def sealed(contents: Sequence[bytes], suffix: str) -> list[bytes]:
    """Contents of the files of a model, the last of them with the digests of all."""
    digests = [hashlib.sha256(content).hexdigest().encode() for content in reversed(contents)]
    tail = _ONNX_TAIL + digests[0] if suffix == ".onnx" else _XML_TAIL + b" ".join(digests) + b"-->"
    return [*contents[:-1], contents[-1] + tail]


def read_sealed(path: Path) -> list[bytes]:
    """Contents of the files of a model, found whole and ours.

    Parameters
    ----------
    path : Path
        Of the ``.onnx`` or ``.xml`` file.

    Returns
    -------
    list of bytes
        As :func:`files_of` names them.

    Raises
    ------
    OSError, ValueError
        When one cannot be read, is not of :func:`skanomaly.export_model`, or is not as it was
        written.
    """
    if path.suffix not in SUFFIXES.values():
        raise ValueError(
            f"{path} is no exported model: these are .onnx files, and .xml files of OpenVINO"
        )
    if not is_exported(path):
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        raise ValueError(
            f"{path} was not written by skanomaly.export_model, or is not whole: export the "
            "model again"
        )
    for file in files_of(path):
        if not file.exists():
            raise FileNotFoundError(
                f"there is no file {file}, which belongs to {path}: copy it there, or export the "
                "model again"
            )
    contents = [file.read_bytes() for file in files_of(path)]
    tail = contents[-1][-_tail_length(path) :]
    whole = [*contents[:-1], contents[-1][: -len(tail)]]
    if sealed(whole, path.suffix)[-1][-len(tail) :] != tail:
        raise ValueError(
            f"{path} is damaged: it is not as it was written. Copy it again, or export the model "
            "again"
        )
    return contents


def is_exported(path: Path) -> bool:
    """Whether a file ends as those of :func:`write_files` do; a ``.bin``, whether one beside does.

    Parameters
    ----------
    path : Path
        Of any file.

    Returns
    -------
    bool
    """
    if path.suffix == ".bin":
        path = path.with_suffix(".xml")
    if path.suffix not in SUFFIXES.values() or is_special(path):
        return False
    length = _tail_length(path)
    try:
        with open(path, "rb") as file:
            file.seek(-length, os.SEEK_END)
            tail = file.read(length)
    except (OSError, ValueError):
        return False
    return tail.startswith(_ONNX_TAIL if path.suffix == ".onnx" else _XML_TAIL)


def _tail_length(path: Path) -> int:
    if path.suffix == ".onnx":
        return len(_ONNX_TAIL) + _DIGEST
    return len(_XML_TAIL) + 2 * _DIGEST + 1 + len(b"-->")


def check_target(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Raise where a model cannot be written.

    Parameters
    ----------
    path : Path
        Where to. An exported model that is there may be replaced, nothing else.
    inputs : sequence of Path, default=()
        Files that are read.

    Raises
    ------
    OSError
        The message says what to do.
    """
    for file in files_of(path):
        if file.is_symlink():
            raise FileExistsError(
                f"{file} is a link to {os.path.realpath(file)}: name the file itself, links are "
                "not written through"
            )
        if file.is_dir():
            raise FileExistsError(f"{file} is a folder: name a file in it")
    check_folder(path.parent)
    Guard(inputs).check(files_of(path), is_exported)


def write_files(path: Path, contents: Sequence[bytes]) -> int:
    """Write the files of a model; each is whole, or as it was.

    Parameters
    ----------
    path : Path
        Checked by :func:`check_target`.
    contents : sequence of bytes
        Of the files of :func:`files_of`, without digests.

    Returns
    -------
    int
        How many bytes were written, to all files together.
    """
    whole = sealed(contents, path.suffix)
    for file, content in zip(files_of(path), whole, strict=True):
        with written_beside(file) as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
    return sum(map(len, whole))
