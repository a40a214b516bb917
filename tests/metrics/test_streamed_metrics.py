"""Pixel metrics of maps that are made when they are asked for, and the counting behind them."""

import tracemalloc
import weakref
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.metrics import (
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
from skanomaly.metrics._ranking import curve_of, measure, rank_pixels
from skanomaly.metrics._streaming import DefectScores, count_among

seeds = st.integers(0, 2**32 - 1)


class Made(Sequence):
    """Copies of items, made when they are asked for; it counts how often, and how many live."""

    def __init__(self, items):
        self.items, self.asked, self.alive, self.most_alive = items, Counter(), [], 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        item = self.items[i].copy()
        self.asked[i] += 1
        self.alive = [ref for ref in self.alive if ref() is not None] + [weakref.ref(item)]
        self.most_alive = max(self.most_alive, len(self.alive))
        return item


def made_data(seed, n_images=6, ties=True):
    """Images of their own sizes, with blobs in every other one."""
    rng = np.random.default_rng(seed)
    masks, maps = [], []
    for i in range(n_images):
        size = tuple(rng.integers(3, 12, 2))
        pixels = rng.integers(-4, 5, size) if ties else rng.standard_normal(size)
        maps.append(pixels.astype(np.float32))
        masks.append((rng.random(size) < 0.3) & (i % 2 == 1))
        masks[-1][0, 0] = i % 2
        masks[-1][-1, -1] = False
    return masks, maps


METRICS = {
    "pixel_metrics": pixel_metrics,
    "pixel_auroc": pixel_auroc,
    "pixel_average_precision": pixel_average_precision,
    "pixel_f1_max": pixel_f1_max,
    "pixel_f1_max_threshold": pixel_f1_max_threshold,
    "aupro": aupro,
    "pro_curve": pro_curve,
    "pixel_iou": lambda masks, maps: pixel_iou(masks, maps, 0.5),
}


@pytest.mark.parametrize("name", METRICS)
def test_maps_that_are_made_when_asked_for(name):
    masks, maps = made_data(0)
    lazy_masks, lazy_maps = Made(masks), Made(maps)
    found = METRICS[name](lazy_masks, lazy_maps)
    expected = METRICS[name](masks, maps)
    assert np.array_equal(found, expected) if name == "pro_curve" else found == expected
    assert lazy_maps.most_alive <= 2  # one, and the next while it takes its place
    # One more of the first, for its dtype.
    most = {i: 1 + mask.any() + (i == 0) for i, mask in enumerate(masks)}
    assert all(lazy_maps.asked[i] <= most[i] for i in most)
    if name != "pixel_iou":  # as their notes say
        assert lazy_maps.asked == most
        assert lazy_masks.asked == {i: 2 + (i == 0) for i in most}


def test_regions_that_are_made_when_asked_for():
    masks, maps = made_data(1)
    regions = [mask[None] if mask.any() else np.zeros((0, *mask.shape), bool) for mask in masks]
    areas = [[4.0] * len(image) for image in regions]
    lazy_regions, lazy_maps = Made(regions), Made(maps)
    assert auspro(lazy_regions, lazy_maps, areas) == auspro(regions, maps, areas)
    assert spro(lazy_regions, lazy_maps, areas, 0.5) == spro(regions, maps, areas, 0.5)
    assert lazy_maps.most_alive <= 2


def test_generators_are_taken():
    masks, maps = made_data(2)
    assert pixel_metrics(iter(masks), (m for m in maps)) == pixel_metrics(masks, maps)


def test_made_maps_of_several_dtypes_are_refused():
    masks, maps = made_data(3)
    maps[3] = maps[3].astype(np.float64)
    with pytest.raises(ValueError, match=r"maps\[3\] holds float64, but maps\[0\] float32"):
        pixel_auroc(masks, Made(maps))
    maps[0] = maps[0].astype(np.float64)  # that holds all others
    assert pixel_metrics(masks, Made(maps)) == pixel_metrics(masks, maps)


def test_memory_is_that_of_the_defects_alone(monkeypatch):
    """What there is of normal pixels does not count: 40 maps of 1 MiB each."""
    monkeypatch.setattr(_streaming, "_BLOCK", 2**18)
    mask = np.zeros((512, 512), bool)
    mask[200:230, 100:180] = True

    class Maps(Made):
        def __getitem__(self, i):
            return np.random.default_rng(i).random((512, 512), dtype=np.float32)

    masks, maps = [mask, mask & False] * 20, Maps(range(40))
    tracemalloc.start()
    try:
        pixel_metrics(masks, maps)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 2**20


@pytest.mark.parametrize("name", ["_BLOCK", "_PENDING", "CHUNK"])
@pytest.mark.parametrize("ties", [False, True])
def test_blocks_change_nothing(name, ties, monkeypatch):
    masks, maps = made_data(4, 9, ties)
    whole, curve = pixel_metrics(masks, maps), pro_curve(masks, maps)
    areas = [[3.0] if mask.any() else [] for mask in masks]
    regions = [[mask] if mask.any() else [] for mask in masks]
    saturated = auspro(regions, maps, areas)
    for size in (1, 2, 7, 50):
        monkeypatch.setattr(_streaming, name, size)
        assert pixel_metrics(masks, maps) == pytest.approx(whole, abs=1e-12)
        np.testing.assert_allclose(pro_curve(masks, maps), curve, atol=1e-12)
        assert auspro(regions, maps, areas) == pytest.approx(saturated, abs=1e-12)


@settings(deadline=None)
@given(seeds, st.integers(1, 40), st.integers(1, 5), st.sampled_from(["ties", "floats"]))
def test_counts_against_loops(seed, n_scores, n_images, kind):
    rng = np.random.default_rng(seed)

    def draw(n):
        numbers = rng.integers(-5, 6, n) if kind == "ties" else rng.standard_normal(n)
        return numbers.astype(np.float32)

    values = np.unique(draw(n_scores))
    images = [draw((3, 4)) for _ in range(n_images)]
    normal = [float(pixel) for image in images for pixel in image.ravel()]
    found = count_among(iter(images), values, neighbours=True)
    assert found.n_pixels == len(normal) and found.lowest == min(normal)
    for i, value in enumerate(map(float, values)):
        assert found.above[i] == sum(pixel > value for pixel in normal)
        assert found.at_least[i] == sum(pixel >= value for pixel in normal)
        assert found.next_below[i] == max((p for p in normal if p < value), default=-np.inf)
        assert found.next_above[i] == min((p for p in normal if p > value), default=np.inf)


@settings(deadline=None)
@given(seeds, st.integers(1, 6), st.booleans())
def test_gathered_scores_against_loops(seed, n_images, weighted):
    rng = np.random.default_rng(seed)
    scores, expected, sums = DefectScores(np.dtype(np.float32), weighted), Counter(), Counter()
    for _ in range(n_images):
        values = rng.integers(0, 7, rng.integers(1, 9)).astype(np.float32)
        weights = rng.random(values.size) if weighted else np.empty(0)
        scores.add(values, weights)
        if rng.random() < 0.5:
            scores.settle()
        expected.update(values.tolist())
        for value, weight in zip(values.tolist(), weights, strict=False):
            sums[value] += weight
    scores.settle()
    assert scores.values.tolist() == sorted(expected)
    assert scores.counts.tolist() == [expected[value] for value in sorted(expected)]
    if weighted:
        assert scores.weights == pytest.approx([sums[value] for value in sorted(expected)])


@pytest.mark.parametrize("ties", [False, True])
def test_a_curve_of_few_points(ties):
    masks, maps = made_data(5, 60, ties)
    ranked = rank_pixels(masks, maps, neighbours=True)
    whole, few = curve_of(ranked), curve_of(ranked, 50)
    points = set(zip(*whole, strict=True))
    assert len(few[0]) <= 50 and set(zip(*few, strict=True)) <= points
    assert [axis[[0, -1]].tolist() for axis in few] == [axis[[0, -1]].tolist() for axis in whole]
    at = np.linspace(0, 1, 500)
    gap = np.abs(np.interp(at, *few[:2]) - np.interp(at, *whole[:2])).max()
    assert gap < 0.1
    without = curve_of(rank_pixels(masks, maps), 50)
    assert without[2] is None and np.array_equal(without[:2], few[:2])


def test_the_area_is_that_of_the_curve():
    masks, maps = made_data(6, 20, ties=False)
    ranked = rank_pixels(masks, maps)
    fpr, pro, _ = curve_of(ranked)
    for limit in (0.05, 0.3, 1.0):
        x = np.append(fpr[fpr < limit], limit)
        y = np.append(pro[fpr < limit], np.interp(limit, fpr, pro))
        area = ((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() / limit
        assert measure(ranked, [limit]).aupro[0] == pytest.approx(area, abs=1e-12)
