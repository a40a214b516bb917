"""Exported models against the pipelines that they were exported from, on images that are new."""

import json
import pickle
import warnings

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skanomaly import (
    AnomalibDetector,
    DeployedDetector,
    FilterBankPatches,
    ImageUnion,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PCAForeground,
    PromptScorer,
    RegionOfInterest,
    RetrievalKNNScorer,
    ScoreUnion,
    TinyPatches,
    anomaly_maps,
    create_model,
    decide,
    export_model,
    load_model,
    p_values,
    recalibrate,
    save_model,
)
from skanomaly.datasets import make_surfaces
from skanomaly.deployment import _verification
from skanomaly.deployment._files import is_exported
from skanomaly.deployment._verification import altered, as_strangers
from skanomaly.model_selection import OneClassSplit

pytest.importorskip("onnx")

SIZE = 64
MADE = make_surfaces(14, 4, image_size=SIZE, random_state=0)
GOOD, NEW = MADE.images[:10], MADE.images[10:]
BANK, TINY = FilterBankPatches(image_size=SIZE), TinyPatches(image_size=SIZE)
LEFT = [(0, 0), (0.6, 0), (0.6, 1), (0, 1)]
PIPES = {
    "filter bank, near a place": make_pipeline(BANK, LocalKNNScorer(few=5)),
    "tiny network, few images": make_pipeline(TINY, LocalKNNScorer()),
    "coreset": make_pipeline(TINY, PatchKNNScorer(coreset=0.2)),
    "gaussian": make_pipeline(BANK, PatchGaussianScorer(n_components=20, random_state=0)),
    "subspace": make_pipeline(TINY, PatchSubspaceScorer(0.9)),
    "region": make_pipeline(BANK, RegionOfInterest(LEFT), PatchKNNScorer()),
    "scorers": make_pipeline(
        BANK, ScoreUnion([("knn", PatchKNNScorer()), ("plane", PatchSubspaceScorer())])
    ),
    "detectors": ImageUnion(
        [
            ("fine", make_pipeline(BANK, LocalKNNScorer(few=5))),
            ("coarse", make_pipeline(TinyPatches(image_size=SIZE, grid=16), PatchKNNScorer())),
        ],
        combination="max",
    ),
    "default of the command line": create_model("filterbank+tiny", image_size=SIZE),
}


@pytest.fixture(scope="module")
def simple():
    """A small fitted pipeline."""
    return make_pipeline(BANK, PatchKNNScorer(coreset=50)).fit(GOOD)


@pytest.fixture(scope="module")
def exported(simple, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "parts.onnx"
    export_model(simple, path, images=GOOD)
    return path


def check_same(pipe, detector, images, score=1e-5, heat=1e-4):
    maps, scores = anomaly_maps(pipe, images, return_scores=True)
    found, other = anomaly_maps(detector, images, return_scores=True)
    np.testing.assert_allclose(other, scores, rtol=score)
    span = np.abs(maps).max()
    np.testing.assert_allclose(found, maps, atol=heat * span)
    np.testing.assert_allclose(detector.score_maps(images), maps, atol=heat * span)
    np.testing.assert_array_equal(detector.predict(images), pipe.predict(images))
    np.testing.assert_allclose(p_values(detector, images), p_values(pipe, images))


@pytest.mark.parametrize("name", PIPES)
def test_says_of_new_images_what_the_pipeline_says(name, tmp_path):
    pipe = clone(PIPES[name]).fit(GOOD)
    found = export_model(pipe, tmp_path / "parts.onnx", images=GOOD)
    assert found["verified"]["n_images"] == len(GOOD)
    assert found["verified"]["score_deviation"] < 1e-5
    assert found["bytes"] == (tmp_path / "parts.onnx").stat().st_size
    check_same(pipe, DeployedDetector(tmp_path / "parts.onnx"), NEW)


def test_search_of_a_pipeline(tmp_path):
    search = GridSearchCV(
        make_pipeline(BANK, PatchKNNScorer(coreset=50)),
        {"patchknnscorer__n_neighbors": [1, 2]},
        cv=OneClassSplit(2),
        scoring="roc_auc",
    )
    search.fit([*GOOD, *MADE.images[14:]], [1] * len(GOOD) + [-1] * 4)
    export_model(search, tmp_path / "parts.onnx", images=GOOD)
    check_same(search.best_estimator_, DeployedDetector(tmp_path / "parts.onnx"), NEW)


def test_groups_and_moved_thresholds(simple, tmp_path):
    """What decides is the threshold of now, and the p-value counts groups."""
    pipe = clone(simple).fit(GOOD, patchknnscorer__groups=np.arange(10) // 3)
    strict = recalibrate(pipe, threshold=float(np.median(pipe.score_samples(NEW))))
    export_model(strict, tmp_path / "parts.onnx", images=GOOD)
    detector = DeployedDetector(tmp_path / "parts.onnx")
    check_same(strict, detector, NEW)
    assert set(detector.predict(NEW)) == {1, -1}
    assert detector.calibration_ == strict[-1].calibration_


def test_texts_that_saw_no_image(tmp_path):
    scorer = PromptScorer(
        text_features_normal=np.eye(102)[0] + 1, text_features_anomaly=np.eye(102)[1] + 1
    )
    pipe = make_pipeline(BANK, scorer)
    path = tmp_path / "parts.onnx"
    export_model(pipe, path, images=GOOD)
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    assert names == ["score", "decision", "anomaly_map", "patch_scores"]
    detector = DeployedDetector(path)
    np.testing.assert_allclose(detector.score_samples(NEW), pipe.score_samples(NEW), rtol=1e-5)
    np.testing.assert_array_equal(detector.predict(NEW), pipe.predict(NEW))
    with pytest.raises(AttributeError, match="gives no p-values"):
        detector.p_values(NEW)
    assert decide(detector, NEW[:1])[0].p_value is None


def test_images_of_any_size(simple, tmp_path):
    path = tmp_path / "parts.onnx"
    wide = np.concatenate([GOOD[0], GOOD[1]], axis=1)
    mixed = [GOOD[0], wide, GOOD[2]]
    with pytest.raises(ValueError, match=r"image 1 is \(64, 128\), image 0 is \(64, 64\)"):
        export_model(simple, path, images=mixed)
    found = export_model(simple, path, images=mixed, any_size=True)
    assert found["height"] == found["width"] == "any"
    detector = DeployedDetector(path)
    pixel = np.full((1, 1, 3), 90, dtype=np.uint8)
    images = [pixel, NEW[0], wide[:, 20:], wide[:7]]
    np.testing.assert_allclose(
        detector.score_samples(images), simple.score_samples(images), rtol=1e-5
    )
    maps = detector.score_maps(images)
    assert [heat.shape for heat in maps] == [image.shape[:2] for image in images]
    for heat, other in zip(maps, anomaly_maps(simple, images), strict=True):
        np.testing.assert_allclose(heat, other, atol=1e-4 * np.ptp(other) + 1e-6)


def test_images_of_one_pixel(tmp_path):
    pixels = [np.full((1, 1, 3), grey, dtype=np.uint8) for grey in range(60, 220, 20)]
    pipe = make_pipeline(BANK, PatchKNNScorer(metric="euclidean")).fit(pixels)
    export_model(pipe, tmp_path / "parts.onnx", images=pixels)
    new = [np.array([[[10, 200, 30]]], dtype=np.uint8)]
    check_same(pipe, DeployedDetector(tmp_path / "parts.onnx"), new)


def test_one_training_image(tmp_path):
    with pytest.warns(UserWarning, match="single image"):
        pipe = make_pipeline(BANK, PatchKNNScorer()).fit(GOOD[:1])
    export_model(pipe, tmp_path / "parts.onnx", images=GOOD[:1])
    check_same(pipe, DeployedDetector(tmp_path / "parts.onnx"), NEW)


def test_verified_with_images_that_stay_as_they_are_in_a_mirror(simple, tmp_path):
    """A training image whose altered copy is itself gets no held-out score in the comparison."""
    flat = [np.full((SIZE, SIZE, 3), grey, dtype=np.uint8) for grey in (0, 40, 90, 150, 200)]
    pipe = make_pipeline(BANK, PatchKNNScorer(metric="euclidean")).fit(flat)
    assert (altered(flat[0], 0) == flat[0]).all()
    export_model(pipe, tmp_path / "parts.onnx", images=flat)
    check_same(pipe, DeployedDetector(tmp_path / "parts.onnx"), NEW)


def test_strangers_know_no_training_image(simple):
    stranger = as_strangers(simple)
    np.testing.assert_array_equal(stranger.score_samples(NEW), simple.score_samples(NEW))
    known, unknown = simple.score_samples(GOOD), stranger.score_samples(GOOD)
    np.testing.assert_array_equal(known, simple[-1].train_scores_)
    assert (np.abs(unknown / known - 1) > 0.01).all()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"score": lambda value: value * 1.001}, "image 0.* in a mirror, scores .* apart"),
        ({"score": lambda value: value * np.nan}, "image 0.*scores nan in the graph"),
        ({"decision": lambda value: -value}, "image 0.* is called"),
        ({"anomaly_map": lambda value: value * 1.01}, "has maps that are .* apart"),
        ({"anomaly_map": lambda value: value * np.nan}, "has maps that are nan apart"),
        ({"p_value": lambda value: value / 2}, "p-values"),
    ],
)
def test_graph_that_says_something_else_is_not_written(
    simple, tmp_path, monkeypatch, outputs, message
):
    right = _verification.verify

    def wrong(run, *rest):
        def changed(images):
            found = run(images)
            return {k: outputs.get(k, lambda value: value)(v) for k, v in found.items()}

        return right(changed, *rest)

    monkeypatch.setattr("skanomaly.deployment._export.verify", wrong)
    with pytest.raises(ValueError, match=message):
        export_model(simple, tmp_path / "parts.onnx", images=GOOD)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("threshold", "n_anomalous", "words"),
    [
        (-1e9, 0, "None of the 10 altered copies.* images of known defects"),
        (1e9, 10, "All of the 10 altered copies.* images of good parts"),
    ],
)
def test_decisions_of_one_side_are_told(simple, tmp_path, threshold, n_anomalous, words):
    moved = recalibrate(simple, threshold=threshold)
    with pytest.warns(UserWarning, match=words):
        found = export_model(moved, tmp_path / "parts.onnx", images=GOOD)
    assert found["verified"]["n_anomalous"] == n_anomalous


def test_decisions_of_both_sides_are_told_without_a_warning(simple, tmp_path):
    copies = [altered(image, i) for i, image in enumerate(GOOD)]
    moved = recalibrate(simple, threshold=float(np.median(simple.score_samples(copies))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = export_model(moved, tmp_path / "parts.onnx", images=GOOD)
    assert found["verified"]["n_anomalous"] == 5


@pytest.mark.parametrize(
    ("pipe", "message"),
    [
        (make_pipeline(BANK, RetrievalKNNScorer()), "RetrievalKNNScorer has no form as a graph"),
        (make_pipeline(BANK, PCAForeground(threshold=1), PatchKNNScorer()), "PCAForeground"),
        (
            ImageUnion(
                [
                    ("one", make_pipeline(BANK, PatchKNNScorer())),
                    ("two", make_pipeline(BANK, RetrievalKNNScorer())),
                ]
            ),
            "detector 'two': RetrievalKNNScorer has no form",
        ),
    ],
)
def test_what_cannot_be_a_graph_is_refused(pipe, message, tmp_path):
    pipe.fit(GOOD)
    with pytest.raises(ValueError, match=message):
        export_model(pipe, tmp_path / "parts.onnx", images=GOOD)
    assert not list(tmp_path.iterdir())


def test_detectors_of_others_are_refused(tmp_path):
    class Model:
        def predict(self, image):
            return {"pred_score": float(image.mean()), "anomaly_map": image.mean(axis=2)}

    detector = AnomalibDetector(inferencer=Model()).fit(GOOD)
    with pytest.raises(ValueError, match="AnomalibDetector is a model of another package"):
        export_model(detector, tmp_path / "parts.onnx", images=GOOD)


def test_unfitted_and_changed_pipelines_are_refused(simple, tmp_path):
    path = tmp_path / "parts.onnx"
    with pytest.raises(NotFittedError):
        export_model(clone(simple), path, images=GOOD)
    changed = pickle.loads(pickle.dumps(simple)).set_params(patchknnscorer__n_neighbors=2)
    with pytest.raises(NotFittedError, match="n_neighbors"):
        export_model(changed, path, images=GOOD)
    with pytest.raises(TypeError, match="takes patch tokens, not images"):
        export_model(PatchKNNScorer(), path, images=GOOD)


def test_wrong_arguments(simple, tmp_path):
    for path, more, message in (
        ("parts.skan", {}, "must end in .onnx"),
        ("parts.xml", {}, "must end in .onnx for format='onnx'; .xml is of format='openvino'"),
        ("parts.onnx", {"format": "openvino"}, "must end in .xml"),
        ("parts.onnx", {"format": "tflite"}, "format must be"),
        ("parts.onnx", {"sigma": -1}, "sigma"),
    ):
        with pytest.raises(ValueError, match=message):
            export_model(simple, tmp_path / path, images=GOOD, **more)
    deep = [np.full((SIZE, SIZE), 3000, dtype=np.uint16)]
    with pytest.raises(ValueError, match="image 0 has more than 8 bits"):
        export_model(simple, tmp_path / "parts.onnx", images=deep)
    with pytest.raises(ValueError, match="0 sample"):
        export_model(simple, tmp_path / "parts.onnx", images=[])


def test_only_exported_models_are_replaced(simple, tmp_path):
    image = tmp_path / "good.png"
    Image.fromarray(GOOD[0]).save(image)
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(b"a model of somebody")
    with pytest.raises(FileExistsError, match="what skanomaly did not write"):
        export_model(simple, foreign, images=GOOD)
    assert foreign.read_bytes() == b"a model of somebody"
    link = tmp_path / "link.onnx"
    link.symlink_to(foreign)
    with pytest.raises(FileExistsError, match="is a link to"):
        export_model(simple, link, images=GOOD)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(FileExistsError, match="is a folder"):
        export_model(simple, tmp_path / "folder.onnx", images=GOOD)
    path = tmp_path / "new" / "parts.onnx"
    export_model(simple, path, images=[image])
    assert is_exported(path) and not is_exported(foreign) and not is_exported(image)
    before = path.read_bytes()
    export_model(simple, path, images=[image], sigma=0)
    assert path.read_bytes() != before
    assert [file.name for file in path.parent.iterdir()] == ["parts.onnx"]


def test_what_the_file_says_of_itself(simple, exported):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    manifest = json.loads({p.key: p.value for p in model.metadata_props}["skanomaly"])
    assert manifest == DeployedDetector(exported).fit().manifest_
    assert manifest["opset"] == model.opset_import[0].version == 18
    assert manifest["batch"] == "any" and manifest["height"] == manifest["width"] == SIZE
    assert manifest["versions"]["skanomaly"]
    assert manifest["estimator"]["parameters"]["patchknnscorer__coreset"] == "50"
    assert manifest["embedders"][0]["embedder"] == "FilterBankPatches"
    digests = manifest["training_images"]["sha256"]
    assert manifest["training_images"]["count"] == len(set(digests)) == len(GOOD)
    assert "paths" not in manifest["training_images"]
    assert manifest["threshold"]["offset"] == simple[-1].offset_
    assert manifest["threshold"]["calibration"] == simple[-1].calibration_
    assert manifest["verified"]["n_images"] == len(GOOD)
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "image": ["batch", SIZE, SIZE, 3],
        "score": ["batch"],
        "decision": ["batch"],
        "anomaly_map": ["batch", SIZE, SIZE],
        "patch_scores": ["batch", 8, 8],
        "p_value": ["batch"],
    }


def test_batches_of_any_size(simple, exported):
    session = onnxruntime.InferenceSession(exported)
    outputs = [output.name for output in session.get_outputs()]
    together = dict(zip(outputs, session.run(None, {"image": np.stack(NEW)}), strict=True))
    for i, image in enumerate(NEW):
        alone = dict(zip(outputs, session.run(None, {"image": image[None]}), strict=True))
        for name in outputs:
            np.testing.assert_allclose(alone[name][0], together[name][i], rtol=1e-5, atol=1e-7)


def test_detector_as_any_other(simple, exported):
    detector = DeployedDetector(exported)
    assert "DeployedDetector" in repr(detector)
    np.testing.assert_array_equal(detector.fit_predict(NEW), simple.predict(NEW))
    np.testing.assert_array_equal(detector.train_scores_, simple[-1].train_scores_)
    assert detector.offset_ == simple[-1].offset_
    assert detector.patch_limits_ == simple[-1].patch_limits_
    np.testing.assert_allclose(
        detector.decision_function(NEW), simple.decision_function(NEW), rtol=1e-4
    )
    for one, other in zip(decide(detector, NEW), decide(simple, NEW), strict=True):
        assert one.is_anomalous == other.is_anomalous and one.p_value == other.p_value
        assert one.threshold == other.threshold
    fresh = clone(detector)
    assert fresh.get_params() == {"path": exported} and "offset_" not in vars(fresh)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.score_samples(NEW), detector.score_samples(NEW))
    assert len(pickle.dumps(detector)) < 20_000


def test_detector_reads_what_a_person_calls_an_image(simple, exported, tmp_path):
    path = tmp_path / "new.png"
    Image.fromarray(NEW[0]).save(path)
    given = [path, str(path), path.read_bytes(), Image.open(path), NEW[0]]
    scores = DeployedDetector(str(exported)).score_samples(given)
    assert len(set(scores)) == 1
    grey = DeployedDetector(exported).score_samples([NEW[0][:, :, 0]])
    np.testing.assert_allclose(grey, simple.score_samples([NEW[0][:, :, 0]]), rtol=1e-5)


def test_detector_in_a_model_file_and_with_another_threshold(exported, tmp_path):
    detector = DeployedDetector(exported).fit()
    save_model(detector, tmp_path / "detector.skan")
    loaded = load_model(tmp_path / "detector.skan")
    np.testing.assert_array_equal(loaded.score_samples(NEW), detector.score_samples(NEW))
    moved = recalibrate(detector, threshold=10.0)
    assert (moved.predict(NEW) == -1).all() and (moved.offset_, detector.offset_ < 0) == (10, True)
    again = pickle.loads(pickle.dumps(moved))
    assert (again.predict(NEW) == -1).all()


def test_images_that_the_graph_does_not_take(exported):
    detector = DeployedDetector(exported)
    with pytest.raises(ValueError, match=r"image 1 is \(32, 64\), .* takes images of \(64, 64\)"):
        detector.predict([NEW[0], NEW[0][:32]])
    with pytest.raises(ValueError, match="image 0 has more than 8 bits"):
        detector.predict([NEW[0].astype(np.uint16) * 256])


def test_damaged_and_foreign_files(exported, tmp_path):
    data = exported.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for name, content, message in (
        ("foreign.onnx", b"nothing", "was not written by skanomaly.export_model"),
        ("empty.onnx", b"", "was not written by"),
        ("short.onnx", data[:-200], "was not written by"),
        ("flipped.onnx", bytes(flipped), "is damaged"),
        ("middle.onnx", data[:1000] + data[2000:], "is damaged"),
        ("graph.xml", data, "was not written by"),
        ("model.skan", data, "is no exported model"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            DeployedDetector(path).predict(NEW)
    with pytest.raises(FileNotFoundError, match="missing.onnx"):
        DeployedDetector(tmp_path / "missing.onnx").fit()


def test_sealed_files_that_hold_something_else(tmp_path):
    """A digest says that a file is whole, not that it is kind."""
    onnx = pytest.importorskip("onnx")
    from skanomaly.deployment._files import sealed

    helper = onnx.helper
    node = helper.make_node("Identity", ["image"], ["score"])
    value = [
        helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, ["batch", 2, 2, 3])
        for name in ("image", "score")
    ]
    model = helper.make_model(helper.make_graph([node], "other", value[:1], value[1:]))
    model.ir_version = 8
    path = tmp_path / "other.onnx"
    for manifest in (None, "{", "[]", "{}", '{"format": "skanomaly graph", "format_version": 99}'):
        del model.metadata_props[:]
        if manifest is not None:
            model.metadata_props.add(key="skanomaly", value=manifest)
        path.write_bytes(sealed([model.SerializeToString()], ".onnx")[0])
        with pytest.raises(ValueError, match="other.onnx"):
            DeployedDetector(path).fit()
    path.write_bytes(sealed([b"no graph"], ".onnx")[0])
    with pytest.raises(ValueError, match="other.onnx"):
        DeployedDetector(path).fit()


def test_file_that_was_replaced_is_another_model(simple, tmp_path):
    path = tmp_path / "parts.onnx"
    export_model(simple, path, images=GOOD)
    detector = DeployedDetector(path).fit()
    export_model(simple, path, images=GOOD, sigma=1)
    with pytest.raises(ValueError, match="is another file than"):
        detector.predict(NEW)
    clone(detector).predict(NEW)


@pytest.mark.slow
def test_openvino(simple, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "parts.xml"
    found = export_model(simple, path, images=GOOD, format="openvino")
    written = [path, path.with_suffix(".bin")]
    assert found["bytes"] == sum(file.stat().st_size for file in written)
    assert found["verified"]["score_deviation"] < 1e-5
    detector = DeployedDetector(path)
    check_same(simple, detector, NEW)
    assert detector.manifest_["estimator"]["parameters"]["patchknnscorer__coreset"] == "50"
    with pytest.raises(FileExistsError, match="what skanomaly did not write"):
        (tmp_path / "other.bin").write_bytes(b"somebody's")
        export_model(simple, tmp_path / "other.xml", images=GOOD, format="openvino")
    weights = bytearray(path.with_suffix(".bin").read_bytes())
    weights[100] ^= 1
    path.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(ValueError, match="is damaged"):
        DeployedDetector(path).fit()
    union = clone(PIPES["detectors"]).fit(GOOD)
    export_model(union, path, images=GOOD, format="openvino")
    check_same(union, DeployedDetector(path), NEW)
