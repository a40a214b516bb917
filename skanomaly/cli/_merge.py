"""The command ``skanomaly merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import skanomaly
from skanomaly._output import Guard
from skanomaly.cli._changed import NewModel, as_text, brings_weights, described, plural
from skanomaly.cli._model_files import check_new_model
from skanomaly.cli._options import JsonSummary, Overwrite, Plugin, Trust, home, plain_errors
from skanomaly.cli._settings import load_kept
from skanomaly.cli._summary import check_summary, give_summary
from skanomaly.cli._typed import WrongUsage


def merge(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODELS...",
            callback=home,
            show_default=False,
            help="Files of trained models, two or more: of the same steps, parameters and weights, "
            "each from images of its own.",
        ),
    ],
    *,
    output: NewModel,
    plugin: Plugin = None,
    trust: Trust = None,
    json_file: JsonSummary = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one model of several that were trained on other images, here or elsewhere."""
    with plain_errors():
        from skanomaly.growth import merge_models

        if len({path.resolve() for path in models}) < max(2, len(models)):
            raise WrongUsage("merge takes two models or more, each named once")
        check_new_model(output, overwrite)
        guard = Guard([*models, *(plugin or ())], overwrite)
        guard.check([output], lambda path: True)
        check_summary(json_file, guard, [output])
        parts = [load_kept(path, plugin, trust) for path in models]
        merged = merge_models(parts)
        skanomaly.save_model(merged, output, include_weights=brings_weights(*models))
        summary = {
            "command": "merge",
            "skanomaly": skanomaly.__version__,
            "models": [str(path) for path in models],
            "file": str(output),
            "before": None,
            **described(merged),
        }
        what = f"merged     {len(models)} models of {plural(summary['n_images'])}"
        give_summary(summary, lambda: print(as_text(summary, what), flush=True), json_file)
