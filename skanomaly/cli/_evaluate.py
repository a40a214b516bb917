"""The command ``skanomaly evaluate``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from skanomaly._output import Guard
from skanomaly.cli._options import (
    Category,
    Json,
    Layout,
    MaxPixels,
    Output,
    Overwrite,
    Plugin,
    Root,
    home,
    import_plugins,
    more_shots,
    plain_errors,
    read_splits,
)
from skanomaly.cli._results import evaluate_few_shots, evaluate_splits
from skanomaly.cli._settings import check_caches, make_model
from skanomaly.registry import list_scorers


def evaluate(
    context: typer.Context,
    root: Root,
    model: Annotated[
        str,
        typer.Option(
            help="A name of `skanomaly models`; or a backbone: dinov2_vits14 (or another of "
            "DinoV2Patches), ViT-B-16/openai (or another of open_clip), or any name of timm."
        ),
    ] = "filterbank",
    weights: Annotated[
        str | None,
        typer.Option(
            callback=home,
            help="File of the model's weights, or the checkpoint of a model of anomalib; without "
            "it, pretrained weights are downloaded.",
        ),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(
            help=f"In place of the model's own: {', '.join(list_scorers())}, or one of --plugin. "
            "A backbone has knn."
        ),
    ] = None,
    contamination: Annotated[
        float | None,
        typer.Option(help="Share of good images that may be flagged; without it, the model's own."),
    ] = None,
    shots: Annotated[
        list[int] | None, typer.Option(help="Train on so many good images: --shots 1 2 4.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Choices of images for each of --shots.")] = 1,
    category: Category = None,
    layout: Layout = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other parameter of the model, by its name or as step__name, such as "
            "image_size=448, layers=5,8, knn__coreset=0.1, device=cuda:0, cache_dir=FOLDER; "
            "repeatable. `skanomaly models NAME` lists them.",
        ),
    ] = None,
    plugin: Plugin = None,
    output: Output = None,
    json_file: Json = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Train on the good images of a data set, and measure on its test images."""
    with plain_errors(max_pixels):
        shots = more_shots(shots, root, context)
        import_plugins(plugin)
        splits = read_splits(root, layout, category)
        if shots and output is not None:
            raise ValueError("--output is for one training set; leave out --shots")
        if seeds > 1 and not shots:
            raise ValueError("--seeds is for --shots")
        if output is not None:
            _check_apart(output, root)
        detector = make_model(
            model,
            scorer=scorer,
            weights=weights,
            contamination=contamination,
            settings=settings,
        )
        check_caches(detector)
        guard = Guard(_inputs(splits, root, [weights, *(plugin or ())]), overwrite)
        if shots:
            evaluate_few_shots(model, detector, splits, shots, seeds, json_file, guard)
        else:
            evaluate_splits(model, detector, splits, output, json_file, guard)


def _check_apart(output, data):
    """Raise where the next run would look for images and find the pictures."""
    out, root = Path(os.path.realpath(output)), Path(os.path.realpath(data))
    if data.is_dir() and (out.is_relative_to(root) or out == root.parent):
        where = "holds" if out == root.parent else "lies in"
        raise ValueError(
            f"--output {output} {where} {data}, where the next run would take its folders for "
            "classes or data sets: name a folder of its own outside of the data set"
        )


def _inputs(splits, root, others):
    """The files that a run reads."""
    from skanomaly._results.digests import split_files
    from skanomaly.datasets._loco import CONFIG
    from skanomaly.datasets._realiad import LISTS

    yield from (path for path in (root, *others) if path is not None)
    for pattern in ("manifest.*", "split_csv/*", f"{LISTS}/*", CONFIG):
        for place in (pattern, f"*/{pattern}"):
            yield from root.glob(place) if root.is_dir() else ()
    for split in splits:
        yield from split_files(split)
