"""The command ``skanomaly report``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import skanomaly
from skanomaly._output import Guard
from skanomaly.cli._evaluate import inputs_of
from skanomaly.cli._inputs import Null, image_paths
from skanomaly.cli._options import (
    DATA,
    OUTPUT,
    Category,
    JsonSummary,
    Layout,
    MaxPixels,
    ModelFile,
    Overwrite,
    Plugin,
    Trust,
    home,
    plain_errors,
    printable,
    read_splits,
)
from skanomaly.cli._settings import load_kept
from skanomaly.cli._summary import check_summary, give_summary
from skanomaly.cli._typed import WrongUsage, cost


def report(
    model: ModelFile,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES...",
            callback=lambda values: home(values or []),
            show_default=False,
            help="Files, folders with all below them, globs ('parts/**/*.png'), or '-' for a list "
            "on standard input, one path a line; or a data set with --data.",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write the report into this HTML file; an earlier report is replaced.",
        ),
    ] = Path("report.html"),
    null: Null = False,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOT",
            callback=home,
            show_default=False,
            rich_help_panel=DATA,
            help="Report on the test images of this data set, with what is known of them: labels, "
            "types of defects, masks.",
        ),
    ] = None,
    category: Category = None,
    layout: Layout = None,
    cost_miss: Annotated[
        float,
        typer.Option(
            metavar="COST",
            callback=cost,
            rich_help_panel=OUTPUT,
            help="Begin with this cost of a defective part that passes.",
        ),
    ] = 1.0,
    cost_false_alarm: Annotated[
        float,
        typer.Option(
            metavar="COST",
            callback=cost,
            rich_help_panel=OUTPUT,
            help="Begin with this cost of a good part that is flagged.",
        ),
    ] = 1.0,
    plugin: Plugin = None,
    trust: Trust = None,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Show what a model says of images in one HTML file: ranked, with heat maps and a slider."""
    with plain_errors(max_pixels):
        from skanomaly._results.digests import split_files
        from skanomaly._results.scored import scored_images
        from skanomaly.cli._training_set import check_readable
        from skanomaly.evaluation import evaluation_of
        from skanomaly.report._html import check_report_file, save_report

        if cost_miss == cost_false_alarm == 0:
            raise WrongUsage("--cost-miss and --cost-false-alarm are both 0")
        _check_sources(images, data, category, layout)
        if null and data is not None:
            raise WrongUsage("--null is for a list on standard input, in place of --data")
        split = None if data is None else _read_split(data, layout, category)
        paths = list(image_paths(images or [], null=null)) if split is None else split_files(split)
        others = [*paths, model, *(plugin or ())]
        inputs = inputs_of([] if split is None else [split], data, others)
        guard = Guard(inputs, overwrite)
        target = check_report_file(output, guard)
        check_summary(json_file, guard, [output])
        fitted = load_kept(model, plugin, trust)
        if split is None:
            check_readable(paths, fitted)
        result: Any = (
            scored_images(fitted, paths) if split is None else evaluation_of(fitted, split)
        )
        save_report(
            result,
            target,
            cost_miss=cost_miss,
            cost_false_alarm=cost_false_alarm,
            command=shlex.join(["skanomaly", *sys.argv[1:]]),
        )
        summary = {
            "command": "report",
            "skanomaly": skanomaly.__version__,
            "model": str(model),
            "file": str(output),
            "bytes": target.stat().st_size,
            "n_images": len(result.scores),
            "n_anomalous": int((result.scores < result.threshold).sum()),
            "threshold": result.threshold,
            "metrics": {} if split is None else result.metrics,
        }
        give_summary(summary, lambda: print(printable(_as_text(summary)), flush=True), json_file)


def _check_sources(images, data, category, layout):
    if bool(images) == (data is not None):
        raise WrongUsage("name the images, or the data set that they are in with --data; not both")
    if data is None and (category is not None or layout is not None):
        raise WrongUsage("--category and --layout are for --data")


def _read_split(root, layout, category):
    splits = read_splits(root, layout, category)
    if len(splits) > 1:
        names = ", ".join(split.name for split in splits[:5])
        raise ValueError(f"{root} holds {len(splits)} data sets ({names}, ...): name a --category")
    (split,) = splits
    if len(set(split.test.y)) < 2:
        raise ValueError(
            f"{split.name} has no good, or no defective, test images, and nothing can be measured: "
            "leave out --data and name the images for a report without measures"
        )
    return split


def _as_text(summary):
    size = summary["bytes"] / 1e6
    return (
        f"{summary['file']} ({size:.1f} MB): {summary['n_anomalous']} of {summary['n_images']} "
        "images called anomalous"
    )
