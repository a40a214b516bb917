"""Histograms of image scores, by what the images are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skanomaly._docstrings import document
from skanomaly._images import check_images
from skanomaly._labels import GOOD_WORDS, check_labels
from skanomaly._parameters import check_integer
from skanomaly._typing import FloatArray, Images
from skanomaly.inspection._colours import heat_colours
from skanomaly.inspection._drawing import (
    DISPLAY_DOCS,
    SCORE_LABEL,
    as_text,
    axes_for,
    check_matplotlib,
    check_scores,
    check_scores_images,
    scores_of,
)
from skanomaly.inspection._limits import threshold_of

_GREY = (0.62, 0.62, 0.62)
_UNKNOWN = "images"
_NO_DEFECT = (*GOOD_WORDS, _UNKNOWN)


@document(DISPLAY_DOCS)
class ScoreHistogramDisplay:
    """Histogram of image scores: good images, each type of defect, and what was calibrated on.

    Made by :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    scores : ndarray of shape (n_images,)
        `score_samples`: higher is more normal.
    classes : ndarray of shape (n_images,), str
        What each image is, such as "good" or a type of defect.
    threshold : float or None, default=None
        Images that score lower are called anomalous.
    train_scores : ndarray of shape (n_train,) or None, default=None
        Held-out scores of the training images.
    name : str or None, default=None
        Of the model, for the title.

    Attributes
    ----------
    %(axes)s
    bars_ : dict of str to matplotlib container
        The bars of each class, stacked upon each other.
    threshold_line_ : matplotlib Line2D or None

    Examples
    --------
    >>> from skanomaly.inspection import ScoreHistogramDisplay
    >>> display = ScoreHistogramDisplay.from_estimator(pipe, images, y)  # doctest: +SKIP
    >>> display.figure_.savefig("scores.png")  # doctest: +SKIP
    """

    ax_: Any
    figure_: Any
    bars_: dict[str, Any]
    threshold_line_: Any

    def __init__(
        self,
        *,
        scores: FloatArray,
        classes: Any,
        threshold: float | None = None,
        train_scores: FloatArray | None = None,
        name: str | None = None,
    ) -> None:
        self.scores = scores
        self.classes = classes
        self.threshold = threshold
        self.train_scores = train_scores
        self.name = name

    @classmethod
    @document(DISPLAY_DOCS)
    def from_estimator(
        cls,
        estimator: Any,
        images: Images,
        y: ArrayLike | None = None,
        *,
        defect_types: Sequence[str] | None = None,
        bins: int = 30,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> ScoreHistogramDisplay:
        """Score images and plot the histogram, with the detector's threshold.

        Parameters
        ----------
        %(estimator)s
        %(images)s
        y : array-like of shape (n_images,) or None, default=None
            +1 normal, -1 anomalous; None: not known.
        defect_types : sequence of str or None, default=None
            What each image is, such as "good" and "scratch".
        bins : int, default=30
            Number of bars from the lowest to the highest score.
        name : str or None, default=None
            Of the model, for the title.
        %(ax)s
        **kwargs : object
            For `hist` of the axes.

        Returns
        -------
        ScoreHistogramDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            When the estimator does not score images.
        ValueError
            When `y` holds anything but +1 and -1, or lengths differ.
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__, ax)
        check_integer(bins, "bins", 1)
        scorer = check_scores_images(estimator)
        items = check_images(images)
        _classes(len(items), y, defect_types)
        return cls.from_predictions(
            y,
            scores_of(estimator, items),
            defect_types=defect_types,
            threshold=threshold_of(scorer),
            train_scores=getattr(scorer, "train_scores_", None),
            bins=bins,
            name=name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    @document(DISPLAY_DOCS)
    def from_predictions(
        cls,
        y: ArrayLike | None,
        scores: ArrayLike,
        *,
        defect_types: Sequence[str] | None = None,
        threshold: float | None = None,
        train_scores: ArrayLike | None = None,
        bins: int = 30,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> ScoreHistogramDisplay:
        """Plot the histogram of scores.

        Parameters
        ----------
        y : array-like of shape (n_images,) or None
            +1 normal, -1 anomalous; None: not known.
        scores : array-like of shape (n_images,)
            Higher is more normal.
        defect_types : sequence of str or None, default=None
            What each image is, such as "good" and "scratch".
        threshold : float or None, default=None
            Images that score lower are called anomalous.
        train_scores : array-like of shape (n_train,) or None, default=None
            Held-out scores of the training images.
        bins : int, default=30
            Number of bars from the lowest to the highest score.
        name : str or None, default=None
            Of the model, for the title.
        %(ax)s
        **kwargs : object
            For `hist` of the axes.

        Returns
        -------
        ScoreHistogramDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            When `y` holds anything but +1 and -1, lengths differ, or a score is not finite.
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__, ax)
        values = check_scores(scores, "scores")
        if train_scores is not None:
            train_scores = check_scores(train_scores, "train_scores")
        display = cls(
            scores=values,
            classes=_classes(len(values), y, defect_types),
            threshold=threshold,
            train_scores=train_scores,
            name=name,
        )
        return display.plot(ax, bins=bins, **kwargs)

    @document(DISPLAY_DOCS)
    def plot(
        self, ax: Any = None, *, name: str | None = None, bins: int = 30, **kwargs: Any
    ) -> ScoreHistogramDisplay:
        """Draw the histogram.

        Parameters
        ----------
        %(ax)s
        name : str or None, default=None
            Of the model, for the title; None: `name` of the display.
        bins : int, default=30
            Number of bars from the lowest to the highest score.
        **kwargs : object
            For `hist` of the axes.

        Returns
        -------
        ScoreHistogramDisplay
            This display, with `ax_`, `figure_`, `bars_` and `threshold_line_` set.
        """
        check_integer(bins, "bins", 1)
        self.ax_, self.figure_ = axes_for(ax, type(self).__name__)
        train = np.empty(0) if self.train_scores is None else self.train_scores
        edges = np.histogram_bin_edges(np.concatenate([self.scores, train]), bins)
        # Good images first, at the bottom; then defects, from light to dark.
        names = sorted(set(self.classes), key=lambda kind: (kind not in _NO_DEFECT, kind))
        n_types = sum(kind not in _NO_DEFECT for kind in names)
        shades = list(heat_colours(np.linspace(1, 0.25, max(n_types, 1)))[:, :3])
        colours = [_GREY if kind in _NO_DEFECT else shades.pop() for kind in names]
        groups = [self.scores[self.classes == kind] for kind in names]
        options = {
            "label": [
                f"{as_text(kind)} ({len(group)})" for kind, group in zip(names, groups, strict=True)
            ],
            "color": colours,
            "edgecolor": "white",
            "linewidth": 0.5,
            "stacked": True,
        }
        _, _, bars = self.ax_.hist(groups, edges, **{**options, **kwargs})
        self.bars_ = dict(zip(names, [bars] if len(names) == 1 else bars, strict=True))
        if train.size:
            self.ax_.hist(
                train,
                edges,
                histtype="step",
                color="black",
                label=f"training, held out ({len(train)})",
            )
        self.threshold_line_ = None
        if self.threshold is not None:
            label = f"threshold {self.threshold:.3g}"
            self.threshold_line_ = self.ax_.axvline(
                self.threshold, color="black", linestyle="--", label=label
            )
        self.ax_.set(xlabel=SCORE_LABEL, ylabel="images")
        name = self.name if name is None else name
        if name is not None:
            self.ax_.set_title(name)
        self.ax_.legend()
        return self


def _classes(n_images, y, defect_types):
    """What each image is: its type; "good" or "anomalous"; or, where nothing is known, "images"."""
    labels = None if y is None else check_labels(y, "y", n_images)
    if defect_types is None:
        words = np.array(["good", "anomalous"])
        return np.full(n_images, _UNKNOWN) if labels is None else words[(labels < 0).astype(int)]
    kinds = np.array([str(kind) for kind in defect_types])
    if len(kinds) != n_images:
        raise ValueError(
            f"defect_types must be one for each of the {n_images} images, got {len(kinds)}"
        )
    for i, kind in enumerate(kinds):
        if labels is not None and (labels[i] > 0) != (kind in GOOD_WORDS):
            raise ValueError(f"image {i} is {labels[i]:+d} in y, but {str(kind)!r} in defect_types")
    return kinds
