"""Rows of the fault matrix about model files and weights that are damaged, newer or none."""

import functools
import json
import os
import pickle

import joblib
import numpy as np
import pytest
from _fault_models import GOOD, fitted, row_marks, saved
from _fault_table import Table
from _model_files import changed_manifest, members_of, write_signed
from safetensors.numpy import save_file

from skanomaly import TimmPatches, load_model, model_manifest, save_model
from skanomaly.persistence import ModelVersionWarning

ORDER = 6
TABLE = Table(
    "files",
    "Model files and weights",
    "A file is read completely or not at all.",
)


@functools.cache
def model_bytes():
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save_model(fitted(), f"{folder}/model.skan")
        with open(f"{folder}/model.skan", "rb") as file:
            return file.read()


def model(here, data=None):
    path = here / "model.skan"
    path.write_bytes(model_bytes() if data is None else data)
    return path


# ---------------------------------------------------------------- model files


def bad_model(id, given, error, says, make):
    """Refused by both readers, by its path; nothing else is made in the folder."""

    def check(here):
        path = make(here)
        before = sorted(os.listdir(here))
        for read in (model_manifest, load_model):
            with pytest.raises(error) as info:
                read(path)
            text = str(info.value)
            assert says in text and str(path) in text, text
        assert sorted(os.listdir(here)) == before

    TABLE.add(id, given, f"`{error.__name__}` with the path: “{says}”", check)


def changed(at, of=model_bytes):
    def make(here):
        data = bytearray(of())
        data[int(len(data) * at)] ^= 0x20
        return model(here, bytes(data))

    return make


def with_manifest(**changes):
    def make(here):
        path = model(here)
        changed_manifest(path, **changes)
        return path

    return make


def dumped(dump):
    def make(here):
        dump(fitted(), here / "model.skan")
        return here / "model.skan"

    return make


def to_pickle(thing, path):
    path.write_bytes(pickle.dumps(thing))


def linked(here):
    (here / "link.skan").symlink_to(model(here))
    return here / "link.skan"


def without_an_array(here):
    path = model(here)
    members = members_of(path)
    del members["arrays/00000.npy"]
    write_signed(path, members.items())
    return path


NONE = "is not a model file of skanomaly, which save_model writes"
bad_model(
    "model-missing",
    "a model file that is not there",
    FileNotFoundError,
    "is not an existing file",
    lambda h: h / "no.skan",
)
bad_model("model-folder", "a folder", ValueError, "is no file", lambda h: h)
bad_model("model-link", "a link to a model", ValueError, "name the file itself", linked)
bad_model("model-empty", "an empty model file", ValueError, NONE, lambda h: model(h, b""))
bad_model("model-image", "an image", ValueError, NONE, saved)
bad_model("model-pickle", "a pickle", ValueError, "runs code when it is", dumped(to_pickle))
bad_model("model-joblib", "a joblib file", ValueError, "runs code when it is", dumped(joblib.dump))
for share in (0.3, 0.7, 0.999):
    bad_model(
        f"model-cut-{share}",
        f"a model file that is cut at {share:.1%}",
        ValueError,
        "is damaged: it was cut, or bytes in it have changed",
        lambda h, share=share: model(h, model_bytes()[: int(len(model_bytes()) * share)]),
    )
for share in (0.1, 0.5, 0.9, 0.9999):
    bad_model(
        f"model-bit-{share}",
        f"a model file of which one bit at {share:.2%} is changed",
        ValueError,
        "is damaged",
        changed(share),
    )
bad_model(
    "model-longer",
    "a model file with bytes behind it",
    ValueError,
    "is damaged",
    lambda h: model(h, model_bytes() + b"\n"),
)
bad_model(
    "model-two",
    "two model files in one",
    ValueError,
    "is damaged",
    lambda h: model(h, model_bytes() * 2),
)
bad_model(
    "model-newer",
    "a model file of a newer format",
    ValueError,
    "written by skanomaly 9.0; this version reads formats up to 1",
    with_manifest(format_version=2, versions={"skanomaly": "9.0"}),
)
bad_model(
    "model-no-format",
    "a model file whose format is no number",
    ValueError,
    "its format is '1'",
    with_manifest(format_version="1"),
)


@TABLE.row(
    "model-less",
    "a model file without one of its arrays",
    "`ValueError`: “not as skanomaly writes model files”",
)
def _(here):
    with pytest.raises(ValueError, match="not as skanomaly writes model files"):
        load_model(without_an_array(here))


@TABLE.row(
    "model-other-{name}",
    "a model file of another version of {name}",
    "a `ModelVersionWarning` that names both versions",
    name=["skanomaly", "scikit-learn"],
)
def _(here, name):
    path = model(here)
    versions = model_manifest(path)["versions"]
    changed_manifest(path, versions={**versions, name: "0.0.1"})
    with pytest.warns(ModelVersionWarning, match=f"{name} 0.0.1.* is loaded by"):
        load_model(path)


@TABLE.row("model-right", "a model file that is whole", "the scores of the model that was saved")
def _(here):
    found = load_model(model(here)).score_samples(GOOD)
    assert found.tolist() == fitted().score_samples(GOOD).tolist()


@TABLE.row(
    "save-over-{what}",
    "`save_model` to the name of {what}",
    "`FileExistsError` that names it; it stays as it was",
    what={"image": "an image", "link": "a link", "folder": "a folder"},
)
def _(here, what):
    path = saved(here)
    before = path.read_bytes()
    if what == "link":
        path = here / "link"
        path.symlink_to(here / "part.png")
    with pytest.raises(FileExistsError, match=str(here)):
        save_model(fitted(), here if what == "folder" else path)
    assert (here / "part.png").read_bytes() == before


# ---------------------------------------------------------------- weights


def weights_error(id, given, error, says, write):
    def act(here):
        path = here / "model.safetensors"
        write(path)
        TimmPatches("test_vit", weights=path, device="cpu").transform(GOOD[:1])

    TABLE.error(id, given, error, says, act, row_marks("torch", "timm"))


def safetensors_header(size, text=b"{}"):
    return lambda path: path.write_bytes(size.to_bytes(8, "little") + text)


READABLE = ("model.safetensors is not a readable safetensors file",)
weights_error(
    "weights-missing",
    "a file of weights that is not there",
    ValueError,
    ("weights=", "nor an existing file"),
    lambda path: None,
)
weights_error(
    "weights-empty",
    "an empty safetensors file",
    ValueError,
    READABLE,
    lambda path: path.write_bytes(b""),
)
weights_error(
    "weights-text",
    "a text named `.safetensors`",
    ValueError,
    READABLE,
    lambda path: path.write_text("<html>"),
)
weights_error(
    "weights-header",
    "a safetensors file with a header of 2**62 bytes",
    ValueError,
    READABLE,
    safetensors_header(2**62),
)
weights_error(
    "weights-json",
    "a safetensors file with a damaged header",
    ValueError,
    READABLE,
    safetensors_header(9, b"{not json"),
)
weights_error(
    "weights-beyond",
    "a safetensors file whose tensor lies behind its end",
    ValueError,
    READABLE,
    lambda path: beyond(path),
)
weights_error(
    "weights-none",
    "a safetensors file without a tensor",
    ValueError,
    ("does not hold a state_dict",),
    lambda path: save_file({}, path),
)
weights_error(
    "weights-foreign",
    "the weights of another network",
    ValueError,
    ("model.safetensors",),
    lambda path: save_file({"other.weight": np.ones((3, 3), np.float32)}, path),
)


def beyond(path):
    header = {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
