"""The command ``skanomaly``."""

from __future__ import annotations

from typing import Annotated

import typer

import skanomaly
from skanomaly.cli import _weights
from skanomaly.cli._datasets import datasets
from skanomaly.cli._demo import demo
from skanomaly.cli._evaluate import evaluate
from skanomaly.cli._info import info
from skanomaly.cli._models import models

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
# What is left over are numbers of --shots, or options that there are not, which say what is meant.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(evaluate)
app.command()(datasets)
app.command()(models)
app.command()(info)
app.add_typer(_weights.app, name="weights")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(skanomaly.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
) -> None:
    """Visual anomaly detection for scikit-learn."""
