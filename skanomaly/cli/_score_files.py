"""The command ``skanomaly score-files``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

import skanomaly
from skanomaly._output import Guard
from skanomaly.cli._inputs import ImageArguments, Null, image_paths
from skanomaly.cli._options import (
    DATA,
    LIMITS,
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
from skanomaly.cli._typed import WrongUsage


def score_files(
    model: ModelFile,
    images: ImageArguments,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            metavar="FOLDER",
            callback=home,
            rich_help_panel=OUTPUT,
            help="Write Parquet files into this folder, in which there is nothing else; go on with "
            "those of the same model, images and shards.",
        ),
    ],
    null: Null = False,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            rich_help_panel=DATA,
            help="Judge the images of shard I of N, counted from 0; those of the others are for "
            "other processes and machines, given the same images.",
        ),
    ] = "0/1",
    plugin: Plugin = None,
    trust: Trust = None,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", rich_help_panel=LIMITS, help="Score so many images at a time."
        ),
    ] = 16,
    rows_per_file: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=LIMITS,
            help="Write so many rows a file; what a kill loses is one file.",
        ),
    ] = 4096,
    max_pixels: MaxPixels = None,
) -> None:
    """Judge images into a folder of Parquet files, on one machine or a shard on each of several."""
    with plain_errors(max_pixels):
        number, n_shards = _parsed(shard)
        paths = image_paths(images, null=null)
        check_summary(json_file, Guard([model, *(plugin or ())], overwrite), [output])
        estimator = load_kept(model, plugin, trust)
        counts = skanomaly.score_files(
            estimator,
            paths,
            out=output,
            shard=number,
            n_shards=n_shards,
            batch_size=batch_size,
            rows_per_file=rows_per_file,
        )
        summary = {
            "command": "score-files",
            "skanomaly": skanomaly.__version__,
            "model": str(model),
            "folder": str(output),
            **counts,
        }
        give_summary(summary, lambda: print(printable(_as_text(summary)), flush=True), json_file)


def _parsed(shard):
    numbers = re.fullmatch(r"([0-9]+)/([0-9]+)", shard)
    if numbers is None or not int(numbers[1]) < int(numbers[2]):
        raise WrongUsage(f"--shard takes I/N, such as 0/4 to 3/4, got {shard!r}")
    return int(numbers[1]), int(numbers[2])


def _as_text(summary):
    judged = [f"{summary[kind]} {kind}" for kind in ("anomalous", "normal", "failed")]
    return (
        f"{summary['folder']}: {summary['images']} images of shard {summary['shard']} of "
        f"{summary['n_shards']}, {summary['kept']} judged before; {', '.join(judged)}"
    )
