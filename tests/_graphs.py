"""Graphs of tests, as functions."""

import numpy as np
import pytest

from skanomaly.deployment._graph import Graph


def function_of(write, *inputs, n_axes=4):
    """What a graph computes: ``write(graph, *names)`` returns the name of its output.

    `inputs` are (name, dtype, shape), and `n_axes` is how many the output has.
    """
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    graph = Graph()
    names = [graph.input(*described) for described in inputs]
    output = write(graph, *names)
    graph.output(output, "out", np.float32, [f"n{axis}" for axis in range(n_axes)])
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(graph.model({}).SerializeToString(), options)
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0]
