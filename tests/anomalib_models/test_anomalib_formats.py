"""Real exports of anomalib in all formats, through the estimator."""

import os
import pickle
import sys
import types
import warnings

import numpy as np
import pytest
from sklearn.base import clone

pytest.importorskip("torch")
pytest.importorskip("anomalib")
tiny = pytest.importorskip("_anomalib_tiny")

from skanomaly import AnomalibDetector, anomaly_maps  # noqa: E402
from skanomaly.anomalib._checkpoints import load_exported_module  # noqa: E402

SUFFIXES = {"ckpt": ".ckpt", "torch": ".pt", "onnx": ".onnx", "openvino": ".xml"}
# Making a graph takes seconds. The other families, and all of them as .ckpt, are tested in
# test_anomalib_checkpoints.py.
QUICK = [("padim", "ckpt"), ("padim", "torch"), ("padim", "onnx")]
SLOW = [
    ("padim", "openvino"),
    ("patchcore", "torch"),
    ("patchcore", "onnx"),
    ("patchcore", "openvino"),
    ("efficient_ad", "onnx"),
    ("cflow", "onnx"),  # whose scores depend on the batch
    ("dfkde", "onnx"),  # which has no map
]


def detector(anomalib_checkpoints, family, kind, **options):
    path = (
        anomalib_checkpoints.get(family).path
        if kind == "ckpt"
        else anomalib_checkpoints.export(family, kind)
    )
    assert path.suffix == SUFFIXES[kind]
    return AnomalibDetector(path, device="cpu", trust=kind == "torch", **options)


@pytest.mark.parametrize(
    ("family", "kind"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)]
)
def test_every_format_gives_anomalibs_raw_scores(anomalib_checkpoints, family, kind):
    if kind in ("onnx", "openvino"):
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime" if kind == "onnx" else "openvino")
    trained = anomalib_checkpoints.get(family)
    model = detector(anomalib_checkpoints, family, kind, batch_size=3)
    scores = model.score_samples(trained.images)
    tolerance = 1e-5 if kind in ("ckpt", "torch") else 1e-4
    scale = max(1, np.abs(trained.scores).max())
    np.testing.assert_allclose(-scores, trained.scores, rtol=0, atol=tolerance * scale)
    assert model.raw_scores_
    assert model.family_ == (None if kind == "openvino" else family)
    if trained.maps is not None:
        maps = model.score_maps(trained.images, size="model")
        scale = max(1, np.abs(trained.maps).max())
        tolerance = tiny.rounding(trained, tolerance)
        np.testing.assert_allclose(maps, trained.maps, rtol=0, atol=tolerance * scale)
        assert anomaly_maps(model, trained.images).shape == (8, 96, 96)
    # The checkpoint's own threshold: that of anomalib's labels.
    expected = np.where(trained.scores > float(trained.model.post_processor.image_threshold), -1, 1)
    clear = np.abs(trained.scores - float(trained.model.post_processor.image_threshold)) > 1e-3
    np.testing.assert_array_equal(model.predict(trained.images)[clear], expected[clear])


@pytest.mark.slow
def test_graph_in_which_steps_were_merged_keeps_the_order(anomalib_checkpoints):
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    trained = anomalib_checkpoints.get("dfkde")
    scores = detector(anomalib_checkpoints, "dfkde", "openvino").score_samples(trained.images)
    # OpenVINO merges the last step of the model with the first of the post-processor.
    assert np.corrcoef(-scores, trained.scores)[0, 1] > 1 - 1e-6
    assert len(np.unique(scores)) == len(scores)


@pytest.mark.parametrize("kind", ["ckpt", "torch"])
def test_images_are_resized_as_in_training(anomalib_checkpoints, kind):
    images = tiny.textures(2, 1, side=200)  # to 64: antialiasing matters
    trained = anomalib_checkpoints.get("padim")
    scores = detector(anomalib_checkpoints, "padim", kind).score_samples(images)
    np.testing.assert_allclose(-scores, tiny.own_output(trained.model, images)[0], rtol=1e-5)
    import torch

    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        exported = trained.model.model(trained.model.pre_processor(x)).pred_score.numpy()
    assert np.abs(exported + scores).max() > 1e-2


@pytest.mark.parametrize("kind", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_graphs_get_images_resized_as_in_training(anomalib_checkpoints, kind):
    images = tiny.textures(2, 1, side=200)
    trained = anomalib_checkpoints.get("padim")
    scores = detector(anomalib_checkpoints, "padim", kind).score_samples(images)
    expected = tiny.own_output(trained.model, images)[0]
    np.testing.assert_allclose(-scores, expected, rtol=1e-4)


def test_exported_module_needs_trust_and_sets_no_variable(anomalib_checkpoints):
    path = anomalib_checkpoints.export("padim", "torch")
    before = dict(os.environ)
    with pytest.raises(ValueError, match="trust=True"):
        AnomalibDetector(path).score_samples(tiny.textures(1))
    detector(anomalib_checkpoints, "padim", "torch").score_samples(tiny.textures(1))
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "family", ["anomaly_dino", pytest.param("winclip", marks=pytest.mark.slow)]
)
def test_exported_modules_of_other_families(anomalib_checkpoints, family):
    trained = anomalib_checkpoints.get(family)
    model = detector(anomalib_checkpoints, family, "torch")
    np.testing.assert_allclose(-model.score_samples(trained.images), trained.scores, atol=1e-5)
    assert model.family_ == family


def test_files_that_are_no_exported_modules(tmp_path, anomalib_checkpoints):
    import torch

    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="does not hold a model as anomalib exports it"):
        load_exported_module(tmp_path / "other.pt", trust=True)
    data = anomalib_checkpoints.export("padim", "torch").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="cut.pt could not be read; it is damaged"):
        load_exported_module(tmp_path / "cut.pt", trust=True)
    with pytest.raises(FileNotFoundError, match="nothing.pt"):
        load_exported_module(tmp_path / "nothing.pt", trust=True)


def test_exported_modules_of_other_versions_of_anomalib(tmp_path, anomalib_checkpoints):
    import torch

    path = anomalib_checkpoints.export("padim", "torch")
    content = torch.load(path, weights_only=False)
    # As anomalib 2.0 wrote it: an attribute that its class has today is not there.
    del content["model"].model.feature_extractor._uses_intermediates
    torch.save(content, tmp_path / "changed.pt")
    gone = types.ModuleType("anomalib_moved")
    gone.Class = type("Class", (), {"__module__": gone.__name__})
    sys.modules[gone.__name__] = gone
    try:
        torch.save({"model": content["model"], "other": gone.Class()}, tmp_path / "moved.pt")
    finally:
        del sys.modules[gone.__name__]
    for name in ("changed", "moved"):
        with pytest.raises(ValueError, match=f"{name}.pt does not fit anomalib 2.*needs the anom"):
            load_exported_module(tmp_path / f"{name}.pt", trust=True)


def test_an_exported_module_for_images_of_one_size(tmp_path, anomalib_checkpoints):
    import torch

    content = torch.load(anomalib_checkpoints.export("padim", "torch"), weights_only=False)
    own = content["model"].pre_processor.transform
    # It fits images of 96 x 96 pixels alone: a RuntimeError for all others.
    one_size = torch.nn.Sequential(torch.nn.Flatten(2), torch.nn.Unflatten(2, (96, 96)), own)
    content["model"].pre_processor.transform = one_size
    torch.save(content, tmp_path / "fixed.pt")
    with pytest.raises(RuntimeError):
        one_size(torch.zeros(1, 3, 64, 64))
    model = load_exported_module(tmp_path / "fixed.pt", trust=True)
    image = tiny.textures(1, side=96)[0].astype(np.float32) / 255
    free = load_exported_module(anomalib_checkpoints.export("padim", "torch"), trust=True)
    np.testing.assert_allclose(model.predict([image])[1], free.predict([image])[1], rtol=1e-6)


@pytest.mark.parametrize("kind", ["ckpt", "torch"])
def test_alias_of_another_family_refuses(anomalib_checkpoints, kind):
    model = detector(anomalib_checkpoints, "padim", kind).set_params(family="stfpm")
    with pytest.raises(ValueError, match="'padim', not (of )?'stfpm'"):
        model.score_samples(tiny.textures(1))


@pytest.mark.slow
def test_calibration_on_held_out_good_images(anomalib_checkpoints):
    rng = np.random.default_rng(5)
    good = tiny.textures(240, seed=rng.integers(1000), side=32)
    model = detector(anomalib_checkpoints, "padim", "ckpt", contamination=0.1)
    model.fit(good[:120])
    flagged = (model.predict(good[120:]) == -1).mean()
    # Binomial spread of both halves: 3 sigma.
    assert abs(flagged - 0.1) < 3 * np.sqrt(2 * 0.1 * 0.9 / 120)
    defects = tiny.textures(0, 40, side=96)
    big = clone(model).fit(tiny.textures(60, seed=6))
    assert (big.predict(defects) == -1).mean() > 0.9


def test_pickles_are_small(anomalib_checkpoints):
    trained = anomalib_checkpoints.get("padim")
    model = detector(anomalib_checkpoints, "padim", "ckpt").fit(trained.images[:4])
    data = pickle.dumps(model)
    assert len(data) < 10_000 + 4 * 64 * 64 * 4  # with the held-out maps of four images
    copy = pickle.loads(data)
    np.testing.assert_array_equal(
        copy.decision_function(trained.images), model.decision_function(trained.images)
    )


@pytest.mark.slow
def test_a_checkpoint_that_crops_warns_once(anomalib_checkpoints):
    trained = anomalib_checkpoints.get("dinomaly")
    model = AnomalibDetector(trained.path, device="cpu", batch_size=5)
    with pytest.warns(UserWarning, match="sees only the middle"):
        maps = model.score_maps(trained.images)
    assert maps.shape == (8, 96, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score_samples(trained.images)
