"""Detectors of images as one: the common scale in plain loops, calibration, nested parameters."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import check_get_params_invariance, check_set_params

from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    FunctionPatches,
    ImageUnion,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchwiseScorer,
    ScoreUnion,
    TimmPatches,
    anomaly_maps,
    anomaly_regions,
    decide,
    iter_scores,
    load_model,
    p_values,
    recalibrate,
    save_model,
    tune_threshold,
)
from skanomaly.datasets import make_surfaces
from skanomaly.metrics import IMAGE_SCORERS
from skanomaly.scorers import _training_images

N_GOOD = 16


def fine(scorer=None, **options):
    return make_pipeline(FilterBankPatches(image_size=64, **options), scorer or PatchKNNScorer())


def coarse(**options):
    return make_pipeline(FilterBankPatches(image_size=32, **options), PatchGaussianScorer("shared"))


def union(**options):
    return ImageUnion([("fine", fine()), ("coarse", coarse())], **options)


class Darkness:
    """Of an image: how dark, and where."""

    def predict(self, image):
        dark = 1 - image.mean(axis=2) / 255
        return {"pred_score": dark.mean(), "anomaly_map": dark}


UNIONS = {
    "mean": lambda: union(),
    "max": lambda: union(combination="max"),
    "weights": lambda: union(detector_weights=[3, 1]),
    "detector": lambda: ImageUnion(
        [("fine", fine()), ("dark", AnomalibDetector(inferencer=Darkness()))]
    ),
    "nested": lambda: ImageUnion([("one", union()), ("two", coarse())]),
    "views": lambda: ImageUnion([("fine", fine(augmentation="rotate90")), ("coarse", coarse())]),
    "union": lambda: ImageUnion(
        [
            (
                "a",
                fine(ScoreUnion([("k", PatchKNNScorer()), ("g", PatchGaussianScorer("shared"))])),
            ),
            ("b", fine(PatchKNNScorer(coreset=0.5))),
        ]
    ),
}
each_union = pytest.mark.parametrize("name", UNIONS)


@pytest.fixture(scope="module")
def made():
    return make_surfaces(N_GOOD + 4, 4, image_size=64, random_state=0)


@pytest.fixture(scope="module")
def good(made):
    return list(made.images[:N_GOOD])


@pytest.fixture(scope="module")
def new(made):
    """Four good images and four with defects."""
    return list(made.images[N_GOOD:])


@pytest.fixture(scope="module")
def fitted(good):
    return {name: make().fit(good) for name, make in UNIONS.items()}


def bilinear(grid, height, width):
    """A map of another size, pixel by pixel: cells are constant beyond their outermost centres."""
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * grid.shape[0] / height - 0.5, 0), grid.shape[0] - 1)
            x = min(max((j + 0.5) * grid.shape[1] / width - 0.5, 0), grid.shape[1] - 1)
            top, left = int(y), int(x)
            down, right = min(top + 1, grid.shape[0] - 1), min(left + 1, grid.shape[1] - 1)
            v, u = y - top, x - left
            out[i, j] = (1 - v) * ((1 - u) * grid[top, left] + u * grid[top, right]) + v * (
                (1 - u) * grid[down, left] + u * grid[down, right]
            )
    return out


def expected_of(pipes, good, images, weights=None, highest=False):
    """Threshold, scores and maps of a union in plain float64, from Pipelines fitted one by one."""
    held_out, scores, maps = [], [], []
    for pipe in pipes:
        pipe = clone(pipe).fit(good)
        tokens, tokens_of_good = pipe[:-1].transform(images), pipe[:-1].transform(good)
        patches = pipe[-1].score_patches(tokens_of_good).astype(float)  # held out
        median, top = np.quantile(patches, [0.5, 0.99])
        grids, samples = pipe[-1].score_patches(tokens, return_scores=True)
        held_out.append((-pipe[-1].score_samples(tokens_of_good) - median) / (top - median))
        scores.append((-samples - median) / (top - median))
        maps.append([(grid.astype(float) - median) / (top - median) for grid in grids])
    size = [max(of[0].shape[axis] for of in maps) for axis in (0, 1)]
    maps = [[bilinear(grid, *size) for grid in of_member] for of_member in maps]

    def joined(values):
        if highest:
            return np.maximum(*map(np.asarray, values))
        return sum(w * np.asarray(v) for w, v in zip(weights, values, strict=True))

    train = np.sort(-joined(held_out))
    place = 0.1 * (len(train) + 1)  # the i-th of n scores is at i / (n + 1)
    below = int(place)
    offset = train[0]
    if below >= 1:
        offset = train[below - 1] + (place - below) * (train[below] - train[below - 1])
    return offset, -joined(scores), joined(maps)


@pytest.mark.parametrize(
    "options, weights, highest",
    [
        ({}, [0.5, 0.5], False),
        ({"detector_weights": (3, 1)}, [0.75, 0.25], False),
        ({"combination": "max"}, None, True),
    ],
)
def test_joined_scores_are_those_of_plain_loops(good, new, options, weights, highest):
    images = [*new, *good[:2]]
    offset, scores, maps = expected_of([fine(), coarse()], good, images, weights, highest)
    found = union(**options).fit(good)
    assert found.offset_ == pytest.approx(offset, rel=1e-9)
    found_maps, found_scores = found.score_maps(images, size="model", return_scores=True)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-9)
    np.testing.assert_array_equal(found_scores, found.score_samples(images))
    assert found_maps.dtype == np.float32 and found_maps.shape == (len(images), 8, 8)
    np.testing.assert_allclose(found_maps, maps, rtol=1e-5, atol=1e-5)
    own_size = found.score_maps(images)
    expected = [bilinear(heat.astype(float), 64, 64) for heat in found_maps]
    np.testing.assert_allclose(own_size, expected, rtol=1e-5, atol=1e-5)


def test_real_images_and_weights_in_plain_loops(shared):
    pytest.importorskip("timm")
    folder = shared / "data" / "cookies"
    good = sorted((folder / "train" / "good").iterdir())[:6]
    images = sorted((folder / "test").glob("*/*"))[:2]
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    vit = make_pipeline(
        TimmPatches("vit_tiny_patch16_224", weights=str(weights), image_size=96, dtype="float32"),
        PatchKNNScorer(n_neighbors=3),
    )
    bank = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer(metric="euclidean"))
    offset, scores, maps = expected_of([bank, vit], good, images, [0.5, 0.5])
    found = ImageUnion([("bank", bank), ("vit", vit)]).fit(good)
    assert found.offset_ == pytest.approx(offset, rel=1e-5)
    found_maps, found_scores = found.score_maps(images, size="model", return_scores=True)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-5)
    np.testing.assert_allclose(found_maps, maps, rtol=1e-5, atol=1e-5)
    assert [heat.shape for heat in found.score_maps(images)] == [(512, 384)] * 2


@pytest.mark.parametrize("combination", ["mean", "max"])
def test_held_out_scores_are_those_of_a_union_that_has_not_seen_the_image(made, combination):
    """But for the scale, into which the image's own held-out patch scores enter too."""
    images = list(made.images[: N_GOOD + 4])  # all good
    tried = range(0, len(images), 3)
    pair = [
        ("fine", fine(PatchKNNScorer(metric="euclidean"))),
        ("coarse", make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer(2))),
    ]
    found = ImageUnion(pair, combination=combination).fit(images)
    usual = found.train_scores_.std()
    for i in tried:
        others = images[:i] + images[i + 1 :]
        refit = ImageUnion(pair, combination=combination).fit(others)
        (without,) = refit.score_samples([images[i]])
        assert abs(found.train_scores_[i] - without) < 0.3 * usual
        for called, member in refit.detectors_.items():  # each member's own is the same
            (score,) = member.score_samples([images[i]])
            train_scores = found.detectors_[called][-1].train_scores_
            assert score == pytest.approx(train_scores[i], rel=1e-6)
    # Patches that have seen their image would be at no distance, which is far more than that.
    seen = -(0 - found.location_) / found.scale_
    assert seen.min() - found.train_scores_.max() > usual


@each_union
def test_training_images_get_their_held_out_scores(fitted, good, name):
    found = fitted[name]
    np.testing.assert_allclose(found.score_samples(good), found.train_scores_, rtol=1e-12)
    maps = found.score_maps(good, size="model")
    np.testing.assert_allclose(maps, np.stack(found.held_out_patches_), rtol=1e-5, atol=1e-6)
    calls = UNIONS[name]().fit_predict(good)
    np.testing.assert_array_equal(calls, found.predict(good))
    assert 1 <= np.count_nonzero(calls == -1) <= 2  # of 16 images at 10%


@each_union
def test_signs(fitted, new, name):
    found = fitted[name]
    scores = found.score_samples(new)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(found.decision_function(new), scores - found.offset_)
    np.testing.assert_array_equal(found.predict(new) == -1, scores < found.offset_)
    if name != "detector":  # darkness says little
        assert scores[:4].min() > scores[4:].max()
        assert found.score_maps(new)[4:].max() > found.patch_limits_[1]
    ranks = [(1 + np.sum(found.train_scores_ <= s)) / (N_GOOD + 1) for s in scores]
    np.testing.assert_allclose(found.p_values(new), ranks)
    np.testing.assert_allclose(p_values(found, new), ranks)


@each_union
def test_any_batch_order_and_form(fitted, new, name):
    found = fitted[name]
    scores = found.score_samples(new)
    np.testing.assert_array_equal(found.score_samples(new[::-1]), scores[::-1])
    np.testing.assert_array_equal(found.score_samples(np.stack(new)), scores)
    np.testing.assert_array_equal([found.score_samples([image])[0] for image in new], scores)
    results = list(iter_scores(found, iter(new), batch_size=3))
    np.testing.assert_array_equal([result.score for result in results], scores)
    for result, decision in zip(results, decide(found, new), strict=True):
        assert result == decision
        np.testing.assert_array_equal(result.patch_scores, decision.patch_scores)


@each_union
def test_copies_pickles_and_files(fitted, new, tmp_path, name):
    found = fitted[name]
    expected = found.score_maps(new, return_scores=True)
    assert not hasattr(clone(found), "offset_")
    save = save_model if name != "detector" else None  # an inferencer of a person's own
    loaded = [pickle.loads(pickle.dumps(found)), recalibrate(found, contamination=0.3)]
    if save is not None:
        save(found, tmp_path / "model.skan")
        loaded.append(load_model(tmp_path / "model.skan"))
    for other in loaded:
        for one, two in zip(other.score_maps(new, return_scores=True), expected, strict=True):
            np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(other.train_scores_, found.train_scores_)
    assert loaded[0].offset_ == found.offset_ < loaded[1].offset_


def test_members_that_calibrate_on_different_images(good, monkeypatch):
    """Each on so many as have not too many patches: 64 of one, 16 of the other."""
    monkeypatch.setattr(_training_images, "MAX_CALIBRATION_PATCHES", 64 * N_GOOD // 3 + 1)
    pair = [
        ("fine", fine()),  # every third image
        ("coarse", make_pipeline(FilterBankPatches(image_size=32), PatchKNNScorer())),
        ("middle", make_pipeline(FilterBankPatches(image_size=56), PatchKNNScorer())),
    ]
    found = ImageUnion(pair).fit(good)
    of_members = [m[-1].train_scores_.size for m in found.detectors_.values()]
    assert of_members == [6, 16, 6]
    numbers = np.arange(0, N_GOOD, 3)
    np.testing.assert_allclose(
        found.train_scores_, found.score_samples([good[i] for i in numbers]), rtol=1e-12
    )
    two = ImageUnion(
        [pair[0], ("small", make_pipeline(FilterBankPatches(image_size=48), PatchKNNScorer()))]
    )
    monkeypatch.setattr(_training_images, "MAX_CALIBRATION_PATCHES", 64 * N_GOOD // 5 + 1)
    found = two.fit(good)  # images 0, 5, 10, 15, of the other 0, 3, 6, ...
    assert found.detectors_["small"][-1].train_scores_.size == 6
    np.testing.assert_allclose(found.train_scores_, found.score_samples(good[::5]), rtol=1e-12)
    assert found.calibration_["n_images"] == 4 == len(found.held_out_patches_)


def test_groups_and_labels(good, new):
    parts = np.repeat(np.arange(N_GOOD // 2), 2)
    found = union().fit(good, groups=parts)
    assert found.calibration_["n_groups"] == N_GOOD // 2
    for member in found.detectors_.values():
        assert member[-1].calibration_["n_groups"] == N_GOOD // 2
    least = found.p_values([np.zeros_like(good[0])])
    np.testing.assert_allclose(least, 1 / (N_GOOD // 2 + 1))
    labels = [1] * N_GOOD + [-1] * 4
    mixed = union().fit([*good, *new[4:]], labels)
    np.testing.assert_array_equal(mixed.train_scores_, union().fit(good).train_scores_)
    first = union().fit([*new[4:], *good], labels[::-1])
    np.testing.assert_allclose(first.score_samples(new), mixed.score_samples(new), rtol=1e-9)
    with pytest.warns(UserWarning, match="label") as caught:
        union().fit(good, [0] * N_GOOD)
    assert len(caught) == 1
    of_function = make_pipeline(FunctionPatches(cells), AnomalibDetector(inferencer=Darkness()))
    with pytest.raises(TypeError, match=r"detector 'b', Pipeline, takes no groups"):
        ImageUnion([("a", fine()), ("b", of_function)]).fit(good, groups=parts)


def cells(image):
    return image.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).astype(np.float32)


def test_one_image(good, new):
    with pytest.warns(UserWarning, match="calibrated on a single image") as caught:
        found = union().fit(good[:1])
    assert len(caught) == 1
    assert found.train_scores_.shape == (1,)
    scores = found.score_samples(new)
    assert np.isfinite(scores).all() and scores[:4].mean() > scores[4:].mean()


def test_copies_are_told_once(good):
    with pytest.warns(UserWarning, match="are copies") as caught:
        union().fit([*good, good[0]])
    assert len(caught) == 1


def test_images_of_many_sizes(good, new):
    sizes = [image[: 64 - 8 * (i % 3), : 64 - 16 * (i % 2)] for i, image in enumerate(good)]
    options = {"resize": "shortest_edge"}
    found = ImageUnion(
        [
            ("a", fine(PatchGaussianScorer("shared"), **options)),
            ("b", make_pipeline(FilterBankPatches(image_size=32, **options), PatchKNNScorer())),
        ]
    ).fit(sizes)
    np.testing.assert_allclose(found.score_samples(sizes), found.train_scores_, rtol=1e-9)
    queries = [new[0], new[5][:40]]
    assert [heat.shape for heat in found.score_maps(queries)] == [(64, 64), (40, 64)]
    assert [heat.shape for heat in anomaly_maps(found, queries)] == [(64, 64), (40, 64)]
    assert len({grid.shape for grid in found.held_out_patches_}) > 1


def test_masked_patches_count_for_no_scale(good):
    def masked(image):
        tokens = cells(image)
        tokens[:2] = np.nan
        return tokens

    pipe = make_pipeline(FunctionPatches(masked), PatchKNNScorer(metric="euclidean"))
    found = ImageUnion([("masked", pipe), ("coarse", coarse())]).fit(good)
    held_out = found.detectors_["masked"][-1].held_out_patches_
    values = np.concatenate([grid[2:].ravel() for grid in held_out]).astype(float)
    median, top = np.quantile(values, [0.5, 0.99])
    assert found.location_[0] == pytest.approx(median)
    assert found.scale_[0] == pytest.approx(top - median)
    np.testing.assert_allclose(
        found.score_maps(good, size="model"), found.held_out_patches_, rtol=1e-5, atol=1e-6
    )


def test_masked_patches_are_never_the_highest(good, new):
    def bordered(image):
        tokens = cells(image).copy()
        tokens[0] = np.nan
        return tokens

    below_zero = PatchwiseScorer(OneClassSVM(nu=0.1), random_state=0)
    pipe = make_pipeline(FunctionPatches(bordered), below_zero)
    found = ImageUnion([("one", pipe), ("two", clone(pipe))]).fit(good)
    maps = found.score_maps([*good, *new], size="model")
    assert (maps[:, 0] == maps[:, 1:].min(axis=(1, 2))[:, None]).all()
    np.testing.assert_allclose(maps[: len(good)], found.held_out_patches_, rtol=1e-5, atol=1e-6)


def test_parameters(good, new):
    found = union()
    found.set_params(fine__patchknnscorer__n_neighbors=3, coarse=fine(), contamination=0.2)
    assert found.get_params()["fine__patchknnscorer__n_neighbors"] == 3
    assert found.get_params()["coarse__filterbankpatches__image_size"] == 64
    found.fit(good)
    found.set_params(fine__filterbankpatches__cache_dir=None, fine__filterbankpatches__verbose=True)
    found.score_samples(new[:1])  # neither matters
    found.set_params(fine__patchknnscorer__n_neighbors=1)
    for method in ("score_samples", "predict", "score_maps", "p_values"):
        with pytest.raises(NotFittedError, match="fine__patchknnscorer__n_neighbors"):
            getattr(found, method)(new)
    with pytest.raises(NotFittedError):
        union().predict(new)


def test_a_search_as_a_member(good, new):
    scoring = IMAGE_SCORERS["image_auroc"]
    images, y = [*good, *new[4:]], [1] * N_GOOD + [-1] * 4
    cv = [(np.arange(10), np.arange(10, 20))]
    search = GridSearchCV(fine(), {"patchknnscorer__topk": [1, 2]}, scoring=scoring, cv=cv)
    found = ImageUnion([("search", search), ("coarse", coarse())]).fit(images, y)
    assert found.predict(new[4:]).tolist() == [-1] * 4
    with pytest.raises(TypeError, match="detector 'search', GridSearchCV, takes no groups"):
        found.fit(images, y, groups=range(len(images)))


@pytest.mark.parametrize("check", [check_get_params_invariance, check_set_params])
def test_checks_of_scikit_learn(check):
    check("ImageUnion", union())


def test_an_image_that_cannot_be_read(fitted, new):
    stream = iter_scores(fitted["mean"], [new[0], b"nothing", new[1]], on_error="record")
    good, bad, last = list(stream)
    assert (good.index, bad.index, last.index) == (0, 1, 2)
    assert "image 1" in bad.error
    assert last.score == fitted["mean"].score_samples(new[1:2])[0]


def test_a_fit_that_fails_leaves_nothing(good, new):
    found = union().fit(good)
    with pytest.raises(ValueError, match="image 1 "):
        found.fit([good[0], "missing.png"])
    with pytest.raises(NotFittedError):
        found.score_samples(new)
    assert not hasattr(found, "held_out_patches_") and not hasattr(found, "patch_limits_")


def test_a_search_and_joblib(good, new):
    y = np.array([1] * N_GOOD + [-1] * 4)
    cv = [(np.arange(10), np.arange(10, 20))]
    grid = {"fine__patchknnscorer__n_neighbors": [1, 3], "combination": ["mean", "max"]}
    scoring = IMAGE_SCORERS["image_auroc"]
    search = GridSearchCV(union(), grid, scoring=scoring, cv=cv).fit([*good, *new[4:]], y)
    assert search.best_score_ > 0.9
    assert anomaly_maps(search, new).shape == (8, 64, 64)
    with joblib.parallel_backend("loky", n_jobs=2):
        maps = joblib.Parallel()(
            joblib.delayed(search.best_estimator_.score_samples)(part)
            for part in (new[:4], new[4:])
        )
    np.testing.assert_array_equal(np.concatenate(maps), search.score_samples(new))


def test_thresholds_and_regions(fitted, made, good, new):
    found = fitted["mean"]
    today = recalibrate(found, images=made.images[N_GOOD : N_GOOD + 4], contamination=0.25)
    np.testing.assert_allclose(today.train_scores_, found.score_samples(new[:4]))
    assert today.patch_limits_ != found.patch_limits_ and len(today.held_out_patches_) == 4
    tuned = tune_threshold(found, new, made.y[N_GOOD:], cost_miss=5, prevalence=0.1)
    applied = tuned.apply(found)
    assert applied.predict(new).tolist() == [1] * 4 + [-1] * 4
    regions = anomaly_regions(found, new)
    assert all(regions[4:]) and sum(map(bool, regions[:4])) <= 1


@pytest.mark.parametrize(
    "detectors, error, message",
    [
        ([], ValueError, "detectors is empty"),
        ([fine()], TypeError, r"detectors\[0\] must be a tuple"),
        ([("a", PatchKNNScorer())], TypeError, "detector 'a': .*takes patch tokens, not images"),
        ([("a", FilterBankPatches())], TypeError, "detector 'a': .*FilterBankPatches has no"),
        ([("a", FilterBankPatches)], TypeError, "detector 'a' must be a Pipeline"),
        ([("a", None)], TypeError, "detector 'a' must be a Pipeline"),
        ([("a__b", fine())], ValueError, "must not contain __"),
        ([("a", fine()), ("a", fine())], ValueError, "not unique"),
    ],
)
def test_what_is_no_detector(good, detectors, error, message):
    with pytest.raises(error, match=message):
        ImageUnion(detectors).fit(good)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"detector_weights": [1]}, "detector_weights must be 2 numbers"),
        ({"detector_weights": [0, 0]}, "not all 0"),
        ({"detector_weights": [1, 2], "combination": "max"}, "only for combination='mean'"),
        ({"combination": "median"}, "combination"),
        ({"contamination": 0.7}, "contamination"),
    ],
)
def test_wrong_parameters(good, options, message):
    with pytest.raises(ValueError, match=message):
        union(**options).fit(good)


class NoScores(AnomalibDetector):
    """Keeps nothing of fit."""

    def fit(self, X, y=None):
        super().fit(X, y)
        del self.train_scores_
        return self


class NoMaps:
    def predict(self, image):
        return {"pred_score": float(image.mean())}


def test_members_without_held_out_scores_or_maps(good):
    mute = NoScores(inferencer=Darkness())
    with pytest.raises(TypeError, match="detector 'b': NoScores keeps no train_scores_"):
        ImageUnion([("a", coarse()), ("b", mute)]).fit(good)
    blind = AnomalibDetector(inferencer=NoMaps())
    with pytest.raises(ValueError, match="detector 'b': AnomalibDetector has no maps"):
        ImageUnion([("a", coarse()), ("b", blind)]).fit(good)


def test_members_with_other_maps_than_scores(good, new, monkeypatch):
    """A detector that keeps the maps of some images scores the others once more."""
    from skanomaly.anomalib import _state

    monkeypatch.setattr(_state, "_MOST_VALUES", 64 * 64 * 5)
    found = UNIONS["detector"]().fit(good)
    assert len(found.detectors_["dark"].held_out_patches_) == 4
    assert len(found.held_out_patches_) == N_GOOD
    np.testing.assert_allclose(found.score_samples(good), found.train_scores_, rtol=1e-12)


def test_memory_does_not_grow_with_the_images(fitted, new):
    """Only what is asked for is kept: maps one batch at a time."""
    import tracemalloc

    found = fitted["mean"]
    peaks = []
    for repeats in (8, 64):
        stream = (new[i % 8] for i in range(repeats))
        for _ in iter_scores(found, new, batch_size=4):
            pass
        tracemalloc.start()
        for _ in iter_scores(found, stream, batch_size=4):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000


def test_no_warning_without_need(good):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        union().fit(good)
