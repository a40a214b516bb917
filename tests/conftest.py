"""Fixtures that several test modules share."""

import json
import os
from pathlib import Path

import pytest

collect_ignore = ["typing"]  # uses that are read by a type checker, never run


@pytest.fixture(scope="session")
def shared():
    """Folder of real images and weights that lies beside the project."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SKANOMALY_SHARED", default))
    if not (folder / "data").is_dir():
        pytest.skip(f"real images and weights are not at {folder} (set SKANOMALY_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """Name of an open_clip model of few weights."""
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 64,
            "head_width": 32,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }
    path = tmp_path_factory.mktemp("clip") / "skanomaly-tiny.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return path.stem


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory):
    """Image detector as anomalib exports one: the map is the brightness, the score its maximum."""
    onnx = pytest.importorskip("onnx")
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            node("ReduceMean", ["input"], ["anomaly_map"], axes=[1], keepdims=1),
            node("ReduceMax", ["anomaly_map"], ["pred_score"], axes=[1, 2, 3], keepdims=0),
        ],
        "brightness",
        [value("input", onnx.TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [
            value("pred_score", onnx.TensorProto.FLOAT, ["batch"]),
            value("anomaly_map", onnx.TensorProto.FLOAT, ["batch", 1, 64, 64]),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def anomalib_checkpoints(tmp_path_factory):
    """Tiny checkpoints of anomalib's families, each trained when it is first asked for."""
    pytest.importorskip("anomalib")
    pytest.importorskip("open_clip")
    from _anomalib_tiny import TinyCheckpoints, small_networks, third_party

    folder = tmp_path_factory.mktemp("anomalib")
    with third_party():
        networks = small_networks(folder)
        networks.__enter__()
    yield TinyCheckpoints(folder)
    networks.__exit__(None, None, None)
