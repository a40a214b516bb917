"""Run anomalib's ONNX graphs with onnxruntime alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skanomaly._optional import import_optional
from skanomaly.anomalib import _onnx_file
from skanomaly.anomalib._families import family_of_class
from skanomaly.anomalib._graphs import GraphBackend, run_error
from skanomaly.anomalib._opening import MODEL_NOTE
from skanomaly.anomalib._raw_scores import Graph

if TYPE_CHECKING:
    from skanomaly._typing import FloatArray, PathLike


class OnnxBackend(GraphBackend):
    """An ONNX graph in onnxruntime."""

    def __init__(self, path: Path, device: str, interpolation: tuple[str | None, str]) -> None:
        ort = import_optional("onnxruntime", "onnx", "AnomalibDetector")
        data, parsed = _onnx_file.read_graph(path)
        graph = Graph(parsed.nodes, parsed.constants)
        folder = _onnx_file.external_folder(path)
        note = re.search(MODEL_NOTE, data)
        family = note and family_of_class(note[1].decode())
        if family is not None:
            self.family, interpolation = family.name, (interpolation[0], family.interpolation)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
        providers = _onnx_providers(ort, device)

        def session(content: bytes) -> Any:
            try:
                return ort.InferenceSession(content, options, providers=providers)
            except Exception as exc:  # onnxruntime has a class of its own for each reason
                reason = str(exc).splitlines()[0][:300]
                raise ValueError(f"{path} cannot be run by onnxruntime: {reason}") from exc

        self._session = session(data)
        n = len(self._session.get_inputs())
        if n != 1:
            raise ValueError(f"{path} has {n} inputs, not one: it is not an export of anomalib")
        entry = self._session.get_inputs()[0]
        if entry.type not in ("tensor(float)", "tensor(float16)"):
            raise ValueError(f"{path} takes {entry.type}, not images of floating point numbers")
        self._input = entry.name
        self._dtype = np.float16 if entry.type == "tensor(float16)" else np.float32
        shapes = {o.name: [_static(side) for side in o.shape] for o in self._session.get_outputs()}
        super().__init__(
            path,
            graph,
            entry.name,
            [_static(side) for side in entry.shape],
            shapes.get("anomaly_map"),
            interpolation,
        )
        self._outputs, self._unclipped_outputs, found = self._choose_outputs(graph, list(shapes))
        hidden = [name for name in self._unclipped_outputs if name and name not in shapes]
        if hidden:
            # Two protobuf messages in a row are one with the fields of both, so that these bytes
            # add outputs to the graph. ValueInfoProto.name is field 1, GraphProto.output 12, and
            # ModelProto.graph 7.
            added = b"".join(
                _onnx_file.encode(12, _onnx_file.encode(1, n.encode())) for n in hidden
            )
            self._session = session(data + _onnx_file.encode(7, added))
        self._try_out(found)

    def _infer(self, batch: FloatArray, normalized: bool) -> list[Any]:
        names = self._outputs if normalized or not self.unclipped else self._unclipped_outputs
        asked = [name for name in names if name]
        try:
            found = self._session.run(asked, {self._input: batch.astype(self._dtype, copy=False)})
        except Exception as exc:
            raise run_error(self.path, batch, exc) from exc
        values = dict(zip(asked, found, strict=True))
        return [values[name] if name else None for name in names]


def _onnx_providers(ort: Any, device: str) -> list[Any]:
    available = ort.get_available_providers()
    if device == "cpu" or (device == "auto" and "CUDAExecutionProvider" not in available):
        return ["CPUExecutionProvider"]
    if device == "auto" or re.fullmatch(r"cuda(:\d+)?", device):
        if "CUDAExecutionProvider" not in available:
            raise ValueError(
                f"device={device!r} cannot be used: this onnxruntime has {available}; install "
                "onnxruntime-gpu, or use device='cpu'"
            )
        number = int(device.partition(":")[2] or 0)
        return [("CUDAExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]
    raise ValueError(f"device={device!r}: ONNX graphs run on 'auto', 'cpu', 'cuda' or 'cuda:N'")


def _static(side: Any) -> int | None:
    return side if isinstance(side, int) else None


def load_onnx(
    path: PathLike,
    *,
    device: str = "auto",
    interpolation: str | None = None,
    default_interpolation: str = "bilinear",
) -> OnnxBackend:
    """Load an ONNX graph.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    device : str, default="auto"
        "cpu", "cuda", "cuda:N"; "auto" is CUDA where onnxruntime has it.
    interpolation : {"bilinear", "bicubic"} or None, default=None
        How images are resized; None: as the graph resizes.
    default_interpolation : {"bilinear", "bicubic"}, default="bilinear"
        The filter where the graph does not resize either.

    Returns
    -------
    Backend

    Raises
    ------
    ValueError
        When it is damaged, no export of anomalib, or cannot run on that device.
    """
    return OnnxBackend(Path(path), device, (interpolation, default_interpolation))
