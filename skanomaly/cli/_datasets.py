"""The command ``skanomaly datasets``."""

from __future__ import annotations

import sys
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from skanomaly.cli._options import (
    DATA,
    Category,
    Layout,
    MaxPixels,
    Root,
    plain_errors,
    printable,
    read_splits,
    shown,
)


def datasets(
    root: Root,
    layout: Layout = None,
    category: Category = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            rich_help_panel=DATA,
            help="Decode every image, to find damaged files, copies and near copies.",
        ),
    ] = False,
    max_pixels: MaxPixels = None,
) -> None:
    """Show what a data set holds, and what is wrong with it: damaged files, copies, odd masks."""
    with plain_errors(max_pixels):
        from skanomaly.datasets import find_problems

        table = Table("name", "part", "normal", "anomalous", "masks", "defect types")
        problems = []
        for split in read_splits(root, layout, category):
            for part in ("train", "validation", "test"):
                images = getattr(split, part)
                if images is not None:
                    kinds = sorted(set(images.defect_types) - {"good"})
                    table.add_row(
                        shown(split.name),
                        part,
                        str(np.count_nonzero(images.y == 1)),
                        str(np.count_nonzero(images.y == -1)),
                        str(sum(mask is not None for mask in images.masks)),
                        shown(", ".join(kinds)),
                    )
            problems += find_problems(split, deep, verbose=deep and sys.stderr.isatty())
        Console().print(table)
        for path, reason in problems:
            print(printable(f"{path}: {reason}"))
        if problems:
            raise ValueError(f"{len(problems)} problems found")
