"""The threshold of least expected cost on labelled images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skanomaly._images import check_images
from skanomaly._images.training import training_images
from skanomaly._labels import check_labels
from skanomaly._pipelines import split_pipeline
from skanomaly._typing import Images, Labels
from skanomaly._warn import warn_user
from skanomaly.decisions._rates import errors, interval_of_rate, resample
from skanomaly.decisions._recalibrate import scored_by, takes_images
from skanomaly.decisions._tuned import TunedThreshold
from skanomaly.decisions._tuned_on import listed
from skanomaly.inspection._limits import threshold_of
from skanomaly.inspection._training_images import trained_on
from skanomaly.metrics import expected_cost_curve
from skanomaly.metrics._costs import cheapest, check_costs, expected_cost
from skanomaly.metrics._intervals import check_confidence_level


def tune_threshold(
    estimator: Any,
    images: Images,
    y: Labels,
    *,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
    prevalence: float | None = None,
    confidence_level: float = 0.95,
    random_state: int | RandomState | None = 0,
) -> TunedThreshold:
    """Find the threshold of least expected cost on labelled images.

    Parameters
    ----------
    estimator : Pipeline, scorer or detector
        As for :func:`~skanomaly.recalibrate`. It is left as it is;
        :meth:`~skanomaly.decisions.TunedThreshold.apply` gives a copy with the threshold.
    images : images
        Labelled images, which are neither training images nor those of the test set; patch tokens
        for a scorer by itself.
    y : array-like of shape (n_images,)
        +1 for normal and -1 for anomalous images; there must be some of both.
    cost_miss : float, default=1.0
        Cost of an anomalous image that is not flagged, at least 0.
    cost_false_alarm : float, default=1.0
        Cost of a normal image that is flagged, at least 0. Only the ratio of both matters to the
        threshold.
    prevalence : float or None, default=None
        Share of anomalous images on the line, in (0, 1). None: as among `images`, where it is
        mostly far higher; a warning says so.
    confidence_level : float, default=0.95
        Of each interval, in (0, 1).
    random_state : int, RandomState instance or None, default=0
        Seed of the resamples behind `threshold_interval` and the estimates of images left out.

    Returns
    -------
    TunedThreshold
        The threshold, what it costs, and how little is known of both.

    Raises
    ------
    ValueError
        When no image is normal, or none anomalous; when `y` holds anything but +1 and -1, or a
        number is out of range; or when an anomalous image is one that the model was trained on.

    Warns
    -----
    UserWarning
        Where `prevalence` is not given; where normal images are training images; and where the
        cheapest is to flag no image, or every one.

    Notes
    -----
    The expected cost of an inspected image is ``prevalence * cost_miss * miss_rate + (1 -
    prevalence) * cost_false_alarm * false_alarm_rate``. The threshold lies midway between two
    neighbouring scores. Of several that cost the same it is the highest, which misses fewest. Where
    it is cheapest to flag nothing, it is the lowest score of these images; to flag everything, the
    next number above the highest.

    The rates at the threshold are measured on the images that chose it, and too good. Estimates of
    images left out come from 1000 resamples, drawn with replacement from the normal and from the
    anomalous images: each chooses a threshold, which judges the images that it did not draw (the
    leave-one-out bootstrap [2]_). As a resample holds 63% of the images, these estimates are a
    little pessimistic. The interval of the threshold is that of the resamples' thresholds; those of
    the rates are Clopper and Pearson's [1]_, exact for a threshold that other images chose; the
    interval of the cost joins theirs, each of half the remaining probability. Images of one part
    count as independent ones: give one image of each, or read the intervals as too narrow.

    scikit-learn's `TunedThresholdClassifierCV` fits a classifier to both classes again and again.
    Here no anomalous image enters a model, and nothing is fitted.

    References
    ----------
    .. [1] Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
       the binomial", Biometrika 26(4), 1934.
    .. [2] Efron and Tibshirani, "Improvements on Cross-Validation: The .632+ Bootstrap Method",
       JASA 92, 1997.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skanomaly import FilterBankPatches, PatchKNNScorer, tune_threshold
    >>> from skanomaly.datasets import make_surfaces
    >>> surfaces = make_surfaces(30, 10, image_size=64, random_state=0)
    >>> pipe = make_pipeline(FilterBankPatches(image_size=64), PatchKNNScorer())
    >>> pipe.fit(surfaces.images[:20])
    Pipeline(...)
    >>> tuned = tune_threshold(
    ...     pipe, surfaces.images[20:], surfaces.y[20:], cost_miss=50, prevalence=0.01
    ... )
    >>> tuned.n_missed, tuned.n_anomalous
    (0, 10)
    >>> [round(end, 3) for end in tuned.miss_rate_interval]  # how little ten defects tell
    [0.0, 0.308]
    >>> tuned.apply(pipe)[-1].offset_ == tuned.threshold
    True
    """
    check_costs(cost_miss, cost_false_alarm, prevalence)
    check_confidence_level(confidence_level)
    if y is None:
        raise ValueError("y is None: a threshold of least cost takes labels, +1 and -1")
    split = split_pipeline(estimator)
    of_images = takes_images(split)
    items: Any = check_images(images) if of_images else images
    labels = check_labels(y, "y", len(items))
    n_anomalous = int(np.count_nonzero(labels == -1))
    n_normal = len(labels) - n_anomalous
    if not n_anomalous or not n_normal:
        raise ValueError(
            f"y holds {n_normal} normal (+1) and {n_anomalous} anomalous (-1) images: a threshold "
            "of least cost takes some of both. With normal ones alone, take "
            "recalibrate(estimator, images=images)"
        )
    check_is_fitted(estimator)
    digests = training_images(items).digests if of_images else ()
    _check_not_trained_on(estimator, digests, labels == -1)
    if prevalence is None:
        warn_user(
            "prevalence is not given: the share of anomalous images among these, "
            f"{n_anomalous / len(labels):.2g}, stands in for that of the line, which is mostly "
            "lower, and then calls for a threshold that flags less. Give prevalence"
        )
    share = n_anomalous / len(labels) if prevalence is None else float(prevalence)
    scores = np.asarray(split.scorer.score_samples(scored_by(split, items)), dtype=np.float64)
    costs = {"cost_miss": cost_miss, "cost_false_alarm": cost_false_alarm, "prevalence": share}
    curve = expected_cost_curve(labels, scores, **costs)
    best = cheapest(curve[1])
    _warn_of_extremes(best, len(curve[0]))
    threshold = float(curve[0][best])
    resampled, left_out = resample(labels, scores, costs, check_random_state(random_state))
    low, high = np.quantile(resampled, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])

    def cost(miss_rate: float, false_alarm_rate: float) -> float:
        return float(expected_cost(miss_rate, false_alarm_rate, **costs))

    n_missed, n_false_alarms = errors(labels, scores, threshold)
    # Each of the two rates may be outside of its interval with half the probability.
    joint = (1 + confidence_level) / 2
    misses = interval_of_rate(n_missed, n_anomalous, joint)
    false_alarms = interval_of_rate(n_false_alarms, n_normal, joint)
    present, present_cost = threshold_of(split.scorer), None
    if present is not None:
        missed, flagged = errors(labels, scores, present)
        present_cost = cost(missed / n_anomalous, flagged / n_normal)
    return TunedThreshold(
        threshold=threshold,
        expected_cost=float(curve[1][best]),
        out_of_bag_cost=None if left_out is None else cost(*left_out),
        cost_interval=(cost(misses[0], false_alarms[0]), cost(misses[1], false_alarms[1])),
        threshold_interval=(float(low), float(high)),
        present_threshold=present,
        present_cost=present_cost,
        miss_rate=n_missed / n_anomalous,
        miss_rate_interval=interval_of_rate(n_missed, n_anomalous, confidence_level),
        out_of_bag_miss_rate=None if left_out is None else left_out[0],
        false_alarm_rate=n_false_alarms / n_normal,
        false_alarm_rate_interval=interval_of_rate(n_false_alarms, n_normal, confidence_level),
        out_of_bag_false_alarm_rate=None if left_out is None else left_out[1],
        n_anomalous=n_anomalous,
        n_normal=n_normal,
        n_missed=n_missed,
        n_false_alarms=n_false_alarms,
        cost_miss=float(cost_miss),
        cost_false_alarm=float(cost_false_alarm),
        prevalence=share,
        prevalence_is_of_images=prevalence is None,
        confidence_level=float(confidence_level),
        image_digests=tuple(digest for digest in digests if digest is not None),
        thresholds=curve[0],
        costs=curve[1],
        miss_rates=curve[2],
        false_alarm_rates=curve[3],
    )


def _check_not_trained_on(estimator: Any, digests: Any, anomalous: Any) -> None:
    """Raise where an anomalous image entered the model; warn where a normal one did."""
    known = trained_on(estimator)
    found = [i for i, digest in enumerate(digests) if digest in known]
    if bad := [i for i in found if anomalous[i]]:
        raise ValueError(
            f"{len(bad)} anomalous images ({listed(bad)}) entered the model as good ones: fit it "
            "without them, by -1 in y, and tune the threshold then"
        )
    if found:
        warn_user(
            f"{len(found)} of the images ({listed(found)}) are training images, which count by "
            "their held-out scores: false alarms are better measured on other good images"
        )


def _warn_of_extremes(best: int, n_thresholds: int) -> None:
    if best == 0:
        warn_user(
            "at these costs it is cheapest to flag none of these images: the threshold is their "
            "lowest score"
        )
    elif best == n_thresholds - 1:
        warn_user(
            "at these costs it is cheapest to flag every image: the threshold is above their "
            "highest score"
        )
