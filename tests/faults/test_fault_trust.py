"""Rows of the fault matrix about hostile files: what SECURITY.md promises, each with a payload."""

import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import skops.io
from _fault_models import GOOD, fitted, row_marks
from _fault_table import Table
from _model_files import changed_manifest, members_of, write_signed
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skanomaly import (
    AnomalibDetector,
    PatchKNNScorer,
    TimmPatches,
    load_model,
    save_model,
)

ORDER = 12
TABLE = Table(
    "trust",
    "Hostile files",
    "These tests check what [SECURITY.md](../SECURITY.md) promises. Each file here contains\n"
    "something that would leave a trace if it ran, led out of its folder, or filled the memory.",
)
REFUSED = "it is refused, and nothing of it runs"
IGNORED = pytest.mark.filterwarnings("ignore::skanomaly.persistence.ModelTrustWarning")


class Payload:
    """What runs when it is unpickled: it makes a folder."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def model(here):
    save_model(fitted(), here / "model.skan")
    return here / "model.skan"


@TABLE.row("payload", "the payload itself, unpickled", "it runs: so the rows below can fail")
def _(here):
    pickle.loads(pickle.dumps(Payload(here / "ran")))
    assert (here / "ran").is_dir()


# ---------------------------------------------------------------- model files


@TABLE.row(
    "model-{kind}",
    "`load_model` of {kind} with a payload",
    REFUSED,
    kind={"pickle": "a pickle", "zip": "a zip archive with a pickle"},
)
def _(here, kind):
    path, data = here / "model.skan", pickle.dumps(Payload(here / "ran"))
    if kind == "zip":
        write_signed(path, [("manifest.json", b"{}"), ("estimator.pkl", data)])
    else:
        path.write_bytes(data)
    with pytest.raises(ValueError, match="not a model file of skanomaly|not as skanomaly writes"):
        load_model(path)
    assert not (here / "ran").exists()


@TABLE.row(
    "model-objects", "a model file with an array of Python objects, a payload among them", REFUSED
)
def _(here):
    path, data = model(here), io.BytesIO()
    np.save(data, np.array([Payload(here / "ran")], dtype=object), allow_pickle=True)
    write_signed(path, {**members_of(path), "arrays/00000.npy": data.getvalue()}.items())
    with pytest.raises(ValueError, match="not as skanomaly writes model files"):
        load_model(path)
    assert not (here / "ran").exists()


@TABLE.row(
    "model-function-{name}",
    "a model file that names the function `{name}`",
    "`TypeError`: “not trusted”, with its name; it is not called",
    (IGNORED,),
    name=["os.system", "eval", "subprocess.run", "numpy.save", "shutil.rmtree"],
)
def _(here, name):
    import builtins
    import importlib

    module, _, attribute = name.rpartition(".")
    function = getattr(importlib.import_module(module) if module else builtins, attribute)
    step = FunctionTransformer(function, kw_args={"a": 1})
    save_model(make_pipeline(step, PatchKNNScorer()), here / "model.skan")
    with pytest.raises(TypeError, match=f"not trusted: .*{attribute}"):
        load_model(here / "model.skan")


class Stranger(FunctionTransformer):
    """A class that nobody named."""


@TABLE.row(
    "model-class",
    "a model file with a class of somebody else's",
    "`TypeError`: “not trusted”, with its name, until the caller names it",
    (IGNORED,),
)
def _(here):
    save_model(make_pipeline(Stranger(), PatchKNNScorer()), here / "model.skan")
    with pytest.raises(TypeError, match="not trusted: .*Stranger"):
        load_model(here / "model.skan")
    name = f"{Stranger.__module__}.Stranger"
    assert type(load_model(here / "model.skan", trusted=[name])[0]).__name__ == "Stranger"


@TABLE.row(
    "model-path-{name}",
    "a model file with a member named `{name}`",
    "`ValueError`; no file is made anywhere",
    name=["../../evil.npy", "/etc/evil", "arrays/../x.npy", "weights/evil", "C:\\x"],
)
def _(here, name):
    path = model(here)
    write_signed(path, [*members_of(path).items(), (name, b"evil")])
    before = sorted(here.parent.rglob("*"))
    with pytest.raises(ValueError, match="not as skanomaly writes model files"):
        load_model(path)
    assert sorted(here.parent.rglob("*")) == before


@TABLE.row(
    "model-bomb-{kind}",
    "a model file of {kind}",
    "`ValueError`; no memory is taken",
    kind={
        "deflated": "zeros that are compressed a thousand times",
        "array": "an array that claims 8 TB",
        "manifest": "a manifest that never ends",
    },
)
def _(here, kind):
    path = model(here)
    members = members_of(path)
    if kind == "deflated":
        write_signed(
            path, [*members.items(), ("arrays/00099.npy", bytes(2**26))], zipfile.ZIP_DEFLATED
        )
    elif kind == "array":
        data = io.BytesIO()
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(data, header)
        write_signed(path, {**members, "arrays/00000.npy": data.getvalue()}.items())
    else:
        changed_manifest(path, versions=None)
        members = members_of(path)
        members["manifest.json"] = b"[" * 100_000
        write_signed(path, members.items())
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="not as skanomaly writes|not a model file"):
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


@TABLE.row(
    "model-trust",
    "a model file whose detector says `trust=True`",
    "the file does not decide that: `trust` is False",
    (IGNORED,),
)
def _(here):
    detector = AnomalibDetector("model.pt", trust=True)
    detector._file = "model.pt", "0" * 64  # else its digest is asked for
    path = model(here)
    tree = skops.io.dumps(FunctionTransformer(kw_args={"hidden": detector}))
    write_signed(path, {**members_of(path), "estimator.skops": tree}.items())
    assert load_model(path).kw_args["hidden"].trust is False


# ---------------------------------------------------------------- weights, checkpoints, graphs


def torch_file(path, content):
    """A file as torch.save writes one, with any pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
        archive.writestr("archive/version", b"3\n")
    return path


@TABLE.row(
    "weights-{suffix}-{kind}",
    "weights in a `{suffix}` file that is {kind} with a payload",
    REFUSED,
    row_marks("torch", "timm"),
    suffix=["pth", "pt", "bin"],
    kind={"pickle": "a pickle", "zip": "an archive of torch"},
)
def _(here, suffix, kind):
    path, thing = here / f"model.{suffix}", Payload(here / "ran")
    if kind == "zip":
        torch_file(path, {"state_dict": thing})
    else:
        path.write_bytes(pickle.dumps(thing))
    with pytest.raises(ValueError, match=f"model.{suffix} could not be read as plain tensors"):
        TimmPatches("test_vit", weights=path, device="cpu").transform(GOOD[:1])
    assert not (here / "ran").exists()


@TABLE.row(
    "weights-renamed",
    "a pickle with a payload, named `.safetensors`",
    REFUSED,
    row_marks("torch", "timm"),
)
def _(here):
    path = here / "model.safetensors"
    path.write_bytes(pickle.dumps(Payload(here / "ran")))
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        TimmPatches("test_vit", weights=path, device="cpu").transform(GOOD[:1])
    assert not (here / "ran").exists()


@TABLE.row(
    "checkpoint-{suffix}-trust-{trust}",
    "a checkpoint of anomalib in a `{suffix}` file that is a payload, `trust={trust}`",
    REFUSED + ", trusted or not: it is none",
    row_marks("torch"),
    suffix=["ckpt", "pt"],
    trust=[False, True],
)
def _(here, suffix, trust):
    for number, write in enumerate((torch_file, lambda p, c: p.write_bytes(pickle.dumps(c)))):
        path = here / f"model{number}.{suffix}"
        write(path, {"weights": Payload(here / "ran")})
        with pytest.raises(ValueError, match=path.name):
            AnomalibDetector(path, trust=trust).score_samples(GOOD[:1])
    assert not (here / "ran").exists()


def graph_with_outside_data(here, location):
    """An ONNX graph whose weights lie in a file that it names."""
    import onnx

    helper = onnx.helper
    weight = onnx.TensorProto()
    weight.name, weight.data_type = "weight", onnx.TensorProto.FLOAT
    weight.dims.extend([4])
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    nodes = [
        helper.make_node("ReduceSum", ["weight"], ["sum"], keepdims=0),
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Add", ["mean", "sum"], ["pred_score"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "outside",
        [value("input", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [value("pred_score", onnx.TensorProto.FLOAT, ["n"])],
        [weight],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = here / "inside" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(made.SerializeToString())
    return path


@TABLE.row(
    "graph-{kind}",
    "an ONNX graph whose weights lie at {kind}",
    "an error that names the file; what lies there is not read",
    row_marks("onnx", "onnxruntime"),
    kind={
        "parent": "`../secret.bin`",
        "absolute": "an absolute path",
        "link": "a link out of its folder",
    },
)
def _(here, kind):
    secret = here / "secret.bin"
    secret.write_bytes(np.full(4, 7, np.float32).tobytes())
    location = {"parent": "../secret.bin", "absolute": str(secret), "link": "link.bin"}[kind]
    path = graph_with_outside_data(here, location)
    (path.parent / "link.bin").symlink_to(secret)
    with pytest.raises(Exception, match="secret.bin|link.bin|external") as info:
        AnomalibDetector(path).score_samples(GOOD[:1])
    assert isinstance(info.value, (ValueError, RuntimeError))


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
