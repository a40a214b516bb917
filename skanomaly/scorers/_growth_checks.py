"""What keeps models from being changed or merged after `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skanomaly._origins import differences
from skanomaly._parameters import NO_MATTER, equal_params


class UnknownImageError(ValueError):
    """An image that is to be forgotten is none that the model was fitted to."""

    def __init__(self, images: Sequence[int]) -> None:
        self.images = list(images)
        listed = ", ".join(map(str, self.images[:20]))
        super().__init__(
            f"image{'s' * (len(self.images) > 1)} {listed} of X: the model was not fitted to "
            "tokens like these, and cannot forget them"
        )


def check_calibration(calibration: Mapping[str, Any]) -> None:
    """Raise where a threshold is no share of the training images' held-out scores.

    Parameters
    ----------
    calibration : mapping
        `calibration_` of a scorer or detector.

    Raises
    ------
    ValueError
        The message says what to do.
    """
    kind = calibration["kind"]
    if kind == "images":
        raise ValueError(
            "the threshold of this model was set by other images, whose scores the changed model "
            "would not give again: change the model before skanomaly.recalibrate(images=...)"
        )
    if kind != "contamination":
        raise ValueError(
            "the threshold of this model was given or tuned as a number, which would not hold for "
            "the changed model: set it back by skanomaly.recalibrate(model, contamination=...) "
            "first, and find it again afterwards"
        )


def check_alike(first: Any, other: Any, number: int) -> None:
    """Raise where two scorers are not of one class, with the same parameters and tokens.

    Parameters
    ----------
    first, other : GrowingScorer
        Fitted.
    number : int
        Of the other one, for the message.

    Raises
    ------
    TypeError, ValueError
        The message names the difference.
    """
    which = f"model {number} cannot be merged with model 0:"
    if type(other) is not type(first):
        raise TypeError(
            f"{which} its scorer is a {type(other).__name__}, not a {type(first).__name__}"
        )
    changed = {
        name: (value, other._params_at_fit.get(name))
        for name, value in first._params_at_fit.items()
        if name not in NO_MATTER and not equal_params(value, other._params_at_fit.get(name))
    }
    if changed:
        listed = ", ".join(f"{n} is {new!r}, not {old!r}" for n, (old, new) in changed.items())
        raise ValueError(f"{which} {listed}")
    if other.n_features_in_ != first.n_features_in_:
        raise ValueError(
            f"{which} its tokens have {other.n_features_in_} components, not {first.n_features_in_}"
        )
    before, now = (vars(scorer).get("_origin_at_fit") for scorer in (first, other))
    if before is not None and now is not None and (found := differences(before, now)):
        raise ValueError(f"{which} its tokens are others: {', '.join(found.values())}")
    if other._layout.n_views != first._layout.n_views:
        raise ValueError(
            f"{which} it has {other._layout.n_views} views of each image, not "
            f"{first._layout.n_views}"
        )
    try:
        first._check_growth(other._layout)
    except ValueError as exc:
        raise ValueError(f"{which} {exc}") from exc
