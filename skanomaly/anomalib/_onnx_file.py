"""Read what is needed of an ONNX file from its bytes, without the onnx package.

An ONNX file is one protobuf message: a sequence of fields, each a number and either an integer or
some bytes, which may be a message in turn. The numbers are those of onnx.proto, version 3.

The onnx package would copy all weights to get at the nodes. A file of 368 MB and 2,000 nodes takes
378 MB of memory here and 1,442 MB there, and is read in half the time; and files are recognised,
and their weights found, where only onnxruntime or neither is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from skanomaly._typing import PathLike

_DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}  # TensorProto.DataType
_TYPED = {1: (4, "<f4"), 11: (10, "<f8")}  # floats outside raw_data: their field


def fields(data: bytes | memoryview) -> Iterator[tuple[int, Any]]:
    """Fields of a message: pairs of number and value, an int or a memoryview.

    Parameters
    ----------
    data : bytes-like
        The message.

    Yields
    ------
    number : int
    value : int or memoryview

    Raises
    ------
    ValueError
        When the bytes are no message, or cut.
    """
    data = memoryview(data)
    position = 0
    while position < len(data):
        value: Any
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(data, position)
        elif wire in (1, 2, 5):
            length = {1: 8, 5: 4}.get(wire)
            if length is None:
                length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a field is cut")
            value, position = data[position : position + length], position + length
        else:
            raise ValueError(f"no field has the wire type {wire}")
        yield number, value


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a number is cut")
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def encode(number: int, payload: bytes) -> bytes:
    """One field of bytes."""
    return _encode_varint(number << 3 | 2) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out: list[int] = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def looks_like_onnx(path: PathLike) -> bool:
    """Whether a file is a whole ONNX model; an error when it begins like one, and is cut."""
    with open(path, "rb") as file:
        data = file.read()
    begins = data[:1] == b"\x08" and 0 < data[1] < 64 if len(data) > 1 else False
    try:
        parts = dict(fields(data))
        version, graph = parts.get(1), parts.get(7)
        if isinstance(version, int) and isinstance(graph, memoryview):
            return any(number == 1 for number, _ in fields(graph))
    except (ValueError, TypeError) as exc:
        if begins:
            raise ValueError(f"{path} begins as ONNX, but is truncated or damaged ({exc})") from exc
    return False


class OnnxGraph:
    """Nodes, inputs, outputs and small constants of an ONNX file.

    Parameters
    ----------
    data : bytes
        The file.

    Attributes
    ----------
    nodes : list of tuple
        ``(operator, inputs, outputs, mode)`` in order; `mode` is the attribute of that name.
    constants : dict of str to ndarray
        Constants of up to 16 numbers, by name, that are stored in the file itself.
    external : list of str
        Other files that hold constants, relative to this one.
    """

    def __init__(self, data: bytes) -> None:
        graph = next(value for number, value in fields(data) if number == 7)
        self.nodes: list[tuple[str, list[str], list[str], str]] = []
        self.constants: dict[str, Any] = {}
        external: dict[str, bool] = {}
        for number, value in fields(graph):
            if number == 1:
                self._add_node(value)
            elif number == 5:
                name, array, location = _tensor(value)
                if location is not None:
                    external[location] = True
                elif array is not None:
                    self.constants[name] = array
        self.external = list(external)

    def _add_node(self, message: memoryview) -> None:
        inputs: list[str] = []
        outputs: list[str] = []
        operator, attributes = "", []
        for number, value in fields(message):
            if number == 1:
                inputs.append(_text(value))
            elif number == 2:
                outputs.append(_text(value))
            elif number == 4:
                operator = _text(value)
            elif number == 5:
                attributes.append(value)
        mode = ""
        if operator in ("Constant", "Resize"):
            for attribute in attributes:
                parts = dict(fields(attribute))  # AttributeProto: 1 name, 4 string, 5 tensor
                if operator == "Constant" and 5 in parts:
                    self.constants[outputs[0]] = _tensor(parts[5])[1]
                elif _text(parts[1]) == "mode":
                    mode = _text(parts[4])
        self.nodes.append((operator, inputs, outputs, mode))


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "replace")


def _tensor(message: memoryview) -> tuple[str, Any, str | None]:
    """Name, small array and external file of a TensorProto."""
    dims: list[int] = []
    kind, name = 0, ""
    raw = location = typed = None
    for number, value in fields(message):
        if number == 1:
            if isinstance(value, int):
                dims.append(value)
            else:
                position = 0
                while position < len(value):
                    dim, position = _varint(value, position)
                    dims.append(dim)
        elif number == 2:
            kind = value
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = value
        elif number == 13:
            entry = dict(fields(value))
            if _text(entry.get(1, b"")) == "location":
                location = _text(entry[2])
        elif kind in _TYPED and number == _TYPED[kind][0]:
            typed = value
    array = None
    if location is None and kind in _DTYPES and int(np.prod(dims)) <= 16:
        try:
            if raw is not None:
                array = np.frombuffer(raw, dtype=_DTYPES[kind]).reshape(dims)
            elif typed is not None:
                array = np.frombuffer(typed, dtype=_TYPED[kind][1]).reshape(dims)
        except ValueError as exc:
            raise ValueError(f"the constant {name!r} is damaged") from exc
    return name, array, location


def external_files(path: Path) -> list[Path]:
    """Files beside an ONNX file that hold its weights.

    Parameters
    ----------
    path : pathlib.Path
        The ONNX file.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    FileNotFoundError
        When one is missing.
    ValueError
        When one lies outside the folder of the ONNX file.
    """
    folder = external_folder(path)
    return [(folder / name).resolve() for name in _external_names(path)]


def external_folder(path: Path) -> Path:
    """Folder of the files beside an ONNX file: its own, or that of what it is a link to.

    Checked as :func:`external_files` says.
    """
    names = _external_names(path)
    try:
        for name in names:
            _check_beside(path, name)
    except FileNotFoundError:
        if not path.is_symlink():
            raise
        path = path.resolve()
        for name in names:
            _check_beside(path, name)
    return path.parent.resolve()


def _external_names(path: Path) -> list[str]:
    stat = path.stat()
    return _external(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _external(path: str, size: int, changed: int) -> list[str]:
    return read_graph(Path(path))[1].external


def read_graph(path: Path) -> tuple[bytes, OnnxGraph]:
    """Bytes of an ONNX file, and its :class:`OnnxGraph`; an error that names it when damaged."""
    data = path.read_bytes()
    try:
        return data, OnnxGraph(data)
    except (ValueError, TypeError, KeyError, IndexError, StopIteration) as exc:
        raise ValueError(f"{path} is damaged ({exc}); copy it or export it again") from exc


def _check_beside(path: Path, name: str) -> None:
    link = path.parent / name
    try:
        file = link.resolve()
        found = file.is_file()
    except (OSError, ValueError) as exc:  # a name that no file can have
        raise ValueError(f"{path} is damaged: it asks for a file {name[:40]!r} ({exc})") from exc
    if path.parent.resolve() not in file.parents:
        hint = "; it is a link: copy the files themselves into one folder"
        raise ValueError(
            f"{path} asks for {name!r}, outside of its folder; this is refused"
            f"{hint if link.is_symlink() else ''}"
        )
    if not found:
        raise FileNotFoundError(f"the weights of {path} are missing: {file} is not there")
