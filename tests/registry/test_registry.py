"""Models by name: what is listed, how one is made, and that each of them works."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.svm import OneClassSVM

import skanomaly
from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    anomaly_maps,
    create_model,
    list_models,
    metrics,
    model_info,
)
from skanomaly.anomalib._families import FAMILIES
from skanomaly.datasets import make_surfaces
from skanomaly.registry import register_scorer

OWN = {
    "vision_anomalydino",
    "vision_filterbank",
    "vision_musc",
    "vision_openclip_patchknn",
    "vision_openclip_promptscore",
    "vision_padim",
    "vision_patchcore",
    "vision_rad",
    "vision_subspacead",
    "vision_tiny",
    "vision_winclip",
    "vision_winclip_fewshot",
}
EMBEDDED = {"vision_filterbank", "vision_tiny"}  # all that they need is in the package
DETECTORS = {"vision_anomalib_checkpoint", *(f"vision_{name}_anomalib" for name in FAMILIES)}
TEXTS = {"text_features_normal": [1.0, 0.0], "text_features_anomaly": [0.0, 1.0]}


class Brightness:
    """An embedder as other packages have them: 2x2 patches of the mean brightness."""

    def embed(self, image):
        cells = image.reshape(2, image.shape[0] // 2, 2, image.shape[1] // 2, 3)
        return cells.mean(axis=(1, 3, 4))[..., None] + np.ones(3)


class Constant:
    """0 for normal, 10 for anomalous files, in one of the forms of a result."""

    def __init__(self, form):
        self.form = form

    def embed(self, path):
        value = 10.0 if "anomalous" in str(path) else 0.0
        return {
            "grid": np.full((2, 2, 4), value),
            "patches": np.full((4, 4), value),
            "all": (np.full((4, 4), value), (2, 2), (8, 8)),
        }[self.form]


class Tokens(TransformerMixin, BaseEstimator):
    """A transformer of one's own, with a parameter."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.stack([Brightness().embed(image) for image in X]) * self.scale

    def __sklearn_is_fitted__(self):
        return True


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(8, 3, surface="fabric", image_size=64, random_state=0)


# What there is


def test_all_names_are_listed():
    names = list_models()
    assert names == sorted(names)
    assert set(names) - set(list_models("registered")) == OWN | DETECTORS
    assert {"vision_padim_anomalib", "vision_efficient_ad_anomalib"} <= DETECTORS


def test_tags_select():
    assert list_models("zero-shot") == ["vision_openclip_promptscore", "vision_winclip"]
    assert list_models(["zero-shot"]) == list_models(("zero-shot", "clip", "openclip"))
    assert list_models("no-download") == sorted(EMBEDDED)
    assert set(list_models("anomalib")) == DETECTORS
    assert list_models([]) == list_models(None) == list_models()
    assert list_models(("no-download", "clip")) == []
    assert list_models(np.array(["clip", "few-shot"])) == list_models(("clip", "few-shot"))
    with pytest.raises(ValueError, match="no model has the tag ''"):
        list_models("")
    with pytest.raises(ValueError, match="no model has the tag 'zeroshot'; did you mean 'zero-sh"):
        list_models(("clip", "zeroshot"))


@pytest.mark.parametrize("name", sorted(OWN | DETECTORS))
def test_what_is_known_of_a_model(name):
    info = model_info(name)
    assert info.name == name and info.summary and info.licence and info.notes
    assert "vision" in info.tags and info.paper or name in EMBEDDED
    assert set(info.extras) <= {"torch", "clip", "anomalib"}
    assert ("no-download" in info.tags) == (not info.extras)
    assert "contamination" in {key.rpartition("__")[2] for key in info.parameters}
    with pytest.raises(TypeError):
        info.parameters["contamination"] = 0.3
    assert name in repr(info)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        (
            "vision_anomalydino",
            {
                "emb__model_name": "dinov2_vits14",
                "emb__image_size": 448,
                "emb__resize": "shortest_edge",
                "emb__augmentation": "rotate45",
                "foreground__threshold": 10.0,
                "foreground__mask_training": False,
                "knn__metric": "cosine",
                "knn__n_neighbors": 1,
                "knn__aggregation": "topk_mean",
                "knn__topk": 0.01,
                "knn__coreset": None,
            },
        ),
        (
            "vision_patchcore",
            {
                "emb__model_name": "wide_resnet50_2.tv_in1k",
                "emb__layers": (2, 3),
                "knn__metric": "euclidean",
                "knn__aggregation": "max",
                "knn__coreset": 0.01,
                "knn__coreset_method": "k_center",
                "knn__reweighting": 9,
            },
        ),
        (
            "vision_padim",
            {
                "emb__model_name": "resnet18.tv_in1k",
                "emb__layers": (1, 2, 3),
                "gaussian__covariance": "position",
                "gaussian__neighborhood": 1,
                "gaussian__n_components": 100,
                "gaussian__reduction": "random",
                "gaussian__random_state": 0,
                "gaussian__aggregation": "max",
            },
        ),
        (
            "vision_winclip",
            {
                "emb__model_name": "ViT-B-16-plus-240",
                "prompt__model_name": "ViT-B-16-plus-240",
                "emb__weights": "laion400m_e32",
                "prompt__weights": "laion400m_e32",
                "emb__windows": (2, 3),
                "prompt__windows": (2, 3),
                "emb__project": True,
                "prompt__mode": "softmax",
                "prompt__aggregation": "class_token",
            },
        ),
        (
            "vision_winclip_fewshot",
            {
                "emb__windows": (2, 3),
                "union__prompt__windows": (2, 3),
                "union__prompt__aggregation": "class_token",
                "union__knn__aggregation": "max",
                "union__aggregation": "members",
            },
        ),
        ("vision_openclip_promptscore", {"emb__project": True, "emb__value_attention": True}),
        ("vision_draem_anomalib", {"family": "draem"}),
    ],
)
def test_settings_are_the_published_ones(name, published):
    parameters = model_info(name).parameters
    assert {key: parameters[key] for key in published} == published


def test_backbones_and_layers_are_those_meant():
    timm = pytest.importorskip("timm")
    for name in ("vision_patchcore", "vision_padim"):
        parameters = model_info(name).parameters
        model = timm.create_model(parameters["emb__model_name"].partition(".")[0])
        modules = [model.feature_info[i]["module"] for i in parameters["emb__layers"]]
        assert modules == (
            ["layer2", "layer3"] if "core" in name else ["layer1", "layer2", "layer3"]
        )
        cfg = timm.get_pretrained_cfg(parameters["emb__model_name"])
        assert "bsd-3" in cfg.license and model_info(name).licence.startswith("BSD-3")
    open_clip = pytest.importorskip("open_clip")
    for name in list_models("openclip"):
        parameters = model_info(name).parameters
        model, tag = parameters["emb__model_name"], parameters["emb__weights"]
        if tag == "pretrained":
            tag = open_clip.list_pretrained_tags_by_model(model)[0]
            assert tag == "openai"
        assert open_clip.is_pretrained_cfg(model, tag)
        size = open_clip.get_model_config(model)["vision_cfg"]["image_size"]
        # MuSc takes more pixels than its model was trained with.
        assert model_info(name).image_size == (518 if name == "vision_musc" else size)


# Names and parameters


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: model_info("vision_padin"),
            "no model named 'vision_padin'; did you mean .*padim'",
        ),
        (lambda: create_model("vision_winklip"), "did you mean 'vision_winclip'"),
        (lambda: create_model(None), "no model named None"),
        (lambda: model_info("VISION_WINCLIP"), "did you mean 'vision_winclip'"),
        (lambda: create_model("filterbank", contaminaton=1), "did you mean 'contamination'"),
        (lambda: create_model("filterbank", metric=1), "no parameter 'metric'"),
        (lambda: create_model("filterbank", local__topkk=1), "mean 'local__topk'"),
        (lambda: create_model("filterbank", locl__topk=1), "mean 'local__topk'"),
        (lambda: create_model("filterbank", steps=[]), "no parameter 'steps'"),
        (lambda: create_model("dinov2_vitx14"), "'dinov2_vitx14' is not one of dinov2_vit"),
        (lambda: create_model("filterbank", scorer="kn"), "no scorer named 'kn'; .* mean 'knn'"),
        (lambda: create_model("filterbanc"), "no model and no backbone .*'filterbank'"),
    ],
)
def test_unknown_names_and_parameters(call, message):
    if {"filterbanc", "dinov2_vitx14"} & set(call.__code__.co_consts):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        call()


def test_parameters_reach_their_steps():
    pytest.importorskip("open_clip")
    model = create_model(
        "vision_openclip_promptscore",
        class_name="bottle",
        model_name="ViT-B-32",
        weights="random",
        device="cpu",
        image_size=64,
        topk=3,
        prompt__mode="ratio",
        contamination=0.2,
    )
    emb, prompt = model["emb"], model["prompt"]
    assert (emb.model_name, prompt.model_name) == ("ViT-B-32", "ViT-B-32")
    assert emb.weights == prompt.weights == "random"
    assert (emb.device, prompt.device, emb.image_size) == ("cpu", "cpu", 64)
    assert (prompt.class_name, prompt.topk, prompt.mode) == ("bottle", 3, "ratio")
    assert prompt.contamination == 0.2


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_named_has_its_own_value(reverse):
    params = {"emb__image_size": 128, "image_size": 64, "verbose": True, "emb__verbose": False}
    params = dict(sorted(params.items(), reverse=reverse))
    emb = create_model("filterbank", **params)["emb"]
    assert (emb.image_size, emb.verbose) == (128, False)


@pytest.mark.parametrize("key", ["topk", "knn__topk"])
def test_a_parameter_that_would_not_count_is_refused(key):
    options = {"embedder": Tokens(), key: 3}
    with pytest.raises(ValueError, match=f"aggregation='max', for which {key} does not count"):
        create_model("vision_patchcore", **options)
    assert create_model("vision_patchcore", aggregation="topk_mean", **options)["knn"].topk == 3


def test_a_model_shares_nothing_with_the_next():
    first, topk = create_model("filterbank", topk=7), LocalKNNScorer().topk
    assert create_model("filterbank")["local"].topk == topk and first[1].topk == 7


# Embedders and scorers of one's own


@pytest.mark.parametrize("form", ["grid", "patches", "all"])
@pytest.mark.parametrize("n_train", [2, 5])
def test_constant_patches(form, n_train):
    model = create_model("vision_openclip_patchknn", embedder=Constant(form), contamination=0.5)
    model.fit([f"normal_{i}.png" for i in range(n_train)])
    scores = model.score_samples(["normal_9.png", "anomalous_0.png"])
    assert scores[1] < scores[0]
    assert model.predict(["anomalous_0.png"]).tolist() == [-1]
    assert model[-1].contamination == 0.5


def test_a_transformer_of_ones_own(surfaces):
    model = create_model("vision_patchcore", embedder=Tokens(), scale=2.0, coreset=None)
    assert isinstance(model, Pipeline) and model["emb"].scale == 2.0
    assert set(model.fit(surfaces.images[:8]).predict(surfaces.images)) <= {-1, 1}
    with pytest.raises(ValueError, match="no parameter 'image_size'"):
        create_model("vision_patchcore", embedder=Tokens(), image_size=64)


def test_a_function_of_ones_own(surfaces):
    model = create_model("vision_padim", embedder=Brightness().embed, n_components=None)
    assert isinstance(model["emb"], FunctionPatches)
    assert np.isfinite(model.fit(surfaces.images[:8]).score_samples(surfaces.images)).all()


def test_an_embedder_of_ones_own_is_as_good_as_ours(surfaces):
    model = create_model("vision_openclip_patchknn", embedder=Brightness(), metric="euclidean")
    images, y = list(surfaces.images), surfaces.y
    expected = clone(model).fit(images[:8]).score_samples(images)
    assert np.array_equal(
        joblib.load(_dumped(model.fit(images[:8]))).score_samples(images), expected
    )
    parallel = cross_val_score(
        model, images, y, scoring=_auroc, cv=[(range(8), range(11))] * 2, n_jobs=2
    )
    assert parallel[0] == parallel[1]
    search = GridSearchCV(model, {"knn__topk": [1, 2]}, scoring=_auroc, cv=[(range(8), range(11))])
    assert search.fit(images, y).best_params_["knn__topk"] in (1, 2)


def _auroc(estimator, images, y):
    return metrics.image_auroc(y, estimator.score_samples(images))


def _dumped(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return file


def test_maps_of_small_images():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    model = create_model("vision_openclip_patchknn", embedder=Brightness()).fit(images)
    maps = anomaly_maps(model, images[:3])
    assert maps.shape == (3, 8, 8) and np.isfinite(maps).all()
    other = np.zeros((12, 10, 3), dtype=np.uint8)
    mixed = anomaly_maps(model, [images[0], other])
    assert [m.shape for m in mixed] == [(8, 8), (12, 10)]
    with pytest.raises(
        ValueError, match="cannot be stacked: image 0 is .8, 8., image 1 is .12, 10"
    ):
        anomaly_maps(model, [images[0], other], stack=True)


def test_scorers_of_ones_own():
    for name, step in (
        ("knn", PatchKNNScorer),
        ("gaussian", PatchGaussianScorer),
        ("local", LocalKNNScorer),
    ):
        model = create_model("filterbank", scorer=name, contamination=0.3)
        assert type(model[name]) is step and model[name].contamination == 0.3
        assert isinstance(model["emb"], FilterBankPatches)
    mine = PatchKNNScorer(topk=5)
    model = create_model("filterbank", scorer=mine)
    assert model["scorer"].get_params() == mine.get_params()


@pytest.mark.parametrize("name", ["vision_patchcore", "filterbank"])
def test_gaussians_are_the_scorers_own(name):
    own = {**PatchGaussianScorer().get_params(), "random_state": 0}
    assert own["n_components"] == 128 and own["neighborhood"] == 1 and own["topk"] == 0.01
    model = create_model(name, embedder=Tokens(), scorer="gaussian")
    assert model["gaussian"].get_params() == own


def test_gaussians_of_a_named_backbone():
    pytest.importorskip("timm")
    expected = {**PatchGaussianScorer().get_params(), "random_state": 0}
    assert create_model("resnet18", scorer="gaussian")["gaussian"].get_params() == expected


def test_the_name_of_the_scorer_that_a_model_has_leaves_it():
    for name, scorer in (("vision_padim", "gaussian"), ("vision_patchcore", "knn")):
        kept, own = (create_model(name, embedder=Tokens(), scorer=s)[-1] for s in (scorer, None))
        assert kept.get_params() == own.get_params()


@pytest.mark.parametrize("backbone", ["filterbank", "tiny"])
def test_our_own_embedders_are_listed_once(backbone):
    name = f"vision_{backbone}"
    assert name in list_models() and backbone not in list_models()
    model, of_backbone = (create_model(one, topk=3) for one in (name, backbone))
    assert [step for step, _ in model.steps] == ["emb", "local"]
    assert repr(model) == repr(of_backbone)


def test_near_names_of_our_own_embedders_are_suggested():
    with pytest.raises(ValueError, match="did you mean 'filterbank' or 'vision_filterbank'"):
        create_model("filterbanks")


def test_the_scorer_goes_with_the_embedder():
    for options, scorer in (
        ({}, "local"),
        ({"scorer": "auto"}, "local"),
        ({"embedder": Tokens()}, "knn"),
        ({"embedder": FilterBankPatches(image_size=64), "scorer": "auto"}, "local"),
        ({"embedder": "tiny", "scorer": "auto"}, "local"),
    ):
        assert create_model("filterbank", **options).steps[-1][0] == scorer, options
    # A named model keeps its own, whatever its embedder, unless it is asked for.
    for name, own in (("vision_filterbank", "local"), ("vision_patchcore", "knn")):
        assert create_model(name, embedder=Tokens()).steps[-1][0] == own
        assert create_model(name, embedder=Tokens(), scorer="auto").steps[-1][0] == "knn"
        assert create_model(name, embedder="filterbank", scorer="auto").steps[-1][0] == "local"
    with pytest.raises(ValueError, match="cannot be named 'auto'"):
        register_scorer("auto", PatchKNNScorer)


@pytest.mark.parametrize(
    "params",
    [{"contamination": 0.7}, {"local__topk": "x"}, {"radius": 2.5}, {"image_size": -1}],
    ids=str,
)
def test_values_are_checked_before_images_are_read(params):
    (key,) = params
    with pytest.raises(ValueError, match=f"'{key.rpartition('__')[2]}' parameter of"):
        create_model("filterbank", **params)


def test_a_scorer_that_cannot_make_maps_is_refused_before_the_work():
    class WithoutPairs(PatchKNNScorer):
        def score_patches(self, X):
            return super().score_patches(X)

    for scorer, message in (
        (WithoutPairs(), "score_patches of WithoutPairs takes no return_scores"),
        (OneClassSVM(), "scorer must be .*OneClassSVM has no score_patches"),
        (3, "scorer must be .*int has no fit"),
        (PatchKNNScorer, "scorer must be an instance, got the class PatchKNNScorer"),
    ):
        with pytest.raises(TypeError, match=message):
            create_model("filterbank", scorer=scorer)
    register_scorer("without_pairs", WithoutPairs)
    with pytest.raises(TypeError, match="the scorer 'without_pairs' must be .* no return_scores"):
        create_model("filterbank", scorer="without_pairs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedder": 3}, "embedder must be a name, a transformer"),
        ({"embedder": Tokens}, "must be an instance, got the class Tokens"),
        ({"embedder": type("Raw", (), {"transform": None})()}, "no scikit-learn estimator"),
    ],
)
def test_what_cannot_serve(options, message):
    with pytest.raises(TypeError, match=message):
        create_model("filterbank", **options)


def test_a_detector_takes_no_steps():
    with pytest.raises(ValueError, match="takes neither embedder nor scorer"):
        create_model("vision_padim_anomalib", embedder=Tokens())


def test_texts_of_ones_own(surfaces):
    """Neither an image nor a text tower is needed."""
    model = create_model(
        "vision_openclip_promptscore", embedder=lambda image: np.ones((2, 2, 2)), **TEXTS
    )
    assert model.score_samples(surfaces.images[:2]).tolist() == [-0.5, -0.5]


# Without extras


BLOCKED = ("torch", "timm", "open_clip", "anomalib", "onnxruntime", "openvino")
PROLOGUE = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Missing())
import numpy as np
from skanomaly import create_model, list_models, model_info
"""


def _run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def checkpoints(tiny_onnx, tmp_path_factory):
    """A file of each kind, as far as it takes to tell the kind; names say nothing."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "x.1").write_text('<?xml version="1.0"?>\n<net name="x" version="11"></net>')
    with zipfile.ZipFile(folder / "x.2", "w") as archive:
        hyper = {"pre_processor": True, "post_processor": True}
        content = {"state_dict": {}, "hyper_parameters": hyper, "pytorch-lightning_version": "2.6"}
        archive.writestr("x/data.pkl", pickle.dumps(content))
    return {"xml": str(folder / "x.1"), "ckpt": str(folder / "x.2"), "onnx": str(tiny_onnx)}


def test_without_extras(checkpoints):
    code = f"""{PROLOGUE}
FILES = {checkpoints!r}
images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
hints = {{}}
for name in list_models():
    model_info(name)
    try:
        create_model(name)
    except ImportError as exc:
        hints[name] = str(exc)
create_model("filterbank", image_size=64).fit(images).predict(images)
class Embedder:
    def embed(self, image):
        return image.reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))
knn = create_model("vision_openclip_patchknn", embedder=Embedder(), contamination=0.5)
assert set(knn.fit(images).predict(images)) <= {{-1, 1}}
texts = dict(text_features_normal=[1, 0, 0], text_features_anomaly=[0, 1, 0])
prompts = create_model("vision_openclip_promptscore", embedder=Embedder(), **texts)
assert prompts.predict(images).shape == (4,)
create_model("vision_openclip_promptscore", **texts)
for kind in FILES:
    try:
        create_model("vision_padim_anomalib", checkpoint_path=FILES[kind])
    except ImportError as exc:
        hints[kind] = str(exc)
for backbone in ("resnet18", "dinov2_vits14", "ViT-B-16/openai"):
    try:
        create_model(backbone)
    except ImportError as exc:
        hints[backbone] = str(exc)
try:
    create_model("patchcore")
except ValueError as exc:
    assert "did you mean 'vision_patchcore'" in str(exc)
import json
print(json.dumps([list_models(), hints, sorted({{m.split('.')[0] for m in sys.modules}})]))
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr
    names, hints, modules = json.loads(done.stdout)
    assert set(names) == OWN | DETECTORS
    assert not set(BLOCKED) & set(modules)
    extras = {name: model_info(name).extras for name in names if name not in EMBEDDED}
    extras |= {"ckpt": ("anomalib",), "onnx": ("onnx",), "xml": ("openvino",)}
    extras |= {"resnet18": ("torch",), "dinov2_vits14": ("torch",), "ViT-B-16/openai": ("clip",)}
    assert set(hints) == set(extras)
    for name, (extra,) in extras.items():
        assert f'pip install "skanomaly[{extra}]"' in hints[name], name


def test_listing_imports_nothing_heavy():
    code = (
        "import sys\nfrom skanomaly import list_models\nlist_models('clip')\n"
        "print([m for m in ('numpy', 'scipy', 'sklearn', 'torch') if m in sys.modules])"
    )
    assert _run(code).stdout.strip() == "[]"


def test_what_is_passed_in_stays_as_it_is():
    scorer, embedder = PatchKNNScorer(), FilterBankPatches()
    first = create_model("filterbank", embedder=embedder, scorer=scorer, topk=0.3, image_size=32)
    second = create_model("filterbank", embedder=embedder, scorer=scorer, topk=0.5)
    assert (first[-1].topk, second[-1].topk, scorer.topk) == (0.3, 0.5, PatchKNNScorer().topk)
    assert (first[0].image_size, second[0].image_size, embedder.image_size) == (32, 256, 256)


# Every model works


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
    "vision_rad": {
        "weights": "random",
        "image_size": 64,
        "model_name": "vit_tiny_patch16_224",
        "n_retrieved": 3,
    },
    "vision_subspacead": {
        "weights": "random",
        "image_size": 56,
        "model_name": "dinov2_vits14",
        "layers": (-5, -4),
    },
    "vision_openclip_patchknn": {},
    "vision_openclip_promptscore": {"prompts": "clip_ac", "contamination": 0.2},
    "vision_winclip": {"prompts": "clip_ac", "contamination": 0.2},
    "vision_winclip_fewshot": {"prompts": "clip_ac", "class_name": "bottle"},
}


SLOW = {"vision_anomalydino", "vision_padim", "vision_patchcore", "vision_rad", "vision_subspacead"}


@pytest.mark.parametrize(
    "name",
    [
        *sorted(OWN - SLOW - {"vision_musc"}),
        *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(SLOW)),
    ],
)
def test_every_model(name, surfaces, request):
    params = SMALL[name]
    if name not in EMBEDDED:
        pytest.importorskip("timm")
    if "openclip" in model_info(name).tags:
        tiny = request.getfixturevalue("tiny_clip")
        params = {**params, "model_name": tiny, "weights": "random"}
    if "torch" in model_info(name).extras or "clip" in model_info(name).extras:
        params = {**params, "device": "cpu"}
    model = create_model(name, **params)
    images = list(surfaces.images)
    assert set(model.fit_predict(images[:8])) <= {-1, 1}
    scores = model.score_samples(images)
    assert scores.shape == (11,) and np.isfinite(scores).all() and len(set(scores)) > 8
    maps = anomaly_maps(model, images[8:])
    assert maps.shape == (3, 64, 64) and np.isfinite(maps).all() and maps.min() >= 0
    assert np.array_equal(clone(model).fit(images[:8]).score_samples(images), scores)
    assert np.array_equal(joblib.load(_dumped(model)).score_samples(images), scores)
    search = GridSearchCV(
        model, {f"{model.steps[-1][0]}__topk": [1, 0.1]}, scoring=_auroc, cv=[(range(8), range(11))]
    )
    assert 0 <= search.fit(images, surfaces.y).best_score_ <= 1


def test_a_model_of_unlabelled_images(surfaces, tiny_clip):
    params = {"model_name": tiny_clip, "weights": "random", "device": "cpu", "layers": (0, 1)}
    model = create_model("vision_musc", image_size=64, parts=(64, 64, 32), **params)
    images = list(surfaces.images)
    labels = model.fit_predict(images)
    assert set(labels) == {-1, 1} and not hasattr(model, "predict")
    maps, scores = anomaly_maps(model, images[8:], return_scores=True)
    assert maps.shape == (3, 64, 64) and maps.min() >= 0
    assert np.array_equal(scores, model[-1].train_scores_[8:])
    assert np.array_equal(clone(model).fit(images)[-1].train_scores_, model[-1].train_scores_)
    with pytest.raises(ValueError, match="image 0 is none of those that this MutualScorer"):
        anomaly_maps(model, [255 - images[0]])


class Inferencer:
    """The brightest spot is the anomaly."""

    def predict(self, image):
        heat = image.mean(axis=2)
        return {"pred_score": heat.max(), "anomaly_map": heat}


def test_every_detector():
    for name in DETECTORS:
        model = create_model(name, inferencer=Inferencer(), contamination=0.2)
        assert isinstance(model, skanomaly.AnomalibDetector) and model.contamination == 0.2
        family = name.removeprefix("vision_").removesuffix("_anomalib")
        assert model.family == (None if name == "vision_anomalib_checkpoint" else family)


def test_a_detector_works(surfaces):
    images = list(surfaces.images)
    model = create_model("vision_padim_anomalib", inferencer=Inferencer(), contamination=0.2)
    assert set(model.fit(images[:8]).predict(images)) <= {-1, 1}
    assert anomaly_maps(model, images[:2]).shape == (2, 64, 64)
    again = pickle.loads(pickle.dumps(clone(model).fit(images[:8])))
    assert np.array_equal(again.decision_function(images), model.decision_function(images))


def test_a_checkpoint_by_name(tiny_onnx, surfaces):
    pytest.importorskip("onnxruntime")
    model = create_model("vision_anomalib_checkpoint", checkpoint_path=tiny_onnx, device="cpu")
    images = list(surfaces.images)
    expected = [-(image / 255).mean(axis=2).max() for image in images]
    np.testing.assert_allclose(model.score_samples(images), expected, rtol=1e-5)
    with pytest.raises(FileNotFoundError, match="no-such.onnx"):
        create_model("vision_anomalib_checkpoint", checkpoint_path="no-such.onnx")


def test_backbones():
    pytest.importorskip("timm")
    assert type(create_model("dinov2_vits14")["emb"]) is skanomaly.DinoV2Patches
    assert type(create_model("resnet18")["emb"]) is skanomaly.TimmPatches
    pytest.importorskip("open_clip")
    emb = create_model("ViT-B-32/laion2b_s34b_b79k")["emb"]
    assert (emb.model_name, emb.weights) == ("ViT-B-32", "laion2b_s34b_b79k")
    for name, message in [
        ("ViT-B-16/opnai", "'opnai' is neither .* a tag of ViT-B-16 .* did you mean openai"),
        ("ViT-B16/openai", "no model named 'ViT-B16'; did you mean ViT-B-16"),
        ("ViT-B-16", "those of open_clip are MODEL/TAG"),
    ]:
        with pytest.raises(ValueError, match=message):
            create_model(name)
