"""Exported graphs, made by hand here: ONNX and OpenVINO without anomalib."""

import functools
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from skanomaly import AnomalibDetector
from skanomaly.anomalib import _onnx_file
from skanomaly.model_selection import OneClassSplit

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")
helper = onnx.helper

THRESHOLD, RANGE = 0.2, 0.1  # of the raw scores
SIDE = 16
RUNTIMES = ("onnx", "xml")


def post_processed(raw, out, style):
    """Nodes from a raw tensor to an output, in the ways that post-processors are exported."""

    def node(kind, inputs, name):
        return helper.make_node(kind, inputs, [name])

    unclipped = [
        node("Sub", [raw, "threshold"], f"{out}_sub"),
        node("Div", [f"{out}_sub", "range"], f"{out}_div"),
        node("Add", [f"{out}_div", "half"], f"{out}_add"),
    ]
    clip = node("Clip", [f"{out}_add", "zero", "one"], out)
    if style == "raw":
        return [node("Identity", [raw], out)]
    if style == "old":
        return [*unclipped, clip]
    if style == "new":
        clip = node("Clip", [f"{out}_add", "zero", "one"], f"{out}_clip")
        return [*unclipped, clip, node("Where", ["known", f"{out}_clip", raw], out)]
    if style == "merged":
        return [
            node("Mul", [raw, "ten"], f"{out}_mul"),
            node("Add", [f"{out}_mul", "minus"], f"{out}_add"),
            clip,
        ]
    if style == "minmax":
        low = node("Max", [f"{out}_add", "zero"], f"{out}_low")
        return [*unclipped, low, node("Min", [f"{out}_low", "one"], out)]
    if style == "own clip":
        return [node("Clip", [raw, "zero", "ten"], out)]
    raise AssertionError(style)


def make_graph(
    style="new", *, known=True, batch="n", sides=("h", "w"), resize=None, crop=None, score=True,
    map_=True, label=0.5, span=RANGE,
):  # fmt: skip
    """A model whose map is half the darkness of the pixels, and whose score is its maximum."""
    size = crop or resize or (sides if isinstance(sides[0], int) else (SIDE, SIDE))
    constants = {
        "threshold": np.float32(THRESHOLD), "range": np.float32(span), "half": np.float32(0.5),
        "zero": np.float32(0), "one": np.float32(1), "known": np.array(known),
        "ten": np.float32(1 / RANGE), "minus": np.float32(0.5 - THRESHOLD / RANGE),
        "limit": np.float32(label), "channel": np.array([1]), "plane": np.array([2, 3]),
    }  # fmt: skip
    nodes, pixels = [], "input"
    if resize:
        constants["resized"] = np.array([*resize])
        constants["two"], constants["nothing"] = np.array([2]), np.array([0])
        nodes += [
            helper.make_node("Shape", ["input"], ["shape"]),
            helper.make_node("Slice", ["shape", "nothing", "two", "nothing"], ["outer"]),
            helper.make_node("Concat", ["outer", "resized"], ["target"], axis=0),
            helper.make_node("Resize", ["input", "", "", "target"], ["small"], mode="cubic"),
        ]
        pixels = "small"
    if crop:
        start = np.array([(a - b) // 2 for a, b in zip(resize, crop, strict=True)])
        constants |= {"start": start, "stop": start + crop, "axes": np.array([2, 3])}
        nodes.append(helper.make_node("Slice", [pixels, "start", "stop", "axes"], ["cropped"]))
        pixels = "cropped"
    nodes += [
        helper.make_node("Sub", ["one", pixels], ["dark"]),
        helper.make_node("ReduceMean", ["dark", "channel"], ["grey"], keepdims=1),
        helper.make_node("Mul", ["grey", "half"], ["raw_map"]),  # a scaling of the model's own
        helper.make_node("ReduceMax", ["raw_map", "plane"], ["raw_score"], keepdims=0),
    ]
    outputs = []
    if score:
        nodes += post_processed("raw_score", "pred_score", style)
        outputs.append(("pred_score", onnx.TensorProto.FLOAT, [batch, 1]))
        if label is not None:
            nodes.append(helper.make_node("Greater", ["pred_score", "limit"], ["pred_label"]))
            outputs.append(("pred_label", onnx.TensorProto.BOOL, [batch, 1]))
    if map_:
        nodes += post_processed("raw_map", "anomaly_map", style)
        outputs.append(("anomaly_map", onnx.TensorProto.FLOAT, [batch, 1, *size]))
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [batch, 3, *sides])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [onnx.numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


def save(model, folder, runtime):
    path = folder / f"model.{runtime}"
    if runtime == "onnx":
        onnx.save(model, path)
    else:
        for suffix, content in converted(model.SerializeToString()).items():
            path.with_suffix(suffix).write_bytes(content)
    return path


@functools.cache
def converted(data):
    """The files of a graph of ONNX in OpenVINO; most of the time of a test, and often the same."""
    with tempfile.TemporaryDirectory() as folder:
        source, path = Path(folder) / "source.onnx", Path(folder) / "model.xml"
        source.write_bytes(data)
        openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=False)
        return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".xml", ".bin")}


def picture(seed, side=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def raw_map(image):
    return (1 - image.astype(np.float64) / 255).mean(axis=2) / 2


def filter_matrix(n_in, n_out, kernel, support):
    """An antialiased resampling along one axis, as torch and Pillow define it."""
    scale = max(n_in / n_out, 1)
    centre = (np.arange(n_out)[:, None] + 0.5) * n_in / n_out
    distance = np.abs(np.arange(n_in) + 0.5 - centre) / scale
    weights = np.where(distance < support, kernel(distance), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(image, side, kind):
    def cubic(x, a=-0.5):
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        return np.where(x < 1, near, a * (x**3 - 5 * x**2 + 8 * x - 4))

    kernel = (cubic, 2) if kind == "bicubic" else (lambda x: 1 - x, 1)
    rows, columns = (filter_matrix(n, side, *kernel) for n in image.shape[:2])
    return np.einsum("ih,hwc,jw->ijc", rows, image / 255.0, columns) * 255


X = [255 - picture(i) // (1 + i) for i in range(5)]
RAW = np.array([raw_map(image).max() for image in X])
NORMALIZED = np.clip((RAW - THRESHOLD) / RANGE + 0.5, 0, 1)  # from 0 to 1, both included


# Raw scores


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("style", "known"), [("new", True), ("new", False), ("raw", True), ("own clip", True)]
)
def test_scores_from_before_the_post_processor(tmp_path, runtime, style, known):
    path = save(make_graph(style, known=known), tmp_path, runtime)
    detector = AnomalibDetector(path, batch_size=2)
    maps, scores = detector.score_maps(X, return_scores=True)
    np.testing.assert_allclose(scores, -RAW, atol=1e-6)
    np.testing.assert_allclose(maps, [raw_map(image) for image in X], atol=1e-6)
    assert detector.raw_scores_ is True and detector.family_ is None
    own = -NORMALIZED if style == "new" and known else -RAW
    np.testing.assert_allclose(
        AnomalibDetector(path, normalized=True).score_samples(X), own, atol=1e-5
    )


def test_graphs_in_half_precision(tmp_path):
    source = save(make_graph(), tmp_path, "onnx")
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=True)
    detector = AnomalibDetector(path)
    np.testing.assert_allclose(detector.score_samples(X), -RAW, atol=1e-3)
    assert detector.raw_scores_ is True and set(detector.predict(X)) == {-1, 1}


def test_old_exports(tmp_path):
    detector = AnomalibDetector(save(make_graph("old"), tmp_path, "onnx"))
    np.testing.assert_allclose(detector.score_samples(X), -RAW, atol=1e-6)
    np.testing.assert_allclose(detector._backend().offset(normalized=False), -THRESHOLD, atol=1e-6)


@pytest.mark.parametrize("runtime_and_style", ["xml old", "xml merged", "onnx merged"])
def test_merged_steps_leave_unclipped_scores(tmp_path, runtime_and_style):
    runtime, style = runtime_and_style.split()
    detector = AnomalibDetector(save(make_graph(style), tmp_path, runtime))
    unclipped = (RAW - THRESHOLD) / RANGE + 0.5
    assert unclipped.max() > 1.5
    np.testing.assert_allclose(detector.score_samples(X), -unclipped, atol=1e-5)
    assert detector.raw_scores_ is True
    assert detector.predict(X).tolist() == np.where(RAW > THRESHOLD, -1, 1).tolist()


def test_only_normalised_scores_warn_once_and_say_so(tmp_path):
    path = save(make_graph("minmax"), tmp_path, "onnx")  # OpenVINO sees through this
    detector = AnomalibDetector(path)
    with pytest.warns(UserWarning, match="normalised scores only") as caught:
        scores = detector.score_samples(X)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(scores, -NORMALIZED, atol=1e-5)
    assert detector.raw_scores_ is False  # and no second warning
    assert detector.predict(X).tolist() == np.where(RAW > THRESHOLD, -1, 1).tolist()


def test_a_range_of_zero_still_gives_raw_scores(tmp_path):
    model = make_graph("new", span=1.0)  # what anomalib divides by when the range is 0
    nodes = model.graph.node
    for out, raw in (("pred_score", "raw_score"), ("anomaly_map", "raw_map")):
        where = next(node for node in nodes if out in node.output)
        where.input[1] = f"{out}_choice"
        at = list(nodes).index(where)
        nodes.insert(at, helper.make_node("Greater", [raw, "threshold"], [f"{out}_above"]))
        nodes.insert(
            at + 1, helper.make_node("Where", [f"{out}_above", "one", "zero"], [f"{out}_step"])
        )
        nodes.insert(
            at + 2,
            helper.make_node("Where", ["known", f"{out}_step", f"{out}_clip"], [f"{out}_choice"]),
        )
    detector = AnomalibDetector(save(model, tmp_path, "onnx"))
    np.testing.assert_allclose(detector.score_samples(X), -RAW, atol=1e-6)
    assert detector.predict(X).tolist() == np.where(RAW > THRESHOLD, -1, 1).tolist()


def test_another_file_in_place_of_the_first(tmp_path):
    for name, style in (("a", "new"), ("b", "merged")):
        (tmp_path / name).mkdir()
        save(make_graph(style), tmp_path / name, "onnx")
    detector = AnomalibDetector(tmp_path / "a" / "model.onnx")
    first = detector.score_samples(X)
    detector.set_params(checkpoint_path=tmp_path / "b" / "model.onnx")
    assert not np.allclose(detector.score_samples(X), first)
    pickle.loads(pickle.dumps(detector.set_params(checkpoint_path=tmp_path / "a" / "model.onnx")))
    np.testing.assert_array_equal(detector.fit(X).score_samples(X), first)
    with pytest.raises(NotFittedError, match="checkpoint_path of this AnomalibDetector changed"):
        detector.set_params(checkpoint_path=tmp_path / "b" / "model.onnx").predict(X)


# The checkpoint's own threshold


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("label", [0.5, 0.7])
def test_own_threshold_before_fit(tmp_path, runtime, label):
    path = save(make_graph(label=label), tmp_path, runtime)
    limit = THRESHOLD + (label - 0.5) * RANGE  # anomalib's sensitivity shifts it
    detector = AnomalibDetector(path)
    np.testing.assert_allclose(detector.decision_function(X), limit - RAW, atol=1e-6)
    assert set(detector.predict(X)) == {-1, 1}
    normalized = AnomalibDetector(path, normalized=True)
    np.testing.assert_allclose(normalized.decision_function(X), label - NORMALIZED, atol=1e-5)
    calibrated = detector.fit(X[:3], [1, -1, 1])
    np.testing.assert_allclose(calibrated.offset_, -RAW[0], atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("options", [{"label": None}, {"known": False, "span": np.nan}])
def test_without_a_threshold_predict_asks_for_fit(tmp_path, runtime, options):
    detector = AnomalibDetector(save(make_graph(**options), tmp_path, runtime))
    np.testing.assert_allclose(detector.score_samples(X), -RAW, atol=1e-6)
    with pytest.raises(NotFittedError, match="no threshold of its own"):
        detector.predict(X)
    assert detector.fit(X).predict(X).shape == (5,)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_graphs_without_one_of_the_outputs(tmp_path, runtime):
    (tmp_path / "a").mkdir()
    no_map = AnomalibDetector(save(make_graph(map_=False), tmp_path / "a", runtime))
    no_score = AnomalibDetector(save(make_graph(score=False), tmp_path, runtime))
    np.testing.assert_allclose(no_score.score_samples(X), -RAW, atol=1e-6)
    if runtime == "onnx":  # without its input's size or a map, nothing says what size is meant
        np.testing.assert_allclose(no_map.score_samples(X), -RAW, atol=1e-6)
    with pytest.raises(ValueError, match="image 0: this model gives scores, but no anomaly_map"):
        no_map.score_maps(X)
    for detector in (no_map, no_score):
        assert detector.raw_scores_ is True


# Sizes and batches


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("batch", [1, 3])
def test_graphs_of_a_fixed_batch_are_padded(tmp_path, runtime, batch):
    path = save(make_graph(batch=batch, sides=(SIDE, SIDE)), tmp_path, runtime)
    for batch_size in (1, 4, 8):
        maps, scores = AnomalibDetector(path, batch_size=batch_size).score_maps(
            X, return_scores=True
        )
        np.testing.assert_allclose(scores, -RAW, atol=1e-6)
        assert maps.shape == (5, SIDE, SIDE)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("options", "kind", "interpolation"),
    [
        ({"sides": (SIDE, SIDE)}, "bilinear", None),
        ({"sides": (SIDE, SIDE)}, "bicubic", "bicubic"),
        ({}, "bilinear", None),  # the size of the map
        ({"resize": (SIDE, SIDE)}, "bicubic", None),  # the graph's own resizing
        ({"resize": (SIDE, SIDE)}, "bilinear", "bilinear"),
    ],
)
def test_images_are_resized_with_antialiasing(tmp_path, runtime, options, kind, interpolation):
    path = save(make_graph("raw", **options), tmp_path, runtime)
    if runtime == "xml" and not options:
        pytest.skip("OpenVINO knows no size of this map, which the graph does not fix")
    images = [picture(7, 40), picture(8, 9), picture(9)]
    detector = AnomalibDetector(path, interpolation=interpolation)
    maps, scores = detector.score_maps(images, size="model", return_scores=True)
    expected = [raw_map(resized(image, SIDE, kind)) for image in images]
    np.testing.assert_allclose(maps, expected, atol=2e-6)
    np.testing.assert_allclose(scores, [-m.max() for m in expected], atol=2e-6)
    assert [m.shape for m in detector.score_maps(images)] == [(40, 40), (9, 9), (16, 16)]


def test_the_family_says_how_to_resize_where_the_graph_does_not(tmp_path):
    path = save(make_graph("raw", sides=(SIDE, SIDE)), tmp_path, "onnx")
    detector = AnomalibDetector(path, family="winclip")
    expected = -raw_map(resized(picture(7, 40), SIDE, "bicubic")).max()
    np.testing.assert_allclose(detector.score_samples([picture(7, 40)]), expected, atol=2e-6)
    assert detector.family_ == "winclip"
    with pytest.raises(ValueError, match="family='nonsense' is not known; known are .*padim"):
        AnomalibDetector(path, family="nonsense").score_samples(X)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_maps_of_a_crop_cover_the_whole_image(tmp_path, runtime):
    path = save(make_graph(resize=(20, 24), crop=(16, 16)), tmp_path, runtime)
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    detector = AnomalibDetector(path)
    with pytest.warns(UserWarning, match="sees the centre of an image only") as caught:
        maps, scores = detector.score_maps([image], return_scores=True)
    assert caught[0].filename == __file__
    inner = raw_map(image)[2:18, 4:20]
    expected = np.full((20, 24), inner.min())
    expected[2:18, 4:20] = inner
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)
    np.testing.assert_allclose(scores, -inner.max(), atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_maps_of_a_crop_where_the_input_is_fixed_to_its_size(tmp_path, runtime):
    path = save(make_graph(sides=(SIDE, SIDE), resize=(20, 24), crop=(16, 16)), tmp_path, runtime)
    with pytest.warns(UserWarning, match="sees the centre of an image only"):
        maps = AnomalibDetector(path).score_maps(X[:1], size="model")
    assert maps.shape == (1, 20, 24)
    border = np.ones((20, 24), dtype=bool)
    border[2:18, 4:20] = False
    assert (maps[0][border] == maps.min()).all() and maps[0][~border].max() > maps.min()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("batch", ["n", 3])
def test_scores_do_not_depend_on_the_batch_where_those_of_the_graph_do(tmp_path, runtime, batch):
    model = make_graph("raw", batch=batch, sides=(SIDE, SIDE))  # the map less the batch's minimum
    graph = model.graph
    graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4), "all"))
    at = next(i for i, node in enumerate(graph.node) if "raw_map" in node.output)
    graph.node[at].output[0] = "scaled"
    graph.node.insert(at + 1, helper.make_node("ReduceMin", ["scaled", "all"], ["least"]))
    graph.node.insert(at + 2, helper.make_node("Sub", ["scaled", "least"], ["raw_map"]))
    detector = AnomalibDetector(save(model, tmp_path, runtime))
    expected = [raw_map(image) - raw_map(image).min() for image in X]
    maps, scores = detector.score_maps(X, return_scores=True)
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    np.testing.assert_allclose(scores, [-heat.max() for heat in expected], atol=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_graphs_that_can_take_batches_are_given_them(tmp_path, runtime, monkeypatch):
    detector = AnomalibDetector(save(make_graph(), tmp_path, runtime), batch_size=4)
    backend, sizes = detector._backend(), []
    infer = type(backend)._infer
    monkeypatch.setattr(
        type(backend), "_infer", lambda self, x, own: (sizes.append(len(x)), infer(self, x, own))[1]
    )
    detector.score_samples(X)
    assert sizes == [4, 1]


def test_an_onnx_graph_knows_its_family_by_the_notes_of_torch(tmp_path):
    model = make_graph("raw", sides=(SIDE, SIDE))
    entry = model.graph.node[0].metadata_props.add()
    entry.key = "pkg.torch.onnx.class_hierarchy"
    entry.value = "['anomalib.models.image.winclip.lightning_model.WinClip', 'aten.sub']"
    path = save(model, tmp_path, "onnx")
    detector = AnomalibDetector(path)
    expected = -raw_map(resized(picture(7, 40), SIDE, "bicubic")).max()
    np.testing.assert_allclose(detector.score_samples([picture(7, 40)]), expected, atol=2e-6)
    assert detector.family_ == "winclip"
    with pytest.raises(ValueError, match="of the family 'winclip', not 'padim'"):
        AnomalibDetector(path, family="padim").score_samples(X)


def test_sixteen_bit_images_keep_their_depth(tmp_path):
    path = save(make_graph("raw"), tmp_path, "onnx")
    image = np.full((SIDE, SIDE), 65535 - 1000, dtype=np.uint16)
    image[3, 4] -= 7
    scores = AnomalibDetector(path).score_samples([image])
    np.testing.assert_allclose(scores, -1007 / 65535 / 2, atol=1e-7)


# Files


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_pickles_know_their_file(tmp_path, runtime):
    path = save(make_graph(), tmp_path, runtime)
    detector = AnomalibDetector(str(path))  # used by nobody yet
    data = pickle.dumps(detector)
    assert len(data) < 2000
    np.testing.assert_array_equal(
        pickle.loads(data).score_samples(X), detector.fit(X).score_samples(X)
    )
    fitted = pickle.dumps(detector)
    part = path.with_suffix(".bin") if runtime == "xml" else path
    shutil.copy(part, tmp_path / "kept")
    save(make_graph(label=0.6, span=0.3), tmp_path, runtime)
    for one in (detector, pickle.loads(data), pickle.loads(fitted)):
        with pytest.raises(ValueError, match="has changed since"):
            one.predict(X)
    assert detector.fit(X).predict(X).shape == (5,)  # of the new file
    os.remove(part)
    with pytest.raises(FileNotFoundError, match="model.bin is not there|has moved"):
        pickle.loads(fitted).predict(X)


def test_weights_beside_an_onnx_file(tmp_path):
    model = make_graph()
    big = onnx.numpy_helper.from_array(np.zeros((3, 400), dtype=np.float32), "unused")
    model.graph.initializer.append(big)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    detector = AnomalibDetector(path)
    if "threshold" in _onnx_file.OnnxGraph(path.read_bytes()).constants:
        np.testing.assert_allclose(detector.score_samples(X), -RAW, atol=1e-6)
    (tmp_path / "model.onnx.data").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="model.onnx.data is not there"):
        AnomalibDetector(path).score_samples(X)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_links_to_graphs(tmp_path, runtime, monkeypatch):
    model = make_graph()
    big = onnx.numpy_helper.from_array(np.zeros((3, 400), dtype=np.float32), "unused")
    model.graph.initializer.append(big)
    path = save(model, tmp_path, runtime)
    if runtime == "onnx":
        onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=1000)
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "alias").symlink_to(path)  # its weights lie beside what it is a link to
    np.testing.assert_allclose(AnomalibDetector(folder / "alias").score_samples(X), -RAW, atol=1e-6)
    monkeypatch.setenv("HOME", str(folder))
    np.testing.assert_allclose(AnomalibDetector("~/alias").score_samples(X), -RAW, atol=1e-6)
    pickle.loads(pickle.dumps(AnomalibDetector("~/alias"))).score_samples(X)
    # As in the cache of a hub: each file is a link to a file of another name.
    weights = tmp_path / ("w.bin" if runtime == "onnx" else "model.bin")
    weights.rename(tmp_path / "blob")
    (folder / path.name).symlink_to(path)
    (folder / weights.name).symlink_to(tmp_path / "blob")
    detector = AnomalibDetector(folder / path.name)
    if runtime == "onnx":  # which onnxruntime refuses
        with pytest.raises(ValueError, match="it is a link: copy the files themselves"):
            detector.score_samples(X)
        return
    np.testing.assert_allclose(detector.score_samples(X), -RAW, atol=1e-6)
    (tmp_path / "blob").write_bytes((tmp_path / "blob").read_bytes() + b"more")
    with pytest.raises(ValueError, match="has changed since"):
        detector.score_samples(X)


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("../w", "outside of its folder"),
        ("/etc/hostname", "outside of its folder"),
        ("inner/../../w", "outside of its folder"),
        ("a\0b", "is damaged: it asks for a file"),
        ("a" * 5000, "is damaged: it asks for a file"),
    ],
)
def test_weights_outside_of_the_folder_are_refused(tmp_path, location, problem):
    folder = tmp_path / "inner"
    folder.mkdir()
    model = make_graph()
    onnx.save(
        model, folder / "model.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    (folder / "w").rename(tmp_path / "w")
    raw = (folder / "model.onnx").read_bytes()
    model = onnx.load_model_from_string(raw)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=problem):
        AnomalibDetector(folder / "model.onnx").score_samples(X)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_graphs_that_are_not_anomalibs(tmp_path, runtime):
    model = make_graph("raw")
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = {"pred_score": "logits", "anomaly_map": "mask"}.get(name, name)
    for output in model.graph.output:
        output.name = {"pred_score": "logits", "anomaly_map": "mask"}.get(output.name, output.name)
    path = save(model, tmp_path, runtime)
    with pytest.raises(ValueError, match="export of another project, or of anomalib before 2.0"):
        AnomalibDetector(path).score_samples(X)
    metadata = path.parent / "metadata.json"
    metadata.write_text("[")  # of another program: it says nothing
    with pytest.raises(ValueError, match="export of another project, or of anomalib before 2.0"):
        AnomalibDetector(path).score_samples(X)
    # As anomalib 0.x and 1.x wrote them beside their graphs.
    for version, entry in (("0.x", {"transform": {}, "min": 1.7}), ("1.x", {"pred_scores.min": 1})):
        metadata.write_text(json.dumps({"task": "segmentation", "image_threshold": 19.6, **entry}))
        with pytest.raises(ValueError, match=f"written by anomalib {version}, which is too old"):
            AnomalibDetector(path).score_samples(X)


def test_devices(tmp_path):
    for runtime in RUNTIMES:
        path = save(make_graph(), tmp_path, runtime)
        np.testing.assert_array_equal(
            AnomalibDetector(path, device="cpu").score_samples(X),
            AnomalibDetector(path).score_samples(X),
        )
        with pytest.raises(ValueError, match="device='tpu'"):
            AnomalibDetector(path, device="tpu").score_samples(X)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads(tmp_path, runtime):
    path = save(make_graph(), tmp_path, runtime)
    start, found = threading.Barrier(4), []

    def work():
        start.wait()
        for _ in range(10):
            found.append(AnomalibDetector(path, batch_size=1).score_samples(X))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == 40
    np.testing.assert_allclose(found, np.tile(-RAW, (40, 1)), atol=1e-6)


@pytest.mark.slow
def test_grid_search_in_other_processes(tmp_path):
    images, y = X * 3, np.where(np.tile(RAW, 3) > np.median(RAW), -1, 1)
    search = GridSearchCV(
        AnomalibDetector(save(make_graph(), tmp_path, "onnx")),
        {"contamination": [0.1, 0.5]},
        cv=OneClassSplit(3),
        scoring="roc_auc",
        n_jobs=2,
        error_score="raise",
    )
    assert search.fit(images, y).cv_results_["mean_test_score"].tolist() == [1, 1]


@pytest.mark.slow
def test_each_runtime_is_enough_alone_and_leaves_nothing_behind(tmp_path):
    for runtime, other in (("onnx", "openvino"), ("xml", "onnxruntime")):
        path = save(make_graph(), tmp_path, runtime)
        code = (
            "import sys\n"
            "class Missing:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] in ('torch', 'anomalib', 'onnx', {other!r}):\n"
            "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
            "sys.meta_path.insert(0, Missing())\n"
            "import numpy as np\n"
            "from skanomaly import AnomalibDetector\n"
            "image = np.zeros((20, 20, 3), np.uint8)\n"
            f"print(*AnomalibDetector({str(path)!r}).score_samples([image]))"
        )
        folder = tmp_path / f"work_{runtime}"
        folder.mkdir()
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        assert float(run.stdout) == -0.5 and not list(folder.iterdir())


# The reader of ONNX files


def test_reader_against_the_onnx_package(tmp_path):
    model = make_graph(resize=(SIDE, SIDE))
    graph = _onnx_file.OnnxGraph(model.SerializeToString())
    expected = [(n.op_type, list(n.input), list(n.output)) for n in model.graph.node]
    assert [node[:3] for node in graph.nodes] == expected
    assert [node[3] for node in graph.nodes if node[0] == "Resize"] == ["cubic"]
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    assert graph.constants.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(graph.constants[name], array)
        assert graph.constants[name].shape == array.shape


def test_truncated_and_damaged_files_give_one_kind_of_error(tmp_path):
    data = make_graph().SerializeToString()
    path = tmp_path / "model.onnx"
    rng = np.random.default_rng(0)
    for trial in range(200):
        if trial % 2:
            broken = bytearray(data)
            broken[rng.integers(0, len(data))] ^= 1 << rng.integers(0, 8)
        else:
            broken = data[: rng.integers(1, len(data))]
        path.write_bytes(bytes(broken))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                AnomalibDetector(path).score_samples(X[:1])
            except (ValueError, FileNotFoundError) as exc:
                assert str(path.parent) in str(exc) or "image 0" in str(exc)
            else:
                assert trial % 2  # a flipped bit may do no harm
