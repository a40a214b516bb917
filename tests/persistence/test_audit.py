"""Trees that somebody made up: what they may hold, and where, without a word of who loads them."""

import functools
import hashlib
import io
import json
import operator
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import scipy.sparse
import skops.io
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.decomposition import PCA, KernelPCA
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectKBest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import check_scoring, get_scorer, make_scorer, pairwise_kernels, roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV, RepeatedKFold
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skanomaly import AnomalibDetector, FilterBankPatches, PatchKNNScorer, load_model, save_model
from skanomaly.metrics import IMAGE_SCORERS, image_auroc_scorer

KNN = PatchKNNScorer()


def write(path, tree, *others):
    """A model file of any tree, or of the bytes of one, whose digest is right."""
    save_model(KNN, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["estimator.skops"] = tree if isinstance(tree, bytes) else skops.io.dumps(tree)
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"0" * 64
        for name, data in (*members.items(), *others):
            archive.writestr(name, data)
    data = path.read_bytes()[:-64]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode())
    return path


def rewritten(tree, change):
    """The bytes of a tree whose description is changed in place."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(tree))) as archive:
        with zipfile.ZipFile(out, "w") as new:
            for name in archive.namelist():
                data = archive.read(name)
                if name == "schema.json":
                    schema = json.loads(data)
                    change(schema["content"]["content"])
                    data = json.dumps(schema).encode()
                new.writestr(name, data)
    return out.getvalue()


def transformer(value):
    return FunctionTransformer(kw_args={"value": value})


def scorer_of(method, function=np.logical_or):
    scorer = make_scorer(function, response_method="predict")
    scorer._response_method = method
    return scorer


class Ran:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_scorer_that_sets_the_trust_of_a_detector(tmp_path):
    """A detector is made by calling its class, and made to trust a checkpoint of the file."""
    marker = tmp_path / "ran"
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.write_bytes(pickle.dumps(Ran(marker)))
    state = {**vars(AnomalibDetector()), "checkpoint_path": str(checkpoint), "trust": True}
    image = np.zeros((1, 32, 32, 3), np.uint8)
    raised = FunctionTransformer(scorer_of("__setstate__"), kw_args={"X": state, "y_true": 1})
    used = FunctionTransformer(scorer_of("score_samples"), kw_args={"X": image, "y_true": 1})
    both = FeatureUnion([("raised", raised), ("used", used)])
    made = FunctionTransformer(AnomalibDetector)
    fitted = PatchKNNScorer().fit(np.random.default_rng(0).normal(size=(8, 4, 4, 8)) + 3)
    whole = Pipeline([("made", made), ("both", both), ("knn", fitted)])
    for part in (whole, made, raised, used, both):
        with pytest.raises((TypeError, ValueError), match=r"not trusted|not as skanomaly writes"):
            load_model(write(tmp_path / "evil.skan", part)).predict(image)
    assert not marker.exists()


REFUSED = {
    "class": AnomalibDetector,
    "class of Python": dict,
    "scorer": get_scorer("roc_auc"),
    "image scorer": image_auroc_scorer,
    "metric": roc_auc_score,
    "finds a scorer": check_scoring,
    "calls a metric": pairwise_kernels,
    "partial": functools.partial(np.add, 1),
    "method": StandardScaler().fit,
    "method of ours": AnomalibDetector().set_params,
    "calls a method": operator.methodcaller("set_params", trust=True),
    "gets an attribute": operator.attrgetter("fit"),
    "gets an item": operator.itemgetter(0),
    "selector": make_column_selector(".*"),
    "columns": ColumnTransformer([("a", StandardScaler(), make_column_selector(".*"))]),
    "target": TransformedTargetRegressor(func=np.exp),
    "by attribute": SelectFromModel(PCA(), importance_getter="mean_"),
    "by function": SelectKBest(),
    "text": TfidfVectorizer(tokenizer=np.exp),
    "splitter with a class": RepeatedKFold(),
    "model with trees": IsolationForest(n_estimators=2).fit([[0.0], [1.0]]),
    "regression": LinearRegression(),
    "sparse": scipy.sparse.csr_matrix(np.eye(3)),
    "ordered": OrderedDict(a=1),
    "default": defaultdict(list, a=1),
    "generator": np.random.default_rng(0),
    "function of arrays": np.save,
    "function of Python": eval,
    "bytearray": bytearray(b"a"),
    "frozen": frozenset([1]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_trusted_anywhere(what, tmp_path):
    for tree in (
        transformer(REFUSED[what]),
        transformer([{"a": (REFUSED[what],)}]),
        FunctionTransformer(REFUSED[what]),
        KernelPCA(kernel=REFUSED[what]),
        make_pipeline(FunctionTransformer(inverse_func=REFUSED[what]), KNN),
    ):
        with pytest.raises(TypeError, match="not trusted: "):
            load_model(write(tmp_path / "made.skan", tree))


@pytest.mark.parametrize("method", ["set_params", "fit", "__setstate__", "", None, 3, ["fit"]])
def test_scorers_ask_for_predictions_alone(method, tmp_path):
    search = GridSearchCV(KNN, {}, scoring=scorer_of(method, roc_auc_score))
    with pytest.raises(ValueError, match=r"a scorer calls|method of a scorer"):
        load_model(write(tmp_path / "made.skan", search))


def test_scorers_call_metrics_alone(tmp_path):
    for function in (AnomalibDetector, check_scoring, operator.methodcaller("fit"), eval):
        search = GridSearchCV(KNN, {}, scoring={"a": scorer_of("predict", function)})
        with pytest.raises(TypeError, match="not trusted"):
            load_model(write(tmp_path / "made.skan", search))


def test_what_is_trusted_in_its_place(tmp_path):
    for scoring in ("roc_auc", get_scorer("roc_auc"), image_auroc_scorer, IMAGE_SCORERS):
        search = GridSearchCV(KNN, {"topk": [1, 2]}, scoring=scoring, cv=KFold(2), refit=False)
        again = load_model(write(tmp_path / "made.skan", search))
        assert repr(again.scoring) == repr(scoring)
    values = [np.float32, np.dtype("f4"), slice(1, 2), b"a", {1}, np.ma.MaskedArray([1.0], [True])]
    assert repr(load_model(write(tmp_path / "a.skan", transformer(values))).kw_args["value"]) == (
        repr(values)
    )


def test_one_part_is_not_taken_for_another(tmp_path):
    """skops takes the first part of an id for the others, whatever these are."""

    def type_as_value(attributes):
        key = attributes["kw_args"]["key_types"]["content"][0]
        attributes["func"] = {**attributes["func"], "__id__": key["__id__"]}

    def value_as_type(attributes):
        key = attributes["kw_args"]["key_types"]["content"][0]
        attributes["inverse_func"]["__id__"] = key["__id__"]

    def other_keys(attributes):
        other = {**attributes["kw_args"]["key_types"], "content": [attributes["inverse_func"]]}
        attributes["func"] = other

    for change in (type_as_value, value_as_type, other_keys):
        tree = FunctionTransformer(inverse_func=np.exp, kw_args={"a": 1})
        data = rewritten(tree, change)
        with pytest.raises((TypeError, ValueError), match=r"not trusted|a key is|not as skanomaly"):
            load_model(write(tmp_path / "made.skan", data))


def test_parts_of_another_kind_than_they_say(tmp_path):
    ours = {"__module__": "skanomaly.anomalib._detector", "__class__": "AnomalibDetector"}
    for value in ([1], (1,), {1}, np.arange(3), np.float32(1), {"a": 1}, np.random.RandomState(0)):
        data = rewritten(
            transformer(value), lambda a: a["kw_args"]["content"]["value"].update(ours)
        )
        with pytest.raises(TypeError, match="not trusted: .*AnomalibDetector"):
            load_model(write(tmp_path / "made.skan", data))
    for value in (functools.partial(np.add, 1), operator.itemgetter(0), frozenset([1])):
        data = rewritten(
            transformer(value), lambda a: a["kw_args"]["content"]["value"].update(ours)
        )
        with pytest.raises((TypeError, ValueError), match=r"not trusted|not as skanomaly"):
            load_model(write(tmp_path / "made.skan", data))
    for loader in ("CachedNode", "Unknown"):
        other = {"__loader__": loader}
        data = rewritten(
            transformer(1), lambda a, other=other: a["kw_args"]["content"]["value"].update(other)
        )
        with pytest.raises(ValueError, match=f"a part is a {loader}"):
            load_model(write(tmp_path / "made.skan", data))


GRIDS = [
    GridSearchCV(AnomalibDetector(), {"trust": [True], "checkpoint_path": ["a.ckpt"]}),
    GridSearchCV(make_pipeline(KNN), [{"filterbankpatches__cache_dir": ["/x"]}]),
    RandomizedSearchCV(make_pipeline(KNN), {"memory": ["/x"]}),
    FunctionTransformer(kw_args={"trust": True}),
    FunctionTransformer(kw_args={"a": [({"b__cache_dir": "/x"},)]}),
]


@pytest.mark.parametrize("tree", GRIDS, ids=repr)
def test_what_only_a_person_sets_is_in_no_dictionary(tree, tmp_path):
    with pytest.raises(ValueError, match="cache_dir, memory, trust are not kept in a file"):
        load_model(write(tmp_path / "made.skan", tree))
    with pytest.raises(TypeError, match="cache_dir, memory, trust are not kept in a file"):
        save_model(tree, tmp_path / "new.skan")


def held_pipeline(value):
    while not isinstance(value, Pipeline):
        if isinstance(value, np.ndarray):
            value = np.ma.getdata(value).ravel()
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return value


def test_trust_and_folders_are_found_wherever_they_stand(tmp_path):
    detector = AnomalibDetector("model.pt", trust=True)
    detector._file = "model.pt", "0" * 64  # else its digest is asked for
    pipe = Pipeline([("a", FilterBankPatches(cache_dir="/x")), ("b", detector)], memory="/x")
    array = np.empty(2, dtype=object)
    array.fill(pipe)
    for value in (array, np.ma.MaskedArray(array, False), {pipe}, [{"a": (pipe,)}]):
        write(tmp_path / "made.skan", transformer(value))
        save_model(transformer(value), tmp_path / "saved.skan")
        for name in ("made.skan", "saved.skan"):
            held = held_pipeline(load_model(tmp_path / name).kw_args["value"])
            assert held.memory is None and held[0].cache_dir is None and held[1].trust is False
    assert pipe.memory == "/x" and detector.trust is True


def test_a_random_state_that_reads_elsewhere(tmp_path):
    def change(attributes):
        state = attributes["random_state"]["content"]["content"]["state"]
        state["content"]["pos"]["content"] = "100000"

    data = rewritten(PCA(random_state=np.random.RandomState(0)), change)
    # Newer than 2.4, NumPy refuses it when the state is set.
    with pytest.raises(ValueError, match=r"RandomState is at the place 100000|state position must"):
        load_model(write(tmp_path / "made.skan", data))


def test_arrays_within_the_tree(tmp_path):
    tree = transformer(np.arange(3.0))
    packed = io.BytesIO()
    np.savez(packed, a=np.arange(3))
    long = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        long, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    for data in (packed.getvalue(), long.getvalue(), b""):
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(skops.io.dumps(tree))) as archive:
            with zipfile.ZipFile(out, "w") as new:
                for name in archive.namelist():
                    new.writestr(name, data if name.endswith("npy") else archive.read(name))
        with pytest.raises(ValueError, match="not as skanomaly writes model files"):
            load_model(write(tmp_path / "made.skan", out.getvalue()))
