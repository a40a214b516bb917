"""The commands that list what there is: the images of a folder, the models with a name."""

from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import skanomaly
from skanomaly.cli._options import Category, Layout, Root, one_line_errors, read_splits


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
):
    """List the models that have a name."""
    with one_line_errors():
        table = Table("name", "what it is", "extra")
        table.columns[0].no_wrap = True
        for name in skanomaly.list_models(tag):
            info = skanomaly.model_info(name)
            table.add_row(name, info.summary, ", ".join(info.extras) or "-")
        Console().print(table)
