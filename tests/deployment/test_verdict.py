"""Aggregation, decision and p-value in a graph against the functions that they stand for."""

import numpy as np
import onnxruntime
import pytest

from skanomaly._patch_tokens import fill_masked
from skanomaly.core.aggregation import aggregate_patch_scores
from skanomaly.core.calibration import conformal_p_values
from skanomaly.deployment._graph import Graph
from skanomaly.deployment._verdict import aggregated, conformal, decided, filled

pytest.importorskip("onnx")


def run(build, **inputs):
    """The output of a graph of some inputs, which `build` makes."""
    graph = Graph()
    names = [graph.input(k, v.dtype, ["batch", *v.shape[1:]]) for k, v in inputs.items()]
    value, dtype, shape = build(graph, *names)
    graph.output(value, "out", dtype, shape)
    session = onnxruntime.InferenceSession(graph.model({}).SerializeToString())
    return session.run(["out"], inputs)[0]


@pytest.mark.parametrize(
    ("aggregation", "topk"),
    [
        ("topk_mean", 0.01),
        ("topk_mean", 0.29),
        ("topk_mean", 1.0),
        ("topk_mean", 7),
        ("max", 0.01),
        ("mean", 0.01),
        (0.0, 0.01),
        (0.37, 0.01),
        (1.0, 0.01),
        (1, 0.01),
    ],
)
def test_aggregated(aggregation, topk):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(6, 40)).astype(np.float32)
    valid = rng.uniform(size=scores.shape) < np.array([[1, 0.9, 0.5, 0.5, 0.3, 1]]).T
    scores[~valid] = np.nan

    def build(graph, x, known):
        return aggregated(graph, x, known, 40, aggregation, topk), np.float64, ["batch"]

    found = run(build, x=scores, known=valid)
    expected = [
        aggregate_patch_scores(s[v], aggregation, topk) for s, v in zip(scores, valid, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_filled():
    scores = np.array([[1, 2, 3], [-1, -2, -3]], dtype=np.float32)
    valid = np.array([[True, False, True]] * 2)

    def build(graph, x, known):
        return filled(graph, x, known), np.float32, ["batch", 3]

    found = run(build, x=scores, known=valid)
    masked = np.where(valid, scores, np.nan)
    np.testing.assert_array_equal(found, [fill_masked(row) for row in masked])


def test_decision_is_that_of_the_last_bit():
    offset = -0.1
    scores = np.array([offset, np.nextafter(offset, -1), np.nextafter(offset, 1), np.nan, -np.inf])

    def build(graph, x):
        return decided(graph, x, offset), np.int64, ["batch"]

    # What has no score is not called good.
    assert run(build, x=scores).tolist() == [1, -1, 1, -1, -1]


@pytest.mark.parametrize("groups", [None, [0, 0, 0, 1, 1, 2, 3, 3, 3, 3]])
def test_conformal(groups):
    rng = np.random.default_rng(0)
    train_scores = rng.normal(size=10)
    scores = np.concatenate([rng.normal(size=20), train_scores, [-9.0, 9.0]])

    def build(graph, x):
        known = None if groups is None else np.array(groups)
        return conformal(graph, x, train_scores, known), np.float64, ["batch"]

    expected = conformal_p_values(train_scores, scores, groups)
    np.testing.assert_allclose(run(build, x=scores), expected, rtol=1e-14)
