"""Charts of scores: what is drawn is what plain loops over thresholds say."""

import sys

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchKNNScorer, anomaly_maps, metrics, p_values
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import (
    AnomalyMapDisplay,
    CalibrationDisplay,
    NearestPatchDisplay,
    PROCurveDisplay,
    ScoreHistogramDisplay,
    ThresholdDisplay,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

RNG = np.random.default_rng(0)
Y = np.where(np.arange(60) < 40, 1, -1)
SCORES = np.round(RNG.normal(np.where(Y > 0, -1.0, -3.0)), 1)  # with ties


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(24, 6, surface="fabric", image_size=64, random_state=0)


@pytest.fixture(scope="module")
def pipe(surfaces):
    return make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer()).fit(
        surfaces.images[:16]
    )


def value_at(line, x):
    """Of a line that is drawn in steps-post, at x."""
    assert line.get_drawstyle() == "steps-post"
    at, values = line.get_data()
    return values[np.searchsorted(at, x, side="right") - 1]


def legend_of(display):
    axes = getattr(display, "cost_ax_", display.ax_)
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_thresholds_are_drawn_with_what_they_do():
    display = ThresholdDisplay.from_predictions(
        Y, SCORES, threshold=-2.05, cost_miss=10, cost_false_alarm=2, prevalence=0.1, name="knn"
    )
    for threshold in [*np.linspace(SCORES.min(), SCORES.max() + 0.1, 97), *(SCORES + 0.05)]:
        flagged = [score < threshold for score in SCORES]
        missed = np.mean([not f for f, label in zip(flagged, Y, strict=True) if label < 0])
        alarms = np.mean([f for f, label in zip(flagged, Y, strict=True) if label > 0])
        cost = 0.1 * 10 * missed + 0.9 * 2 * alarms
        if np.isclose(threshold, SCORES).any():
            continue  # exactly at a step
        drawn = display.miss_line_, display.false_alarm_line_, display.cost_line_
        values = [value_at(line, threshold) for line in drawn]
        np.testing.assert_allclose(values, [missed, alarms, cost])
    curve = metrics.expected_cost_curve(Y, SCORES, cost_miss=10, cost_false_alarm=2, prevalence=0.1)
    cheapest = max(t for t, cost in zip(*curve[:2], strict=True) if cost <= min(curve[1]) + 1e-12)
    assert display.best_threshold == cheapest == display.best_line_.get_xdata()[0]
    assert display.threshold_line_.get_xdata()[0] == -2.05
    assert display.cost_line_.axes is display.cost_ax_ and display.ax_.get_title() == "knn"
    assert display.ax_.get_xlabel() == "threshold of the score (higher is more normal)"
    assert legend_of(display) == [
        "misses",
        "false alarms",
        "expected cost",
        f"least cost {min(curve[1]):.3g}",
        "threshold -2.05",
    ]


def test_the_best_threshold_is_that_of_tuning(pipe, surfaces):
    from skanomaly import tune_threshold

    images, y = surfaces.images[16:], surfaces.y[16:]
    costs = {"cost_miss": 3, "prevalence": 0.2}
    display = ThresholdDisplay.from_estimator(pipe, images, y, **costs)
    assert display.best_threshold == tune_threshold(pipe, images, y, **costs).threshold
    assert display.threshold == pipe[-1].offset_
    np.testing.assert_array_equal(display.levels, np.unique(pipe.score_samples(images)))


def test_one_score_of_all():
    display = ThresholdDisplay.from_predictions([1, -1], [2.0, 2.0])
    assert value_at(display.miss_line_, 1.9) == 1 and value_at(display.miss_line_, 2.1) == 0


def test_histogram_counts_each_class():
    kinds = np.where(Y > 0, "good", np.where(np.arange(60) % 2, "scratch", "dent"))
    train = RNG.normal(-1, 1, 30)
    display = ScoreHistogramDisplay.from_predictions(
        Y, SCORES, defect_types=kinds, threshold=-2, train_scores=train, bins=12, name="knn"
    )
    assert list(display.bars_) == ["good", "dent", "scratch"]
    for kind, bars in display.bars_.items():
        counts = []
        for bar in bars:
            low, high = bar.get_x(), bar.get_x() + bar.get_width()
            of_kind = SCORES[kinds == kind]
            last = np.isclose(high, max(SCORES.max(), train.max()))
            counts.append(np.count_nonzero((of_kind >= low) & ((of_kind < high) | last)))
        assert [bar.get_height() for bar in bars] == counts
        assert sum(counts) == (kinds == kind).sum()
    assert legend_of(display) == [
        "good (40)",
        "dent (10)",
        "scratch (10)",
        "training, held out (30)",
        "threshold -2",
    ]
    assert display.ax_.get_xlabel() == "score (higher is more normal)"
    assert display.threshold_line_.get_xdata()[0] == -2 and display.ax_.get_title() == "knn"


def test_histogram_of_what_is_not_known(pipe, surfaces):
    display = ScoreHistogramDisplay.from_estimator(pipe, surfaces.images[16:])
    assert legend_of(display)[:2] == ["images (14)", "training, held out (16)"]
    np.testing.assert_array_equal(display.train_scores, pipe[-1].train_scores_)
    assert display.threshold == pipe[-1].offset_
    assert sum(bar.get_height() for bar in display.bars_["images"]) == 14
    display = ScoreHistogramDisplay.from_estimator(pipe, surfaces.images[16:], surfaces.y[16:])
    assert list(display.bars_) == ["good", "anomalous"]
    many = ScoreHistogramDisplay.from_predictions(
        None, SCORES, defect_types=[f"type {i % 20}" for i in range(60)]
    )
    colours = {tuple(bars[0].get_facecolor()) for bars in many.bars_.values()}
    assert len(many.bars_) == len(colours) == 20 and many.threshold_line_ is None


def test_names_of_folders_are_shown_as_they_are():
    kinds = ["_crack", "a$b$", "lack\udce9", "x"]
    display = ScoreHistogramDisplay.from_predictions(None, [0.0, 1, 2, 3], defect_types=kinds)
    assert legend_of(display) == [" _crack (1)", r"a\$b\$ (1)", r"lack\udce9 (1)", "x (1)"]
    display.figure_.canvas.draw()


def test_histogram_errors(pipe, surfaces):
    with pytest.raises(ValueError, match="image 0 is -1 in y, but 'good' in defect_types"):
        ScoreHistogramDisplay.from_predictions([-1, 1], [0.0, 1.0], defect_types=["good", "good"])
    with pytest.raises(ValueError, match="image 1 is \\+1 in y, but 'dent' in defect_types"):
        ScoreHistogramDisplay.from_predictions([1, 1], [0.0, 1.0], defect_types=["good", "dent"])
    with pytest.raises(ValueError, match="one for each of the 2 images, got 1"):
        ScoreHistogramDisplay.from_predictions(None, [0.0, 1.0], defect_types=["good"])
    with pytest.raises(ValueError, match="train_scores must be finite"):
        ScoreHistogramDisplay.from_predictions(None, [0.0], train_scores=[np.nan])
    with pytest.raises(ValueError, match="bins must be"):
        ScoreHistogramDisplay.from_predictions(None, [0.0], bins=0)


def test_the_curve_of_aupro_is_exact(pipe, surfaces):
    masks = [mask != 0 for mask in surfaces.masks[16:]]
    images = surfaces.images[16:]
    maps = anomaly_maps(pipe, images)
    display = PROCurveDisplay.from_estimator(pipe, images, masks, max_fpr=0.2, name="knn")
    assert display.aupro == metrics.aupro(masks, maps, max_fpr=0.2)
    fpr, pro, _ = metrics.pro_curve(masks, maps)
    np.testing.assert_array_equal(display.line_.get_data(), (fpr, pro))
    assert display.line_.get_label() == f"knn (AUPRO up to 0.2 = {display.aupro:.3f})"
    # The area under what is drawn, within the limits of the axes.
    assert display.ax_.get_xlim() == (0, 0.2)
    at = np.unique(np.append(fpr[fpr < 0.2], 0.2))
    below = np.interp(np.linspace(0, 0.2, 200_001), fpr, pro)
    assert len(at) > 5 and abs(np.mean(below) - display.aupro) < 1e-4
    for wrong in (masks[:3], [*masks[:-1], None], [*masks[:-1], np.zeros((3, 3), dtype=bool)]):
        with pytest.raises(ValueError, match="mask"):
            PROCurveDisplay.from_estimator(pipe, images, wrong)


def test_several_curves_share_axes():
    masks, maps = [[[True, False, False, True]]], [[[3.0, 1.0, 2.0, 1.5]]]
    first = PROCurveDisplay.from_predictions(masks, maps, max_fpr=1, name="a", color="black")
    second = PROCurveDisplay(fpr=np.array([0, 1.0]), pro=np.array([0, 1.0]), name="b").plot(
        first.ax_
    )
    assert first.figure_ is second.figure_ and len(first.ax_.lines) == 2
    assert first.line_.get_color() == "black"
    assert legend_of(second) == ["a (AUPRO up to 1 = 0.750)", "b"]


def test_flagged_shares_with_exact_limits():
    values = RNG.integers(1, 42, 90) / 41
    display = CalibrationDisplay.from_predictions(values, confidence_level=0.9)
    band = display.band_.get_paths()[0]
    for share in np.linspace(0.001, 0.499, 83):
        flagged = sum(value <= share for value in values)
        assert value_at(display.line_, share) == flagged / 90
        limits = binomtest(flagged, 90).proportion_ci(0.9, method="exact")
        k = np.searchsorted(display.nominal, share, side="right") - 1
        np.testing.assert_allclose([display.low[k], display.high[k]], limits, atol=1e-12)
        assert band.contains_point((share, (limits[0] + limits[1]) / 2))
        assert not band.contains_point((share, limits[1] + 0.01))
    np.testing.assert_array_equal(display.diagonal_.get_data(), [[0, 0.5], [0, 0.5]])
    assert legend_of(display) == ["90 good images", "0.9 confidence", "as promised"]


def test_all_or_none_flagged():
    display = CalibrationDisplay.from_predictions([0.1, 0.2])
    assert (display.high[-1], display.low[0]) == (1, 0)
    display = CalibrationDisplay.from_predictions([0.9, 1.0])
    assert value_at(display.line_, 0.5) == 0
    for wrong in ([0.0], [1.2], [np.nan], []):
        with pytest.raises(ValueError, match="p_values must lie in"):
            CalibrationDisplay.from_predictions(wrong)
    for wrong in (0, 1, True, "0.9"):
        with pytest.raises(ValueError, match="confidence_level must lie in"):
            CalibrationDisplay.from_predictions([0.5], confidence_level=wrong)


def test_calibration_of_a_detector(pipe, surfaces):
    good = surfaces.images[16:24]
    display = CalibrationDisplay.from_estimator(pipe, good, name="knn")
    values = p_values(pipe, good)
    for share in (0.05, 0.1, 0.25, 0.5):
        assert value_at(display.line_, share) == np.mean(values <= share)
    assert display.line_.get_label() == "knn (8 good images)"
    seen = [*good[:3], surfaces.images[2]]
    with pytest.raises(ValueError, match="1 of the good_images entered the model.* number 3"):
        CalibrationDisplay.from_estimator(pipe, seen)
    # Not those that were in the X of fit as defects.
    y = np.ones(16, dtype=int)
    y[2] = -1
    pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    CalibrationDisplay.from_estimator(pipe.fit(surfaces.images[:16], y), seen)


class Unwilling(BaseEstimator):
    """Scores nothing: what is wrong must be said before."""

    offset_ = -1.0

    def fit(self, X, y=None):
        return self

    def score_samples(self, images):
        raise AssertionError("images were scored")

    decision_function = predict = p_values = score_samples

    def score_maps(self, images, size="image", return_scores=False):
        raise AssertionError("images were scored")


IMAGES = [np.zeros((4, 4, 3), dtype=np.uint8)] * 2


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda d: ThresholdDisplay.from_estimator(d, IMAGES, [1, -1], cost_miss=-1), "cost_miss"),
        (lambda d: ThresholdDisplay.from_estimator(d, IMAGES, [1, -1, 1]), "y"),
        (lambda d: ThresholdDisplay.from_estimator(d, IMAGES, [1, -1], ax=3), "ax must be"),
        (lambda d: ScoreHistogramDisplay.from_estimator(d, IMAGES, [0, 1]), "y"),
        (lambda d: ScoreHistogramDisplay.from_estimator(d, IMAGES, ax=3), "ax must be"),
        (lambda d: PROCurveDisplay.from_estimator(d, IMAGES, [None] * 2), "mask 0 is None"),
        (lambda d: PROCurveDisplay.from_estimator(d, IMAGES, [], max_fpr=2), "max_fpr"),
        (lambda d: CalibrationDisplay.from_estimator(d, IMAGES, confidence_level=2), "confidence"),
        (lambda d: AnomalyMapDisplay.from_estimator(d, IMAGES, ax=3), "ax must be"),
        (lambda d: AnomalyMapDisplay.from_estimator(d, IMAGES, masks=[]), "masks must be one"),
        (lambda d: AnomalyMapDisplay.from_estimator(d, IMAGES, sigma=-1), "sigma must be"),
    ],
)
@pytest.mark.filterwarnings("ignore:Unwilling has no patch_limits_")
def test_what_is_wrong_is_said_before_images_are_scored(call, error):
    with pytest.raises((TypeError, ValueError), match=error):
        call(Unwilling())
    assert not plt.get_fignums()


@pytest.mark.parametrize(
    "call",
    [
        lambda: ThresholdDisplay.from_estimator(Unwilling(), IMAGES, [1, -1]),
        lambda: ThresholdDisplay.from_predictions([1, -1], [0, 1]),
        lambda: ScoreHistogramDisplay.from_estimator(Unwilling(), IMAGES),
        lambda: ScoreHistogramDisplay.from_predictions(None, [0, 1]),
        lambda: PROCurveDisplay.from_estimator(Unwilling(), IMAGES, [None]),
        lambda: PROCurveDisplay.from_predictions([], []),
        lambda: CalibrationDisplay.from_estimator(Unwilling(), IMAGES),
        lambda: CalibrationDisplay.from_predictions([0.5]),
        lambda: AnomalyMapDisplay.from_estimator(Unwilling(), IMAGES),
        lambda: NearestPatchDisplay.from_estimator(Unwilling(), IMAGES[0]),
    ],
)
def test_without_matplotlib_the_extra_is_named(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'Display needs .* pip install "skanomaly\[plot\]"'):
        call()
