"""Run anomalib's OpenVINO graphs with openvino alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skanomaly._optional import import_optional
from skanomaly.anomalib._files import weights_of_openvino
from skanomaly.anomalib._graphs import OUTPUTS, GraphBackend, run_error
from skanomaly.anomalib._raw_scores import Graph

if TYPE_CHECKING:
    from skanomaly._typing import FloatArray, PathLike

# ONNX's names of OpenVINO's operators.
_NAMES = {
    "Select": "Where",
    "Clamp": "Clip",
    "Subtract": "Sub",
    "Multiply": "Mul",
    "Divide": "Div",
    "Interpolate": "Resize",
    "StridedSlice": "Slice",
    "Convert": "Cast",
    "Minimum": "Min",
    "Maximum": "Max",
}


class OpenVINOBackend(GraphBackend):
    """An OpenVINO graph in openvino."""

    def __init__(self, path: Path, device: str, interpolation: tuple[str | None, str]) -> None:
        openvino = import_optional("openvino", "openvino", "AnomalibDetector")
        core = openvino.Core()
        name = "CPU" if device == "auto" else device.upper()
        if name.split(".")[0] not in core.available_devices:
            raise ValueError(
                f"device={device!r}: OpenVINO graphs run on 'auto' (the CPU) or one of "
                f"{[known.lower() for known in core.available_devices]} here"
            )
        try:
            model = core.read_model(str(path), str(weights_of_openvino(path)))
        except RuntimeError as exc:
            reason = " ".join(str(exc).split())[:300]
            raise ValueError(f"{path} is damaged, or no OpenVINO graph: {reason}") from exc
        if len(model.inputs) != 1:
            n = len(model.inputs)
            raise ValueError(f"{path} has {n} inputs, not one: it is not an export of anomalib")
        graph, tensors = _graph_of_openvino(model)
        outputs = {_key(output): output for output in model.outputs}
        entry, heat = model.input(0), outputs.get("anomaly_map")
        super().__init__(
            path,
            graph,
            _key(entry),
            _shape(entry),
            None if heat is None else _shape(heat),
            interpolation,
        )
        self._outputs, self._unclipped_outputs, found = self._choose_outputs(graph, list(outputs))
        hidden = [
            name for name in dict.fromkeys(self._unclipped_outputs) if name and name not in outputs
        ]
        if hidden:
            model.add_outputs([tensors[name] for name in hidden])
        self._numbers = {name: i for i, name in enumerate([*outputs, *hidden])}
        try:
            # The default of some processors, bfloat16, shifts maps by 1%.
            self._model = core.compile_model(model, name, {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as exc:
            reason = " ".join(str(exc).split())[:300]
            raise ValueError(f"{path} cannot be run by OpenVINO on {name}: {reason}") from exc
        # A compiled model has one request, for one thread at a time. Its first use, by two threads
        # at once, would wait forever: trying it out here comes first.
        self._lock = threading.Lock()
        self._try_out(found)

    def _infer(self, batch: FloatArray, normalized: bool) -> list[Any]:
        names = self._outputs if normalized or not self.unclipped else self._unclipped_outputs
        with self._lock:
            try:
                found = self._model({0: batch})
            except RuntimeError as exc:
                raise run_error(self.path, batch, exc) from exc
            return [None if name is None else found[self._numbers[name]].copy() for name in names]


def _graph_of_openvino(model: Any) -> tuple[Graph, dict[str, Any]]:
    """The graph, and its tensors by key."""
    nodes, constants = [], {}
    tensors: dict[str, Any] = {}
    for op in model.get_ordered_ops():
        kind = op.get_type_name()
        outputs = [_key(output) for output in op.outputs()]
        if kind == "Constant":
            if int(np.prod(op.output(0).get_shape())) <= 16:
                constants[outputs[0]] = np.array(op.data)
        elif kind != "Result":
            tensors.update(zip(outputs, op.outputs(), strict=True))
            inputs = [_key(value) for value in op.input_values()]
            mode = ""
            if kind == "Convert" and inputs[0] in constants:  # stored in half precision
                constants[outputs[0]] = constants[inputs[0]]
            if kind == "Interpolate":
                inputs, mode = inputs[:2], op.get_attributes().get("mode", "")
            elif kind == "Clamp":  # its limits are attributes here, and inputs in ONNX
                for limit in ("min", "max"):
                    inputs.append(f"{outputs[0]}/{limit}")
                    constants[inputs[-1]] = np.array(op.get_attributes()[limit])
            nodes.append((_NAMES.get(kind, kind), inputs, outputs, mode))
    return Graph(nodes, constants), tensors


def _key(output: Any) -> str:
    names = output.get_names()
    known = next((name for name in (*OUTPUTS, "pred_label") if name in names), None)
    return known or f"{output.get_node().get_friendly_name()}:{output.get_index()}"


def _shape(output: Any) -> list[int | None]:
    sides = list(output.get_partial_shape())
    return [side.get_length() if side.is_static else None for side in sides]


def load_openvino(
    path: PathLike,
    *,
    device: str = "auto",
    interpolation: str | None = None,
    default_interpolation: str = "bilinear",
) -> OpenVINOBackend:
    """Load an OpenVINO graph.

    Parameters
    ----------
    path : str or os.PathLike
        The .xml file; its .bin file lies beside it.
    device : str, default="auto"
        A device of OpenVINO, such as "cpu" or "gpu.1"; "auto" is the CPU.
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
    return OpenVINOBackend(Path(path), device, (interpolation, default_interpolation))
