"""AnomalibDetector with injected inferencers: no anomalib, no torch."""

import os
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_param_validation, parametrize_with_checks
from sklearn.utils.validation import validate_data

from skanomaly import AnomalibDetector, ImageReadError, anomaly_maps, evaluate_split
from skanomaly.datasets import make_surfaces, read_mvtec
from skanomaly.inspection import color_limits
from skanomaly.model_selection import OneClassSplit


class Darkness:
    """Scores an image by how dark it is; the map is the darkness of its pixels."""

    def __init__(self):
        self.seen = []

    def predict(self, image):
        self.seen.append(image)
        if isinstance(image, (str, os.PathLike)):
            with Image.open(image) as file:
                image = np.asarray(file.convert("RGB"))
        scale = 255 if image.dtype == np.uint8 else 1
        dark = 1 - image.astype(np.float64).mean(axis=2) / scale
        return {"pred_score": dark.mean(), "anomaly_map": dark}


class Returns:
    """Returns what it is told to."""

    def __init__(self, *results):
        self.results = list(results)

    def predict(self, image):
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def flat(*greys, size=(4, 6)):
    return [np.full((*size, 3), grey, dtype=np.uint8) for grey in greys]


def darkness(*greys):
    return 1 - np.array(greys) / 255


# What an inferencer is given, and may return


def test_scores_are_negative_and_maps_are_not():
    detector = AnomalibDetector(inferencer=Darkness())
    X = flat(0, 51, 255)
    np.testing.assert_allclose(detector.score_samples(X), -darkness(0, 51, 255), atol=1e-12)
    maps, scores = detector.score_maps(X, return_scores=True)
    assert maps.shape == (3, 4, 6) and maps.dtype == np.float32 and scores.dtype == np.float64
    np.testing.assert_allclose(maps[:, 0, 0], darkness(0, 51, 255), atol=1e-6)


def test_paths_are_passed_as_they_are_and_all_else_decoded(tmp_path):
    path = tmp_path / "part.png"
    Image.fromarray(flat(51)[0]).save(path)
    inferencer = Darkness()
    grey16 = np.full((4, 6), 65535 // 5, dtype=np.uint16)
    X = [str(path), path, path.read_bytes(), Image.open(path), flat(51)[0], grey16]
    scores = AnomalibDetector(inferencer=inferencer).score_samples(X)
    np.testing.assert_allclose(scores, -0.8, atol=1e-7)
    assert inferencer.seen[0] == str(path) and inferencer.seen[1] is path
    decoded = [(a.shape, a.dtype) for a in inferencer.seen[2:]]
    assert decoded == [((4, 6, 3), np.uint8)] * 3 + [((4, 6, 3), np.float32)]


def test_value_range_is_for_every_image_and_part_of_the_fit(tmp_path):
    deep = np.full((4, 6), 4095 // 5, dtype=np.uint16)
    path = tmp_path / "part.png"
    Image.fromarray(deep).save(path)
    inferencer = Darkness()
    detector = AnomalibDetector(inferencer=inferencer, value_range=4095)
    scores = detector.score_samples([str(path), path.read_bytes(), deep])
    np.testing.assert_allclose(scores, -0.8, atol=1e-7)
    assert [a.dtype for a in inferencer.seen] == [np.float32] * 3
    with pytest.raises(ImageReadError, match=r"image 1 .*value_range=\(0, 4095\)"):
        detector.score_samples([deep, deep * np.uint16(9)])
    bright = deep * np.uint16(4)
    detector.fit([deep, bright])
    with pytest.raises(NotFittedError, match="value_range of this AnomalibDetector changed"):
        clone_with(detector, value_range=65535).predict([deep])
    with pytest.raises(ValueError, match="black below white"):
        AnomalibDetector(inferencer=inferencer, value_range=(9, 3)).fit([deep])


def clone_with(detector, **params):
    return pickle.loads(pickle.dumps(detector)).set_params(**params)


def test_images_for_the_threshold_that_use_a_small_part_of_their_range_are_warned_of():
    X = [np.full((4, 6), value, dtype=np.uint16) for value in (7, 4000)]
    detector = AnomalibDetector(inferencer=Darkness(), batch_size=1)
    with pytest.warns(UserWarning, match="values 7..4000 of 0..65535.*value_range=4095") as caught:
        detector.fit(X)
    assert [w.filename for w in caught] == [__file__]
    detector.predict(X)


def test_the_callers_arrays_are_not_touched():
    class Vandal:
        def predict(self, image):
            image[:] = 7
            return {"pred_score": np.float32(1), "anomaly_map": np.ones((2, 2))}

    X = flat(10, 20)
    kept = [image.copy() for image in X]
    AnomalibDetector(inferencer=Vandal()).fit(X).score_maps(X)
    assert all(np.array_equal(a, b) for a, b in zip(X, kept, strict=True))


@pytest.mark.parametrize(
    ("score", "shape", "as_object"),
    [
        (0.5, (2, 3), False),
        (np.float32(0.5), (1, 2, 3), True),
        (np.array([0.5]), (1, 1, 2, 3), False),
        ([[0.5]], (2, 3), True),
    ],
)
def test_accepted_results(score, shape, as_object):
    heat = np.arange(6).reshape(shape)
    result = {"pred_score": score, "anomaly_map": heat}
    result = SimpleNamespace(**result) if as_object else result
    detector = AnomalibDetector(inferencer=Returns(result))
    maps, scores = detector.score_maps(flat(0, size=(2, 3)), return_scores=True)
    assert scores.tolist() == [-0.5] and maps.tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors_keep_no_graph(dtype):
    torch = pytest.importorskip("torch")
    heat = torch.ones((1, 1, 2, 3), dtype=getattr(torch, dtype), requires_grad=True) * 0.5
    result = {"pred_score": heat.mean()[None], "anomaly_map": heat}
    detector = AnomalibDetector(inferencer=Returns(result))
    maps, scores = detector.score_maps(flat(0), return_scores=True)
    assert type(maps) is np.ndarray and (maps == 0.5).all() and scores.tolist() == [-0.5]


HEAT = np.zeros((2, 2))


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({"anomaly_map": HEAT}, "returned no pred_score"),
        (SimpleNamespace(anomaly_map=HEAT), "returned no pred_score"),
        (None, "returned no pred_score"),
        ({"pred_score": [[1], [1, 2]]}, "pred_score is no array of numbers"),
        ({"pred_score": 1, "anomaly_map": [[1], [1, 2]]}, "anomaly_map is no array of numbers"),
        ({"pred_score": 1, "anomaly_map": HEAT + 1e300}, "anomaly_map is not finite"),
        ({"pred_score": np.nan}, "pred_score is nan"),
        ({"pred_score": np.inf}, "pred_score is inf"),
        ({"pred_score": [0.1, 0.2]}, r"pred_score has the shape \(2,\)"),
        ({"pred_score": HEAT[None]}, r"pred_score has the shape \(1, 2, 2\)"),
        ({"pred_score": []}, r"pred_score has the shape \(0,\)"),
        ({"pred_score": "high"}, "pred_score is str, not numbers"),
        ({"pred_score": 1, "anomaly_map": np.full((2, 2), np.nan)}, "anomaly_map is not finite"),
        ({"pred_score": 1, "anomaly_map": np.ones(3)}, r"anomaly_map has the shape \(3,\)"),
        ({"pred_score": 1, "anomaly_map": np.ones((2, 2, 2))}, r"the shape \(2, 2, 2\)"),
        ({"pred_score": 1, "anomaly_map": np.ones((0, 2))}, r"the shape \(0, 2\)"),
        ({"pred_score": 1, "anomaly_map": "red"}, "anomaly_map is str"),
    ],
)
def test_bad_results_name_the_image(result, problem):
    good = {"pred_score": 0, "anomaly_map": HEAT}
    detector = AnomalibDetector(inferencer=Returns(good, good, result), batch_size=2)
    with pytest.raises(ValueError, match=f"^image 2: .*{problem}"):
        detector.score_samples(flat(1, 2, 3))


def test_an_inferencer_that_raises_is_named_with_the_image(tmp_path):
    detector = AnomalibDetector(inferencer=Returns(KeyError("boom")))
    Image.fromarray(flat(51)[0]).save(tmp_path / "part.png")
    with pytest.raises(RuntimeError, match=r"image 0 \('.*part.png'\): Returns.predict raised Key"):
        detector.score_samples([tmp_path / "part.png"])


def test_without_maps_scores_work_and_maps_raise():
    scored, mapped = {"pred_score": 1}, {"pred_score": 1, "anomaly_map": HEAT}
    make = lambda *results: AnomalibDetector(inferencer=Returns(*results))  # noqa: E731
    assert make(scored, mapped).score_samples(flat(1, 2)).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="^image 1: this model gives scores, but no anomaly_map"):
        make(mapped, scored).score_maps(flat(1, 2))
    with pytest.raises(ValueError, match="size must be 'image' or 'model'"):
        make().score_maps(flat(1), size="small")


def test_maps_have_the_size_of_their_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(flat(0, size=(10, 20))[0]).save(tmp_path / "turned.png", exif=exif)
    results = [{"pred_score": i, "anomaly_map": [[0.0, 1.0]]} for i in range(3)] * 2
    detector = AnomalibDetector(inferencer=Returns(*results), batch_size=2)
    X = [flat(0, size=(1, 4))[0], flat(0, size=(5, 1))[0], tmp_path / "turned.png"]
    maps = detector.score_maps(X)
    assert isinstance(maps, list) and [m.shape for m in maps] == [(1, 4), (5, 1), (20, 10)]
    np.testing.assert_allclose(maps[0], [[0, 0.25, 0.75, 1]])
    assert detector.score_maps(X, size="model").shape == (3, 1, 2)


def test_maps_and_scores_come_from_one_pass_without_fit():
    inferencer = Darkness()
    detector = AnomalibDetector(inferencer=inferencer)
    maps, scores = anomaly_maps(detector, flat(0, 255), sigma=0, return_scores=True)
    assert len(inferencer.seen) == 2
    np.testing.assert_allclose(maps, detector.score_maps(flat(0, 255)), atol=1e-6)
    assert scores.tolist() == [-1, 0]


def test_colours_are_anchored_at_the_maps_of_the_good_images():
    rng = np.random.default_rng(0)
    X = list(rng.integers(100, 256, (12, 16, 16, 3)).astype(np.uint8))
    dark = np.zeros((16, 16, 3), dtype=np.uint8)
    detector = AnomalibDetector(inferencer=Darkness(), batch_size=5)
    assert color_limits(detector) is None
    detector.fit([*X, dark], [1] * 12 + [-1])
    maps = 1 - np.array(X).mean(axis=3).reshape(12, -1) / 255
    low, high = np.quantile(maps, 0.95), np.quantile(maps.max(axis=1), 0.9)
    expected = low, high + (high - low) / 12
    np.testing.assert_allclose(color_limits(detector), expected, rtol=0.01)
    scored = [{"pred_score": i, "anomaly_map": None} for i in range(3)]
    assert color_limits(AnomalibDetector(inferencer=Returns(*scored)).fit(X[:3])) is None


# The threshold


def test_fit_calibrates_on_good_images():
    greys = np.arange(1, 100)
    detector = AnomalibDetector(inferencer=Darkness(), contamination=0.25).fit(flat(*greys))
    np.testing.assert_allclose(np.sort(-detector.train_scores_), np.sort(darkness(*greys)))
    np.testing.assert_allclose(detector.offset_, -darkness(25), atol=1e-12)
    assert detector.predict(flat(24, 26)).tolist() == [-1, 1]
    scores = detector.score_samples(flat(3, 90))
    np.testing.assert_array_equal(
        detector.decision_function(flat(3, 90)), scores - detector.offset_
    )
    expected = [(1 + sum(detector.train_scores_ <= s)) / 100 for s in scores]
    np.testing.assert_allclose(detector.p_values(flat(3, 90)), expected)


def test_known_anomalies_are_left_out():
    X, y = flat(*range(101, 121), 0, 1), [1] * 20 + [-1] * 2
    with_y = AnomalibDetector(inferencer=Darkness()).fit(X, y)
    without = AnomalibDetector(inferencer=Darkness()).fit(X[:20])
    assert with_y.offset_ == without.offset_ and len(with_y.train_scores_) == 20
    assert with_y.fit_predict(X, y).tolist() == with_y.predict(X).tolist()
    with pytest.raises(ValueError, match="got text, 'a'"):
        with_y.fit(X, ["a"] * 22)
    with pytest.raises(ValueError, match="no normal image"):
        with_y.fit(X, [-1] * 22)


def test_the_nominal_false_positive_rate_holds():
    contamination = 0.2
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(150):
        held_out, new = ([np.full((1, 1), value) for value in rng.beta(2, 5, n)] for n in (40, 60))
        detector = AnomalibDetector(inferencer=Darkness(), contamination=contamination)
        rates.append(np.mean(detector.fit(held_out).predict(new) == -1))
    error = np.std(rates) / np.sqrt(len(rates))
    assert abs(np.mean(rates) - contamination) < 3 * error < 0.05


def test_before_fit_an_inferencer_has_no_threshold():
    inferencer = Darkness()
    detector = AnomalibDetector(inferencer=inferencer)
    for method in (detector.predict, detector.decision_function, detector.p_values):
        with pytest.raises(NotFittedError, match="not fitted"):
            method(flat(1))
    assert inferencer.seen == [] and detector.raw_scores_ is None and detector.family_ is None


def test_a_changed_parameter_asks_for_fit():
    detector = AnomalibDetector(inferencer=Darkness()).fit(flat(*range(20)))
    detector.set_params(batch_size=2).predict(flat(1))
    with pytest.raises(NotFittedError, match="contamination of this AnomalibDetector changed"):
        detector.set_params(contamination=0.2).predict(flat(1))
    assert detector.fit(flat(*range(20))).predict(flat(255)).tolist() == [1]
    with pytest.raises(NotFittedError, match="inferencer of this"):
        detector.set_params(inferencer=Darkness()).score_samples(flat(1))


def test_parameters_that_would_be_ignored_are_refused():
    with pytest.raises(ValueError, match="this detector has (neither|both)"):
        AnomalibDetector().score_samples(flat(1))
    with pytest.raises(ValueError, match="this detector has (neither|both)"):
        AnomalibDetector("a.onnx", inferencer=Darkness()).score_samples(flat(1))
    for option in ({"normalized": True}, {"interpolation": "bicubic"}):
        with pytest.raises(ValueError, match="are for checkpoints only"):
            AnomalibDetector(inferencer=Darkness(), **option).score_samples(flat(1))
    with pytest.raises(ValueError, match="inferencer"):
        AnomalibDetector(inferencer=object()).score_samples(flat(1))


# scikit-learn


def test_clones_share_the_inferencer_and_copy_nothing():
    inferencer = Darkness()
    inferencer.lock = threading.Lock()  # can neither be copied nor pickled
    detector = AnomalibDetector(inferencer=inferencer, contamination=0.3).fit(flat(*range(9)))
    copy = clone(detector)
    assert copy.inferencer is inferencer and copy.get_params() == detector.get_params()
    assert not hasattr(copy, "offset_")


def test_pickles(tmp_path):
    detector = AnomalibDetector(inferencer=Darkness()).fit(flat(*range(30)))
    joblib.dump(detector, tmp_path / "detector.joblib")
    for copy in (pickle.loads(pickle.dumps(detector)), joblib.load(tmp_path / "detector.joblib")):
        assert copy.predict(flat(0, 255)).tolist() == detector.predict(flat(0, 255)).tolist()


def test_grid_search_and_cross_validation():
    X, y = flat(*range(100, 130), *range(10)), [1] * 30 + [-1] * 10
    detector = AnomalibDetector(inferencer=Darkness())
    scores = cross_val_score(detector, X, y, cv=OneClassSplit(3), scoring="roc_auc")
    assert scores.tolist() == [1, 1, 1]
    grid = {"contamination": [0.05, 0.5]}
    search = GridSearchCV(detector, grid, cv=OneClassSplit(3), scoring="accuracy", n_jobs=2)
    with joblib.parallel_backend("threading"):
        search.fit(X, y)
    assert search.best_params_ == {"contamination": 0.05}
    assert search.predict(flat(5, 125)).tolist() == [-1, 1]
    assert anomaly_maps(search, flat(5)).shape == (1, 4, 6)


def test_evaluate_split(tmp_path):
    made = make_surfaces(16, 4, surface="fabric", image_size=32, random_state=0)
    for i, (image, kind) in enumerate(zip(made.images, made.defect_types, strict=True)):
        folder = tmp_path / ("train" if i < 10 else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    inferencer = Darkness()
    result = evaluate_split(AnomalibDetector(inferencer=inferencer), read_mvtec(tmp_path))
    assert len(inferencer.seen) == 10 + 10
    paths = [Path(path) for path in inferencer.seen[10:]]
    assert result.scores.tolist() == [-Darkness().predict(path)["pred_score"] for path in paths]
    assert result.n_anomalous == 4 and [g.shape for g in result.patch_scores] == [(32, 32)] * 10


def test_threads_call_an_inferencer_one_at_a_time():
    class Alone(Darkness):
        busy = threading.Lock()

        def predict(self, image):
            assert self.busy.acquire(blocking=False), "two calls at once"
            result = super().predict(image)
            threading.Event().wait(0.001)
            self.busy.release()
            return result

    detector = AnomalibDetector(inferencer=Alone()).fit(flat(*range(100, 120)))
    with joblib.parallel_backend("threading"):
        found = joblib.Parallel(n_jobs=4)(
            joblib.delayed(detector.predict)(flat(grey, grey + 1)) for grey in range(0, 40, 2)
        )
    assert np.concatenate(found).tolist() == [-1] * 40


class RowDistance:
    """Scores a row, drawn as an image, by how far it is from mid grey."""

    def __repr__(self):  # without its address, which would be in the names of tests
        return "RowDistance()"

    def predict(self, image):
        return {"pred_score": np.abs(image[..., 0] - 0.5).mean()}


class RowsDetector(AnomalibDetector):
    """Rows of numbers drawn as images: brings the detector before scikit-learn's 2-D checks.

    Parameters
    ----------
    As AnomalibDetector.
    """

    def _fit(self, X, y):
        return super()._fit(self._images(X, reset=True), y)

    def _score(self, X, backend, size=None, training=False):
        X = X if isinstance(X, list) and X[0].shape[:1] == (1,) else self._images(X, reset=False)
        return super()._score(X, backend, size)

    def _images(self, X, reset):
        X = validate_data(self, X, reset=reset, dtype=np.float64)
        return [row[None] for row in 0.5 + 0.5 * np.tanh(X / 8)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.string = False
        return tags


ROWS = RowsDetector(inferencer=RowDistance(), batch_size=64)


# These checks fit with class labels of 0, 1 and 2, as in tests/test_common.py.
@pytest.mark.filterwarnings("ignore:y holds .*, which are no labels of normal:UserWarning")
@parametrize_with_checks([ROWS])
def test_scikit_learn_checks_with_rows_as_images(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", ["batch_size", "contamination"])
@pytest.mark.parametrize("value", [True, False])
def test_bools_are_no_numbers(name, value):
    detector = AnomalibDetector(inferencer=Darkness(), **{name: value})
    with pytest.raises(ValueError, match=f"The '{name}' parameter of AnomalibDetector must"):
        detector.fit(flat(*range(20)))


def test_reading_threads_are_no_parameter():
    assert "n_jobs" not in AnomalibDetector().get_params()
    with pytest.raises(TypeError, match="n_jobs"):
        AnomalibDetector(n_jobs=2)


def test_parameter_validation():
    check_param_validation("RowsDetector", ROWS)
