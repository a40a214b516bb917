"""Find, in an exported graph, what its post-processor was given: the scores before clipping.

anomalib exports ``clip((raw - threshold) / range + 0.5, 0, 1)``: most defects then score exactly 1.
The unclipped tensor is still in the graph, and the threshold with it. The functions here work on
any graph given as a :class:`Graph`, whatever library read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

_RESHAPES = ("Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze")
_CROPS = ("Slice", "Gather", "StridedSlice")


@dataclass
class Graph:
    """Nodes of a computation, by ONNX's names of operators.

    Attributes
    ----------
    nodes : list of tuple
        ``(operator, inputs, outputs, mode)`` in order; tensors are strings.
    constants : dict of str to ndarray
        The small constants.
    producer : dict of str to tuple
        Tensor -> ``(operator, inputs)`` of the node that makes it.
    """

    nodes: list[tuple[str, list[str], list[str], str]]
    constants: dict[str, Any]
    producer: dict[str, tuple[str, list[str]]] = field(init=False)

    def __post_init__(self) -> None:
        self.producer = {
            name: (operator, inputs)
            for operator, inputs, outputs, _ in self.nodes
            for name in outputs
        }

    def node(self, name: str) -> tuple[str, list[str]]:
        """Operator and inputs that make a tensor; empty for inputs and constants."""
        return self.producer.get(name, ("", []))

    def scalar(self, name: str) -> float | None:
        """Value of a constant of one element, else None."""
        array = self.constants.get(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


@dataclass(frozen=True)
class Normalization:
    """How an output depends on the tensor it was normalised from.

    Attributes
    ----------
    source : str
        The tensor before normalisation; the output itself where nothing is clipped.
    scale, shift : float
        The output is ``clip(scale * source + shift, 0, 1)``. NaN where anomalib had nothing to
        normalise by; the output is then `source`.
    """

    source: str
    scale: float = 1.0
    shift: float = 0.0


def find_normalization(graph: Graph, output: str) -> Normalization | None:
    """What an output of an exported graph was before its post-processor.

    Parameters
    ----------
    graph : Graph
        The graph.
    output : str
        Its ``pred_score`` or ``anomaly_map``.

    Returns
    -------
    Normalization or None
        None when the output is limited in a way that is not anomalib's. Where anomalib's own steps
        cannot be told from the model's, because an optimiser has merged them, `source` is what is
        clipped: the normalised score, without its limits.
    """
    clip = _clip_of(graph, output)
    operator, inputs = graph.node(output)
    if operator == "Where" and graph.scalar(inputs[0]) == 0:  # anomalib knew no range
        return Normalization(inputs[2], np.nan, np.nan)
    if clip is None:
        return None if operator in ("Min", "Max") else Normalization(output)
    name, *limits = graph.node(clip)[1]
    if [graph.scalar(limit) for limit in limits] not in ([], [0, 1]):
        return Normalization(output)  # the model's own limits
    source = None
    if operator == "Where" and _clip_of(graph, inputs[2]) is None:
        source = inputs[2]
    return _affine(graph, name, source) or Normalization(name)


def _clip_of(graph: Graph, name: str) -> str | None:
    """The clipped tensor among those that an output is selected from."""
    operator, inputs = graph.node(name)
    if operator == "Clip":
        return name
    if operator == "Where":
        found = [_clip_of(graph, branch) for branch in inputs[1:]]
        return next((clip for clip in found if clip is not None), None)
    return None


def _affine(graph: Graph, name: str, source: str | None) -> Normalization | None:
    """A tensor as the scaled and shifted `source`, or as what anomalib's three steps start from."""
    scale, shift = 1.0, 0.0
    steps: list[str] = []
    while name != source and (source is not None or len(steps) < 3):
        operator, inputs = graph.node(name)
        value = graph.scalar(inputs[1]) if len(inputs) == 2 else None
        if value is None or operator not in ("Add", "Sub", "Mul", "Div"):
            return None
        if operator in ("Add", "Sub"):
            shift += scale * (value if operator == "Add" else -value)
        else:
            scale *= value if operator == "Mul" else 1 / value if value else np.nan
        name = inputs[0]
        steps.append(operator)
    if source is None and steps != ["Add", "Div", "Sub"]:
        return None
    return Normalization(name, scale, shift)


def threshold_of(graph: Graph, label: str) -> float | None:
    """The normalised threshold an exported graph compares its ``pred_label`` with, or None."""
    operator, inputs = graph.node(label)
    return graph.scalar(inputs[1]) if operator == "Greater" else None


@dataclass(frozen=True)
class InputStep:
    """The graph's own resizing of its input.

    Attributes
    ----------
    size : tuple of int
        Height and width that it resizes to.
    interpolation : {"bilinear", "bicubic"}
        Its filter.
    cropped : bool
        Whether it then takes a crop.
    """

    size: tuple[int, int]
    interpolation: str
    cropped: bool


def find_resize(graph: Graph, input_name: str) -> InputStep | None:
    """The resizing, and the crop, that an exported graph begins with.

    Parameters
    ----------
    graph : Graph
        The graph.
    input_name : str
        Its input.

    Returns
    -------
    InputStep or None
        None when it begins otherwise.
    """
    same, resized = {input_name}, set()
    step: InputStep | None = None
    for operator, inputs, outputs, mode in graph.nodes:
        if not inputs:
            continue
        if operator in _RESHAPES and inputs[0] in same:
            same.add(outputs[0])
        elif step is None and operator == "Resize" and inputs[0] in same:
            size = _sides(graph, inputs[-1])
            if size is None:
                return None
            step = InputStep(size, "bicubic" if mode == "cubic" else "bilinear", False)
            resized.add(outputs[0])
        elif operator in _RESHAPES and inputs[0] in resized:
            resized.add(outputs[0])
        elif step is not None and operator in _CROPS and inputs[0] in resized:
            return InputStep(step.size, step.interpolation, True)
    return step


def _sides(graph: Graph, name: str) -> tuple[int, int] | None:
    array = graph.constants.get(name)
    operator, inputs = graph.node(name)
    if array is None and operator == "Concat":
        array = graph.constants.get(inputs[-1])
    if array is None or array.size < 2:
        return None
    height, width = (int(side) for side in array.reshape(-1)[-2:])
    return height, width
