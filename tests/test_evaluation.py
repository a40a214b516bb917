"""evaluate_split on generated and on real images."""

import dataclasses
import json
import weakref

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skanomaly import (
    FilterBankPatches,
    PatchKNNScorer,
    anomaly_maps,
    create_model,
    evaluate_split,
)
from skanomaly.datasets import DatasetSplit, ImageSet, make_surfaces, read_mvtec
from skanomaly.inspection import color_limits
from skanomaly.metrics import IMAGE_SCORERS
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
        evaluate_split(None, DatasetSplit("whole", split.train, test))


# What the embedded default and the small pretrained transformer have to reach.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "at_least"), [("cookies", 0.95), ("bottle", 0.99)])
def test_filter_bank_on_real_images(shared, name, at_least):
    result = evaluate_split(create_model("filterbank"), read_mvtec(shared / "data" / name))
    assert result.metrics["image_auroc"] >= at_least


@pytest.mark.slow
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
