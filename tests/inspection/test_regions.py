"""Regions of heat maps: found as a flood fill finds them, calibrated on held-out maps."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM

from skanomaly import (
    AnomalibDetector,
    FilterBankPatches,
    FunctionPatches,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchwiseScorer,
    PromptScorer,
    RegionOfInterest,
    ScoreUnion,
    anomaly_maps,
    anomaly_regions,
    recalibrate,
)
from skanomaly.base import BasePatchScorer
from skanomaly.core.maps import map_maximum, upsample_map
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import find_regions, region_threshold

quick = settings(max_examples=60, deadline=None, derandomize=True)
SIDE = 64


def flood_fill(heat, threshold):
    """Sets of pixels (row, column) above a threshold that touch, corners included."""
    left = {(i, j) for i in range(len(heat)) for j in range(len(heat[0])) if heat[i][j] > threshold}
    regions = []
    while left:
        todo, region = [left.pop()], set()
        while todo:
            i, j = todo.pop()
            region.add((i, j))
            near = {(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)} & left
            left -= near
            todo += near
        regions.append(region)
    return regions


def pixels_of(region):
    x, y, width, height = region.box
    assert region.mask.shape == (height, width)
    return {(int(i) + y, int(j) + x) for i, j in zip(*np.nonzero(region.mask), strict=True)}


@quick
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 4), min_size=n, max_size=n), min_size=1, max_size=12
        )
    ),
    st.integers(1, 4),
)
def test_regions_are_those_of_a_flood_fill(heat, min_area):
    found = find_regions(heat, 2, min_area)
    expected = [region for region in flood_fill(heat, 2) if len(region) >= min_area]
    assert {frozenset(pixels_of(r)) for r in found} == {frozenset(r) for r in expected}
    assert [r.peak for r in found] == sorted((r.peak for r in found), reverse=True)
    for region in found:
        pixels = pixels_of(region)
        values = [heat[i][j] for i, j in pixels]
        rows, columns = zip(*pixels, strict=True)
        assert region.area == len(pixels)
        assert region.box[:2] == (min(columns), min(rows))
        assert region.box[2:] == (
            max(columns) - min(columns) + 1,
            max(rows) - min(rows) + 1,
        )
        assert region.centroid == pytest.approx((np.mean(columns), np.mean(rows)))
        assert region.peak == max(values) and region.mean == pytest.approx(np.mean(values))
        assert heat[region.peak_at[1]][region.peak_at[0]] == region.peak


def test_what_is_at_the_threshold_is_in_no_region():
    assert find_regions([[1.0, 1.0]], 1.0) == []
    assert find_regions(np.zeros((3, 4)), 0) == []


@pytest.mark.parametrize(
    "heat, threshold, error",
    [
        ([[np.nan]], 1, "finite"),
        ([1.0, 2.0], 1, "2-D"),
        ([["a"]], 1, "numbers"),
        ([[1.0]], np.inf, "threshold"),
        ([[1.0]], True, "threshold"),
    ],
)
def test_what_is_no_map_or_threshold(heat, threshold, error):
    with pytest.raises(ValueError, match=error):
        find_regions(heat, threshold)
    with pytest.raises(ValueError, match="min_area"):
        find_regions([[1.0]], 0, min_area=0)


@quick
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([0.0, 1.0, 4.0, 30.0]),
)
def test_highest_value_of_a_map_without_the_map(seed, shape, size, sigma):
    grid = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    expected = float(upsample_map(grid, size, sigma).max())
    assert map_maximum(grid, size, sigma) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_highest_value_of_a_large_map_takes_little_memory():
    size = (3000, 4096)
    grid = np.random.default_rng(0).gamma(2.0, size=(32, 32)).astype(np.float32)
    expected = float(upsample_map(grid, size).max())
    tracemalloc.start()
    try:
        found = map_maximum(grid, size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == pytest.approx(expected, rel=1e-6)
    assert peak < 4 * size[0] * size[1] / 2  # of float32, the map alone is twice as much


def detector(scorer=None, n=20, seed=0, **options):
    scorer = PatchKNNScorer(metric="euclidean") if scorer is None else scorer
    images = make_surfaces(n, image_size=SIDE, random_state=seed, **options).images
    return make_pipeline(FilterBankPatches(image_size=SIDE), scorer).fit(images), images


@pytest.mark.parametrize("size", [(64, 64), (150, 90)])
def test_threshold_is_the_quantile_of_the_highest_values(size):
    pipe, images = detector()
    maxima = sorted(upsample_map(g, size, 4.0).max() for g in pipe[-1].held_out_patches_)
    for share, rank in [(1 / 21, 20), (2 / 21, 19), (10 / 21, 11)]:
        threshold = region_threshold(pipe, share=share, size=size)
        assert threshold == pytest.approx(maxima[rank - 1], rel=1e-5)
    # The share of training images with a region is no higher than it says, at any size.
    for share in (1 / 21, 0.3):
        threshold = region_threshold(pipe, share=share, size=(SIDE, SIDE))
        with_region = [bool(find_regions(heat, threshold)) for heat in anomaly_maps(pipe, images)]
        assert np.mean(with_region) <= share


def test_regions_are_of_the_maps():
    pipe, _ = detector()
    bad = make_surfaces(0, 3, image_size=SIDE, defects="missing_piece", random_state=5).images
    threshold = region_threshold(pipe, size=(SIDE, SIDE))
    expected = [find_regions(heat, threshold) for heat in anomaly_maps(pipe, bad)]
    assert anomaly_regions(pipe, bad) == expected
    assert any(expected)
    fixed = anomaly_regions(pipe, bad, threshold=1.5 * threshold, min_area=20, sigma=2.0)
    for regions, heat in zip(fixed, anomaly_maps(pipe, bad, sigma=2.0), strict=True):
        assert regions == find_regions(heat, 1.5 * threshold, 20)


def test_images_of_several_sizes_and_kinds(tmp_path):
    pipe, images = detector()
    Image.fromarray(images[0]).resize((90, 150)).save(tmp_path / "part one.png")
    mixed = [images[0], tmp_path / "part one.png"]
    found = anomaly_regions(pipe, mixed, threshold=0.0)
    assert [r[0].box[2:] for r in found] == [(SIDE, SIDE), (90, 150)]
    assert len(anomaly_regions(pipe, mixed)) == 2


def test_more_images_than_are_scored_at_a_time():
    pipe, images = detector(n=40)
    assert [len(r) for r in anomaly_regions(pipe, images, threshold=0.0)] == [1] * 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        (PatchKNNScorer(metric="euclidean"), 0.1),
        (PatchGaussianScorer(covariance="shared"), 0.1),
        # Held-out scores are those of Gaussians of fewer images, and a little too high.
        (PatchGaussianScorer(), 0.065),
    ],
)
def test_share_of_new_good_images_with_a_region(scorer, expected):
    """Nominal is 10%; over the choices of training images the mean is close to it."""
    shares = []
    for seed in range(8):
        pipe, images = detector(scorer, 130, seed, surface="fabric")
        pipe.fit(images[:30])
        shares.append(np.mean([bool(r) for r in anomaly_regions(pipe, images[30:])]))
    assert np.mean(shares) == pytest.approx(expected, abs=0.035)


def test_masked_patches_count_as_zero():
    tokens = np.random.default_rng(0).normal(size=(20, 6, 6, 4))
    tokens[:, :2] = np.nan
    scorer = PatchGaussianScorer(covariance="shared").fit(tokens)
    assert np.isnan(scorer.held_out_patches_[0][:2]).all()
    pipe = make_pipeline(FilterBankPatches(), scorer)
    threshold = region_threshold(pipe, size=(60, 60))
    assert threshold < region_threshold(pipe)


def test_masked_patches_are_no_regions_where_scores_are_below_0():
    images = make_surfaces(20, surface="fabric", image_size=SIDE, random_state=0).images
    left = [(0, 0), (0.5, 0), (0.5, 1), (0, 1)]
    scorer = PatchwiseScorer(OneClassSVM(nu=0.1), random_state=0)
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), RegionOfInterest(left), scorer)
    pipe.fit(images)
    assert region_threshold(pipe) < 0
    for regions in anomaly_regions(pipe, images):
        assert not any(one.mask[:, SIDE // 2 :].all(axis=0).any() for one in regions)
        assert sum(one.area for one in regions) < SIDE * SIDE // 4


def test_too_few_images_warn():
    with pytest.warns(UserWarning, match="calibrated on 4 images: .* 20% will"):
        pipe, images = detector(n=4)
        region_threshold(pipe, share=0.1, size=(64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        region_threshold(pipe, share=0.2, size=(64, 64))
    with pytest.warns(UserWarning) as caught:
        anomaly_regions(pipe, [images[0], images[0][:50]])
    assert len(caught) == 1


def test_what_is_not_calibrated():
    class Darkness:
        def predict(self, image):
            dark = 1 - image.mean(axis=2) / 255
            return {"pred_score": dark.max(), "anomaly_map": dark}

    image = np.zeros((8, 8, 3), dtype=np.uint8)
    model = AnomalibDetector(inferencer=Darkness())
    with pytest.raises(NotFittedError, match="fit it on good images, or pass threshold="):
        anomaly_regions(model, [image])
    assert anomaly_regions(model, [image], threshold=0.5)[0][0].area == 64
    with pytest.raises(TypeError, match="after an embedder"):
        region_threshold(PatchKNNScorer())
    pipe = make_pipeline(FilterBankPatches(), PatchKNNScorer())
    with pytest.raises(NotFittedError):
        anomaly_regions(pipe, [image])
    for threshold in ("auto", None, np.nan):
        with pytest.raises(ValueError, match="threshold"):
            anomaly_regions(model, [image], threshold=threshold)
    with pytest.raises(ValueError, match="share must be"):
        region_threshold(detector()[0], share=1.0)


def test_detector_of_images():
    class Darkness:
        def predict(self, image):
            dark = 1 - image.mean(axis=2) / 255
            return {"pred_score": dark.max(), "anomaly_map": dark}

    rng = np.random.default_rng(0)
    good = [rng.integers(150, 255, (12, 16, 3), dtype=np.uint8) for _ in range(30)]
    bad = good[0].copy()
    bad[3:7, 5:12] = 0
    model = AnomalibDetector(inferencer=Darkness()).fit(good)
    assert len(model.held_out_patches_) == 30
    assert np.array_equal(model.held_out_patches_[3], model.score_maps(good[3:4])[0])
    (regions,) = anomaly_regions(model, [bad], sigma=0)
    assert regions[0].box == (5, 3, 7, 4) and regions[0].area == 28
    flagged = [bool(r) for r in anomaly_regions(model, good, sigma=1.0)]
    assert np.mean(flagged) <= 0.1


def test_detector_keeps_so_many_maps():
    class Large:
        def predict(self, image):
            return {"pred_score": 0.0, "anomaly_map": np.full((2048, 2048), image.mean())}

    images = [np.full((4, 4, 3), grey, dtype=np.uint8) for grey in range(9)]
    model = AnomalibDetector(inferencer=Large()).fit(images, y=[1, 1, -1, 1, 1, 1, 1, 1, 1])
    kept = [grid[0, 0] for grid in model.held_out_patches_]
    assert kept == [0.0, 3.0, 5.0, 7.0]


def test_prompts_without_fit_have_a_fixed_threshold():
    texts = {"text_features_normal": np.eye(102)[0], "text_features_anomaly": np.eye(102)[1]}
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), PromptScorer(**texts))
    assert region_threshold(pipe) == 0.5
    pipe.fit(make_surfaces(20, image_size=SIDE, random_state=0).images)
    fitted = region_threshold(pipe)
    assert fitted != 0.5
    # Other texts than those of fit: what was calibrated is no longer theirs.
    pipe.set_params(promptscorer__text_features_anomaly=np.eye(102)[2])
    assert region_threshold(pipe) == 0.5


def test_moved_thresholds():
    """Regions follow the share, and the images, that a detector is calibrated on now."""
    pipe, _ = detector(n=30)
    strict = recalibrate(pipe, contamination=0.3)
    size = (SIDE, SIDE)
    assert region_threshold(strict, size=size) == region_threshold(pipe, share=0.3, size=size)
    assert region_threshold(strict, size=size) < region_threshold(pipe, size=size)
    today = make_surfaces(25, image_size=SIDE, random_state=77).images
    moved = recalibrate(pipe, images=today)
    assert len(moved[-1].held_out_patches_) == 25
    with_region = [bool(regions) for regions in anomaly_regions(moved, today)]
    assert np.mean(with_region) <= 0.1
    fixed = recalibrate(pipe, threshold=-1e9)  # no share of images: regions keep theirs
    assert region_threshold(fixed, size=size) == region_threshold(pipe, share=0.1, size=size)


def test_regions_keep_the_share_of_fit_where_the_threshold_is_a_number():
    good = make_surfaces(20, image_size=SIDE, random_state=0).images
    pipe = make_pipeline(FilterBankPatches(image_size=SIDE), PatchKNNScorer(contamination=0.3))
    moved = recalibrate(pipe.fit(good), threshold=-0.1)
    assert region_threshold(moved) == region_threshold(pipe) == region_threshold(pipe, share=0.3)


class Signed(BasePatchScorer):
    """Patch scores of any sign: the first number of a token."""

    def __init__(self, *, topk=0.01, aggregation="topk_mean", contamination=0.1):
        self.topk = topk
        self.aggregation = aggregation
        self.contamination = contamination

    def _fit_tokens(self, tokens):
        return self._score_tokens(tokens.select_view(0))[1]

    def _score_tokens(self, tokens):
        scores = tokens.values[:, 0].astype(np.float64)
        return scores, -self._aggregate(tokens, scores)


def first_colour(image):
    """The first colour's differences from grey, hundredfold, but for a corner that is near 0."""
    tokens = (image[..., :1].astype(np.float64) - 256) * 100
    tokens[:1] = 1e-3
    return tokens


def test_rounding_is_as_great_as_the_patch_scores():
    """Maps come out higher by the rounding of their greatest values, however near 0 they are."""
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 255, (12, 9, 7, 3), dtype=np.uint8))
    pipe = make_pipeline(FunctionPatches(first_colour), Signed()).fit(images)
    grids = pipe[-1].held_out_patches_
    greatest = max(float(np.abs(grid).max()) for grid in grids)
    size = (90, 70)
    highest = max(float(upsample_map(grid, size, 0).max()) for grid in grids)
    assert greatest > 1e6 * highest
    threshold = region_threshold(pipe, sigma=0.0, size=size)
    assert threshold >= highest + 5e-7 * greatest


def test_detectors_that_are_calibrated_anew():
    class Darkness:
        def predict(self, image):
            dark = 1 - image.mean(axis=2) / 255
            return {"pred_score": dark.max(), "anomaly_map": dark}

    bright, dim = (
        [np.full((8, 8, 3), grey, dtype=np.uint8) for grey in greys]
        for greys in (range(200, 220), range(100, 120))
    )
    model = AnomalibDetector(inferencer=Darkness()).fit(bright)
    moved = recalibrate(model, images=dim)
    assert anomaly_regions(model, dim[:1])[0] and not anomaly_regions(moved, dim[5:6])[0]
    assert len(model.held_out_patches_) == len(moved.held_out_patches_) == 20


def test_union():
    union = ScoreUnion([("a", PatchKNNScorer(metric="euclidean")), ("b", PatchGaussianScorer())])
    pipe, images = detector(union)
    assert len(anomaly_regions(pipe, images[:2])) == 2
