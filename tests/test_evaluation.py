"""evaluate_split on generated and on real images."""

import dataclasses
import json
import subprocess
import sys
import weakref

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skanomaly import (
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    ScoreUnion,
    anomaly_maps,
    create_model,
    evaluate_split,
    recalibrate,
)
from skanomaly.datasets import DatasetSplit, ImageSet, make_surfaces, read_mvtec
from skanomaly.evaluation import evaluation_of
from skanomaly.inspection import color_limits, p_values
from skanomaly.metrics import IMAGE_SCORERS, pro_curve
from skanomaly.model_selection import OneClassSplit


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp("tile")
    made = make_surfaces(20, 5, surface="fabric", image_size=64, random_state=0)
    for i, (image, kind) in enumerate(zip(made.images, made.defect_types, strict=True)):
        folder = root / ("train" if i < 12 else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return read_mvtec(root)


def test_result(split):
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    result = evaluate_split(pipe, split)
    with pytest.raises(NotFittedError):
        pipe.predict(list(split.test.images))
    fitted = result.estimator
    images = list(split.test.images)
    np.testing.assert_array_equal(result.scores, fitted.score_samples(images))
    np.testing.assert_array_equal(result.predictions, fitted.predict(images))
    assert (result.n_train, result.n_normal, result.n_anomalous) == (12, 8, 5)
    bad = split.test.y == -1
    assert result.metrics["image_auroc"] == roc_auc_score(bad, -result.scores)
    assert result.metrics["image_average_precision"] == average_precision_score(bad, -result.scores)
    assert result.recall == np.mean(result.predictions[bad] == -1)
    assert result.false_positive_rate == np.mean(result.predictions[~bad] == -1)
    assert result.threshold == fitted[-1].offset_ and result.contamination == 0.1
    assert list(result.seconds) == ["fit", "score", "maps", "metrics"]
    assert result.true_positives + result.false_negatives == 5
    assert result.false_positives + result.true_negatives == 8
    kinds = np.array(split.test.defect_types)
    for kind, share in result.recall_by_type.items():
        assert share == np.mean(result.predictions[kinds == kind] == -1)
    # The masks of this split are not known: no pixel metric, and that is said.
    assert result.n_unknown_masks == 5 and "pixel_auroc" not in result.metrics
    assert "none: 5 masks are not known" in repr(result)
    assert [grid.shape for grid in result.patch_scores] == [(8, 8)] * 13
    assert result.test is split.test
    np.testing.assert_array_equal(result.p_values, p_values(fitted, images))
    assert list(result.curves) == ["roc"]
    np.testing.assert_array_equal(result.curves["roc"], roc_curve(bad, -result.scores)[:2])
    assert {"test", "p_values", "curves"}.isdisjoint(result.to_dict())
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()
    assert result.parameters["emb__image_size"] == "64"
    assert "image auroc" in repr(result) and "<td>image auroc</td>" in result._repr_html_()
    frame = pytest.importorskip("pandas") and result.to_frame()
    assert frame.loc[0, "image_auroc"] == result.metrics["image_auroc"]


def _with_masks(root):
    made = make_surfaces(12, 4, surface="fabric", image_size=64, random_state=0)
    for i, (image, mask, kind) in enumerate(
        zip(made.images, made.masks, made.defect_types, strict=True)
    ):
        folder = root / ("train" if i < 8 else "test") / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
        if mask.any():
            folder = root / "ground_truth" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / f"{i}_mask.png")
    return read_mvtec(root)


def test_pixel_metrics_are_those_of_the_maps(tmp_path):
    split = _with_masks(tmp_path)
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    result = evaluate_split(pipe, split, sigma=2)
    maps = anomaly_maps(result.estimator, list(split.test.images), sigma=2)
    masks = np.stack([split.test.load_mask(i) for i in range(len(split.test))])
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert result.metrics["pixel_auroc"] == pytest.approx(expected, abs=1e-12)
    assert set(result.metrics) >= {"aupro_0.3", "aupro_0.05", "pixel_f1_max"}


def test_maps_are_handed_out_as_they_are_made(split, tmp_path):
    """With or without masks: one by one, of the asked for smoothness, not to be changed."""
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    for data in (split, _with_masks(tmp_path)):
        calls = []
        result = evaluate_split(pipe, data, sigma=1, on_map=lambda *args, to=calls: to.append(args))
        numbers, maps, scores, thresholds, limits = zip(*calls, strict=True)
        assert numbers == tuple(range(len(data.test)))
        images = list(data.test.images)
        np.testing.assert_array_equal(maps, anomaly_maps(result.estimator, images, sigma=1))
        assert not any(heat_map.flags.writeable for heat_map in maps)
        assert scores == tuple(result.scores) and set(thresholds) == {result.threshold}
        assert set(limits) == {color_limits(result.estimator)}


def test_maps_that_no_metric_needs_are_not_kept(split):
    alive = []

    def watch(index, heat_map, *args):
        alive.append(weakref.ref(heat_map))
        assert sum(ref() is not None for ref in alive) <= 2  # the next while the last is let go

    evaluate_split(create_model("filterbank", scorer="knn", image_size=64), split, on_map=watch)
    assert len(alive) == 13


def test_a_search(split):
    """It is evaluated as its best estimator, wherever it stands."""
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    expected = evaluate_split(pipe.set_params(knn__topk=0.2), split)
    grid = {"scoring": _mean_score, "cv": 2, "error_score": "raise"}
    outer = GridSearchCV(clone(pipe), {"knn__topk": [0.2]}, **grid)
    inner = clone(pipe).set_params(knn=GridSearchCV(clone(pipe[-1]), {"topk": [0.2]}, **grid))
    for search in (outer, inner):
        result = evaluate_split(search, split)
        np.testing.assert_array_equal(result.scores, expected.scores)
        assert result.threshold == expected.threshold and result.contamination == 0.1
        np.testing.assert_array_equal(result.predictions, expected.predictions)
        assert result.metrics == expected.metrics
        assert "estimator" not in " ".join(
            name for name, text in result.parameters.items() if "Pipeline" in text
        )


def _mean_score(estimator, X, y=None):
    return float(np.mean(estimator.score_samples(X)))


class _Plain(PatchKNNScorer):
    """A scorer whose `score_patches` gives patch scores alone."""

    def fit(self, X, y=None):
        raise AssertionError("this is work")

    def score_patches(self, X):
        raise AssertionError("this is work")


class _NoOffset(PatchKNNScorer):
    def fit(self, X, y=None):
        super().fit(X, y)
        del self.offset_
        return self

    def score_patches(self, X, return_scores=False):
        raise AssertionError("this is work")


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (_Plain(), "score_patches of _Plain takes no return_scores: give a scorer of"),
        (OneClassSVM(), "OneClassSVM has no score_patches"),
        (_NoOffset(), "_NoOffset has no offset_ after fit"),
    ],
    ids=["plain", "sklearn", "no-offset"],
)
def test_what_a_scorer_lacks_is_said_before_the_work(split, scorer, message):
    with pytest.raises(TypeError, match=message):
        evaluate_split(make_pipeline(FilterBankPatches(image_size=64), scorer), split)


def test_other_errors_before_the_work(split):
    with pytest.raises(TypeError, match="PatchKNNScorer takes patch tokens, not images"):
        evaluate_split(PatchKNNScorer(), split)
    pipe = make_pipeline(FilterBankPatches(), _Plain())
    with pytest.raises(ValueError, match="refit=False"):
        evaluate_split(GridSearchCV(pipe, {}, refit=False), split)
    with pytest.raises(ValueError, match="sigma must be"):
        evaluate_split(make_pipeline(FilterBankPatches(), PatchKNNScorer()), split, sigma=-1)


def test_a_sample_is_as_anomalous_as_its_worst_view(tmp_path):
    split = _with_masks(tmp_path)
    test = dataclasses.replace(split.test, groups=["a", "a", "b", "b", "c", "c", "d", "d"])
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    result = evaluate_split(pipe, DatasetSplit("views", split.train, test))
    worst = [result.scores[i : i + 2].min() for i in range(0, 8, 2)]
    assert test.y.tolist() == [1] * 4 + [-1] * 4
    assert result.metrics["sample_auroc"] == roc_auc_score([1, 1, 0, 0], worst)


def test_a_threshold_that_is_no_share(split):
    texts = {"text_features_normal": [1, 1, 1], "text_features_anomaly": [1, 0, 0]}
    pipe = create_model("vision_openclip_promptscore", embedder=_mean_colour, **texts)
    result = evaluate_split(pipe, split)
    assert result.contamination is None and result.threshold == -0.5
    assert ("normal images flagged", f"{result.false_positive_rate:.1%}") in result.rows()
    assert result.to_dict()["contamination"] is None


def _mean_colour(image):
    return image.mean(axis=(0, 1), keepdims=True)


@pytest.mark.parametrize(("label", "kind"), [(1, "anomalous"), (-1, "normal")])
def test_one_class_is_refused_before_the_work(split, label, kind):
    keep = np.flatnonzero(split.test.y == label)
    test = ImageSet(
        images=[split.test.images[i] for i in keep],
        y=split.test.y[keep],
        masks=[None] * len(keep),
        defect_types=[split.test.defect_types[i] for i in keep],
        name="part",
    )
    with pytest.raises(ValueError, match=f"whole: there is no {kind} test image"):
        evaluate_split(create_model("filterbank"), DatasetSplit("whole", split.train, test))


def test_what_is_no_data_set_is_refused_before_the_work(split):
    pipe = make_pipeline(FilterBankPatches(image_size=64), _NoFit())
    for wrong in ("data/bottle", split.train, None):
        with pytest.raises(TypeError, match="must be a DatasetSplit, such as"):
            evaluate_split(pipe, wrong)


def test_files_that_do_not_fit_are_named_before_the_work(split, tmp_path):
    pipe = make_pipeline(FilterBankPatches(image_size=64), _NoFit())
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [tmp_path / "broken.png", *split.train.images[1:]]
    train = dataclasses.replace(split.train, images=images)
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(tmp_path / "mask.png")
    masks = [None if y == 1 else tmp_path / "mask.png" for y in split.test.y]
    test = dataclasses.replace(split.test, masks=masks)
    with pytest.raises(ValueError) as error:
        evaluate_split(pipe, DatasetSplit("tile", train, test))
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + 1 + 5 and "broken.png" in lines[1]
    assert all("sizes (height, width) differ" in line for line in lines[2:])


def test_too_few_images_are_refused_before_the_work(split):
    keep = {"images": split.train.images[:2], "y": [1, 1], "masks": [None] * 2}
    train = dataclasses.replace(split.train, **keep, defect_types=["good"] * 2)
    union = ScoreUnion([("knn", PatchKNNScorer()), ("gaussian", PatchGaussianScorer())])
    for scorer in (PatchGaussianScorer(), union):
        pipe = make_pipeline(_NoTokens(), scorer)
        with pytest.raises(ValueError, match="tile: .* needs at least 3 normal images"):
            evaluate_split(pipe, DatasetSplit("tile", train, split.test))


class _NoTokens(FilterBankPatches):
    def fit_transform(self, X, y=None):
        raise AssertionError("this is work")


class _NoFit(PatchKNNScorer):
    def fit(self, X, y=None):
        raise AssertionError("this is work")


def test_numbers_are_had_before_pictures(split, tmp_path):
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    for data in (split, _with_masks(tmp_path)):
        had = []

        def draw(*args, had=had):
            assert len(had) == 1
            raise OSError("the disk is full")

        with pytest.raises(OSError, match="the disk is full"):
            evaluate_split(pipe, data, on_result=had.append, on_map=draw)
        assert had[0].metrics == evaluate_split(pipe, data).metrics


# What the embedded default and the small pretrained transformer have to reach.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "at_least"),
    [("cookies", 0.95), ("bottle", 0.99), ("toothbrush", 0.99), ("screw", 0.93)],
)
def test_filter_bank_on_real_images(shared, name, at_least):
    result = evaluate_split(create_model("filterbank"), read_mvtec(shared / "data" / name))
    assert result.metrics["image_auroc"] >= at_least


@pytest.mark.slow
# Both show one bottle, with the same scratch.
@pytest.mark.filterwarnings("ignore:training images 69 and 70 are copies")
@pytest.mark.parametrize(
    ("scorer", "name", "at_least"),
    [
        ("knn", "cookies", 0.98),
        ("knn", "bottle", 1.0),
        ("gaussian", "cookies", 0.99),
        ("gaussian", "bottle", 0.99),
    ],
)
def test_vit_tiny_on_real_images(shared, name, at_least, scorer, tmp_path_factory):
    pytest.importorskip("timm")
    weights = str(shared / "weights" / "vit_tiny_patch16_224.safetensors")
    cache = tmp_path_factory.getbasetemp() / "vit-tiny-tokens"  # one embedding for both scorers
    pipe = create_model(
        "vit_tiny_patch16_224",
        scorer=scorer,
        weights=weights,
        layers=5,
        cache_dir=cache,
    )
    result = evaluate_split(pipe, read_mvtec(shared / "data" / name))
    assert result.metrics["image_auroc"] >= at_least


@pytest.mark.slow
def test_grid_search_on_real_images(shared):
    """One-class splits, a metric of ours with the right sign, and a refit on everything."""
    split = read_mvtec(shared / "data" / "cookies")
    images = [*split.train.images, *split.test.images]
    y = np.concatenate([split.train.y, split.test.y])
    search = GridSearchCV(
        create_model("filterbank", scorer="knn", image_size=64),
        {"knn__metric": ["cosine", "euclidean"], "knn__topk": [0.02, 0.2]},
        scoring=IMAGE_SCORERS,
        refit="image_auroc",
        cv=OneClassSplit(3),
        error_score="raise",
    ).fit(images, y)
    results = search.cv_results_
    assert search.best_score_ == results["mean_test_image_auroc"].max() > 0.8
    # scikit-learn's AUROC of the normal class is the same number.
    fold = next(iter(OneClassSplit(3).split(images, y)))
    params = results["params"][0]
    pipe = clone(search.estimator).set_params(**params).fit([images[i] for i in fold[0]])
    expected = roc_auc_score(y[fold[1]] == 1, pipe.decision_function([images[i] for i in fold[1]]))
    assert results["split0_test_image_auroc"][0] == pytest.approx(expected)
    assert len(search.best_estimator_[-1].train_scores_) == 45


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_groups_of_training_images_are_held_out_whole(split, nested, routing):
    groups = [str(i // 3) for i in range(12)]
    grouped = dataclasses.replace(split, train=dataclasses.replace(split.train, groups=groups))
    images = list(split.train.images)
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    expected = clone(pipe).fit(images, patchknnscorer__groups=groups)[-1]
    model = make_pipeline(pipe) if nested else pipe
    with sklearn.config_context(enable_metadata_routing=routing):
        fitted = evaluate_split(model, grouped).estimator
    scorer = fitted[-1][-1] if nested else fitted[-1]
    np.testing.assert_array_equal(scorer.train_scores_, expected.train_scores_)
    alone = evaluate_split(pipe, split).estimator[-1]
    assert not np.array_equal(scorer.train_scores_, alone.train_scores_)


def test_too_few_groups_are_told_before_the_work(split, monkeypatch):
    groups = [str(i // 6) for i in range(12)]
    grouped = dataclasses.replace(split, train=dataclasses.replace(split.train, groups=groups))
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchGaussianScorer())
    monkeypatch.setattr(FilterBankPatches, "fit_transform", None)  # it is not called
    with pytest.raises(ValueError, match="needs at least 3 groups of normal images .* not 2"):
        evaluate_split(pipe, grouped)


def test_images_that_are_not_used_may_be_broken(split, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = ImageSet([tmp_path / "broken.png"], [1], [None], ["good"], "parts/validation")
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchGaussianScorer("shared"))
    evaluate_split(pipe, dataclasses.replace(split, validation=broken))


def test_a_search_is_given_no_groups(split):
    groups = [str(i // 3) for i in range(12)]
    grouped = dataclasses.replace(split, train=dataclasses.replace(split.train, groups=groups))
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    grid = {"patchknnscorer__n_neighbors": [1]}
    search = GridSearchCV(pipe, grid, cv=2, scoring=lambda e, X, y=None: e.score_samples(X).mean())
    expected = evaluate_split(search, split).scores
    with pytest.warns(UserWarning, match="GridSearchCV takes no groups of images in fit"):
        scores = evaluate_split(search, grouped).scores
    np.testing.assert_array_equal(scores, expected)


def test_a_kept_model_is_measured_as_it_is(split, tmp_path):
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    for data in (split, _with_masks(tmp_path)):
        expected = evaluate_split(pipe, data)
        fitted = clone(pipe).fit(list(data.train.images), data.train.y)
        found, maps = [], []
        # Training images are none of it: there may be none left.
        moved = ImageSet(["gone.png"], [1], [None], ["good"], "gone")
        result = evaluation_of(
            fitted,
            DatasetSplit(data.name, moved, data.test),
            on_result=found.append,
            on_map=lambda *args, to=maps: to.append(args),
        )
        assert found == [result] and len(maps) == len(data.test)
        assert result.estimator is fitted
        assert result.n_train == expected.n_train == len(data.train)
        assert result.metrics == expected.metrics and result.threshold == expected.threshold
        np.testing.assert_array_equal(result.scores, expected.scores)
        np.testing.assert_array_equal(result.p_values, expected.p_values)
        assert list(result.seconds) == ["score", "maps", "metrics"]
        repr(result), result._repr_html_(), json.dumps(result.to_dict())


def test_a_model_is_not_measured_on_what_it_was_fitted_on_unsaid(split, tmp_path):
    test = split.test
    copy = tmp_path / "of another name.png"
    copy.write_bytes(test.images[0].read_bytes())
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    images = [*split.train.images, copy, test.images[1], test.images[-1]]
    pipe.fit(images, [*[1] * (len(images) - 1), -1])  # the last is left out by its label
    with pytest.warns(UserWarning, match="tile0: the detector was fitted on test images") as warned:
        result = evaluation_of(pipe, split)
    lines = str(warned[0].message).splitlines()[1:]
    assert [line.strip().split(": ")[0] for line in lines] == list(map(str, test.images[:2]))
    assert str(copy) in lines[0] and result.n_train == len(images) - 1


def test_a_threshold_that_was_chosen_on_test_images_is_told(split):
    pipe = create_model("filterbank", scorer="knn", image_size=64).fit(list(split.train.images))
    moved = recalibrate(pipe, images=list(split.test.images[:8]), contamination=0.25)
    with pytest.warns(UserWarning, match="8 of 13 images .* the threshold was chosen on"):
        result = evaluation_of(moved, split)
    assert result.threshold == moved[-1].offset_ and result.n_train == 12


def test_what_cannot_be_measured_is_refused(split):
    pipe = create_model("filterbank", scorer="knn", image_size=64)
    with pytest.raises(NotFittedError):
        evaluation_of(pipe, split)
    with pytest.raises(TypeError, match="must be a DatasetSplit"):
        evaluation_of(pipe.fit(list(split.train.images)), split.test)
    keep = {"images": split.test.images[:1], "y": [1], "masks": [None], "defect_types": ["good"]}
    normal = dataclasses.replace(split.test, **keep)
    with pytest.raises(ValueError, match="there is no anomalous test image"):
        evaluation_of(pipe, DatasetSplit("tile0", split.train, normal))
    twice = dataclasses.replace(split.test, images=[split.test.images[1], *split.test.images[1:]])
    with pytest.warns(UserWarning, match="is listed twice"):
        evaluation_of(pipe, DatasetSplit("tile0", split.train, twice))


class _Plainest(OutlierMixin, BaseEstimator):
    """The protocol of scorers, no more."""

    def fit(self, X, y=None):
        self.offset_ = -1.0
        return self

    def score_samples(self, X):
        return self.score_patches(X, return_scores=True)[1]

    def decision_function(self, X):
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        return np.where(self.decision_function(X) < 0, -1, 1)

    def score_patches(self, X, return_scores=False):
        patches = np.asarray(X)[..., 0]
        return (patches, -patches.max(axis=(1, 2))) if return_scores else patches


def test_a_detector_that_remembers_nothing_is_measured(split):
    pipe = make_pipeline(FilterBankPatches(image_size=64), _Plainest())
    result = evaluation_of(pipe.fit(list(split.train.images)), split)
    assert result.n_train is None and result.p_values is None
    assert "unknown / 8 / 5" in repr(result)


def test_the_curve_of_overlap(tmp_path):
    split = _with_masks(tmp_path)
    result = evaluate_split(create_model("filterbank", scorer="knn", image_size=64), split)
    maps = anomaly_maps(result.estimator, list(split.test.images))
    whole = pro_curve([split.test.load_mask(i) for i in range(len(split.test))], maps)
    fpr, overlap = result.curves["pro"]
    assert len(fpr) <= 1000 and (fpr[0], overlap[0], fpr[-1], overlap[-1]) == (0, 0, 1, 1)
    points = set(zip(*whole[:2], strict=True))
    assert points >= set(zip(fpr, overlap, strict=True))
    at = np.linspace(0, 1, 1001)
    assert np.abs(np.interp(at, fpr, overlap) - np.interp(at, *whole[:2])).max() < 0.01


# 24 maps of 7 million pixels are 650 MiB, and what they held beside them was as much again.
_MEASURE = """
import sys
from pathlib import Path
from skanomaly import create_model, evaluate_split
from skanomaly.datasets import read_mvtec

evaluate_split(create_model("filterbank", scorer="knn", image_size=64), read_mvtec(sys.argv[1]))
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in lines if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_large_images_are_measured_in_little_memory(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(28):
        folder = "train/good" if i < 4 else f"test/{('good', 'dent')[i % 2]}"
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(90, 110, (48, 64), dtype=np.uint8))
        image = np.array(image.resize((3072, 2304)))
        if folder == "test/dent":
            mask = np.zeros((2304, 3072), np.uint8)
            top, left = rng.integers(100, 1800, 2)
            mask[top : top + 300, left : left + 400] = 255
            image[mask > 0] += 60
            truth = tmp_path / "ground_truth" / "dent" / f"{i}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(truth)
        Image.fromarray(image).save(tmp_path / folder / f"{i}.jpg")
    command = [sys.executable, "-c", _MEASURE, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout) * 1024 < 1.1 * 2**30
