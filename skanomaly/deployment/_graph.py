"""A graph of ONNX, written one operation after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from skanomaly._optional import import_optional

OPSET = 18


class Graph:
    """Nodes and constants of a graph of ONNX, as they come.

    Values are known by their names: what :meth:`input`, :meth:`constant` and :meth:`op` return is
    the name to give to the next operation.

    Examples
    --------
    >>> import numpy as np
    >>> from skanomaly.deployment._graph import Graph
    >>> graph = Graph()
    >>> x = graph.input("x", np.float32, ["batch", 3])
    >>> doubled = graph.op("Mul", x, graph.constant(np.float32(2)))
    >>> graph.output(doubled, "y", np.float32, ["batch", 3])
    >>> [node.op_type for node in graph.model({"made": "here"}).graph.node]
    ['Mul', 'Identity']
    """

    def __init__(self) -> None:
        self._onnx = import_optional("onnx", "onnx", "an exported model")
        self._nodes: list[Any] = []
        self._constants: dict[tuple[Any, ...], Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._n = 0

    def input(self, name: str, dtype: Any, shape: list[int | str]) -> str:
        """An input; sizes that may change have a name in place of a number."""
        self._inputs.append(self._value(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: Any, shape: list[int | str]) -> None:
        """Hand a value out under a name."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._value(name, dtype, shape))

    def constant(self, array: Any) -> str:
        """An array that is part of the graph; the same array is kept once."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes() if array.size < 4096 else id(array))
        if key not in self._constants:
            made = self._onnx.numpy_helper.from_array(
                np.ascontiguousarray(array).reshape(array.shape), self.name("constant")
            )
            self._constants[key] = (made, array)  # held, so that its id stays its own
        return str(self._constants[key][0].name)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The only output of an operation; an input that is left out is an empty name."""
        return self.ops(kind, *inputs, n_outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, n_outputs: int, **attributes: Any) -> list[str]:
        """All outputs of an operation."""
        outputs = [self.name(kind.lower()) for _ in range(n_outputs)]
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), outputs, **attributes))
        return outputs

    def include(self, model: Any, inputs: dict[str, str]) -> list[str]:
        """The nodes of another model, with its inputs taken from values here; its outputs."""
        prefix = self.name("part") + "/"
        model = self._onnx.compose.add_prefix(model, prefix)
        self._nodes += [
            self._onnx.helper.make_node("Identity", [inputs[i.name[len(prefix) :]]], [i.name])
            for i in model.graph.input
        ]
        self._nodes += model.graph.node
        for tensor in model.graph.initializer:
            self._constants[(tensor.name,)] = (tensor, None)
        return [output.name for output in model.graph.output]

    def name(self, of: str) -> str:
        """A name that no other value has."""
        self._n += 1
        return f"{of}_{self._n}"

    def model(self, metadata: dict[str, str]) -> Any:
        """The finished ModelProto, checked.

        Parameters
        ----------
        metadata : dict of str to str
            Kept in the file.
        """
        helper = self._onnx.helper
        tensors = [tensor for tensor, _ in self._constants.values()]
        graph = helper.make_graph(self._nodes, "skanomaly", self._inputs, self._outputs, tensors)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], producer_name="skanomaly")
        model.ir_version = min(model.ir_version, 10)  # what onnxruntime of these years reads
        helper.set_model_props(model, metadata)
        self._onnx.checker.check_model(model)
        return model

    @property
    def n_bytes(self) -> int:
        """What the constants take, of which a file is made for the most part."""
        return sum(tensor.ByteSize() for tensor, _ in self._constants.values())

    def _value(self, name, dtype, shape):
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, kind, shape)
