"""ONNX Runtime as a runtime of the embedders, on the CPU."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skanomaly._cache import cache_key
from skanomaly._networks.conversion import (
    check_conversion,
    conversion_parts,
    converting,
    load_or_convert,
)
from skanomaly._networks.network import Network
from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch

_USER = "runtime='onnx'"


def onnx_session(
    network: Network, shape: Sequence[int], dtype: str
) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """A function that runs a network in ONNX Runtime.

    Parameters
    ----------
    network : Network
        In float32, on the CPU.
    shape : sequence of int
        ``(B, 3, height, width)`` of the inputs, of which B may change.
    dtype : {"float32", "int8"}
        Precision. In int8 products with matrices of weights are so, the rest is in float32.

    Returns
    -------
    callable
        From a (B, 3, height, width) float32 tensor to a list of (B, dim, grid_h, grid_w) tensors.
    """
    ort = import_optional("onnxruntime", "onnx", _USER)
    torch = import_optional("torch", "torch", _USER)
    ort.disable_telemetry_events()
    n_threads = torch.get_num_threads()
    parts = {"runtime": "onnx", **conversion_parts(network, shape[1:])}

    def build() -> Callable[[Any], list[Any]]:
        def exported() -> bytes:
            return _file(ort, parts, lambda: _export(network, shape))

        if dtype == "int8":
            form = {**parts, "form": "int8", "version": ort.__version__}
            file = _file(ort, form, lambda: _quantize(exported(), network.name))
        else:
            file = exported()
        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.log_severity_level = 3
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (name,) = (item.name for item in session.get_inputs())

        def run(x: Any) -> list[Any]:
            # One image at a time: the exported shape is that of one, and batches gain nothing.
            outputs = [session.run(None, {name: image.numpy()}) for image in x.split(1)]
            by_map = zip(*outputs, strict=True)
            return [torch.cat([torch.from_numpy(m) for m in maps]) for maps in by_map]

        check_conversion(run, network, shape, "onnx", dtype)
        return run

    return network.model.derived((cache_key(**parts), dtype, n_threads), build)


def _file(ort: Any, parts: dict[str, object], convert: Callable[[], bytes]) -> bytes:
    """The bytes of an ONNX file, from disk if it is there."""

    def load(folder: Path) -> bytes:
        data = (folder / "model.onnx").read_bytes()
        ort.InferenceSession(data, providers=["CPUExecutionProvider"])  # raises if it is damaged
        return data

    return load_or_convert(
        parts, convert, lambda data, folder: (folder / "model.onnx").write_bytes(data), load
    )


def _export(network: Network, shape: Sequence[int]) -> bytes:
    """The network as the bytes of an ONNX file."""
    file = io.BytesIO()
    with converting(network, shape, "onnx") as (module, example):
        export_program(module, example, _USER).save(file)
    return file.getvalue()


def export_program(module: Any, example: Any, user: str, **options: Any) -> Any:
    """A module of torch as a program of ONNX.

    Parameters
    ----------
    module : torch.nn.Module
        What to convert.
    example : torch.Tensor
        An input of it.
    user : str
        What needs it, for the error where a library is missing.
    **options
        More arguments of :func:`torch.onnx.export`.

    Returns
    -------
    torch.onnx.ONNXProgram
    """
    exporter = import_optional("torch.onnx", "torch", user)
    for needed in ("onnx", "onnxscript"):
        import_optional(needed, "onnx", user)
    logger = logging.getLogger("onnxscript")  # which warns of constants that it does not fold
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            return exporter.export(module, (example,), dynamo=True, verbose=False, **options)
    finally:
        logger.setLevel(level)


def _quantize(data: bytes, name: str) -> bytes:
    """int8, the ranges of its inputs being those of each image."""
    onnx = import_optional("onnx", "onnx", "dtype='int8'")
    quantization = import_optional("onnxruntime.quantization", "onnx", "dtype='int8'")
    logger = logging.getLogger()

    def keep(record: logging.LogRecord) -> bool:
        # All but its advice to simplify the graph, which gains nothing.
        return "pre-processing before quantization" not in record.getMessage()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        logger.addFilter(keep)
        try:
            quantization.quantize_dynamic(
                onnx.load_from_string(data),
                path,
                op_types_to_quantize=["MatMul", "Gemm"],  # convolutions would be slower
                per_channel=True,
                reduce_range=True,  # 8 bits overflow on processors without VNNI
                weight_type=quantization.QuantType.QInt8,
            )
        finally:
            logger.removeFilter(keep)
        quantized = path.read_bytes()
    graph = onnx.load_from_string(quantized).graph
    if not any(node.op_type == "MatMulInteger" for node in graph.node):
        raise ValueError(
            "dtype='int8' with runtime='onnx' is for products of matrices, of which "
            f"{name} has none; use dtype='float32'"
        )
    return quantized
