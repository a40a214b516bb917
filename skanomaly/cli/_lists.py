"""The commands that list what there is: the images of a folder, the models with a name."""

from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import skanomaly
from skanomaly.cli._options import Category, Layout, Plugin, Root, one_line_errors, read_splits
from skanomaly.registry._plugins import import_installed_plugins, import_plugin
from skanomaly.registry._table import SCORERS, summary
from skanomaly.registry._table import models as named_models


def datasets(
    root: Root,
    layout: Layout = None,
    category: Category = None,
):
    """Show what a folder holds, and what is wrong with it."""
    with one_line_errors():
        from skanomaly.datasets import find_problems

        table = Table("name", "part", "normal", "anomalous", "masks", "defect types")
        problems = []
        for split in read_splits(root, layout, category):
            for part in ("train", "validation", "test"):
                images = getattr(split, part)
                if images is not None:
                    kinds = sorted(set(images.defect_types) - {"good"})
                    table.add_row(
                        split.name,
                        part,
                        str(np.count_nonzero(images.y == 1)),
                        str(np.count_nonzero(images.y == -1)),
                        str(sum(mask is not None for mask in images.masks)),
                        ", ".join(kinds),
                    )
            problems += find_problems(split)
        Console().print(table)
        for path, reason in problems:
            print(f"{path}: {reason}")
        if problems:
            raise ValueError(f"{len(problems)} problems found")


def models(
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only models with this tag, such as zero-shot, few-shot, clip."),
    ] = None,
    plugin: Plugin = None,
) -> None:
    """List the models and the scorers that have a name."""
    with one_line_errors():
        for source in plugin or ():
            import_plugin(source)
        import_installed_plugins()
        table = Table("name", "what it is", "extra")
        table.columns[0].no_wrap = True
        for name in skanomaly.list_models(tag):
            entry = named_models()[name]
            table.add_row(name, entry.summary, ", ".join(entry.extras) or "-")
        Console().print(table)
        if not tag:
            table = Table("scorer", "what it is")
            for name, factory in sorted(SCORERS.items()):
                table.add_row(name, summary(factory))
            Console().print(table)
