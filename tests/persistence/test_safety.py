"""Files that are damaged, made up, of other versions, or somebody else's; and interrupted saves."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import zipfile

import joblib
import numpy as np
import pytest
import skops.io
from _model_files import changed_manifest, members_of, write_signed
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skanomaly
from skanomaly import PatchKNNScorer, load_model, model_manifest, save_model
from skanomaly.persistence import ModelVersionWarning
from skanomaly.persistence._tree import StoredArray

pytestmark = pytest.mark.filterwarnings("ignore::skanomaly.persistence.ModelTrustWarning")


@pytest.fixture(scope="module")
def scorer():
    tokens = np.abs(np.random.default_rng(0).normal(size=(6, 8, 8, 16))).astype(np.float32)
    return PatchKNNScorer().fit(tokens)


@pytest.fixture
def path(scorer, tmp_path):
    save_model(scorer, tmp_path / "model.skan")
    return tmp_path / "model.skan"


def test_a_changed_byte_anywhere(path):
    data = bytearray(path.read_bytes())
    n = len(data)
    for place in {*range(300), *range(300, n, 613), *range(n - 200, n)}:
        data[place] ^= 0x20
        path.write_bytes(data)
        for read in (model_manifest, load_model):
            with pytest.raises(ValueError, match=r"damaged|not a model file"):
                read(path)
        data[place] ^= 0x20
    path.write_bytes(data)
    load_model(path)


def test_a_file_that_was_cut_or_goes_on(path):
    data = path.read_bytes()
    for n in {0, 1, 29, 30, 100, 1000, len(data) // 2, len(data) - 64, len(data) - 1}:
        path.write_bytes(data[:n])
        with pytest.raises(ValueError, match=r"damaged|not a model file"):
            load_model(path)
    for more in (b"\0", b"x" * 64, data):
        path.write_bytes(data + more)
        with pytest.raises(ValueError, match="damaged"):
            load_model(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.path.join(os.environ["SKANOMALY_TEST_TRACE"], "ran"),)


def test_pickles_are_not_read(path, scorer, tmp_path, monkeypatch):
    monkeypatch.setenv("SKANOMALY_TEST_TRACE", str(tmp_path))
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="not a model file of skanomaly.*runs code"):
        load_model(path)
    joblib.dump(scorer, path)
    with pytest.raises(ValueError, match="not a model file of skanomaly"):
        load_model(path)
    skops.io.dump(StandardScaler(), path)
    with pytest.raises(ValueError, match="not a model file of skanomaly"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_file(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not an existing file"):
        load_model(tmp_path / "missing.skan")
    with pytest.raises(ValueError, match="is no file"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.npy",
        "/etc/evil",
        "arrays/../x.npy",
        "arrays/0.npy",
        "weights/evil",
        "C:\\x",
        "manifest.json|.npy",
        "arrays/00000.npy ",
        "estimator.pkl",
    ],
)
def test_hostile_names(name, path, tmp_path):
    write_signed(path, [*members_of(path).items(), (name, b"evil")])
    data = path.read_bytes()[:-64].replace(b"json|", b"json\0")
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
    before = sorted(os.listdir(tmp_path))
    for read in (model_manifest, load_model):
        with pytest.raises(ValueError, match="not as skanomaly writes model files"):
            read(path)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_archives_that_are_otherwise(path):
    members = members_of(path)
    twice = [*members.items(), ("estimator.skops", members["estimator.skops"])]
    less = {name: data for name, data in members.items() if name != "arrays/00001.npy"}
    for made_up in (twice, less.items(), list(members.items())[:1]):
        write_signed(path, made_up)
        with pytest.raises(ValueError, match="not as skanomaly writes model files"):
            load_model(path)
    # What unpacks to more than the file has could unpack to any size.
    write_signed(path, members.items(), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="not as skanomaly writes|not a model file"):
        load_model(path)
    inner = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(members["estimator.skops"])) as archive:
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in archive.namelist():
                packed.writestr(name, archive.read(name))
    write_signed(path, {**members, "estimator.skops": inner.getvalue()}.items())
    with pytest.raises(ValueError, match="is compressed"):
        load_model(path)


def array_bytes(array, **changes):
    buffer = io.BytesIO()
    header = {**np.lib.format.header_data_from_array_1_0(array), **changes}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


def test_hostile_arrays(path, tmp_path, monkeypatch):
    monkeypatch.setenv("SKANOMALY_TEST_TRACE", str(tmp_path))
    members = members_of(path)
    objects = io.BytesIO()
    np.save(objects, np.array([Evil()], dtype=object), allow_pickle=True)
    some = np.arange(4.0)
    for data in (
        objects.getvalue(),
        array_bytes(some, shape=(10**12,)),
        array_bytes(some, shape=(2,)),
        array_bytes(some, shape=(-4,)),
        array_bytes(some, descr="|O"),
        b"\x93NUMPY\x01\x00",
        b"",
    ):
        write_signed(path, {**members, "arrays/00000.npy": data}.items())
        with pytest.raises(ValueError, match="not as skanomaly writes model files"):
            load_model(path)
    assert os.listdir(tmp_path) == ["model.skan"]


def test_an_array_that_is_not_there(path):
    reference = StoredArray()
    for number in (10**6, -1, "0", None, True):
        reference.number = number
        tree = FunctionTransformer(kw_args={"array": reference})
        members = {**members_of(path), "estimator.skops": skops.io.dumps(tree)}
        write_signed(path, members.items())
        with pytest.raises(ValueError, match="no array of the number"):
            load_model(path)


@pytest.mark.parametrize("function", [os.system, eval, subprocess.run, np.save])
def test_functions_are_not_trusted(function, path):
    model = make_pipeline(FunctionTransformer(function, kw_args={"a": 1}), PatchKNNScorer())
    save_model(model, path)
    with pytest.raises(TypeError, match=f"not trusted: .*{function.__name__}"):
        load_model(path)


def test_a_tree_that_is_no_estimator(path):
    members = members_of(path)
    for tree in ({"a": 1}, [StandardScaler()], np.arange(3)):
        write_signed(path, {**members, "estimator.skops": skops.io.dumps(tree)}.items())
        with pytest.raises(ValueError, match="no estimator"):
            load_model(path)
    write_signed(path, {**members, "estimator.skops": b"nothing"}.items())
    with pytest.raises(ValueError, match="not as skanomaly writes model files"):
        load_model(path)


def test_trust_is_of_people_wherever_a_detector_hides(path):
    """In a file made by hand it may stand where no walk through an estimator comes by."""
    hidden = np.empty(1, dtype=object)
    for trust in (True, np.True_, 1):
        detector = skanomaly.AnomalibDetector("model.pt", trust=trust)
        detector._file = "model.pt", "0" * 64  # else its digest is asked for
        hidden[0] = detector
        tree = FunctionTransformer(kw_args={"hidden": hidden})
        members = {**members_of(path), "estimator.skops": skops.io.dumps(tree)}
        write_signed(path, members.items())
        assert load_model(path).kw_args["hidden"][0].trust is False


def test_types_that_are_trusted_do_nothing_but_take_their_attributes():
    import importlib

    from sklearn.base import BaseEstimator

    from skanomaly._parameters import Estimator
    from skanomaly.persistence._trusted import trusted_metrics, trusted_types

    setters = (None, BaseEstimator.__setstate__, Estimator.__setstate__)
    for name in trusted_types():
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        assert isinstance(value, type), name
        assert getattr(value, "__setstate__", None) in setters, name
        assert value.__new__ is object.__new__, name
        assert value.__reduce__ is object.__reduce__, name
        assert "__call__" not in dir(value), name
    for name in trusted_metrics():
        module, _, attribute = name.rpartition(".")
        assert not isinstance(getattr(importlib.import_module(module), attribute), type)


@pytest.mark.parametrize("versions", [[], 5, None, "x", [["skanomaly", "1"]]])
def test_versions_that_are_none(versions, path):
    changed_manifest(path, versions=versions)
    for read in (model_manifest, load_model):
        with pytest.raises(ValueError, match="its versions are"):
            read(path)


@pytest.mark.parametrize("weights", [5, {"a": 1}, [1], [{}], [{"class": 1}], "x"])
def test_weights_that_are_none(weights, path):
    """They are asked for where an estimator has weights."""
    changed_manifest(path, weights=weights)
    load_model(path)
    save_model(skanomaly.DinoV2Patches(weights="random"), path)
    changed_manifest(path, weights=weights)
    with pytest.raises(ValueError, match="not as skanomaly writes model files"):
        load_model(path)


def test_a_manifest_without_end(path):
    members = members_of(path)
    text = members["manifest.json"].decode().rstrip().rstrip("}").rstrip()
    members["manifest.json"] = f'{text},"x": {"[" * 100000}{"]" * 100000}}}'.encode()
    write_signed(path, members.items())
    for read in (model_manifest, load_model):
        with pytest.raises(ValueError, match="not as skanomaly writes model files"):
            read(path)


def test_a_zip_of_another_version(path):
    data = bytearray(path.read_bytes()[:-64])
    at = data.rindex(b"PK\x01\x02")
    data[at + 6] = 99  # version needed to extract
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
    for read in (model_manifest, load_model):
        with pytest.raises(ValueError, match="not as skanomaly writes model files"):
            read(path)


@pytest.mark.parametrize("trusted", ["name", [1], [None], [b"name"]])
def test_trusted_that_is_no_list_of_names(trusted, path):
    with pytest.raises(TypeError, match="trusted must be a list of names"):
        load_model(path, trusted=trusted)


def test_training_images_that_are_otherwise(path, tmp_path):
    embedder = skanomaly.FilterBankPatches(image_size=32).fit(np.zeros((2, 32, 32, 3), np.uint8))
    known = embedder._train_images
    for name, value in (
        ("digests", ()),
        ("digests", None),
        ("digests", (1, 2)),
        ("paths", ["a", "b"]),
        ("paths", (b"a", None)),
    ):
        before = getattr(known, name)
        object.__setattr__(known, name, value)
        members = {**members_of(path), "estimator.skops": skops.io.dumps(embedder)}
        object.__setattr__(known, name, before)
        write_signed(path, members.items())
        with pytest.raises(ValueError, match="training images are not as"):
            load_model(path)


def test_a_newer_format(path):
    changed_manifest(path, format_version=2, versions={"skanomaly": "9.0"})
    for read in (model_manifest, load_model):
        with pytest.raises(ValueError, match=r"of format 2, written by skanomaly 9\.0.* up to 1"):
            read(path)
    for version in (True, None, "1", 0):
        changed_manifest(path, format_version=version)
        with pytest.raises(ValueError, match="its format is"):
            load_model(path)


@pytest.mark.parametrize("name", ["skanomaly", "scikit-learn"])
def test_another_version_warns_once(name, path, scorer, recwarn):
    versions = model_manifest(path)["versions"]
    load_model(path)
    changed_manifest(path, versions={**versions, "numpy": "1.0"})
    load_model(path)
    assert len(recwarn) == 0
    members = members_of(path)
    changed_manifest(path, versions={**versions, name: "0.0.1"})
    here = " and ".join(f"{one} {versions[one]}" for one in ("skanomaly", "scikit-learn"))
    with pytest.warns(ModelVersionWarning, match=f"{name} 0.0.1.* is loaded by {here}"):
        load_model(path)
    # The versions within the tree too, by which pickles warn.
    with zipfile.ZipFile(io.BytesIO(members["estimator.skops"])) as archive:
        inner = {one: archive.read(one) for one in archive.namelist()}
    key = b'"_skanomaly_version": {'
    assert inner["schema.json"].count(key) == 1
    at = inner["schema.json"].index(skanomaly.__version__.encode(), inner["schema.json"].index(key))
    schema = bytearray(inner["schema.json"])
    schema[at : at + len(skanomaly.__version__)] = b"0.0.1"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for one, data in {**inner, "schema.json": bytes(schema)}.items():
            archive.writestr(one, data)
    write_signed(path, {**members_of(path), "estimator.skops": buffer.getvalue()}.items())
    with pytest.warns(ModelVersionWarning) as caught:
        load_model(path)
    assert len(caught) == 1


def test_links_are_not_followed(path, scorer, tmp_path):
    link = tmp_path / "link.skan"
    link.symlink_to(path)
    before = path.read_bytes()
    for read in (model_manifest, load_model):
        with pytest.raises(ValueError, match=f"link to {path}"):
            read(link)
    with pytest.raises(FileExistsError, match=f"link to {path}"):
        save_model(scorer, link)
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match="link to"):
        save_model(scorer, link)
    assert path.read_bytes() == before and not (tmp_path / "nowhere").exists()


def test_files_of_others_are_not_replaced(path, scorer, tmp_path):
    others = {"notes.txt": b"notes", "empty": b"", "archive.zip": b"PK\x03\x04" + bytes(40)}
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FileExistsError, match="what skanomaly did not write"):
            save_model(scorer, tmp_path / name)
        assert (tmp_path / name).read_bytes() == data
    with pytest.raises(FileExistsError, match="is a folder"):
        save_model(scorer, tmp_path)
    path.chmod(0o640)
    save_model(scorer, path)  # one of ours is
    assert path.stat().st_mode & 0o777 == 0o640
    save_model(scorer, tmp_path / "new" / "folder" / "model.skan")
    load_model(tmp_path / "new" / "folder" / "model.skan")


def test_a_save_that_fails_leaves_the_old_file(path, scorer, tmp_path, monkeypatch):
    before = path.read_bytes()

    def fail(number):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(scorer, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model.skan"]


KILLED = """
import os, random, signal, sys, time
import numpy as np
from skanomaly import PatchKNNScorer, load_model, model_manifest, save_model

path = sys.argv[1]
rng = np.random.default_rng(0)
models = []
for size in (4, 5):
    tokens = np.abs(rng.normal(size=(size * 10, 16, 16, 64))).astype(np.float32)
    models.append(PatchKNNScorer(algorithm="brute", contamination=size / 100).fit(tokens))
new = np.abs(rng.normal(size=(2, 16, 16, 64))).astype(np.float32)
expected = {model.contamination: model.score_samples(new) for model in models}
save_model(models[0], path)
began, seen = time.perf_counter(), set()
save_model(models[0], path)
duration = time.perf_counter() - began
for kill in range(100):
    child = os.fork()
    if child == 0:
        while True:
            for model in models[:: 1 if kill % 2 else -1]:
                save_model(model, path)
    time.sleep(random.Random(kill).uniform(0, 5 * duration))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    loaded = load_model(path)
    assert np.array_equal(loaded.score_samples(new), expected[loaded.contamination])
    seen.add(loaded.contamination)
print("whole", sorted(seen))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_save_that_is_killed_leaves_a_whole_file(tmp_path):
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "model.skan")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    assert done.stdout == "whole [0.04, 0.05]\n", done.stderr
