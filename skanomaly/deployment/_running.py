"""Exported models in the runtime that they are for."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._optional import import_optional
from skanomaly._parameters import is_finite
from skanomaly.deployment._files import FORMAT, KEY, NAME, read_sealed

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
    try:
        run, text = onnx_run(contents[0]) if len(contents) == 1 else _openvino_run_of(contents)
    except ImportError:
        raise
    except Exception as exc:  # each runtime has kinds of its own
        raise ValueError(
            f"{path} holds no model that can be run ({exc}): export the model again"
        ) from exc
    return run, _manifest_of(path, text)


def _manifest_of(path: Path, text: str | None) -> dict[str, Any]:
    """What a file says of itself, as far as it is needed to run it, checked."""
    try:
        manifest = json.loads(text or "")
        if manifest["format"] != NAME:
            raise ValueError(manifest["format"])
        newer = manifest["format_version"] > FORMAT
        sides = [manifest["height"], manifest["width"]]
        if not newer and not all(side == "any" or isinstance(side, int) for side in sides):
            raise ValueError(sides)
        known = manifest["threshold"]
        if not newer and not _is_threshold(known):
            raise ValueError(known)
    except (ValueError, TypeError, LookupError, RecursionError) as exc:
        raise ValueError(
            f"{path} does not say what it is, as those of skanomaly.export_model do: export the "
            "model again"
        ) from exc
    if newer:
        raise ValueError(
            f"{path} has the format {manifest['format_version']}, of a newer skanomaly than this; "
            f"{FORMAT} is the newest that is known here"
        )
    return manifest


def _is_threshold(known: dict[str, Any]) -> bool:
    """Whether a threshold, and what goes with it, is as `export_model` writes it."""
    scores, groups, limits = (known[name] for name in ("train_scores", "groups", "patch_limits"))
    return (
        isinstance(known["calibration"], dict)
        and is_finite(known["offset"])
        and (scores is None or (len(scores) > 0 and all(map(is_finite, scores))))
        and (groups is None or [type(group) for group in groups] == [int] * len(scores))
        and (limits is None or (len(limits) == 2 and all(map(is_finite, limits))))
    )


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
    # Of ours no numbers lie in other files: those that a graph names are looked for where none is.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
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
