"""Networks in a graph: that of the package itself, and those of torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from skanomaly._networks.network import Network
from skanomaly._networks.onnx import export_program
from skanomaly._optional import import_optional
from skanomaly.core.tiny_network import Convolution, TinyNetwork
from skanomaly.deployment._graph import OPSET, Graph

_USER = "an exported model"
# The least cosine between a token of the graph and the same of torch.
_LEAST_COSINE = 1 - 1e-5


def tiny_network_tokens(graph: Graph, x: str, network: TinyNetwork, grid: int) -> str:
    """Add the nodes of :func:`skanomaly.core.tiny_network.tiny_tokens`.

    Parameters
    ----------
    graph : Graph
    x : str
        Of float32 (batch, 3, height, width): grey levels from 0 to 255, of sides that are multiples
        of a patch.
    network : TinyNetwork
    grid : {16, 32}
        Patches along 256 pixels.

    Returns
    -------
    str
        Of float32 (batch, grid_h, grid_w, dim).
    """
    x = graph.op("Mul", x, graph.constant(np.float32(4 / 255)))
    x = graph.op("Sub", x, graph.constant(np.float32(2)))
    for layer in network.stem:
        x = graph.op("Relu", _convolved(graph, x, layer))
    for reduce, spatial, expand in network.body:
        inner = graph.op("Relu", _convolved(graph, x, reduce))
        inner = graph.op("Relu", _convolved(graph, inner, spatial))
        x = graph.op("Relu", graph.op("Add", x, _convolved(graph, inner, expand)))
    if grid == 16:
        x = graph.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    else:
        x = graph.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0)
    return graph.op("Transpose", _convolved(graph, x, network.head), perm=[0, 2, 3, 1])


def _convolved(graph: Graph, x: str, layer: Convolution) -> str:
    weight = layer.weight.reshape(layer.side, layer.side, layer.n_inputs, layer.n_outputs)
    return graph.op(
        "Conv",
        x,
        graph.constant(np.ascontiguousarray(weight.transpose(3, 2, 0, 1))),
        graph.constant(layer.bias),
        strides=[layer.stride] * 2,
        dilations=[layer.dilation] * 2,
        pads=[layer.padding] * 4,
    )


def torch_network_tokens(graph: Graph, x: str, network: Network, size: tuple[int, int]) -> str:
    """Add the nodes of a network of torch, with its normalisation and the fusion of its layers.

    Parameters
    ----------
    graph : Graph
    x : str
        Of float32 (batch, 3, height, width): grey levels from 0 to 255.
    network : Network
        In float32.
    size : tuple of int
        ``(height, width)``.

    Returns
    -------
    str
        Of float32 (batch, grid_h, grid_w, dim).

    Raises
    ------
    ValueError
        When torch cannot convert the network, or what it makes of it gives other tokens.
    """
    mean, std = (
        graph.constant(np.array(values, dtype=np.float32).reshape(-1, 1, 1))
        for values in (network.preprocessing.mean, network.preprocessing.std)
    )
    x = graph.op("Div", x, graph.constant(np.float32(255)))
    x = graph.op("Div", graph.op("Sub", x, mean), std)
    model = exported_network(network, size)
    (tokens,) = graph.include(model, {model.graph.input[0].name: x})
    return tokens


def exported_network(network: Network, size: tuple[int, int]) -> Any:
    """A network of torch as a model of ONNX, for batches of any length.

    Parameters
    ----------
    network : Network
        In float32.
    size : tuple of int
        ``(height, width)`` of its inputs.

    Returns
    -------
    onnx.ModelProto
        From normalised images, float32 (batch, 3, height, width), to tokens, float32
        (batch, grid_h, grid_w, dim).

    Raises
    ------
    ValueError
        When torch cannot convert the network, or what it makes of it gives other tokens.
    """
    torch = import_optional("torch", "torch", _USER)

    class Tokens(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.module = network.model.sized(*size)  # held so that its weights are found

        def forward(self, x: Any) -> Any:
            fused = network.fuse(network.forward(network.model, x))
            return fused.permute(0, 2, 3, 1).contiguous()

    module = Tokens().eval()
    # Of two images: what is true of one alone would be taken for true of all batches.
    random = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    example = torch.from_numpy(random).to(next(module.parameters()).device)
    with torch.no_grad():
        expected = module(example).cpu().numpy()  # an error of its own is none of the converter's
        try:
            batch = {0: torch.export.Dim("batch")}
            program = export_program(
                module, example, _USER, dynamic_shapes=(batch,), opset_version=OPSET
            )
        except Exception as exc:
            reason = " ".join(str(exc).split())[:300]
            raise ValueError(
                f"torch cannot convert {network.name} to ONNX ({type(exc).__name__}: {reason}); "
                "export a pipeline with another model"
            ) from exc
    model = program.model_proto
    _check(model, network, random, expected)
    return model


def _check(model: Any, network: Network, x: np.ndarray, expected: np.ndarray) -> None:
    """ValueError where ONNX Runtime does not get from a model what torch gets."""
    ort = import_optional("onnxruntime", "onnx", _USER)
    (domain,) = model.opset_import
    if domain.domain or domain.version != OPSET or model.functions:
        raise ValueError(
            f"torch converts {network.name} to operations of {domain.domain or 'ONNX'} "
            f"{domain.version}, not of ONNX {OPSET}; install another version of torch"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, {model.graph.input[0].name: x[:1]})[0]
    one, other = found.astype(np.float64), expected[:1].astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosine = (one * other).sum(axis=-1) / np.where(lengths > 0, lengths, 1)
    if np.median(cosine) < _LEAST_COSINE:
        raise ValueError(
            f"{network.name}, converted to ONNX, gives other tokens than torch: a median cosine "
            f"of {np.median(cosine):.6f}; export a pipeline with another model"
        )
