"""What a checkpoint file is, told by its content: no anomalib, no torch."""

import os
import pickle
import sys
import types
import zipfile
from importlib.util import find_spec
from itertools import accumulate

import numpy as np
import pytest
from safetensors.numpy import save_file

from skanomaly import AnomalibDetector
from skanomaly.anomalib._files import checkpoint_digest, checkpoint_kind, uncrop


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def torch_zip(path, content, protocol=2, extra=(), method=zipfile.ZIP_STORED):
    """An archive as torch.save writes it."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol))
        archive.writestr("archive/version", "3\n")
        for name in extra:
            archive.writestr(name, b"")
    return path


CHECKPOINT = {
    "pytorch-lightning_version": "2.5",
    "state_dict": {},
    "hyper_parameters": {"pre_processor": True, "post_processor": True},
}


@pytest.mark.parametrize("name", ["model.ckpt", "model.onnx", "model"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_suffix_does_not_matter(tmp_path, name, protocol):
    assert checkpoint_kind(torch_zip(tmp_path / name, CHECKPOINT, protocol)) == "ckpt"
    module = {"model": "stands for a module of anomalib.models.image.padim.lightning_model"}
    module["class"] = "anomalib.models.image.padim.lightning_model"
    torch_zip(tmp_path / f"other_{name}", module, protocol)
    assert checkpoint_kind(str(tmp_path / f"other_{name}")) == "pt"


def write(path, content):
    path.write_bytes(content)
    return path


def array_archive(path):
    np.savez(path, a=np.zeros(3))
    return path


def safetensors(path):
    save_file({"weight": np.zeros((2, 3), np.float32)}, path)
    return path


FOREIGN = {
    "empty": (lambda p: write(p, b""), "is empty"),
    "text": (lambda p: write(p, b"hello world"), "not a file that can be used here"),
    "zeros": (lambda p: write(p, bytes(1000)), "not a file that can be used here"),
    "noise": (lambda p: write(p, np.random.default_rng(0).bytes(5000)), "not a file that can be"),
    "lfs": (lambda p: write(p, b"version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "html": (lambda p: write(p, b"<!DOCTYPE html><html>404"), "not an OpenVINO graph"),
    "xml": (lambda p: write(p, b"\xef\xbb\xbf<?xml version='1.0'?><a/>"), "not an OpenVINO graph"),
    "pickle": (lambda p: write(p, pickle.dumps(CHECKPOINT)), "plain pickle, which could run"),
    "safetensors": (safetensors, "bare weights, without the settings"),
    "npz": (array_archive, "zip archive, but no file of PyTorch"),
    "weights": (lambda p: torch_zip(p, {"conv.weight": 0}), "may be bare weights"),
    "module": (lambda p: torch_zip(p, {"model": 0}), "may be bare weights"),
    "script": (lambda p: torch_zip(p, {}, extra=["archive/code/a.py"]), "is TorchScript"),
    "onnx cut": (
        lambda p: write(p, b"\x08\x09\x3a\xff\x01abc"),
        "begins as ONNX, but is truncated",
    ),
    "zip cut": (
        lambda p: write(p, torch_zip(p, CHECKPOINT).read_bytes()[:-40]),
        "truncated or damaged",
    ),
    "bomb": (
        lambda p: torch_zip(p, {"state_dict": bytes(10**6)}, method=zipfile.ZIP_DEFLATED),
        "is compressed, as no file of PyTorch is",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_and_damaged_files(tmp_path, name):
    make, problem = FOREIGN[name]
    path = make(tmp_path / "file.npz")
    for trust in (False, True):
        with pytest.raises(ValueError, match=problem) as caught:
            AnomalibDetector(path, trust=trust).score_samples([np.zeros((4, 4, 3), np.uint8)])
        assert str(path) in str(caught.value)


# What anomalib before 2.0 wrote, as seen in files of its versions 0.7 and 1.2: names of weights and
# settings, and objects of classes that stand for those of other libraries.
OLD_WEIGHTS = {
    "model.idx": 0,
    "model.gaussian.mean": 0,
    "image_threshold.value": 19.6,
    "pixel_threshold.value": 19.6,
}
OLD_METADATA = {"task": "segmentation", "image_threshold": 19.6, "pixel_threshold": 19.6}


def old_files(instance_of):
    """Content of old files, the version to be named, and whether it is a checkpoint."""
    config = instance_of("omegaconf.dictconfig", "DictConfig")
    transform = instance_of("torchvision.transforms.v2._container", "Compose")
    f1 = "anomalib.metrics.threshold.f1_adaptive_threshold.F1AdaptiveThreshold"
    classes = {"image_threshold_class": f1, "pixel_threshold_class": f1}
    scores = {"normalization_metrics.pred_scores.min": 1.7}
    settings = {"backbone": "resnet18", "layers": ["layer1"], "pre_trained": False}
    return {
        "0.x": {
            "pytorch-lightning_version": "1.9.5",
            "state_dict": {**OLD_WEIGHTS, "normalization_metrics.min": 1.7},
            "hyper_parameters": config,
            "hparams_type": type(config),
        },
        "1.x": {
            "pytorch-lightning_version": "2.4.0",
            "state_dict": {**classes, **OLD_WEIGHTS, **scores},
            "hyper_parameters": settings,
            "transform": transform,
        },
        "1.x plain": {
            "pytorch-lightning_version": "2.2.1",
            "state_dict": {**classes, **OLD_WEIGHTS},
            "hyper_parameters": {"model": "gpt-4o-mini", "k_shot": 0},
            "transform": None,
        },
        "0.x module": {
            "model": instance_of("anomalib.models.padim.torch_model", "PadimModel"),
            "metadata": {**OLD_METADATA, "transform": {}, "min": 1.7, "max": 19.7},
        },
        "1.x module": {
            "model": instance_of("anomalib.deploy.export", "InferenceModel"),
            "metadata": {**OLD_METADATA, "pred_scores.min": 1.7},
        },
    }


@pytest.fixture
def instance_of(monkeypatch):
    """Make an object of a class of a library, which need not be installed."""

    missing = set()

    def make(module, name):
        kind = type(name, (), {"__module__": module})
        library = module.partition(".")[0]
        if library in missing or find_spec(library) is None:
            missing.add(library)  # pickle imports the packages around the module too
            for package in accumulate(module.split("."), "{}.{}".format):
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        setattr(sys.modules[module], name, kind)
        return kind()

    return make


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", ["0.x", "1.x", "1.x plain", "0.x module", "1.x module"])
def test_models_of_anomalib_before_2(tmp_path, instance_of, name, protocol, trust):
    content = old_files(instance_of)[name]
    path = torch_zip(tmp_path / "model.ckpt", content, protocol)
    with pytest.raises(ValueError) as caught:
        AnomalibDetector(path, trust=trust).score_samples([np.zeros((4, 4, 3), np.uint8)])
    message = str(caught.value)
    written = f"{path} was written by anomalib {name[:3]}"
    if "module" not in name:
        written += f" (with Lightning {content['pytorch-lightning_version']})"
    assert message.startswith(f"{written}, which is too old")
    # What to do, and nothing that misleads: no talk of damage, of trust, or of language models.
    assert "Train the model again with anomalib 2.7" in message
    assert "outputs named pred_score and anomaly_map" in message
    assert "AnomalibDetector(inferencer=...)" in message
    for word in ("damaged", "trust", "language", "not written by"):
        assert word not in message


def test_an_old_checkpoint_without_a_version(tmp_path):
    content = {"state_dict": OLD_WEIGHTS, "hyper_parameters": {}}
    with pytest.raises(ValueError, match="written by anomalib 0.x or 1.x, which is too old"):
        checkpoint_kind(torch_zip(tmp_path / "model.ckpt", content))


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("settings", [{"model": "resnet18"}, {"lr": 0.1, "classes": 10}, {}])
def test_checkpoints_of_other_projects_of_lightning(tmp_path, settings, trust):
    content = {
        "pytorch-lightning_version": "2.5.1",
        "state_dict": {"backbone.conv1.weight": 0},
        "hyper_parameters": settings,
    }
    path = torch_zip(tmp_path / "model.ckpt", content)
    expected = r"model.ckpt is a checkpoint of PyTorch Lightning 2.5.1, but of another project"
    with pytest.raises(ValueError, match=expected):
        AnomalibDetector(path, trust=trust).score_samples([np.zeros((4, 4, 3), np.uint8)])


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
def test_foreign_pickles_are_not_run(tmp_path, trust, protocol):
    mark = tmp_path / "ran"
    files = [
        torch_zip(tmp_path / "a.pt", {"weights": Payload(mark)}, protocol),
        write(tmp_path / "b.pt", pickle.dumps(Payload(mark), protocol)),
        write(tmp_path / "c.pt", b"\x80\x02}" + pickle.dumps(Payload(mark), protocol)),
    ]
    for path in files:
        with pytest.raises(ValueError, match=path.name):
            AnomalibDetector(path, trust=trust).score_samples([np.zeros((4, 4, 3), np.uint8)])
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()  # else the test could not fail


def test_damaged_pickles_in_an_archive(tmp_path):
    whole = pickle.dumps(CHECKPOINT, 2)
    for cut in (0, 1, 20, len(whole) - 1):
        path = tmp_path / f"{cut}.ckpt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", whole[:cut])
        with pytest.raises(ValueError, match="truncated or damaged"):
            checkpoint_kind(path)


def test_missing_files_folders_and_halves(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.ckpt' is not an existing file"):
        AnomalibDetector(tmp_path / "nowhere.ckpt").score_samples([np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(ValueError, match="is a folder; give the model file in it"):
        checkpoint_kind(tmp_path)
    graph = write(tmp_path / "model.xml", b'<?xml version="1.0"?>\n<net name="m" version="11">')
    with pytest.raises(FileNotFoundError, match="model.bin is not there"):
        checkpoint_digest(graph)
    weights = write(tmp_path / "model.bin", bytes(10))
    assert checkpoint_kind(graph) == "openvino"
    with pytest.raises(ValueError, match="holds the weights only; give .*model.xml"):
        checkpoint_kind(weights)


def test_an_unpicklable_detector_says_why(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not an existing file"):
        pickle.dumps(AnomalibDetector(tmp_path / "nowhere.ckpt"))


def test_interpolation_is_for_graphs(tmp_path):
    path = torch_zip(tmp_path / "model.ckpt", CHECKPOINT)
    with pytest.raises(ValueError, match="interpolation='bicubic' is for exported graphs"):
        AnomalibDetector(path, interpolation="bicubic").score_samples([np.zeros((4, 4), np.uint8)])


def test_uncrop():
    heat = np.array([[5.0, 6.0], [7.0, 8.0]])
    assert uncrop(heat, (2, 2)).tolist() == heat.tolist()
    expected = [[5, 5, 5, 5, 5], [5, 5, 6, 5, 5], [5, 7, 8, 5, 5], [5, 5, 5, 5, 5]]
    whole = uncrop(heat, (4, 5))
    # A margin of three pixels is split by rounding half to even, as CenterCrop does: 2 and 1.
    assert whole.shape == (4, 5) and whole[1:3, 2:4].tolist() == heat.tolist()
    assert np.sort(whole.ravel()).tolist() == np.sort(np.ravel(expected)).tolist()
