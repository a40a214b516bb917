"""What ``skanomaly calibrate`` is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from skanomaly.cli._inputs import LISTED
from skanomaly.cli._typed import WrongUsage


def check_request(
    images: Sequence[str],
    null: bool,
    contamination: float | None,
    threshold: float | None,
    anomalous: Sequence[str],
    costs: dict[str, float],
) -> None:
    """Raise where options ask for nothing, or for thresholds of two kinds."""
    if threshold is not None and (images or anomalous or contamination is not None):
        raise WrongUsage(
            "--threshold is the number itself: leave out IMAGES, --anomalous and --contamination"
        )
    if anomalous and contamination is not None:
        raise WrongUsage(
            "--anomalous asks for the threshold of least cost, --contamination for that of a share "
            "of good images: give one of them"
        )
    if anomalous and not images:
        raise WrongUsage("--anomalous takes good images too, as IMAGES, to know false alarms by")
    if costs and not anomalous:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in costs)
        raise WrongUsage(f"{names} is for a threshold by cost, which takes defects: --anomalous")
    if costs.get("cost_miss") == costs.get("cost_false_alarm") == 0:
        raise WrongUsage("--cost-miss and --cost-false-alarm are both 0: nothing costs anything")
    if not images and contamination is None and threshold is None:
        raise WrongUsage("give good images, --contamination or --threshold: nothing else is moved")
    n_lists = [*images, *anomalous].count(LISTED)
    if n_lists > 1:
        raise WrongUsage(f"'{LISTED}', the list on standard input, can be given once only")
    if null and not n_lists:
        raise WrongUsage(f"--null is for a list on standard input: give '{LISTED}' for images")


def target_of(model: Path, output: Path | None, in_place: bool) -> Path:
    """The file to write."""
    if in_place == (output is not None):
        raise WrongUsage(
            "give --output FILE for the model with its new threshold, or --in-place to replace "
            f"{model}" + ("; not both" if in_place else "")
        )
    if output is not None and os.path.realpath(output) == os.path.realpath(model):
        raise WrongUsage(f"--output {output} is the model itself, which --in-place replaces")
    return model if output is None else output
