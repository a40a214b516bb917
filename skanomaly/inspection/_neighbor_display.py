"""The most anomalous patch of an image beside the training patches that are nearest to it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skanomaly._docstrings import document
from skanomaly._images import check_images, viewable_image
from skanomaly._optional import import_optional
from skanomaly._parameters import check_integer
from skanomaly._typing import ImageLike, Images
from skanomaly.inspection._colours import heat_colours
from skanomaly.inspection._drawing import DISPLAY_DOCS, as_text, check_matplotlib
from skanomaly.inspection._explain import explain
from skanomaly.inspection._explanation import Explanation, NearestPatch, patch_box

_AROUND = 2.0  # a close-up shows so many patches on each side of the one in the middle
_DOCS = {
    "train_images": """
        train_images : list, tuple, 1-D array or Series of images, 4-D uint8 array, or None
            The images that were given to `fit`, in their order. None: those at the paths that
            `fit` was given, as long as the files have not changed.
        """,
    "axes_grid": """
        ax : array of matplotlib Axes of shape (2, 1 + n_neighbors), or None, default=None
            None: those of a new figure.
        """,
    "imshow_kwargs": """
        **kwargs : object
            For `imshow` of the axes, such as ``interpolation="nearest"``.
        """,
    **DISPLAY_DOCS,
}


@document(_DOCS)
class NearestPatchDisplay:
    """A patch of an image, and the patches of the training images that are most like it.

    Made by :meth:`from_estimator`, or from an explanation. Above stand the images, the query first,
    with the patch in a frame; below close-ups of the patches.

    Parameters
    ----------
    explanation : Explanation
        Of a scorer that compares with training patches, from :func:`skanomaly.explain`.
    %(train_images)s

    Attributes
    ----------
    %(axes)s
        `ax_` is the first of `axes_`, with the query.
    axes_ : ndarray of matplotlib Axes of shape (2, 1 + n_neighbors)

    Examples
    --------
    >>> from skanomaly.inspection import NearestPatchDisplay
    >>> display = NearestPatchDisplay.from_estimator(pipe, "part.png")  # doctest: +SKIP
    >>> display.figure_.savefig("nearest.png")  # doctest: +SKIP
    """

    ax_: Any
    figure_: Any
    axes_: NDArray[Any]

    def __init__(self, *, explanation: Explanation, train_images: Images | None = None) -> None:
        self.explanation = explanation
        self.train_images = train_images

    @classmethod
    @document(_DOCS)
    def from_estimator(
        cls,
        estimator: Any,
        image: ImageLike,
        *,
        n_neighbors: int = 3,
        train_images: Images | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> NearestPatchDisplay:
        """Explain an image and plot what its worst patch is compared to.

        Parameters
        ----------
        estimator : Pipeline
            Fitted: an embedder and :class:`skanomaly.PatchKNNScorer`, or a union that has one.
        image : image
            Path, bytes, PIL image or array.
        n_neighbors : int, default=3
            How many training patches are shown.
        %(train_images)s
        %(axes_grid)s
        %(imshow_kwargs)s

        Returns
        -------
        NearestPatchDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            When the scorer does not explain its scores, or not by patches of the training images.
        ValueError
            When `n_neighbors` is no integer of at least 1, `ax` is of another shape, or
            `train_images` are too few to be those of `fit`.
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__)
        check_integer(n_neighbors, "n_neighbors", 1)
        explanation = explain(estimator, image, n_neighbors=n_neighbors)
        return cls(explanation=explanation, train_images=train_images).plot(ax, **kwargs)

    @document(_DOCS)
    def plot(self, ax: Any = None, **kwargs: Any) -> NearestPatchDisplay:
        """Draw the images and the close-ups.

        Parameters
        ----------
        %(axes_grid)s
        %(imshow_kwargs)s

        Returns
        -------
        NearestPatchDisplay
            This display, with `figure_`, `axes_` and `ax_` set.
        """
        told = self.explanation
        if not told.neighbors:
            raise TypeError(
                f"this score is explained by {told.kind}, not by patches of the training images: "
                "print(explain(estimator, image)) says it in words"
            )
        items = None if self.train_images is None else check_images(self.train_images)
        shown = [_image_of(near, items) for near in told.neighbors]
        self.axes_ = self._axes(ax, 1 + len(shown))
        self.ax_ = self.axes_[0, 0]
        self.figure_ = self.ax_.get_figure()
        self._draw(0, viewable_image(told.image), told.box, f"patch score {told.score:.3g}", kwargs)
        if told.region is not None:
            self._frame(self.ax_, told.region.box, linestyle="--")
        for k, (near, (image, problem)) in enumerate(zip(told.neighbors, shown, strict=True), 1):
            where = f"image {near.image_number} of fit" if near.path is None else near.path
            title = f"{as_text(os.path.basename(where))}\ndistance {near.distance:.3g}"
            if image is None:
                for axis in self.axes_[:, k]:
                    axis.set_axis_off()
                above = self.axes_[0, k]
                above.set_title(title)
                middle = {"ha": "center", "va": "center", "transform": above.transAxes}
                above.text(0.5, 0.5, problem, wrap=True, **middle)
            else:
                box = patch_box(near.row, near.column, near.grid, image.shape[:2])
                self._draw(k, image, box, title, kwargs)
        return self

    def _axes(self, ax, n_columns):
        if ax is None:
            pyplot = import_optional("matplotlib.pyplot", "plot", type(self).__name__)
            _, axes = pyplot.subplots(
                2,
                n_columns,
                figsize=(2.6 * n_columns, 5.6),
                squeeze=False,
                layout="constrained",
            )
            return axes
        axes = np.asarray(ax, dtype=object)
        if axes.shape != (2, n_columns):
            raise ValueError(f"ax must be Axes of shape (2, {n_columns}), got {axes.shape}")
        for each in axes.flat:
            check_matplotlib(type(self).__name__, each)
        return axes

    def _draw(self, column, image, box, title, kwargs):
        """An image with the patch in a frame, and below it the patch and what is around it."""
        x, y, width, height = box
        for axis in self.axes_[:, column]:
            axis.set_axis_off()
            axis.imshow(image, **kwargs)
            self._frame(axis, box)
        above, below = self.axes_[:, column]
        above.set_title(title)
        below.set_xlim(x - _AROUND * width - 0.5, x + (1 + _AROUND) * width - 0.5)
        below.set_ylim(y + (1 + _AROUND) * height - 0.5, y - _AROUND * height - 0.5)

    def _frame(self, axis, box, **options):
        """A frame in violet on white, which is seen over anything."""
        patches = import_optional("matplotlib.patches", "plot", type(self).__name__)
        x, y, width, height = box
        for colour, line in (("white", 3), (heat_colours(np.array(1.0))[:3], 1.5)):
            style = {"linewidth": line, **(options if line < 3 else {})}
            axis.add_patch(
                patches.Rectangle(
                    (x - 0.5, y - 0.5), width, height, fill=False, edgecolor=colour, **style
                )
            )


def _image_of(near: NearestPatch, items: list[Any] | None) -> tuple[Any, str]:
    """Pixels of a training image; or None, and why."""
    if items is not None:
        if near.image_number >= len(items):
            raise ValueError(
                f"train_images must be those of fit, in their order: got {len(items)}, but a "
                f"nearest patch is in image {near.image_number}"
            )
        return viewable_image(items[near.image_number], near.image_number), ""
    if near.path is None:
        return None, "not given as a path:\npass train_images"
    if near.problem is not None:
        return None, near.problem
    return viewable_image(near.path), ""
