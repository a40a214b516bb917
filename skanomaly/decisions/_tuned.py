"""A threshold of least expected cost, and how little is known of it."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any, TypeVar

from skanomaly._typing import FloatArray
from skanomaly.decisions._recalibrate import with_threshold

Interval = tuple[float, float]

_Estimator = TypeVar("_Estimator")
_LEFT_OUT = "  of those left out of the choice"


@dataclass(frozen=True, repr=False, eq=False)
class TunedThreshold:
    """What :func:`~skanomaly.tune_threshold` found.

    Parameters
    ----------
    threshold : float
        Images that score lower are to be called anomalous.
    expected_cost : float
        Of an inspected image, at `threshold`, as measured on the images that chose it: too good.
    out_of_bag_cost : float or None
        The same for images that had no part in the choice: an honest estimate, a little
        pessimistic. None with one image of a class, which cannot be left out.
    cost_interval : tuple of float
        Of the expected cost at `threshold`, from both rates' intervals.
    threshold_interval : tuple of float
        Where thresholds lie that were tuned on as many images like these.
    present_threshold, present_cost : float or None
        `offset_` of the detector as it was given, and the expected cost with it; None without one.
    miss_rate, false_alarm_rate : float
        Share of the anomalous images that is not flagged, and of the normal ones that is.
    miss_rate_interval, false_alarm_rate_interval : tuple of float
        Exact (Clopper-Pearson) binomial intervals.
    out_of_bag_miss_rate, out_of_bag_false_alarm_rate : float or None
        Both rates of images that had no part in the choice.
    n_anomalous, n_normal, n_missed, n_false_alarms : int
        Labelled images, and errors among them.
    cost_miss, cost_false_alarm, prevalence : float
        What was paid, and for which share of anomalous images.
    prevalence_is_of_images : bool
        Whether that share is the one among the labelled images, because none was given.
    confidence_level : float
        Of each interval.
    image_digests : tuple of str
        What was in the files of the images; empty where patch tokens were given.
    thresholds, costs, miss_rates, false_alarm_rates : ndarray of shape (n_thresholds,)
        The curves, as from :func:`skanomaly.metrics.expected_cost_curve`.

    Examples
    --------
    >>> from skanomaly import create_model, tune_threshold
    >>> from skanomaly.datasets import make_surfaces
    >>> made = make_surfaces(20, 6, image_size=64, random_state=0)
    >>> detector = create_model("filterbank", image_size=64).fit(made.images[:10])
    >>> costs = {"cost_miss": 100, "cost_false_alarm": 1, "prevalence": 0.01}
    >>> found = tune_threshold(detector, made.images[10:], made.y[10:], **costs)
    >>> found.n_normal, found.n_anomalous, found.apply(detector)[-1].offset_ == found.threshold
    (10, 6, True)
    """

    threshold: float
    expected_cost: float
    out_of_bag_cost: float | None
    cost_interval: Interval
    threshold_interval: Interval
    present_threshold: float | None
    present_cost: float | None
    miss_rate: float
    false_alarm_rate: float
    miss_rate_interval: Interval
    false_alarm_rate_interval: Interval
    out_of_bag_miss_rate: float | None
    out_of_bag_false_alarm_rate: float | None
    n_anomalous: int
    n_normal: int
    n_missed: int
    n_false_alarms: int
    cost_miss: float
    cost_false_alarm: float
    prevalence: float
    prevalence_is_of_images: bool
    confidence_level: float
    image_digests: tuple[str, ...] = field(metadata={"bulky": True})
    thresholds: FloatArray = field(metadata={"bulky": True})
    costs: FloatArray = field(metadata={"bulky": True})
    miss_rates: FloatArray = field(metadata={"bulky": True})
    false_alarm_rates: FloatArray = field(metadata={"bulky": True})

    def apply(self, estimator: _Estimator) -> _Estimator:
        """A copy of a detector with this threshold.

        Parameters
        ----------
        estimator : Pipeline, scorer or detector
            The one that it was tuned for; it is left as it is.

        Returns
        -------
        estimator
            As from ``recalibrate(estimator, threshold=threshold)``. `calibration_` of its scorer
            keeps costs, rates and the digests of the images, by which :func:`warn_if_tuned_on`
            knows them.
        """
        kept = ("n_anomalous", "n_normal", "cost_miss", "cost_false_alarm", "prevalence")
        rates = ("expected_cost", "out_of_bag_cost", "miss_rate", "false_alarm_rate")
        origin = {name: getattr(self, name) for name in (*kept, *rates)}
        return with_threshold(
            estimator, self.threshold, "cost", images=self.image_digests, **origin
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the curves and digests, ready for JSON.

        Returns
        -------
        dict of str to object
            Numbers by name; intervals are lists of two.
        """
        fields = self.__dataclass_fields__
        values = {n: getattr(self, n) for n, f in fields.items() if not f.metadata.get("bulky")}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    def rows(self) -> list[tuple[str, str]]:
        """What was found, as text for a table.

        Returns
        -------
        list of tuple of str
            Pairs of a quantity and its value.
        """
        level = f"{100 * self.confidence_level:.10g}% interval"
        low, high = self.threshold_interval
        out = [("threshold", f"{self.threshold:.6g} ({level} {low:.6g} to {high:.6g})")]
        if self.present_threshold is not None:
            now = f"{self.present_threshold:.6g}, expected cost {self.present_cost:.4g}"
            out.append(("threshold before", now))
        low, high = self.cost_interval
        cost = f"{self.expected_cost:.4g} ({level} {low:.4g} to {high:.4g})"
        out += [
            ("expected cost of an image", cost),
            (_LEFT_OUT, _text(self.out_of_bag_cost, ".4g")),
        ]
        low, high = self.miss_rate_interval
        missed = f"{self.n_missed} of {self.n_anomalous}: {self.miss_rate:.1%}"
        out += [
            ("anomalous images missed", f"{missed} ({level} {low:.1%} to {high:.1%})"),
            (_LEFT_OUT, _text(self.out_of_bag_miss_rate, ".1%")),
        ]
        low, high = self.false_alarm_rate_interval
        flagged = f"{self.n_false_alarms} of {self.n_normal}: {self.false_alarm_rate:.1%}"
        out += [
            ("normal images flagged", f"{flagged} ({level} {low:.1%} to {high:.1%})"),
            (_LEFT_OUT, _text(self.out_of_bag_false_alarm_rate, ".1%")),
        ]
        share = " (as among these images)" if self.prevalence_is_of_images else ""
        costs = f"{self.cost_miss:g} / {self.cost_false_alarm:g}"
        return [
            *out,
            ("share of anomalous images", f"{self.prevalence:.4g}{share}"),
            ("cost of a miss / of a false alarm", costs),
        ]

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        lines = [f"  {name:<{width}}  {value}" for name, value in self.rows()]
        return "\n".join(["TunedThreshold", *lines])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
            for name, value in self.rows()
        )
        return f"<table><caption>Tuned threshold</caption>{cells}</table>"


def _text(value: float | None, form: str) -> str:
    return "not known of a single image" if value is None else format(value, form)
