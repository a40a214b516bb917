"""Rows of the fault matrix about exported graphs: cut off, exchanged, made by somebody to harm."""

import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from _fault_models import GOOD, fitted, row_marks, saved
from _fault_table import Table

from skanomaly import AnomalibDetector, DeployedDetector, export_model, save_model
from skanomaly.deployment._files import _tail_length, sealed

ORDER = 12.5
TABLE = Table(
    "graphs",
    "Exported graphs, and checkpoints of a newer anomalib",
    "Here `DeployedDetector` opens other files than those that `export_model` wrote. Files that\n"
    "are called “sealed” end with a correct digest, because anyone who makes a file on purpose\n"
    "can compute it.",
)
ONNX = row_marks("onnx", "onnxruntime")
OPENVINO = row_marks("onnx", "onnxruntime", "openvino")
NEW = GOOD[0][::-1].copy()


@functools.cache
def exported(kind: str) -> dict[str, bytes]:
    """Contents of the files of an exported model, by suffix."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"parts.{'xml' if kind == 'openvino' else 'onnx'}"
        export_model(fitted(), path, images=GOOD, format=kind)
        return {file.suffix: file.read_bytes() for file in Path(folder).iterdir()}


def written(here, kind="onnx", name="parts"):
    for suffix, content in exported(kind).items():
        (here / f"{name}{suffix}").write_bytes(content)
    return here / f"{name}.{'xml' if kind == 'openvino' else 'onnx'}"


def resealed(here, change):
    """The exported model with something changed by a function, with a digest that is right."""
    import onnx

    path = written(here)
    model = onnx.load_from_string(path.read_bytes()[: -_tail_length(path)])
    change(model)
    path.write_bytes(sealed([model.SerializeToString()], ".onnx")[0])
    return path


def manifest_of(model):
    (entry,) = (entry for entry in model.metadata_props if entry.key == "skanomaly")
    return entry


def with_manifest(change):
    def changed(model):
        entry = manifest_of(model)
        manifest = json.loads(entry.value)
        change(manifest)
        entry.value = json.dumps(manifest)

    return changed


def is_refused(path, *says, kinds=(ValueError,)):
    """By each method, with the name of the file and what to do."""
    detector = DeployedDetector(path)
    for act in (
        detector.fit,
        lambda: detector.predict([NEW]),
        lambda: detector.score_maps([NEW]),
        lambda: detector.offset_,
    ):
        with pytest.raises((*kinds, AttributeError) if act is not detector.fit else kinds) as info:
            act()
        if not isinstance(info.value, AttributeError):
            text = str(info.value)
            assert path.name in text, text
            assert [part for part in says if part not in text] == [], text
    assert "offset_" not in vars(detector)


def does_not_score(path, image=NEW):
    """What is seen at the first image."""
    detector = DeployedDetector(path)
    for act in (detector.predict, detector.score_maps, detector.score_samples):
        with pytest.raises(ValueError, match="export the model again") as info:
            act([image])
        assert f"{path} is no graph from images to scores and maps" in str(info.value)


@TABLE.row(
    "whole-{kind}",
    "the model as it was written, for {kind}",
    "it scores: so the rows below can fail",
    OPENVINO,
    kind={"onnx": "ONNX Runtime", "openvino": "OpenVINO"},
)
def _(here, kind):
    found = DeployedDetector(written(here, kind)).score_samples([NEW])
    np.testing.assert_allclose(found, fitted().score_samples([NEW]), rtol=1e-5)


# ---------------------------------------------------------------- what is not as it was written

CUTS = {
    "all": "nothing of it",
    "head": "its first 10 bytes",
    "half": "half of it",
    "seal": "all but its digest",
    "digest": "all but half of its digest",
    "byte": "all but its last byte",
}


@TABLE.row(
    "cut-{kind}-{left}",
    "a file `{kind}` of which there is {left}",
    "`ValueError`: “… was not written by skanomaly.export_model, or is not whole: export the model "
    "again”, or “is damaged”",
    OPENVINO,
    kind=["onnx", "xml"],
    left=CUTS,
)
def _(here, kind, left):
    path = written(here, "openvino" if kind == "xml" else "onnx")
    data, tail = path.read_bytes(), _tail_length(path)
    kept = {
        "all": 0,
        "head": 10,
        "half": len(data) // 2,
        "seal": len(data) - tail,
        "digest": len(data) - 32,
        "byte": len(data) - 1,
    }
    path.write_bytes(data[: kept[left]])
    is_refused(path, "export the model again")


@TABLE.row(
    "flipped-{kind}-{place}",
    "a file `{kind}` with a changed byte at {place}",
    "`ValueError`: “… is damaged: it is not as it was written. Copy it again, or export …”",
    OPENVINO,
    kind=["onnx", "xml", "bin"],
    place={0: "its start", 0.5: "its middle", 0.99: "its end"},
)
def _(here, kind, place):
    path = written(here, "onnx" if kind == "onnx" else "openvino")
    data = bytearray(path.with_suffix(f".{kind}").read_bytes())
    length = len(data) - (0 if kind == "bin" else _tail_length(path))
    data[int(place * length)] ^= 1
    path.with_suffix(f".{kind}").write_bytes(data)
    is_refused(path, "is damaged", "Copy it again")


@TABLE.row(
    "bytes-{kind}-{seal}",
    "random bytes in a file `{kind}`, {seal}",
    "`ValueError`; its name, and that it holds no model of export_model",
    OPENVINO,
    kind=["onnx", "xml"],
    seal={True: "sealed", False: "as they are"},
)
def _(here, kind, seal):
    path, noise = here / f"parts.{kind}", np.random.default_rng(0).bytes(9999)
    if kind == "xml":
        path.with_suffix(".bin").write_bytes(noise)
    parts = [noise, noise] if kind == "xml" else [noise]
    path.write_bytes(sealed(parts, path.suffix)[-1] if seal else noise)
    is_refused(path, "holds no model that can be run" if seal else "was not written by")


@TABLE.row(
    "other-{what}",
    "{what} in place of an exported model",
    "`ValueError` or `FileNotFoundError`, with its name",
    ONNX,
    what={
        "image": "a picture named `parts.onnx`",
        "model": "a file of save_model named `parts.onnx`",
        "suffix": "a model that was renamed to `parts.skan`",
        "folder": "a folder named `parts.onnx`",
        "nothing": "no file at all",
    },
)
def _(here, what):
    path = here / "parts.onnx"
    says, kinds = "was not written by skanomaly.export_model", (ValueError, OSError)
    if what == "image":
        saved(here, NEW, "parts.onnx")
    elif what == "model":
        save_model(fitted(), here / "parts.skan")
        os.rename(here / "parts.skan", path)
    elif what == "suffix":
        path, says = written(here).rename(here / "parts.skan"), "is no exported model"
    elif what == "folder":
        path.mkdir()
    else:
        says = "there is no file"
    is_refused(path, says, kinds=kinds)


@TABLE.row(
    "bin-{how}",
    "a model of OpenVINO whose `.bin` is {how}",
    "an error that names the file, “Copy it again” or “copy it there”; no scores of other weights",
    OPENVINO,
    how={
        "missing": "missing",
        "empty": "empty",
        "cut": "cut off",
        "longer": "longer",
        "exchanged": "that of another model",
    },
)
def _(here, how):
    path = written(here, "openvino")
    weights = path.with_suffix(".bin")
    data = weights.read_bytes()
    if how == "missing":
        weights.unlink()
        return is_refused(path, "parts.bin", "copy it there", kinds=(FileNotFoundError,))
    changed = np.frombuffer(data, np.uint8).copy()
    changed[len(changed) // 2 :] = 0
    weights.write_bytes(
        {"empty": b"", "cut": data[:-9], "longer": data + b"0", "exchanged": changed.tobytes()}[how]
    )
    is_refused(path, "is damaged", "Copy it again")


@TABLE.row(
    "after-opening",
    "a file that is exchanged after it was opened",
    "`ValueError`: “is another file than the one that this detector was opened with”",
    ONNX,
)
def _(here):
    path = written(here)
    detector = DeployedDetector(path).fit()
    other = here / "other"
    other.mkdir()
    changed = resealed(other, with_manifest(lambda m: m["threshold"].update(offset=-1.0)))
    shutil.move(changed, path)
    with pytest.raises(ValueError, match="parts.onnx is another file"):
        detector.predict([NEW])


# ---------------------------------------------------------------- made on purpose: sealed


@TABLE.row(
    "says-{what}",
    "a sealed graph {what}",
    "`ValueError`: “does not say what it is, as those of skanomaly.export_model do”",
    ONNX,
    what={
        "nothing": "without a word about itself",
        "no-json": "that says of itself what is no JSON",
        "deep": "that says of itself a hundred thousand brackets",
        "list": "that says of itself a list",
        "other": "that says it is something else",
        "threshold": "without a threshold",
        "nan": "with a threshold that is no number",
        "text": "with a threshold that is a text",
        "sides": "of images whose height is a text",
        "scores": "with held-out scores that are words",
        "limits": "with one limit of colours",
    },
)
def _(here, what):
    def change(model):
        if what == "nothing":
            del model.metadata_props[:]
        elif what in ("no-json", "deep", "list"):
            text = {"no-json": "{", "deep": "[" * 100_000, "list": "[1]"}[what]
            manifest_of(model).value = text
        else:
            with_manifest(
                {
                    "other": lambda m: m.update(format="a picture"),
                    "threshold": lambda m: m.pop("threshold"),
                    "nan": lambda m: m["threshold"].update(offset=float("nan")),
                    "text": lambda m: m["threshold"].update(offset="0.5"),
                    "sides": lambda m: m.update(height="32"),
                    "scores": lambda m: m["threshold"].update(train_scores=["a"]),
                    "limits": lambda m: m["threshold"].update(patch_limits=[1.0]),
                }[what]
            )(model)

    is_refused(resealed(here, change), "does not say what it is")


@TABLE.row(
    "newer",
    "a sealed graph of a format that is newer than this skanomaly",
    "`ValueError`: “has the format 99, of a newer skanomaly than this”",
    ONNX,
)
def _(here):
    path = resealed(here, with_manifest(lambda m: m.update(format_version=99)))
    is_refused(path, "has the format 99, of a newer skanomaly than this", "is the newest")


@TABLE.row(
    "outside-{where}",
    "a sealed graph whose numbers lie in {where}",
    "`ValueError`: “holds no model that can be run”; nothing is read there",
    ONNX,
    where={
        "parent": "a file outside of its folder, `../secret`",
        "beside": "a file beside it",
        "absolute": "a file that it names by its whole path",
        "memory": "the memory of the process",
    },
)
def _(here, where):
    import onnx

    secret = here / "secret"
    secret.write_bytes(np.ones(2**20, np.float32).tobytes())
    inside = here / "inside"
    inside.mkdir()
    shutil.copy(secret, inside / "beside")
    place = {
        "parent": "../secret",
        "beside": "beside",
        "absolute": str(secret),
        "memory": "*/_ORT_MEM_ADDR_/*",
    }[where]

    def change(model):
        tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = {"location": place, "offset": "0", "length": str(len(tensor.raw_data))}
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in values.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    path, before = resealed(inside, change), os.getcwd()
    os.chdir(inside)  # by which a path in a graph of bytes would be found
    try:
        is_refused(path, "holds no model that can be run", "export the model again")
    finally:
        os.chdir(before)


@TABLE.row(
    "takes-{what}",
    "a sealed graph that takes {what}",
    "`ValueError`: “is no graph from images to scores and maps”, or “holds no model”",
    ONNX,
    what={
        "name": "an input of another name",
        "floats": "floats in place of pixels",
        "axes": "an image without batch",
        "grey": "images of one colour",
        "size": "images of another size than it says",
        "two": "a second input",
    },
)
def _(here, what):
    from onnx import TensorProto, helper

    def change(model):
        (taken,) = model.graph.input
        if what == "name":
            for node in model.graph.node:
                for i, name in enumerate(node.input):
                    node.input[i] = "picture" if name == "image" else name
            taken.name = "picture"
        elif what == "floats":
            taken.type.tensor_type.elem_type = TensorProto.FLOAT
        elif what == "axes":
            del taken.type.tensor_type.shape.dim[0]
        elif what == "grey":
            taken.type.tensor_type.shape.dim[3].dim_value = 1
        elif what == "size":
            with_manifest(lambda m: m.update(height=64, width=64))(model)
        else:
            model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))

    path = resealed(here, change)
    if what in ("axes", "grey"):  # which the runtime finds out before there is an image
        return is_refused(path, "holds no model that can be run")
    does_not_score(path, np.tile(NEW, (2, 2, 1)) if what == "size" else NEW)


@TABLE.row(
    "gives-{what}",
    "a sealed graph that gives {what}",
    "`ValueError`: “is no graph from images to scores and maps”",
    ONNX,
    what={
        "score": "no score",
        "map": "no map",
        "small": "a map of another size than the image",
        "many": "three scores of one image",
        "nan": "a score that is no number",
    },
)
def _(here, what):
    from onnx import TensorProto, helper

    def change(model):
        outputs = {output.name: output for output in model.graph.output}
        if what in ("score", "map"):
            model.graph.output.remove(outputs["score" if what == "score" else "anomaly_map"])
            return
        name = "anomaly_map" if what == "small" else "score"
        value = {
            "small": np.zeros((1, 4, 4), np.float32),
            "many": np.zeros(3, np.float32),
            "nan": np.full(1, np.nan, np.float32),
        }[what]
        for node in model.graph.node:
            for names in (node.input, node.output):
                for i, one in enumerate(names):
                    names[i] = "before" if one == name else one
        tensor = helper.make_tensor(
            "value", TensorProto.FLOAT, value.shape, value.tobytes(), raw=True
        )
        model.graph.node.append(helper.make_node("Constant", [], [name], value=tensor))
        outputs[name].type.tensor_type.ClearField("shape")

    does_not_score(resealed(here, change))


# ---------------------------------------------------------------- checkpoints of a newer anomalib


@functools.cache
def trained():
    """A checkpoint of anomalib, and what its model says of some images."""
    import _anomalib_tiny as tiny
    import torch

    with tempfile.TemporaryDirectory() as folder, tiny.third_party():
        found = tiny.TinyCheckpoints(folder).get("padim")
        content = torch.load(found.path, weights_only=True)
    return content, found.images, found.scores


@TABLE.row(
    "checkpoint-{what}",
    "a checkpoint of a newer anomalib, {what}",
    "`ValueError`, with its name and what to do; it is not read as if that were not there",
    row_marks("anomalib", "open_clip", "lightning"),
    what={
        "setting": "with a setting of the model that is not known here",
        "weight": "with weights that are not known here",
        "gone": "without a weight that is needed here",
        "part": "with a part around the model that is not known here",
        "before": "whose images are prepared by more than is known here",
        "after": "whose scores are worked on by more than is known here",
        "transform": "with a transform that is not known here",
        "class": "with an object of a class that is not known here",
    },
)
def _(here, what):
    import copy

    import torch

    content, path = copy.deepcopy(trained()[0]), here / "newer.ckpt"
    says = "anomalib 2.7"
    if what == "setting":
        content["hyper_parameters"]["rotations"] = 4
    elif what == "weight":
        content["state_dict"]["model.rotations"] = torch.ones(4)
    elif what == "gone":
        del content["state_dict"][next(key for key in content["state_dict"] if "mean" in key)]
    elif what == "part":
        content["anomalib_tiler_config"] = {"tile_size": 128}
    elif what == "before":
        content["anomalib_pre_processor_config"]["centre_crop"] = 32
    elif what == "after":
        content["anomalib_post_processor_config"]["smoothing"] = 4.0
    elif what == "transform":
        content["anomalib_pre_processor_config"]["transform"]["class_path"] += "Newer"
        says = "ComposeNewer"
    else:
        content["hyper_parameters"]["layers"] = Newer()
        says = "newer.ckpt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="newer.ckpt") as info:
        AnomalibDetector(path).score_samples(trained()[1])
    assert says in str(info.value), info.value


class Newer:
    """Of a library that is not installed."""


@TABLE.row(
    "checkpoint-same",
    "a checkpoint of a newer Lightning, with nothing that is not known here",
    "it is read; the scores are those of the model that was trained",
    row_marks("anomalib", "open_clip", "lightning"),
)
def _(here):
    import torch

    content, images, scores = trained()
    torch.save({**content, "pytorch-lightning_version": "9.9.0"}, here / "newer.ckpt")
    found = -AnomalibDetector(here / "newer.ckpt").score_samples(images)
    np.testing.assert_allclose(found, scores, rtol=1e-5 * max(1, np.abs(scores).max()))


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
