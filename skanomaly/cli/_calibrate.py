"""The command ``skanomaly calibrate``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import skanomaly
from skanomaly._output import Guard
from skanomaly._stamps import file_digest
from skanomaly._warn import warn_user
from skanomaly.cli._calibrate_request import check_request, target_of
from skanomaly.cli._inputs import LISTED, EmptyList, Null, image_paths
from skanomaly.cli._model_files import check_new_model, least_share, promise_of
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
from skanomaly.cli._resting import note_of, rests_on
from skanomaly.cli._settings import load_kept
from skanomaly.cli._summary import check_summary, give_summary
from skanomaly.cli._typed import cost, finite, fraction, share

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
            callback=share,
            rich_help_panel=_THRESHOLD,
            help="Flag this share of good images, above 0 and up to 0.5, such as 0.02; without it, "
            "the share stays.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="SCORE",
            callback=finite,
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
            help="Known defects: a file, folder or glob, or '-' for a list on standard input; "
            "repeatable. The threshold is then the one "
            "of least expected cost on these and IMAGES. Take no image that you mean to test on.",
        ),
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="SHARE",
            callback=fraction,
            rich_help_panel=_COSTS,
            help="Share of defective parts on the line, such as 0.01.",
        ),
    ] = None,
    cost_miss: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="COST",
            callback=cost,
            rich_help_panel=_COSTS,
            help="Cost of a defect that is missed; without it, 1.",
        ),
    ] = None,
    cost_false_alarm: Annotated[
        float | None,
        typer.Option(
            show_default=False,
            metavar="COST",
            callback=cost,
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
        images, anomalous = images or [], anomalous or []
        check_request(images, null, contamination, threshold, anomalous, costs)
        target = target_of(model, output, in_place)
        check_new_model(target, overwrite or in_place)
        good = _listed(images, null, "good image")
        bad = _listed(anomalous, null, "defect")
        _check_apart(good, bad)
        guard = Guard([*good, *bad, *(plugin or ()), *([] if in_place else [model])], overwrite)
        guard.check([target], lambda path: True)
        check_summary(json_file, guard, [target])
        before = load_kept(model, plugin, trust)
        tuned = None
        if anomalous:
            labels = [1] * len(good) + [-1] * len(bad)
            tuned = tune_threshold(before, [*good, *bad], labels, **costs)
            after = tuned.apply(before)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "the threshold rests on")  # the result says so
                after = recalibrate(
                    before,
                    contamination=contamination,
                    threshold=threshold,
                    images=good if images else None,
                )
        # Weights that came with the model go on with it.
        brought = any(weights["included"] for weights in model_manifest(model).get("weights", []))
        if threshold is not None:
            _warn_of_all_or_none(after)
        save_model(after, target, include_weights=brought)
        summary = {
            "command": "calibrate",
            "skanomaly": skanomaly.__version__,
            "model": str(model),
            "file": str(target),
            "before": _described(before),
            "after": _described(after),
            **_flagged(before, after, bool(images) and tuned is None and _are_new(before, good)),
            "rests_on": rests_on(after, good if images else None),
            "tuned": None if tuned is None else tuned.to_dict(),
        }
        give_summary(summary, lambda: print(_as_text(summary, tuned), flush=True), json_file)


def _listed(arguments: Sequence[str], null: bool, what: str) -> list[Path]:
    """Images that arguments stand for; none only where there are no arguments."""
    try:
        paths = list(image_paths(arguments, null=null and LISTED in arguments))
    except EmptyList as exc:
        raise ValueError(f"no {what} was listed on standard input") from exc
    return paths


def _check_apart(good: Sequence[Path], bad: Sequence[Path]) -> None:
    """Raise where one image, or a copy of it, is given as a good one and as a defect."""
    known = {_content(path) for path in good}
    both = [path for path in bad if _content(path) in known]
    if both:
        n = len(both)
        raise ValueError(
            f"{n} image{'s are' if n > 1 else ' is'} among IMAGES and among --anomalous, such as "
            f"{min(both)}: name good images and defects apart"
        )


def _content(path: Path) -> str:
    """What is the same of copies; of a file that cannot be read, which is said later, its name."""
    try:
        return file_digest(path)
    except (OSError, ValueError):
        return os.path.realpath(path)


def _are_new(model: Any, good: Sequence[Path]) -> bool:
    """Whether no image entered the model."""
    from skanomaly.inspection._training_images import trained_on

    return trained_on(model).keys().isdisjoint(map(_content, good))


def _warn_of_all_or_none(estimator: Any) -> None:
    """Warn where a threshold flags all good images that are known, or none."""
    from skanomaly._pipelines import split_pipeline

    scorer = split_pipeline(estimator).scorer
    scores = getattr(scorer, "train_scores_", ())
    flagged = [score < scorer.offset_ for score in scores]
    if flagged and all(flagged) == any(flagged):
        warn_user(
            f"this threshold flags {'all' if all(flagged) else 'none'} of the {len(flagged)} good "
            "images that the model was calibrated on, which score from "
            f"{min(scores):.6g} to {max(scores):.6g}"
        )


def _described(estimator: Any) -> dict[str, Any]:
    """Threshold and calibration of a model, in plain values, without the digests of images."""
    from skanomaly._pipelines import split_pipeline
    from skanomaly.inspection._limits import threshold_of

    scorer = split_pipeline(estimator).scorer
    calibration = {"n_resting_on": None, **getattr(scorer, "calibration_", {})}  # of older files
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
    expected = summary.get("expected_share")
    new = f"{after['threshold']:.6g}"
    if expected is None or expected <= after["contamination"]:
        new += _share_text(after)
    plural = "s" * (n != 1)
    lines = [f"threshold  {new}; it was {old}{_share_text(before)}"]
    if tuned is not None:
        lines += [f"  {name}: {value.strip()}" for name, value in tuned.rows()[1:]]
    elif n:
        lines.append(
            f"flagged    {summary['flagged_after']} of the {n} good image{plural} that "
            f"{'are' if n > 1 else 'is'} calibrated on"
            + ("" if summary["flagged_before"] is None else f"; {summary['flagged_before']} before")
        )
    if "flagged_before_interval" in summary:
        low, high = summary["flagged_before_interval"]
        lines.append(
            f"           (the threshold before flags {summary['flagged_before'] / n:.1%} of good "
            f"images now; as {n} image{plural} tell{'s' * (n == 1)}, {low:.1%} to {high:.1%})"
        )
    if expected is not None:
        low, high = summary["expected_share_interval"]
        lines.append(
            f"promise    {expected:.1%} of new good images will be flagged; "
            f"expect {low:.1%} to {high:.1%}"
        )
        lines += least_share(expected, after["contamination"])
    lines += note_of(summary["rests_on"], "calibrate" if after.get("kind") == "images" else "train")
    lines.append(f"model file {summary['file']}")
    return "\n".join(map(printable, lines))


def _share_text(described: dict[str, Any]) -> str:
    share = described.get("contamination")
    return "" if share is None else f", for {share:.1%} of good images"
