"""A patch beside its nearest training patches: the right images, the right places."""

import numpy as np
import pytest
from PIL import Image
from sklearn.pipeline import make_pipeline

from skanomaly import FilterBankPatches, PatchGaussianScorer, PatchKNNScorer, explain
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import NearestPatchDisplay

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
        12, 2, surface="tile", defects="missing_piece", image_size=64, random_state=0
    )


@pytest.fixture
def paths(surfaces, tmp_path):
    out = [tmp_path / f"_{i:02d}$a$.png" for i in range(14)]  # which would be a formula
    for path, image in zip(out, surfaces.images, strict=True):
        Image.fromarray(image).save(path)
    return out


def fitted(images, scorer=None):
    scorer = PatchKNNScorer(metric="euclidean") if scorer is None else scorer
    return make_pipeline(FilterBankPatches(image_size=64), scorer).fit(images)


def frames(axis):
    """Frames as (x, y, width, height) in pixels, without the white below each."""
    return [
        (patch.get_x() + 0.5, patch.get_y() + 0.5, patch.get_width(), patch.get_height())
        for patch in axis.patches[1::2]
    ]


def test_images_and_places(surfaces, paths):
    pipe = fitted(paths[:12])
    display = NearestPatchDisplay.from_estimator(pipe, paths[12], n_neighbors=2)
    told = explain(pipe, paths[12], n_neighbors=2)
    assert display.axes_.shape == (2, 3) and display.ax_ is display.axes_[0, 0]
    assert display.explanation == told
    numbers = [12, *(near.image_number for near in told.neighbors)]
    for number, column in zip(numbers, display.axes_.T, strict=True):
        for axis in column:
            np.testing.assert_array_equal(axis.get_images()[0].get_array(), surfaces.images[number])
    query = [told.box] if told.region is None else [told.box, told.region.box]
    boxes = [query, *([near.box] for near in told.neighbors)]
    for column, expected in zip(display.axes_.T, boxes, strict=True):
        assert frames(column[0]) == expected and frames(column[1]) == expected[:1]
        x, y, width, height = expected[0]
        close = column[1]
        assert close.get_xlim() == (x - 2 * width - 0.5, x + 3 * width - 0.5)
        assert close.get_ylim() == (y + 3 * height - 0.5, y - 2 * height - 0.5)  # downwards
    assert display.ax_.get_title() == f"patch score {told.score:.3g}"
    name = paths[numbers[1]].name.replace("$", r"\$")
    title = f" {name}\ndistance {told.neighbors[0].distance:.3g}"
    assert display.axes_[0, 1].get_title() == title
    display.figure_.canvas.draw()  # no name is taken for a formula


def test_images_that_are_not_at_hand(surfaces, paths):
    pipe = fitted(list(surfaces.images[:12]))
    display = NearestPatchDisplay.from_estimator(pipe, surfaces.images[12], n_neighbors=1)
    (text,) = display.axes_[0, 1].texts
    assert "pass train_images" in text.get_text() and not display.axes_[0, 1].get_images()
    number = display.explanation.neighbors[0].image_number
    assert display.axes_[0, 1].get_title().startswith(f"image {number} of fit\n")
    shown = NearestPatchDisplay.from_estimator(
        pipe, surfaces.images[12], n_neighbors=1, train_images=surfaces.images[:12]
    )
    picture = shown.axes_[0, 1].get_images()[0].get_array()
    np.testing.assert_array_equal(picture, surfaces.images[number])
    several = explain(pipe, surfaces.images[12], n_neighbors=8)
    assert max(near.image_number for near in several.neighbors) > 0
    with pytest.raises(ValueError, match="train_images must be those of fit, in their order"):
        NearestPatchDisplay(explanation=several, train_images=surfaces.images[:1]).plot()
    pipe = fitted(paths[:12])
    for path in paths[:12]:
        path.unlink()
    gone = NearestPatchDisplay.from_estimator(pipe, paths[12], n_neighbors=1)
    assert gone.axes_[0, 1].texts[0].get_text() == "the file is missing"
    gone.figure_.canvas.draw()


def test_axes_and_errors(surfaces):
    images = list(surfaces.images)
    pipe = fitted(images[:12])
    figure, axes = plt.subplots(2, 3)
    display = NearestPatchDisplay.from_estimator(pipe, images[12], n_neighbors=2, ax=axes)
    assert display.figure_ is figure and len(figure.axes) == 6
    with pytest.raises(ValueError, match=r"ax must be Axes of shape \(2, 4\), got \(2, 3\)"):
        NearestPatchDisplay.from_estimator(pipe, images[12], ax=axes)
    with pytest.raises(ValueError, match="n_neighbors must be"):
        NearestPatchDisplay.from_estimator(pipe, images[12], n_neighbors=0)
    gaussian = fitted(images[:12], PatchGaussianScorer())
    with pytest.raises(TypeError, match="explained by components, not by patches"):
        NearestPatchDisplay.from_estimator(gaussian, images[12])
