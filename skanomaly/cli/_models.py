"""The command ``skanomaly models``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import skanomaly
from skanomaly.cli._options import MODEL, Plugin, import_plugins, known_models, plain_errors
from skanomaly.registry._plugins import import_installed_plugins
from skanomaly.registry._steps import holders
from skanomaly.registry._table import SCORERS, summary
from skanomaly.registry._table import models as entries


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=known_models,
            show_default=False,
            help="Show this model, scorer or backbone, with its parameters; without it, all names.",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG",
            rich_help_panel=MODEL,
            show_default=False,
            help="List only models with this tag, such as zero-shot, few-shot, clip; repeatable.",
        ),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """List the models that have a name, or show what one of them is and takes."""
    with plain_errors():
        import_plugins(plugin)
        import_installed_plugins()
        if name is None:
            _list_models(tag)
        else:
            _show_model(name)


def _list_models(tag):
    table = Table("model", "what it is", "extra")
    table.columns[0].no_wrap = True
    for name in skanomaly.list_models(tag):
        # Not model_info, which makes the steps: a registered one that fails still has a name.
        entry = entries()[name]
        table.add_row(name, escape(entry.summary), ", ".join(entry.extras) or "-")
    Console().print(table)
    if not tag:
        table = Table("scorer", "what it is")
        for name, factory in sorted(SCORERS.items()):
            table.add_row(name, escape(summary(factory)))
        Console().print(table)


def _show_model(name):
    if name in skanomaly.list_models():
        info = skanomaly.model_info(name)
        parameters = info.parameters
        Console().print(_known_of(info))
    elif name in SCORERS:
        print(f"{name} is a scorer, for any model: skanomaly evaluate ROOT --scorer {name}")
        parameters = _parameters([(name, SCORERS[name]())])
    else:  # a backbone, or a union
        made = skanomaly.create_model(name)
        parameters = _parameters(getattr(made, "steps", [("", made)]))
    table = Table("parameter, for --set", "value")
    table.columns[0].no_wrap = True
    for key, value in sorted(parameters.items()):
        table.add_row(key, escape(repr(value)))
    Console().print(table)


def _parameters(steps):
    return {
        f"{prefix}{key}": value
        for prefix, estimator in holders(steps).items()
        for key, value in estimator.get_params(deep=not hasattr(estimator, "detectors")).items()
        if key != "detectors"
    }


def _known_of(info):
    table = Table(title=info.name, title_justify="left", show_header=False)
    for key, value in (
        ("what it is", info.summary),
        ("tags", ", ".join(info.tags)),
        ("extras", ", ".join(info.extras)),
        ("paper", info.paper),
        ("licence", info.licence),
        ("notes", info.notes),
    ):
        if value:
            table.add_row(key, escape(value))
    return table
