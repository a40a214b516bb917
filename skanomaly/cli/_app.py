"""The command ``skanomaly``."""

from typing import Annotated

import typer

import skanomaly
from skanomaly.cli import _evaluate, _lists, _weights

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(_evaluate.demo)
app.command(context_settings={"allow_extra_args": True})(_evaluate.evaluate)
app.command()(_lists.datasets)
app.command()(_lists.models)
app.add_typer(_weights.app, name="weights")


def _show_version(wanted: bool):
    if wanted:
        print(skanomaly.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
):
    """Visual anomaly detection for scikit-learn."""
