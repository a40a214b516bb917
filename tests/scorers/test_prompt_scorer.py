"""Prompts, their features, zero-shot and calibrated decisions, and WinCLIP's windows."""

import json
import pickle
import warnings
import zlib

import joblib
import numpy as np
import pytest
from _prompts import AxisPrompts
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from skanomaly import FunctionPatches, OpenClipPatches, PromptScorer, anomaly_maps
from skanomaly._networks import openclip
from skanomaly.core.prompts import (
    MODES,
    average_texts,
    harmonic_mean,
    harmonic_window_map,
    prompt_patch_scores,
)
from skanomaly.scorers import _prompt_bank
from skanomaly.scorers._prompt_bank import prompt_texts

DIM = 6
OWN = {"normal": ["a good {}", "fine"], "anomaly": ["a broken {}"]}


@pytest.fixture(autouse=True)
def no_texts_in_memory():
    _prompt_bank._features.clear()
    _prompt_bank._scales.clear()


@pytest.fixture
def encoder(monkeypatch):
    """An encoder in place of open_clip's; `calls` are the texts of each call."""

    class Encoder:
        calls, dim, scale, n_scales = [], DIM, 20.0, 0

    def text_features(model_name, weights, texts, *, device="auto", user="PromptScorer"):
        Encoder.calls.append(list(texts))
        return np.stack([_feature(f"{model_name}{weights}{t}", Encoder.dim) for t in texts])

    def logit_scale(model_name, weights, *, device="auto", user="PromptScorer"):
        Encoder.n_scales += 1
        return Encoder.scale

    monkeypatch.setattr(openclip, "text_features", text_features)
    monkeypatch.setattr(openclip, "logit_scale", logit_scale)
    Encoder.calls, Encoder.n_scales = [], 0
    return Encoder


def _feature(text, dim):
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    return 3 * rng.normal(size=dim).astype(np.float32)


def _tokens(n=12, grid=(4, 5), dim=DIM, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *grid, dim)).astype(np.float32)


def _direction(texts, prefix="ViT-B-16openai"):
    return average_texts([_feature(prefix + text, DIM) for text in texts])


# Prompts.


def test_the_published_ensemble():
    normal, anomaly = prompt_texts(None, "metal nut")
    assert (len(normal), len(anomaly)) == (7 * 21, 4 * 21)
    assert len(set(normal)) == 7 * 21 and len(set(anomaly)) == 4 * 21
    assert all("metal nut" in text and "{" not in text for text in normal + anomaly)
    assert not set(normal) & set(anomaly)
    assert "a close-up photo of the flawless metal nut." in normal
    assert "a photo of a metal nut with damage for visual inspection." in anomaly
    assert prompt_texts("winclip", "metal nut") == (normal, anomaly)
    assert prompt_texts("clip_ac", "nut") == (("normal nut",), ("anomalous nut",))
    assert prompt_texts(OWN, "nut") == (("a good nut", "fine"), ("a broken nut",))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("winclop", "'winclop' is no bank of prompts; did you mean 'winclip'"),
        ("", "is no bank of prompts"),
        ({}, "must have the keys 'normal' and 'anomaly', got \\[\\]"),
        ({"normal": ["a"], "abnormal": ["b"]}, "got \\['abnormal', 'normal'\\]"),
        ({**OWN, "anomaly": []}, "prompts\\['anomaly'\\] is empty"),
        (
            {**OWN, "anomaly": "broken"},
            "prompts\\['anomaly'\\] must be a list of str",
        ),
        ({**OWN, "normal": ["a", " "]}, "prompts\\['normal'\\]\\[1\\] must be a text, got ' '"),
        ({**OWN, "normal": [3]}, "prompts\\['normal'\\]\\[0\\] must be a text, got 3"),
    ],
)
def test_wrong_prompts(prompts, message, encoder):
    scorer = PromptScorer(prompts=prompts)
    with pytest.raises(ValueError, match=message):
        scorer.score_samples(_tokens())
    assert not encoder.calls


def test_features_are_those_of_the_texts(encoder):
    X = _tokens()
    for prompts in (None, "clip_ac", OWN):
        normal, anomaly = prompt_texts(prompts, "bolt")
        expected = prompt_patch_scores(X, _direction(normal), _direction(anomaly), "softmax", 20.0)
        scorer = PromptScorer("bolt", prompts=prompts, weights="openai")
        patches, scores = scorer.score_patches(X, return_scores=True)
        assert patches.shape == (12, 4, 5) and patches.dtype == np.float32
        np.testing.assert_allclose(patches, expected, rtol=1e-6)
        # The mean of int(0.01 * 20), at least 1, patches.
        np.testing.assert_allclose(scores, -expected.reshape(12, -1).max(axis=1), rtol=1e-12)
        assert scores.dtype == np.float64
    assert len(encoder.calls) == 3 and encoder.n_scales == 1


# The cache.


def test_texts_are_encoded_once_for_each_class(encoder):
    X = _tokens()
    scorer = PromptScorer("bolt")
    first = scorer.score_samples(X)
    for _ in range(3):
        clone(scorer).fit(X).score_samples(X)
    assert len(encoder.calls) == 1
    other = scorer.set_class_name("nut").score_samples(X)
    assert scorer.class_name == "nut" and len(encoder.calls) == 2
    assert np.abs(first - other).min() > 0
    # An earlier class, by either way, another scorer, and another device encode nothing.
    np.testing.assert_array_equal(scorer.set_params(class_name="bolt").score_samples(X), first)
    np.testing.assert_array_equal(PromptScorer("bolt", device="cpu").score_samples(X), first)
    pickle.loads(pickle.dumps(scorer)).score_samples(X)
    assert len(encoder.calls) == 2
    # Neither does a scorer that uses them otherwise.
    scorer.set_params(mode="diff", topk=3).score_samples(X)
    assert len(encoder.calls) == 2 and encoder.n_scales == 1


def test_changed_prompts_are_never_stale(encoder):
    X = _tokens()
    own = {key: list(texts) for key, texts in OWN.items()}
    scorer = PromptScorer("bolt", prompts=own, contamination=0.1).fit(X)
    first = scorer.score_samples(X)
    own["anomaly"].append("a bent {}")  # in place
    np.testing.assert_array_equal(
        scorer.score_samples(X), PromptScorer("bolt", prompts=own).score_samples(X)
    )
    assert np.abs(scorer.score_samples(X) - first).min() > 0
    assert encoder.calls[-1] == ["a good bolt", "fine", "a broken bolt", "a bent bolt"]
    with pytest.raises(NotFittedError, match="prompts of this PromptScorer changed since fit"):
        scorer.predict(X)
    changed = [{**OWN, "normal": ["a nice {}", "fine"]}, {**OWN, "anomaly": ["a bent {}"]}, OWN]
    scores = [tuple(PromptScorer("bolt", prompts=texts).score_samples(X)) for texts in changed]
    assert len(set(scores)) == 3
    # Other models and weights have other features.
    scores = {
        tuple(PromptScorer(model_name=name, weights=tag).score_samples(X))
        for name, tag in [("ViT-B-16", "openai"), ("ViT-B-32", "openai"), ("ViT-B-16", "random")]
    }
    assert len(scores) == 3


def test_a_changed_weight_file_is_read_again(encoder, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"one")
    PromptScorer(weights=path).score_samples(_tokens())
    PromptScorer(weights=str(path)).score_samples(_tokens())
    assert len(encoder.calls) == 1
    path.write_bytes(b"other")
    PromptScorer(weights=path).score_samples(_tokens())
    assert len(encoder.calls) == 2 and encoder.n_scales == 2


def test_a_changed_weight_file_at_home_is_read_again(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for content in (b"one", b"other"):
        (tmp_path / "weights.pt").write_bytes(content)
        PromptScorer(weights="~/weights.pt").score_samples(_tokens())
    assert len(encoder.calls) == 2


def test_the_cache_is_bounded(encoder, monkeypatch):
    monkeypatch.setattr(_prompt_bank, "MAX_CLASSES", 2)
    scorer, X = PromptScorer(prompts="clip_ac"), _tokens(1)
    for name in ("a", "b", "a", "c", "a", "b"):
        scorer.set_class_name(name).score_samples(X)
    assert [call[0] for call in encoder.calls] == ["normal a", "normal b", "normal c", "normal b"]
    assert len(_prompt_bank._features) == 2


def test_threads_wait_for_one_encoding(encoder):
    X = _tokens(2)
    scores = joblib.Parallel(n_jobs=4, prefer="threads")(
        joblib.delayed(PromptScorer("bolt").score_samples)(X) for _ in range(8)
    )
    assert len(encoder.calls) == 1
    assert all((score == scores[0]).all() for score in scores)


# Zero-shot and calibrated decisions.


def test_zero_shot(encoder):
    X = _tokens(30)
    scorer = PromptScorer("bolt", aggregation="mean")
    scores = scorer.score_samples(X)
    assert ((scores > -1) & (scores < 0)).all()
    np.testing.assert_array_equal(scorer.decision_function(X), scores + 0.5)
    np.testing.assert_array_equal(scorer.predict(X), np.where(scores < -0.5, -1, 1))
    assert set(scorer.predict(X)) == {-1, 1}
    fitted = clone(scorer).fit(X)
    assert fitted.offset_ == -0.5
    np.testing.assert_array_equal(fitted.predict(X), scorer.predict(X))
    np.testing.assert_array_equal(fitted.train_scores_, scores)
    # The threshold is not of the class either.
    fitted.set_class_name("nut").predict(X)
    with pytest.raises(NotFittedError, match="PromptScorer instance is not fitted yet"):
        scorer.p_values(X)
    with pytest.raises(NotFittedError, match="class_name of this PromptScorer changed since fit"):
        fitted.p_values(X)


@pytest.mark.parametrize("mode", MODES)
def test_calibrated(mode, encoder):
    X, new = _tokens(30), _tokens(5, seed=1)
    scorer = PromptScorer("bolt", mode=mode, contamination=0.2, aggregation="mean")
    with pytest.raises(NotFittedError, match="fit it on normal images"):
        scorer.predict(new)
    with pytest.raises(NotFittedError, match="fit it on normal images"):
        scorer.decision_function(new)
    zero_shot = scorer.score_samples(new)
    scorer.fit(X)
    # Nothing was learned from the images: scores are what they were, held-out as they stand.
    np.testing.assert_array_equal(scorer.score_samples(new), zero_shot)
    np.testing.assert_array_equal(scorer.score_samples(X), scorer.train_scores_)
    assert scorer.offset_ == np.quantile(scorer.train_scores_, 0.2, method="weibull")
    assert (scorer.predict(X) == -1).sum() == 6
    np.testing.assert_array_equal(clone(scorer).fit_predict(X), scorer.predict(X))
    np.testing.assert_array_equal(
        [scorer.predict(image[None])[0] for image in X], scorer.predict(X)
    )
    expected = [(1 + (scorer.train_scores_ <= s).sum()) / 31 for s in scorer.score_samples(new)]
    np.testing.assert_allclose(scorer.p_values(new), expected)
    # The threshold of one class does not serve another, though scores do.
    with pytest.raises(NotFittedError, match="class_name of this PromptScorer changed since fit"):
        scorer.set_class_name("nut").predict(new)
    np.testing.assert_array_equal(
        scorer.score_samples(new), clone(scorer).set_params(contamination="auto").score_samples(new)
    )
    scorer.set_class_name("bolt").predict(new)
    scorer.set_class_name("nut").fit(X).predict(new)


def test_auto_needs_probabilities(encoder):
    scorer = PromptScorer(mode="diff")
    with pytest.raises(ValueError, match="mode='diff' has no such threshold"):
        scorer.fit(_tokens())
    with pytest.raises(NotFittedError, match="only for mode='softmax' with contamination='auto'"):
        scorer.predict(_tokens())
    assert scorer.score_patches(_tokens()).min() < 0


def test_labels_and_single_images(encoder):
    X, y = _tokens(), np.r_[np.ones(9), -np.ones(3)]
    scorer = PromptScorer(contamination=0.1).fit(X, y)
    assert scorer.train_scores_.shape == (9,)
    with pytest.warns(UserWarning, match="calibrated on a single image") as caught:
        scorer.fit(X[:1])
    assert caught[0].filename == __file__
    assert scorer.predict(X[:1]) == 1
    PromptScorer().fit(X[:1, 0, 0])  # the threshold of probabilities needs no image


def test_logit_scale(encoder):
    X = _tokens()
    own = PromptScorer().fit(X)
    assert own.logit_scale_ == 20
    given = PromptScorer(logit_scale=3).fit(X)
    assert given.logit_scale_ == 3
    np.testing.assert_allclose(
        np.arctanh(2 * own.score_samples(X) + 1) / 20,
        np.arctanh(2 * given.score_samples(X) + 1) / 3,
        rtol=1e-3,
    )
    features = {"text_features_normal": np.eye(DIM)[0], "text_features_anomaly": np.eye(DIM)[1]}
    assert PromptScorer(**features).fit(X).logit_scale_ == 100
    assert encoder.n_scales == 1


# Tokens.


def test_forms_and_masks_agree(encoder):
    X = _tokens()
    scorer = PromptScorer("bolt", topk=3)
    scores = scorer.score_samples(X)
    mixed = np.empty(12, dtype=object)
    mixed[:] = [image if i % 2 else image[:3] for i, image in enumerate(X)]
    flat = X.reshape(12, 20, DIM)
    np.testing.assert_array_equal(scorer.score_samples(flat), scores)
    np.testing.assert_array_equal(scorer.score_samples(flat[:, ::-1]), scores)
    np.testing.assert_array_equal(scorer.score_samples(mixed)[1::2], scores[1::2])
    assert [patches.shape for patches in scorer.score_patches(mixed)[:2]] == [(3, 5), (4, 5)]
    masked = np.concatenate([X, np.full_like(X[:, :1], np.nan)], axis=1)
    np.testing.assert_array_equal(scorer.score_samples(masked), scores)
    np.testing.assert_array_equal(scorer.score_patches(masked)[:, :4], scorer.score_patches(X))
    assert (scorer.score_patches(masked)[:, 4] == 0).all()
    scorer.set_params(topk=1)
    np.testing.assert_array_equal(
        scorer.score_samples(X[:, 0, 0]), scorer.score_samples(X[:, :1, :1])
    )
    scores = scorer.score_samples(X)
    views = np.stack([X, X[:, ::-1] + 1], axis=1)
    fitted = clone(scorer).fit(views)
    np.testing.assert_array_equal(fitted.train_scores_, scores)
    np.testing.assert_array_equal(clone(scorer).fit_predict(views), fitted.predict(X))


def test_data_frames(encoder):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(_tokens(8)[:, 0, 0], columns=list("abcdef"))
    scorer = PromptScorer()
    scores = scorer.score_samples(frame)  # unfitted, and no warning of names
    scorer.fit(frame)
    np.testing.assert_array_equal(scorer.score_samples(frame), scores)
    assert list(scorer.feature_names_in_) == list("abcdef")


def test_wrong_tokens(encoder):
    scorer = PromptScorer()
    with pytest.raises(ValueError, match="of dimension 8, the text features of 6; they must be"):
        scorer.score_samples(_tokens(dim=8))
    with pytest.raises(ValueError, match="OpenClipPatches\\(model_name, project=True\\)"):
        scorer.fit(_tokens(dim=8))
    with pytest.raises(ValueError, match="give the same windows here"):
        scorer.fit(_tokens(dim=24))
    scorer.score_samples(_tokens())  # what failed left nothing behind
    fitted = clone(scorer).fit(_tokens())
    with pytest.raises(ValueError, match="X has 8 features, but PromptScorer is expecting 6"):
        fitted.score_samples(_tokens(dim=8))
    broken = _tokens()
    broken[3, 1, 2, 0] = np.nan
    with pytest.raises(ValueError, match="patch 7 of image 3"):
        scorer.score_samples(broken)
    with pytest.raises(ValueError, match="put an embedder before it"):
        scorer.predict(["a.png", "b.png"])
    # A zero token is like nothing: probability one half.
    assert scorer.score_samples(np.zeros((1, 2, 2, DIM))).tolist() == [-0.5]
    assert scorer.predict(np.zeros((1, 2, 2, DIM))).tolist() == [1]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"text_features_anomaly": None}, "give text_features_normal and text_features_anomaly"),
        ({"prompts": "winclip"}, "features take the place of all prompts"),
        ({"text_features_normal": np.ones(4)}, "is of dimension 4, text_features_anomaly of 6"),
        ({"text_features_normal": np.zeros(6)}, "text_features_normal holds a zero vector"),
        ({"text_features_anomaly": [np.nan] * 6}, "text_features_anomaly contains NaN"),
        ({"text_features_anomaly": [[1] * 6, [0] * 6]}, "zero vector \\(text 1\\)"),
        ({"text_features_normal": []}, "must be of shape \\(dim,\\) or \\(n_texts, dim\\)"),
        ({"text_features_normal": np.ones((1, 1, 6))}, "must be of shape"),
        ({"mode": "cosine"}, "The 'mode' parameter of PromptScorer must be a str among"),
        ({"logit_scale": 0}, "The 'logit_scale' parameter of PromptScorer"),
        ({"contamination": "half"}, "The 'contamination' parameter of PromptScorer"),
        ({"aggregation": "class_token"}, "needs windows, whose tokens hold the class embedding"),
        ({"windows": (2, 2)}, "windows must be different sides in patches"),
        ({"windows": ()}, "windows must be different sides in patches"),
        ({"windows": (0,)}, "windows must be different sides in patches"),
        ({"windows": (True, 2)}, "windows must be different sides in patches"),
        ({"logit_scale": True}, "The 'logit_scale' parameter of PromptScorer must not be a bool"),
        ({"windows": (2, 3), "mode": "diff"}, "windows need scores of at least 0"),
        ({"windows": (2, 3)}, "tokens must have 4 x 6"),
        ({"text_features_anomaly": np.random.default_rng(0).normal(size=DIM)}, "are the same"),
    ],
)
def test_wrong_parameters(params, message):
    texts = np.random.default_rng(0).normal(size=(2, DIM))
    params = {"text_features_normal": texts[0], "text_features_anomaly": texts[1], **params}
    with pytest.raises(ValueError, match=message):
        PromptScorer(**params).score_samples(_tokens())
    with pytest.raises(ValueError, match=message):
        PromptScorer(**params).fit(_tokens())


def test_an_empty_class_name(encoder):
    with pytest.raises(ValueError, match="class_name is empty"):
        PromptScorer(" ").score_samples(_tokens())


# scikit-learn.


def test_injected_features_and_persistence(tmp_path):
    X, rng = _tokens(30), np.random.default_rng(1)
    texts = {
        "text_features_normal": rng.normal(size=(3, DIM)),
        "text_features_anomaly": rng.normal(size=DIM).tolist(),
    }
    scorer = PromptScorer(**texts, contamination=0.1).fit(X)
    expected = prompt_patch_scores(
        X,
        average_texts(texts["text_features_normal"]),
        average_texts(texts["text_features_anomaly"]),
        "softmax",
    )
    np.testing.assert_allclose(scorer.score_patches(X), expected, rtol=1e-5)
    joblib.dump(scorer, tmp_path / "scorer.joblib")
    loaded = joblib.load(tmp_path / "scorer.joblib")
    np.testing.assert_array_equal(loaded.predict(X), scorer.predict(X))
    assert clone(loaded).fit(X).offset_ == scorer.offset_
    # A changed array is noticed.
    loaded.text_features_normal[0] = 7
    with pytest.raises(NotFittedError, match="text_features_normal of this PromptScorer changed"):
        loaded.predict(X)


def test_a_fitted_scorer_travels_without_the_encoder(encoder, monkeypatch, tmp_path):
    X = _tokens(200)
    scorer = PromptScorer("bolt", contamination=0.1).fit(X)
    expected = scorer.predict(X)
    joblib.dump(scorer, tmp_path / "scorer.joblib")
    assert (tmp_path / "scorer.joblib").stat().st_size < 100_000
    _prompt_bank._features.clear()
    monkeypatch.setattr(encoder, "dim", None)  # what encodes now fails
    loaded = joblib.load(tmp_path / "scorer.joblib")
    np.testing.assert_array_equal(loaded.predict(X), expected)
    assert len(encoder.calls) == 1


def cell_colours(image):
    """Cells of 8 x 8 pixels, by their mean colour and its spread."""
    cells = image.reshape(4, 8, 4, 8, 3).transpose(0, 2, 1, 3, 4).reshape(4, 4, 64, 3) / 255.0
    return np.concatenate([cells.mean(axis=2), cells.std(axis=2)], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    """16 grey images, and 8 with a red spot."""
    rng = np.random.default_rng(0)
    images = rng.integers(100, 156, size=(24, 32, 32, 3), dtype=np.uint8)
    images[16:, 8:16, 16:24] = [250, 20, 20]
    return list(images), np.r_[np.ones(16, int), -np.ones(8, int)]


@pytest.fixture
def pipe():
    return Pipeline(
        [
            ("emb", FunctionPatches(cell_colours)),
            (
                "prompt",
                PromptScorer(
                    text_features_normal=[1, 1, 1, 0.1, 0.1, 0.1],
                    text_features_anomaly=[1, 0.1, 0.1, 0, 0, 0],
                    contamination=0.1,
                ),
            ),
        ]
    )


def test_grid_search_over_modes(images, pipe):
    grid = {"prompt__mode": ["softmax", "diff", "ratio"], "prompt__topk": [1, 0.5]}
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(pipe, grid, scoring="roc_auc", cv=cv, error_score="raise")
    search.fit(*images)
    auc = dict(
        zip(
            [tuple(sorted(p.items())) for p in search.cv_results_["params"]],
            search.cv_results_["mean_test_score"],
            strict=True,
        )
    )
    assert len(auc) == 6
    assert all(auc[("prompt__mode", mode), ("prompt__topk", 1)] == 1 for mode in MODES)
    assert (search.predict(images[0])[16:] == -1).all()
    assert len(search.best_estimator_[-1].train_scores_) == 16


def test_grid_search_over_classes(images, pipe, encoder):
    pipe.set_params(prompt=PromptScorer(prompts="clip_ac", contamination=0.1))
    grid = {"prompt__class_name": ["bolt", "nut"], "prompt__topk": [1, 4]}
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(pipe, grid, scoring="roc_auc", cv=cv, error_score="raise").fit(*images)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert sorted(call[0] for call in encoder.calls) == ["normal bolt", "normal nut"]


def test_maps_of_an_unfitted_pipeline(images, pipe):
    pipe.set_params(prompt__contamination="auto")
    maps, scores = anomaly_maps(pipe, images[0], sigma=0, return_scores=True)
    assert maps.shape == (24, 32, 32) and np.isfinite(maps).all()
    np.testing.assert_array_equal(pipe.score_samples(images[0]), scores)
    assert pipe.predict(images[0]).tolist() == images[1].tolist()
    patches = pipe[-1].score_patches(pipe[:-1].transform(images[0][20:21]))
    assert np.argwhere(patches[0] > 0.5).tolist() == [[1, 2]]
    assert (maps[20, 11:13, 19:21] > 0.5).all()


# WinCLIP.


def _window_tokens(n, grid, windows, dim, seed=0):
    """Tokens as from the embedder, and what they are made of."""
    rng = np.random.default_rng(seed)
    patches = rng.normal(size=(n, *grid, dim))
    images = rng.normal(size=(n, dim))
    embeddings = [
        rng.normal(size=(n, grid[0] - side + 1, grid[1] - side + 1, dim)) for side in windows
    ]
    rows, columns = np.arange(grid[0])[:, None], np.arange(grid[1])
    stored = [
        windowed[
            :,
            np.minimum(rows, windowed.shape[1] - 1),
            np.minimum(columns, windowed.shape[2] - 1),
        ]
        for windowed in embeddings
    ]
    spread = np.broadcast_to(images[:, None, None], patches.shape)
    return np.concatenate([patches, *stored, spread], axis=-1), embeddings, images


@pytest.mark.parametrize("mode", ["softmax", "ratio"])
def test_windows(mode):
    X, embeddings, images = _window_tokens(3, (4, 6), (2, 3), DIM)
    texts = np.random.default_rng(9).normal(size=(2, DIM))
    scorer = PromptScorer(
        text_features_normal=texts[0],
        text_features_anomaly=texts[1],
        logit_scale=5,
        mode=mode,
        windows=(2, 3),
    )
    score = lambda vectors: prompt_patch_scores(vectors, *texts, mode, 5)  # noqa: E731
    expected = np.empty((3, 4, 6))
    for i in range(3):
        scales = [np.full((4, 6), score(images[i]))]
        for side, windowed in zip((2, 3), embeddings, strict=True):
            scales.append(harmonic_window_map(score(windowed[i]), side))
        expected[i] = harmonic_mean(scales)
    np.testing.assert_allclose(scorer.score_patches(X), expected, rtol=1e-6)
    np.testing.assert_allclose(scorer.score_samples(X), -expected.max(axis=(1, 2)), rtol=1e-9)
    scorer.set_params(aggregation="class_token")
    np.testing.assert_allclose(scorer.score_samples(X), -score(images), rtol=1e-12)
    np.testing.assert_allclose(scorer.score_patches(X), expected, rtol=1e-6)
    # Images of other grids among them.
    wide, _, _ = _window_tokens(1, (3, 8), (2, 3), DIM, seed=5)
    mixed = np.empty(2, dtype=object)
    mixed[:] = [X[1], wide[0]]
    np.testing.assert_array_equal(scorer.score_patches(mixed)[0], scorer.score_patches(X)[1])
    np.testing.assert_array_equal(scorer.score_patches(mixed)[1], scorer.score_patches(wide)[0])


def test_masked_patches_take_their_windows_along():
    X, embeddings, images = _window_tokens(1, (3, 3), (2,), DIM)
    texts = np.random.default_rng(9).normal(size=(2, DIM))
    scorer = PromptScorer(
        text_features_normal=texts[0], text_features_anomaly=texts[1], logit_scale=5, windows=[2]
    )
    plain = scorer.score_patches(X)[0]
    X[0, 0, 0] = X[0, 2, 2] = np.nan
    patches = scorer.score_patches(X)[0]
    assert patches[0, 0] == patches[2, 2] == 0
    window = prompt_patch_scores(embeddings[0][0], *texts, "softmax", 5)
    image = prompt_patch_scores(images[0], *texts, "softmax", 5)
    # The window at (0, 0) is gone, that at (1, 1) is stored at three patches more.
    covering = [window[0, 1], window[1, 0], window[1, 1]]
    np.testing.assert_allclose(
        patches[1, 1], harmonic_mean([image, harmonic_mean(covering)]), rtol=1e-6
    )
    np.testing.assert_allclose(patches[2, 1], plain[2, 1], rtol=1e-6)
    np.testing.assert_allclose(patches[0, 1], harmonic_mean([image, window[0, 1]]), rtol=1e-6)


def test_wrong_window_tokens():
    X, _, _ = _window_tokens(3, (4, 6), (2, 3), DIM)
    scorer = AxisPrompts(windows=(2, 3), logit_scale=5)
    scorer.fit(X)
    for broken, message in [
        (X.reshape(3, 24, -1), "windows need the grid"),
        (X[:, 0, 0], "windows need the grid"),
        (X[:, :2], "image 0: windows of 3 x 3 patches do not fit in a grid of \\(2, 6\\)"),
        (X[..., ::-1], "the last 6 components of the tokens of image 0 differ from patch to patch"),
    ]:
        with pytest.raises(ValueError, match=message):
            scorer.score_samples(broken)
    swapped = AxisPrompts(windows=(3, 2), logit_scale=5)
    with pytest.raises(ValueError, match="image 0 hold no windows of 3 x 3 .* in its order"):
        swapped.score_samples(X)
    with pytest.raises(ValueError, match="with windows=\\(2, 3\\) tokens must have 4 x 5"):
        AxisPrompts(windows=(2, 3), logit_scale=5).score_samples(X[..., :23])


# With open_clip itself, and against anomalib.

CLIP = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 80, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2,
    },
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Name and weight file of a tiny CLIP, and images of its size."""
    open_clip = pytest.importorskip("open_clip")
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    (folder / "skanomaly-prompts.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = open_clip.create_model("skanomaly-prompts").state_dict()
        # Large enough that images and texts differ by more than rounding.
        state = {name: t + 0.1 * torch.randn_like(t) for name, t in state.items() if t.ndim}
        state["logit_scale"] = torch.tensor(3.0)
    save_file(state, folder / "weights.safetensors")
    images = np.random.default_rng(0).integers(0, 256, size=(3, 80, 80, 3), dtype=np.uint8)
    return "skanomaly-prompts", folder / "weights.safetensors", list(images)


def test_with_open_clip(clip):
    name, weights, images = clip
    model = {"model_name": name, "weights": weights, "device": "cpu"}
    pipe = Pipeline(
        [
            ("emb", OpenClipPatches(**model, project=True)),
            ("prompt", PromptScorer("cable", **model)),
        ]
    )
    maps, scores = anomaly_maps(pipe, images, return_scores=True)
    assert maps.shape == (3, 80, 80) and np.isfinite(maps).all()
    np.testing.assert_array_equal(pipe.predict(images), np.where(scores < -0.5, -1, 1))
    fitted = clone(pipe).fit(images)
    np.testing.assert_allclose(fitted[-1].logit_scale_, np.exp(3), rtol=1e-6)
    assert fitted[-1].text_features_.shape == (2, 24)
    assert len(pickle.dumps(fitted)) < 10_000
    np.testing.assert_array_equal(fitted.score_samples(images), scores)
    assert (
        np.abs(
            clone(pipe).set_params(prompt__class_name="nut").score_samples(images) - scores
        ).min()
        > 0
    )
    # Tokens that were not projected, and windows that only one of both knows of.
    with pytest.raises(ValueError, match="OpenClipPatches\\(model_name, project=True\\)"):
        clone(pipe).set_params(emb__project=False).score_samples(images)
    with pytest.raises(ValueError, match="give the same windows here"):
        clone(pipe).set_params(emb__windows=(2, 3)).score_samples(images)
    with pytest.raises(ValueError, match="tokens must have 4 x 24"):
        clone(pipe).set_params(prompt__windows=(2, 3)).score_samples(images)
    with pytest.raises(ValueError, match="did you mean skanomaly-prompts"):
        clone(pipe[-1]).set_params(model_name="skanomaly-prompt").score_samples(_tokens())


@pytest.fixture
def anomalib_winclip(clip, monkeypatch):
    """anomalib's model of the tiny CLIP; its prompts stand for the class cable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("anomalib")
        from anomalib.models.image.winclip import torch_model

        monkeypatch.setattr(torch_model, "BACKBONE", clip[0])
        monkeypatch.setattr(torch_model, "PRETRAINED", str(clip[1]))
        model = torch_model.WinClipModel("cable").eval()
    embed, transformer = model._get_window_embeddings, model.clip.visual.transformer

    def embed_windows(feature_map, masks):
        # It hands windows over sequence first, as open_clip 2 took them: to version 3 all windows
        # would be one.
        transformer.batch_first = False
        try:
            return embed(feature_map, masks)
        finally:
            transformer.batch_first = True

    monkeypatch.setattr(model, "_get_window_embeddings", embed_windows)
    return model


@pytest.mark.filterwarnings("ignore")
def test_winclip_against_anomalib(clip, anomalib_winclip):
    import torch

    name, weights, images = clip
    model = {"model_name": name, "weights": weights, "device": "cpu"}
    # Its text features: ours bring each text to unit length before the mean, as the paper has it.
    texts = anomalib_winclip.text_embeddings.numpy()
    scorer = PromptScorer(
        text_features_normal=texts[0],
        text_features_anomaly=texts[1],
        logit_scale=1 / 0.07,
        windows=(2, 3),
        aggregation="class_token",
    )
    embedder = OpenClipPatches(**model, project=True, windows=(2, 3))
    patches, scores = scorer.score_patches(embedder.transform(images), return_scores=True)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    batch = torch.from_numpy((np.stack(images) / 255 - mean) / std).float().permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = anomalib_winclip(batch)
        image_embeddings, windows, _ = anomalib_winclip.encode_image(batch)
        image_scores = expected.pred_score
        grid = anomalib_winclip._compute_zero_shot_scores(image_scores, windows).numpy()
    np.testing.assert_allclose(scores, -expected.pred_score.numpy(), rtol=1e-4)
    np.testing.assert_allclose(patches, grid, rtol=1e-4)
    assert np.ptp(grid) > 1e-3 and np.ptp(image_scores.numpy()) > 1e-3
    maps = torch.nn.functional.interpolate(
        torch.from_numpy(patches)[:, None], size=(80, 80), mode="bilinear"
    )
    np.testing.assert_allclose(maps[:, 0].numpy(), expected.anomaly_map.numpy(), rtol=1e-4)


def test_text_ensemble_against_open_clip(clip):
    import open_clip
    import torch

    name, weights, _ = clip
    model = open_clip.create_model(name, pretrained=str(weights)).eval()
    tokenizer = open_clip.get_tokenizer(name)
    directions = []
    for texts in prompt_texts(None, "cable"):
        with torch.no_grad():
            features = model.encode_text(tokenizer(list(texts)), normalize=True).double().mean(0)
        directions.append((features / features.norm()).numpy())
    scorer = PromptScorer("cable", model_name=name, weights=weights, device="cpu")
    scorer.fit(np.random.default_rng(0).normal(size=(3, 2, 2, 24)))
    np.testing.assert_allclose(scorer.text_features_, directions, atol=1e-6)
