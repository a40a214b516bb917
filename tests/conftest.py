"""Fixtures that several test modules share, and how tests share the processor."""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest

# Uses that a type checker reads and nobody runs, and fixtures and helpers, which hold no doctest.
# No glob: its stars match folders too, and would leave out tests/_images and tests/_networks.
collect_ignore = [
    "typing",
    "conftest.py",
    "anomalib_models/conftest.py",
    "registry/conftest.py",
    *(path.name for path in Path(__file__).parent.glob("_*.py")),
]

# OpenVINO asks the processor what it can do, and its oneDNN this variable: where they disagree it
# compiles nothing ("bad combination"). Its tests are skipped as where it is not installed.
if os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper() not in ("DEFAULT", "ALL"):
    sys.modules["openvino"] = None

MOST_WORKERS = 8  # each imports torch, and takes a gigabyte with it


def n_cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which `-p no:xdist` leaves out
def pytest_xdist_auto_num_workers(config):
    """Processes of `pytest -n auto`."""
    return min(n_cores(), MOST_WORKERS)


# Workers share the threads: two that take every core each wait for each other. Set here, before
# NumPy and torch are imported, and for the processes that tests start.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_variable, str(max(1, n_cores() // _WORKERS)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep in one worker what shares a costly fixture: a file, or a family of anomalib's models."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            family = re.match(r"tests/anomalib_models/.*\[([a-z]\w+)[-\]]", nodeid)
            return f"anomalib {family[1]}" if family else super()._split_scope(nodeid)

    return Scheduling(config, log)


# What the examples of docstrings need, by their modules; without it they are skipped.
EXAMPLES_NEED = {
    "skanomaly.embedders._dinov2": ("torch", "timm"),
    "skanomaly.embedders._openclip": ("torch", "open_clip"),
    "skanomaly.embedders._timm": ("torch", "timm"),
    "skanomaly.streaming._files": ("pyarrow",),
}


def pytest_collection_modifyitems(items):
    """Skip the examples that need an extra which is not installed."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            for library in EXAMPLES_NEED.get(item.name.rpartition(".")[0], ()):
                if importlib.util.find_spec(library) is None:
                    item.add_marker(pytest.mark.skip(reason=f"needs {library}"))


@pytest.fixture(autouse=True)
def registered_names():
    """What a test registers is known to no other test, nor to an example."""
    from skanomaly.registry._table import EMBEDDERS, SCORERS

    before = [(table, dict(table)) for table in (SCORERS, EMBEDDERS)]
    yield
    for table, names in before:
        table.clear()
        table.update(names)


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
