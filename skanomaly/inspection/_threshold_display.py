"""Missed defects against false alarms, and what they cost, by threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skanomaly._docstrings import document
from skanomaly._images import check_images
from skanomaly._labels import check_labels
from skanomaly._typing import FloatArray, Images
from skanomaly.inspection._colours import heat_colours
from skanomaly.inspection._drawing import (
    DISPLAY_DOCS,
    SCORE_LABEL,
    axes_for,
    check_matplotlib,
    check_scores,
    check_scores_images,
    scores_of,
)
from skanomaly.inspection._limits import threshold_of
from skanomaly.metrics._costs import cheapest, check_costs, expected_cost_curve

_COST_DOCS = {
    "costs": """
        cost_miss : float, default=1.0
            Cost of an anomalous image that is not flagged, at least 0.
        cost_false_alarm : float, default=1.0
            Cost of a normal image that is flagged, at least 0; not both may be 0.
        prevalence : float or None, default=None
            Share of anomalous images among those that will be inspected, in (0, 1); None: as among
            these images, which is seldom that of a line.
        """,
    "y": """
        y : array-like of shape (n_images,)
            +1 normal, -1 anomalous; both must occur.
        """,
    **DISPLAY_DOCS,
}


@document(DISPLAY_DOCS)
class ThresholdDisplay:
    """Misses, false alarms and expected cost of every threshold.

    Made by :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    levels : ndarray of shape (n_levels,)
        The different scores, ascending: rates change just above each.
    thresholds, cost, miss_rate, false_alarm_rate : ndarray of shape (n_levels + 1,)
        From :func:`skanomaly.metrics.expected_cost_curve`.
    threshold : float or None, default=None
        The present one of the detector.
    name : str or None, default=None
        Of the model, for the title.

    Attributes
    ----------
    best_threshold : float
        The highest of the thresholds with the least cost, as :func:`~skanomaly.tune_threshold`
        takes it.
    %(axes)s
    cost_ax_ : matplotlib Axes
        Of the cost, over the same thresholds; its scale stands at the right.
    miss_line_, false_alarm_line_, cost_line_ : matplotlib Line2D
    best_line_, threshold_line_ : matplotlib Line2D
        Upright, at the best and the present threshold; the latter None where there is none.

    Notes
    -----
    The best threshold knows the labels of these images, and is as sure as they are many: see
    :func:`skanomaly.tune_threshold`.

    Examples
    --------
    >>> from skanomaly.inspection import ThresholdDisplay
    >>> display = ThresholdDisplay.from_predictions(
    ...     [1, 1, -1, -1], [-1.0, -4.0, -3.0, -9.0], cost_miss=10, prevalence=0.1
    ... )  # doctest: +SKIP
    >>> display.best_threshold  # doctest: +SKIP
    -2.0
    """

    ax_: Any
    figure_: Any
    cost_ax_: Any
    miss_line_: Any
    false_alarm_line_: Any
    cost_line_: Any
    best_line_: Any
    threshold_line_: Any

    def __init__(
        self,
        *,
        levels: FloatArray,
        thresholds: FloatArray,
        cost: FloatArray,
        miss_rate: FloatArray,
        false_alarm_rate: FloatArray,
        threshold: float | None = None,
        name: str | None = None,
    ) -> None:
        self.levels = levels
        self.thresholds = thresholds
        self.cost = cost
        self.miss_rate = miss_rate
        self.false_alarm_rate = false_alarm_rate
        self.threshold = threshold
        self.name = name

    @property
    def best_threshold(self) -> float:
        """The highest threshold of the least cost: what :func:`~skanomaly.tune_threshold` takes."""
        return float(self.thresholds[cheapest(self.cost)])

    @classmethod
    @document(_COST_DOCS)
    def from_estimator(
        cls,
        estimator: Any,
        images: Images,
        y: ArrayLike,
        *,
        cost_miss: float = 1.0,
        cost_false_alarm: float = 1.0,
        prevalence: float | None = None,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> ThresholdDisplay:
        """Score images and plot what each threshold would do with them.

        Parameters
        ----------
        %(estimator)s
        %(images)s
        %(y)s
        %(costs)s
        %(name)s
        %(ax)s
        %(line_kwargs)s

        Returns
        -------
        ThresholdDisplay
            The display, drawn.

        Raises
        ------
        TypeError
            When the estimator does not score images.
        ValueError
            As from :meth:`from_predictions`.
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__, ax)
        check_costs(cost_miss, cost_false_alarm, prevalence)
        scorer = check_scores_images(estimator)
        items = check_images(images)
        labels = check_labels(y, "y", len(items))
        return cls.from_predictions(
            labels,
            scores_of(estimator, items),
            threshold=threshold_of(scorer),
            cost_miss=cost_miss,
            cost_false_alarm=cost_false_alarm,
            prevalence=prevalence,
            name=name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    @document(_COST_DOCS)
    def from_predictions(
        cls,
        y: ArrayLike,
        scores: ArrayLike,
        *,
        threshold: float | None = None,
        cost_miss: float = 1.0,
        cost_false_alarm: float = 1.0,
        prevalence: float | None = None,
        name: str | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> ThresholdDisplay:
        """Plot what each threshold would do with images of known scores.

        Parameters
        ----------
        %(y)s
        scores : array-like of shape (n_images,)
            Higher is more normal.
        threshold : float or None, default=None
            The present one of the detector.
        %(costs)s
        %(name)s
        %(ax)s
        %(line_kwargs)s

        Returns
        -------
        ThresholdDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            When `y` holds anything but +1 and -1, or one of them only; when a score is not finite;
            for costs below 0 or a `prevalence` that is no share.
        %(no_matplotlib)s
        """
        check_matplotlib(cls.__name__, ax)
        thresholds, cost, missed, false_alarms = expected_cost_curve(
            y,
            scores,
            cost_miss=cost_miss,
            cost_false_alarm=cost_false_alarm,
            prevalence=prevalence,
        )
        display = cls(
            levels=np.unique(check_scores(scores, "scores")),
            thresholds=thresholds,
            cost=cost,
            miss_rate=missed,
            false_alarm_rate=false_alarms,
            threshold=threshold,
            name=name,
        )
        return display.plot(ax, **kwargs)

    @document(DISPLAY_DOCS)
    def plot(self, ax: Any = None, *, name: str | None = None, **kwargs: Any) -> ThresholdDisplay:
        """Draw both rates, and the cost on a scale of its own.

        Parameters
        ----------
        %(ax)s
        %(name_of_plot)s
        %(line_kwargs)s

        Returns
        -------
        ThresholdDisplay
            This display, with `ax_`, `figure_`, `cost_ax_` and the lines set.
        """
        self.ax_, self.figure_ = axes_for(ax, type(self).__name__)
        self.cost_ax_ = self.ax_.twinx()
        # A threshold at a level does not flag it, one above does: steps after each level, and some
        # room on either side for none flagged and all flagged.
        room = 0.05 * float(np.ptp(self.levels)) or 1.0
        at = np.concatenate([[self.levels[0] - room], self.levels, [self.levels[-1] + room]])

        def steps(ax, values, **options):
            values = np.append(values, values[-1])
            (line,) = ax.plot(at, values, **{"drawstyle": "steps-post", **options, **kwargs})
            return line

        shades = heat_colours(np.array([1.0, 0.3]))[:, :3]
        self.miss_line_ = steps(self.ax_, self.miss_rate, label="misses", color=shades[0])
        self.false_alarm_line_ = steps(
            self.ax_, self.false_alarm_rate, label="false alarms", color=shades[1]
        )
        self.cost_line_ = steps(
            self.cost_ax_, self.cost, label="expected cost", color="black", linestyle=":"
        )
        upright = {"color": "black", "linewidth": 1}
        self.best_line_ = self.ax_.axvline(
            self.best_threshold, label=f"least cost {self.cost.min():.3g}", **upright
        )
        self.threshold_line_ = None
        if self.threshold is not None:
            self.threshold_line_ = self.ax_.axvline(
                self.threshold, label=f"threshold {self.threshold:.3g}", linestyle="--", **upright
            )
        self.ax_.set(
            xlabel=f"threshold of the {SCORE_LABEL}", ylabel="share of the class", ylim=(0, 1.01)
        )
        self.cost_ax_.set(ylabel="expected cost of an image", ylim=(0, None))
        lines = [self.miss_line_, self.false_alarm_line_, self.cost_line_, self.best_line_]
        lines += [] if self.threshold_line_ is None else [self.threshold_line_]
        # On the upper of the two axes, where no line runs over it.
        self.cost_ax_.legend(handles=lines)
        name = self.name if name is None else name
        if name is not None:
            self.ax_.set_title(name)
        return self
