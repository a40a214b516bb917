"""Colours of heat maps: anchored at calibration, whatever images are shown."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PromptScorer,
    ScoreUnion,
    evaluate_split,
)
from skanomaly.base import BasePatchScorer, CrossFittedScorer
from skanomaly.datasets import DatasetSplit, ImageSet, make_surfaces
from skanomaly.inspection import AnomalyMapDisplay, anomaly_maps, color_limits, overlay_map
from skanomaly.inspection._limits import limits_for

SIDE = 128


class DistanceToMean(CrossFittedScorer):
    """A scorer of somebody else."""

    def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_model(self, tokens):
        values = tokens.valid_values()
        return values.mean(axis=0), values.std(axis=0)

    def _score_model(self, model, tokens, known):
        return np.linalg.norm((tokens.values - model[0]) / model[1], axis=1)


class Length(BasePatchScorer):
    """A scorer of somebody else that learns nothing."""

    def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_tokens(self, tokens):
        return self._score_tokens(tokens.select_view(0))[1]

    def _score_tokens(self, tokens):
        scores = np.linalg.norm(tokens.values, axis=1).astype(np.float64)
        return scores, -self._aggregate(tokens, scores)


class Darkness:
    """An inferencer."""

    def predict(self, image):
        dark = 1 - image.mean(axis=2) / 255
        return {"pred_score": dark.max(), "anomaly_map": dark}


def _texts(pipe_tokens):
    """Directions of the usual and of an unusual token, as texts of normal and of anomalous."""
    mean = pipe_tokens.reshape(-1, pipe_tokens.shape[-1]).mean(axis=0)
    return {"text_features_normal": mean, "text_features_anomaly": -mean}


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(
        40, 5, surface="tile", defects="missing_piece", image_size=SIDE, random_state=0
    )


def _emb():
    return FilterBankPatches(image_size=SIDE)


DETECTORS = {
    "gaussian": (make_pipeline(_emb(), PatchGaussianScorer(neighborhood=3)), 30),
    "knn": (make_pipeline(_emb(), PatchKNNScorer(metric="euclidean")), 30),
    "four shots": (make_pipeline(_emb(), PatchKNNScorer(metric="euclidean")), 4),
    "coreset": (make_pipeline(_emb(), PatchKNNScorer(metric="euclidean", coreset=0.2)), 10),
    "union": (
        make_pipeline(
            _emb(),
            ScoreUnion([("a", PatchKNNScorer(metric="euclidean")), ("b", PatchGaussianScorer())]),
        ),
        20,
    ),
    "third party": (make_pipeline(_emb(), DistanceToMean()), 20),
    "detector": (AnomalibDetector(inferencer=Darkness()), 20),
}


def _violet(picture, image):
    """Pixels that the overlay has turned to violet: the surface itself is grey."""
    painted, plain = picture.astype(int), image.astype(int)
    assert not ((plain[..., 2] - plain[..., 1]) > 30).any()
    return np.count_nonzero(painted[..., 2] - painted[..., 1] > 40)


@pytest.mark.parametrize("name", DETECTORS)
def test_good_parts_stay_clear_and_defects_are_coloured(name, surfaces):
    estimator, n_train = DETECTORS[name]
    estimator = estimator.fit(surfaces.images[:n_train])
    limits = color_limits(estimator)
    good, bad = surfaces.images[30:40], surfaces.images[40:]
    counts = []
    for images in (good, bad):
        maps = anomaly_maps(estimator, images, sigma=1)
        pictures = [overlay_map(x, heat, limits) for x, heat in zip(images, maps, strict=True)]
        counts.append([_violet(p, x) for p, x in zip(pictures, images, strict=True)])
    assert np.mean(counts[0]) < 0.003 * SIDE**2, counts
    assert np.median(counts[1]) > 20 and np.mean(counts[1]) > 4 * np.mean(counts[0]), counts


def test_one_shot(surfaces):
    pipe = make_pipeline(_emb(), PatchKNNScorer(metric="euclidean"))
    with pytest.warns(UserWarning, match="single image"):
        pipe.fit(surfaces.images[:1])
    low, high = color_limits(pipe)
    heats = anomaly_maps(pipe, surfaces.images[30:40])
    assert low < high and np.mean(heats >= high) < 0.01


def test_a_scorer_that_learns_nothing_has_those_of_its_training_images():
    tokens = np.random.default_rng(0).normal(size=(10, 4, 5, 3))
    scorer = Length()
    assert not hasattr(scorer, "patch_limits_")
    scorer.fit(tokens)
    lengths = np.sqrt((tokens**2).sum(axis=-1)).reshape(10, -1)
    low, high = np.quantile(lengths, 0.95), np.quantile(lengths.max(axis=1), 0.9)
    np.testing.assert_allclose(scorer.patch_limits_, (low, high + (high - low) / 10), rtol=1e-6)
    with pytest.raises(ValueError):
        scorer.fit(tokens[..., 0] * np.nan)
    assert not hasattr(scorer, "patch_limits_")


def test_display_takes_them_whatever_is_shown(surfaces):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pipe = DETECTORS["gaussian"][0].fit(surfaces.images[:30])
    good, bad = list(surfaces.images[30:36]), list(surfaces.images[40:])
    displays = [AnomalyMapDisplay.from_estimator(pipe, x) for x in (good[:1], good, good + bad)]
    assert {display.limits for display in displays} == {color_limits(pipe)}
    shown = [axis.get_images()[0].get_array() for axis in displays[1].axes_]
    assert (
        sum(_violet(p, x) for p, x in zip(shown, good, strict=True)) < 0.003 * len(good) * SIDE**2
    )
    shown = [axis.get_images()[0].get_array() for axis in displays[2].axes_]
    assert sum(_violet(p, x) for p, x in zip(shown[6:], bad, strict=True)) > 100
    title = displays[2].axes_[-1].get_title()
    assert title == f"anomalous, score {displays[2].scores[-1]:.3g}"
    colourbar = displays[2].figure_.axes[-1]
    np.testing.assert_allclose(colourbar.get_ylim(), color_limits(pipe))
    for display in displays:
        matplotlib.pyplot.close(display.figure_)


def test_they_are_quantiles_of_held_out_distances(surfaces):
    images = surfaces.images[:6]
    pipe = make_pipeline(_emb(), PatchKNNScorer(metric="euclidean")).fit(images)
    tokens = pipe[0].transform(images).astype(np.float64)
    tokens = tokens.reshape(6, -1, tokens.shape[-1])
    held_out = np.empty(tokens.shape[:2])
    for i in range(6):
        bank = np.concatenate([tokens[j] for j in range(6) if j != i])
        for k, token in enumerate(tokens[i]):
            held_out[i, k] = np.sqrt(((bank - token) ** 2).sum(axis=1)).min()
    low, high = np.quantile(held_out, 0.95), np.quantile(held_out.max(axis=1), 0.9)
    expected = low, high + (high - low) / 6
    np.testing.assert_allclose(color_limits(pipe), expected, rtol=1e-4)


def test_an_evaluation_takes_them_whatever_is_tested(surfaces, tmp_path):
    from PIL import Image

    paths = []
    for i, image in enumerate(surfaces.images):
        paths.append(tmp_path / f"{i:02d}.png")
        Image.fromarray(image).save(paths[-1])

    def image_set(indices):
        return ImageSet(
            images=[paths[i] for i in indices],
            y=np.where(np.asarray(indices) < 40, 1, -1),
            masks=[None] * len(indices),
            defect_types=["good" if i < 40 else "chip" for i in indices],
            name="tiles",
        )

    seen = []
    for test in ([38, 44], range(30, 45)):
        split = DatasetSplit("tiles", image_set(range(20)), image_set(list(test)))
        result = evaluate_split(
            DETECTORS["gaussian"][0], split, on_map=lambda *args: seen.append(args[4])
        )
    assert len(seen) == 17 and set(seen) == {color_limits(result.estimator)}


def test_prompts(surfaces):
    tokens = _emb().transform(surfaces.images[:10])
    pipe = make_pipeline(_emb(), PromptScorer(**_texts(tokens)))
    assert color_limits(pipe) == (0.5, 1)  # from the threshold to certainty
    pipe.fit(surfaces.images[:10])
    scores = pipe[-1].score_patches(tokens).reshape(10, -1)
    low, high = np.quantile(scores, 0.95), np.quantile(scores.max(axis=1), 0.9)
    np.testing.assert_allclose(color_limits(pipe), (low, high + (high - low) / 10), atol=1e-6)
    pipe.set_params(promptscorer__text_features_anomaly=np.ones(tokens.shape[-1]))
    assert color_limits(pipe) == (0.5, 1)
    assert color_limits(make_pipeline(_emb(), PromptScorer(mode="diff"))) is None


class Uncalibrated(BaseEstimator):
    """A detector of somebody else, without `patch_limits_`."""

    def fit(self, X, y=None):
        self.offset_ = -0.5
        return self

    def score_maps(self, images, size="image", return_scores=False):
        maps = [1 - image.mean(axis=2, dtype=np.float32) / 255 for image in images]
        return (maps, self.score_samples(images)) if return_scores else maps

    def score_samples(self, images):
        return np.array([image.mean() / 255 - 1 for image in images])

    def decision_function(self, images):
        return self.score_samples(images) - self.offset_

    def predict(self, images):
        return np.where(self.decision_function(images) < 0, -1, 1)


def test_without_calibration_colours_are_anchored_at_the_threshold(surfaces):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    images = list(surfaces.images[:2])
    detector = Uncalibrated().fit(images)
    assert color_limits(detector) is None
    for shown in (images[:1], images):
        with pytest.warns(UserWarning, match="no patch_limits_.*its threshold, 0.5, to twice that"):
            display = AnomalyMapDisplay.from_estimator(detector, shown)
        assert display.limits == (0.5, 1) and display.contours is None
        matplotlib.pyplot.close(display.figure_)
    assert color_limits(AnomalibDetector(inferencer=Darkness())) is None
    given = AnomalyMapDisplay.from_estimator(detector, images, limits=(0, 1))
    assert given.limits == (0, 1)
    matplotlib.pyplot.close(given.figure_)
    with pytest.raises(TypeError, match="takes patch tokens, not images"):
        color_limits(PatchKNNScorer())


class Positive(Uncalibrated):
    """Whose scores are of another unit than its maps."""

    def fit(self, X, y=None):
        self.offset_ = 0.5
        return self


@pytest.mark.parametrize(
    "detector",
    [Positive().fit(None), AnomalibDetector(inferencer=Darkness())],
    ids=["own", "model"],
)
def test_a_display_without_any_anchor_is_refused(surfaces, detector):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"nor a threshold.* pass limits=\(low, high\)"):
        AnomalyMapDisplay.from_estimator(detector, surfaces.images[:2])


def test_an_evaluation_without_any_anchor_has_one_scale_for_all_its_maps():
    maps = [np.arange(6.0).reshape(2, 3), np.full((2, 2), 9.0)]
    with pytest.warns(UserWarning, match="colours span the maps that are shown"):
        limits = limits_for(Positive().fit(None), maps)
    assert limits == (np.median([*range(6), 9, 9, 9, 9]), 9)
