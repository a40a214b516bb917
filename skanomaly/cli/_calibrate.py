"""The command ``skanomaly calibrate``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import skanomaly
from skanomaly._output import Guard, check_folder
from skanomaly.cli._fit import promise_of
from skanomaly.cli._inputs import Null, image_paths
from skanomaly.cli._options import (
    OUTPUT,
    JsonSummary,
    MaxPixels,
    ModelFile,
    Overwrite,
    Plugin,
    Trust,
    home,
    plain_errors,
    printable,
)
from skanomaly.cli._settings import load_kept
from skanomaly.cli._summary import check_summary, give_summary

if TYPE_CHECKING:
    from skanomaly.decisions import TunedThreshold

_THRESHOLD, _COSTS = "Threshold", "Costs, with --anomalous"


def calibrate(
    model: ModelFile,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES...",
            callback=lambda values: home(values or []),
            show_default=False,
            help="Good images of the line as it is now: files, folders, globs ('new/**/*.png'), or "
            "'-' for a list on standard input. They take the place of the training images in the "
            "threshold; the model stays as it is.",
        ),
    ] = None,
    null: Null = False,
    contamination: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="SHARE",
            rich_help_panel=_THRESHOLD,
            help="Flag this share of good images, such as 0.02; without it, the share stays.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="SCORE",
            rich_help_panel=_THRESHOLD,
            help="Flag the images that score lower than this number.",
        ),
    ] = None,
    anomalous: Annotated[
        list[str] | None,
        typer.Option(
            "--anomalous",
            show_default=False,
            metavar="IMAGES",
            rich_help_panel=_THRESHOLD,
            callback=lambda values: home(values or []),
            help="Known defects: a file, folder or glob; repeatable. The threshold is then the one "
            "of least expected cost on these and IMAGES. Take no image that you mean to test on.",
        ),
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="SHARE",
            rich_help_panel=_COSTS,
            help="Share of defective parts on the line, such as 0.01.",
        ),
    ] = None,
    cost_miss: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="COST",
            rich_help_panel=_COSTS,
            help="Cost of a defect that is missed; without it, 1.",
        ),
    ] = None,
    cost_false_alarm: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="COST",
            rich_help_panel=_COSTS,
            help="Cost of a good part that is flagged; without it, 1.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            metavar="MODEL",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write the model with its new threshold into this file.",
        ),
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", rich_help_panel=OUTPUT, help="Write it into the file that was read."
        ),
    ] = False,
    plugin: Plugin = None,
    trust: Trust = None,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Move the threshold of a trained model, without training it again."""
    with plain_errors(max_pixels):
        from skanomaly import (
            model_manifest,
            recalibrate,
            save_model,
            tune_threshold,
        )

        costs: dict[str, Any] = {
            name: value
            for name, value in (
                ("prevalence", prevalence),
                ("cost_miss", cost_miss),
                ("cost_false_alarm", cost_false_alarm),
            )
            if value is not None
        }
        _check_request(images or [], contamination, threshold, anomalous or [], costs)
        target = _target(model, output, in_place)
        good = list(image_paths(images, null=null)) if images else []
        bad = list(image_paths(anomalous)) if anomalous else []
        _check_apart(good, bad)
        guard = Guard([*good, *bad, *(plugin or ()), *([] if in_place else [model])], overwrite)
        guard.check([target], lambda path: in_place or overwrite)
        check_folder(target.parent)
        check_summary(json_file, guard, [target])
        before = load_kept(model, plugin, trust)
        tuned = None
        if bad:
            labels = [1] * len(good) + [-1] * len(bad)
            tuned = tune_threshold(before, [*good, *bad], labels, **costs)
            after = tuned.apply(before)
        elif good:
            after = recalibrate(before, images=good, contamination=contamination)
        else:
            after = recalibrate(before, contamination=contamination, threshold=threshold)
        # Weights that came with the model go on with it.
        brought = any(weights["included"] for weights in model_manifest(model).get("weights", []))
        save_model(after, target, include_weights=brought)
        summary = {
            "command": "calibrate",
            "skanomaly": skanomaly.__version__,
            "model": str(model),
            "file": str(target),
            "before": _described(before),
            "after": _described(after),
            **_flagged(before, after, bool(good) and tuned is None),
            "tuned": None if tuned is None else tuned.to_dict(),
        }
        give_summary(summary, lambda: print(_as_text(summary, tuned), flush=True), json_file)


def _check_request(
    images: Sequence[str],
    contamination: float | None,
    threshold: float | None,
    anomalous: Sequence[str],
    costs: dict[str, float],
) -> None:
    """Raise where options ask for nothing, or for thresholds of two kinds."""
    if threshold is not None and (images or anomalous or contamination is not None):
        raise ValueError(
            "--threshold is the number itself: leave out IMAGES, --anomalous and --contamination"
        )
    if anomalous and contamination is not None:
        raise ValueError(
            "--anomalous asks for the threshold of least cost, --contamination for that of a share "
            "of good images: give one of them"
        )
    if anomalous and not images:
        raise ValueError("--anomalous takes good images too, as IMAGES, to know false alarms by")
    if costs and not anomalous:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in costs)
        raise ValueError(f"{names} is for a threshold by cost, which takes defects: --anomalous")
    if not images and contamination is None and threshold is None:
        raise ValueError("give good images, --contamination or --threshold: nothing else is moved")


def _target(model: Path, output: Path | None, in_place: bool) -> Path:
    if in_place == (output is not None):
        raise ValueError(
            "give --output FILE for the model with its new threshold, or --in-place to replace "
            f"{model}" + ("; not both" if in_place else "")
        )
    return model if output is None else output


def _check_apart(good: Sequence[Path], bad: Sequence[Path]) -> None:
    """Raise where one image is given as a good one and as a defect."""
    both = {os.path.realpath(path) for path in good} & {os.path.realpath(path) for path in bad}
    if both:
        raise ValueError(
            f"{len(both)} images are among IMAGES and among --anomalous, such as {min(both)}: name "
            "good images and defects apart"
        )


def _described(estimator: Any) -> dict[str, Any]:
    """Threshold and calibration of a model, in plain values, without the digests of images."""
    from skanomaly._pipelines import split_pipeline
    from skanomaly.inspection._limits import threshold_of

    scorer = split_pipeline(estimator).scorer
    calibration = dict(getattr(scorer, "calibration_", {}))
    calibration.pop("image_digests", None)
    return {"threshold": threshold_of(scorer), **calibration}


def _flagged(before: Any, after: Any, on_images: bool) -> dict[str, Any]:
    """What the old and the new threshold flag of the images that are calibrated on."""
    from skanomaly._pipelines import split_pipeline
    from skanomaly.decisions._rates import interval_of_rate

    scorer = split_pipeline(after).scorer
    scores = getattr(scorer, "train_scores_", None)
    if scores is None:
        return {"n_images": 0, "flagged_before": None, "flagged_after": None}
    old, new = (_described(estimator)["threshold"] for estimator in (before, after))
    n_before = None if old is None else int((scores < old).sum())
    found: dict[str, Any] = {
        "n_images": len(scores),
        "flagged_before": n_before,
        "flagged_after": int((scores < new).sum()),
    }
    if on_images and n_before is not None:
        # The old threshold had no part in these images: they tell what it flags now.
        interval = interval_of_rate(n_before, len(scores), 0.95)
        found["flagged_before_interval"] = list(interval)
    groups = scorer.calibration_.get("n_groups")
    return {**found, **promise_of(after, groups or len(scores))}


def _as_text(summary: dict[str, Any], tuned: TunedThreshold | None) -> str:
    before, after, n = summary["before"], summary["after"], summary["n_images"]
    old = "none" if before["threshold"] is None else f"{before['threshold']:.6g}"
    new = f"{after['threshold']:.6g}{_share_text(after)}"
    lines = [f"threshold  {new}; it was {old}{_share_text(before)}"]
    if tuned is not None:
        lines += [f"  {name}: {value.strip()}" for name, value in tuned.rows()[1:]]
    elif n:
        lines.append(
            f"flagged    {summary['flagged_after']} of the {n} good images that are calibrated on"
            + ("" if summary["flagged_before"] is None else f"; {summary['flagged_before']} before")
        )
    if "flagged_before_interval" in summary:
        low, high = summary["flagged_before_interval"]
        lines.append(
            f"           (the threshold before flags {summary['flagged_before'] / n:.1%} of good "
            f"images now; as {n} images tell, {low:.1%} to {high:.1%})"
        )
    if summary.get("expected_share") is not None:
        low, high = summary["expected_share_interval"]
        lines.append(
            f"promise    {summary['expected_share']:.1%} of new good images will be flagged; "
            f"expect {low:.1%} to {high:.1%}"
        )
    lines.append(f"model file {summary['file']}")
    return "\n".join(map(printable, lines))


def _share_text(described: dict[str, Any]) -> str:
    share = described.get("contamination")
    return "" if share is None else f", for {share:.1%} of good images"
