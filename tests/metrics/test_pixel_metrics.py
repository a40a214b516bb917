"""Pixel metrics against the published definitions in plain loops, scikit-learn and anomalib."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from skanomaly import metrics
from skanomaly.metrics import (
    HistogramPixelMetrics,
    _ranking,
    _streaming,
    aupro,
    auspro,
    pixel_auroc,
    pixel_average_precision,
    pixel_f1_max,
    pixel_f1_max_threshold,
    pixel_iou,
    pixel_metrics,
    pro_curve,
    spro,
)

LIMITS = (0.05, 0.3, 1.0)
close = pytest.approx
settings.register_profile("pixels", deadline=None, max_examples=150)
checked = settings(settings.get_profile("pixels"))


@st.composite
def datasets(draw, values=("ties", "floats", "tails")):
    """One to three maps of their own sizes, with masks, defects and normal pixels among them."""
    kind, seed = draw(st.sampled_from(values)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    sizes = draw(st.lists(st.tuples(*[st.integers(1, 7)] * 2), min_size=1, max_size=3))
    share = draw(st.sampled_from([0.1, 0.3, 0.6]))
    maps, masks = [], []
    for size in sizes:
        pixels = {
            "ties": lambda size: rng.integers(-3, 4, size).astype(float),
            "floats": lambda size: rng.random(size, dtype=np.float32),
            "tails": lambda size: np.exp(8 * rng.standard_normal(size)),
        }[kind](size)
        maps.append(pixels)
        masks.append(rng.random(size) < share if draw(st.booleans()) else np.zeros(size, bool))
    if not any(mask.any() for mask in masks):
        maps.append(maps[0][:1, :1] + 0)
        masks.append(np.ones((1, 1), bool))
    if all(mask.all() for mask in masks):
        maps.append(maps[0][:, :1] * 1)
        masks.append(np.zeros(maps[-1].shape, bool))
    return masks, maps


def regions_of(mask):
    """Regions by filling them, neighbours at corners included."""
    left, regions = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        todo = [left.pop()]
        region = np.zeros(mask.shape, bool)
        while todo:
            row, column = todo.pop()
            region[row, column] = True
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            todo += near
        regions.append(region)
    return regions


def points(masks, maps, regions=None, saturation=None):
    """(threshold, fp, tp, mean overlap) for every distinct score, highest first, by counting."""
    regions = regions or [regions_of(mask) for mask in masks]
    for t in sorted({float(v) for pixels in maps for v in pixels.ravel()}, reverse=True):
        fp = sum(np.sum((m >= t) & ~mask) for m, mask in zip(maps, masks, strict=True))
        tp = sum(np.sum((m >= t) & mask) for m, mask in zip(maps, masks, strict=True))
        found = []
        for index, image in enumerate(regions):
            for number, region in enumerate(image):
                area = saturation[index][number] if saturation else region.sum()
                area = min(area, region.sum())
                found.append(min(np.sum(maps[index][region] >= t) / area, 1))
        yield t, int(fp), int(tp), float(np.mean(found))


def area_up_to(curve, limit):
    """Trapezoids of a list of (x, y) from (0, 0), the last cut off at the limit."""
    total, x0, y0 = 0.0, 0.0, 0.0
    for x1, y1 in curve:
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            return (total + (limit - x0) * (y0 + y1) / 2) / limit
        total, x0, y0 = total + (x1 - x0) * (y0 + y1) / 2, x1, y1
    return total / limit


@checked
@given(datasets())
def test_against_loops(data):
    masks, maps = data
    n_normal = sum(int((~mask).sum()) for mask in masks)
    n_defect = sum(int(mask.sum()) for mask in masks)
    curve = list(points(masks, maps))
    found = pixel_metrics(masks, maps, max_fpr=LIMITS)
    roc = [(fp / n_normal, tp / n_defect) for _, fp, tp, _ in curve]
    assert found["pixel_auroc"] == close(area_up_to(roc, 1.0), abs=1e-12)
    assert found["pixel_auroc"] == pixel_auroc(masks, maps)
    expected, before = 0.0, 0
    for _, fp, tp, _ in curve:
        expected, before = expected + (tp - before) / n_defect * tp / (tp + fp), tp
    assert found["pixel_average_precision"] == close(expected, abs=1e-12)
    assert pixel_average_precision(masks, maps) == close(expected, abs=1e-12)
    f1 = {t: 2 * tp / (tp + fp + n_defect) for t, fp, tp, _ in curve}
    assert found["pixel_f1_max"] == close(max(f1.values()), abs=1e-12)
    # The threshold that is handed out gives that F1, and lies between two scores.
    threshold = found["pixel_f1_threshold"]
    called = [heat_map >= threshold for heat_map in maps]
    tp = sum(np.sum(c & mask) for c, mask in zip(called, masks, strict=True))
    predicted = sum(np.sum(c) for c in called)
    assert 2 * tp / (predicted + n_defect) == close(max(f1.values()), abs=1e-12)
    lowest = min(t for t in f1 if t >= threshold)
    below = [t for t in f1 if t < lowest]
    if below and maps[0].dtype == np.float64:
        assert threshold in ((max(below) + lowest) / 2, lowest)
    assert pixel_f1_max(masks, maps) == found["pixel_f1_max"]
    assert pixel_f1_max_threshold(masks, maps) == found["pixel_f1_threshold"]
    for limit in LIMITS:
        expected = area_up_to([(fp / n_normal, pro) for _, fp, _, pro in curve], limit)
        assert found[f"aupro_{limit:g}"] == close(expected, abs=1e-12)
        assert aupro(masks, maps, limit) == close(expected, abs=1e-12)


@checked
@given(datasets())
def test_pro_curve(data):
    masks, maps = data
    n_normal = sum(int((~mask).sum()) for mask in masks)
    expected = {t: (fp / n_normal, pro) for t, fp, _, pro in points(masks, maps)}
    fpr, pro, thresholds = pro_curve(masks, maps)
    assert (fpr[0], pro[0], thresholds[0]) == (0, 0, np.inf)
    assert (fpr[-1], pro[-1]) == (1, close(1))
    assert (np.diff(thresholds) < 0).all()
    for x, y, t in zip(fpr[1:], pro[1:], thresholds[1:], strict=True):
        assert (x, y) == close(expected[t], abs=1e-12)
    for limit in LIMITS:  # nothing is lost with the points that are left out
        whole = area_up_to(list(expected.values()), limit)
        assert area_up_to(list(zip(fpr, pro, strict=True)), limit) == close(whole, abs=1e-12)


@checked
@given(datasets(), st.randoms(use_true_random=False))
def test_invariances(data, random):
    masks, maps = data
    expected = close(_without_threshold(masks, maps), abs=1e-12)
    levels = np.unique(np.concatenate([pixels.ravel() for pixels in maps]))
    ranks = [np.searchsorted(levels, pixels) for pixels in maps]
    for transform in (lambda x: x, lambda x: np.exp(x / 20), lambda x: -1.0 / (x + 1)):
        assert _without_threshold(masks, [transform(x) for x in ranks]) == expected
    order = random.sample(range(len(maps)), len(maps))
    assert _without_threshold([masks[i] for i in order], [maps[i] for i in order]) == expected
    flipped = [mask.T[::-1] for mask in masks], [pixels.T[::-1] for pixels in maps]
    assert _without_threshold(*flipped) == expected


def _without_threshold(masks, maps):
    found = pixel_metrics(masks, maps, max_fpr=LIMITS)
    del found["pixel_f1_threshold"]
    return found


@checked
@given(datasets())
def test_against_scikit_learn(data):
    masks, maps = data
    target = np.concatenate([mask.ravel() for mask in masks])
    scores = np.concatenate([pixels.ravel() for pixels in maps])
    assert pixel_auroc(masks, maps) == close(roc_auc_score(target, scores), abs=1e-12)
    expected = average_precision_score(target, scores)
    assert pixel_average_precision(masks, maps) == close(expected, abs=1e-12)


@checked
@given(datasets())
def test_iou(data):
    masks, maps = data
    f1, threshold = pixel_f1_max(masks, maps), pixel_f1_max_threshold(masks, maps)
    assert pixel_iou(masks, maps, threshold) == close(f1 / (2 - f1), abs=1e-12)
    assert pixel_iou(masks, maps, np.inf) == 0
    with pytest.raises(ValueError, match="NaN"):
        pixel_iou(masks, maps, np.nan)
    with pytest.raises(ValueError, match="undefined: no mask"):
        pixel_iou([np.zeros(maps[0].shape, bool)], maps[:1], threshold)


def test_of_equal_f1_the_highest_threshold():
    # One of two found, no false alarm; or both, with two false alarms: 2/3 either way.
    masks, maps = [[[True, False, False, True]]], [[[4.0, 3.0, 2.0, 1.0]]]
    assert pixel_f1_max(masks, maps) == close(2 / 3)
    assert pixel_f1_max_threshold(masks, maps) == 3.5


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_threshold_between_neighbouring_floats(dtype):
    """No number lies between them, and NumPy compares float32 maps in float32."""
    for start in (1.0, 1.5, -3.25, 1e-40):
        low = dtype(start)
        for _ in range(4):
            high = np.nextafter(low, dtype(np.inf))
            maps, masks = [np.array([[high, low]])], [np.array([[True, False]])]
            threshold = pixel_f1_max_threshold(masks, maps)
            assert (maps[0] >= threshold).tolist() == [[True, False]]
            assert pixel_iou(masks, maps, threshold) == 1
            low = high
    # Every pixel is called a defect: there is no score below.
    assert pixel_f1_max_threshold([[[True, True, False]]], [[[1.0, 2.0, 1.0]]]) == 1.0


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    masks, maps = rng.random((3, 8, 9)) < 0.4, rng.integers(0, 9, (3, 8, 9))
    whole = pixel_metrics(masks, maps)
    for module in (_ranking, _streaming):
        monkeypatch.setattr(module, "CHUNK", 3)
    assert pixel_metrics(masks, maps) == close(whole, abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_constant_map_is_worth_half_the_limit(limit):
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2] = True
    assert aupro([mask], np.full((1, 4, 5), 0.7), limit) == close(limit / 2, abs=1e-15)
    assert pixel_auroc([mask], np.full((1, 4, 5), 0.7)) == 0.5


def test_regions_weigh_the_same_and_touch_at_corners():
    mask = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    pixels = np.where(mask, 2.0, 1.0)
    pixels[0, 4] = 0.0  # a region of one pixel is missed: half of all, not a third
    assert aupro([mask], [pixels]) == close(0.5, abs=1e-12)
    assert aupro([mask, mask & False], [pixels, pixels * 0 + 5]) < 0.5  # good images count


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, ">f8"])
def test_any_real_dtype(dtype):
    rng = np.random.default_rng(1)
    maps, masks = rng.integers(0, 2, (2, 5, 6)), rng.random((2, 5, 6)) < 0.4
    assert pixel_metrics(masks, maps.astype(dtype)) == pixel_metrics(masks, maps.astype(float))
    mixed = [maps[0].astype(dtype), maps[1].astype(float)]
    assert pixel_metrics(masks, mixed) == pixel_metrics(masks, maps.astype(float))


def test_input_is_left_alone():
    maps, mask = np.arange(6.0).reshape(1, 2, 3)[:, ::-1], np.eye(2, 3, dtype=bool)
    maps.flags.writeable = mask.flags.writeable = False
    pixel_metrics([mask], maps)


METRICS = [
    *(pixel_metrics, pixel_auroc, pixel_average_precision, pixel_f1_max, pixel_f1_max_threshold),
    *(aupro, pro_curve),
]


def _in_regions(metric, *arguments):
    """A metric of regions as one of masks, each of them one region."""

    def of_masks(masks, maps):
        regions = [mask if mask is None else [mask] for mask in masks]
        return metric(regions, maps, None, *arguments)

    return of_masks


@pytest.mark.parametrize(
    ("metric", "names"),
    [
        *((metric, "masks, maps") for metric in METRICS),
        (lambda masks, maps: pixel_iou(masks, maps, 0.5), "masks, maps"),
        (_in_regions(auspro), "regions, maps"),
        (_in_regions(spro, 0.5), "regions, maps"),
    ],
    ids=[*(metric.__name__ for metric in METRICS), "pixel_iou", "auspro", "spro"],
)
def test_bad_input_is_an_error_that_names_the_image(metric, names):
    good, mask = np.zeros((2, 3)), np.eye(2, 3, dtype=bool)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"maps\[1\] contains NaN or infinity"):
            metric([mask, mask], [good, np.full((2, 3), bad)])
    with pytest.raises(ValueError, match=r"\[1\].* has shape \(3, 2\), but its map has \(2, 3\)"):
        metric([mask, mask.T], [good, good])
    with pytest.raises(ValueError, match=r"s\[1\] is None.*leave the image out"):
        metric([mask, None], [good, good])
    grey = mask * np.array([100, 255, 7], np.uint8)  # as compression or smooth resizing leaves
    with pytest.raises(ValueError, match=r"\[1\].* holds 3 levels \(0, 100, 255\), but a mask has"):
        metric([mask, grey], [good, good])
    with pytest.raises(ValueError, match=r"\[1\].* holds 2 levels \(-1, 1\), but a mask has"):
        metric([mask, np.where(mask, -1, 1)], [good, good])
    with pytest.raises(ValueError, match=r"\[1\].* holds <U5; a mask is bool"):
        metric([mask, mask.astype(str)], [good, good])
    with pytest.raises(ValueError, match="there are 2 maps but"):
        metric([mask], [good, good])
    with pytest.raises(ValueError, match=r"maps\[0\] has shape \(2, 3, 1\)"):
        metric([mask], [good[..., None]])
    with pytest.raises(ValueError, match=r"maps\[0\] holds complex128"):
        metric([mask], [good * 1j])
    with pytest.raises(ValueError, match="undefined: there is no map"):
        metric([], [])
    # Swapped: of masks and of labels.
    for swapped in (mask, mask.astype(int)):
        message = rf"{names.split(',')[0]}\[0\].* holds float64, as a map does.*is \({names}\)"
        with pytest.raises(ValueError, match=message):
            metric([good], [swapped])


def test_masks_of_two_levels():
    rng = np.random.default_rng(0)
    masks, maps = rng.random((3, 4, 5)) < 0.4, rng.standard_normal((3, 4, 5))
    masks[0] = False
    expected = pixel_metrics(masks, maps)
    for dtype, high in ((np.uint8, 255), (np.uint8, 1), (np.int64, 128), (np.uint16, 65535)):
        assert pixel_metrics(masks.astype(dtype) * dtype(high), maps) == expected
    assert pixel_metrics((masks * 255).tolist(), maps) == expected
    histograms = HistogramPixelMetrics(-9, 9), HistogramPixelMetrics(-9, 9)
    for mask, heat_map in zip(masks, maps, strict=True):
        histograms[0].update(mask, heat_map)
        histograms[1].update(mask * 255, heat_map)
    assert histograms[0].compute() == histograms[1].compute()
    with pytest.raises(ValueError, match=r"image 3: the mask holds 3 levels \(0, 3, 255\)"):
        histograms[0].update(np.array([[0, 3, 255]]), np.zeros((1, 3)))
    spread = np.array([[0, 1, 2, 3, 128, 250, 254, 255]])
    with pytest.raises(ValueError, match=r"8 levels \(0, 1, 2, ..., 250, 254, 255\)"):
        pixel_auroc([spread], [spread / 1.0])


@pytest.mark.parametrize("metric", METRICS)
def test_undefined_is_an_error(metric):
    with pytest.raises(ValueError, match="undefined: no mask holds a defect"):
        metric(np.zeros((1, 2, 2), bool), np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="undefined: every pixel lies in a mask"):
        metric(np.ones((1, 2, 2), bool), np.ones((1, 2, 2)))


@pytest.mark.parametrize("limit", [0, -0.1, 1.1, np.nan, True])
def test_bad_limit(limit):
    for metric in (aupro, pixel_metrics, lambda r, m, x: auspro([r], m, None, x)):
        with pytest.raises(ValueError, match="max_fpr must lie in"):
            metric(np.eye(2, dtype=bool)[None], np.eye(2)[None], limit)
    with pytest.raises(ValueError, match="max_fpr must lie in"):
        pixel_metrics(np.eye(2, dtype=bool)[None], np.eye(2)[None], [0.3, limit])


@checked
@given(datasets(), st.sampled_from([0.3, 1.5, 2, 4, 100]))
def test_saturated_overlap(data, area):
    masks, maps = data
    regions = [regions_of(mask) for mask in masks]
    areas = [[area + number for number, _ in enumerate(image)] for image in regions]
    n_normal = sum(int((~mask).sum()) for mask in masks)
    curve = list(points(masks, maps, regions, areas))
    for limit in LIMITS:
        expected = area_up_to([(fp / n_normal, y) for _, fp, _, y in curve], limit)
        assert auspro(regions, maps, areas, limit) == close(expected, abs=1e-12)
        assert auspro(regions, maps, None, limit) == close(aupro(masks, maps, limit), abs=1e-12)
    # What lies above a score strictly is what reaches the next higher one.
    for (_, _, _, higher), (t, _, _, y) in zip(curve[:-1], curve[1:], strict=True):
        assert spro(regions, maps, areas, t) == close(higher, abs=1e-12)
        assert spro(regions, maps, areas, np.nextafter(t, -np.inf)) == close(y, abs=1e-12)
    assert spro(regions, maps, areas, curve[0][0]) == 0


def test_thresholds_are_not_rounded():
    mask, pixels = np.ones((1, 1), bool), np.full((1, 1), 0.1, np.float32)  # 0.10000000149...
    assert spro([[mask]], [pixels], None, threshold=0.1) == 1
    assert pixel_iou([mask], [pixels], threshold=0.1000000014) == 1
    assert pixel_iou([mask], [pixels], threshold=0.1000000016) == 0


def test_overlapping_regions():
    maps = [np.array([[3.0, 2.0, 1.0, 0.0]])]
    regions = [np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], bool)]
    # At threshold 2: two of two and one of two pixels; nothing is a false positive until the last.
    assert spro(regions, maps, None, threshold=1.5) == 0.75
    assert spro(regions, maps, [[2, 1]], threshold=1.5) == 1.0
    assert auspro(regions, maps, None) == 1.0


def test_saturation_errors():
    mask = np.eye(2, 3, dtype=bool)
    for metric in (auspro, lambda *args: spro(*args, threshold=0.5)):
        for areas, message in [
            ([[0]], r"saturation of regions\[0\]\[0\] must be above 0"),
            ([[np.nan]], "must be above 0"),
            ([[1, 2]], r"regions\[0\] has 1 masks, but 2 areas"),
            ([], "saturation of 0 images"),
        ]:
            with pytest.raises(ValueError, match=message):
                metric([[mask]], [mask * 1.0], areas)
        with pytest.raises(ValueError, match="is empty; a good image has no regions"):
            metric([[mask & False]], [mask * 1.0], None)
        with pytest.raises(ValueError, match="undefined: no image has a region"):
            metric([[]], [mask * 1.0], None)
    with pytest.raises(ValueError, match="undefined: every pixel"):
        auspro([[mask | True]], [mask * 1.0], None)
    with pytest.raises(ValueError, match="NaN"):
        spro([[mask]], [mask * 1.0], None, np.nan)


@checked
@given(datasets(values=("ties", "floats")), st.sampled_from([1, 2, 5, 16, 1000, 2**21]))
def test_histogram_is_within_its_bounds(data, n_bins):
    masks, maps = data
    histogram = HistogramPixelMetrics(low=-3, high=3, n_bins=n_bins)
    for mask, pixels in zip(masks, maps, strict=True):
        histogram.update(mask, pixels)
    exact = pixel_metrics(masks, maps, LIMITS)
    found, bounds = histogram.compute(LIMITS), histogram.error_bounds(LIMITS)
    assert found.keys() == bounds.keys()
    assert {name.removeprefix("approximate_") for name in found} | {"pixel_f1_threshold"} == {
        *exact
    }
    for name, value in found.items():
        assert abs(value - exact[name.removeprefix("approximate_")]) <= bounds[name] + 1e-12
    # It is exact for the maps that it has rounded.
    rounded = [histogram._bins(pixels, "") for pixels in maps]
    exact = pixel_metrics(masks, rounded, LIMITS)
    for name, value in found.items():
        assert value == close(exact[name.removeprefix("approximate_")], abs=1e-12)


@pytest.mark.parametrize("low", [-1e5, 0.0, 1000.00001])
@pytest.mark.parametrize("width", [1e-35, 1e-3, 1.0, 1e38])
def test_histogram_of_any_range(low, width):
    """Rounding at the ends of the range leads neither out of the histogram nor to an overflow."""
    rng = np.random.default_rng(0)
    high = max(low + width, float(np.nextafter(np.float32(low), np.float32(np.inf))))
    maps = (low + rng.random((3, 6, 7)) * (high - low)).astype(np.float32)
    low, high = min(low, float(maps.min())), max(high, float(maps.max()))
    masks = rng.random(maps.shape) < 0.3
    histogram = HistogramPixelMetrics(low, high)
    for mask, pixels in zip(masks, maps, strict=True):
        histogram.update(mask, pixels)
    exact, bounds = pixel_metrics(masks, maps), histogram.error_bounds()
    for name, value in histogram.compute().items():
        assert abs(value - exact[name.removeprefix("approximate_")]) <= bounds[name] + 1e-12


def test_histogram_errors():
    mask = np.eye(2, dtype=bool)
    histogram = HistogramPixelMetrics(0, 1, n_bins=4)
    for bad in (-0.1, 1.1, np.nextafter(1.0, 2.0), np.nextafter(np.float32(1), np.float32(2))):
        with pytest.raises(ValueError, match="image 0: the map has values .* outside the range"):
            histogram.update(mask, np.full((2, 2), bad))
    with pytest.raises(ValueError, match="image 0: the map contains NaN"):
        histogram.update(mask, np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="image 0: the mask is None"):
        histogram.update(None, np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"image 0: the mask holds float64.*\(mask, heat_map\)"):
        histogram.update(np.ones((2, 2)), mask)
    with pytest.raises(ValueError, match=r"image 0: the mask has shape \(1, 2\), but its map"):
        histogram.update(mask[:1], np.ones((2, 2)))
    with pytest.raises(ValueError, match="undefined: no mask"):
        histogram.compute()
    assert histogram.n_images_ == 0
    histogram.update(mask | True, np.ones((2, 2)))
    with pytest.raises(ValueError, match="undefined: every pixel"):
        histogram.error_bounds()
    histogram.update(~mask, np.ones((2, 2)))
    assert histogram.compute(0.3)["approximate_aupro_0.3"] == close(0.15)
    assert (histogram.n_images_, histogram.n_regions_) == (2, 2)
    for arguments in [
        (1, 1),
        (0, np.inf),
        (np.nan, 1),
        (0, 1, 0),
        (0, 1, 2.5),
        (0, 1, 2**25),
        (0, 1, True),
    ]:
        with pytest.raises(ValueError, match="low must be less|n_bins must be"):
            HistogramPixelMetrics(*arguments)


def test_everything_public_is_there():
    assert all(hasattr(metrics, name) for name in metrics.__all__)


@pytest.fixture(scope="module")
def anomalib_aupro():
    """anomalib's metric as a function of maps in [0, 1] (it would bend others by a sigmoid)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("anomalib")
        import torch
        from anomalib.metrics.aupro import _AUPRO

    def compute(maps, masks, limit):
        metric = _AUPRO(fpr_limit=limit)
        metric.update(
            torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(masks.astype(np.int64))
        )
        return float(metric.compute())

    return compute


@pytest.mark.filterwarnings("ignore")
def test_against_anomalib(anomalib_aupro):
    rng = np.random.default_rng(0)
    shape = (4, 24, 31)
    blobs = np.zeros(shape, bool)
    blobs[0, 3:9, 4:15] = blobs[1, :4, :5] = blobs[1, 20:, 29:] = blobs[2, 12, 12] = True  # borders
    for step in range(6):
        blobs[2, 15 + step, 3 + step] = True  # in contact at the corners alone
    singles = rng.random(shape) < 0.03
    singles[3] = False  # a good image
    scores = {
        "random": rng.standard_normal(shape),
        "ties": rng.integers(0, 6, shape),
        "constant": np.ones(shape),
        "tails": np.exp(6 * rng.standard_normal(shape)),
    }
    for masks in (blobs, singles):
        for name, maps in scores.items():
            maps = maps + masks * rng.uniform(0, 2, shape).round() * (name != "constant")
            ranks = np.unique(maps, return_inverse=True)[1].reshape(shape)
            ranks = (ranks + 1) / (ranks.max() + 2)
            for limit in (0.05, 0.3):
                expected = anomalib_aupro(ranks, masks, limit)
                assert aupro(masks, maps, limit) == close(expected, abs=1e-6), (name, limit)
