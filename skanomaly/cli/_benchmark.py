"""The command ``skanomaly benchmark``."""

from __future__ import annotations

from typing import Annotated

import typer

from skanomaly._output import Guard
from skanomaly.cli._evaluate import inputs_of
from skanomaly.cli._options import (
    MODEL,
    Category,
    Contamination,
    Json,
    Layout,
    MaxPixels,
    Overwrite,
    Plugin,
    Root,
    Seeds,
    Settings,
    Shots,
    import_plugins,
    known_models,
    plain_errors,
    read_splits,
)
from skanomaly.cli._results import evaluate_table
from skanomaly.cli._settings import check_caches, make_model
from skanomaly.cli._typed import WrongUsage


def benchmark(
    root: Root,
    models: Annotated[
        list[str],
        typer.Option(
            "--models",
            metavar="NAME...",
            rich_help_panel=MODEL,
            autocompletion=known_models,
            show_default=False,
            help="Compare these models, each a name of `skanomaly models` or a backbone: "
            "--models vision_tiny dinov2_vits14.",
        ),
    ],
    category: Category = None,
    layout: Layout = None,
    settings: Settings = None,
    plugin: Plugin = None,
    contamination: Contamination = None,
    shots: Shots = None,
    seeds: Seeds = 1,
    json_file: Json = None,
    overwrite: Overwrite = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Compare models: train and measure each of them on each category of a data set."""
    with plain_errors(max_pixels):
        if seeds > 1 and not shots:
            raise WrongUsage("--seeds is for --shots")
        if len(set(models)) < len(models):
            raise WrongUsage(f"--models names a model twice: {' '.join(models)}")
        import_plugins(plugin)
        splits = read_splits(root, layout, category)
        detectors = {
            name: make_model(name, contamination=contamination, settings=settings)
            for name in models
        }
        for detector in detectors.values():
            check_caches(detector)
        guard = Guard(inputs_of(splits, root, plugin or []), overwrite)
        evaluate_table(detectors, splits, shots or [None], seeds, json_file, guard)
