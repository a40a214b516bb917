"""Exported models in the runtime that they are for."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._optional import import_optional
from skanomaly.deployment._files import KEY, read_sealed

_USER = "an exported model"

# From images, uint8 (batch, height, width, 3), to the outputs by their names.
Run = Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]


def open_exported(path: Path) -> tuple[Run, dict[str, Any]]:
    """A function that runs an exported model, and what the file says of it.

    Parameters
    ----------
    path : Path
        As :func:`skanomaly.export_model` wrote it.

    Returns
    -------
    run : callable
    manifest : dict
        Plain values.

    Raises
    ------
    OSError, ValueError
        When the file cannot be read, is none of ours, or damaged.
    ImportError
        When its runtime is missing.
    """
    contents = read_sealed(path)
    run, text = onnx_run(contents[0]) if len(contents) == 1 else _openvino_run_of(contents)
    try:
        manifest = json.loads(text or "")
    except ValueError as exc:
        raise ValueError(f"{path} says nothing of the model in it: export the model again") from exc
    return run, manifest


def onnx_run(model: bytes) -> tuple[Run, str | None]:
    """A function that runs a model in ONNX Runtime, and its manifest as text.

    Parameters
    ----------
    model : bytes

    Returns
    -------
    run : callable
    manifest : str or None
    """
    ort = import_optional("onnxruntime", "onnx", _USER)
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(None, {"image": images}), strict=True))

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


def openvino_run(model: Any) -> Run:
    """A function that runs a model in OpenVINO, on the CPU and in float32.

    Parameters
    ----------
    model : openvino.Model

    Returns
    -------
    callable
    """
    ov = import_optional("openvino", "openvino", _USER)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        found = compiled({"image": images})
        return {name: found[output].copy() for output in compiled.outputs for name in output.names}

    return run


def openvino_model(model: bytes) -> Any:
    """An ONNX model as one of OpenVINO.

    It is read by OpenVINO itself: its function `convert_model` would report that to its makers.
    """
    return import_optional("openvino", "openvino", _USER).Core().read_model(model)


def openvino_files(model: Any, manifest: str) -> list[bytes]:
    """Contents of the ``.bin`` and the ``.xml`` of a model of OpenVINO."""
    ov = import_optional("openvino", "openvino", _USER)
    model.set_rt_info(manifest, [KEY])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        ov.save_model(model, path, compress_to_fp16=False)
        return [path.with_suffix(".bin").read_bytes(), path.read_bytes()]


def _openvino_run_of(contents: list[bytes]) -> tuple[Run, str | None]:
    ov = import_optional("openvino", "openvino", _USER)
    weights, xml = contents
    # Held by the graph, as long as it lives.
    model = ov.Core().read_model(xml, ov.Tensor(np.frombuffer(weights, dtype=np.uint8)))
    info = model.get_rt_info()
    return openvino_run(model), str(info[KEY].astype(str)) if KEY in info else None
