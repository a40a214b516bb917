"""Heat maps in axes: what is clear, what is coloured, what is outlined."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import (
    AnomalyMapDisplay,
    anomaly_maps,
    anomaly_regions,
    color_limits,
    overlay_map,
    region_threshold,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def surfaces():
    return make_surfaces(
        32, 4, surface="tile", defects="missing_piece", image_size=64, random_state=0
    )


@pytest.fixture(scope="module")
def pipe(surfaces):
    embedder = FilterBankPatches(image_size=64)
    return make_pipeline(embedder, PatchGaussianScorer(neighborhood=3)).fit(surfaces.images[:24])


def opacity(image, picture):
    """How far a picture is from its image to the violet of full heat, at most, as a share."""
    violet = overlay_map(np.zeros_like(image), np.ones(image.shape[:2]), (0, 1)).astype(float)
    full = np.abs(0.25 * image + violet - image).sum(axis=-1)
    return np.abs(picture.astype(float) - image).sum(axis=-1) / full


def test_a_good_part_is_clear_and_a_defect_is_not_whatever_else_is_shown(pipe, surfaces):
    good, bad = list(surfaces.images[24:32]), list(surfaces.images[32:])
    alone = [AnomalyMapDisplay.from_estimator(pipe, [image]) for image in good + bad]
    together = AnomalyMapDisplay.from_estimator(pipe, good + bad)
    shown = [display.ax_.get_images()[0].get_array() for display in alone]
    for i, axis in enumerate(together.axes_):
        np.testing.assert_array_equal(axis.get_images()[0].get_array(), shown[i])
    covered = [opacity(x, p) for x, p in zip(good + bad, shown, strict=True)]
    assert np.mean([c.mean() for c in covered[:8]]) < 0.02
    assert np.mean([c.max() for c in covered[:8]]) < 0.6
    masks = [mask.astype(bool) for mask in surfaces.masks[32:]]
    for cover, mask in zip(covered[8:], masks, strict=True):
        assert cover[mask].mean() > 0.8 and cover[mask].mean() > 2 * cover[~mask].mean()


def test_contours_enclose_the_regions(pipe, surfaces):
    images = list(surfaces.images[30:])
    display = AnomalyMapDisplay.from_estimator(pipe, images)
    assert display.contours == [region_threshold(pipe, size=(64, 64))] * len(images)
    regions = anomaly_regions(pipe, images)
    assert any(regions) and not all(regions)
    for axis, of_image in zip(display.axes_, regions, strict=True):
        paths = [path for drawn in axis.collections for path in drawn.get_paths()]
        assert bool(paths) == bool(of_image)
        if of_image:
            points = np.concatenate([path.vertices for path in paths])
            boxes = np.array([region.box for region in of_image])
            lowest, highest = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
            # A contour runs between pixels within a region and those next to it.
            np.testing.assert_allclose(points.min(axis=0), lowest - 0.5, atol=0.5)
            np.testing.assert_allclose(points.max(axis=0), highest - 0.5, atol=0.5)
    # The scale of colours shows where: dashed, in white on black.
    marks = [line.get_ydata()[0] for line in display.figure_.axes[-1].lines]
    low, high = color_limits(pipe)
    assert set(marks) == ({display.contours[0]} if low < display.contours[0] < high else set())


def test_contour_is_a_number_or_none(pipe, surfaces):
    images = list(surfaces.images[32:34])
    heat = anomaly_maps(pipe, images)
    middle = float(heat.mean())
    display = AnomalyMapDisplay.from_estimator(pipe, images, contour=middle)
    assert display.contours == [middle] * 2
    assert all(axis.collections for axis in display.axes_)
    display = AnomalyMapDisplay.from_estimator(pipe, images, contour=None)
    assert display.contours is None
    assert not any(axis.collections for axis in display.axes_)
    for wrong in ("auto", np.nan):
        with pytest.raises(ValueError, match="contour must be 'calibrated', a number or None"):
            AnomalyMapDisplay.from_estimator(pipe, images, contour=wrong)


def test_images_of_different_sizes_have_contours_of_their_own(pipe, surfaces):
    images = [surfaces.images[30], surfaces.images[33][:40], surfaces.images[34][:, :50]]
    display = AnomalyMapDisplay.from_estimator(pipe, images)
    sizes = [(64, 64), (40, 64), (64, 50)]
    assert display.contours == [region_threshold(pipe, size=size) for size in sizes]
    assert [heat.shape for heat in display.maps] == sizes


def test_known_defects_are_outlined(pipe, surfaces):
    images = list(surfaces.images[31:34])
    masks = [None, surfaces.masks[32], surfaces.masks[33]]
    display = AnomalyMapDisplay.from_estimator(pipe, images, masks=masks)
    limits = color_limits(pipe)
    for i, axis in enumerate(display.axes_):
        mask = None if masks[i] is None else masks[i] != 0
        expected = overlay_map(images[i], display.maps[i], limits, mask)
        np.testing.assert_array_equal(axis.get_images()[0].get_array(), expected)
    with pytest.raises(ValueError, match="masks must be one for each image: got 2 for 3"):
        AnomalyMapDisplay.from_estimator(pipe, images, masks=masks[:2])
    with pytest.raises(ValueError, match=r"mask 1 has shape \(3, 3\), but its image has \(64, 64"):
        AnomalyMapDisplay.from_estimator(pipe, images, masks=[None, np.eye(3, dtype=bool), None])


def test_axes_are_given_or_made(pipe, surfaces):
    images = list(surfaces.images[30:33])
    display = AnomalyMapDisplay.from_estimator(pipe, images[:1])
    assert display.axes_.tolist() == [display.ax_] and display.ax_.figure is display.figure_
    figure, axes = plt.subplots(1, 3)
    for given, n in ((axes[0], 1), (axes, 3), (axes[:2].tolist(), 2)):
        display = AnomalyMapDisplay.from_estimator(pipe, images[:n], ax=given)
        assert display.figure_ is figure and display.axes_.tolist() == axes[:n].tolist()
    grid = AnomalyMapDisplay.from_estimator(pipe, images, n_columns=2)
    assert len(grid.figure_.axes) == 3 + 1  # and the scale: the empty place of the grid is gone
    again = grid.plot(n_columns=3, interpolation="nearest")
    assert again is grid and again.figure_.axes[0].get_images()[0].get_interpolation() == "nearest"
    with pytest.raises(ValueError, match="one Axes for each of the 3 images, got 2"):
        AnomalyMapDisplay.from_estimator(pipe, images, ax=axes[:2])
    with pytest.raises(TypeError, match="ax must be the Axes of matplotlib, got int"):
        AnomalyMapDisplay.from_estimator(pipe, images[:1], ax=1)
