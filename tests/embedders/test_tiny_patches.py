"""Tests of TinyPatches; tests/core/test_tiny_network.py has those of the forward pass."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from _adapters import assert_same, random_image, random_images
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from skanomaly import (
    LocalKNNScorer,
    PatchKNNScorer,
    Tiled,
    TimmPatches,
    TinyPatches,
    create_model,
    load_model,
    model_manifest,
    save_model,
)
from skanomaly._images import resize_image
from skanomaly._networks import tiny
from skanomaly._networks.tiny import WEIGHTS, load_tiny
from skanomaly.core.threads import blas_threads
from skanomaly.core.tiny_network import tiny_tokens
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc_scorer
from skanomaly.model_selection import OneClassSplit

SIZES = [(70, 90), (40, 40), (64, 30), (20, 130), (64, 64)]


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(8, 3, surface="fabric", image_size=64, random_state=0)


@pytest.mark.parametrize(
    "image_size, grid, cells", [(8, 32, 1), (40, 32, 5), (16, 16, 1), (48, 16, 3), (256, 32, 32)]
)
def test_the_grid_is_in_proportion(image_size, grid, cells):
    tokens = TinyPatches(image_size=image_size, grid=grid).transform(random_images((70, 90)))
    assert (tokens.dtype, tokens.shape) == (np.float32, (1, cells, cells, 128))


@pytest.mark.parametrize("grid", [16, 32])
def test_the_default_size_is_that_of_none(grid):
    tokens = TinyPatches(grid=grid).transform(random_images((70, 90)))
    assert tokens.shape == (1, grid, grid, 128)
    assert_same(TinyPatches(image_size=None, grid=grid).transform(random_images((70, 90))), tokens)


@pytest.mark.parametrize(
    "resize, grid, size, expected",
    [
        ("squash", 32, (50, 130), (32, 32)),
        ("shortest_edge", 32, (50, 130), (32, 80)),
        ("shortest_edge", 16, (50, 130), (32, 80)),
        ("shortest_edge", 16, (130, 55), (80, 32)),
        ("shortest_edge", 32, (32, 48), (32, 48)),
    ],
)
def test_tokens_are_those_of_the_resized_image(resize, grid, size, expected):
    image = random_image(*size)
    tokens = TinyPatches(image_size=32, grid=grid, resize=resize).transform([image])
    network = load_tiny("pretrained").network
    assert_same(tokens[0], tiny_tokens(resize_image(image, expected), network, grid))


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
def test_an_image_has_the_same_tokens_to_the_bit_whatever_is_around_it(resize):
    X = random_images(*SIZES)
    embedder = TinyPatches(image_size=64, resize=resize)
    expected = [embedder.transform([image])[0] for image in X]
    for n_threads in (1, 2, 3):
        with threadpool_limits(n_threads, user_api="blas"):
            for params in ({}, {"n_jobs": 2}, {"n_jobs": -1}, {"batch_size": 1}, {"batch_size": 3}):
                found = clone(embedder).set_params(**params).transform(X)
                for one, other in zip(found, expected, strict=True):
                    assert_same(one, other)
            assert blas_threads() == n_threads


@pytest.mark.parametrize("row, column", [(0, 0), (0, 15), (5, 9), (12, 3), (15, 15)])
def test_a_scratch_changes_the_tokens_near_it_most(row, column):
    image = np.full((128, 128, 3), 120, np.uint8)
    scratched = image.copy()
    scratched[8 * row + 3 : 8 * row + 5, 8 * column : 8 * column + 8] = 255
    before, after = TinyPatches(image_size=128).transform([image, scratched])
    change = np.linalg.norm(after - before, axis=-1)
    peak = np.unravel_index(change.argmax(), change.shape)
    assert max(abs(peak[0] - row), abs(peak[1] - column)) <= 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_grey_and_constant_images(kind):
    white = 1 if kind == np.float32 else np.iinfo(kind).max
    X = [np.zeros((40, 50), kind), np.full((40, 50), white, kind), np.full((8, 8, 3), white, kind)]
    tokens = TinyPatches(image_size=64).transform(X)
    assert tokens.shape == (3, 8, 8, 128) and np.isfinite(tokens).all()
    np.testing.assert_array_equal(tokens[1], tokens[2])


def test_an_image_too_long_is_refused():
    images = [np.zeros((40, 40, 3), np.uint8), np.zeros((1, 2000, 3), np.uint8)]
    embedder = TinyPatches(image_size=64, resize="shortest_edge")
    with pytest.raises(ValueError, match=r"image 1 of \(1, 2000\) pixels .* 8192 is the most"):
        embedder.transform(images)


def test_it_is_found_by_its_names():
    for name in ("tiny", "vision_tiny"):
        model = create_model(name, grid=16, image_size=64)
        assert type(model["emb"]) is TinyPatches and type(model["local"]) is LocalKNNScorer
        assert model["emb"].grid == 16
    union = create_model("filterbank+tiny", image_size=64, tiny__grid=16)
    assert [name for name, _ in union.detectors] == ["filterbank", "tiny"]
    assert union.detectors[1][1]["emb"].get_params()["image_size"] == 64


def test_joined_with_a_transformer(surfaces):
    pytest.importorskip("timm")
    model = create_model(
        "tiny+vit_tiny_patch16_224", image_size=64, vit_tiny_patch16_224__weights="random"
    )
    assert type(model.detectors[1][1]["emb"]) is TimmPatches
    scores = model.fit(surfaces.images[:8]).score_samples(surfaces.images)
    assert np.isfinite(scores).all() and len(set(scores)) == 11


def test_a_search_over_grids_and_scorers(surfaces):
    model = make_pipeline(TinyPatches(image_size=64), PatchKNNScorer())
    choices = {"tinypatches__grid": [16, 32], "tinypatches__weights": ["pretrained", "random"]}
    search = GridSearchCV(model, choices, scoring=image_auroc_scorer, cv=OneClassSplit(2))
    search.fit(surfaces.images, surfaces.y)
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(
        again.score_samples(surfaces.images), search.score_samples(surfaces.images)
    )


def test_it_works_in_tiles():
    image = random_image(96, 160)
    tokens = Tiled(TinyPatches(), tile=64, overlap=0).transform([image[:64, :128]])
    parts = TinyPatches(image_size=64).transform([image[:64, :64], image[:64, 64:128]])
    assert_same(tokens[0], np.concatenate(list(parts), axis=1))


# Weights


def test_tokens_depend_on_the_weights_by_their_digest(tmp_path):
    X, copy = random_images((64, 64)), tmp_path / "copy.safetensors"
    shutil.copy(WEIGHTS, copy)
    ours, other, random = (
        TinyPatches(image_size=64, weights=weights) for weights in ("pretrained", copy, "random")
    )
    assert_same(other.transform(X), ours.transform(X))
    assert ours._origin() == other._origin()
    assert ours._origin()["weights"] == load_tiny("pretrained").digest
    assert random._origin()["weights"] != ours._origin()["weights"]
    assert np.abs(random.transform(X) - ours.transform(X)).max() > 1e-3


def test_dilations_count_as_the_weights_do(tmp_path):
    X, path, tensors = (
        random_images((64, 64)),
        tmp_path / "other.safetensors",
        tiny.random_tensors(7),
    )
    digest = tiny.digest_of(tensors)
    tiny_save(path, tensors, {"dilations": "1,2,1,4,1,2,4,1", "digest": digest})
    embedder = TinyPatches(image_size=64, weights=path, cache_dir=tmp_path / "cache").fit(X)
    before = embedder.transform(X)
    tiny_save(path, tensors, {"dilations": "1,1,1,1,1,1,1,1", "digest": digest})
    with pytest.raises(NotFittedError):
        embedder.transform(X)
    assert np.abs(clone(embedder).transform(X) - before).max() > 1e-3


@pytest.mark.parametrize("change", [{"weights": "random"}, {"grid": 16}, {"runtime": "torch"}])
def test_what_tokens_depend_on_may_not_change_after_fit(change):
    if "runtime" in change:
        pytest.importorskip("torch")
    X = random_images((64, 64))
    embedder = TinyPatches(image_size=64, device="cpu").fit(X).set_params(**change)
    with pytest.raises(NotFittedError, match=f"{next(iter(change))} of this TinyPatches changed"):
        embedder.transform(X)


def test_other_weights_in_another_version_of_the_package_are_noticed(
    surfaces, tmp_path, monkeypatch
):
    model = make_pipeline(TinyPatches(image_size=64), PatchKNNScorer()).fit(surfaces.images[:8])
    expected = model.score_samples(surfaces.images)
    path, whole = tmp_path / "model.skan", tmp_path / "whole.skan"
    save_model(model, path)
    save_model(model, whole, include_weights=True)
    (entry,) = model_manifest(path)["weights"]
    assert entry["value"] == entry["tag"] == "pretrained" and not entry["included"]
    assert len(entry["files"][0]["sha256"]) == 64
    assert whole.stat().st_size > path.stat().st_size + 0.9 * WEIGHTS.stat().st_size
    np.testing.assert_array_equal(load_model(path).score_samples(surfaces.images), expected)

    other = tmp_path / "tiny.safetensors"
    tensors = tiny.random_tensors(7)
    metadata = {"dilations": "1,2,1,4,1,2,4,1", "digest": tiny.digest_of(tensors)}
    tiny_save(other, tensors, metadata)
    monkeypatch.setattr(tiny, "WEIGHTS", other)
    tiny._load.cache_clear()
    try:
        with pytest.raises(NotFittedError, match="'pretrained' of this TinyPatches are other ones"):
            load_model(path).score_samples(surfaces.images)
        brought = load_model(whole, weights_dir=tmp_path / "put")
        np.testing.assert_array_equal(brought.score_samples(surfaces.images), expected)
        assert brought[0].weights.startswith("pretrained@")
    finally:
        tiny._load.cache_clear()


def tiny_save(path, tensors, metadata):
    from safetensors.numpy import save_file

    save_file(tensors, path, metadata)


def test_random_weights_need_no_file(surfaces, tmp_path):
    embedder = TinyPatches(image_size=64, weights="random")
    model = make_pipeline(embedder, PatchKNNScorer()).fit(surfaces.images[:8])
    save_model(model, tmp_path / "model.skan", include_weights=True)
    assert model_manifest(tmp_path / "model.skan")["weights"] == []


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="weights='imagenet' is neither 'pretrained' nor"):
        TinyPatches(weights="imagenet").transform(random_images((32, 32)))


# Runtimes


@pytest.mark.parametrize("resize", ["squash", "shortest_edge"])
@pytest.mark.parametrize("grid", [16, 32])
def test_torch_gives_the_same(grid, resize):
    pytest.importorskip("torch")
    X = [*random_images(*SIZES), random_images((50, 60))[0] / np.float32(255)]
    embedder = TinyPatches(image_size=64, grid=grid, resize=resize, device="cpu", batch_size=4)
    expected = embedder.transform(X)
    found = clone(embedder).set_params(runtime="torch").transform(X)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == np.float32 and one.flags.c_contiguous
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.slow
@pytest.mark.parametrize("grid", [16, 32])
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_converted_it_gives_the_same(runtime, grid, tmp_path, monkeypatch):
    for library in ("torch", "onnxscript", {"onnx": "onnxruntime"}.get(runtime, runtime)):
        pytest.importorskip(library)
    monkeypatch.setattr("skanomaly._networks.conversion.conversions_folder", lambda: tmp_path)
    X = random_images(*SIZES)
    embedder = TinyPatches(image_size=64, grid=grid)
    expected = embedder.transform(X)
    found = clone(embedder).set_params(runtime=runtime).transform(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert len(list(tmp_path.glob("*/model.*"))) >= 1


def test_numpy_takes_no_other_device():
    with pytest.raises(ValueError, match="runtime='numpy' runs on the CPU"):
        TinyPatches(device="cuda").transform(random_images((32, 32)))


def test_without_torch_all_but_its_runtimes_work():
    code = (
        "import sys, numpy as np\n"
        "from skanomaly import TinyPatches\n"
        "X = np.zeros((1, 16, 16, 3), np.uint8)\n"
        "assert TinyPatches(image_size=16).fit_transform(X).shape == (1, 2, 2, 128)\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
        "sys.modules['torch'] = sys.modules['timm'] = None\n"
        "for runtime in ('torch', 'onnx', 'openvino'):\n"
        "    try: TinyPatches(image_size=16, runtime=runtime).transform(X)\n"
        "    except ImportError as e: print(e)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count('pip install "skanomaly[torch]"') == 3
