"""Nothing changes after `fit` unnoticed: parameters, weights, precision, embedders, versions."""

import os
import pickle
import threading
import warnings
from collections import OrderedDict

import joblib
import numpy as np
import pytest
from _adapters import assert_same, cell_means, random_image, random_images, told
from scipy import stats
from sklearn.base import clone
from sklearn.decomposition import IncrementalPCA
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline

import skanomaly
from skanomaly import (
    FilterBankPatches,
    FunctionPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PromptScorer,
    ScoreUnion,
    TimmPatches,
)
from skanomaly._origins import differences, origin_of, set_origin
from skanomaly._recipes import fingerprint_of
from skanomaly.base import BasePatchEmbedder

X = random_images(*[(32, 32)] * 8)


def filter_pipe(**params):
    pipe = Pipeline([("emb", FilterBankPatches(image_size=32)), ("knn", PatchKNNScorer())])
    return pipe.set_params(**params)


# Parameters of the embedder


@pytest.mark.parametrize("change", [{"image_size": 64}, {"resize": "shortest_edge"}])
def test_a_pipeline_refuses_an_embedder_that_changed_since_fit(change):
    pipe = filter_pipe().fit(X)
    before = pipe.score_samples(X)
    (name, value), old = next(iter(change.items())), pipe[0].get_params()
    pipe.set_params(**{f"emb__{name}": value})
    for method in (pipe.predict, pipe.score_samples, pipe[0].transform):
        with pytest.raises(NotFittedError) as caught:
            method(X)
        assert f"{name} of this FilterBankPatches changed since fit" in told(caught)
    pipe.set_params(**{f"emb__{name}": old[name]})
    np.testing.assert_array_equal(pipe.score_samples(X), before)
    pipe.set_params(**{f"emb__{name}": value}).fit(X).predict(X)


def test_what_bears_on_no_token_may_change(tmp_path):
    pipe = filter_pipe().fit(X)
    expected = pipe.score_samples(X)
    pipe.set_params(emb__batch_size=3, emb__cache_dir=tmp_path, emb__n_jobs=2, emb__verbose=1)
    np.testing.assert_array_equal(pipe.score_samples(X), expected)


def test_an_embedder_that_was_never_fitted_has_no_state():
    embedder = FilterBankPatches(image_size=32)
    embedder.transform(X)
    assert embedder.set_params(image_size=64).transform(X).shape[1:3] == (8, 8)
    fitted = embedder.fit(X)
    assert clone(fitted).set_params(image_size=32).transform(X).shape[1:3] == (4, 4)


def test_a_fit_that_fails_leaves_no_state():
    embedder = FilterBankPatches(image_size=32).fit(X)
    with pytest.raises(TypeError, match="single str"):
        embedder.set_params(image_size=64).fit("part.png")
    with pytest.raises(NotFittedError, match="image_size"):
        embedder.transform(X)


def test_another_function_is_refused():
    pipe = Pipeline([("emb", FunctionPatches(cell_means)), ("knn", PatchKNNScorer())]).fit(X)

    def other(image):
        return cell_means(image)[::-1]

    other.__qualname__, other.__module__ = cell_means.__qualname__, cell_means.__module__
    with pytest.raises(NotFittedError) as caught:
        pipe.set_params(emb__func=other).predict(X)
    assert "func of this FunctionPatches changed" in told(caught)
    pipe.set_params(emb__func=cell_means).predict(X)
    with pytest.raises(NotFittedError) as caught:
        pipe.set_params(emb__func_version="2").predict(X)
    assert "func_version of this FunctionPatches changed" in told(caught)
    pickle.loads(pickle.dumps(pipe.set_params(emb__func_version=None))).predict(X)


# Weights


@pytest.fixture
def weights(tmp_path):
    """Path of a weight file, and a function that replaces it by another one."""
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model("test_vit").state_dict()
    save = pytest.importorskip("safetensors.torch").save_file
    path = tmp_path / "w.safetensors"
    save(state, path)

    def replace(factor, keep_time=False):
        stat = path.stat()
        save({name: tensor * factor for name, tensor in state.items()}, tmp_path / "new")
        if keep_time:
            os.utime(tmp_path / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(tmp_path / "new", path)
        assert not keep_time or (path.stat().st_size, path.stat().st_mtime_ns) == (
            stat.st_size,
            stat.st_mtime_ns,
        )

    return path, replace


def vit_pipe(path, **params):
    embedder = TimmPatches("test_vit", image_size=32, weights=path, device="cpu", dtype="float32")
    return Pipeline([("emb", embedder.set_params(**params)), ("knn", PatchKNNScorer())])


@pytest.mark.parametrize("pickled", [True, False], ids=["pickled", "in the same process"])
@pytest.mark.parametrize("keep_time", [True, False], ids=["same time", "new time"])
def test_replaced_weights_are_refused(weights, pickled, keep_time):
    path, replace = weights
    pipe = vit_pipe(path).fit(X)
    expected = pipe.score_samples(X)
    blob = pickle.dumps(pipe)
    replace(1.5, keep_time)
    if pickled:
        pipe = pickle.loads(blob)
    with pytest.raises(
        NotFittedError, match=r"weights '.*w\.safetensors' of this TimmPatches are other"
    ):
        pipe.predict(X)
    replace(1.0)  # the old ones are put back
    np.testing.assert_array_equal(pipe.score_samples(X), expected)
    replace(1.5)
    assert pipe.fit(X).predict(X).shape == (8,)


def test_positions_of_another_grid_are_no_other_weights(weights, monkeypatch):
    """To bring them there gives other last bits on another kind of processor."""
    layers = pytest.importorskip("timm.layers")
    path, _ = weights
    pipe = vit_pipe(path).fit(X)
    resample = layers.resample_abs_pos_embed
    monkeypatch.setattr(
        layers, "resample_abs_pos_embed", lambda *args, **more: resample(*args, **more) + 1e-7
    )
    os.utime(path)  # it is loaded anew
    pipe.predict(X)
    digests = {vit_pipe(path, image_size=side)[0]._fingerprint()["weights"] for side in (32, 160)}
    assert digests == {pipe[0]._fingerprint()["weights"]}


def test_the_same_weights_elsewhere_are_the_same(weights, tmp_path):
    path, _ = weights
    pipe = vit_pipe(path).fit(X)
    (tmp_path / "copy.safetensors").write_bytes(path.read_bytes())
    expected = pipe.score_samples(X)
    pipe.set_params(emb__weights=str(tmp_path / "copy.safetensors"))
    np.testing.assert_array_equal(pipe.score_samples(X), expected)


def test_replaced_weights_come_to_the_texts_too(weights):
    """The key of text features is that of the model's own weights."""
    from skanomaly._networks.loading import weights_key

    path, replace = weights
    before = weights_key(path)
    replace(1.5, keep_time=True)
    assert weights_key(path) != before


# Precision


@pytest.fixture
def machine(monkeypatch):
    """Says whether this machine multiplies matrices in bfloat16."""
    pytest.importorskip("torch")
    pytest.importorskip("timm")
    from skanomaly._networks import loading, runtimes

    monkeypatch.setattr(loading, "_models", OrderedDict())
    return lambda native: monkeypatch.setattr(runtimes, "native_bfloat16", lambda device: native)


@pytest.mark.parametrize("at_fit", [True, False])
def test_auto_is_what_it_was_at_fit_on_any_machine(machine, at_fit):
    machine(at_fit)
    pipe = vit_pipe("random", dtype="auto").fit(X)
    dtype = pipe[0]._fingerprint()["dtype"]
    assert dtype == ("bfloat16" if at_fit else "float32")
    blob, expected = pickle.dumps(pipe), pipe.score_samples(X)
    np.testing.assert_array_equal(expected, pipe[1].train_scores_)
    machine(not at_fit)
    loaded = pickle.loads(blob)
    # Training images are recognised, which they are not by the tokens of this machine's own.
    np.testing.assert_array_equal(loaded.score_samples(X), expected)
    assert loaded[0]._fingerprint()["dtype"] == dtype
    own = clone(loaded[0])
    assert own._fingerprint()["dtype"] != dtype
    with pytest.raises(ValueError, match="X holds other tokens.*dtype is '.*', was '"):
        loaded[1].score_samples(own.transform(X))
    assert clone(loaded).fit(X)[0]._fingerprint()["dtype"] != dtype
    assert loaded.fit(X)[0]._fingerprint()["dtype"] != dtype  # asked anew by a fit


def test_an_explicit_precision_is_refused_where_it_is_another(machine):
    machine(True)
    pipe = vit_pipe("random", dtype="auto").fit(X)
    pipe.set_params(emb__dtype="bfloat16").predict(X)
    with pytest.raises(NotFittedError, match="dtype of this TimmPatches changed"):
        pipe.set_params(emb__dtype="float32").predict(X)
    with pytest.raises(NotFittedError, match="runtime"):
        pytest.importorskip("onnxruntime")
        pipe.set_params(emb__dtype="auto", emb__runtime="onnx").predict(X)


# Tokens know what made them


def test_a_refitted_embedder_does_not_fit_the_old_scorer():
    pipe = filter_pipe().fit(X)
    pipe[0].set_params(image_size=64).fit(X)
    with pytest.raises(ValueError, match="image_size is 64, was 32"):
        pipe.predict(X)
    pipe.steps[0] = ("emb", FunctionPatches(cell_means))
    with pytest.raises(ValueError, match="embedder is 'FunctionPatches', was 'FilterBankPatches'"):
        pipe.predict(X)


@pytest.mark.parametrize(
    "scorer",
    [
        PatchKNNScorer(),
        PatchGaussianScorer("shared"),
        ScoreUnion([("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer("shared"))]),
        PromptScorer(
            text_features_normal=np.eye(102)[0],
            text_features_anomaly=np.eye(102)[1],
            contamination=0.1,
        ),
    ],
    ids=lambda scorer: type(scorer).__name__,
)
def test_every_scorer_refuses_the_tokens_of_another_embedder(scorer):
    ours, other = (FilterBankPatches(image_size=side).transform(X) for side in (32, 40))
    scorer = clone(scorer).fit(ours)
    scorer = pickle.loads(pickle.dumps(scorer))
    for method in (scorer.predict, scorer.score_samples, scorer.score_patches, scorer.p_values):
        method(ours[2:5])
        for form in (other, other[1:], other.reshape(len(X), -1, 102), list(other)):
            with pytest.raises(ValueError, match="image_size is 40, was 32"):
                method(form)
    scorer.score_samples(other.copy())  # of a copy nothing is known
    scorer.fit(other).score_samples(other)


def test_zero_shot_takes_tokens_of_anything():
    scorer = PromptScorer(text_features_normal=np.eye(102)[0], text_features_anomaly=np.eye(102)[1])
    for side in (32, 40):
        scorer.score_samples(FilterBankPatches(image_size=side).transform(X))


def test_mixed_grids_and_views_have_an_origin():
    sized = [*random_images((16, 32), (32, 16)), *X[:2]]
    embedder = FilterBankPatches(image_size=16, resize="shortest_edge")
    tokens = embedder.transform(sized)
    assert tokens.dtype == object
    assert origin_of(tokens[1:]) == origin_of(tokens) is not None
    views = FilterBankPatches(image_size=16, augmentation="rotate90").fit_transform(X)
    assert origin_of(views)["image_size"] == 16
    assert origin_of(views[:, 0]) == origin_of(FilterBankPatches(image_size=16).transform(X))


def test_origins_vanish_with_their_arrays():
    from skanomaly import _origins

    before = len(_origins._origins)

    def work():
        for _ in range(200):
            tokens = np.zeros((2, 3))
            set_origin(tokens, {"embedder": threading.get_ident()})
            assert origin_of(tokens[:1])["embedder"] == threading.get_ident()
            assert origin_of(np.zeros((2, 3))) is None

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_origins._origins) == before


def test_a_new_release_of_a_runtime_is_no_difference():
    one = {"embedder": "A", "layers": np.array([1]), "runtime_version": "1"}
    assert differences(one, {**one, "runtime_version": "2"}) == {}
    assert differences(one, {**one, "layers": np.array([2])}) != {}


def test_a_search_over_parameters_of_the_embedder():
    y = np.array([1, 1, 1, -1] * 2)
    grid = {"emb__image_size": [16, 32]}
    search = GridSearchCV(filter_pipe(), grid, scoring="roc_auc", cv=2, error_score="raise")
    search.fit(X, y).predict(X)
    for n_jobs in (1, 2):
        joblib.Parallel(n_jobs)(joblib.delayed(search.best_estimator_.predict)(X) for _ in "ab")


def test_texts_of_another_model_are_refused(tiny_clip, monkeypatch):
    from skanomaly import OpenClipPatches
    from skanomaly._networks import openclip

    images = OpenClipPatches(tiny_clip, weights="random", project=True)
    scorer = PromptScorer("part", model_name=tiny_clip, weights="random")
    pipe = Pipeline([("emb", images), ("prompt", scorer)])
    expected = pipe.score_samples(X)
    np.testing.assert_array_equal(pipe.fit(X).score_samples(X), expected)

    load = openclip.load_model

    def load_another(model_name, weights, **where):
        from dataclasses import replace

        return replace(load(model_name, "random", **where), config="{}")

    tokens = images.transform(X)
    monkeypatch.setattr(openclip, "load_model", load_another)
    pipe.score_samples(X)  # the texts of fit are kept
    with pytest.raises(ValueError, match="another model, or other weights"):
        clone(scorer).score_samples(tokens)
    with pytest.raises(ValueError, match="another model, or other weights"):
        clone(scorer).fit(tokens)
    clone(scorer).score_samples(tokens.copy())


# Versions


@pytest.mark.parametrize(
    "estimator",
    [
        FilterBankPatches(image_size=32),
        skanomaly.TinyPatches(image_size=32),
        PatchKNNScorer(),
        skanomaly.AnomalibDetector(inferencer=None),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_a_pickle_of_another_version_warns(estimator, monkeypatch):
    blob = pickle.dumps(Pipeline([("step", estimator)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(blob)
    monkeypatch.setattr("skanomaly._parameters.__version__", "99.0")
    with pytest.warns(InconsistentVersionWarning) as caught:
        loaded = pickle.loads(blob)
    text = str(caught[0].message)
    assert skanomaly.__version__ in text and "99.0" in text
    assert type(estimator).__name__ in text and "skanomaly" in text
    assert vars(loaded[0]) == vars(estimator)  # the version is in the pickle alone


def test_copies_carry_no_version():
    import copy

    scorer = PatchKNNScorer().fit(FilterBankPatches(image_size=16).transform(X))
    for other in (copy.copy(scorer), copy.deepcopy(scorer), pickle.loads(pickle.dumps(scorer))):
        assert vars(other).keys() == vars(scorer).keys()
    assert "version" not in str(clone(scorer).get_params())


# What a model is, before it is fitted


def recipe(estimator):
    from skanomaly._recipes import fingerprint_of

    return fingerprint_of(estimator)


def test_the_fingerprint_of_a_model():
    base = recipe(filter_pipe())
    assert len(base) == 64
    same = {"emb__n_jobs": 2, "emb__batch_size": 3, "emb__cache_dir": "x", "emb__verbose": 1}
    assert recipe(filter_pipe(**same)) == base
    assert recipe(filter_pipe().fit(X)) == base
    changes = [
        {"emb__image_size": 64},
        {"emb__augmentation": "rotate90"},
        {"knn__n_neighbors": 3},
        {"knn__topk": 3},
        {"knn": PatchGaussianScorer()},
        {"emb": FunctionPatches(cell_means)},
        {"emb": FunctionPatches(recipe)},
    ]
    prints = [base, *(recipe(filter_pipe(**change)) for change in changes)]
    assert len(set(prints)) == len(prints)
    # What does not matter to an embedder matters to others: these learn in batches.
    batches = [recipe(IncrementalPCA(batch_size=size)) for size in (50, 60)]
    assert batches[0] != batches[1]
    search = GridSearchCV(filter_pipe(), {"knn__topk": [1, 2]})
    other = GridSearchCV(filter_pipe(), {"knn__topk": [1, 3]})
    assert len({recipe(search), recipe(other), base}) == 3


def test_the_fingerprint_holds_no_address_and_all_of_an_array():
    long = np.zeros(5000)
    prompts = [
        PromptScorer(text_features_normal=normal, text_features_anomaly=np.ones(5000))
        for normal in (long, long.copy(), np.r_[long[:2000], 1, long[2001:]])
    ]
    assert recipe(prompts[0]) == recipe(prompts[1]) != recipe(prompts[2])

    class Reader:
        def embed(self, path):
            return np.ones((1, 1, 1))

    draws = [stats.uniform(0, 2), stats.uniform(0, 2), stats.uniform(0, 1), stats.norm(0, 2)]
    of_draws = [recipe(RandomizedSearchCV(filter_pipe(), {"knn__topk": draw})) for draw in draws]
    assert of_draws[0] == of_draws[1] and len(set(of_draws)) == 3
    one, two = (recipe(FunctionPatches(Reader())) for _ in range(2))
    assert one == two
    assert recipe(FunctionPatches(lambda image: image)) == recipe(
        FunctionPatches(lambda image: image)
    )


def test_the_fingerprint_holds_the_code_of_others(tmp_path):
    """A plug-in is changed without a version."""
    plain = "def tokens(image):\n    return image[::8, ::8] * 1.0\n"
    prints = []
    for text in (plain, plain, plain.replace("1.0", "-1.0")):
        (tmp_path / "mine.py").write_text(text)
        names = {"__name__": "mine"}
        exec(compile(text, tmp_path / "mine.py", "exec"), names)
        prints.append(recipe(filter_pipe(emb=FunctionPatches(names["tokens"]))))
    assert prints[0] == prints[1] != prints[2]


def test_the_fingerprint_holds_the_content_of_weights(weights, tmp_path):
    path, replace = weights
    before = recipe(vit_pipe(path))
    (tmp_path / "copy.safetensors").write_bytes(path.read_bytes())
    assert recipe(vit_pipe(tmp_path / "copy.safetensors")) == before
    assert recipe(vit_pipe(path, layers=0)) != before
    replace(1.5, keep_time=True)
    assert recipe(vit_pipe(path)) != before


def test_the_fingerprint_holds_the_content_of_a_checkpoint(tiny_onnx, tmp_path):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(tiny_onnx.read_bytes())
    one, two = (skanomaly.AnomalibDetector(path) for path in (tiny_onnx, copy))
    assert recipe(one) == recipe(two) != recipe(two.set_params(contamination=0.2))
    before = recipe(two)
    copy.write_bytes(copy.read_bytes().replace(b"brightness", b"brightnesz"))
    assert recipe(two) != before


def test_the_fingerprint_is_the_same_in_another_process():
    import subprocess
    import sys

    code = (
        "from sklearn.pipeline import Pipeline\n"
        "from skanomaly import FilterBankPatches, PatchKNNScorer\n"
        "from skanomaly._recipes import fingerprint_of\n"
        "steps = [('emb', FilterBankPatches(image_size=32)), ('knn', PatchKNNScorer())]\n"
        "print(fingerprint_of(Pipeline(steps)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == recipe(filter_pipe())


# Embedders by functions are cached by content


def test_a_replaced_photograph_gets_new_tokens(tmp_path):
    from PIL import Image

    path, seen = tmp_path / "part.png", []

    def func(image):
        seen.append(1)
        return cell_means(image)

    embedder = FunctionPatches(func, func_version="1", cache_dir=tmp_path / "cache")
    for seed in (0, 1, 0):
        Image.fromarray(random_image(20, 20, seed)).save(path)
        assert_same(embedder.transform([path]), FunctionPatches(cell_means).transform([path]))
    assert len(seen) == 2
    clone(embedder).set_params(func_version="2").transform([path])
    assert len(seen) == 3


def test_an_object_that_embeds_is_cached_by_content(tmp_path):
    from PIL import Image

    class Reader:
        seen = 0

        def embed(self, path):
            Reader.seen += 1
            with Image.open(path) as image:
                return cell_means(np.asarray(image))

    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(random_image(20, 20, i % 2)).save(path)
    reader = FunctionPatches(Reader(), func_version="1", cache_dir=tmp_path / "cache", n_jobs=1)
    first = reader.transform(paths)
    assert_same(reader.transform(paths[::-1])[::-1], first)
    assert Reader.seen == 2  # the first and the third are one photograph
    assert_same(first, FunctionPatches(cell_means).transform(paths))


@pytest.mark.parametrize("version", [None, ""])
def test_a_cache_needs_a_version_of_the_function(tmp_path, version):
    embedder = FunctionPatches(cell_means, cache_dir=tmp_path / "cache", func_version=version)
    with pytest.raises(ValueError, match="cache_dir needs func_version"):
        embedder.transform(X)


@pytest.mark.parametrize("make", [FilterBankPatches, lambda **p: FunctionPatches(cell_means, **p)])
@pytest.mark.parametrize("below", ["", "below"])
def test_a_cache_that_can_hold_nothing_is_an_error_before_the_work(tmp_path, make, below):
    (tmp_path / "file").write_text("not a folder")
    embedder = make(cache_dir=tmp_path / "file" / below)
    for method in ("transform", "fit_transform"):
        with pytest.raises(ValueError, match="^cache_dir='.*file.* cannot be used"):
            getattr(embedder, method)([b"never read"])


def test_an_empty_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    embedder = FilterBankPatches(image_size=16, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="is empty and cannot be written to"):
        embedder.transform(X)
    (tmp_path / "filled").write_text("by another")  # may be read from
    embedder.transform(X)


class Means(BasePatchEmbedder):
    """An embedder of others, with `value_range` and what the base says it needs."""

    _parameter_constraints = BasePatchEmbedder._parameter_constraints

    def __init__(self, *, image_size=32, value_range=None, cache_dir=None):
        self.image_size = image_size
        self.resize = "squash"
        self.augmentation = None
        self.value_range = value_range
        self.batch_size = 8
        self.cache_dir = cache_dir
        self.cache_size = 10**9
        self.verbose = False

    def _cell(self):
        return 8

    def _default_image_size(self):
        return 32

    def _fingerprint(self):
        return {"image_size": self._side()}

    def _embed_batch(self, images):
        return images.reshape(len(images), 4, 8, 4, 8, 3).mean(axis=(2, 4))


def test_the_value_range_of_an_embedder_of_others(tmp_path):
    """It is of the base's reading, so that no subclass has to say that tokens depend on it."""
    deep = [np.full((32, 32), 1000, dtype=np.uint16)]
    narrow, wide = (Means(value_range=white, cache_dir=tmp_path) for white in (2000, 4000))
    assert narrow.transform(deep)[0, 0, 0, 0] == pytest.approx(0.5)
    assert wide.transform(deep)[0, 0, 0, 0] == pytest.approx(0.25)
    assert fingerprint_of(narrow) != fingerprint_of(wide)
    with pytest.raises(NotFittedError, match="value_range of this Means changed"):
        wide.fit(deep).set_params(value_range=2000).transform(deep)


def test_a_part_of_a_stream_knows_its_origin():
    scorer = PatchKNNScorer().fit(FilterBankPatches(image_size=32).transform(X))
    stream = FilterBankPatches(image_size=40, stream=True).transform(X)
    for part in (stream, stream[:2]):
        with pytest.raises(ValueError, match="image_size is 40, was 32"):
            scorer.score_samples(part)


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_the_fingerprint_holds_the_state_of_random_numbers(make):
    one, same, other = (
        fingerprint_of(PatchKNNScorer(coreset=0.5, random_state=make(seed))) for seed in (0, 0, 1)
    )
    assert one == same != other


def test_functions_of_one_name_share_no_tokens_on_disk(tmp_path):
    """As closures and lambdas do, over which a search may go."""

    def make(shift):
        return lambda image: cell_means(image) + shift

    for func, expected in (
        (make(0.0), cell_means),
        (make(1.0), lambda image: cell_means(image) + 1),
        (lambda image: cell_means(image) * 2, lambda image: cell_means(image) * 2),
        (lambda image: cell_means(image) * 3, lambda image: cell_means(image) * 3),
    ):
        tokens = FunctionPatches(func, func_version="1", cache_dir=tmp_path).transform(X)
        assert_same(tokens, FunctionPatches(expected).transform(X))
