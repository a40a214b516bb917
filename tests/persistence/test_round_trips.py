"""What comes out of a model file is what went in, to the bit, of every estimator."""

import datetime
import functools
import os
import pathlib

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skanomaly
from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    FunctionPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    PatchwiseScorer,
    PromptScorer,
    RetrievalKNNScorer,
    ScoreUnion,
    create_model,
    list_models,
    load_model,
    model_info,
    model_manifest,
    save_model,
)
from skanomaly._parameters import without_addresses
from skanomaly.base import BasePatchScorer
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import image_auroc_scorer
from skanomaly.model_selection import OneClassSplit
from skanomaly.persistence import ModelTrustWarning

pytestmark = pytest.mark.filterwarnings("ignore::skanomaly.persistence.ModelTrustWarning")
HERE = __name__
KNN, SHARED = PatchKNNScorer(), PatchGaussianScorer("shared")
TEXTS = {
    "text_features_normal": np.eye(1, 48)[0],
    "text_features_anomaly": np.eye(2, 48)[1],
}
SCORERS = [
    KNN,
    PatchKNNScorer(metric="euclidean", n_neighbors=2, aggregation="max"),
    PatchKNNScorer(metric="euclidean", coreset=0.5, algorithm="certified"),
    PatchKNNScorer(algorithm="certified"),
    PatchKNNScorer(coreset=25, coreset_method="random", random_state=np.random.RandomState(3)),
    PatchKNNScorer(parts=(16, 32), position_weight=1.0, algorithm="certified"),
    PatchKNNScorer(metric="euclidean", aggregation="max", coreset=0.2, reweighting=9),
    RetrievalKNNScorer(3, radius=1, parts=2),
    PatchGaussianScorer(),
    LocalKNNScorer(),
    LocalKNNScorer(1, whitening="shared", coreset=0.5),
    PatchGaussianScorer(neighborhood=3, n_components=None),
    PatchGaussianScorer("shared", aggregation=0.9),
    PatchGaussianScorer(n_components=2, reduction="pca"),
    PatchGaussianScorer(n_components=2, reduction="random", random_state=0, shrinkage=0.5),
    PatchSubspaceScorer(),
    PatchSubspaceScorer(0.5),
    PatchwiseScorer(GaussianMixture(2, random_state=0), random_state=0),
    PromptScorer(contamination=0.2, **TEXTS),
    ScoreUnion([("knn", KNN), ("gaussian", SHARED)]),
    ScoreUnion([("prompt", PromptScorer(**TEXTS)), ("knn", KNN)], scorer_weights=[1, 3]),
    ScoreUnion([("one", KNN), ("two", ScoreUnion([("knn", KNN), ("gaussian", SHARED)]))]),
]


def tokens(n, seed):
    rng = np.random.default_rng(seed)
    return np.abs(rng.normal(size=(n, 8, 8, 48))).astype(np.float32) + 0.1


def assert_same(saved, loaded, *inputs):
    """All that can be asked of two fitted estimators is equal to the last bit."""
    for X in inputs:
        for method in (
            "score_samples",
            "decision_function",
            "predict",
            "p_values",
            "score_patches",
        ):
            if hasattr(saved, method):
                expected, found = (getattr(one, method)(X) for one in (saved, loaded))
                assert expected.dtype == found.dtype
                np.testing.assert_array_equal(found, expected, err_msg=method)


# Estimators of scikit-learn on patches, which may hold what reads arrays in compiled code.
ON_PATCHES = ["sklearn.mixture._gaussian_mixture.GaussianMixture"]


def round_trip(estimator, folder, **options):
    path = folder / "model.skan"
    save_model(estimator, path)
    return load_model(path, **options)


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(8, 3, surface="fabric", image_size=64, random_state=0)


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: without_addresses(repr(scorer)))
def test_scorers(scorer, tmp_path):
    X, new = tokens(12, 0), tokens(4, 1)
    scorer.fit(X)
    trusted = ON_PATCHES if isinstance(scorer, PatchwiseScorer) else ()
    loaded = round_trip(scorer, tmp_path, trusted=trusted)
    assert_same(scorer, loaded, X, new)
    assert loaded.offset_ == scorer.offset_ and loaded.patch_limits_ == scorer.patch_limits_
    np.testing.assert_array_equal(loaded.score_samples(X), loaded.train_scores_)  # held out
    assert without_addresses(repr(loaded)) == without_addresses(repr(scorer))


GROWING = [
    KNN,
    PatchKNNScorer(metric="euclidean", algorithm="certified"),
    PatchKNNScorer(metric="euclidean", aggregation="max", coreset=0.2, reweighting=9),
    LocalKNNScorer(),
    LocalKNNScorer(whitening="shared"),
    ScoreUnion([("near", KNN), ("two", PatchKNNScorer(2))]),
]


@pytest.mark.parametrize("scorer", GROWING, ids=repr)
@pytest.mark.parametrize("n", [8, 14])
def test_scorers_that_grow_and_forget(scorer, n, tmp_path):
    """What is kept of a model goes on as the model itself, and is kept again."""
    X, new = tokens(18, 0), tokens(4, 1)
    groups = [i // 2 for i in range(18)]
    fitted = clone(scorer).fit(X[:n], groups=groups[:n])
    loaded = round_trip(fitted, tmp_path)
    for one in (fitted, loaded):
        one.partial_fit(X[n:], groups=groups[n:]).forget(X[:2])
    assert_same(fitted, loaded, X, new)
    np.testing.assert_array_equal(fitted.train_scores_, loaded.train_scores_)
    assert_same(fitted, round_trip(loaded, tmp_path), X, new)


def test_masked_and_mixed_tokens(tmp_path):
    X = tokens(10, 0)
    X[2, 3] = np.nan
    mixed = np.empty(3, dtype=object)
    mixed[:] = [tokens(1, 2)[0], tokens(1, 3)[0, :4], tokens(1, 4)[0, :, :5]]
    scorer = PatchKNNScorer().fit(X)
    loaded = round_trip(scorer, tmp_path)
    assert_same(scorer, loaded, X)
    for expected, found in zip(
        *(one.score_patches(mixed) for one in (scorer, loaded)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_model_that_was_loaded_can_be_saved_used_and_fitted_again(tmp_path):
    X, new = tokens(12, 0), tokens(4, 1)
    scorer = PatchKNNScorer(algorithm="certified").fit(X)
    first = round_trip(scorer, tmp_path)
    second = round_trip(first, tmp_path)  # over the file that the first is mapped from
    assert_same(scorer, second, X, new)
    assert_same(scorer, first, X, new)
    first.fit(X[:6])
    assert_same(scorer, second, X, new)


def test_arrays_are_mapped_writable_and_aligned(tmp_path):
    scorer = PatchKNNScorer(algorithm="brute").fit(tokens(12, 0))
    path = tmp_path / "model.skan"
    save_model(scorer, path)
    before = path.read_bytes()
    bank = load_model(path).bank_
    owner = bank
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert type(owner).__name__ in ("mmap", "memoryview")
    assert bank.ctypes.data % 64 == 0
    bank[:] = 0  # of this process alone
    assert path.read_bytes() == before


def standardised(X):
    """A step between embedder and scorer, of patches."""
    return (X - np.float32(0.5)) * np.float32(2)


class PatchPCA(PCA):
    """scikit-learn's PCA, on the patches of images."""

    def fit(self, X, y=None):
        return super().fit(X.reshape(-1, X.shape[-1]))

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)

    def transform(self, X):
        out = super().transform(X.reshape(-1, X.shape[-1]))
        return out.reshape(*X.shape[:-1], -1).astype(np.float32)


@pytest.mark.parametrize("nested", [False, True])
def test_pipelines_with_steps_between(nested, surfaces, tmp_path):
    steps = [PatchPCA(10), FunctionTransformer(standardised), "passthrough", KNN]
    inner = [make_pipeline(*steps)] if nested else steps
    model = make_pipeline(FilterBankPatches(image_size=64), *inner).fit(surfaces.images[:8])
    own = [f"{HERE}.PatchPCA", f"{HERE}.standardised"]
    with pytest.raises(TypeError, match=r"not trusted: .*PatchPCA, .*standardised.*trusted=\["):
        round_trip(model, tmp_path)
    assert_same(model, round_trip(model, tmp_path, trusted=own), surfaces.images)


def test_functions_of_numpy(surfaces, tmp_path):
    steps = FilterBankPatches(image_size=64), FunctionTransformer(np.cbrt), FunctionTransformer()
    model = make_pipeline(*steps, PatchGaussianScorer("shared")).fit(surfaces.images[:8])
    assert_same(model, round_trip(model, tmp_path), surfaces.images)


@pytest.mark.parametrize("scoring", [None, "image", "roc_auc"])
def test_a_fitted_search(scoring, surfaces, tmp_path):
    model = make_pipeline(FilterBankPatches(image_size=64), KNN)
    grid = {"patchknnscorer__topk": [0.01, 0.1], "patchknnscorer__metric": ["cosine", "euclidean"]}
    scoring = image_auroc_scorer if scoring == "image" else scoring or _negative_mean
    search = GridSearchCV(model, grid, scoring=scoring, cv=OneClassSplit(2))
    search.fit(surfaces.images, surfaces.y)
    own = [f"{HERE}._negative_mean"] if scoring is _negative_mean else []
    loaded = round_trip(search, tmp_path, trusted=own)
    assert_same(search, loaded, surfaces.images)
    assert_same(search.best_estimator_, loaded.best_estimator_, surfaces.images)
    assert loaded.best_params_ == search.best_params_
    assert set(loaded.cv_results_) == set(search.cv_results_)
    np.testing.assert_array_equal(
        loaded.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )


def _negative_mean(estimator, X, y=None):
    return -float(np.mean(estimator.score_samples(X)))


SMALL = {
    "vision_filterbank": {"image_size": 64},
    "vision_tiny": {"image_size": 64},
    "vision_anomalydino": {"weights": "random", "image_size": 56},
    "vision_padim": {"weights": "random", "image_size": 64},
    "vision_patchcore": {
        "weights": "random",
        "image_size": 64,
        "model_name": "resnet18",
        "coreset": 0.1,
    },
    "vision_subspacead": {
        "weights": "random",
        "image_size": 56,
        "model_name": "dinov2_vits14",
        "layers": (-5, -4),
    },
    "vision_musc": {"layers": (0, 1), "image_size": 64, "parts": (64, 64, 32)},
    "vision_rad": {
        "weights": "random",
        "image_size": 64,
        "model_name": "vit_tiny_patch16_224",
        "n_retrieved": 3,
    },
    "vision_openclip_patchknn": {},
    "vision_openclip_promptscore": {"prompts": "clip_ac", "contamination": 0.2},
    "vision_winclip": {"prompts": "clip_ac", "contamination": 0.2},
    "vision_winclip_fewshot": {"prompts": "clip_ac", "class_name": "bottle"},
}


def test_every_model_of_the_registry_is_here():
    others = {"anomalib", "registered"}  # by what other tests and examples made known
    models = {name for name in list_models() if not others & set(model_info(name).tags)}
    assert models == set(SMALL)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_models_of_the_registry(name, surfaces, tmp_path, request):
    params, extras = dict(SMALL[name]), model_info(name).extras
    if extras:
        pytest.importorskip("timm")
        params["device"] = "cpu"
    if "clip" in extras:
        params |= {"model_name": request.getfixturevalue("tiny_clip"), "weights": "random"}
    model = create_model(name, **params).fit(surfaces.images[:8])
    loaded = round_trip(model, tmp_path)
    assert_same(model, loaded, surfaces.images)
    mutual = name == "vision_musc"  # which scores the images of fit alone
    images = surfaces.images[:8] if mutual else surfaces.images
    tokens_of = [one[:-1].transform(images) for one in (model, loaded)]
    for method in ("score_patches",) if mutual else ("score_patches", "p_values"):
        expected, found = (
            getattr(one[-1], method)(X) for one, X in zip((model, loaded), tokens_of, strict=True)
        )
        np.testing.assert_array_equal(found, expected)


def test_a_zero_shot_model_without_fit(tiny_clip, surfaces, tmp_path):
    params = {"model_name": tiny_clip, "weights": "random", "device": "cpu"}
    model = create_model("vision_openclip_promptscore", **params)
    assert_same(model, round_trip(model, tmp_path), surfaces.images)


def test_anomalib_detectors(tiny_onnx, surfaces, tmp_path):
    pytest.importorskip("onnxruntime")
    detector = AnomalibDetector(tiny_onnx, device="cpu").fit(surfaces.images[:8])
    loaded = round_trip(detector, tmp_path)
    assert_same(detector, loaded, surfaces.images)
    np.testing.assert_array_equal(
        loaded.score_maps(surfaces.images), detector.score_maps(surfaces.images)
    )
    assert loaded.checkpoint_path == tiny_onnx and isinstance(loaded.checkpoint_path, pathlib.Path)


class Brightness(BasePatchScorer):
    """A scorer of a third party."""

    def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_tokens(self, tokens):
        self.table_ = np.arange(3000.0)
        return self._score_tokens(tokens.select_view(0))[1]

    def _score_tokens(self, tokens):
        scores = tokens.values.mean(axis=1, dtype=np.float64) + self.table_[0]
        return scores, -self._aggregate(tokens, scores)


def grey_cells(image):
    """(8, 8, 3): an embedding that a user may write."""
    height, width = (side // 8 for side in image.shape[:2])
    return image.reshape(8, height, 8, width, 3).mean(axis=(1, 3))


def test_types_of_others_are_loaded_where_they_are_named(surfaces, tmp_path):
    model = make_pipeline(FunctionPatches(grey_cells), Brightness()).fit(surfaces.images[:8])
    names = [f"{HERE}.{name}" for name in ("Brightness", "grey_cells")]
    with pytest.raises(TypeError, match=f"not trusted: {HERE}.Brightness, {HERE}.grey_cells"):
        round_trip(model, tmp_path)
    with pytest.raises(TypeError, match=f"not trusted: {HERE}.grey_cells"):
        round_trip(model, tmp_path, trusted=names[:1])
    loaded = round_trip(model, tmp_path, trusted=names)
    assert_same(model, loaded, surfaces.images)
    np.testing.assert_array_equal(loaded[-1].table_, np.arange(3000.0))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (FunctionPatches(lambda image: image), "lambda"),
        (make_pipeline(FunctionTransformer(lambda X: X)), "lambda"),
        ("model", "must be an estimator"),
        (PatchKNNScorer, "must be an estimator"),
        (FunctionTransformer(kw_args={True: 1}), "has the key True"),
        (FunctionTransformer(kw_args={"a": np.full((2, 2), None)}), "of objects has 2 dimensions"),
        (FunctionTransformer(kw_args={1: "a", "1": "b"}), "keys 1 and '1', which are one"),
        (FunctionTransformer(kw_args={"a": {"1.5": 0, np.float64(1.5): 1}}), "which are one"),
    ],
)
def test_what_cannot_be_saved_says_so(estimator, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        save_model(estimator, tmp_path / "model.skan")
    assert os.listdir(tmp_path) == []


def test_an_estimator_that_holds_itself(tmp_path):
    scorer = PatchKNNScorer()
    scorer.own_ = scorer
    with pytest.raises(TypeError, match="holds itself"):
        save_model(scorer, tmp_path / "model.skan")


@pytest.mark.filterwarnings("error::skanomaly.persistence.ModelTrustWarning")
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (frozenset([1]), "builtins.frozenset"),
        (range(3), "builtins.range"),
        (functools.partial(np.add, 1), "functools.partial"),
        (np.mean, "numpy.mean"),
        (datetime.date(2020, 1, 2), "datetime.date"),
        (grey_cells, f"{HERE}.grey_cells"),
        (Brightness(), f"{HERE}.Brightness"),
    ],
)
def test_what_has_to_be_named_is_said_when_it_is_saved(value, name, tmp_path):
    tree, path = FunctionTransformer(kw_args={"value": [value]}), tmp_path / "model.skan"
    with pytest.warns(ModelTrustWarning, match=rf"holds {name}: .*trusted=\['{name}'\]"):
        save_model(tree, path)
    assert model_manifest(path)["trusted"] == [name]
    with pytest.raises(TypeError, match=f"not trusted: {name}"):
        load_model(path)
    (again,) = load_model(path, trusted=[name]).kw_args["value"]
    assert repr(again) == repr(value)
    save_model(KNN, path)
    assert model_manifest(path)["trusted"] == []


@pytest.mark.parametrize("n_arrays", [2, 3])
def test_lists_of_arrays_are_one_array_in_the_file(n_arrays, tmp_path):
    rng = np.random.default_rng(0)
    alike = [rng.normal(size=(40, 40)).astype(np.float32) for _ in range(n_arrays)]
    others = [alike[0], alike[1].T, alike[1][:, ::-1], alike[0][:20], alike[0].astype(float)]
    save_model(FunctionTransformer(kw_args={"a": alike, "b": others}), tmp_path / "model.skan")
    found = load_model(tmp_path / "model.skan").kw_args
    for before, after in ((alike, found["a"]), (others, found["b"])):
        assert type(after) is list and len(after) == len(before)
        for one, other in zip(before, after, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert model_manifest(tmp_path / "model.skan")["arrays"]["count"] == 1 + len(others) - 2 + 1


def test_faiss_has_to_be_trusted(tmp_path):
    pytest.importorskip("faiss")
    X, new = tokens(12, 0), tokens(4, 1)
    scorer = PatchKNNScorer(algorithm="faiss:HNSW8").fit(X)
    with pytest.raises(TypeError, match="FaissIndex: faiss reads its indices"):
        round_trip(scorer, tmp_path)
    name = "skanomaly.core.search.faiss_index.FaissIndex"
    assert_same(scorer, round_trip(scorer, tmp_path, trusted=[name]), X, new)


def test_caches_and_rights_stay_behind(surfaces, tmp_path, tiny_onnx):
    embedder = FilterBankPatches(image_size=64, cache_dir=str(tmp_path / "cache"))
    model = Pipeline([("emb", embedder), ("knn", KNN)], memory=str(tmp_path / "memory"))
    model.fit(surfaces.images[:8])
    loaded = round_trip(model, tmp_path)
    assert loaded.memory is None and loaded["emb"].cache_dir is None
    assert loaded["emb"]._changed_params() == [] and model["emb"].cache_dir is not None
    assert_same(model, loaded, surfaces.images)
    trusting = AnomalibDetector(tiny_onnx, device="cpu", trust=True).fit(surfaces.images[:8])
    assert round_trip(trusting, tmp_path).trust is False and trusting.trust is True


@pytest.mark.parametrize("kept", [True, False])
def test_paths_of_training_images(kept, surfaces, tmp_path):
    from PIL import Image

    paths = [tmp_path / f"part {i}.png" for i in range(8)]
    for path, image in zip(paths, surfaces.images, strict=False):
        Image.fromarray(np.asarray(image)).save(path)
    model = make_pipeline(FilterBankPatches(image_size=64), KNN).fit(paths)
    save_model(model, tmp_path / "model.skan", image_paths=kept)
    images = model_manifest(tmp_path / "model.skan")["training_images"]
    loaded = load_model(tmp_path / "model.skan")[0]._train_images
    assert loaded.digests == model[0]._train_images.digests == tuple(images["sha256"])
    assert images["count"] == len(loaded) == 8
    if kept:
        assert images["paths"] == list(loaded.paths) == [str(path) for path in paths]
    else:
        assert "paths" not in images and set(loaded.paths) == {None}
        assert b"part 3" not in (tmp_path / "model.skan").read_bytes()
    assert model[0]._train_images.paths[0] == str(paths[0])


def test_what_the_manifest_says(surfaces, tmp_path):
    model = make_pipeline(FilterBankPatches(image_size=64), KNN).fit(surfaces.images[:8])
    save_model(model, tmp_path / "model.skan")
    manifest = model_manifest(tmp_path / "model.skan")
    assert manifest["format"] == "skanomaly model" and manifest["format_version"] == 1
    assert manifest["versions"]["skanomaly"] == skanomaly.__version__
    assert manifest["estimator"]["parameters"]["patchknnscorer__metric"] == "'cosine'"
    assert [step.rpartition(".")[2] for step in manifest["estimator"]["steps"]] == [
        "FilterBankPatches",
        "PatchKNNScorer",
    ]
    assert manifest["embedders"][0]["image_size"] == 64
    calibration = manifest["calibration"]
    assert calibration["threshold"] == model[-1].offset_ and calibration["contamination"] == 0.1
    assert calibration["score_quantiles"]["0.0"] == min(model[-1].train_scores_)
